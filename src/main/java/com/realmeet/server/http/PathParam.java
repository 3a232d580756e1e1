package com.realmeet.server.http;

import com.realmeet.server.core.Failure;
import io.javalin.http.Context;
import java.util.UUID;

/** Parses path parameters. A malformed one is a 404, like one that names no resource. */
public final class PathParam {
  private PathParam() {}

  /**
   * Returns a whole number of up to 18 digits, such as the id of a {@code bigserial} column.
   *
   * @throws Failure NOT_FOUND if it is none
   */
  public static long number(Context ctx, String name) {
    String text = ctx.pathParam(name);
    if (!text.matches("\\d{1,18}")) {
      throw Failure.of(Failure.Kind.NOT_FOUND);
    }
    return Long.parseLong(text);
  }

  /**
   * Returns a UUID, such as the id of a {@code uuid} column.
   *
   * @throws Failure NOT_FOUND if it is none
   */
  public static UUID uuid(Context ctx, String name) {
    String text = ctx.pathParam(name);
    if (!text.matches("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")) {
      throw Failure.of(Failure.Kind.NOT_FOUND);
    }
    return UUID.fromString(text);
  }
}
