package com.realmeet.server;

import com.realmeet.server.database.Database;
import com.realmeet.server.users.UserSync;
import io.javalin.router.JavalinDefaultRoutingApi;

/**
 * Tables and routes beside those of the server, for tests: they start the README's example, which
 * is no part of the jar, by way of {@link Main#start(Config, Application)}. A team's own routes
 * stand in {@link Main}, its own migrations in {@code db/migration}.
 */
public interface Application {
  /** The server alone. */
  Application NONE =
      new Application() {
        @Override
        public String[] migrations() {
          return new String[0];
        }

        @Override
        public void declareRoutes(
            JavalinDefaultRoutingApi routes, Database database, UserSync userSync) {}
      };

  /** Where Flyway finds its migrations, such as {@code classpath:example/migration}. */
  String[] migrations();

  /** Declares its routes, as {@code Main.declareRoutes} does. */
  void declareRoutes(JavalinDefaultRoutingApi routes, Database database, UserSync userSync);
}
