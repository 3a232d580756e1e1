package com.realmeet.server.users;

import com.realmeet.server.core.Failure;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.TimeGauge;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** Counts webhooks by type and outcome, and measures the time since the last successful one. */
final class WebhookMetrics {
  /** Type of requests without a valid signature, whatever type their body has. */
  static final String UNVERIFIED = "unverified";

  private static final List<String> TYPES = List.of("user.created", "user.updated", "user.deleted");

  private final MeterRegistry meters;
  private final AtomicBoolean hasAge = new AtomicBoolean();
  private volatile long lastSuccessNanos;

  /**
   * Registers the series at start: Prometheus' increase() ignores the first sample of a new series.
   */
  WebhookMetrics(MeterRegistry meters) {
    this.meters = meters;
    for (String type : TYPES) {
      counter(type, "ok");
      counter(type, "failed");
    }
    counter(UNVERIFIED, "refused");
  }

  /** Records a webhook with response 200. */
  void succeeded(String type) {
    counter(type, "ok").increment();
    lastSuccessNanos = System.nanoTime();
    if (hasAge.compareAndSet(false, true)) {
      TimeGauge.builder("clerk.webhook.age", this, TimeUnit.NANOSECONDS, WebhookMetrics::age)
          .description("Time since the last good webhook; absent before the first since the start")
          .register(meters);
    }
  }

  /**
   * Records a webhook that was rejected with 400 (refused), or that Clerk will send again (failed).
   */
  void failed(String type, RuntimeException reason) {
    boolean refused = reason instanceof Failure failure && failure.kind().status == 400;
    counter(type, refused ? "refused" : "failed").increment();
  }

  private double age() {
    return System.nanoTime() - lastSuccessNanos;
  }

  private Counter counter(String type, String outcome) {
    boolean known = TYPES.contains(type) || type.equals(UNVERIFIED);
    return Counter.builder("clerk.webhooks")
        .description("Webhooks received")
        .tag("type", known ? type : "other")
        .tag("outcome", outcome)
        .register(meters);
  }
}
