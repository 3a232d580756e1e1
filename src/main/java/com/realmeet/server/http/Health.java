package com.realmeet.server.http;

import io.javalin.http.Context;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.Semaphore;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;

/** Whether the process runs, and whether it can serve: two questions, for two kinds of askers. */
public final class Health {
  /** The longest that the answer about readiness takes. */
  private static final Duration READY_TIMEOUT = Duration.ofSeconds(1);

  private static final int MAX_WAITING = 8;

  private record Alive(String status, Instant timestamp, String service) {}

  private record Readiness(String status, String database) {}

  private final Predicate<Duration> databaseAnswersWithin;
  private final BooleanSupplier stopping;
  private final Semaphore waiting = new Semaphore(MAX_WAITING);
  private volatile boolean answered;

  public Health(Predicate<Duration> databaseAnswersWithin, BooleanSupplier stopping) {
    this.databaseAnswersWithin = databaseAnswersWithin;
    this.stopping = stopping;
  }

  /** Touches neither database nor Clerk: an uptime monitor must let a Neon database sleep. */
  public void alive(Context ctx) {
    ctx.json(new Alive("ok", Instant.now(), "real-meet-server"));
  }

  /** For a load balancer: 503 while requests had better go to another server. */
  public void ready(Context ctx) {
    boolean databaseAnswers = databaseAnswers();
    boolean ready = databaseAnswers && !stopping.getAsBoolean();
    ctx.status(ready ? 200 : 503).json(new Readiness(word(ready), word(databaseAnswers)));
  }

  /** Only a few requests wait for a hanging database; to the others the last result must do. */
  private boolean databaseAnswers() {
    if (!waiting.tryAcquire()) {
      return answered;
    }
    try {
      answered = databaseAnswersWithin.test(READY_TIMEOUT);
      return answered;
    } finally {
      waiting.release();
    }
  }

  private static String word(boolean ok) {
    return ok ? "ok" : "unavailable";
  }
}
