package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.realmeet.server.dev.Dev;
import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.io.TempDir;

/** What {@code make dev} runs, on a copy of the sources and with both stand-ins. */
@Order(1)
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class DevTest {
  private static final HttpClient HTTP = HttpClient.newHttpClient();

  private Path directory;
  private Path health;
  private Path migrations;
  private String source;
  private ServerProcess dev;
  private URI server;
  private URI clerk;
  private String token;

  @BeforeAll
  void start(@TempDir Path directory) throws IOException {
    this.directory = directory;
    copy(Path.of("src", "main"));
    copy(Path.of("db"));
    Files.writeString(directory.resolve(".env"), "CLERK_WEBHOOK_SIGNING_SECRET=\n");
    health = directory.resolve("src/main/java/com/realmeet/server/http/Health.java");
    migrations = directory.resolve("db/migration");
    source = Files.readString(health);
    int port;
    try (ServerSocket free = new ServerSocket(0)) {
      port = free.getLocalPort();
    }
    dev = ServerProcess.dev(directory, Map.of("PORT", String.valueOf(port)));
    server = URI.create("http://127.0.0.1:" + dev.port());
    awaitPrinted(0, "Ctrl-C stops everything");
    clerk = URI.create(printed("(http://\\S+), a stand-in"));
    token = printed("Bearer ([\\w.-]+)");
  }

  private void copy(Path sources) throws IOException {
    try (Stream<Path> files = Files.walk(sources)) {
      for (Path file : files.toList()) {
        Files.createDirectories(directory.resolve(file).getParent());
        Files.copy(file, directory.resolve(file));
      }
    }
  }

  private String printed(String pattern) {
    Matcher matcher = Pattern.compile(pattern).matcher(dev.output());
    assertTrue(matcher.find(), dev::output);
    return matcher.group(1);
  }

  private void awaitPrinted(int after, String text) {
    TestServer.await(text, () -> dev.output().indexOf(text, after) >= 0);
  }

  private String send(String method, URI uri, String body) {
    try {
      HttpRequest request =
          HttpRequest.newBuilder(uri)
              .header("Authorization", "Bearer " + token)
              .method(method, HttpRequest.BodyPublishers.ofString(body))
              .build();
      return HTTP.send(request, HttpResponse.BodyHandlers.ofString()).body();
    } catch (IOException e) {
      return ""; // between two versions, nobody listens
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  private String health() {
    return send("GET", server.resolve("/api/health"), "");
  }

  private String sync() {
    return send("POST", server.resolve("/api/user/sync"), "");
  }

  /** Changes something, and returns where in the output its consequences begin. */
  private int save(Path file, String text) throws IOException {
    int before = dev.output().length();
    Files.writeString(file, text);
    return before;
  }

  /** After this, the version that runs is that of {@code src/main} and {@code db}. */
  private void undo() throws IOException {
    int before = save(health, source);
    Files.deleteIfExists(migrations.resolve("V900__test.sql"));
    awaitPrinted(before, "Reloaded in ");
  }

  @Test
  void savedSourceAndMigrationAreLiveAndTheTokenIsStillGood() throws IOException {
    String row = sync();
    assertTrue(row.startsWith("{\"success\":true"), row);

    Files.writeString(migrations.resolve("V900__test.sql"), "CREATE TABLE test (id int)");
    int before = save(health, source.replace("\"ok\"", "\"changed\""));

    awaitPrinted(before, "Reloaded in ");
    TestServer.await("the change is live", () -> health().contains("\"status\":\"changed\""));
    assertTrue(dev.output().contains("is at version 900, 1 migrations applied"), dev::output);
    assertEquals(row, sync());
    undo();
    assertTrue(health().contains("\"status\":\"ok\""), this::health);
  }

  @Test
  void versionThatDoesNotCompileOrDoesNotStartGivesWayToTheOneBefore() throws IOException {
    int before = save(health, source + "oops\n");

    awaitPrinted(before, "Not reloaded");
    String line = "Health.java:" + (source.lines().count() + 1) + ": error: ";
    assertTrue(dev.output().indexOf(line, before) >= 0, dev::output);
    assertFalse(dev.output().substring(before).contains("Stopping"), dev::output);
    assertTrue(health().contains("\"status\":\"ok\""), this::health);

    Files.writeString(migrations.resolve("V900__test.sql"), "CREATE oops");
    before = save(health, source);

    awaitPrinted(before, "Not reloaded");
    assertTrue(dev.output().indexOf("Migration of the database failed", before) >= 0, dev::output);
    TestServer.await("it serves again", () -> health().contains("\"status\":\"ok\""));
    undo();
  }

  /** The .env of this test has an empty secret, as one that was copied may have. */
  @Test
  void changeAtTheStandInReachesTheRow() {
    sync();
    send("PATCH", clerk.resolve("/dev/users/user_ada"), "{\"last_name\":\"King\"}");

    TestServer.await("the row follows", () -> sync().contains("\"name\":\"Ada King\""));
    awaitPrinted(0, "Webhook user.updated user_ada: 200");
  }

  @Test
  void changeOfWhichNoWebhookTellsReachesTheRow() {
    sync();
    int before = dev.output().length();
    send("PATCH", clerk.resolve("/dev/users/user_ada?webhook=no"), "{\"first_name\":\"Augusta\"}");

    TestServer.await( // the poll may catch up with a change of another test, too
        "the row follows",
        () ->
            dev.output().indexOf("Caught up with Clerk", before) >= 0
                && sync().contains("\"name\":\"Augusta "));
    assertFalse(dev.output().substring(before).contains("Webhook"), dev::output);
  }

  @Test
  void pageShowsUsersTheirRowsAndRequests() throws Exception {
    HttpResponse<String> page = response(HttpRequest.newBuilder(clerk.resolve("/dev")));
    assertEquals(200, page.statusCode());
    assertTrue(page.body().contains("fetch('/dev/state'"), page::body);
    assertTrue(page.headers().map().toString().contains("frame-ancestors 'none'"), page::toString);

    send("POST", clerk.resolve("/dev/sync/user_edsger"), "");
    assertEquals("Edsger Dijkstra", nameInRow("user_edsger"));
    JsonNode sync = state().get("requests").get(0);
    assertEquals("POST /api/user/sync", sync.get("request").asText());
    assertEquals(200, sync.get("status").asInt());
    assertTrue(sync.get("response").asText().contains("user_edsger"), sync::toString);

    send("PATCH", clerk.resolve("/dev/users/user_edsger"), "{\"first_name\":\"E. W.\"}");
    TestServer.await("the row follows", () -> nameInRow("user_edsger").equals("E. W. Dijkstra"));
    awaitPrinted(0, "Webhook user.updated user_edsger: 200");
    assertEquals(405, status(HttpRequest.newBuilder(clerk.resolve("/dev/sync/a"))));
  }

  private JsonNode state() {
    try {
      return new JsonMapper().readTree(send("GET", clerk.resolve("/dev/state"), ""));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private String nameInRow(String id) {
    for (JsonNode row : state().get("rows")) {
      if (row.get("id").asText().equals(id)) {
        return row.get("name").asText();
      }
    }
    return "no row";
  }

  @Test
  void otherPagesInTheBrowserCanNeitherChangeUsersNorReadTokens() throws Exception {
    URI otherName = URI.create("http://[::ffff:127.0.0.1]:" + clerk.getPort()); // DNS rebinding
    for (HttpRequest.Builder request :
        List.of(
            HttpRequest.newBuilder(clerk).header("Origin", "https://evil.example"),
            HttpRequest.newBuilder(clerk).header("Origin", server.toString()),
            HttpRequest.newBuilder(clerk).header("Origin", "null"),
            HttpRequest.newBuilder(otherName))) {
      URI user = request.build().uri().resolve("/dev/users/user_grace");
      assertEquals(
          403, status(request.uri(user).DELETE()), () -> request.build().headers().toString());
    }
    assertEquals(200, status(HttpRequest.newBuilder(clerk.resolve("/dev/users/user_grace"))));

    HttpRequest.Builder token = HttpRequest.newBuilder(clerk.resolve("/dev/token/user_grace"));
    assertEquals(200, status(token)); // the curl command that make dev prints
    assertEquals(403, status(token.copy().header("Origin", "https://evil.example")));
    assertEquals(200, status(token.copy().header("Origin", server.toString()))); // /api/docs
  }

  private static int status(HttpRequest.Builder request) throws IOException, InterruptedException {
    return response(request).statusCode();
  }

  private static HttpResponse<String> response(HttpRequest.Builder request)
      throws IOException, InterruptedException {
    return HTTP.send(request.build(), HttpResponse.BodyHandlers.ofString());
  }

  @Test
  void studioFindsTheStandInDatabase() throws IOException {
    assertEquals(Optional.of(printed("\nDatabase +(\\S+)")), Dev.databaseUrl(directory));
  }

  @AfterAll
  void stop() throws IOException {
    dev.terminate();
    assertEquals(143, dev.awaitEnd(), dev::output);
    assertEquals("", health());
    assertEquals(Optional.empty(), Dev.databaseUrl(directory));
  }
}
