package com.realmeet.server;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * The moment until which somebody is willing to wait.
 *
 * @param nanoTime on the clock of {@link System#nanoTime}
 */
record Deadline(long nanoTime) {
  static Deadline in(Duration time) {
    return new Deadline(System.nanoTime() + time.toNanos());
  }

  Deadline minus(Duration time) {
    return new Deadline(nanoTime - time.toNanos());
  }

  /** The same result, or a TimeoutException if there is none by then. */
  <T> CompletableFuture<T> limit(CompletableFuture<T> result) {
    return result.copy().orTimeout(left().toNanos(), TimeUnit.NANOSECONDS);
  }

  /** What is left, never negative. */
  Duration left() {
    return Duration.ofNanos(Math.max(0, nanoTime - System.nanoTime()));
  }
}
