package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.dev.StandInClerk;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
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

    rehearse(database, 12);
  }

  @Test
  void withoutUsersOneWhoIsNewIsRehearsed() {
    Main.run(new String[] {"migrate"}, () -> Config.from(TestServer.settings(clerk, database)));

    rehearse(database, 12);
  }

  @Test
  void aRowThatSyncWouldChangeIsLeftAlone() {
    Main.run(new String[] {"migrate"}, () -> Config.from(TestServer.settings(clerk, database)));
    TestPostgres.query(
        database,
        """
        INSERT INTO users (id, email, clerk_updated_at)
        VALUES ('user_ada', 'user_ada@moved.invalid', now()), ('seed', 'seed@example.com', now())
        RETURNING id
        """);

    rehearse(database, 12);
  }

  @Test
  void aRowThatIsGoneEndsTheRehearsal() {
    String other = TestPostgres.newDatabase();
    clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
    try (TestServer server = TestServer.start(clerk, other)) {
      assertEquals(200, server.sync(clerk.token("user_ada")).statusCode());
    }
    Main.run(new String[] {"migrate"}, () -> Config.from(TestServer.settings(clerk, database)));

    rehearse(other, 2);
  }

  @Test
  void manyClientsGoFirst() {
    Deque<Long> sent = new ArrayDeque<>(List.of(0L, 100L, 5_000L, 5_099L, 5_099L));

    assertTrue(Rehearsal.awaitQuiet(sent::remove, Duration.ZERO));
    assertEquals(List.of(5_099L), List.copyOf(sent));
  }

  @Test
  void clientsWhoHaveSentAsMuchNeedNoRehearsal() {
    Deque<Long> sent = new ArrayDeque<>(List.of(0L, 20_000L, 30_000L));

    assertFalse(Rehearsal.awaitQuiet(sent::remove, Duration.ZERO));
  }

  /**
   * Rehearses 12 requests, of which nobody notices anything.
   *
   * @param source where a user is looked for
   * @param done how many of them are made
   */
  private void rehearse(String source, int done) {
    List<String> rows = rows();
    int calls = clerk.userCalls();
    Config config = Config.from(TestServer.settings(clerk, database));
    try (Database connections = new Database(DatabaseUrl.parse(source), 1, Metrics.none())) {
      Rehearsal.run(config, new UserDao(connections), 12);
    }
    String said = "INFO Rehearsal - Rehearsed " + done + " requests";
    assertTrue(Log.text().contains(said), Log.text());
    assertEquals(rows, rows());
    assertEquals(calls, clerk.userCalls());
  }

  private List<String> rows() {
    return TestPostgres.query(database, "SELECT users::text FROM users ORDER BY id");
  }
}
