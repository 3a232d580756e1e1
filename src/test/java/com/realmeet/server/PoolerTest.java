package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.database.SqlErrors;
import com.realmeet.server.example.ExampleApplication;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.SlowStatements;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPgBouncer;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The server behind a transaction pooler that nothing in its URL tells of. */
class PoolerTest {
  private static String database;
  private static StandInClerk clerk;
  private static TestPgBouncer pgbouncer;

  @BeforeAll
  static void start() {
    Assumptions.assumeTrue(TestPgBouncer.isInstalled(), "PgBouncer is not installed");
    database = TestPostgres.newDatabase();
    clerk = new StandInClerk();
    clerk.putUser("user_known", "known@example.com", "Ada", "Lovelace");
    pgbouncer = TestPgBouncer.before(database, "postgres");
  }

  @AfterAll
  static void stop() {
    if (pgbouncer != null) {
      pgbouncer.close();
      clerk.close();
    }
  }

  private static TestServer server() {
    return TestServer.start(clerk, pgbouncer.url, "DIRECT_URL", database);
  }

  /** Two servers share the pooler's connections, and would each prepare an S_1 there. */
  @Test
  void noRequestFailsUnderLoadAndTheLogSaysOnceWhatToWrite() {
    AtomicInteger number = new AtomicInteger();
    try (TestServer one = server();
        TestServer two = server()) {
      List<Integer> statuses =
          TestServer.atOnce(
              8,
              () -> {
                int failed = 0;
                for (int i = 0; i < 40; i++) {
                  int n = number.incrementAndGet();
                  TestServer server = n % 2 == 0 ? one : two;
                  String id = n % 8 < 2 ? "user_pooled" + n : "user_known";
                  if (n % 8 < 2) {
                    clerk.putUser(id, id.substring(5) + "@example.com", null, null);
                  }
                  failed += server.sync(clerk.token(id)).statusCode() == 200 ? 0 : 1;
                }
                return failed;
              });

      assertEquals(0, statuses.stream().mapToInt(Integer::intValue).sum(), Log.text());
      assertEquals(200, one.get("/api/health").statusCode());
      assertEquals(200, one.get("/api/ready").statusCode());
      assertEquals(2, Log.text().split(Pattern.quote("pgbouncer=true"), -1).length - 1);
    }
  }

  /** Its search path would stay with a connection that other clients get. */
  @Test
  void schemaIsNotMigratedThroughIt() {
    StartupException failure =
        assertThrows(
            StartupException.class,
            () -> Migrations.migrate(DatabaseUrl.parse(pgbouncer.url + "?schema=other")));

    assertTrue(failure.getMessage().contains("set DIRECT_URL"), failure.getMessage());
  }

  /** A lock of the session would stay with a connection of the pooler that another client gets. */
  @Test
  void migrationThroughItLeavesNoLockThoughOthersUseItToo() throws Exception {
    DatabaseUrl url = DatabaseUrl.parse(pgbouncer.url);
    AtomicBoolean ended = new AtomicBoolean();
    CompletableFuture<List<Integer>> others =
        CompletableFuture.supplyAsync(
            () ->
                TestServer.atOnce(
                    3,
                    () -> {
                      int queries = 0;
                      try (Connection connection = url.dataSource(5).getConnection();
                          Statement statement = connection.createStatement()) {
                        for (; !ended.get(); queries++) {
                          statement.execute("SELECT 1");
                        }
                        return queries;
                      } catch (SQLException e) {
                        throw new IllegalStateException(e);
                      }
                    }));
    try {
      for (int i = 0; i < 5; i++) {
        Migrations.migrate(url);
      }
    } finally {
      ended.set(true);
      others.get();
    }

    assertEquals(
        List.of("0"),
        TestPostgres.query(
            database,
            """
            SELECT count(*) FROM pg_locks
            WHERE locktype = 'advisory'
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            """));
  }

  @Test
  void urlThatDeniesAPoolerIsBelieved() {
    try (TestServer server =
        TestServer.start(clerk, pgbouncer.url + "?pgbouncer=false", "DIRECT_URL", database)) {
      assertEquals(200, server.sync(clerk.token("user_known")).statusCode());

      assertTrue(!Log.text().contains("pgbouncer=true"), Log.text());
    }
  }

  /** Its tables are in a schema of their own, which connections of the pooler do not know. */
  @Test
  void exampleWorksThroughIt() {
    try (TestServer server =
        TestServer.start(
            new ExampleApplication(),
            clerk,
            pgbouncer.url + "?schema=meet",
            "DIRECT_URL",
            database + "?schema=meet")) {
      String token = clerk.token("user_known");
      String meeting = "{\"title\":\"Lunch\",\"startsAt\":\"2026-02-09T17:00:00Z\"}";

      for (int i = 0; i < 10; i++) { // pgjdbc prepares a statement when it is used the fifth time
        assertEquals(201, server.post(token, "/api/meetings", meeting).statusCode());
        assertEquals(200, server.get(token, "/api/meetings").statusCode());
      }
    }
  }

  @Test
  void backfillWorksThroughIt() {
    clerk.putUser("user_listed", "listed@example.com", null, null);
    Map<String, String> settings = TestServer.settings(clerk, pgbouncer.url);
    settings.put("DIRECT_URL", database);

    assertEquals(0, Main.run(new String[] {"backfill"}, () -> Config.from(settings)));

    assertEquals(
        List.of("1"),
        TestPostgres.query(database, "SELECT count(*) FROM users WHERE id = 'user_listed'"));
  }

  @Test
  void statementThatNobodyWaitsForIsCancelledThroughIt() throws SQLException {
    try (TestServer server = server()) {
      assertEquals(200, server.sync(clerk.token("user_known")).statusCode());

      SlowStatements.assertCancelled(server, clerk, database);
    }
  }

  @Test
  void wrongPasswordAndUnknownUserAreToldInPlainWords() {
    for (String login : List.of("postgres:wr0ng", "nobody_here:wr0ng")) {
      String url = pgbouncer.url.replaceFirst("://[^@]*@", "://" + login + "@");
      SQLException e =
          assertThrows(
              SQLException.class, () -> DatabaseUrl.parse(url).dataSource(5).getConnection());

      assertTrue(SqlErrors.isLoginRefused(e), e.toString());
      String reason = SqlErrors.whyUnavailable(e);
      assertTrue(reason.startsWith("user or password is wrong"), reason);
      assertTrue(!reason.contains("wr0ng"), reason);
    }
  }
}
