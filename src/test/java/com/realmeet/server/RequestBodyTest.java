package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Access;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.TestServer;
import io.javalin.http.Context;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInfo;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Request bodies, whoever sends them: what they cost together is limited, and what is left of them
 * is never taken for a request.
 */
class RequestBodyTest {
  private static final String WEBHOOK = "/api/webhooks/clerk";
  private static final String SYNC = "/api/user/sync";
  private static final String HALF = "x".repeat(1 << 19);
  private static final String K900 = "x".repeat(900_000);
  private static final String CHUNK = "10000\r\n" + "x".repeat(1 << 16) + "\r\n";
  private static final String CHUNKED = "Transfer-Encoding: chunked";

  /** Marks tests that leave bodies incomplete; after the others, one look is enough for all. */
  private static final String HOLDS = "holds-bodies";

  private static Fleet fleet;
  private static TestServer server;
  private static String bearer;

  private final List<RawHttp> open = new ArrayList<>();

  @BeforeAll
  static void start() {
    fleet = new Fleet(1);
    server = fleet.server(0);
    fleet.clerk().putUser("user_b", "b@example.com", "Bea", null);
    bearer = "Authorization: Bearer " + fleet.clerk().token("user_b", Duration.ofMinutes(10));
    server.addRoute("/size", ctx -> ctx.result(String.valueOf(ctx.bodyAsBytes().length)));
    server.addRoute("/stream", ctx -> ctx.result(String.valueOf(streamed(ctx))));
    server.addRoute("/unread", RequestBodyTest::respondAtLength);
    server.addRoute(
        "/public", ctx -> ctx.result(String.valueOf(ctx.bodyAsBytes().length)), Access.PUBLIC);
    assertEquals(200, fleet.sync(0, "user_b").statusCode());
  }

  /** More than the server buffers. */
  private static void respondAtLength(Context ctx) {
    ctx.res().setContentLength(200_000);
    ctx.result("x".repeat(200_000));
  }

  private static long streamed(Context ctx) throws IOException {
    return ctx.bodyInputStream().transferTo(OutputStream.nullOutputStream());
  }

  @AfterAll
  static void stop() {
    assertNothingIsHeld();
    fleet.close();
  }

  @AfterEach
  void end(TestInfo test) {
    open.forEach(RawHttp::close);
    assertFalse(Log.text().contains(" ERROR "), Log.text());
    assertFalse(Log.text().contains("Body size"), Log.text());
    if (test.getTags().contains(HOLDS)) {
      assertNothingIsHeld();
    }
  }

  /** As many bodies as the budgets hold are taken at once: nothing has leaked. */
  private static void assertNothingIsHeld() {
    TestServer.await("the budget of users is empty", () -> allAreRead(6, "/size", bearer));
    TestServer.await("the budget of strangers is empty", () -> allAreRead(2, "/public", "X: y"));
  }

  private static boolean allAreRead(int megabytes, String path, String header) {
    return TestServer.atOnce(megabytes, () -> size(path, header).status()).stream()
        .allMatch(status -> status == 200);
  }

  private static Answer size(String path, String header) {
    try (RawHttp connection = new RawHttp(server.port())) {
      connection.send(request("POST", path, header, "Content-Length: " + (1 << 20)) + HALF);
      return connection.send(HALF).unchecked();
    }
  }

  private RawHttp connect(String text) {
    RawHttp connection = new RawHttp(server.port());
    open.add(connection);
    return connection.send(text);
  }

  /** Headers of a webhook that could be Svix's. */
  private static String svix() {
    return "svix-id: msg_1\r\nsvix-timestamp: "
        + Instant.now().getEpochSecond()
        + "\r\nsvix-signature: v1,"
        + "A".repeat(43)
        + "=";
  }

