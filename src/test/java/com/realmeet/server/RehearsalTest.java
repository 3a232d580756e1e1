package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.dev.StandInClerk;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** A rehearsal is like the real thing, but nobody else notices it. */
class RehearsalTest {
  private final String database = TestPostgres.newDatabase();
  private StandInClerk clerk;

  @BeforeEach
  void start() {
    clerk = new StandInClerk();
  }

  @AfterEach
  void stop() {
    clerk.close();
  }

  @Test
  void aUsersRequestsAreAnsweredWithoutClerkOrAnyChange() {
    clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
    try (TestServer server = TestServer.start(clerk, database)) {
      assertEquals(200, server.sync(clerk.token("user_ada")).statusCode());
    }
    List<String> rows = TestPostgres.query(database, "SELECT users::text FROM users");
    int calls = clerk.userCalls();

    Map<String, String> settings = TestServer.settings(clerk, database);
    try (Database connections = new Database(DatabaseUrl.parse(database), 1, Metrics.none())) {
      Rehearsal.run(Config.from(settings), new UserDao(connections), 200, () -> 0);
    }

    assertTrue(Log.text().contains("INFO Rehearsal - Rehearsed 200 requests"), Log.text());
    assertEquals(rows, TestPostgres.query(database, "SELECT users::text FROM users"));
    assertEquals(calls, clerk.userCalls());
  }

  @Test
  void clientsWhoComeMeanwhileHaveTheProcessorsForThemselves() {
    clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
    try (TestServer server = TestServer.start(clerk, database)) {
      assertEquals(200, server.sync(clerk.token("user_ada")).statusCode());
    }
    AtomicLong clients = new AtomicLong();
    Map<String, String> settings = TestServer.settings(clerk, database);
    try (Database connections = new Database(DatabaseUrl.parse(database), 1, Metrics.none())) {
      Rehearsal.run(
          Config.from(settings),
          new UserDao(connections),
          500,
          () -> clients.getAndAdd(clients.get() < 20 ? 10 : 1000));
    }

    assertTrue(Log.text().contains("INFO Rehearsal - Rehearsed 200 requests"), Log.text());
  }

  @Test
  void aRowThatSyncWouldChangeIsNotRehearsedWith() {
    clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
    Map<String, String> settings = TestServer.settings(clerk, database);
    Main.run(new String[] {"migrate"}, () -> settings);
    TestPostgres.query(
        database,
        """
        INSERT INTO users (id, email, clerk_updated_at)
        VALUES ('user_ada', 'user_ada@moved.invalid', now()), ('seed', 'seed@example.com', now())
        RETURNING id
        """);

    assertEquals(0, Main.run(new String[] {"rehearse"}, () -> settings));

    assertTrue(Log.text().contains("There is no user yet to rehearse with"), Log.text());
    assertEquals(0, clerk.userCalls());
  }

  @Test
  void aRowThatIsGoneEndsTheRehearsal() {
    String other = TestPostgres.newDatabase();
    clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
    try (TestServer server = TestServer.start(clerk, other)) {
      assertEquals(200, server.sync(clerk.token("user_ada")).statusCode());
    }
    clerk.deleteUser("user_ada");
    int calls = clerk.userCalls();
    Map<String, String> settings = TestServer.settings(clerk, database);
    Main.run(new String[] {"migrate"}, () -> settings);

    try (Database connections = new Database(DatabaseUrl.parse(other), 1, Metrics.none())) {
      Rehearsal.run(Config.from(settings), new UserDao(connections), 200, () -> 0);
    }

    assertTrue(Log.text().contains("INFO Rehearsal - Rehearsed 1 requests"), Log.text());
    assertEquals(calls + 1, clerk.userCalls());
  }

  @Test
  void withoutUsersThereIsNothingToRehearse() {
    Map<String, String> settings = TestServer.settings(clerk, database);

    assertEquals(0, Main.run(new String[] {"rehearse"}, () -> settings));

    assertTrue(Log.text().contains("There is no user yet to rehearse with"), Log.text());
    assertEquals(0, clerk.userCalls());
  }
}
