package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Two instances of Clerk and one table: with the secret key of the wrong one, all rows stay as they
 * are.
 */
class InstanceTest {
  private static final List<String> IDS = IntStream.range(0, 6).mapToObj(i -> "user_" + i).toList();

  private static final String WRONG_KEY =
      "ERROR InstanceCheck - CLERK_SECRET_KEY is of another Clerk instance";

  private static Backfilling filled;

  private final StandInClerk production = new StandInClerk();
  private final StandInClerk development =
      new StandInClerk(
          0, new SigningKey("ins_dev", SigningKey.usual().pair()), "sk_test_stand_in_dev");
  private final String database = filled.restored(production).database();

  @BeforeAll
  static void fill() {
    try (StandInClerk clerk = new StandInClerk()) {
      for (String id : IDS) {
        clerk.putUser(id, id + "@example.com", "User", id.substring(5));
      }
      filled = new Backfilling(clerk, TestPostgres.newDatabase());
      assertEquals(0, filled.run());
      filled.save();
    }
  }

  @AfterEach
  void stop() {
    production.close();
    development.close();
  }

  /**
   * A server that has the key of an instance, but verifies the tokens of both, as it would with a
   * proxy in between: the most that a wrong key could reach.
   */
  private TestServer server(StandInClerk clerk) {
    clerk.onKeys(
        StandInClerk.answering(
            200, StandInClerk.keySet(production.key(), development.key()).toString()));
    return TestServer.start(clerk, database, "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET);
  }

  private List<String> table() {
    return TestPostgres.query(database, "TABLE users ORDER BY id");
  }

  private static HttpResponse<String> refresh(TestServer server, String token) {
    return server.send(
        HttpRequest.newBuilder(server.uri("/api/user/refresh"))
            .header("Authorization", "Bearer " + token)
            .POST(HttpRequest.BodyPublishers.noBody()));
  }

  private static HttpResponse<String> webhook(TestServer server, String event) {
    return server.send(
        StandInClerk.webhook(
            server.uri("/api/webhooks/clerk"), Fleet.SECRET, Instant.now(), event));
  }

  @Test
  void wrongKeyLeavesAllRowsAsTheyAreAndTheRightOneServesAllUsers() {
    List<String> before = table();
    development.putUser("user_dev", "user_0@example.com", "Same", "Address");
    production.putUser("user_0", "changed@example.com", "Changed", null);
    try (TestServer server = server(development)) {
      assertTrue(Log.text().contains(WRONG_KEY), Log.text());
      assertTrue(Log.text().contains("No user is inserted or marked deleted meanwhile"));
      for (String id : IDS) {
        for (String type : List.of("user.created", "user.updated", "user.deleted")) {
          assertEquals(503, webhook(server, production.event(type, id)).statusCode(), type);
        }
        assertEquals(401, refresh(server, production.token(id)).statusCode());
        assertEquals(200, server.sync(production.token(id)).statusCode());
      }
      assertEquals(401, server.sync(production.token("user_new")).statusCode());
      assertEquals(503, server.sync(development.token("user_dev")).statusCode());
      assertEquals(503, refresh(server, development.token("user_dev")).statusCode());
      assertEquals(
          503, webhook(server, development.event("user.created", "user_dev")).statusCode());
      assertEquals(
          "{\"error\":\"Service Unavailable\",\"message\":\"CLERK_SECRET_KEY is of another Clerk instance than the users\"}",
          webhook(server, production.event("user.deleted", "user_1")).body());
      assertEquals(before, table());
    }
    for (String options :
        List.of(
            "", "--revive", "--delete-missing", "--delete-missing --force --revive", "--dry-run")) {
      new Backfilling(development, database)
          .expect(
              1,
              "Backfill stopped: CLERK_SECRET_KEY is of another Clerk instance than the users",
              options.isEmpty() ? new String[0] : options.split(" "));
      assertEquals(before, table(), options);
    }

    try (TestServer server = server(production)) {
      for (String id : IDS) {
        assertEquals(200, webhook(server, production.event("user.deleted", id)).statusCode());
        assertEquals(200, refresh(server, production.token(id)).statusCode());
        assertEquals(200, server.sync(production.token(id)).statusCode());
      }
    }
    Map<String, String> rows = new Backfilling(production, database).rows();
    assertEquals("changed@example.com|Changed", rows.get("user_0"));
    assertEquals(IDS, List.copyOf(rows.keySet()));
    assertTrue(Log.text().split(WRONG_KEY, -1).length > 1);
  }

  /** Otherwise their rows would make its key look right from the next start on. */
  @Test
  void usersOfTheOtherInstanceAreNotInserted() {
    development.putUser("user_dev", "dev@example.com", "Dev", null);
    List<String> before = table();
    for (int start = 0; start < 2; start++) {
      try (TestServer server = server(development)) {
        assertEquals(503, server.sync(development.token("user_dev")).statusCode());
        assertEquals(503, refresh(server, development.token("user_dev")).statusCode());
        assertEquals(
            503, webhook(server, development.event("user.created", "user_dev")).statusCode());
        assertEquals(503, webhook(server, production.event("user.deleted", "user_1")).statusCode());
      }
    }

    assertEquals(before, table());
  }

  @Test
  void usersMaySignUpThoughClerkDoesNotUnderstandTheQuestion() {
    production.onLookup(StandInClerk.answering(404, "{}"));
    production.putUser("user_late", "late@example.com", "Late", null);
    production.putUser("user_later", "later@example.com", "Later", null);
    try (TestServer server = server(production)) {
      assertEquals(200, server.sync(production.token("user_late")).statusCode());
      assertEquals(200, server.sync(production.token("user_later")).statusCode());
    }

    assertEquals(
        1,
        Log.text().lines().filter(line -> line.contains("WARN InstanceCheck - The ins")).count());
  }

  @Test
  void faultOfClerkDoesNotLetUsersOfTheOtherInstanceIn() {
    development.putUser("user_dev", "dev@example.com", "Dev", null);
    production.putUser("user_late", "late@example.com", "Late", null);
    List<String> before = table();
    for (StandInClerk clerk : List.of(development, production)) {
      clerk.onLookup(StandInClerk.answering(500, "{}"));
      try (TestServer server = server(clerk)) {
        String id = clerk == production ? "user_late" : "user_dev";
        assertEquals(503, server.sync(clerk.token(id)).statusCode());
        clerk.onLookup(clerk::answerLookup);
        assertEquals(clerk == production ? 200 : 503, server.sync(clerk.token(id)).statusCode());
      }
      assertEquals(before.size() + (clerk == production ? 1 : 0), table().size());
    }
  }

  /** One line for all of them, at most once a minute. */
  @Test
  void wrongKeyIsTheReasonOfEveryRefusal() {
    development.putUser("user_dev", "user_0@example.com", "Same", "Address");
    List<String> before = table();
    development.onLookup(StandInClerk.answering(500, "{}"));
    try (TestServer server = server(development)) {
      development.onLookup(development::answerLookup);
      assertFalse(Log.text().contains(WRONG_KEY), Log.text());
      assertEquals(
          "{\"error\":\"Service Unavailable\",\"message\":\"Clerk is unavailable\"}",
          server.sync(development.token("user_dev")).body());
      assertEquals(503, refresh(server, development.token("user_dev")).statusCode());
      assertEquals(401, server.sync(production.token("user_new")).statusCode());
      assertEquals(401, refresh(server, production.token("user_1")).statusCode());
      for (String type : List.of("user.created", "user.updated", "user.deleted")) {
        assertTrue(
            webhook(server, production.event(type, "user_1")).body().contains("of another Clerk"));
      }
      assertFalse(server.poll());

      assertEquals(
          2, Log.text().lines().filter(line -> line.matches(".* (WARN|ERROR) .*")).count());
      assertTrue(Log.text().contains("ERROR ClerkApi - Clerk is unavailable: status 500"));
      assertTrue(Log.text().contains(WRONG_KEY), Log.text());
      assertEquals(
          2, Log.text().split("USER_NOT_AT_CLERK: CLERK_SECRET_KEY is of another", -1).length - 1);
      assertEquals(before, table());
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void keyThatIsFoundWrongStaysWrongHoweverFewUsersAreLeft(boolean atStart) {
    TestPostgres.execute(database, "DELETE FROM users WHERE id > 'user_2'");
    development.putUser("user_dev", "user_0@example.com", "Same", "Address");
    List<String> before = table();
    if (!atStart) {
      development.onLookup(StandInClerk.answering(500, "{}"));
    }
    try (TestServer server = server(development)) {
      development.onLookup(development::answerLookup);
      assertEquals(503, server.sync(development.token("user_dev")).statusCode());
      for (String id : List.of("user_0", "user_1", "user_2")) {
        assertEquals(503, webhook(server, production.event("user.deleted", id)).statusCode());
      }
      assertEquals(before, table());
    }
  }

  @Test
  void keyThatTurnsOutWrongOnlyLaterDeletesNobodyUntilItIsRight() {
    try (TestServer server = server(production)) {
      Map<String, ObjectNode> users = Map.copyOf(production.users());
      List<String> before = table();
      production.users().clear();

      assertEquals(503, webhook(server, production.event("user.deleted", "user_1")).statusCode());
      assertEquals(503, webhook(server, production.event("user.deleted", "user_2")).statusCode());
      assertEquals(before, table());
      assertEquals(2, Log.text().split(WRONG_KEY, -1).length, Log.text());
      production.putUser("user_new", "new@example.com", "New", null);
      assertEquals(200, server.sync(production.token("user_new")).statusCode());
      assertTrue(Log.text().contains("No user is marked deleted meanwhile"), Log.text());

      production.users().putAll(users);
      production.deleteUser("user_1");
      assertEquals(200, webhook(server, production.event("user.deleted", "user_1")).statusCode());
      assertTrue(Log.text().contains("is of the same Clerk instance"), Log.text());
      assertTrue(Log.text().contains("WARN UserSync - user_1 is deleted: webhook user.deleted"));
    }
  }

  @Test
  void keyIsNoLongerWrongOnceTheUsersAreGone() {
    String updated = production.event("user.updated", "user_2");
    try (TestServer server = server(production)) {
      production.users().clear();
      assertEquals(503, webhook(server, production.event("user.deleted", "user_1")).statusCode());
      assertTrue(webhook(server, updated).body().contains("of another Clerk instance"));

      TestPostgres.execute(database, "DELETE FROM users");

      assertEquals(200, webhook(server, production.event("user.deleted", "user_1")).statusCode());
      assertTrue(webhook(server, updated).body().contains("Clerk does not have the user"));
    }
  }

  /** Nor do tombstones, rows that are not Clerk's, and users whose address went to another one. */
  @ParameterizedTest
  @ValueSource(ints = {2, 3})
  void rowsThatClerkCannotHaveProveNothing(int live) {
    TestPostgres.execute(
        database,
        """
        UPDATE users SET deleted_at = now() WHERE id = 'user_5';
        UPDATE users SET email = id || '@moved.invalid' WHERE id = 'user_4';
        INSERT INTO users (id, email) VALUES ('legacy', 'l@example.com'), ('user_ü', 'u@example.com');
        """);
    TestPostgres.execute(database, "DELETE FROM users WHERE id = 'user_3'");
    if (live == 2) {
      TestPostgres.execute(database, "DELETE FROM users WHERE id = 'user_2'");
    }
    try (TestServer server = server(production)) {
      String event = production.event("user.deleted", "user_0");
      production.users().keySet().removeAll(List.of("user_0", "user_1", "user_2", "user_3"));

      assertEquals(live == 3 ? 503 : 200, webhook(server, event).statusCode());
    }
  }

  @Test
  void threeRowsAreEnoughThoughTheStartCouldNotBeChecked() {
    TestPostgres.execute(database, "DELETE FROM users WHERE id > 'user_2'");
    List<String> before = table();
    development.onLookup(StandInClerk.answering(500, "{}"));
    try (TestServer server = server(development)) {
      development.onLookup(development::answerLookup);
      for (String id : List.of("user_0", "user_1", "user_2")) {
        assertEquals(503, webhook(server, production.event("user.deleted", id)).statusCode());
      }
      server.sync(production.token("user_0")); // the audit needs a database in use
      server.poll();
    }

    assertEquals(before, table());
  }

  /** The oldest rows are the first of a scan of the table. */
  @Test
  void manyOldUsersWhomClerkNoLongerHasProveNothing() {
    TestPostgres.execute(
        database,
        """
        TRUNCATE users;
        INSERT INTO users (id, email, created_at)
        SELECT 'user_old' || i, i || '@example.com', now() - interval '1 day'
        FROM generate_series(1, 10100) i
        """);
    for (String id : IDS) {
      TestPostgres.execute(
          database,
          "INSERT INTO users (id, email, clerk_updated_at) VALUES ('%s', '%1$s@x', now())"
              .formatted(id));
    }
    production.putUser("user_new", "new@example.com", null, null);

    try (TestServer server = server(production)) {
      assertEquals(200, server.sync(production.token("user_new")).statusCode());
      assertFalse(Log.text().contains(WRONG_KEY), Log.text());
    }
  }

  @Test
  void alarmEndsOnceClerkHasTheUsersAgain() {
    String updated = production.event("user.updated", "user_2");
    try (TestServer server = server(production)) {
      production.onLookup(StandInClerk.answering(200, "[]"));
      production.deleteUser("user_1");
      production.deleteUser("user_2");
      assertEquals(503, webhook(server, production.event("user.deleted", "user_1")).statusCode());
      production.onLookup(production::answerLookup);

      assertTrue(webhook(server, updated).body().contains("Clerk does not have the user"));
    }
  }

  @Test
  void twentyUsersAreLookedUpInOneCall() {
    new Backfilling(production, database).putUsers(6, 200);
    assertEquals(0, new Backfilling(production, database).run());
    List<String> queries = new java.util.concurrent.CopyOnWriteArrayList<>();
    production.onLookup(
        exchange -> {
          queries.add(exchange.getRequestURI().getQuery());
          production.answerLookup(exchange);
        });

    try (TestServer server = server(production)) {
      assertEquals(1, queries.size());
      production.deleteUser("user_7");
      assertEquals(200, webhook(server, production.event("user.deleted", "user_7")).statusCode());
    }

    assertEquals(2, queries.size());
    for (String query : queries) {
      assertEquals(21, query.split("user_id=").length, query);
      assertTrue(query.startsWith("limit=20&"), query);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {500, 429})
  void startGoesOnWhileTheInstanceCannotBeChecked(int status) {
    production.onLookup(StandInClerk.answering(status, "{}"));

    try (TestServer server = server(production)) {
      assertEquals(200, server.get("/api/ready").statusCode());
    }
  }

  /** Its answer to a filter that it does not know would be anybody. */
  @Test
  void usersWhoWereNotAskedForProveNothing() {
    development.putUser("user_dev", "dev@example.com", "Dev", null);
    development.onLookup(development::answerList);

    try (TestServer server = server(development)) {
      assertTrue(Log.text().contains(WRONG_KEY), Log.text());
      assertEquals(503, webhook(server, production.event("user.deleted", "user_1")).statusCode());
    }
  }
}
