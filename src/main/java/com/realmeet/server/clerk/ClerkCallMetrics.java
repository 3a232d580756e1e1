package com.realmeet.server.clerk;

import com.realmeet.server.core.Failure;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.stream.LongStream;

/** Measures the duration of calls to Clerk, including a retry, by type of call and outcome. */
final class ClerkCallMetrics {
  /** Histogram buckets, up to about the time that a request leaves for Clerk. */
  private static final Duration[] BUCKETS =
      LongStream.of(50, 100, 250, 500, 1000, 2500)
          .mapToObj(Duration::ofMillis)
          .toArray(Duration[]::new);

  private final MeterRegistry meters;

  /**
   * Registers the series at start: Prometheus' increase() ignores the first sample of a new series.
   */
  ClerkCallMetrics(MeterRegistry meters) {
    this.meters = meters;
    timer("user", "ok");
    timer("keys", "ok");
  }

  /** Makes a call, and records its duration and outcome. */
  <T> T measure(String call, Supplier<T> work) {
    long began = System.nanoTime();
    String outcome = "unexpected";
    try {
      T result = work.get();
      outcome = Optional.empty().equals(result) ? "not_found" : "ok";
      return result;
    } catch (Failure e) {
      outcome = outcome(e);
      throw e;
    } finally {
      timer(call, outcome).record(System.nanoTime() - began, TimeUnit.NANOSECONDS);
    }
  }

  private static String outcome(Failure failure) {
    return switch (failure.kind()) {
      case CLERK_UNAVAILABLE -> failure.isThrottled() ? "throttled" : "unavailable";
      case CLERK_UNAUTHORIZED -> "refused";
      default -> "unexpected";
    };
  }

  private Timer timer(String call, String outcome) {
    return Timer.builder("clerk.calls")
        .description("Time of a call to Clerk")
        .tag("call", call)
        .tag("outcome", outcome)
        .serviceLevelObjectives(BUCKETS)
        .register(meters);
  }
}
