package com.realmeet.server;

import io.javalin.security.RouteRole;

/** Who may call a route. A route that names nothing demands a session token. */
enum Access implements RouteRole {
  /** Anybody: {@link SessionAuth} lets the request pass without a token. */
  PUBLIC;

  /** Attribute of a request whose session token was verified: the caller's Clerk user id. */
  static final String USER_ID_ATTRIBUTE = "userId";
}
