package com.realmeet.server.core;

import java.time.Duration;
import org.slf4j.Logger;

/**
 * Limits log lines about a dependency that is down: one line when an outage begins, at most one per
 * minute while it lasts, one when it ends. A fault that recurs within a minute of the last line is
 * not logged again until that minute has passed.
 */
public final class Outage {
  private static final Duration REMINDER = Duration.ofMinutes(1);

  private final Logger log;
  private final String name;
  private volatile boolean down;

  // Guarded by this:
  private boolean announced; // this outage was logged
  private long beganNanos;
  private long loggedNanos = System.nanoTime() - REMINDER.toNanos();

  /**
   * @param name of the dependency, as the subject of a sentence: "Clerk", "Database"
   */
  public Outage(Logger log, String name) {
    this.log = log;
    this.name = name;
  }

  /**
   * Records that a use of the dependency failed.
   *
   * @param reason contains no secret and no personal data
   */
  public synchronized void failed(String reason) {
    long now = System.nanoTime();
    if (!down) {
      down = true;
      announced = false;
      beganNanos = now;
    }
    if (now - loggedNanos < REMINDER.toNanos()) {
      return;
    }
    if (announced) {
      log.error("{} is still unavailable after {} s: {}", name, seconds(now), reason);
    } else {
      log.error("{} is unavailable: {}", name, reason);
    }
    announced = true;
    loggedNanos = now;
  }

  /** Records that a use of the dependency succeeded. */
  public void succeeded() {
    if (down) { // without a lock for each request
      end();
    }
  }

  private synchronized void end() {
    if (down && announced) {
      log.info("{} is available again after {} s", name, seconds(System.nanoTime()));
    }
    down = false;
  }

  /** Returns true if the last use failed. */
  public boolean isDown() {
    return down;
  }

  private long seconds(long now) {
    return Duration.ofNanos(now - beganNanos).toSeconds();
  }
}
