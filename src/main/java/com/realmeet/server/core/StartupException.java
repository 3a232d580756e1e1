package com.realmeet.server.core;

import java.util.List;

/** Ends a command with a message for its user, an exit code and no stack trace. */
public final class StartupException extends RuntimeException {
  private final int exitCode;
  private final List<String> lines;

  /** Creates an exception with exit code 1: something failed. */
  public StartupException(String line) {
    this(1, List.of(line));
  }

  /**
   * @param exitCode 1 if something failed, 2 if settings are wrong
   * @param lines what is wrong and what to do, without secrets
   */
  public StartupException(int exitCode, List<String> lines) {
    super(String.join("\n", lines), null, false, false);
    this.exitCode = exitCode;
    this.lines = lines;
  }

  /** Returns the exit code of the process. */
  public int exitCode() {
    return exitCode;
  }

  /** Returns the lines to print. */
  public List<String> lines() {
    return lines;
  }
}
