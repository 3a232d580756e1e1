package com.realmeet.server.core;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/** Limits log lines about a fault that every request meets to one per minute and key. */
public final class LogRateLimiter {
  private static final Duration INTERVAL = Duration.ofMinutes(1);

  /**
   * Bounds the memory: beyond this many keys all are forgotten, and a line may recur within its
   * minute.
   */
  private static final int MAX_KEYS = 1000;

  private final Map<String, Deadline> silencedUntil = new HashMap<>();

  /**
   * Returns true if a line may be logged now; further calls with this key return false for a
   * minute.
   */
  public synchronized boolean allows(String key) {
    Deadline end = silencedUntil.get(key);
    if (end != null && !end.remaining().isZero()) {
      return false;
    }
    if (silencedUntil.size() >= MAX_KEYS) {
      silencedUntil.clear();
    }
    silencedUntil.put(key, Deadline.in(INTERVAL));
    return true;
  }
}
