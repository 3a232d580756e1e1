package com.realmeet.server.http;

import com.realmeet.server.core.Failure;

/** Checks keys of a JSON body, in the constructor of the record that it becomes. */
public final class BodyParam {
  private BodyParam() {}

  /**
   * Requires a text that is not blank.
   *
   * @param name key in the body
   * @param maxLength maximum number of characters (code points, as Postgres' {@code char_length}
   *     and JSON Schema's {@code maxLength} count them)
   * @throws Failure BAD_REQUEST if it is missing, blank or too long
   */
  public static void requireText(String name, String text, int maxLength) {
    if (text == null || text.isBlank() || text.codePointCount(0, text.length()) > maxLength) {
      throw Failure.badRequest(name + " must have 1 to " + maxLength + " characters");
    }
  }
}
