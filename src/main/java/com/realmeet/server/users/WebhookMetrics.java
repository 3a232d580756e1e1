package com.realmeet.server.users;

import com.realmeet.server.core.Failure;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.TimeGauge;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** How many webhooks have come, by type and by what came of them; and how long ago the last did. */
final class WebhookMetrics {
  /** The type of what is not signed by Clerk, whatever it calls itself. */
  static final String UNVERIFIED = "unverified";

  private static final List<String> TYPES = List.of("user.created", "user.updated", "user.deleted");

  private final MeterRegistry meters;
  private final AtomicBoolean hasAge = new AtomicBoolean();
  private volatile long lastSuccessNanos;

  /** All that matters is there from the start: an alert cannot see a first increase. */
  WebhookMetrics(MeterRegistry meters) {
    this.meters = meters;
    for (String type : TYPES) {
      counter(type, "ok");
      counter(type, "failed");
    }
    counter(UNVERIFIED, "refused");
  }

  /** Notes a webhook that was answered with 200. */
  void succeeded(String type) {
    counter(type, "ok").increment();
    lastSuccessNanos = System.nanoTime();
    if (hasAge.compareAndSet(false, true)) {
      TimeGauge.builder("clerk.webhook.age", this, TimeUnit.NANOSECONDS, WebhookMetrics::age)
          .description("Time since the last good webhook; absent before the first since the start")
          .register(meters);
    }
  }

  /** Notes a webhook that was refused with a 400, or that Clerk is to send again. */
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
