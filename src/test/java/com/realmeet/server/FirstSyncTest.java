package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestServer;
import com.realmeet.server.testing.TwoServers;
import com.sun.net.httpserver.HttpHandler;
import java.io.IOException;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What becomes of a Clerk user in the table, on two servers that share nothing but that. */
class FirstSyncTest {
  private static final AtomicInteger users = new AtomicInteger();
  private static TwoServers servers;

  @BeforeAll
  static void start() {
    servers = new TwoServers();
    servers.two();
  }

  @AfterAll
  static void stop() {
    servers.close();
  }

  @AfterEach
  void heal() {
    servers.clerk.heal();
  }

  private static String newUser() {
    String id = "user_" + users.incrementAndGet();
    servers.clerk.putUser(id, id + "@example.com", "John", "Doe");
    return id;
  }

  private static List<String> rows(String id) {
    return servers.query("SELECT id, email, name FROM users WHERE id = '" + id + "'");
  }

  /** Answers when it is allowed to, but as of now. */
  private static HttpHandler late(String id, CountDownLatch allowed) {
    HttpHandler now = StandInClerk.answering(200, servers.clerk.users().get(id).toString());
    return exchange -> {
      await(allowed);
      now.handle(exchange);
    };
  }

  private static void await(CountDownLatch latch) throws IOException {
    try {
      latch.await();
    } catch (InterruptedException e) {
      throw new IOException(e);
    }
  }

  @Test
  void hundredFirstSyncsOnTwoServersLeaveOneRow() {
    String id = newUser();
    String token = servers.clerk.token(id);
    int calls = servers.clerk.userCalls();
    CountDownLatch bothAsked = new CountDownLatch(2);
    servers.clerk.onUser(
        exchange -> {
          bothAsked.countDown();
          await(bothAsked);
          servers.clerk.answerUser(exchange);
        });

    List<HttpResponse<String>> responses =
        TestServer.atOnce(100, () -> servers.either().sync(token));

    assertEquals(calls + 2, servers.clerk.userCalls());
    responses.forEach(response -> assertEquals(200, response.statusCode(), response.body()));
    assertEquals(1, responses.stream().map(HttpResponse::body).distinct().count());
    assertEquals(1, rows(id).size());
  }

  @Test
  void failureOfAFirstSyncIsThatOfAllWhoWaitAndTheNextTriesAgain() {
    String id = newUser();
    String token = servers.clerk.token(id);
    int calls = servers.clerk.userCalls();
    CountDownLatch fail = new CountDownLatch(1);
    servers.clerk.onUser(
        exchange -> {
          await(fail);
          StandInClerk.send(exchange, 400, "{}");
        });
    List<CompletableFuture<HttpResponse<String>>> waiting =
        Stream.generate(() -> Threads.supply(() -> servers.one.sync(token))).limit(20).toList();
    TestServer.await("Clerk is asked", () -> servers.clerk.userCalls() > calls);

    fail.countDown();

    waiting.forEach(answer -> assertEquals(502, answer.join().statusCode()));
    servers.clerk.heal();
    assertEquals(200, servers.sync(id).statusCode());
  }

  @Test
  void knownUserIsServedFromTheTableWhileClerkIsDown() {
    String id = newUser();
    String first = servers.sync(id).body();
    servers.clerk.putUser(id, "other@example.com", "Other", "Name");
    servers.clerk.onUser(StandInClerk.answering(500, "{}"));
    int calls = servers.clerk.userCalls();

    HttpResponse<String> again = servers.sync(id);

    assertEquals(200, again.statusCode());
    assertEquals(first, again.body());
    assertEquals(calls, servers.clerk.userCalls());
  }

  static Stream<Arguments> profiles() {
    String long300 = "\"" + "x".repeat(300) + "\"";
    return Stream.of(
        Arguments.of("\"John\"", "\"Doe\"", "\"https://i/1\"", "\"John Doe\"", "\"https://i/1\""),
        Arguments.of("null", "null", "null", "null", "null"),
        Arguments.of("\"\"", "\"\"", "\"\"", "null", "null"),
        Arguments.of("\"  \"", "\" \\t\"", "\" \"", "null", "null"),
        Arguments.of("\"John\"", "null", "null", "\"John\"", "null"),
        Arguments.of("null", "\"Doe\"", "null", "\"Doe\"", "null"),
        Arguments.of("\" John \"", "\" Doe \"", "null", "\"John Doe\"", "null"),
        Arguments.of("\"Anna Lena\"", "\"\"", "null", "\"Anna Lena\"", "null"),
        Arguments.of("\"😀\"", "\"\\ud83d\\ude00\"", "null", "\"😀 😀\"", "null"),
        Arguments.of("\"Jo\\u0000hn\"", "\"\\u0000\"", "null", "\"John\"", "null"),
        Arguments.of("\"Jo\\ud83d\"", "\"\\ude00hn\"", "null", "\"Jo hn\"", "null"),
        Arguments.of("\"O'Neill\\\"\\\\\"", "null", "null", "\"O'Neill\\\"\\\\\"", "null"),
        Arguments.of(long300, "null", "null", long300, "null"));
  }

