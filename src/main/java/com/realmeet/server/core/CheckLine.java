package com.realmeet.server.core;

import com.fasterxml.jackson.annotation.JsonProperty;

/**
 * A finding of the command {@code check}.
 *
 * @param subject what was looked at, in a word or two
 * @param sentence what was found and, unless it is well, what to do; free of secrets and of
 *     people's data, ids excepted
 */
public record CheckLine(Level level, String subject, String sentence) {
  /** In the order of their weight. */
  public enum Level {
    @JsonProperty("ok")
    OK,
    /** The server works, but not as it should, or something could not be looked at. */
    @JsonProperty("warn")
    WARN,
    /** The server does not start, or refuses good users. */
    @JsonProperty("fail")
    FAIL
  }

  public static CheckLine ok(String subject, String sentence) {
    return new CheckLine(Level.OK, subject, sentence);
  }

  public static CheckLine warn(String subject, String sentence) {
    return new CheckLine(Level.WARN, subject, sentence);
  }

  public static CheckLine fail(String subject, String sentence) {
    return new CheckLine(Level.FAIL, subject, sentence);
  }
}
