package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import com.realmeet.server.testing.TcpProxy;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.URI;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The table follows Clerk without one webhook: the server looks at Clerk by itself. */
class PollTest {
  private static final String HEALED = "INFO Poll - Caught up with Clerk: ";

  private static Backfilling filled;

  private final StandInClerk clerk = new StandInClerk();
  private final Backfilling backfill = filled.restored(clerk);
  private final String database = backfill.database();
  private TestServer server;

  @BeforeAll
  static void fill() {
    try (StandInClerk clerk = new StandInClerk()) {
      filled = new Backfilling(clerk, TestPostgres.newDatabase());
      filled.putUsers(0, 3);
      assertEquals(0, filled.run());
      filled.save();
    }
  }

  @AfterEach
  void stop() {
    if (server != null) {
      server.close();
    }
    clerk.close();
  }

  private void start(String... changes) {
    String[] settings = new String[changes.length + 2];
    settings[0] = "CLERK_POLL_SECONDS";
    settings[1] = "86400";
    System.arraycopy(changes, 0, settings, 2, changes.length);
    server = TestServer.start(clerk, database, settings);
  }

  /** Polls while others use the database, so that rows are compared too. */
  private boolean audit() {
    server.sync(clerk.token("user_0"));
    return server.poll();
  }

  private void change(int from, int to) {
    for (int i = from; i < to; i++) {
      clerk.putUser("user_" + i, "new" + i + "@example.com", "Changed", String.valueOf(i));
    }
  }

  private void assertTableIsAsClerk() {
    Map<String, String> expected = new TreeMap<>();
    clerk.users().forEach((id, user) -> expected.put(id, Backfilling.row(user)));
    assertEquals(expected, backfill.rows());
  }

  private static int count(String text) {
    return Log.text().split(Pattern.quote(text), -1).length - 1;
  }

  @Test
  void userWithLettersThatTheEncodingLacksHoldsUpNobodyElse() {
    String latin = TestPostgres.emptyDatabase("LATIN1");
    Backfilling backfill = new Backfilling(clerk, latin);
    assertEquals(0, backfill.run());
    clerk.users().get("user_1").put("first_name", "Иван"); // without a newer time: for the audit
    clerk.users().get("user_2").put("first_name", "René");
    try (TestServer server = TestServer.start(clerk, latin)) {
      assertEquals(200, server.sync(clerk.token("user_0")).statusCode());
      assertTrue(server.poll());
      assertEquals("user2@example.com|René 2", backfill.rows().get("user_2"));
      clerk.putUser("user_3", "user3@example.com", "Мария", null);
      clerk.putUser("user_4", "user4@example.com", "Zoë", null);
      assertTrue(server.poll());
    }
    assertEquals("user4@example.com|Zoë", backfill.rows().get("user_4"));
    assertEquals(1, backfill.run("--dry-run"));
    assertEquals(1, backfill.run());
    for (String id : List.of("user_1", "user_3")) {
      String reason = id + " is refused: The database refuses a statement: ";
      assertEquals(1, count("Not stored: " + reason), Log.text());
      assertEquals(2, count("Skipped: " + reason), Log.text());
    }
  }

  @Test
  void changesAreFoundByOneCallAndToldInOneLine() {
    start("METRICS_PORT", "0");
    change(1, 2);
    backfill.putUsers(3, 5);
    int lookups = clerk.lookupCalls();

    assertTrue(server.poll());

    assertTableIsAsClerk();
    assertEquals(1, count(HEALED + "2 inserted, 1 updated, 0 deleted"), Log.text());
    assertTrue(server.poll());
    assertEquals(1, count(HEALED), Log.text());
    assertEquals(2, clerk.listCalls(), "two polls");
    assertEquals(lookups, clerk.lookupCalls(), "the start has checked the instance");
    assertEquals(0, clerk.userCalls());
    assertEquals("2.0", metric("clerk_poll_changes_total{change=\"insert\"}"));
    assertEquals("1.0", metric("clerk_poll_changes_total{change=\"update\"}"));
    assertEquals("0.0", metric("clerk_poll_changes_total{change=\"delete\"}"));
    assertTrue(Double.parseDouble(metric("clerk_poll_age_seconds")) < 60);
  }

