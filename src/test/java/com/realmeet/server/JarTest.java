package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import jdk.jfr.consumer.RecordedEvent;
import jdk.jfr.consumer.RecordingFile;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The jar itself, from start to stop. */
@Order(1)
class JarTest {
  @TempDir private Path directory;
  private StandInClerk clerk;
  private Map<String, String> settings;

  @BeforeEach
  void start() {
    clerk = new StandInClerk();
    clerk.putUser("user_1", "one@example.com", "Ann", null);
    settings = TestServer.settings(clerk, TestPostgres.newDatabase());
  }

  @AfterEach
  void stop() {
    clerk.close();
  }

  private String sync(String userId) {
    return request(
        "POST", "/api/user/sync?q=private", "Authorization: Bearer " + clerk.token(userId));
  }

  /** Its lines without the time, which is now and in UTC. */
  private static List<String> log(ServerProcess jar) {
    List<String> lines = new ArrayList<>(jar.lines());
    // Java's own, of JDK_JAVA_OPTIONS: with a flight recording, Java 25 uses no AOT cache
    lines.removeIf(
        line -> line.startsWith("NOTE: ") || line.matches(".*\\[(jfr,startup|aot)\\].*"));
    for (String line : lines) {
      Instant time = Instant.parse(line.substring(0, line.indexOf(' ')));
      assertTrue(Duration.between(time, Instant.now()).abs().toSeconds() < 60, line);
    }
    return lines.stream().map(line -> line.substring(line.indexOf(' ') + 1)).toList();
  }

  private static void assertLines(List<String> patterns, List<String> lines) {
    assertEquals(patterns.size(), lines.size(), lines::toString);
    for (int i = 0; i < lines.size(); i++) {
      assertTrue(lines.get(i).matches(patterns.get(i)), lines.get(i));
    }
  }

