package com.realmeet.server.core;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/** Rate limiter for log lines about a fault that each request meets: one a minute for each key. */
public final class LogRateLimiter {
  private static final Duration INTERVAL = Duration.ofMinutes(1);

  /** Keys are names of a schema, and so few; this bounds the memory whatever they are. */
  private static final int MAX_KEYS = 1000;

  private final Map<String, Deadline> silencedUntil = new HashMap<>();

  /** Whether a line may be written now; if so, the next only after a minute. */
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
