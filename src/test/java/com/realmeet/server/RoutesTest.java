package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The routes: which there are, what they answer, and what they do not listen to. */
class RoutesTest {
  private static final String SYNC = "/api/user/sync";
  private static final String TIME = "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z";

  private static final String DATABASE = TestPostgres.newDatabase();
  private static StandInClerk clerk;
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    server = TestServer.start(clerk, DATABASE);
    clerk.putUser("user_known", "known@example.com", "Ann", null);
    assertEquals(200, server.sync(clerk.token("user_known")).statusCode());
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  private static Answer ask(String text) {
    return RawHttp.ask(server.port(), text);
  }

  private static String bearer(String userId) {
    return "Authorization: Bearer " + clerk.token(userId, Duration.ofMinutes(5));
  }

  @Test
  void firstRequestNeedsNoPreparation() {
    AtomicInteger prepared = new AtomicInteger();
    try (TestServer fresh = TestServer.start(clerk, DATABASE)) {
      fresh.onPreparing(prepared::incrementAndGet);

      assertEquals(200, fresh.get("/api/openapi.yaml").statusCode());

      assertEquals(0, prepared.get());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"/api/health", "/api/health/", "/api/health?query=1"})
  void healthTellsTheTime(String path) {
    Answer answer = ask(request("GET", path));

    assertEquals("200 OK", answer.status() + " " + answer.reason());
    assertEquals(RawHttp.COMMON_HEADERS, answer.contractHeaders());
    assertTrue(
        answer
            .body()
            .matches(
                "\\{\"status\":\"ok\",\"timestamp\":\""
                    + TIME
                    + "\",\"service\":\"real-meet-server\"}"),
        answer.body());
    Instant time =
        Instant.parse(answer.body().replaceFirst(".*\"timestamp\":\"([^\"]*)\".*", "$1"));
    assertTrue(Duration.between(time, Instant.now()).abs().toSeconds() < 10, answer.body());
  }

  @Test
  void readyTellsThatTheDatabaseAnswers() {
    Answer answer = ask(request("GET", "/api/ready"));

    assertEquals(200, answer.status());
    assertEquals(RawHttp.COMMON_HEADERS, answer.contractHeaders());
    assertEquals("{\"status\":\"ok\",\"database\":\"ok\"}", answer.body());
  }

  @ParameterizedTest
  @CsvSource({
    "/api/health, 200",
    "/api/ready, 200",
    "/api/openapi.yaml, 200",
    SYNC + ", 405",
    "/nope, 404"
  })
  void headAnswersLikeGetWithoutABody(String path, int status) {
    try (RawHttp connection = new RawHttp(server.port())) {
      Answer head = connection.send(request("HEAD", path)).head();
      Answer get = connection.send(request("GET", path)).answer();

      assertEquals(status, head.status());
      assertEquals(get.contractHeaders(), head.contractHeaders());
      assertEquals(get.header("Content-Length"), head.header("Content-Length"));
    }
  }

  static Stream<Arguments> wrongMethods() {
    return Stream.of("/api/health", "/api/ready", SYNC)
        .flatMap(
            path ->
                Stream.of(
                        "GET",
                        "POST",
                        "PUT",
                        "PATCH",
                        "DELETE",
                        "OPTIONS",
                        "TRACE",
                        "QUERY",
                        "BREW",
                        "get",
                        "post",
                        "G-T",
                        "BEFORE",
                        "BEFORE_MATCHED",
                        "AFTER")
                    .filter(method -> !method.equals(path.equals(SYNC) ? "POST" : "GET"))
                    .map(method -> arguments(method, path)));
  }

  @ParameterizedTest
  @MethodSource("wrongMethods")
  void wrongMethodIs405AndTheRightOnesAreNamed(String method, String path) {
    ask(request(method, path, bearer("user_known")))
        .assertError(
            405,
            "Method Not Allowed",
            "Method not allowed",
            path.equals(SYNC) ? "Allow: POST" : "Allow: GET, HEAD");
  }

  @ParameterizedTest
  @ValueSource(strings = {"POST", "BEFORE_MATCHED", "p"})
  void headerDoesNotChangeTheMethod(String method) {
    String override = "X-HTTP-Method-Override: " + method;

    assertEquals(405, ask(request("GET", SYNC, override, bearer("user_known"))).status());
    assertEquals(200, ask(request("GET", "/api/health", override)).status());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/api//user/sync",
        "/api/user/./sync",
        "/api/user/x/../sync",
        "/api/user%2Fsync",
        "/api",
        "/api/user",
        "/api/user/sync;a=b",
        "/API/USER/SYNC",
        "/api/user/sync/x",
        "/"
      })
  void onlyTheExactPathIsARoute(String path) {
    ask(request("POST", path, bearer("user_known"))).assertError(404, "Not Found", "Not found");
  }

  @ParameterizedTest
  @ValueSource(strings = {"text/html", "application/xml", "*/*", "image/png;q=0.1", "nonsense"})
  void formIsNotNegotiated(String accept) {
    ask(request("GET", "/nope", "Accept: " + accept)).assertError(404, "Not Found", "Not found");
    assertEquals(
        RawHttp.COMMON_HEADERS,
        ask(request("GET", "/api/health", "Accept: " + accept)).contractHeaders());
  }

  static Stream<String> bodies() {
    return Stream.of(
        "Content-Length: 9\r\n\r\n{garbage\0",
        "Content-Length: 1048576\r\n\r\n",
        "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"id\":\"user_rival\"}\n",
        "Content-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\n-- ",
        "Transfer-Encoding: chunked\r\n\r\n"
            + ("4000\r\n" + "x".repeat(16384) + "\r\n").repeat(100));
  }

  @ParameterizedTest(name = "{index}")
  @MethodSource("bodies")
  void bodyOfSyncIsNotRead(String body) {
    Answer answer =
        ask(request("POST", SYNC, bearer("user_known")).stripTrailing() + "\r\n" + body);

    assertEquals(200, answer.status(), answer.body());
    assertEquals(RawHttp.COMMON_HEADERS, answer.contractHeaders());
    assertTrue(answer.body().startsWith("{\"success\":true,\"data\":{\"id\":\"user_known\","));
  }

  @Test
  void connectionIsNotUpgraded() {
    String[] upgrade = {
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    };

    assertAnswered(upgrade);
  }

  /** As Java's client asks for it in its first request on a connection. */
  @Test
  void connectionIsNotUpgradedToHttp2() {
    String[] upgrade = {
      "Connection: Upgrade, HTTP2-Settings",
      "Upgrade: h2c",
      "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA"
    };

    assertAnswered(upgrade);
    assertEquals(200, ask(request("POST", SYNC, with(upgrade, bearer("user_known")))).status());
  }

  private static String[] with(String[] headers, String more) {
    return Stream.concat(Stream.of(headers), Stream.of(more)).toArray(String[]::new);
  }

  private static void assertAnswered(String... headers) {
    assertEquals(200, ask(request("GET", "/api/health", headers)).status());
    assertEquals(401, ask(request("POST", SYNC, headers)).status());
    assertEquals(404, ask(request("GET", "/nope", headers)).status());
  }
}
