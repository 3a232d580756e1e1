package com.realmeet.server;

import java.time.Duration;

/** Waiting on purpose. */
final class Pause {
  private Pause() {}

  /**
   * Lets time pass.
   *
   * @throws IllegalStateException if the thread is interrupted, as when the process ends
   */
  static void of(Duration time) {
    try {
      Thread.sleep(Math.max(0, time.toMillis()));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted", e);
    }
  }
}
