package com.realmeet.server.core;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicReference;
import org.slf4j.Logger;

/**
 * Keeps the log readable while something we depend on is down: one line when a fault begins, at
 * most one a minute while it lasts, one when it ends. What comes and goes is one fault that lasts.
 */
public final class Outage {
  private static final Duration REMINDER = Duration.ofMinutes(1);

  /**
   * @param loggedNanos when the last line about a failure was written
   * @param announced whether there was one about this fault
   */
  private record State(boolean down, long beganNanos, long loggedNanos, boolean announced) {}

  private final Logger log;
  private final String name;
  private final AtomicReference<State> state;

  /**
   * @param name the name of the thing, as the subject of a sentence: "Clerk", "Database"
   */
  public Outage(Logger log, String name) {
    this.log = log;
    this.name = name;
    state =
        new AtomicReference<>(new State(false, 0, System.nanoTime() - REMINDER.toNanos(), false));
  }

  /**
   * Notes that a use of the thing has just failed.
   *
   * @param reason free of secrets and personal data
   */
  public void failed(String reason) {
    long now = System.nanoTime();
    State before = state.get();
    boolean due = now - before.loggedNanos >= REMINDER.toNanos();
    if (before.down && !due) {
      return;
    }
    State after =
        new State(
            true,
            before.down ? before.beganNanos : now,
            due ? now : before.loggedNanos,
            due || before.down && before.announced);
    // Of many threads that fail at once, the one that gets its value in writes the line.
    if (state.compareAndSet(before, after) && due) {
      if (before.announced) {
        log.error("{} is still unavailable after {} s: {}", name, seconds(after, now), reason);
      } else {
        log.error("{} is unavailable: {}", name, reason);
      }
    }
  }

  /** Notes that a use of the thing has just succeeded. */
  public void succeeded() {
    State before = state.get();
    if (before.down
        && state.compareAndSet(before, new State(false, 0, before.loggedNanos, false))
        && before.announced) {
      log.info("{} is available again after {} s", name, seconds(before, System.nanoTime()));
    }
  }

  /** Whether the last use failed. */
  public boolean isDown() {
    return state.get().down;
  }

  private static long seconds(State since, long now) {
    return Duration.ofNanos(now - since.beganNanos).toSeconds();
  }
}
