package com.realmeet.server;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;

/** Lets at most so many calls begin in any stretch of time, and makes the next one wait. */
final class Pace {
  private final int calls;
  private final long windowNanos;
  private final Deque<Long> begun = new ArrayDeque<>();

  Pace(int calls, Duration window) {
    this.calls = calls;
    this.windowNanos = window.toNanos();
  }

  /** Returns when one more call may begin. */
  synchronized void await() {
    if (begun.size() == calls) {
      Pause.of(Duration.ofNanos(begun.removeFirst() + windowNanos - System.nanoTime()));
    }
    begun.addLast(System.nanoTime());
  }
}
