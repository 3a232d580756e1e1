package com.realmeet.server.core;

import io.javalin.security.RouteRole;

/** Who may call a route. A route that names nothing demands a session token. */
public enum Access implements RouteRole {
  /** Anybody: no token is looked at. */
  PUBLIC;

  /** Attribute of a request whose session token was verified: the caller's Clerk user id. */
  public static final String USER_ID_ATTRIBUTE = "userId";
}
