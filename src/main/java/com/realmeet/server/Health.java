package com.realmeet.server;

import io.javalin.http.Context;
import java.time.Duration;
import java.time.Instant;
import java.util.function.BooleanSupplier;

/** Whether the process runs, and whether it can serve: two questions, for two kinds of askers. */
final class Health {
  /** The longest that the answer about readiness takes. */
  private static final Duration READY_WAIT = Duration.ofSeconds(1);

  private record Alive(String status, Instant timestamp, String service) {}

  private record Readiness(String status, String database) {}

  private final Database database;
  private final BooleanSupplier stopping;

  Health(Database database, BooleanSupplier stopping) {
    this.database = database;
    this.stopping = stopping;
  }

  /** Touches neither database nor Clerk: an uptime monitor must let a Neon database sleep. */
  void alive(Context ctx) {
    Json.answer(ctx, 200, new Alive("ok", Instant.now(), "real-meet-server"));
  }

  /** For a load balancer: 503 while requests had better go to another server. */
  void ready(Context ctx) {
    ctx.future(() -> database.answersWithin(READY_WAIT).thenAccept(answers -> ready(ctx, answers)));
  }

  private void ready(Context ctx, boolean databaseAnswers) {
    boolean ready = databaseAnswers && !stopping.getAsBoolean();
    Json.answer(ctx, ready ? 200 : 503, new Readiness(word(ready), word(databaseAnswers)));
  }

  private static String word(boolean ok) {
    return ok ? "ok" : "unavailable";
  }
}
