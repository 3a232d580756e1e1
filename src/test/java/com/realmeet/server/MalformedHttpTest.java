package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.time.Duration;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What is not HTTP, or not what this server takes for it, is answered in JSON by Jetty itself. */
class MalformedHttpTest {
  private static StandInClerk clerk;
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    server = TestServer.start(clerk, TestPostgres.newDatabase());
    clerk.putUser("user_known", "known@example.com", "Ann", null);
    assertEquals(200, server.sync(clerk.token("user_known")).statusCode());
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  private static String bearer() {
    return "Authorization: Bearer " + clerk.token("user_known", Duration.ofMinutes(5));
  }

  private enum Malformed {
    NO_HOST("GET /api/health HTTP/1.1\r\n\r\n", 400),
    TWO_HOSTS(request("GET", "/api/health", "Host: other"), 400),
    HOST_WITH_SPACES("GET /api/health HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    NUL_IN_HEADER(request("GET", "/api/health", "X: a\0b"), 400),
    SPACE_BEFORE_COLON(request("GET", "/api/health", "X : a"), 400),
    FOLDED_HEADER(request("GET", "/api/health", "X: a", " b"), 400),
    NO_COLON(request("GET", "/api/health", "X\0"), 400),
    NO_PATH("GARBAGE\r\n\r\n", 400),
    TLS("\26\3\1\2\0\1\0\1\374\3\3", 400),
    BAD_PERCENT(request("GET", "/api/%zz"), 400),
    NUL_IN_PATH(request("GET", "/api/%00"), 400),
    HALF_UTF_8(request("GET", "/api/%ff"), 400),
    TWO_LENGTHS(request("POST", "/api/user/sync", "Content-Length: 3", "Content-Length: 4"), 400),
    NEGATIVE_LENGTH(request("POST", "/api/user/sync", "Content-Length: -1"), 400),
    HUGE_LENGTH(request("POST", "/api/user/sync", "Content-Length: 99999999999999999999"), 400),
    LENGTH_AND_CHUNKS(
        request("POST", "/api/user/sync", "Content-Length: 3", "Transfer-Encoding: chunked"), 400),
    UNKNOWN_CODING(request("POST", "/api/user/sync", "Transfer-Encoding: gzip"), 400),
    BAD_CHUNK(request("POST", "/api/user/sync", "Transfer-Encoding: chunked") + "ZZ\r\nabc", 400),
    BAD_CHUNK_ON_GET(
        request("GET", "/api/health", "Transfer-Encoding: chunked") + "-1\r\nabc", 400),
    LONG_PATH(request("GET", "/" + "a".repeat(20_000)), 414),
    VERY_LONG_PATH(request("GET", "/" + "a".repeat(100_000)), 414),
    UNKNOWN_EXPECTATION(request("GET", "/api/health", "Expect: nothing"), 417),
    HTTP_2("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 426),
    MANY_HEADERS(request("GET", "/api/health", "X: y\r\n".repeat(100).strip()), 431),
    MORE_HEADERS(request("GET", "/api/health", "X: y\r\n".repeat(4000).strip()), 431),
    HUGE_HEADER(request("GET", "/api/health", "X: " + "y".repeat(100_000)), 431),
    HTTP_0_9("GET /api/health\r\n\r\n", 505);

    final String text;
    final int status;

    Malformed(String text, int status) {
      this.text = text;
      this.status = status;
    }
  }

  @ParameterizedTest
  @EnumSource
  void malformedRequestIsAnsweredInJson(Malformed request) {
    Answer answer = RawHttp.ask(server.port(), request.text);

    assertEquals(request.status, answer.status(), answer.body());
    assertEquals(RawHttp.COMMON_HEADERS, answer.contractHeaders());
    assertTrue(
        answer.body().matches("\\{\"error\":\"[A-Z][^\"]+\",\"message\":\"[A-Z][^\"]+\"}"),
        answer.body());
    assertFalse(answer.body().contains("\"message\":\"Bad Request\""), "it says which part");
    assertFalse(Log.text().contains(" WARN "), Log.text());
    assertFalse(Log.text().contains(" ERROR "), Log.text());
  }

  @Test
  void nothingAfterMalformedChunksIsTakenForARequest() {
    String chunks = request("POST", "/api/user/sync", bearer(), "Transfer-Encoding: chunked");
    try (RawHttp connection = new RawHttp(server.port())) {
      connection.send(chunks + "3\r\nabc\r\nZZ\r\n" + request("GET", "/api/health"));

      assertEquals(200, connection.answer().status());
      assertTrue(connection.isClosed());
    }
  }

  @Test
  void pipelinedRequestsAreAnsweredInOrder() {
    String body = "Content-Length: 4";
    try (RawHttp connection = new RawHttp(server.port())) {
      connection.send(
          request("GET", "/api/health")
              + request("POST", "/api/user/sync", bearer(), body)
              + "GET "
              + request("GET", "/nope")
              + request("POST", "/api/user/sync"));

      for (int status : new int[] {200, 200, 404, 401}) {
        assertEquals(status, connection.answer().status());
      }
    }
  }

  @Test
  void bodyThatWaitsForTheWordIsNotAskedFor() {
    try (RawHttp connection = new RawHttp(server.port())) {
      connection.send(
          request("POST", "/api/user/sync", bearer(), "Expect: 100-continue", "Content-Length: 5"));

      assertEquals(200, connection.answer().status());
      assertTrue(connection.isClosed());
    }
  }

  @Test
  void clientThatGoesAwayIsNoFault() {
    for (String text :
        new String[] {
          "GET /api/hea",
          request("POST", "/api/user/sync", "Content-Length: 9"),
          request("POST", "/api/user/sync", bearer(), "Transfer-Encoding: chunked") + "9\r\na"
        }) {
      new RawHttp(server.port()).send(text).close();
    }

    assertEquals(200, server.sync(clerk.token("user_known")).statusCode());
    assertFalse(Log.text().contains(" WARN "), Log.text());
    assertFalse(Log.text().contains(" ERROR "), Log.text());
  }
}
