package com.realmeet.server.http;

import io.javalin.http.Context;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.Semaphore;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;

/** Handles liveness (the process runs) and readiness (it can serve requests). */
public final class Health {
  /** Maximum time that a readiness request waits for the database. */
  private static final Duration READY_TIMEOUT = Duration.ofSeconds(1);

  /**
   * Requests that may wait for a hanging database at the same time; the others get the last result.
   */
  private static final int MAX_WAITING = 8;

  private record Liveness(String status, Instant timestamp, String service) {}

  private record Readiness(String status, String database) {}

  private final Predicate<Duration> pingDatabase;
  private final BooleanSupplier stopping;
  private final Semaphore waiting = new Semaphore(MAX_WAITING);
  private volatile boolean lastResult = true; // the start has used the database

  /**
   * @param pingDatabase returns whether the database responds within a time
   * @param stopping returns whether the server is shutting down
   */
  public Health(Predicate<Duration> pingDatabase, BooleanSupplier stopping) {
    this.pingDatabase = pingDatabase;
    this.stopping = stopping;
  }

  /**
   * Responds 200. Uses neither database nor Clerk, so that an uptime monitor does not keep a Neon
   * database from suspending.
   */
  public void alive(Context ctx) {
    ctx.json(new Liveness("ok", Instant.now(), "real-meet-server"));
  }

  /**
   * Responds 200, or 503 while a load balancer should route requests to another instance: the
   * database does not respond, or the server is stopping.
   */
  public void ready(Context ctx) {
    boolean databaseUp = isDatabaseUp();
    boolean ready = databaseUp && !stopping.getAsBoolean();
    ctx.status(ready ? 200 : 503).json(new Readiness(word(ready), word(databaseUp)));
  }

  /**
   * Pings the database; if {@link #MAX_WAITING} requests already wait for it, returns the last
   * result.
   */
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