  @Test
  void productionLogsStartAndStopButNoRequestsAndRecordsNoAddress() throws IOException {
    Path recording = directory.resolve("recording.jfr");
    settings.put("DATABASE_URL", TestPostgres.emptyDatabase());
    settings.put("TZ", "Asia/Tokyo");
    settings.put(
        "JDK_JAVA_OPTIONS",
        "-Duser.language=th -Duser.country=TH" // in the year 2569
            + " -XX:StartFlightRecording:filename="
            + recording);
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
      assertEquals(200, RawHttp.ask(jar.port(), sync("user_1")).status());
      assertEquals(404, RawHttp.ask(jar.port(), request("GET", "/nope")).status());
      clerk.putUser("user_1", "moved@example.com", "Ann", null);
      String token = "Authorization: Bearer " + clerk.token("user_1");
      assertEquals(
          200, RawHttp.ask(jar.port(), request("POST", "/api/user/refresh", token)).status());
      jar.terminate();

      assertEquals(143, jar.exitCode());
      assertLines(
          List.of(
              "INFO Main - Starting real-meet-server \\S+ \\([0-9a-f]{7,}\\) on Java \\d+",
              "INFO Migrations - Database \\S+ is at version \\d+, \\d+ migrations applied",
              "INFO Main - Ready on http://127.0.0.1:\\d+ for http://localhost:3000",
              "INFO Main - Stopping",
              "INFO Main - Stopped"),
          log(jar));
    }
    List<RecordedEvent> events = RecordingFile.readAllEvents(recording);
    // The command lines of all processes of the machine, such as those of other tests.
    events.removeIf(event -> event.getEventType().getName().equals("jdk.SystemProcess"));
    String text = events.toString();
    assertTrue(text.contains("jdk.JVMInformation"));
    assertFalse(text.contains("@example.com"));
  }

  @Test
  void developmentLogsALineForEachRequestAndHasNoDocsPage() {
    settings.put("NODE_ENV", "development");
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
      RawHttp connection = new RawHttp(jar.port()); // each waits for the end of the one before
      assertEquals(200, connection.send(sync("user_1")).answer().status());
      assertEquals(405, connection.send(request("GET", "/api/user/sync")).answer().status());
      connection
          .send(request("GET", "/api/docs"))
          .answer()
          .assertError(404, "Not Found", "Not found");
      jar.terminate();

      assertEquals(143, jar.exitCode());
      assertLines(
          List.of(
              "INFO RequestLog - POST /api/user/sync 200 \\d+ ms [0-9a-f]{16}",
              "INFO RequestLog - GET /api/user/sync 405 \\d+ ms [0-9a-f]{16}",
              "INFO RequestLog - GET /api/docs 404 \\d+ ms [0-9a-f]{16}"),
          log(jar).stream().filter(line -> line.contains("RequestLog")).toList());
    }
  }

  /** Jackson keeps the names of an object's keys for the next one. */
  @Test
  void tokensOfStrangersLeaveNothingInMemory() {
    settings.put("JDK_JAVA_OPTIONS", "-Xmx40m -XX:+ExitOnOutOfMemoryError");
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
      for (int i = 0; i < 1200; i++) {
        String header = "{\"alg\":\"RS256\",\"%d%s\":1}".formatted(i, "x".repeat(11_000));
        String token = Base64.getUrlEncoder().withoutPadding().encodeToString(header.getBytes());
        String line = "Authorization: Bearer " + token + ".e30.AAAA";
        assertEquals(
            401, RawHttp.ask(jar.port(), request("POST", "/api/user/sync", line)).status());
      }
    }
  }

  @Test
  void stopFinishesWhatIsUnderWay() {
    CountDownLatch held = new CountDownLatch(1);
    clerk.onUser(
        exchange -> {
          await(held);
          clerk.answerUser(exchange);
        });
    List<RawHttp> requests = new ArrayList<>();
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
      int port = jar.port();
      for (int i = 0; i < 20; i++) {
        clerk.putUser("user_" + i, i + "@example.com", "Ann", null);
        requests.add(new RawHttp(port).send(sync("user_" + i)));
      }
      TestServer.await("all are under way", () -> clerk.userCalls() == 20);

      CompletableFuture<Answer> ready =
          RawHttp.answerWhileStopping(port, request("GET", "/api/ready"), 200);
      CompletableFuture<Answer> health =
          RawHttp.answerWhileStopping(port, request("GET", "/api/health"), 200);
      jar.terminate();
      ready.join();
      health.join();
      jar.terminate();
      assertTrue(isRefused(port));
      held.countDown();

      assertEquals(503, ready.join().status());
      assertTrue(ready.join().body().startsWith("{\"status\":\"unavailable\",\"database\":"));
      health.join().assertError(503, "Service Unavailable", "Server is stopping", "Retry-After: 1");
      for (RawHttp each : requests) {
        assertEquals(200, each.answer().status());
      }
      assertEquals(143, jar.exitCode());
      assertEquals(2, jar.output().split("Stopping", -1).length, jar::output);
    }
  }

  private static void await(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private static boolean isRefused(int port) {
    try {
      new RawHttp(port).close();
      return false;
    } catch (UncheckedIOException refused) {
      return true;
    }
  }

  @Test
  void stopDoesNotWaitForClientsThatNeverEndAndMetricsDoNotEither() {
    clerk.onUser(exchange -> await(new CountDownLatch(1)));
    settings.put("METRICS_PORT", "0");
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
      jar.port();
      Matcher metrics = Pattern.compile("Metrics on http://\\S+:(\\d+)/").matcher(jar.output());
      assertTrue(metrics.find(), jar::output);
      RawHttp scrape = new RawHttp(Integer.parseInt(metrics.group(1))).send("GET /metr");
      assertTrue(scrape.isClosed());
      List<RawHttp> clients = new ArrayList<>();
      for (String text : List.of("", "GET /api/", request("GET", "/api/health"), sync("user_1"))) {
        clients.add(new RawHttp(jar.port()).send(text));
      }
      TestServer.await("the request is under way", () -> clerk.userCalls() > 0);
      long began = System.nanoTime();
      jar.terminate();

      assertEquals(143, jar.exitCode());
      assertTrue(System.nanoTime() - began < Duration.ofSeconds(12).toNanos());
      assertTrue(jar.output().endsWith("Stopped\n"), jar::output);
      assertEquals(503, assertDoesNotThrow(clients.get(3)::answer, jar::output).status());
    }
  }
}