  private String metric(String name) {
    Matcher port = Pattern.compile("Metrics on http://127.0.0.1:(\\d+)/").matcher(Log.text());
    assertTrue(port.find());
    String page =
        TestServer.getPage(URI.create("http://127.0.0.1:" + port.group(1) + "/metrics")).body();
    return page.lines()
        .filter(line -> line.startsWith(name + " "))
        .map(line -> line.substring(name.length() + 1))
        .findFirst()
        .orElse("");
  }

  @Test
  void ageCountsFromTheStartUntilAPollSucceeds() {
    clerk.onList(StandInClerk.answering(500, ""));
    start("METRICS_PORT", "0");
    assertFalse(server.poll());
    double age = Double.parseDouble(metric("clerk_poll_age_seconds"));
    assertFalse(server.poll());
    assertTrue(Double.parseDouble(metric("clerk_poll_age_seconds")) > age);

    double failing = Double.parseDouble(metric("clerk_poll_age_seconds"));
    clerk.heal();
    assertTrue(server.poll());
    assertTrue(Double.parseDouble(metric("clerk_poll_age_seconds")) < failing);
  }

  @Test
  void serverThatDoesNotPollHasNoAge() {
    start("METRICS_PORT", "0", "CLERK_POLL_SECONDS", "0");
    assertEquals("", metric("clerk_poll_age_seconds"));
  }

  @Test
  void dayOfDowntimeIsCaughtUpByOnePoll() {
    backfill.putUsers(3, 500);
    assertEquals(0, backfill.run());
    TestPostgres.execute(
        database, "UPDATE users SET clerk_updated_at = clerk_updated_at - interval '1 day'");
    backfill.putUsers(500, 1000);
    change(0, 500);
    long same = clerk.users().get("user_250").get("updated_at").asLong();
    for (int i = 150; i < 350; i++) { // in one millisecond, and on several pages
      clerk.users().get("user_" + i).put("updated_at", same);
    }
    int calls = clerk.listCalls();
    start();

    assertTrue(server.poll());

    assertTableIsAsClerk();
    assertEquals(1, count(HEALED + "500 inserted, 500 updated"), Log.text());
    assertEquals(12, clerk.listCalls() - calls, "pages of 100 that overlap by 10");
  }

  @Test
  void missedWhileTheServerWasDownIsFoundThoughAWebhookComesFirst() {
    TestPostgres.execute(
        database, "UPDATE users SET clerk_updated_at = clerk_updated_at - interval '1 day'");
    backfill.putUsers(5, 6); // whom an audit would not find
    clerk.users().get("user_5").put("updated_at", System.currentTimeMillis() - 3_600_000);
    start();
    backfill.putUsers(9, 10);
    assertEquals(200, server.sync(clerk.token("user_9")).statusCode());

    assertTrue(server.poll());

    assertTableIsAsClerk();
  }

  @Test
  void emptyTableBeginsWithTheStart() {
    TestPostgres.execute(database, "DELETE FROM users");
    start();
    backfill.putUsers(5, 7);

    assertTrue(server.poll());

    assertEquals(List.of("user_5", "user_6"), List.copyOf(backfill.rows().keySet()));
  }

  @Test
  void moreThanFiveThousandChangesAreLeftToABackfill() {
    start();
    backfill.putUsers(3, 5010);
    long now = System.currentTimeMillis();
    for (int i = 3; i < 5010; i++) {
      clerk.users().get("user_" + i).put("updated_at", now - 10 * i);
    }
    Map<String, String> before = backfill.rows();

    assertTrue(server.poll());

    assertEquals(before, backfill.rows());
    assertEquals(1, count("WARN Poll - More than 5000 users have changed at Clerk since "));
    assertTrue(Log.text().contains("run backfill"));
    change(1, 2);
    assertTrue(server.poll());
    assertEquals("new1@example.com|Changed 1", backfill.rows().get("user_1"));
    assertEquals(1, count("More than"), Log.text());
  }

  @Test
  void tableThatIsFarAheadOfTheClockDoesNotBlindThePoll() {
    TestPostgres.execute(database, "UPDATE users SET clerk_updated_at = '9999-01-01'");
    TestPostgres.execute(
        database, "UPDATE users SET clerk_updated_at = 'epoch' WHERE id != 'user_0'");
    start();
    change(1, 3);

    assertTrue(server.poll());

    assertEquals("new1@example.com|Changed 1", backfill.rows().get("user_1"));
  }

