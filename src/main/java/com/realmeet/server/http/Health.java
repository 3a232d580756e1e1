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

  private record Liveness(String status, Instant timestamp, String service) {}

  private record Readiness(String status, String database) {}

  private final Predicate<Duration> pingDatabase;
  private final BooleanSupplier stopping;
  private final Semaphore waiting = new Semaphore(MAX_WAITING);
  private volatile boolean lastResult;

  public Health(Predicate<Duration> pingDatabase, BooleanSupplier stopping) {
    this.pingDatabase = pingDatabase;
    this.stopping = stopping;
  }

  /** Touches neither database nor Clerk: an uptime monitor must let a Neon database sleep. */
  public void alive(Context ctx) {
    ctx.json(new Liveness("ok", Instant.now(), "real-meet-server"));
  }

  /** For a load balancer: 503 while requests had better go to another server. */
  public void ready(Context ctx) {
    boolean databaseUp = isDatabaseUp();
    boolean ready = databaseUp && !stopping.getAsBoolean();
    ctx.status(ready ? 200 : 503).json(new Readiness(word(ready), word(databaseUp)));
  }

  /** Only a few requests wait for a hanging database; to the others the last result must do. */
  private boolean isDatabaseUp() {
    if (!waiting.tryAcquire()) {
      return lastResult;
    }
    try {
      lastResult = pingDatabase.test(READY_TIMEOUT);
      return lastResult;
    } finally {
      waiting.release();
    }
  }

  private static String word(boolean ok) {
    return ok ? "ok" : "unavailable";
  }
}
