package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.SessionTokenTable;
import com.realmeet.server.testing.SessionTokens;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class SessionAuthTest {
  private static final String DATABASE = TestPostgres.newDatabase();
  private static final StandInClerk clerk = new StandInClerk();
  private static final SessionTokenTable tokens = new SessionTokenTable(clerk);
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk.putUser(SessionTokens.USER, "good@example.com", "Good", null);
    clerk.putUser(SessionTokens.LONGEST, "longest@example.com", null, null);
    clerk.putUser("user_other", "other@example.com", "Other", null);
    server = TestServer.start(clerk, DATABASE);
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  static Stream<SessionTokens.Row> refused() {
    return tokens.refused();
  }

  static Stream<SessionTokens.Row> accepted() {
    return tokens.accepted();
  }

  @ParameterizedTest
  @MethodSource("refused")
  void everyFaultOfATokenGetsTheSameAnswer(SessionTokens.Row row) {
    String token = row.token().get();
    int calls = clerk.userCalls();

    assertUnauthorized("Invalid or expired token", server.sync(token));

    assertEquals(calls, clerk.userCalls());
    assertTrue(Log.text().contains("INVALID_TOKEN: Token refused: "), Log.text());
    assertFalse(Log.text().contains(token), "the log shows the token");
  }

  @ParameterizedTest
  @MethodSource("accepted")
  void oddButGoodTokensAreAccepted(SessionTokens.Row row) {
    HttpResponse<String> answer = server.sync(row.token().get());

    assertEquals(200, answer.statusCode(), answer.body() + Log.text());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "%s",
        "Bearer",
        "Bearer ",
        "Bearer%s",
        "Bearer  %s",
        "bearer",
        "bearer %s,%s",
        "bearer\t%s",
        "Basic %s",
        "Token %s",
        "Bearer %s %s",
        "Bearer %s,%s",
        "Bearer: %s",
        "Bearer\t%s"
      })
  void anythingButBearerAndATokenCountsAsNoToken(String form) {
    String value = form.replace("%s", clerk.token(SessionTokens.USER));

    assertUnauthorized(
        "Missing or invalid authorization header",
        server.send(request().header("Authorization", value)));
  }

  @ParameterizedTest
  @ValueSource(strings = {"Bearer", "bearer", "BEARER", "bEaReR"})
  void schemeIsWrittenInAnyCase(String scheme) {
    String value = scheme + " " + clerk.token(SessionTokens.USER);

    assertEquals(200, server.send(request().header("Authorization", value)).statusCode());
  }

  @Test
  void requestWithoutATokenIsRefused() {
    assertUnauthorized("Missing or invalid authorization header", server.send(request()));
  }

  @Test
  void ofTwoAuthorizationHeadersNeitherIsPicked() {
    String token = "Bearer " + clerk.token(SessionTokens.USER);

    HttpResponse<String> answer =
        server.send(request().header("Authorization", token).header("Authorization", token));

    assertEquals(400, answer.statusCode());
    assertEquals(
        "{\"error\":\"Bad Request\",\"message\":\"More than one Authorization header\"}",
        answer.body());
  }

  @Test
  void onlyTheTokenSaysWhoTheUserIs() {
    String other = clerk.token("user_other");
    HttpRequest.Builder request =
        HttpRequest.newBuilder(server.uri("/api/user/sync?id=user_other&userId=user_other"))
            .header("X-User-Id", "user_other")
            .header("X-Clerk-User-Id", "user_other")
            .header("Cookie", "__session=" + other)
            .header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString("{\"id\":\"user_other\",\"userId\":\"user_other\"}"));

    assertUnauthorized("Missing or invalid authorization header", server.send(request.copy()));
    HttpResponse<String> answer =
        server.send(request.header("Authorization", "Bearer " + clerk.token(SessionTokens.USER)));

    assertTrue(answer.body().contains("\"id\":\"user_good\""), answer.body());
    assertEquals(
        List.of(), TestPostgres.query(DATABASE, "SELECT id FROM users WHERE id = 'user_other'"));
  }

  @Test
  void theLogNamesTheRuleAndQuotesNothing() {
    ObjectNode header = clerk.header().put("kid", "quoted\r\nINFO forged");
    ObjectNode claims = clerk.claims("user_quoted\r\nINFO forged", Duration.ofHours(1));
    server.sync(StandInClerk.sign(header, claims, clerk.key().pair().getPrivate()));
    server.sync(StandInClerk.sign(clerk.header(), claims, clerk.key().pair().getPrivate()));
    server.sync(clerk.token(SessionTokens.USER, Duration.ofSeconds(-30)));

    String log = Log.text();
    assertTrue(log.contains("Token refused: no key of this kid"), log);
    assertTrue(log.contains("Token refused: sub is not a user id"), log);
    assertTrue(log.contains("Token refused: expired"), log);
    assertFalse(log.contains("quoted") || log.contains("forged"), log);
  }

  @Test
  void authorizedPartiesCanBeOthersThanTheFrontEnds() {
    String parties = "https://app.example.test, https://admin.example.test/";
    try (TestServer strict =
        TestServer.start(clerk, DATABASE, "CLERK_AUTHORIZED_PARTIES", parties)) {
      assertEquals(200, strict.sync(tokenOf("https://app.example.test")).statusCode());
      assertEquals(200, strict.sync(tokenOf("https://admin.example.test")).statusCode());
      assertEquals(401, strict.sync(tokenOf("http://localhost:3000")).statusCode());
      assertEquals(401, strict.sync(tokenOf(null)).statusCode());
    }
  }

  @Test
  void withoutAuthorizedPartiesAnyWillDo() {
    try (TestServer lax = TestServer.start(clerk, DATABASE, "CLERK_AUTHORIZED_PARTIES", "")) {
      assertEquals(200, lax.sync(tokenOf("https://elsewhere.example.test")).statusCode());
      assertEquals(200, lax.sync(tokenOf(null)).statusCode());
    }
  }

  @Test
  void nativeAppsAreAcceptedBesideTheFrontEnds() {
    try (TestServer mixed =
        TestServer.start(
            clerk, DATABASE, "CLERK_AUTHORIZED_PARTIES", "http://localhost:3000, None")) {
      assertEquals(200, mixed.sync(tokenOf(null)).statusCode());
      assertEquals(200, mixed.sync(tokenOf("http://localhost:3000")).statusCode());
      assertEquals(401, mixed.sync(tokenOf("https://elsewhere.example.test")).statusCode());
      assertEquals(401, mixed.sync(tokenOf("none")).statusCode());
      assertEquals(401, mixed.sync(tokenOf("")).statusCode());
    }
  }

  @Test
  void nativeAppsMayBeTheOnlyOnes() {
    try (TestServer apps = TestServer.start(clerk, DATABASE, "CLERK_AUTHORIZED_PARTIES", "none")) {
      assertEquals(200, apps.sync(tokenOf(null)).statusCode());
      assertEquals(401, apps.sync(tokenOf("http://localhost:3000")).statusCode());
    }
  }

  @Test
  void previewsOfClientUrlAreAuthorizedParties() {
    String origins = "https://meet-*-team.vercel.app,chrome-extension://abcdefghijklmnop";
    try (TestServer previews = TestServer.start(clerk, DATABASE, "CLIENT_URL", origins)) {
      assertEquals(200, previews.sync(tokenOf("https://meet-pr-7-team.vercel.app")).statusCode());
      assertEquals(200, previews.sync(tokenOf("chrome-extension://abcdefghijklmnop")).statusCode());
      assertEquals(401, previews.sync(tokenOf("https://meet-x.evil-team.vercel.app")).statusCode());
      assertEquals(401, previews.sync(tokenOf("https://meet-*-team.vercel.app")).statusCode());
    }
  }

  private static String tokenOf(String party) {
    ObjectNode claims = clerk.claims(SessionTokens.USER, Duration.ofHours(1)).put("azp", party);
    if (party == null) {
      claims.remove("azp");
    }
    return StandInClerk.sign(clerk.header(), claims, clerk.key().pair().getPrivate());
  }

  private static HttpRequest.Builder request() {
    return HttpRequest.newBuilder(server.uri("/api/user/sync")).POST(BodyPublishers.noBody());
  }

  private static void assertUnauthorized(String message, HttpResponse<String> answer) {
    assertEquals("{\"error\":\"Unauthorized\",\"message\":\"" + message + "\"}", answer.body());
    assertEquals(401, answer.statusCode());
    assertEquals(Optional.of("Bearer"), answer.headers().firstValue("WWW-Authenticate"));
    assertEquals(Optional.of("application/json"), answer.headers().firstValue("Content-Type"));
  }
}
