package com.realmeet.server.core;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/** Rate limiter for log lines about a fault that each request meets: one a minute for each key. */
public final class LogRateLimiter {
  private static final Duration INTERVAL = Duration.ofMinutes(1);

  /** Keys are names of a schema, and so few; this bounds the memory whatever they are. */
  private static final int MAX_KEYS = 1000;

  private final Map<String, Deadline> silences = new HashMap<>();

  /** Whether a line may be written now; if so, the next only after a minute. */
  public synchronized boolean allows(String key) {
    Deadline silence = silences.get(key);
    if (silence != null && !silence.remaining().isZero()) {
      return false;
    }
    if (silences.size() >= MAX_KEYS) {
      silences.clear();
    }
    silences.put(key, Deadline.in(INTERVAL));
    return true;
  }
}
