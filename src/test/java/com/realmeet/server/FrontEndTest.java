package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.realmeet.server.example.ExampleApplication;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TcpProxy;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.File;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.api.io.TempDirDeletionStrategy.IgnoreFailures;

/**
 * What a person sees of the server's answers: the page of {@code src/test/web}, in a real browser.
 * Skipped where there is none.
 */
class FrontEndTest {
  /** Output of the browser. */
  private static final Path LOG = Path.of("target", "browser.log");

  /** User data of the browser, whose child processes may still write there after its end. */
  @TempDir(deletionStrategy = IgnoreFailures.class)
  private static Path profile;

  private static HttpServer web;
  private static StandInClerk clerk;
  private static String database;
  private static TestServer server;

  private static Process browser;
  private static URI tabs;
  private static volatile CompletableFuture<String> shown;

  @BeforeAll
  static void start() throws IOException {
    String program = browser();
    if (program == null) {
      System.out.println("FrontEndTest is skipped: there is no Chrome or Chromium, see CHROME");
    }
    assumeTrue(program != null);
    open(program);
    web = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    serve("/", "index.html", "text/html");
    serve("/sync.js", "sync.js", "text/javascript");
    web.createContext("/shown", FrontEndTest::receive);
    web.start();
    clerk = new StandInClerk();
    clerk.setAuthorizedParty(origin("localhost"));
    clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
    database = TestPostgres.newDatabase();
    String origins =
        String.join(
            ",", "https://app.example.com", origin("localhost"), origin("meet-*-team.localhost"));
    server = TestServer.start(new ExampleApplication(), clerk, database, "CLIENT_URL", origins);
  }

  @AfterAll
  static void stop() throws InterruptedException {
    if (server != null) {
      server.close();
      clerk.close();
      web.stop(0);
    }
    if (browser != null) {
      browser.destroy();
      if (!browser.waitFor(10, TimeUnit.SECONDS)) {
        browser.destroyForcibly().waitFor();
      }
    }
  }

  /** Starts the one browser of all tests, and finds where it takes orders. */
  private static void open(String program) throws IOException {
    browser =
        new ProcessBuilder(
                program,
                "--headless",
                "--disable-gpu",
                "--disable-dev-shm-usage", // too small in many containers
                "--no-first-run",
                "--no-sandbox", // not to be had by root or in a container; the page is our own
                "--remote-debugging-port=0",
                "--user-data-dir=" + profile)
            .redirectErrorStream(true)
            .redirectOutput(LOG.toFile())
            .start();
    Path address = profile.resolve("DevToolsActivePort"); // port and path, a line each
    TestServer.await(
        "the browser starts, see " + LOG,
        () -> !browser.isAlive() || Files.exists(address) && address.toFile().length() > 0);
    tabs = URI.create("http://127.0.0.1:" + Files.readAllLines(address).get(0) + "/json/new");
  }

  /** The program that CHROME names, else one that is installed, else null. */
  private static String browser() {
    String given = System.getenv("CHROME");
    if (given != null && !given.isEmpty()) {
      return given;
    }
    Stream<Path> onPath =
        Stream.of(System.getenv("PATH").split(File.pathSeparator))
            .flatMap(
                directory ->
                    Stream.of("google-chrome", "chromium", "chromium-browser", "chrome")
                        .map(name -> Path.of(directory, name)));
    Stream<Path> onMac =
        Stream.of("Google Chrome", "Chromium")
            .map(name -> Path.of("/Applications", name + ".app", "Contents", "MacOS", name));
    return Stream.concat(onPath, onMac)
        .filter(Files::isExecutable)
        .map(Path::toString)
        .findFirst()
        .orElse(null);
  }

  private static String origin(String host) {
    return "http://" + host + ":" + web.getAddress().getPort();
  }

  private static void serve(String path, String file, String type) {
    web.createContext(
        path,
        exchange -> {
          byte[] body = Files.readAllBytes(Path.of("src", "test", "web", file));
          exchange.getResponseHeaders().set("Content-Type", type);
          exchange.sendResponseHeaders(200, body.length);
          exchange.getResponseBody().write(body);
          exchange.close();
        });
  }

