package com.realmeet.server.core;

import com.fasterxml.jackson.annotation.JsonProperty;

/**
 * Holds one result of the command {@code check}.
 *
 * @param subject what was checked, in one or two words
 * @param sentence what was found and, unless the level is OK, what to do; contains no secret and no
 *     personal data but user ids
 */
public record CheckLine(Level level, String subject, String sentence) {
  /** Severity of a line, in ascending order. */
  public enum Level {
    @JsonProperty("ok")
    OK,
    /** The server works with a limitation, or the check could not be made. */
    @JsonProperty("warn")
    WARN,
    /** The server does not start, or rejects valid users. */
    @JsonProperty("fail")
    FAIL
  }

  /** Returns a line of level OK. */
  public static CheckLine ok(String subject, String sentence) {
    return new CheckLine(Level.OK, subject, sentence);
  }

  /** Returns a line of level WARN. */
  public static CheckLine warn(String subject, String sentence) {
    return new CheckLine(Level.WARN, subject, sentence);
  }

  /** Returns a line of level FAIL. */
  public static CheckLine fail(String subject, String sentence) {
    return new CheckLine(Level.FAIL, subject, sentence);
  }
}
