package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.sun.net.httpserver.HttpHandler;
import java.time.Duration;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Every row of the error table, byte for byte where a client reads it. */
class ErrorTableTest {
  private static final String SYNC = "/api/user/sync";
  private static final String NO_MORE = "";

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

  static Stream<Arguments> errors() {
    String missing = "Missing or invalid authorization header";
    String challenge = "WWW-Authenticate: Bearer";
    return Stream.of(
        arguments(request("POST", SYNC), 401, "Unauthorized", missing, challenge),
        arguments(
            request("POST", SYNC, "Authorization: Basic YTpi"),
            401,
            "Unauthorized",
            missing,
            challenge),
        arguments(
            request("POST", SYNC, "Authorization: Bearer junk"),
            401,
            "Unauthorized",
            "Invalid or expired token",
            challenge),
        arguments(
            request("POST", SYNC, bearer("user_nobody")),
            401,
            "Unauthorized",
            "User no longer exists",
            challenge),
        arguments(
            request("POST", SYNC, bearer("user_known"), bearer("user_known")),
            400,
            "Bad Request",
            "More than one Authorization header",
            NO_MORE),
        arguments(request("GET", "/nope"), 404, "Not Found", "Not found", NO_MORE),
        arguments(request("POST", "/api/user/other"), 404, "Not Found", "Not found", NO_MORE),
        arguments(
            request("GET", SYNC), 405, "Method Not Allowed", "Method not allowed", "Allow: POST"),
        arguments(
            request("POST", SYNC, bearer("user_known"), "Content-Length: 1048577"),
            413,
            "Payload Too Large",
            "Request body is too large",
            NO_MORE),
        arguments(
            request("GET", "/api/health", "X: " + "x".repeat(16 << 10)),
            431,
            "Request Header Fields Too Large",
            "Request headers are too large",
            NO_MORE));
  }

  @ParameterizedTest(name = "{3}")
  @MethodSource("errors")
  void errorIsOneSentenceOfJson(
      String text, int status, String reason, String message, String header) {
    String[] headers = header.isEmpty() ? new String[0] : new String[] {header};

    ask(text).assertError(status, reason, message, headers);
  }

  @Test
  void userWithoutEmailIs422() {
    clerk.putUser("user_phone", null, "Pat", null);

    ask(request("POST", SYNC, bearer("user_phone")))
        .assertError(422, "Unprocessable Entity", "User has no email address");
  }

  @Test
  void addressThatClerkConfirmsForAnotherUserIs409() {
    clerk.putUser("user_rival", "known@example.com", "Rival", null);

    ask(request("POST", SYNC, bearer("user_rival")))
        .assertError(409, "Conflict", "Email address is already in use by another user");
  }

  @Test
  void nonsenseFromClerkIs502() {
    whileClerk(StandInClerk.answering(200, "[]"))
        .assertError(502, "Bad Gateway", "Clerk sent an unexpected answer");
  }

  @Test
  void clerkDownIs503() {
    whileClerk(StandInClerk.answering(500, "{}"))
        .assertError(503, "Service Unavailable", "Clerk is unavailable", "Retry-After: 5");
  }

  private static Answer whileClerk(HttpHandler fails) {
    clerk.onUser(fails);
    try {
      return ask(request("POST", SYNC, bearer("user_new")));
    } finally {
      clerk.heal();
    }
  }

  @Test
  void databaseDownIs503() {
    String url = TestPostgres.newDatabase();
    String name = url.replaceFirst(".*/", "");
    try (TestServer other = TestServer.start(clerk, url)) {
      TestPostgres.execute(
          DATABASE,
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'");
      TestPostgres.execute(DATABASE, "ALTER DATABASE " + name + " RENAME TO " + name + "_away");

      RawHttp.ask(other.port(), request("POST", SYNC, bearer("user_known")))
          .assertError(503, "Service Unavailable", "Database is unavailable", "Retry-After: 5");
      Answer ready = RawHttp.ask(other.port(), request("GET", "/api/ready"));
      assertEquals(503, ready.status());
      assertEquals("{\"status\":\"unavailable\",\"database\":\"unavailable\"}", ready.body());
      assertEquals(200, RawHttp.ask(other.port(), request("GET", "/api/health")).status());
    }
  }

  @Test
  void bugIs500AndItsCauseIsLoggedOnce() {
    assertBugIs("Internal server error", server);
  }

  @Test
  void causeOfABugIsToldInDevelopment() {
    try (TestServer other = TestServer.start(clerk, DATABASE, "NODE_ENV", "development")) {
      assertBugIs(
          "org.postgresql.util.PSQLException: ERROR: relation \\\"users\\\" does not exist", other);
    }
  }

  private static void assertBugIs(String message, TestServer asked) {
    TestPostgres.execute(DATABASE, "ALTER TABLE users RENAME TO moved");
    try {
      Answer answer = RawHttp.ask(asked.port(), request("POST", SYNC, bearer("user_known")));

      answer.assertError(500, "Internal Server Error", message);
      assertEquals(2, Log.text().split("Unhandled exception", -1).length, Log.text());
      assertTrue(Log.text().contains("\tat com.realmeet.server.users.UserDao.find"), Log.text());
    } finally {
      TestPostgres.execute(DATABASE, "ALTER TABLE moved RENAME TO users");
    }
  }
}
