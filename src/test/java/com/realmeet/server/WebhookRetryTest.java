package com.realmeet.server;

import static java.nio.charset.StandardCharsets.US_ASCII;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.net.Socket;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What makes Svix send an event again. */
class WebhookRetryTest {
  private static Fleet fleet;
  private static StandInClerk clerk;

  @BeforeAll
  static void start() {
    fleet = new Fleet(1);
    clerk = fleet.clerk();
  }

  @AfterAll
  static void stop() {
    fleet.close();
  }

  @AfterEach
  void heal() {
    clerk.heal();
  }

  @ParameterizedTest
  @ValueSource(ints = {500, 429, 401})
  void troubleAtClerkAsksForARetryThatSucceeds(int status) {
    clerk.putUser("user_retry", "retry" + status + "@example.com", "Retry", null);
    clerk.onUser(StandInClerk.answering(status, "{}"));

    HttpResponse<String> failed = fleet.webhook("user.updated", "user_retry");
    assertEquals(503, failed.statusCode());
    assertTrue(failed.headers().firstValueAsLong("Retry-After").isPresent());

    clerk.heal();
    TestServer.await( // the pause that a 429 asks for
        "the retry succeeds",
        () -> fleet.webhook("user.updated", "user_retry").statusCode() == 200);
    assertEquals(
        Fleet.row("user_retry", "retry" + status + "@example.com", "Retry"),
        fleet.row("user_retry"));
  }

  @ParameterizedTest
  @ValueSource(ints = {500, 401})
  void deletionWaitsUntilClerkCanBeAskedAboutTheUser(int status) {
    clerk.putUser("user_wait", "wait@example.com", "Wait", null);
    assertEquals(200, fleet.webhook("user.created", "user_wait").statusCode());
    ObjectNode user = clerk.users().remove("user_wait");
    clerk.onUser(StandInClerk.answering(status, "{}"));

    assertEquals(503, fleet.webhook("user.deleted", "user_wait").statusCode());
    assertEquals(Fleet.row("user_wait", "wait@example.com", "Wait"), fleet.row("user_wait"));

    clerk.heal();
    clerk.putUser(user);
  }

  @ParameterizedTest
  @ValueSource(ints = {500, 401, 404})
  void deletionWaitsUntilClerkCanBeAskedAboutTheInstance(int status) {
    for (String id : List.of("user_i1", "user_i2", "user_i3", "user_i4")) {
      clerk.putUser(id, id + "@example.com", "I", null);
      assertEquals(200, fleet.webhook("user.created", id).statusCode());
    }
    ObjectNode user = clerk.users().remove("user_i1");
    clerk.onLookup(StandInClerk.answering(status, "{}"));

    HttpResponse<String> answer = fleet.webhook("user.deleted", "user_i1");

    assertEquals(status == 404 ? 502 : 503, answer.statusCode());
    assertEquals(Fleet.row("user_i1", "user_i1@example.com", "I"), fleet.row("user_i1"));
    clerk.heal();
    clerk.putUser(user);
  }

  @Test
  void databaseThatIsAwayAsksForARetryThatSucceeds() {
    clerk.putUser("user_away", "away@example.com", "Away", null);
    String name = TestPostgres.nameOf(fleet.database());
    String others = TestPostgres.withDatabase(fleet.database(), "postgres");
    TestPostgres.execute(
        others,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'");
    TestPostgres.execute(others, "ALTER DATABASE " + name + " RENAME TO " + name + "_away");
    try {
      assertEquals(503, fleet.webhook("user.created", "user_away").statusCode());
    } finally {
      TestPostgres.execute(others, "ALTER DATABASE " + name + "_away RENAME TO " + name);
    }

    assertEquals(200, fleet.webhook("user.created", "user_away").statusCode());
    assertEquals(Fleet.row("user_away", "away@example.com", "Away"), fleet.row("user_away"));
  }

  @Test
  void hundredCopiesAtOnceCostAHandfulOfCalls() {
    clerk.putUser("user_copies", "copies@example.com", "Copies", null);
    clerk.onUser(
        exchange -> {
          LockSupport.parkNanos(Duration.ofMillis(100).toNanos());
          clerk.answerUser(exchange);
        });
    String event = clerk.event("user.updated", "user_copies");
    int calls = clerk.userCalls();

    List<Integer> statuses = TestServer.atOnce(100, () -> fleet.webhook(0, event).statusCode());

    assertEquals(Set.of(200), Set.copyOf(statuses));
    assertEquals(
        Fleet.row("user_copies", "copies@example.com", "Copies"), fleet.row("user_copies"));
    assertTrue(clerk.userCalls() - calls <= 20, () -> clerk.userCalls() - calls + " calls");
  }

  /** The row is committed, but Svix does not learn it and sends the event again. */
  @Test
  void eventWhoseAnswerIsLostMayComeAgain() throws IOException {
    clerk.putUser("user_crash", "crash@example.com", "Crash", null);
    String event = clerk.event("user.created", "user_crash");
    int calls = clerk.userCalls();
    CountDownLatch connectionIsCut = new CountDownLatch(1);
    clerk.onUser(
        exchange -> {
          awaitZero(connectionIsCut);
          clerk.answerUser(exchange);
        });
    try (Socket socket = new Socket("127.0.0.1", fleet.server(0).port())) {
      socket.setSoLinger(true, 0); // closes without a word, as a crash does
      socket.getOutputStream().write(raw(event));
      TestServer.await("the event arrives", () -> clerk.userCalls() > calls);
    }
    connectionIsCut.countDown();
    TestServer.await("the row is written", () -> !fleet.row("user_crash").equals("none"));
    List<String> rows = TestPostgres.query(fleet.database(), "TABLE users ORDER BY id");

    assertEquals(200, fleet.webhook(0, event).statusCode());
    assertEquals(rows, TestPostgres.query(fleet.database(), "TABLE users ORDER BY id"));
  }

  static byte[] raw(String event) {
    StringBuilder text = new StringBuilder("POST /api/webhooks/clerk HTTP/1.1\r\nHost: x\r\n");
    StandInClerk.webhook(fleet.webhookUrl(), Fleet.SECRET, Instant.now(), event)
        .build()
        .headers()
        .map()
        .forEach((name, values) -> text.append(name + ": " + values.get(0) + "\r\n"));
    text.append("Content-Length: " + event.length() + "\r\n\r\n" + event);
    return text.toString().getBytes(US_ASCII);
  }

  private static void awaitZero(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }
}
