package com.realmeet.server;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicReference;
import org.slf4j.Logger;

/**
 * Keeps the log readable while something we depend on is down: one line when a fault begins, at
 * most one a minute while it lasts, one when it ends.
 */
final class Outage {
  private static final Duration REMINDER = Duration.ofMinutes(1);

  private record Since(long beganNanos, long loggedNanos) {}

  private final Logger log;
  private final String what;
  private final AtomicReference<Since> since = new AtomicReference<>();

  /**
   * @param what the name of the thing, as the subject of a sentence: "Clerk", "Database"
   */
  Outage(Logger log, String what) {
    this.log = log;
    this.what = what;
  }

  /**
   * Notes that a use of the thing has just failed.
   *
   * @param reason free of secrets and personal data
   */
  void failed(String reason) {
    long now = System.nanoTime();
    Since before = since.get();
    boolean begins = before == null;
    if (!begins && now - before.loggedNanos < REMINDER.toNanos()) {
      return;
    }
    // Of many threads that fail at once, the one that gets its value in writes the line.
    if (since.compareAndSet(before, new Since(begins ? now : before.beganNanos, now))) {
      if (begins) {
        log.error("{} is unavailable: {}", what, reason);
      } else {
        log.error("{} is still unavailable after {} s: {}", what, seconds(before, now), reason);
      }
    }
  }

  /** Notes that a use of the thing has just succeeded. */
  void succeeded() {
    Since before = since.get();
    if (before != null && since.compareAndSet(before, null)) {
      log.info("{} is available again after {} s", what, seconds(before, System.nanoTime()));
    }
  }

  /** Whether the last use failed. */
  boolean lasts() {
    return since.get() != null;
  }

  private static long seconds(Since since, long now) {
    return Duration.ofNanos(now - since.beganNanos).toSeconds();
  }
}
