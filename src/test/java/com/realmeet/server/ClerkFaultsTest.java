package com.realmeet.server;

import static com.realmeet.server.testing.FaultyClerk.answer;
import static com.realmeet.server.testing.FaultyClerk.drip;
import static com.realmeet.server.testing.FaultyClerk.raw;
import static com.realmeet.server.testing.FaultyClerk.stall;
import static com.realmeet.server.testing.FaultyClerk.user;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.FaultyClerk;
import com.realmeet.server.testing.FaultyClerk.Fault;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Whatever Clerk does, a request gets its answer in time, and the log one line. */
class ClerkFaultsTest {
  private static final String DATABASE = TestPostgres.newDatabase();
  private static final AtomicInteger users = new AtomicInteger();
  private static StandInClerk keys;
  private static FaultyClerk clerk;
  private static FaultyClerk elsewhere;
  private static TestServer server;

  private static final String GONE =
      "{\"error\":\"Unauthorized\",\"message\":\"User no longer exists\"}";
  private static final String NONSENSE =
      "{\"error\":\"Bad Gateway\",\"message\":\"Clerk sent an unexpected answer\"}";
  private static final String UNAVAILABLE =
      "{\"error\":\"Service Unavailable\",\"message\":\"Clerk is unavailable\"}";

  @BeforeAll
  static void start() {
    keys = new StandInClerk();
    clerk = new FaultyClerk();
    elsewhere = new FaultyClerk();
    server = clerk.server(keys, DATABASE);
  }

  @AfterAll
  static void stop() {
    server.close();
    elsewhere.close();
    clerk.close();
    keys.close();
  }

  @AfterEach
  void heal() {
    clerk.heal();
    assertEquals(200, sync(newUser()).statusCode());
  }

  private static String newUser() {
    return "user_" + users.incrementAndGet();
  }

  private static HttpResponse<String> sync(String id) {
    return sync(server, id);
  }

  private static HttpResponse<String> sync(TestServer server, String id) {
    return server.sync(keys.token(id));
  }

  static Stream<Arguments> faults() {
    String html = "<html><body>404 page not found</body></html>";
    String notFound = "{\"errors\":[{\"code\":\"resource_not_found\",\"message\":\"not found\"}]}";
    return Stream.of(
        fault("not found, says Clerk", answer(404, notFound), 401, GONE, 1),
        fault("not found, says a proxy", answer(404, html), 502, NONSENSE, 1),
        fault("not found, says other JSON", answer(404, "{\"error\":\"x\"}"), 502, NONSENSE, 1),
        fault("not found, without a body", answer(404, ""), 502, NONSENSE, 1),
        fault("redirect", answer(302, "", "Location: " + elsewhere.url() + "/"), 502, NONSENSE, 1),
        fault("redirect", answer(308, "", "Location: " + elsewhere.url() + "/"), 502, NONSENSE, 1),
        fault("no content", answer(204, ""), 502, NONSENSE, 1),
        fault("bad request", answer(400, notFound), 502, NONSENSE, 1),
        fault("key rejected", answer(401, notFound), 503, UNAVAILABLE, 1),
        fault("key forbidden", answer(403, notFound), 503, UNAVAILABLE, 1),
        fault("always 500", answer(500, "{}"), 503, UNAVAILABLE, 2),
        fault("always 503", answer(503, html), 503, UNAVAILABLE, 2),
        fault("truncated body", FaultyClerk.truncated(), 503, UNAVAILABLE, 2),
        // The JDK's own retry, of a connection that breaks before the first byte, is off.
        fault("no answer", raw(""), 503, UNAVAILABLE, 2),
        fault("reset connection", FaultyClerk.reset(), 503, UNAVAILABLE, 2),
        fault("half a header", raw("HTTP/1.1 200 OK\r\nA: a@example.com"), 503, UNAVAILABLE, 2),
        fault("endless body", FaultyClerk.endlessBody(), 502, NONSENSE, 1),
        fault("not HTTP", raw("SSH-2.0-x\u0007 john@example.com\r\n\r\n"), 502, NONSENSE, 1),
        fault("empty body", answer(200, ""), 502, NONSENSE, 1),
        fault("HTML", answer(200, html), 502, NONSENSE, 1),
        fault("half of the JSON", answer(200, user("x").substring(0, 60)), 502, NONSENSE, 1),
        fault(
            "JSON in no charset", answer(200, "{\0\0\0\u007f\u007f\u007f\u007f"), 502, NONSENSE, 1),
        fault("deep JSON", answer(200, "[".repeat(100_000)), 502, NONSENSE, 1),
        fault("null", answer(200, "null"), 502, NONSENSE, 1),
        fault("a text", answer(200, "\"user\""), 502, NONSENSE, 1),
        fault("another user", answer(200, user("user_other")), 502, NONSENSE, 1),
        changed("(?s).*", "[$0]"),
        changed("\"id\":\"user_\\d+\",", ""),
        changed("\"id\":\"user_\\d+\"", "\"id\":{}"),
        changed("\"John\"", "{\"a\":1}"),
        changed("\\[\\{", "[{\"id\":\"a\"},[],{"),
        changed("\"email_addresses\":\\[", "\"email_addresses\":\"none\",\"x\":["),
        changed("\"updated_at\":1760000000000,", ""),
        changed("1760000000000", "null"),
        changed("1760000000000", "\"yesterday\""),
        changed("1760000000000", "9223372036854775807"),
        changed("1760000000000", "253402300799999")); // the year 9999
  }

