package com.realmeet.server.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.database.DatabaseUrl;
import java.net.http.HttpResponse;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;

/** A sync that meets a locked table, and what is left of it in Postgres. */
public final class SlowStatements {
  private SlowStatements() {}

  /**
   * Fails if the statement of a request that has been answered still waits in Postgres.
   *
   * @param direct the database, past all proxies and poolers
   */
  public static void assertCancelled(TestServer server, StandInClerk clerk, String direct)
      throws SQLException {
    try (Connection connection = DatabaseUrl.parse(direct).dataSource(30).getConnection();
        Statement lock = connection.createStatement()) {
      connection.setAutoCommit(false);
      lock.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE");
      HttpResponse<String> response = server.sync(clerk.token("user_known"));

      assertEquals(503, response.statusCode());
      assertEquals(
          "{\"error\":\"Service Unavailable\",\"message\":\"Database is unavailable\"}",
          response.body());
      TestServer.await("nothing waits for the lock", () -> waiting(direct) == 0);
    }
    TestServer.await(
        "the table is back", () -> server.sync(clerk.token("user_known")).statusCode() == 200);
  }

  /** How many statements wait for a lock. */
  public static int waiting(String direct) {
    return TestPostgres.query(
            direct,
            "SELECT pid FROM pg_stat_activity"
                + " WHERE datname = current_database() AND wait_event_type = 'Lock'")
        .size();
  }
}