  /** The page tells what it shows. */
  private static void receive(HttpExchange exchange) throws IOException {
    shown.complete(new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8));
    exchange.sendResponseHeaders(204, -1);
    exchange.close();
  }

  /** What the page shows when it is opened on an origin with the address of a server. */
  private String shown(String origin, int serverPort, String token) throws Exception {
    return shown(origin, serverPort, token, "");
  }

  /**
   * The same of a page that sends more.
   *
   * @param options such as {@code &headers=a,b}
   */
  private String shown(String origin, int serverPort, String token, String options)
      throws Exception {
    CompletableFuture<String> text = new CompletableFuture<>();
    shown = text;
    String address = origin + "/#api=http://127.0.0.1:" + serverPort + "&token=" + token + options;
    URI newTab = URI.create(tabs + "?" + URLEncoder.encode(address, StandardCharsets.UTF_8));
    HttpResponse<String> opened =
        HttpClient.newHttpClient()
            .send(
                HttpRequest.newBuilder(newTab)
                    .PUT(HttpRequest.BodyPublishers.noBody())
                    .timeout(Duration.ofSeconds(60))
                    .build(),
                HttpResponse.BodyHandlers.ofString());
    assertEquals(200, opened.statusCode(), opened::body);
    browser.onExit().thenRun(() -> text.completeExceptionally(new IOException("see " + LOG)));
    return text.get(60, TimeUnit.SECONDS);
  }

  private static List<String> rows() {
    return TestPostgres.query(database, "SELECT id FROM users");
  }

  @Test
  void syncedUserIsShown() throws Exception {
    String text = shown(origin("localhost"), server.port(), clerk.token("user_ada"));

    assertEquals("Ada Lovelace, ada@example.com", text);
    assertTrue(rows().contains("user_ada"));
  }

  @Test
  void reasonOfA401IsShown() throws Exception {
    String expired = clerk.token("user_ada", Duration.ofMinutes(-1));

    assertEquals("Invalid or expired token", shown(origin("localhost"), server.port(), expired));
  }

  @Test
  void previewWithHeadersOfTracingToolsAndTunnelsIsServed() throws Exception {
    String preview = origin("meet-git-a-branch-team.localhost");
    String headers =
        "&headers=baggage,sentry-trace,X-Requested-With,ngrok-skip-browser-warning,Content-Type";
    clerk.setAuthorizedParty(preview);
    try {
      assertEquals(
          "Ada Lovelace, ada@example.com",
          shown(preview, server.port(), clerk.token("user_ada"), headers));
    } finally {
      clerk.setAuthorizedParty(origin("localhost"));
    }
  }

  /** The browser asks first whether it may send JSON there. */
  @Test
  void pageUsesARouteOfAnApplication() throws Exception {
    String meeting = "{\"title\":\"Lunch\",\"startsAt\":\"2026-02-09T17:00:00Z\"}";
    String options =
        "&path=/api/meetings&body=" + URLEncoder.encode(meeting, StandardCharsets.UTF_8);

    assertEquals(
        "Created Lunch",
        shown(origin("localhost"), server.port(), clerk.token("user_ada"), options));
    assertEquals(
        "title must have 1 to 200 characters",
        shown(
            origin("localhost"),
            server.port(),
            clerk.token("user_ada"),
            options.replace("Lunch", "")));
  }

  /** There are no cookies, and so there is no Access-Control-Allow-Credentials. */
  @Test
  void pageThatSendsCookiesReadsNothing() throws Exception {
    assertEquals(
        "The server cannot be reached",
        shown(origin("localhost"), server.port(), clerk.token("user_ada"), "&credentials=include"));
  }

  @Test
  void pageReadsWhenToTryAgain() throws Exception {
    clerk.putUser("user_new", "new@example.com", "New", null);
    clerk.onUser(StandInClerk.answering(503, "{}"));
    try {
      assertEquals(
          "Clerk is unavailable, retry after 5",
          shown(origin("localhost"), server.port(), clerk.token("user_new")));
    } finally {
      clerk.heal();
    }
  }

  /** The browser asks first, so that not even the row is made. */
  @Test
  void pageOfAnotherOriginReadsNothingAndChangesNothing() throws Exception {
    clerk.putUser("user_grace", "grace@example.com", "Grace", "Hopper");
    int calls = clerk.userCalls();
    String text = shown(origin("127.0.0.1"), server.port(), clerk.token("user_grace"));

    assertEquals("The server cannot be reached", text);
    assertEquals(calls, clerk.userCalls());
    assertFalse(rows().contains("user_grace"));
  }

  @Test
  void serverThatIsGoneIsSaidToBe() throws Exception {
    try (TcpProxy gone = new TcpProxy("127.0.0.1", server.port())) {
      gone.refuse();
      String text = shown(origin("localhost"), gone.port(), clerk.token("user_ada"));

      assertEquals("The server cannot be reached", text);
    }
  }
}