  private static Arguments fault(String name, Fault fault, int status, String body, int calls) {
    return Arguments.of(name, newUser(), fault, status, body, calls);
  }

  /** The very user that is asked for, but for one part. */
  private static Arguments changed(String part, String replacement) {
    String id = newUser();
    String body = user(id).replaceFirst(part, replacement);
    assertNotEquals(user(id), body, part);
    return Arguments.of(part + " → " + replacement, id, answer(200, body), 502, NONSENSE, 1);
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("faults")
  void faultIsAnsweredAsTheContractSays(
      String name, String id, Fault fault, int status, String body, int calls) {
    clerk.put(id, fault);

    long began = System.nanoTime();
    HttpResponse<String> response = sync(id);

    assertEquals(status, response.statusCode(), response.body());
    assertEquals(body, response.body());
    assertTrue(System.nanoTime() - began < Duration.ofSeconds(6).toNanos());
    assertHeaders(response);
    assertEquals(calls, clerk.requests(id).size());
    assertEquals(0, elsewhere.requests());
    assertEquals(
        List.of(), TestPostgres.query(DATABASE, "SELECT * FROM users WHERE id = '" + id + "'"));
    assertEquals(1, lines("DEBUG Errors - "));
    assertEquals(0, lines("A bug"));
    assertFalse(Log.text().contains("\u0007"));
    TestServer.await("the connection is closed", () -> clerk.open() == 0);
  }

  private static void assertHeaders(HttpResponse<String> response) {
    int status = response.statusCode();
    assertEquals("application/json", response.headers().firstValue("Content-Type").orElse(""));
    assertEquals("no-store", response.headers().firstValue("Cache-Control").orElse(""));
    assertEquals(status == 401, response.headers().firstValue("WWW-Authenticate").isPresent());
    int retryAfter = response.headers().firstValue("Retry-After").map(Integer::parseInt).orElse(0);
    assertTrue(status == 503 ? retryAfter >= 1 && retryAfter <= 60 : retryAfter == 0);
  }

  private static long lines(String text) {
    return Log.text().lines().filter(line -> line.contains(text)).count();
  }

  @Test
  void slownessOfAnyKindEndsInTimeAndWithTheConnection() {
    List<Fault> slow =
        List.of(
            stall(""),
            stall("HTTP/1.1 200 OK\r\nContent-"),
            drip("HTTP/1.1 200 OK\r\nX:"),
            FaultyClerk.stalledBody(),
            FaultyClerk.drippingBody(),
            stall("HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n"),
            stall("HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n"));
    List<String> ids = slow.stream().map(fault -> newUser()).toList();
    IntStream.range(0, slow.size()).forEach(i -> clerk.put(ids.get(i), slow.get(i)));
    AtomicInteger next = new AtomicInteger();

    long began = System.nanoTime();
    List<HttpResponse<String>> responses =
        TestServer.atOnce(slow.size(), () -> sync(ids.get(next.getAndIncrement())));

    assertTrue(System.nanoTime() - began < Duration.ofSeconds(6).toNanos());
    for (HttpResponse<String> response : responses) {
      assertEquals(503, response.statusCode(), response.body());
      assertEquals(UNAVAILABLE, response.body());
      assertHeaders(response);
    }
    ids.forEach(id -> assertEquals(1, clerk.requests(id).size(), id));
    TestServer.await("all connections are closed", () -> clerk.open() == 0);
  }

  static Stream<Arguments> passingFaults() {
    return Stream.of(
        Arguments.of("500", answer(500, "")),
        Arguments.of("503", answer(503, "{}")),
        Arguments.of("half a header", raw("HTTP/1.1 200 OK\r\nA:")),
        Arguments.of("truncated body", FaultyClerk.truncated()));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("passingFaults")
  void faultThatPassesIsTriedAgainOnce(String name, Fault fault) {
    String id = newUser();
    clerk.put(
        id,
        connection -> {
          clerk.heal();
          fault.answer(connection);
        });

    assertEquals(200, sync(id).statusCode());

    assertEquals(2, clerk.requests(id).size());
    assertEquals(0, lines("unavailable"));
  }

  @Test
  void faultThatLastsIsLoggedAtItsStartAndItsEnd() {
    List<String> ids = IntStream.range(0, 20).mapToObj(i -> newUser()).toList();
    ids.forEach(id -> clerk.put(id, answer(429, "john@example.com")));
    try (TestServer another = clerk.server(keys, DATABASE)) {
      ids.forEach(id -> assertEquals(503, sync(another, id).statusCode()));
      clerk.heal();
      TestServer.await("the pause is over", () -> sync(another, ids.get(0)).statusCode() == 200);
      ids.forEach(id -> assertEquals(200, sync(another, id).statusCode()));
    }

    assertEquals(1, lines("Clerk is unavailable: status 429, no calls for 1 s"));
    assertEquals(1, lines("Clerk is available again"));
    assertEquals(2, lines("ClerkApi"));
  }

  @Test
  void faultThatComesAndGoesIsLoggedOnce() {
    try (TestServer another = clerk.server(keys, DATABASE)) {
      for (int i = 0; i < 10; i++) {
        String id = newUser();
        clerk.put(id, answer(400, "john@example.com"));
        assertEquals(502, sync(another, id).statusCode());
        clerk.heal();
        assertEquals(200, sync(another, id).statusCode());
      }
    }

    assertEquals(1, lines("Clerk is unavailable: it sent an unexpected response, status 400"));
    assertEquals(1, lines("Clerk is available again"));
    assertEquals(2, lines("ClerkApi"));
  }

  @Test
  void refusedConnectionIsClerksUnavailability() {
    FaultyClerk gone = new FaultyClerk();
    try (TestServer alone = gone.server(keys, DATABASE)) {
      gone.close();

      HttpResponse<String> response = alone.sync(keys.token(newUser()));

      assertEquals(503, response.statusCode());
      assertEquals(UNAVAILABLE, response.body());
      assertHeaders(response);
    }
  }

  @Test
  void requestNamesTheKeyTheVersionOfTheApiAndTheServer() {
    String id = newUser();

    sync(id);

    List<String> lines = clerk.requests(id).get(0).lines().toList();
    assertEquals("GET /v1/users/" + id + " HTTP/1.1", lines.get(0));
    assertTrue(lines.contains("Authorization: Bearer " + StandInClerk.SECRET_KEY));
    assertTrue(lines.contains("Clerk-API-Version: 2026-05-12"));
    assertTrue(lines.contains("User-Agent: real-meet-server/" + "development"));
  }
}