  @Test
  void usersWhoChangeAndGoWhilePagesAreReadHideNobody() {
    start();
    backfill.putUsers(3, 400);
    AtomicInteger page = new AtomicInteger();
    clerk.onList(
        exchange -> {
          clerk.answerList(exchange);
          int number = page.getAndIncrement();
          for (int i = 0; i < 8; i++) { // they move the next page up, or down
            clerk.deleteUser("user_" + (399 - 100 * number - i));
          }
          backfill.putUsers(1000 + number * 20, 1020 + number * 20);
        });

    assertTrue(server.poll());
    clerk.heal();
    assertTrue(server.poll());

    Map<String, String> rows = backfill.rows();
    clerk.users().forEach((id, user) -> assertEquals(Backfilling.row(user), rows.get(id), id));
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 60})
  void pagesThatRepeatThemselvesHideNobody(int times) {
    start();
    backfill.putUsers(3, 300);
    AtomicInteger page = new AtomicInteger();
    clerk.onList(
        exchange -> {
          if (page.getAndIncrement() <= times) { // the first one again
            ObjectNode[] users =
                clerk.users().values().stream()
                    .sorted((a, b) -> -Long.compare(time(a), time(b)))
                    .limit(100)
                    .toArray(ObjectNode[]::new);
            StandInClerk.send(exchange, 200, java.util.Arrays.toString(users));
          } else {
            clerk.answerList(exchange);
          }
        });

    assertFalse(server.poll());
    assertTrue(page.get() < 10, "it does not go on for ever");
    assertEquals("user299@example.com|User 299", backfill.rows().get("user_299"));
    clerk.heal();
    assertTrue(server.poll());

    assertTableIsAsClerk();
  }

  private static long time(ObjectNode user) {
    return user.get("updated_at").asLong();
  }

  @ParameterizedTest
  @CsvSource({"300, 50", "150, 60"}) // the second page overlaps no longer, or is empty
  void bulkDeletionBetweenTwoPagesHidesNobody(int users, int deleted) {
    start();
    backfill.putUsers(3, users);
    AtomicInteger page = new AtomicInteger();
    clerk.onList(
        exchange -> {
          clerk.answerList(exchange);
          if (page.getAndIncrement() == 0) {
            for (int i = users - deleted; i < users; i++) {
              clerk.deleteUser("user_" + i);
            }
          }
        });

    assertFalse(server.poll());
    assertTrue(server.poll());

    Map<String, String> rows = backfill.rows();
    clerk.users().forEach((id, user) -> assertEquals(Backfilling.row(user), rows.get(id), id));
  }

  @Test
  void userWhoIsListedTwiceCountsOnceAndTheLaterVersionWins() {
    start();
    change(1, 2);
    ObjectNode old = clerk.users().get("user_1").deepCopy();
    clerk.putUser("user_1", "latest@example.com", "Latest", "1");
    clerk.onList(
        StandInClerk.answering(
            200, "[" + clerk.users().get("user_1") + "," + old + "," + old + "]"));

    assertTrue(server.poll());

    assertEquals("latest@example.com|Latest 1", backfill.rows().get("user_1"));
    assertEquals(1, count(HEALED + "0 inserted, 1 updated"), Log.text());
  }

  @Test
  void addressesThatChangeHandsAndUsersWhoCannotBeStoredDoNotStopTheOthers() {
    TestPostgres.execute(
        database,
        """
        ALTER TABLE users ADD CONSTRAINT short CHECK (length(name) < 50);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF NEW.name = 'Raised' THEN
            RAISE EXCEPTION 'no' USING ERRCODE = 'MY001';
          END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION refuse();
        """);
    start();
    clerk.putUser("user_0", "user1@example.com", "Swapped", "0");
    clerk.putUser("user_1", "user0@example.com", "Swapped", "1");
    clerk.putUser("user_noemail", null, "No", "Address");
    clerk.putUser("user_long", "l".repeat(2000) + "@example.com", "Too", "Long");
    clerk.putUser("user_check", "check@example.com", "x".repeat(60), "y");
    clerk.putUser("user_raise", "raise@example.com", "Raised", null);
    backfill.putUsers(10, 12);

    assertTrue(server.poll());

    Map<String, String> rows = backfill.rows();
    assertEquals("user1@example.com|Swapped 0", rows.get("user_0"));
    assertEquals("user0@example.com|Swapped 1", rows.get("user_1"));
    assertEquals("user11@example.com|User 11", rows.get("user_11"));
    assertEquals(5, rows.size(), rows::toString);
    assertEquals(1, count("WARN Poll - Not stored: user_check is refused: The database refuses"));
    assertEquals(1, count("WARN Poll - Not stored: user_raise is refused: The database refuses"));
    assertEquals(1, count("WARN Poll - Not stored: user_long has an email address that cannot"));
  }

  @Test
  void userOfWhomClerkSendsNonsenseHoldsUpNobodyElse() {
    backfill.putUsers(3, 150);
    assertEquals(0, backfill.run());
    List.of("user_1", "user_100", "user_99").forEach(clerk::deleteUser);
    clerk.onUser(
        exchange -> {
          if (exchange.getRequestURI().getPath().endsWith("/user_1")) {
            StandInClerk.answering(200, "{\"id\":\"x\"}").handle(exchange);
          } else {
            clerk.answerUser(exchange);
          }
        });
    start();

    assertTrue(audit());
    assertTrue(audit());

    assertEquals(
        List.of("user_100", "user_99"),
        TestPostgres.query(
            database,
            "SELECT id FROM users WHERE deleted_at IS NOT NULL ORDER BY id COLLATE \"C\""));
    assertEquals(1, count("WARN Poll - Not stored: user_1 is not changed: "), Log.text());
  }

  @Test
  void deletionsAreFoundWithinRowsByHundredAudits() {
    backfill.putUsers(3, 250);
    assertEquals(0, backfill.run());
    TestPostgres.execute(database, "INSERT INTO users (id, email) VALUES ('legacy', 'l@x')");
    start();
    List<String> gone = List.of("user_10", "user_110", "user_200", "user_90", "user_99");
    gone.forEach(clerk::deleteUser);
    clerk.users().get("user_77").put("first_name", "Odd"); // without a newer time
    for (int i = 0; i < 3; i++) {
      assertTrue(audit());
    }

    Map<String, String> rows = backfill.rows();
    gone.forEach(id -> assertEquals("tombstone", rows.get(id), id));
    assertEquals("user77@example.com|Odd 77", rows.get("user_77"));
    assertEquals(251 - gone.size(), backfill.living().size());
    assertEquals(5, count("is deleted: audit of the poll"), Log.text());
    int lookups = clerk.lookupCalls();
    assertTrue(audit());
    assertEquals(1, clerk.lookupCalls() - lookups, "round and round");
  }

  @Test
  void deletionThatATriggerSkipsDoesNotStopTheOthers() {
    TestPostgres.execute(
        database,
        """
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER skip BEFORE UPDATE ON users FOR EACH ROW WHEN (NEW.id = 'user_1')
          EXECUTE FUNCTION skip();
        """);
    start();
    clerk.deleteUser("user_1");
    clerk.deleteUser("user_2");

    assertTrue(audit());
    assertTrue(audit());

    assertEquals("tombstone", backfill.rows().get("user_2"));
    assertEquals("user1@example.com|User 1", backfill.rows().get("user_1"));
    assertEquals(1, count("is deleted: audit of the poll"), Log.text());
    assertEquals(1, count(HEALED + "0 inserted, 0 updated, 1 deleted"), Log.text());
    assertEquals(
        1,
        count(
            "WARN Poll - Not stored: user_1 is refused: The database refuses a statement: a trigger"),
        Log.text());
  }

  @Test
  void manyMissingRowsAreAnErrorThatDeletesNobody() {
    backfill.putUsers(3, 50);
    assertEquals(0, backfill.run());
    start();
    for (int i = 10; i < 16; i++) {
      clerk.deleteUser("user_" + i);
    }

    assertTrue(audit());
    assertTrue(audit());

    assertEquals(50, backfill.living().size());
    assertEquals(1, count("ERROR Poll - Clerk does not have 6 of 50 users"), Log.text());
    backfill.putUsers(15, 16);
    assertTrue(audit());
    assertEquals(45, backfill.living().size());
  }

  @Test
  void userWhomOnlyTheListingLacksStays() {
    start();
    clerk.onLookup(
        exchange -> {
          ObjectNode user = clerk.users().remove("user_1");
          clerk.answerLookup(exchange);
          clerk.users().put("user_1", user);
        });

    assertTrue(audit());

    assertEquals(3, backfill.living().size());
    assertEquals(1, clerk.userCalls());
  }

  @Test
  void keyOfAnotherInstanceChangesNothing() {
    backfill.putUsers(3, 9);
    assertEquals(0, backfill.run());
    List<String> before = TestPostgres.query(database, "TABLE users ORDER BY id");
    try (StandInClerk other =
        new StandInClerk(
            0, new SigningKey("ins_dev", SigningKey.usual().pair()), "sk_test_stand_in_dev")) {
      server = TestServer.start(other, database, "CLERK_POLL_SECONDS", "86400");
      other.putUser("user_dev", "dev@example.com", "Dev", null);
      for (int i = 0; i < 3; i++) {
        assertFalse(server.poll());
      }
      other.users().clear();
      assertEquals(200, server.sync(other.token("user_0")).statusCode());
      assertFalse(server.poll());
    }
    assertEquals(before, TestPostgres.query(database, "TABLE users ORDER BY id"));
    assertTrue(Log.text().contains("CLERK_SECRET_KEY is of another Clerk instance"));
  }

  /** Without its network the database would let any use of it fail. */
  @Test
  void hourOfPollsWithoutChangesLeavesASuspendedDatabaseAlone() {
    try (TcpProxy proxy = TcpProxy.before(database)) {
      server =
          TestServer.start(
              clerk, TestPostgres.withPort(database, proxy.port()), "CLERK_POLL_SECONDS", "86400");
      assertTrue(server.poll()); // knows the newest versions from now on
      proxy.refuse();
      int lookups = clerk.lookupCalls();

      for (int i = 0; i < 12; i++) {
        assertTrue(server.poll());
      }
      assertEquals(lookups, clerk.lookupCalls());
      assertEquals(0, count("Database is unavailable"), Log.text());

      proxy.restore();
      change(1, 2);
      assertTrue(server.poll());
      assertTableIsAsClerk();
      proxy.refuse();
      for (int i = 0; i < 6; i++) { // its own use is no reason for an audit
        assertTrue(server.poll());
      }
    }
  }

  @Test
  void noCallsWhileClerkThrottles() {
    start();
    clerk.onList(
        exchange -> {
          exchange.getResponseHeaders().set("Retry-After", "60");
          StandInClerk.send(exchange, 429, "{\"errors\":[]}");
        });
    assertFalse(audit());
    int calls = clerk.listCalls() + clerk.lookupCalls() + clerk.userCalls();
    clerk.heal();

    assertFalse(audit());
    assertFalse(audit());

    assertEquals(calls, clerk.listCalls() + clerk.lookupCalls() + clerk.userCalls());
    assertEquals(0, count("ERROR Poll"), Log.text());
  }

  @Test
  void hangingClerkDelaysNeitherUsersNorAStop() throws InterruptedException {
    start();
    CountDownLatch asked = new CountDownLatch(1);
    CountDownLatch release = new CountDownLatch(1);
    clerk.onList(
        exchange -> {
          asked.countDown();
          try {
            release.await();
          } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
          }
          StandInClerk.send(exchange, 200, "[" + clerk.users().get("user_1") + "]");
        });
    change(1, 2);
    Thread polling = new Thread(server::poll);
    polling.start();
    asked.await();

    assertEquals(200, server.sync(clerk.token("user_0")).statusCode());
    server.close();
    server = null;
    release.countDown();
    polling.join();

    assertEquals("user1@example.com|User 1", backfill.rows().get("user_1"), "it was too late");
    assertEquals(0, count("ERROR"), Log.text());
  }

  @Test
  void twoServersMayPollAtOnce() {
    start();
    try (TestServer other = TestServer.start(clerk, database)) {
      for (int i = 0; i < 5; i++) {
        change(0, 3);
        backfill.putUsers(100 + 50 * i, 150 + 50 * i);
        AtomicInteger turn = new AtomicInteger();
        assertEquals(
            List.of(true, true, true, true),
            TestServer.atOnce(4, () -> (turn.getAndIncrement() % 2 == 0 ? server : other).poll()));
        assertTableIsAsClerk();
      }
    }
  }

  @Test
  void databaseThatIsDownAtTheStartIsCaughtUpWithLater() {
    try (TcpProxy proxy = TcpProxy.before(database)) {
      start("DATABASE_URL", TestPostgres.withPort(database, proxy.port()) + "?pool_timeout=1");
      change(1, 2);
      proxy.refuse();
      assertFalse(server.poll());
      proxy.restore();

      assertTrue(server.poll());

      assertTableIsAsClerk();
    }
  }
}
