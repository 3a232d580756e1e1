package com.realmeet.server;

/** Why the server, or a command, ends with exit code 1: one line for its user. */
final class StartFailure extends RuntimeException {
  StartFailure(String line) {
    super(line, null, false, false);
  }
}
