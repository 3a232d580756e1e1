package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.sun.net.httpserver.HttpExchange;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
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
  void killedRunCanBeStartedAgain(@TempDir Path directory) {
    backfill.putUsers(0, 1600);
    clerk.onList(this::answerTwoPages);
    Map<String, String> settings = TestServer.settings(clerk, database);
    try (ServerProcess process = new ServerProcess(directory, settings, "backfill")) {
      TestServer.await(
          "two pages are stored", () -> clerk.listCalls() > 2 && backfill.rows().size() == 1000);
      process.kill();
      assertEquals(137, process.awaitEnd());
    }
    clerk.heal();

    backfill.expect(0, "600 inserted, 0 updated, 1000 unchanged");
    assertEquals(clerk.users().keySet(), backfill.living());
  }

  private void answerTwoPages(HttpExchange exchange) throws IOException {
    if (clerk.listCalls() > 2) {
      exchange.close();
    } else {
      clerk.answerList(exchange);
    }
  }
}
