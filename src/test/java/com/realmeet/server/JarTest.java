package com.realmeet.server;

import static com.realmeet.server.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.RawHttp.Answer;
import com.realmeet.server.dev.StandInClerk;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.jar.Attributes;
import java.util.jar.JarFile;
import java.util.zip.ZipEntry;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The jar itself: its life from start to stop, and what is in it. */
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
    for (String line : jar.lines()) {
      Instant time = Instant.parse(line.substring(0, line.indexOf(' ')));
      assertTrue(Duration.between(time, Instant.now()).abs().toSeconds() < 60, line);
    }
    return jar.lines().stream().map(line -> line.substring(line.indexOf(' ') + 1)).toList();
  }

  private static void assertLines(List<String> patterns, List<String> lines) {
    assertEquals(patterns.size(), lines.size(), lines::toString);
    for (int i = 0; i < lines.size(); i++) {
      assertTrue(lines.get(i).matches(patterns.get(i)), lines.get(i));
    }
  }

  @Test
  void productionLogsStartAndStopButNoRequests() {
    settings.put("TZ", "Asia/Tokyo");
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
      assertEquals(200, RawHttp.ask(jar.port(), sync("user_1")).status());
      assertEquals(404, RawHttp.ask(jar.port(), request("GET", "/nope")).status());
      jar.terminate();

      assertEquals(143, jar.exitCode());
      assertLines(
          List.of(
              "INFO Main - Starting real-meet-server \\S+ \\([0-9a-f]{7,}\\) on Java \\d+",
              "INFO Database - Database \\S+ is at version \\d+, \\d+ migrations applied",
              "INFO Main - Ready on http://127.0.0.1:\\d+ for http://localhost:3000",
              "INFO Main - Stopping",
              "INFO Main - Stopped"),
          log(jar));
    }
  }

  @Test
  void developmentLogsALineForEachRequest() {
    settings.put("NODE_ENV", "development");
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
      assertEquals(200, RawHttp.ask(jar.port(), sync("user_1")).status());
      assertEquals(405, RawHttp.ask(jar.port(), request("GET", "/api/user/sync")).status());
      jar.terminate();

      assertEquals(143, jar.exitCode());
      assertLines(
          List.of(
              "INFO HttpServer - POST /api/user/sync 200 \\d+ ms",
              "INFO HttpServer - GET /api/user/sync 405 \\d+ ms"),
          log(jar).stream().filter(line -> line.contains("HttpServer")).toList());
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
      RawHttp probe = new RawHttp(port);
      RawHttp kept = new RawHttp(port);
      assertEquals(200, probe.send(request("GET", "/api/health")).answer().status());
      assertEquals(200, kept.send(request("GET", "/api/health")).answer().status());
      for (int i = 0; i < 20; i++) {
        clerk.putUser("user_" + i, i + "@example.com", "Ann", null);
        requests.add(new RawHttp(port).send(sync("user_" + i)));
      }
      TestServer.await("all are under way", () -> clerk.userCalls() == 20);

      jar.terminate();
      TestServer.await("it stops", () -> jar.output().contains("Stopping"));
      jar.terminate();
      TestServer.await("new connections are refused", () -> isRefused(port));
      Answer ready = probe.send(request("GET", "/api/ready")).answer();
      Answer health = kept.send(request("GET", "/api/health")).answer();
      held.countDown();

      assertEquals(503, ready.status());
      assertTrue(
          ready.body().startsWith("{\"status\":\"unavailable\",\"database\":"), ready.body());
      health.assertError(503, "Service Unavailable", "Server is stopping", "Retry-After: 1");
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
  void stopDoesNotWaitForClientsThatNeverEnd() {
    clerk.onUser(exchange -> await(new CountDownLatch(1)));
    try (ServerProcess jar = new ServerProcess(directory, settings)) {
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
      assertEquals(503, clients.get(3).answer().status());
    }
  }

  @Test
  void jarHoldsTheServerAndNoTests() throws IOException {
    try (JarFile jar = new JarFile(ServerProcess.JAR.toFile())) {
      List<String> names = jar.stream().map(ZipEntry::getName).toList();
      Set<String> distinct = new HashSet<>(names);

      assertEquals(names.size(), distinct.size(), "an entry is there twice");
      assertTrue(distinct.contains("db/migration/V1__create_users.sql"));
      assertFalse(names.stream().anyMatch(name -> name.matches("com/realmeet/.*(Test|/dev/).*")));
      assertFalse(
          names.stream().anyMatch(name -> name.matches(".*(junit|zonky|testcontainers).*")));
      assertFalse(names.stream().anyMatch(name -> name.matches("META-INF/.*\\.(SF|RSA|DSA)")));

      Attributes manifest = jar.getManifest().getMainAttributes();
      assertEquals("com.realmeet.server.Main", manifest.getValue("Main-Class"));
      assertTrue(manifest.getValue("Implementation-Version").matches("\\d+\\.\\d+\\.\\d+.*"));
      assertTrue(manifest.getValue("Implementation-Commit").matches("[0-9a-f]{7,}|unknown"));
    }
  }

  /** Of several files of one name, shading keeps the first unless told to merge them. */
  @Test
  void servicesOfAllLibrariesAreThere() throws IOException {
    try (JarFile jar = new JarFile(ServerProcess.JAR.toFile())) {
      ZipEntry plugins = jar.getEntry("META-INF/services/org.flywaydb.core.extensibility.Plugin");
      String text = new String(jar.getInputStream(plugins).readAllBytes());

      assertTrue(text.contains("org.flywaydb.database.postgresql.PostgreSQLDatabaseType"), text);
      assertTrue(
          text.contains("org.flywaydb.core.internal.resource.CoreResourceTypeProvider"), text);
    }
  }
}