  private static Stream<Supplier<String>> halfBodies() {
    String length = "Content-Length: 1000000";
    return Stream.of(
        () -> request("POST", WEBHOOK, length) + K900,
        () -> request("POST", WEBHOOK, svix(), length) + K900,
        () -> request("POST", WEBHOOK, svix(), CHUNKED) + CHUNK.repeat(13),
        () -> request("POST", WEBHOOK, svix(), CHUNKED) + "1\r\nx\r\n".repeat(100_000),
        () -> request("POST", WEBHOOK, svix(), "Expect: 100-continue", length) + K900,
        () -> request("POST", WEBHOOK, svix(), length).replace("1.1", "1.0") + K900,
        () -> request("POST", SYNC, length) + K900,
        () -> request("POST", SYNC, bearer, length) + K900,
        () -> request("POST", SYNC, bearer, CHUNKED) + CHUNK.repeat(13),
        () -> request("POST", "/size", bearer, length) + K900,
        () -> request("POST", "/nope", length) + K900,
        () -> request("GET", "/api/openapi.yaml", length) + K900);
  }

  @ParameterizedTest
  @MethodSource("halfBodies")
  @Tag(HOLDS)
  void bodiesThatStopHalfwayHoldNobodyUp(Supplier<String> text) {
    String half = text.get();
    List<Thread> senders = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      RawHttp connection = connect("");
      Thread sender = new Thread(() -> connection.send(half));
      sender.start();
      senders.add(sender);
    }

