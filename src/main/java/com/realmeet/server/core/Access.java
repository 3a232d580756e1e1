package com.realmeet.server.core;

import io.javalin.security.RouteRole;

/** Role of a route: who may call it. A route without a role requires a session token. */
public enum Access implements RouteRole {
  /** The route is open: {@code SessionAuth} does not verify a token. */
  PUBLIC;

  /** Attribute of a request whose session token was verified: the caller's Clerk user id. */
  public static final String USER_ID_ATTRIBUTE = "userId";
}
