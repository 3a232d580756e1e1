package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Access;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The id of a request, in its answer and in the log. That each answer has one, Contract checks. */
class RequestIdTest {
  private static StandInClerk clerk;
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    server = TestServer.start(clerk, TestPostgres.newDatabase());
    server.addRoute(
        "/throw",
        ctx -> {
          throw new IllegalStateException("on purpose");
        },
        Access.PUBLIC);
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  private static String id(Answer answer) {
    assertEquals(1, answer.header("X-Request-Id").size());
    return answer.header("X-Request-Id").get(0);
  }

  private static void assertNew(Answer answer) {
    assertTrue(id(answer).matches("[0-9a-f]{16}"), id(answer));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "a",
        "0b9F-4.c_d",
        "----------------------------------------------------------------"
      })
  void idOfTheClientIsKeptInEachKindOfAnswer(String id) {
    String header = "X-Request-Id: " + id;
    for (String request :
        List.of(
            request("GET", "/api/health", header),
            request("HEAD", "/api/health", header),
            request("POST", "/api/user/sync", header),
            request("DELETE", "/api/user/sync", header),
            request("GET", "/nope", header),
            request("GET", "/api/health", header, "X: " + "y".repeat(20_000)),
            request("POST", "/api/user/sync", header, "Content-Length: 2000000"))) {
      assertEquals(id, id(RawHttp.ask(server.port(), request)), request);
    }
  }

  static Stream<List<String>> unsafe() {
    return Stream.of(
        List.of(""),
        List.of("a b"),
        List.of("a,b"),
        List.of("a\tb"),
        List.of("a\u001b[31mb"),
        List.of("a\0b"),
        List.of("a\rb"),
        List.of("a\r\n b"),
        List.of("a\nERROR"),
        List.of("ä"),
        List.of("<script>"),
        List.of("${jndi:ldap://a}"),
        List.of("a".repeat(65)),
        List.of("a".repeat(60_000)),
        List.of("a", "b"),
        List.of("a", "a"));
  }

  /** Whether it is an answer to the request, or Jetty takes the header for malformed. */
  @ParameterizedTest
  @MethodSource("unsafe")
  void unsafeIdIsReplaced(List<String> ids) {
    String[] headers = ids.stream().map(id -> "X-Request-Id: " + id).toArray(String[]::new);

    assertNew(RawHttp.ask(server.port(), request("GET", "/api/health", headers)));
  }

  @Test
  void eachRequestHasAnIdOfItsOwn() {
    try (RawHttp connection = new RawHttp(server.port())) {
      String first = id(connection.send(request("GET", "/api/health")).answer());
      String second = id(connection.send(request("GET", "/api/health")).answer());

      assertTrue(!first.equals(second), first);
    }
  }

  @Test
  void logNamesTheRequest() {
    RawHttp connection = new RawHttp(server.port());
    String bug = id(connection.send(request("POST", "/throw")).unchecked());
    String refused = id(connection.send(request("POST", "/api/user/sync")).unchecked());
    connection.close();

    String log = Log.text();
    assertTrue(
        log.contains(
            "ERROR Errors - Unhandled exception (request "
                + bug
                + ")\njava.lang.IllegalStateException: on purpose"),
        log);
    assertTrue(log.lines().anyMatch(line -> line.endsWith(" (request " + refused + ")")), log);
  }
}
