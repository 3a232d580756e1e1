package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.sun.net.httpserver.HttpExchange;
import java.io.File;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What becomes of a listing that goes wrong. */
class BackfillListingTest {
  private final StandInClerk clerk = new StandInClerk();
  private final String database = TestPostgres.newDatabase();
  private final Backfilling backfill = new Backfilling(clerk, database);

  @AfterEach
  void stop() {
    clerk.close();
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

    backfill.expect(1, "Backfill failed, start it again: Clerk's listing repeats a page");
    assertEquals(pages + 1, clerk.listCalls());
  }

  @Test
  void nonsenseThatComesOnceDoesNotEndTheRun() {
    backfill.putUsers(0, 3);
    clerk.onList(
        exchange -> {
          clerk.heal();
          StandInClerk.answering(200, "<html>Please wait</html>").handle(exchange);
        });

    backfill.expect(0, "3 inserted, 0 updated, 0 unchanged");
  }

  @Test
  void brokenListingEndsTheRun() {
    clerk.onList(StandInClerk.answering(200, "[{\"id\":\"user_1\"}]"));
    backfill.expect(1, "Backfill failed, start it again: ");
  }

  @Test
  void killedRunCanBeStartedAgain() throws IOException, InterruptedException {
    backfill.putUsers(0, 3000);
    clerk.onList(this::answerTwoPages);
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
            "-XX:TieredStopAtLevel=1", // as the tests' own JVMs
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
}
