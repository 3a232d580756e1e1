package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
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
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Named;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
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
  void shortPageBeforeTheLastDoesNotEndTheListing() {
    backfill.putUsers(0, 1200);
    clerk.onList(
        exchange -> {
          if (clerk.listCalls() == 2) {
            answer(exchange, IntStream.range(500, 700).mapToObj(i -> "user_" + i).toList());
          } else {
            clerk.answerList(exchange);
          }
        });

    backfill.expect(0, "Backfill done: 1200 inserted");
  }

  @Test
  void listingOfFewerUsersThanClerkCountsIsNotComplete() {
    backfill.putUsers(0, 100);
    clerk.onList(exchange -> answer(exchange, List.of()));

    backfill.expect(1, "Clerk listed 0 of 100 users: start backfill again");
  }

  @Test
  void newerOfTwoVersionsOnAPageIsStored() {
    backfill.putUsers(0, 1);
    ObjectNode newer = clerk.users().get("user_0");
    ObjectNode older = newer.deepCopy().put("first_name", "Old");
    older.put("updated_at", newer.get("updated_at").asLong() - 1);
    clerk.onList(exchange -> StandInClerk.send(exchange, 200, List.of(newer, older).toString()));

    backfill.expect(0, "1 inserted");
    assertEquals(List.of("User 0"), TestPostgres.query(database, "SELECT name FROM users"));
  }

  /** A user can write such metadata in the browser. */
  @ParameterizedTest
  @MethodSource("complexMetadata")
  void metadataOfOneUserDoesNotHoldUpOthers(String metadata) {
    backfill.putUsers(0, 2);
    clerk.users().get("user_0").put("unsafe_metadata", "QQ");
    String page = clerk.users().values().toString().replace("\"QQ\"", metadata);
    clerk.onList(exchange -> StandInClerk.send(exchange, 200, page));

    backfill.expect(0, "2 inserted");
    new Backfilling(clerk, database, "CLERK_FIELDS", "unsafe_metadata").expect(0, "2 updated");
  }

  static Stream<Named<String>> complexMetadata() {
    return Stream.of(
        Named.of("levels", "{\"a\":" + "[".repeat(8000) + "]".repeat(8000) + "}"),
        Named.of("digits", "{\"a\":" + "1".repeat(8000) + "}"));
  }

  private void answer(HttpExchange exchange, List<String> ids) throws IOException {
    StandInClerk.send(exchange, 200, ids.stream().map(clerk.users()::get).toList().toString());
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
