package com.realmeet.server;

import com.realmeet.server.database.Database;
import com.realmeet.server.users.UserSync;
import io.javalin.router.JavalinDefaultRoutingApi;

/**
 * Adds tables and routes to the server in tests: they start the README's example, which is not in
 * the jar, by {@link Main#start(Config, Application)}. A team declares its own routes in {@link
 * Main} and puts its migrations into {@code db/migration}.
 */
public interface Application {
  /** Adds nothing: the server alone. */
  Application NONE = (routes, database, userSync) -> {};

  /** Declares the routes, as {@code Main.declareRoutes} does. */
  void declareRoutes(JavalinDefaultRoutingApi routes, Database database, UserSync userSync);

  /** Returns where Flyway finds the migrations, such as {@code classpath:example/migration}. */
  default String[] migrations() {
    return new String[0];
  }
}
