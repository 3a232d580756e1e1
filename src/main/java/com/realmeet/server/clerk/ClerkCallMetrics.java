package com.realmeet.server.clerk;

import com.realmeet.server.core.Failure;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** How long calls to Clerk take, a second try included, by what was asked and what came of it. */
final class ClerkCallMetrics {
  private enum Outcome {
    OK,
    NOT_FOUND,
    /** A 429. While Clerk wants no calls, none is made. */
    THROTTLED,
    /** Clerk rejects the secret key. */
    REFUSED,
    UNAVAILABLE,
    UNEXPECTED
  }

  private static final Duration[] BUCKETS = {
    Duration.ofMillis(50),
    Duration.ofMillis(100),
    Duration.ofMillis(250),
    Duration.ofMillis(500),
    Duration.ofSeconds(1),
    Duration.ofMillis(2500)
  };

  private final MeterRegistry meters;

  /** What a server asks is there from the start: an alert cannot see a first increase. */
  ClerkCallMetrics(MeterRegistry meters) {
    this.meters = meters;
    timer("user", Outcome.OK);
    timer("keys", Outcome.OK);
  }

  /** Makes a call, and notes how long it took and how it ended. */
  <T> T measure(String call, Supplier<T> work) {
    long began = System.nanoTime();
    Outcome outcome = Outcome.UNEXPECTED;
    try {
      T result = work.get();
      outcome = Optional.empty().equals(result) ? Outcome.NOT_FOUND : Outcome.OK;
      return result;
    } catch (Failure e) {
      outcome = outcome(e);
      throw e;
    } finally {
      timer(call, outcome).record(System.nanoTime() - began, TimeUnit.NANOSECONDS);
    }
  }

  private static Outcome outcome(Failure failure) {
    return switch (failure.kind()) {
      case CLERK_UNAVAILABLE -> failure.isThrottled() ? Outcome.THROTTLED : Outcome.UNAVAILABLE;
      case CLERK_UNAUTHORIZED -> Outcome.REFUSED;
      default -> Outcome.UNEXPECTED;
    };
  }

  private Timer timer(String call, Outcome outcome) {
    return Timer.builder("clerk.calls")
        .description("Time of a call to Clerk")
        .tag("call", call)
        .tag("outcome", outcome.name().toLowerCase(Locale.ROOT))
        .serviceLevelObjectives(BUCKETS)
        .register(meters);
  }
}
