package com.realmeet.server.core;

import java.util.List;

/** Ends a command with a reason for its user, and without a stack trace. */
public final class StartupException extends RuntimeException {
  private final int exitCode;
  private final List<String> lines;

  /** Exit code 1: something failed. */
  public StartupException(String line) {
    this(1, List.of(line));
  }

  /**
   * @param exitCode 1 for what failed, 2 for wrong settings
   * @param lines what is wrong and what to do, free of secrets
   */
  public StartupException(int exitCode, List<String> lines) {
    super(String.join("\n", lines), null, false, false);
    this.exitCode = exitCode;
    this.lines = lines;
  }

  public int exitCode() {
    return exitCode;
  }

  public List<String> lines() {
    return lines;
  }
}
