package com.realmeet.server.core;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicReference;
import org.slf4j.Logger;

/**
 * Limits log lines about a dependency that is down: one line when an outage begins, at most one per
 * minute while it lasts, one when it ends. A fault that recurs within a minute of the last line is
 * not logged again until that minute has passed.
 */
public final class Outage {
  private static final Duration REMINDER = Duration.ofMinutes(1);

  /**
   * @param loggedNanos when the last failure was logged
   * @param announced whether this outage was logged
   */
  private record State(boolean down, long beganNanos, long loggedNanos, boolean announced) {}

  private final Logger log;
  private final String name;
  private final AtomicReference<State> state;

  /**
   * @param name of the dependency, as the subject of a sentence: "Clerk", "Database"
   */
  public Outage(Logger log, String name) {
    this.log = log;
    this.name = name;
    state =
        new AtomicReference<>(new State(false, 0, System.nanoTime() - REMINDER.toNanos(), false));
  }

  /**
   * Records that a use of the dependency failed.
   *
   * @param reason contains no secret and no personal data
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
    // Many threads may fail at once: the one whose compare-and-set succeeds logs.
    if (state.compareAndSet(before, after) && due) {
      if (before.announced) {
        log.error("{} is still unavailable after {} s: {}", name, seconds(after, now), reason);
      } else {
        log.error("{} is unavailable: {}", name, reason);
      }
    }
  }

  /** Records that a use of the dependency succeeded. */
  public void succeeded() {
    State before = state.get();
    if (before.down
        && state.compareAndSet(before, new State(false, 0, before.loggedNanos, false))
        && before.announced) {
      log.info("{} is available again after {} s", name, seconds(before, System.nanoTime()));
    }
  }

  /** Returns true if the last use failed. */
  public boolean isDown() {
    return state.get().down;
  }

  private static long seconds(State since, long now) {
    return Duration.ofNanos(now - since.beganNanos).toSeconds();
  }
}