  @ParameterizedTest
  @MethodSource("profiles")
  void nameIsFirstAndLastNameAndNothingIsNull(
      String first, String last, String image, String name, String imageUrl) {
    String id = newUser();
    servers.clerk.onUser(
        StandInClerk.answering(
            200,
            """
            {"id":"%s","first_name":%s,"last_name":%s,"image_url":%s,"updated_at":1760000000000,
             "primary_email_address_id":"idn_1","email_addresses":[{"id":"idn_1","email_address":"%s"}]}
            """
                .formatted(id, first, last, image, id)));

    HttpResponse<String> response = servers.sync(id);

    assertEquals(200, response.statusCode(), response.body());
    assertTrue(
        response.body().contains("\"name\":" + name + ",\"imageUrl\":" + imageUrl + ","),
        response.body());
  }

  @Test
  void fieldsThatAreNotThereAreNull() {
    String id = newUser();
    servers
        .clerk
        .users()
        .get(id)
        .remove(List.of("first_name", "last_name", "image_url", "has_image"));

    HttpResponse<String> response = servers.sync(id);

    assertTrue(response.body().contains("\"name\":null,\"imageUrl\":null,"), response.body());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "\"x\":0",
        "\"primary_email_address_id\":null,\"email_addresses\":[]",
        "\"primary_email_address_id\":null,\"email_addresses\":null",
        "\"primary_email_address_id\":null,"
            + "\"email_addresses\":[{\"id\":\"idn_1\",\"email_address\":\"a\"}]",
        "\"primary_email_address_id\":\"idn_2\","
            + "\"email_addresses\":[{\"id\":\"idn_1\",\"email_address\":\"a\"},null]",
        "\"primary_email_address_id\":\"idn_1\","
            + "\"email_addresses\":[{\"id\":\"idn_1\",\"email_address\":\" \"}]",
        "\"primary_email_address_id\":\"idn_1\",\"email_addresses\":[{\"id\":\"idn_1\"}]"
      })
  void userWithoutAPrimaryEmailGetsNoRow(String fields) {
    String id = newUser();
    servers.clerk.onUser(
        StandInClerk.answering(
            200, "{\"id\":\"" + id + "\",\"updated_at\":1760000000000," + fields + "}"));

    HttpResponse<String> response = servers.sync(id);

    assertEquals(422, response.statusCode());
    assertTrue(response.body().endsWith("\"message\":\"User has no email address\"}"));
    assertEquals(List.of(), rows(id));
    servers.clerk.heal();
    assertEquals(200, servers.sync(id).statusCode());
  }

  @Test
  void olderCopyOfASlowerServerIsIgnored() {
    String id = newUser();
    CountDownLatch allowed = new CountDownLatch(1);
    int calls = servers.clerk.userCalls();
    servers.clerk.onUser(late(id, allowed));
    CompletableFuture<HttpResponse<String>> slower = Threads.supply(() -> servers.sync(id));
    TestServer.await("the slower one has asked", () -> servers.clerk.userCalls() > calls);
    servers.clerk.heal();
    servers.clerk.putUser(id, id + "-new@example.com", "Newer", null);
    servers.clerk.users().get(id).put("updated_at", System.currentTimeMillis() + 1000);

    HttpResponse<String> faster = servers.two().sync(servers.clerk.token(id));
    allowed.countDown();

    assertEquals(faster.body(), slower.join().body());
    assertEquals(List.of(id + "|" + id + "-new@example.com|Newer"), rows(id));
  }

  @Test
  void lateCopyDoesNotBringADeletedUserBack() {
    String id = newUser();
    CountDownLatch allowed = new CountDownLatch(1);
    int calls = servers.clerk.userCalls();
    servers.clerk.onUser(late(id, allowed));
    CompletableFuture<HttpResponse<String>> late = Threads.supply(() -> servers.sync(id));
    TestServer.await("the late one has asked", () -> servers.clerk.userCalls() > calls);
    servers.clerk.heal();
    servers.clerk.deleteUser(id);

    assertEquals(200, servers.webhook(servers.two(), "user.deleted", id).statusCode());
    allowed.countDown();

    assertEquals(401, late.join().statusCode());
    assertEquals(List.of(id + "|" + id + "@deleted.invalid|null"), rows(id));
  }
}
