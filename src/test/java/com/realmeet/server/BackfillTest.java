package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** All of Clerk's users come into the table, whatever happens meanwhile. */
class BackfillTest {
  private final StandInClerk clerk = new StandInClerk();
  private final String database = TestPostgres.emptyDatabase();
  private final Backfilling backfill = new Backfilling(clerk, database);

  @AfterEach
  void stop() {
    clerk.close();
  }

  @Test
  void summaryTellsWhatWasDone() {
    backfill.putUsers(0, 1001);

    backfill.expect(
        0, "Backfill done: 1001 inserted, 0 updated, 0 unchanged, 0 deleted, 0 skipped");
    assertEquals(1001, backfill.rows().size());

    clerk.putUser("user_3", "changed@example.com", "Changed", null);
    clerk.putUser(clerk.users().get("user_4").deepCopy()); // only the time
    clerk.putUser("user_new", "new@example.com", null, null);
    backfill.expect(
        0, "Backfill done: 1 inserted, 1 updated, 1000 unchanged, 0 deleted, 0 skipped");
    assertEquals("changed@example.com|Changed", backfill.rows().get("user_3"));

    assertEquals(2, backfill.run("--everything"));
  }

  @Test
  void usersWithoutAddressAndTrueClashesAreListed() {
    backfill.putUsers(0, 3);
    clerk.putUser("user_phone", null, "Phone", null);
    clerk.putUser("user_same", "user0@example.com", "Same", null);

    backfill.expect(1, "Backfill done: 3 inserted, 0 updated, 0 unchanged, 0 deleted, 2 skipped");
    assertTrue(Log.text().contains("Skipped: user_phone has no email address"), Log.text());
    assertTrue(Log.text().contains("Skipped: user_same has an email address that another row has"));
  }

  @Test
  void swappedAndFreedAddressesAreNoClash() {
    backfill.putUsers(0, 3);
    backfill.expect(0, "Backfill done: 3 inserted");
    clerk.putUser("user_0", "user1@example.com", "Swapped", null);
    clerk.putUser("user_1", "user0@example.com", "Swapped", null);
    clerk.deleteUser("user_2");
    clerk.putUser("user_9", "user2@example.com", "Again", null);

    backfill.expect(0, "Backfill done: 1 inserted, 2 updated, 0 unchanged, 0 deleted, 0 skipped");
    assertEquals(
        Map.of(
            "user_0", "user1@example.com|Swapped",
            "user_1", "user0@example.com|Swapped",
            "user_2", "user_2@moved.invalid|User 2",
            "user_9", "user2@example.com|Again"),
        backfill.rows());
  }

  /** All in one statement would exceed the time of one. */
  @Test
  void slowTriggerOfTheApplicationDoesNotStopIt() {
    backfill.expect(0, "Backfill done: 0 inserted");
    TestPostgres.execute(
        database,
        """
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM pg_sleep(0.0115);
          RETURN NEW;
        END $$;
        CREATE TRIGGER slow BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION slow();
        """);
    backfill.putUsers(0, 400);

    backfill.expect(0, "Backfill done: 400 inserted");
  }

  /** The listing was read before an address moved on, and a webhook has told us of that. */
  @Test
  void pageThatIsOutOfDateIsNoClash() {
    String old = clerk.putUser("user_a", "moved@example.com", "A", null).toString();
    clerk.deleteUser("user_a");
    clerk.putUser("user_b", "moved@example.com", "B", null);
    backfill.expect(0, "Backfill done: 1 inserted");
    clerk.putUser("user_a", "new@example.com", "A", null);
    clerk.onList(StandInClerk.answering(200, "[" + old + "]"));

    backfill.expect(0, "Backfill done: 1 inserted, 0 updated, 0 unchanged, 0 deleted, 0 skipped");
    assertEquals(
        Map.of("user_a", "new@example.com|A", "user_b", "moved@example.com|B"), backfill.rows());
  }

  @Test
  void usersMayChangeWhileTheyAreListed() {
    backfill.putUsers(0, 2_500);
    List<CompletableFuture<Void>> deliveries = new CopyOnWriteArrayList<>();
    try (TestServer server =
        TestServer.start(clerk, database, "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET)) {
      clerk.onList(
          exchange -> {
            int page = clerk.listCalls();
            clerk.putUser("user_late" + page, "late" + page + "@example.com", "Late", null);
            clerk.putUser("user_" + page, "user" + page + "@example.com", "Listed", null);
            clerk.putUser("user_9" + page, "user9" + page + "@example.com", "Not yet", null);
            clerk.deleteUser("user_3" + page);
            clerk.answerList(exchange);
            clerk.deleteUser("user_" + page * 400); // on this page, or one before
            deliveries.add(Threads.run(() -> tell(server, page)));
          });
      backfill.expect(0, " 0 skipped");
      deliveries.forEach(CompletableFuture::join);
    }

    Map<String, String> expected = new TreeMap<>();
    backfill.rows().keySet().forEach(id -> expected.put(id, "tombstone"));
    clerk.users().forEach((id, user) -> expected.put(id, Backfilling.row(user)));
    expected.entrySet().removeAll(backfill.rows().entrySet());
    assertEquals(Map.of(), expected);
  }

  private void tell(TestServer server, int page) {
    for (String id : List.of("late" + page, "" + page, "9" + page, "3" + page, "" + page * 400)) {
      String type = clerk.users().containsKey("user_" + id) ? "user.updated" : "user.deleted";
      assertEquals(200, backfill.webhook(server, type, "user_" + id));
    }
    assertEquals(200, server.sync(clerk.token("user_5" + page)).statusCode());
  }
}
