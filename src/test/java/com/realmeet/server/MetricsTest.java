package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.database.Database;
import com.realmeet.server.example.ExampleApplication;
import com.realmeet.server.testing.FaultyClerk;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.realmeet.server.users.UserSync;
import io.javalin.router.JavalinDefaultRoutingApi;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** What a Prometheus reads. */
class MetricsTest {
  private static final Pattern LISTENS =
      Pattern.compile("INFO Metrics - Metrics on http://127.0.0.1:(\\d+)/metrics");

  private static final Path README = Path.of("README.md");

  private static final String DATABASE = TestPostgres.newDatabase();
  private static StandInClerk clerk;
  private static TestServer server;
  private static int port;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    clerk.putUser("user_1", "one@example.com", "Ann", null);
    server = serverWith("METRICS_PORT", "0", "CLERK_POLL_SECONDS", "300");
    port = metricsPort();
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  @AfterEach
  void heal() {
    clerk.heal();
  }

  private static TestServer serverWith(String... settings) {
    String[] all =
        Stream.concat(Stream.of("CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET), Stream.of(settings))
            .toArray(String[]::new);
    return TestServer.start(new WithOddRoute(), clerk, DATABASE, all);
  }

  private static final class WithOddRoute implements Application {
    private final Application example = new ExampleApplication();

    @Override
    public String[] migrations() {
      return example.migrations();
    }

    @Override
    public void declareRoutes(
        JavalinDefaultRoutingApi routes, Database database, UserSync userSync) {
      example.declareRoutes(routes, database, userSync);
      routes.post("/api/v1.0/(files)/<path>", ctx -> {});
    }
  }

  /** Of the server that was started last. */
  static int metricsPort() {
    int found = 0;
    for (Matcher listens = LISTENS.matcher(Log.text()); listens.find(); ) {
      found = Integer.parseInt(listens.group(1));
    }
    return found;
  }

  private static String page() {
    return page(port);
  }

  static String page(int port) {
    HttpResponse<String> answer = get(port, "/metrics");
    assertEquals(200, answer.statusCode());
    assertEquals(
        List.of("text/plain; version=0.0.4; charset=utf-8"),
        answer.headers().allValues("Content-Type"));
    return answer.body();
  }

  private static HttpResponse<String> get(int port, String path) {
    return TestServer.getPage(URI.create("http://127.0.0.1:" + port + path));
  }

  /** The value of a series, or -1 if there is none. */
  private static double value(String series) {
    return value(page(), series);
  }

  private static double value(String page, String series) {
    return page.lines()
        .filter(line -> line.startsWith(series + " "))
        .mapToDouble(line -> Double.parseDouble(line.substring(series.length() + 1)))
        .findFirst()
        .orElse(-1);
  }

  /** Waits for it, since a request is counted when its answer has already gone. */
  private static void assertCounted(String series, Runnable... requests) {
    double before = Math.max(0, value(series));
    for (Runnable request : requests) {
      request.run();
    }
    TestServer.await(series, () -> value(series) >= before + requests.length);
    assertEquals(before + requests.length, value(series), series);
  }

  private static String requests(String route, int status) {
    return "http_server_requests_seconds_count{route=\"%s\",status=\"%d\"}"
        .formatted(route, status);
  }

  private static String calls(String call, String outcome) {
    return "clerk_calls_seconds_count{call=\"%s\",outcome=\"%s\"}".formatted(call, outcome);
  }

  private static String webhooks(String type, String outcome) {
    return "clerk_webhooks_total{outcome=\"%s\",type=\"%s\"}".formatted(outcome, type);
  }

  private static Runnable ask(int status, String method, String path, String... headers) {
    return () ->
        assertEquals(status, RawHttp.ask(server.port(), request(method, path, headers)).status());
  }

  private static Runnable sync(int status, String userId) {
    return () -> assertEquals(status, server.sync(clerk.token(userId)).statusCode());
  }

  @Test
  void requestsAreCountedByRouteAndStatusWhoeverAnswersThem() {
    assertCounted(requests("/api/user/sync", 200), sync(200, "user_1"), sync(200, "user_1"));
    assertCounted(requests("/api/user/sync", 401), ask(401, "POST", "/api/user/sync/"));
    assertCounted(requests("/api/user/sync", 405), ask(405, "GET", "/api/user/sync"));
    assertCounted(
        requests("/api/user/sync", 413),
        ask(413, "POST", "/api/user/sync", "Content-Length: 2000000"));
    assertCounted(
        requests("/api/health", 431), ask(431, "GET", "/api/health", "X: " + "x".repeat(20_000)));
    assertCounted(
        requests("other", 404),
        ask(404, "GET", "/made/up"),
        ask(404, "GET", "/made/up/too?by=user_1"));
    assertCounted(requests("other", 400), ask(400, "GET", "/%zz"));

    String bucket = "http_server_requests_seconds_bucket{route=\"other\",status=\"404\",le=";
    String page = page();
    assertEquals(value(page, requests("other", 404)), value(page, bucket + "\"5.0\"}"));
    assertEquals(11, page.lines().filter(line -> line.startsWith(bucket)).count());
    for (String secret : List.of("made", "user_1", "example.com", "zz")) {
      assertFalse(page.contains(secret), page);
    }
  }

  @Test
  void requestsAreCountedByThePatternOfTheirPath() {
    String pattern = "/api/meetings/{id}/participants";
    String token = "Authorization: Bearer " + clerk.token("user_1");
    assertCounted(
        requests(pattern, 401),
        ask(401, "POST", "/api/meetings/1/participants"),
        ask(401, "POST", "/api/meetings/2/participants"));
    assertCounted(
        requests(pattern, 404), ask(404, "POST", "/api/meetings/secret/participants", token));
    assertCounted(
        requests(pattern, 405),
        ask(405, "GET", "/api/meetings/secret/participants", token),
        ask(405, "DELETE", "/api/meetings/secret/participants"));
    assertCounted(
        requests(pattern, 413),
        ask(413, "POST", "/api/meetings/secret/participants/", "Content-Length: 2000000"));
    assertCounted(requests("/api/meetings", 200), ask(200, "GET", "/api/meetings", token));
    String page = page();
    assertFalse(page.contains("secret"), page);
  }

  @Test
  void pathOfARouteIsNoRegularExpression() {
    assertCounted(
        requests("/api/v1.0/(files)/<path>", 405),
        () -> {
          try (RawHttp client = new RawHttp(server.port())) {
            client.send(request("GET", "/api/v1.0/(files)/a/b"));
            assertEquals(405, client.unchecked().status());
          }
        });
    assertCounted(requests("other", 404), ask(404, "GET", "/api/v1x0/(files)/a"));
  }

  @Test
  void callsToClerkAreCountedByOutcome() {
    assertEquals(1, value(calls("keys", "ok")));
    clerk.putUser("user_new", "new@example.com", null, null);
    assertCounted(calls("user", "ok"), sync(200, "user_new"));
    assertCounted(calls("user", "not_found"), sync(401, "user_unknown"));
    clerk.onUser(StandInClerk.answering(200, "no JSON"));
    assertCounted(calls("user", "unexpected"), sync(502, "user_2"));
    clerk.onUser(StandInClerk.answering(503, ""));
    assertCounted(calls("user", "unavailable"), sync(503, "user_2")); // it tries twice
    clerk.onUser(StandInClerk.answering(401, ""));
    assertCounted(calls("user", "refused"), sync(503, "user_2"));
  }

  private static Runnable webhook(int status, String event) {
    return webhook(status, event, Duration.ZERO);
  }

  private static Runnable webhook(int status, String event, Duration age) {
    HttpRequest.Builder request =
        StandInClerk.webhook(
            server.uri("/api/webhooks/clerk"), Fleet.SECRET, Instant.now().minus(age), event);
    return () -> assertEquals(status, server.send(request).statusCode());
  }

  @Test
  void webhooksAreCountedByTypeAndOutcome() {
    String created = clerk.event("user.created", "user_1");

    assertCounted(webhooks("unverified", "refused"), webhook(400, created, Duration.ofMinutes(6)));
    clerk.onUser(StandInClerk.answering(500, ""));
    assertCounted(webhooks("user.created", "failed"), webhook(503, created));
    clerk.heal();
    assertCounted(webhooks("user.created", "ok"), webhook(200, created));
    assertCounted(webhooks("other", "ok"), webhook(200, "{\"type\":\"made.up\"}"));

    assertFalse(Log.text().contains("WARN"), Log.text());
    String page = page();
    double age = value(page, "clerk_webhook_age_seconds");
    assertTrue(age > 0 && age < 10, page);
  }

  @Test
  void keysAge() {
    String page = page();
    double age = value(page, "clerk_keys_age_seconds");
    assertTrue(age > 0 && age < 300, page);
  }

  @Test
  void newServerShowsWhatItMayCountAndNoAges() {
    TestServer other = serverWith("METRICS_PORT", "0", "CLERK_JWT_KEY", FaultyClerk.pem(clerk));
    int otherPort = metricsPort();
    String page = page(otherPort);
    other.close();

    assertTrue(page.contains(webhooks("user.created", "ok") + " 0.0\n"), page);
    assertTrue(page.contains(webhooks("unverified", "refused") + " 0.0\n"), page);
    assertTrue(page.contains(calls("user", "ok") + " 0\n"), page);
    assertFalse(page.contains("clerk_webhook_age"), page);
    assertFalse(page.contains("clerk_keys_age"), page);
    assertTrue(Log.text().indexOf("Metrics on") < Log.text().indexOf("is at version"));
    assertThrows(UncheckedIOException.class, () -> page(otherPort));
  }

  @Test
  void callThatAPauseForbidsIsNotCounted() {
    clerk.onUser(
        exchange -> {
          exchange.getResponseHeaders().add("Retry-After", "60");
          StandInClerk.answering(429, "").handle(exchange);
        });
    try (TestServer other = serverWith("METRICS_PORT", "0")) {
      assertEquals(503, other.sync(clerk.token("user_2")).statusCode());
      assertEquals(503, other.sync(clerk.token("user_2")).statusCode());
      String page = page(metricsPort());
      assertTrue(page.contains(calls("user", "throttled") + " 1\n"), page);
    }
  }

  @Test
  void poolAndJvmAreMeasured() {
    String page = page();
    Stream.of(
            "batch_queue_size{batch=\"lookup\"} 0.0",
            "hikaricp_connections_max{pool=\"database\"} 10.0",
            "hikaricp_connections_pending{pool=\"database\"} 0.0",
            "hikaricp_connections_acquire_seconds_count{pool=\"database\"} ",
            "jvm_memory_used_bytes{area=\"heap\",",
            "jvm_gc_memory_allocated_bytes_total ",
            "jvm_threads_live_threads ",
            "process_uptime_seconds ",
            "process_cpu_usage ",
            "process_files_open_files ")
        .forEach(line -> assertTrue(page.contains("\n" + line), () -> line + page));
  }

  @Test
  void pageIsOnThatPortOnlyAndAlone() {
    ask(404, "GET", "/metrics").run();
    for (String path : List.of("/", "/metrics/", "/api/health", "/api/user/sync")) {
      HttpResponse<String> answer = get(port, path);
      assertEquals(404, answer.statusCode(), path);
      assertEquals("", answer.body());
    }
  }

  /** An alert on a metric that does not exist never fires. */
  @Test
  void metricsOfTheReadmeAreThere() throws IOException {
    assertCounted(requests("/api/user/sync", 200), sync(200, "user_1"));
    assertCounted(webhooks("other", "ok"), webhook(200, "{\"type\":\"made.up\"}"));
    TestServer.await("its age is there", () -> value("clerk_webhook_age_seconds") >= 0);

    String chapter = Files.readString(README).split("### Metrics")[1].split("\n## ")[0];
    Matcher names = Pattern.compile("(?<=\n\\| `)[a-z_]+(?=`)").matcher(chapter);
    assertTrue(names.find());
    names.reset();
    String page = page();
    while (names.find()) {
      String name = names.group();
      assertTrue(page.matches("(?s).*\n" + name + "(_count)?[{ ].*"), name);
    }
  }

  @Test
  void slowReadersHoldNobodyUp() {
    List<RawHttp> slow = new ArrayList<>();
    for (int i = 0; i < 20; i++) {
      slow.add(new RawHttp(port).send("GET /metrics HTTP/1.1\r\nHost:"));
    }
    assertTrue(page().contains("process_uptime_seconds"));
    slow.forEach(RawHttp::close);
  }
}
