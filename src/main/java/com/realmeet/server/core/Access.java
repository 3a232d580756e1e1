package com.realmeet.server.core;

import io.javalin.security.RouteRole;

/** Role of a route: who may call it. A route without a role requires a session token. */
public enum Access implements RouteRole {
  /** The route is open: {@code SessionAuth} does not verify a token. */
  PUBLIC;

  /**
   * Attribute of a request whose session token was verified: the caller's Clerk user id. It is in
   * this package because {@code clerk} sets it, and {@code http} reads it: bodies of signed-in
   * users and of others have separate budgets.
   */
  public static final String USER_ID_ATTRIBUTE = "userId";
}