    for (int i = 0; i < 10; i++) {
      assertEquals(200, server.get("/api/health").statusCode());
      assertEquals(200, fleet.sync(0, "user_b").statusCode());
    }
    // The server answers each, or closes it, before it is idle: a sender ends either way.
    senders.forEach(RequestBodyTest::join);
  }

  private static void join(Thread thread) {
    try {
      thread.join();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  @Test
  @Tag(HOLDS)
  void unsignedWebhookIsRefusedBeforeItsBodyArrives() {
    String length = "Content-Length: 1000";
    String old = svix().replaceFirst("timestamp: \\d+", "timestamp: 1614265330");
    for (String header :
        List.of("X: y", old, svix().replace("v1,", "v2,"), svix().replace("AAA=", "="))) {
      Answer answer = connect(request("POST", WEBHOOK, header, length)).answer();

      assertEquals(400, answer.status(), header);
      assertEquals(List.of("close"), answer.header("Connection"));
    }
    connect(request("POST", WEBHOOK, svix(), "Expect: 100-continue", length)).awaitContinue();
  }

  @Test
  @Tag(HOLDS)
  void strangersCannotUseUpTheBudgetOfUsers() {
    for (int i = 0; i < 40; i++) {
      connect(request("POST", "/public", "Content-Length: 1000000") + "x".repeat(500_000));
      connect(request("POST", "/size", CHUNKED) + CHUNK); // 401
    }

    assertEquals(200, size("/size", bearer).status());
    String whole = "3e8\r\n" + "x".repeat(1000) + "\r\n0\r\n\r\n";
    assertEquals(
        "1000", connect(request("POST", "/size", bearer, CHUNKED) + whole).unchecked().body());
  }

  @ParameterizedTest
  @CsvSource({"/stream, true", "/public, false"})
  @Tag(HOLDS)
  void bodiesBeyondTheBudgetAreAnsweredWith503(String path, boolean signedIn) {
    String origin = "Origin: http://localhost:3000";
    List<RawHttp> connections = new ArrayList<>();
    for (int i = 0; i < 80; i++) { // 40 users' and 16 strangers' bodies may be waited for
      String token = signedIn ? bearer : "X: y";
      connections.add(connect(request("POST", path, token, origin, "Content-Length: 9") + "a"));
    }

    List<Answer> answers = connections.stream().map(RawHttp::unchecked).toList();

    List<Answer> refused = answers.stream().filter(answer -> answer.status() == 503).toList();
    assertTrue(refused.size() >= (signedIn ? 20 : 50), refused.size() + " were refused");
    for (Answer answer : refused) {
      assertEquals(
          "{\"error\":\"Service Unavailable\",\"message\":\"Server is overloaded\"}",
          answer.body());
      assertEquals(List.of("1"), answer.header("Retry-After"));
      assertEquals(
          List.of("Retry-After, X-Request-Id"), answer.header("Access-Control-Expose-Headers"));
    }
    List<Answer> late = answers.stream().filter(answer -> answer.status() == 408).toList();
    assertEquals(80, late.size() + refused.size());
    assertEquals(
        "{\"error\":\"Request Timeout\",\"message\":\"Request body did not arrive in time\"}",
        late.get(0).body());
    for (Answer answer : answers) {
      assertEquals(List.of("close"), answer.header("Connection"));
      assertEquals(List.of("http://localhost:3000"), answer.header("Access-Control-Allow-Origin"));
    }
  }

  /** Clients may send head and body in two packets. */
  @Test
  @Tag(HOLDS)
  void newBodyIsReadWhileOthersHaveStalled() {
    for (int i = 0; i < 60; i++) {
      String stalls = request("POST", WEBHOOK, svix(), "Content-Length: 1000000");
      connect(i % 2 == 0 ? stalls : stalls + "x".repeat(500_000));
    }
    TestServer.await(
        "a webhook is read", () -> fleet.webhook("user.updated", "user_b").statusCode() == 200);
    for (int i = 0; i < 5; i++) {
      connect(request("POST", WEBHOOK, svix(), "Content-Length: 1000000") + "x".repeat(500_000));
      long sent = System.nanoTime();
      TestServer.await(
          "the other has stalled, and a body is read",
          () -> size("/public", "X: y").status() == 200);
      assertTrue(
          System.nanoTime() - sent < Deadline.REQUEST_TIMEOUT.toNanos(), "it gave up itself");
    }
  }

  @Test
  @Tag(HOLDS)
  void clientsThatGoAwayLeaveNothingBehind() {
    List<Consumer<RawHttp>> ends = List.of(RawHttp::close, RawHttp::reset, RawHttp::endOutput);
    for (int i = 0; i < 300; i++) {
      String head = i % 2 == 0 ? request("POST", "/size", bearer, CHUNKED) + "9\r\n" : "";
      RawHttp connection =
          connect(
              head.isEmpty()
                  ? request("POST", "/public", "Content-Length: 9") + "a"
                  : head + "abc");
      ends.get(i % 3).accept(connection);
      if (i % 3 == 2) {
        Answer answer = connection.unchecked();
        assertTrue(
            answer.status() == 503 || answer.body().contains("Request body is incomplete"),
            answer.body());
      }
    }
  }

  private static Stream<Supplier<String>> unreadBodies() {
    return Stream.of(
        () -> request("POST", SYNC, bearer, "Content-Length: 5"),
        () -> request("POST", SYNC, "Content-Length: 5"),
        () -> request("POST", "/nope", "Content-Length: 5"),
        () -> request("POST", "/unread", bearer, "Content-Length: 5"),
        () -> request("GET", "/api/openapi.yaml", "Content-Length: 5"),
        () -> request("POST", WEBHOOK, "Content-Length: 5"));
  }

  @ParameterizedTest
  @MethodSource("unreadBodies")
  @Tag(HOLDS)
  void connectionWithAnUnreadBodyStaysUsableOrIsSaidToClose(Supplier<String> head) {
    for (int millis : new int[] {0, 1, 50, 200}) {
      RawHttp connection = connect(head.get() + (millis == 0 ? "abcde" : ""));
      if (millis > 0) {
        Threads.sleep(Duration.ofMillis(millis));
        connection.send("abcde");
      }
      boolean closes = connection.unchecked().header("Connection").equals(List.of("close"));

      if (closes) {
        assertTrue(connection.isClosed());
      } else {
        assertEquals(200, connection.send(request("GET", "/api/health")).unchecked().status());
      }
      assertFalse(closes && millis == 0, "a body that has arrived costs no connection");
    }
  }

  /** A client may send all of its body before it reads. */
  @Test
  void responseToABodyThatIsNotReadArrives() {
    for (int megabytes : new int[] {1, 9}) {
      for (String token : List.of("X: y", bearer)) {
        String length = "Content-Length: " + megabytes * K900.length();
        RawHttp connection = connect(request("POST", SYNC, token, length) + K900.repeat(megabytes));

        int status = token.equals(bearer) ? 200 : 401;
        assertEquals(megabytes > 1 ? 413 : status, connection.answer().status());
      }
    }
  }

  @Test
  void connectionOfHttp10WithChunksIsClosed() {
    String head = request("POST", SYNC, bearer, CHUNKED, "Connection: keep-alive");
    RawHttp connection = connect(head.replace("1.1", "1.0") + "0\r\n\r\n");

    assertEquals(List.of("close"), connection.unchecked().header("Connection"));
    assertTrue(connection.isClosed());
  }

  @ParameterizedTest
  @ValueSource(strings = {"Content-Length: 300", CHUNKED})
  void bodyMayArriveByteByByte(String framing) {
    String body = "x".repeat(300);
    boolean chunks = framing.equals(CHUNKED);
    RawHttp connection = connect("");
    String text = chunks ? "12c\r\n" + body + "\r\n0\r\n\r\n" : body;
    (request("POST", "/size", bearer, framing) + text)
        .chars()
        .forEach(c -> connection.send(String.valueOf((char) c)));

    assertEquals("300", connection.unchecked().body());
    assertEquals(200, connection.send(request("GET", "/api/health")).unchecked().status());
  }

  @Test
  @Tag(HOLDS)
  void megabyteOfTinyChunksIsRefused() {
    RawHttp connection =
        connect(request("POST", "/size", bearer, CHUNKED) + "1\r\nx\r\n".repeat(5000));

    assertEquals(413, connection.unchecked().status());
  }

  @Test
  void largeBodyIsRefusedBeforeItArrives() {
    RawHttp connection =
        connect(request("POST", "/size", bearer, "Content-Length: " + ((1 << 20) + 1)));

    Answer answer = connection.unchecked();

    assertEquals(413, answer.status());
    assertEquals(List.of("close"), answer.header("Connection"));
  }

  /** A field of 5 bytes takes 26 times as many in memory: 90 of them count like 12 KB. */
  @ParameterizedTest
  @CsvSource({"y, 20000", "'1\r\na:b\r\nc:', 45"})
  void headsThatStopHalfwayTakeLittleMemoryAndHoldUpNobody(String text, int times) {
    String request = request("POST", SYNC, bearer);
    server.setIdleTime(Duration.ofMinutes(5)); // the limit of memory closes them, not that of time
    RawHttp inPieces = connect(request.substring(0, 100));
    for (int i = 0; i < 1000; i++) {
      connect("GET /api/health HTTP/1.1\r\nHost: x\r\nX: " + text.repeat(times));
    }

    TestServer.await("some are closed", () -> open.stream().anyMatch(RawHttp::isClosedNow));
    for (int i = 0; i < 10; i++) {
      assertEquals(200, RawHttp.ask(server.port(), request).status());
    }
    assertEquals(200, inPieces.send(request.substring(100)).answer().status());
    server.setIdleTime(Duration.ofSeconds(25));
  }

  /** Jetty keeps a head in more than one copy, and one of them until the connection ends. */
  @Test
  void largeHeadsOfRequestsUnderWayTakeLittleMemoryToo() {
    CountDownLatch end = new CountDownLatch(1);
    server.addRoute("/blocks", ctx -> end.await(), Access.PUBLIC);
    String large = request("POST", "/blocks", "X: " + "y".repeat(15_000));
    for (int i = 0; i < 400; i++) {
      connect(large);
    }

    assertEquals(503, connect(large).unchecked().status(), "the memory is used up");
    assertEquals(200, RawHttp.ask(server.port(), request("POST", SYNC, bearer)).status());

    end.countDown();
    TestServer.await(
        "it is free again",
        () -> {
          RawHttp client = connect(large);
          try {
            Answer answer = client.unchecked();
            return answer.status() == 200 && answer.header("Connection").contains("close");
          } catch (UncheckedIOException closed) {
            return false;
          }
        });
  }

  /** The server keeps no trailers: 64 KB of them would take 1.4 MB of heap. */
  @Test
  void trailersAreDropped() {
    server.addRoute(
        "/trailers",
        ctx -> {
          ctx.body();
          ctx.result(String.valueOf(ctx.req().getTrailerFields()));
        },
        Access.PUBLIC);
    RawHttp client =
        connect(
            request("POST", "/trailers", "Transfer-Encoding: chunked")
                + "1\r\nx\r\n0\r\na: b\r\n\r\n");

    assertEquals("{}", client.unchecked().body());
  }
}
