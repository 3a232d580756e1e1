package com.realmeet.server.clerk;

import com.realmeet.server.core.Failure;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Measures the duration of calls to Clerk, including a retry, by type of call and outcome. */
final class ClerkCallMetrics {
  private enum Outcome {
    OK,
    NOT_FOUND,
    /** Clerk responded 429. Calls that the back-off prevents are not counted. */
    THROTTLED,
    /** Clerk rejects the secret key. */
    REFUSED,
    UNAVAILABLE,
    UNEXPECTED
  }

  /** Histogram buckets, up to about the time that a request leaves for Clerk. */
  private static final Duration[] BUCKETS = {
    Duration.ofMillis(50),
    Duration.ofMillis(100),
    Duration.ofMillis(250),
    Duration.ofMillis(500),
    Duration.ofSeconds(1),
    Duration.ofMillis(2500)
  };

  private final MeterRegistry meters;

  /**
   * Registers the series at start: Prometheus' increase() ignores the first sample of a new series.
   */
  ClerkCallMetrics(MeterRegistry meters) {
    this.meters = meters;
    timer("user", Outcome.OK);
    timer("keys", Outcome.OK);
  }

  /** Makes a call, and records its duration and outcome. */
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
