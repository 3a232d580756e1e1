package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.realmeet.server.dev.StandInClerk;
import com.sun.net.httpserver.HttpExchange;
import java.io.File;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The listing: all of Clerk's users come into the table, whatever happens meanwhile. */
class BackfillTest {
  private final StandInClerk clerk = new StandInClerk();
  private final String database = TestPostgres.newDatabase();
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
            "user_2", "tombstone",
            "user_9", "user2@example.com|Again"),
        backfill.rows());
  }

  @Test
  void pageThatIsOutOfDateIsNoClash() throws IOException {
    clerk.putUser("user_a", "first@example.com", "A", null);
    clerk.putUser("user_b", "second@example.com", "B", null);
    backfill.expect(0, "Backfill done: 2 inserted");
    ArrayNode old =
        JsonNodeFactory.instance.arrayNode().add(clerk.users().get("user_a").deepCopy());
    clerk.putUser("user_a", "third@example.com", "A", null);
    clerk.putUser("user_b", "first@example.com", "B", null);
    old.add(clerk.users().get("user_b")); // listed after the change, user_a before it
    clerk.onList(StandInClerk.answering(200, old.toString()));

    backfill.expect(0, "Backfill done: 0 inserted");
    assertEquals(
        Map.of("user_a", "third@example.com|A", "user_b", "first@example.com|B"), backfill.rows());
  }

  @Test
  void usersMayChangeWhileTheyAreListed() {
    backfill.putUsers(0, 10_000);
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
            deliveries.add(CompletableFuture.runAsync(() -> tell(server, page)));
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
      assertEquals(200, backfill.webhook(server, "user.updated", "user_" + id));
    }
    assertEquals(200, server.sync(clerk.token("user_5" + page)).statusCode());
  }

  @Test
  void lastUserOfAPageMayBeDeletedBeforeTheNextIsRead() {
    backfill.putUsers(0, 1600);
    clerk.onList(
        exchange -> {
          if (exchange.getRequestURI().getQuery().contains("starting_after=user_999")) {
            List.of(999, 998, 997).forEach(i -> clerk.deleteUser("user_" + i));
          }
          clerk.answerList(exchange);
        });

    assertEquals(0, backfill.run());
    assertEquals(1600, backfill.rows().size()); // with the three: no one has told us of them
  }

  @Test
  void pauseThatClerkAsksForIsWaitedFor() {
    backfill.putUsers(0, 1200);
    clerk.onList(
        exchange -> {
          if (clerk.listCalls() == 2) {
            exchange.getResponseHeaders().set("Retry-After", "1");
            StandInClerk.send(exchange, 429, "{}");
          } else {
            clerk.answerList(exchange);
          }
        });

    backfill.expect(0, "Backfill done: 1200 inserted");
    assertEquals(4, clerk.listCalls());
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3})
  void listingThatRepeatsItselfEndsTheRun(int pages) {
    backfill.putUsers(0, 500 * pages);
    clerk.onList(
        exchange -> {
          ArrayNode page = JsonNodeFactory.instance.arrayNode();
          int first = clerk.listCalls() % pages * 500;
          for (int i = first; i < first + 500; i++) {
            page.add(clerk.users().get("user_" + i));
          }
          StandInClerk.send(exchange, 200, page.toString());
        });

    backfill.expect(1, "Backfill failed, start it again: Clerk's listing repeats itself");
    assertEquals(pages + 1, clerk.listCalls());
  }

  @Test
  void brokenListingEndsTheRun() {
    clerk.onList(StandInClerk.answering(200, "[{\"id\":\"user_1\"}]"));
    backfill.expect(1, "Backfill failed, start it again: ");
  }

  @Test
  void killedRunCanBeStartedAgain() throws IOException, InterruptedException {
    backfill.putUsers(0, 3000);
    clerk.onList(BackfillTest.this::answerTwoPages);
    Process process = process();
    TestServer.await(
        "two pages are stored", () -> clerk.listCalls() > 2 && backfill.rows().size() == 1000);
    process.destroyForcibly(); // SIGKILL
    assertTrue(process.waitFor(10, TimeUnit.SECONDS));
    clerk.heal();

    backfill.expect(0, "2000 inserted, 0 updated, 1000 unchanged");
    assertEquals(clerk.users().keySet(), backfill.living());
  }

  private void answerTwoPages(HttpExchange exchange) throws IOException {
    if (clerk.listCalls() > 2) {
      exchange.close();
    } else {
      clerk.answerList(exchange);
    }
  }

  private Process process() throws IOException {
    ProcessBuilder builder =
        new ProcessBuilder(
            System.getProperty("java.home") + File.separator + "bin" + File.separator + "java",
            "-cp",
            System.getProperty("java.class.path"),
            "com.realmeet.server.Main",
            "backfill");
    builder.environment().putAll(TestServer.settings(clerk, database));
    return builder
        .redirectOutput(ProcessBuilder.Redirect.DISCARD)
        .redirectError(ProcessBuilder.Redirect.DISCARD)
        .start();
  }

  @Test
  void paceLetsSoManyCallsBeginInAnyStretch() {
    Pace pace = new Pace(3, Duration.ofMillis(200));
    long[] begun = new long[10];
    for (int i = 0; i < begun.length; i++) {
      pace.await();
      begun[i] = System.nanoTime();
    }
    for (int i = 3; i < begun.length; i++) {
      assertTrue(begun[i] - begun[i - 3] > Duration.ofMillis(195).toNanos());
    }
    assertTrue(begun[2] - begun[0] < Duration.ofMillis(200).toNanos());
  }
}
