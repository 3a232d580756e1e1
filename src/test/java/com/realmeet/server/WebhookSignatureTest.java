package com.realmeet.server;

import static java.util.stream.Collectors.joining;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestServer;
import com.realmeet.server.users.ClerkWebhook;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class WebhookSignatureTest {
  private static final String UNSIGNED = "Missing or malformed webhook signature headers";
  private static final String STALE = "Webhook timestamp is more than 5 minutes off";
  private static final String FORGED = "Webhook signature is wrong";

  private static final String[] ALL = {"svix-id", "svix-timestamp", "svix-signature"};

  /** Of no user that the stand-in has; only a webhook that is accepted asks for one. */
  private static final String EVENT = "{\"type\":\"user.updated\",\"data\":{\"id\":\"user_x\"}}";

  private static Fleet fleet;

  @BeforeAll
  static void start() {
    fleet = new Fleet(1);
  }

  @AfterAll
  static void stop() {
    fleet.close();
  }

  /** From <a href="https://docs.svix.com/receiving/verifying-payloads/how-manual">Svix</a>. */
  @Test
  void testVectorOfSvixIsSigned() {
    byte[] key = Base64.getDecoder().decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    byte[] body = "{\"test\": 2432232314}".getBytes(StandardCharsets.UTF_8);
    ClerkWebhook webhook =
        new ClerkWebhook(List.of(key), null, null, java.util.Set::of, Metrics.noMeters());

    assertTrue(
        webhook.isSigned(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            body,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    assertFalse(
        webhook.isSigned(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265331",
            body,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
  }

  static Stream<Arguments> faults() {
    return Stream.of(
        fault("no id", headers -> headers.remove("svix-id"), UNSIGNED),
        fault("no timestamp", headers -> headers.remove("svix-timestamp"), UNSIGNED),
        fault("no signature", headers -> headers.remove("svix-signature"), UNSIGNED),
        fault("no header at all", Map::clear, UNSIGNED),
        fault("blank id", headers -> headers.put("svix-id", " "), UNSIGNED),
        fault("blank timestamp", headers -> headers.put("svix-timestamp", ""), UNSIGNED),
        fault("blank signature", headers -> headers.put("svix-signature", ""), UNSIGNED),
        fault("text as time", headers -> headers.put("svix-timestamp", "now"), UNSIGNED),
        fault("negative time", headers -> headers.put("svix-timestamp", "-1"), UNSIGNED),
        fault("fraction", headers -> headers.put("svix-timestamp", "1614265330.5"), UNSIGNED),
        fault("endless time", headers -> headers.put("svix-timestamp", "9".repeat(99)), UNSIGNED),
        fault("time far off", headers -> headers.put("svix-timestamp", "9".repeat(12)), STALE),
        fault("old", sign(Fleet.SECRET, -310, ALL), STALE),
        fault("early", sign(Fleet.SECRET, 310, ALL), STALE),
        fault(
            "other secret",
            sign("whsec_" + "YW5vdGhlci1zZWNyZXQtYWx0b2dldGhlcg", 0, "svix-signature"),
            FORGED),
        fault("other id", headers -> headers.put("svix-id", "msg_other"), FORGED),
        fault("other time", sign(Fleet.SECRET, 60, "svix-timestamp"), FORGED),
        fault("only v2", replace("v1,", "v2,"), FORGED),
        fault("only v1a", replace("v1,", "v1a,"), FORGED),
        fault("no version", replace("v1,", ""), FORGED),
        fault("garbage", headers -> headers.put("svix-signature", "v1,é% ,, v1 v1,"), FORGED));
  }

  private static Arguments fault(String name, Consumer<Map<String, String>> fault, String message) {
    return arguments(name, fault, message);
  }

  /** Takes some of the headers of a webhook that was signed otherwise. */
  private static Consumer<Map<String, String>> sign(String secret, int seconds, String... names) {
    return headers -> {
      Map<String, String> others = headers(secret, Instant.now().plusSeconds(seconds), EVENT);
      others.keySet().retainAll(List.of(names));
      headers.putAll(others);
    };
  }

  private static Consumer<Map<String, String>> replace(String part, String by) {
    return headers -> headers.computeIfPresent("svix-signature", (k, v) -> v.replace(part, by));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("faults")
  void faultyHeadersAreRefused(String name, Consumer<Map<String, String>> fault, String message) {
    Map<String, String> headers = headers(Fleet.SECRET, Instant.now(), EVENT);
    fault.accept(headers);

    assertRefused(message, headers, EVENT);
  }

  @Test
  void changedBodyIsRefusedBeforeItIsParsed() {
    Map<String, String> headers = headers(Fleet.SECRET, Instant.now(), EVENT);

    assertRefused(FORGED, headers, EVENT.replace("user_x", "user_y"));
    assertRefused(FORGED, headers, EVENT + " ");
    assertRefused(FORGED, headers, "not JSON");
    assertRefused(FORGED, headers, "");
  }

  @Test
  void anyOfTheSignaturesMayBeTheRightOne() {
    Map<String, String> headers = headers(Fleet.SECRET, Instant.now(), EVENT);
    headers.computeIfPresent("svix-signature", (name, v1) -> "v1a,x v1,AAAA " + v1 + " v2,y");

    assertEquals(200, send(headers, EVENT).statusCode());
  }

  @Test
  void anyOfTheSecretsMayHaveSigned() {
    assertEquals(200, send(headers(Fleet.OLD_SECRET, Instant.now(), EVENT), EVENT).statusCode());
  }

  @Test
  void clocksMayDifferByUpToFiveMinutes() {
    for (int seconds : new int[] {-290, 290}) {
      Instant time = Instant.now().plusSeconds(seconds);
      assertEquals(200, send(headers(Fleet.SECRET, time, EVENT), EVENT).statusCode());
    }
  }

  @Test
  void namesOfStandardWebhooksAreUnderstood() {
    Map<String, String> headers = new HashMap<>();
    headers(Fleet.SECRET, Instant.now(), EVENT)
        .forEach((name, value) -> headers.put(name.replace("svix-", "webhook-"), value));

    assertEquals(200, send(headers, EVENT).statusCode());
  }

  @Test
  void withoutASecretThereIsNoRoute() {
    try (TestServer server = TestServer.start(fleet.clerk(), fleet.database())) {
      HttpResponse<String> answer =
          server.send(
              StandInClerk.webhook(
                  server.uri("/api/webhooks/clerk"), Fleet.SECRET, Instant.now(), EVENT));

      assertEquals(404, answer.statusCode());
      assertEquals("{\"error\":\"Not Found\",\"message\":\"Not found\"}", answer.body());
    }
  }

  @ParameterizedTest(name = "{index}")
  @ValueSource(
      strings = {"whsec_", "whsec_c2hvcnQ=", "whsec_%%%%", "c3RhbmQtaW4tc2VjcmV0LW9m", "a,"})
  void malformedSecretEndsTheStart(String malformed) {
    Map<String, String> settings = TestServer.settings(fleet.clerk(), fleet.database());
    settings.put("CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET + "," + malformed);

    assertEquals(2, Main.run(new String[0], () -> Config.from(settings)));
    assertEquals(
        "CLERK_WEBHOOK_SIGNING_SECRET must be the endpoint's signing secret, whsec_...; several are"
            + " separated by commas",
        Log.text().lines().skip(1).collect(joining()));
  }

  private static void assertRefused(String message, Map<String, String> headers, String body) {
    int calls = fleet.clerk().userCalls();
    HttpResponse<String> answer = send(headers, body);

    assertEquals(400, answer.statusCode(), answer.body());
    assertEquals("{\"error\":\"Bad Request\",\"message\":\"" + message + "\"}", answer.body());
    assertEquals("application/json", answer.headers().firstValue("Content-Type").orElse(""));
    assertEquals(calls, fleet.clerk().userCalls());
  }

  private static Map<String, String> headers(String secret, Instant time, String body) {
    Map<String, String> headers = new HashMap<>();
    StandInClerk.webhook(fleet.webhookUrl(), secret, time, body)
        .build()
        .headers()
        .map()
        .forEach((name, values) -> headers.put(name, values.get(0)));
    return headers;
  }

  private static HttpResponse<String> send(Map<String, String> headers, String body) {
    HttpRequest.Builder request =
        HttpRequest.newBuilder(fleet.webhookUrl()).POST(BodyPublishers.ofString(body));
    headers.forEach(request::header);
    return fleet.server(0).send(request);
  }
}
