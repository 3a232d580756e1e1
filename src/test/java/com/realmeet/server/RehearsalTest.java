package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.dev.StandInClerk;
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
    Main.run(new String[] {"migrate"}, () -> TestServer.settings(clerk, database));

    rehearse(database, 12);
  }

  @Test
  void aRowThatSyncWouldChangeIsLeftAlone() {
    Main.run(new String[] {"migrate"}, () -> TestServer.settings(clerk, database));
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
    Main.run(new String[] {"migrate"}, () -> TestServer.settings(clerk, database));

    rehearse(other, 2);
  }

  @Test
  void manyClientsAreNotHeldUpByOne() {
    clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
    String token = clerk.token("user_ada");
    try (TestServer server = TestServer.start(clerk, database)) {
      for (int i = 0; i < Main.BUSY; i++) {
        assertEquals(200, server.sync(token).statusCode());
      }
      server.rehearse();
    }
    assertTrue(Log.text().contains("No rehearsal, since clients have already sent 100 requests"));
    assertFalse(Log.text().contains("Rehearsed"), Log.text());
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
