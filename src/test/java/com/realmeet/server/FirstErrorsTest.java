package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.FaultyClerk;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The mistakes that people make first: one line names each, and what to do. */
class FirstErrorsTest {
  private static final SigningKey FOREIGN = SigningKey.second("ins_foreign");

  private static String database;
  private static StandInClerk clerk;

  /**
   * A server with the usual settings. A test that uses it provokes kinds of warnings that no other
   * one of these does, since each is logged only once, and sends no good token, which ends them.
   */
  private static TestServer shared;

  @TempDir private Path directory;

  @BeforeAll
  static void start() {
    database = TestPostgres.newDatabase();
    clerk = new StandInClerk();
    clerk.putUser("user_1", "one@example.com", "Ann", null);
    shared = server();
  }

  @AfterAll
  static void stop() {
    shared.close();
    clerk.close();
  }

  private static TestServer server(String... changes) {
    return TestServer.start(clerk, database, changes);
  }

  /** What was warned of, each line without its time. */
  private static List<String> warnings() {
    return Log.text()
        .lines()
        .filter(line -> line.contains(" WARN "))
        .map(line -> line.substring(line.indexOf("WARN")))
        .toList();
  }

  // Before the server runs

  /** Begins the jar on what calls itself Java 11. */
  public static void main(String[] arguments) {
    System.setProperty("java.specification.version", arguments[0]);
    Launcher.main(new String[] {"version"});
  }

  @ParameterizedTest
  @CsvSource({"1.8, 1", "11, 1", "17, 0"})
  void oldJavaIsToldWhichOneIsNeeded(String version, int exitCode) throws Exception {
    String classes =
        ServerProcess.JAR + System.getProperty("path.separator") + "target/test-classes";
    Process java =
        run(
            System.getProperty("java.home") + "/bin/java",
            "-cp",
            classes,
            getClass().getName(),
            version);
    String line = new String(java.getInputStream().readAllBytes(), StandardCharsets.UTF_8).strip();

    assertEquals(exitCode, java.waitFor(), line);
    assertTrue(
        line.startsWith(
            exitCode == 0
                ? "real-meet-server "
                : "real-meet-server needs Java 17 or later, and this is Java " + version + " in /"),
        line);
    assertEquals(1, line.lines().count(), line);
  }

  @ParameterizedTest
  @ValueSource(strings = {"dev", "start"})
  void makeNamesTheToolThatIsMissing(String goal) throws Exception {
    Path make = Path.of("/usr/bin/make");
    Assumptions.assumeTrue(Files.isExecutable(make), "there is no make");
    Process process = run(make.toString(), goal);
    String line = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);

    assertEquals(2, process.waitFor(), line);
    assertTrue(line.contains("*** mvn is not there: install a JDK 17 or later and Maven"), line);
    assertEquals(1, line.lines().count(), line);
  }

  private static Process run(String... command) throws IOException {
    ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().clear();
    builder.environment().put("PATH", "/nowhere");
    return builder.start();
  }

  @Test
  void missingSettingsAndWhereTheyMayBeWritten() throws IOException {
    try (ServerProcess jar = new ServerProcess(directory, Map.of())) {
      assertEquals(2, jar.exitCode());
      assertEquals(
          List.of(
              "DATABASE_URL is required: postgresql://user:password@host/database?sslmode=require",
              "CLERK_SECRET_KEY is required: sk_test_... or sk_live_...",
              "There is no .env in "
                  + directory.toRealPath()
                  + ": copy .env.example there and fill it in, or set these in the environment"),
          jar.lines());
    }
    Files.writeString(directory.resolve(".env"), "DATABASE_URL=postgresql://a@b/c\n");
    try (ServerProcess jar = new ServerProcess(directory, Map.of())) {
      assertEquals(2, jar.exitCode());
      assertEquals(
          List.of("CLERK_SECRET_KEY is required: sk_test_... or sk_live_..."), jar.lines());
    }
  }

  @Test
  void migrationThroughAPoolerIsWarnedOf() {
    String database = TestPostgres.emptyDatabase();
    String pooled = database + (database.contains("?") ? "&" : "?") + "pgbouncer=true";
    Map<String, String> settings = TestServer.settings(clerk, pooled);
    int before = Log.text().length();

    assertEquals(0, Main.run(new String[] {"migrate"}, () -> Config.from(settings)));
    String log = Log.text().substring(before);
    assertTrue(
        log.lines()
            .toList()
            .get(0)
            .endsWith("DIRECT_URL: migrations go through a pooler, set it to the direct host"),
        log);
  }

  // A key of another instance

  private String foreignToken(String keyId, String issuer) {
    ObjectNode header = clerk.header().put("kid", keyId);
    ObjectNode claims = clerk.claims("user_1", Duration.ofMinutes(1)).put("iss", issuer);
    return StandInClerk.sign(header, claims, FOREIGN.pair().getPrivate());
  }

  @Test
  void tokenOfAnotherInstanceIsToldOnce() {
    for (String issuer : List.of("https://clerk.example.com", "https://clerk.example.org")) {
      assertEquals(401, shared.sync(foreignToken("ins_foreign", issuer)).statusCode());
    }
    assertEquals(
        List.of(
            "WARN SetupWarnings - A token comes from https://clerk.example.com and is signed with"
                + " key ins_foreign, but CLERK_SECRET_KEY's instance has ins_1: copy both keys"
                + " from the Clerk instance whose publishable key the front end has"),
        warnings());
  }

  @Test
  void givenKeyOfAnotherInstanceIsToldToo() {
    try (TestServer server = server("CLERK_JWT_KEY", FaultyClerk.pem(clerk))) {
      assertEquals(
          401, server.sync(foreignToken("ins_1", "https://clerk.example.com")).statusCode());
      assertEquals(1, warnings().size(), Log.text());
      assertTrue(warnings().get(0).contains("ins_1, but CLERK_JWT_KEY is another"), Log.text());
    }
  }

  // A token that is good, but not for us

  private String ownToken(Consumer<ObjectNode> change, long secondsToLive) {
    ObjectNode claims = clerk.claims("user_1", Duration.ofSeconds(secondsToLive));
    change.accept(claims);
    return StandInClerk.sign(clerk.header(), claims, clerk.key().pair().getPrivate());
  }

  private String templateToken() {
    ObjectNode header = clerk.header().put("cat", "cl_B7d4PD222AAA");
    ObjectNode claims = clerk.claims("user_1", Duration.ofMinutes(1));
    return StandInClerk.sign(header, claims, clerk.key().pair().getPrivate());
  }

  /** Tokens that one of our keys has signed, and that are refused nevertheless. */
  private List<String> refusedTokens() {
    return List.of(
        ownToken(claims -> claims.remove("azp"), 60),
        ownToken(claims -> claims.put("azp", "x\nERROR forged"), 60),
        templateToken(),
        ownToken(claims -> claims.put("sub", "mch_2xK").remove("azp"), 60), // of a machine
        ownToken(claims -> claims.put("sts", "pending"), 60),
        ownToken(claims -> {}, -100),
        "undefined"); // not signed, but a word that we know
  }

  @Test
  void eachWayToBeRefusedIsToldOnce() {
    List<String> told =
        List.of(
            "Tokens are refused because they have no azp, as those of native apps: to accept them,"
                + " set CLERK_AUTHORIZED_PARTIES=http://localhost:3000,https://app.test,none",
            "Tokens of something that is no origin are refused: if it is yours, add it to CLIENT_URL",
            "of a JWT template, an OAuth application or a machine: the front end must call getToken() without a template",
            "Tokens are refused because their sub is not a user id (user_...) but mch_...: the front",
            "Tokens are refused because their sessions are pending: the front end must let users",
            " s ago: the front end must call getToken() for each request",
            "A request carries \"Bearer undefined\": the front end must await getToken()");
    try (TestServer server = server("CLIENT_URL", "http://localhost:3000,https://app.test")) {
      for (int i = 0; i < 2; i++) {
        refusedTokens().forEach(token -> assertEquals(401, server.sync(token).statusCode()));
      }
      assertEquals(told.size(), warnings().size(), Log.text());
      for (int i = 0; i < told.size(); i++) {
        assertTrue(warnings().get(i).contains(told.get(i)), told.get(i) + " in " + Log.text());
      }
      assertFalse(Log.text().contains("forged"), Log.text());
    }
  }

  @ParameterizedTest
  @CsvSource({"auth0|forged, another text", "org_forged!, another text", ", missing or not a text"})
  void subIsToldOfWithoutItsText(String sub, String what) {
    try (TestServer server = server()) {
      server.sync(ownToken(claims -> claims.put("sub", sub), 60));

      assertEquals(1, warnings().size(), Log.text());
      assertTrue(warnings().get(0).contains(" but " + what + ": the front end"), Log.text());
      assertFalse(warnings().get(0).contains("forged"), Log.text());
    }
  }

  @Test
  void tokenOfAnOauthApplicationIsToldToo() {
    ObjectNode header = clerk.header().put("typ", "at+jwt");
    ObjectNode claims = clerk.claims("user_1", Duration.ofMinutes(1));
    shared.sync(StandInClerk.sign(header, claims, FOREIGN.pair().getPrivate()));
    assertEquals(List.of(), warnings());

    shared.sync(StandInClerk.sign(header, claims, clerk.key().pair().getPrivate()));
    assertEquals(1, warnings().size(), Log.text());
    assertTrue(warnings().get(0).contains(" an OAuth application "), Log.text());
  }

  @Test
  void frontEndOfAnUnknownOriginIsNamedAndAClockThatIsBehindToo() {
    shared.sync(ownToken(claims -> claims.put("azp", "https://pr-7.app.test"), 60));
    shared.sync(ownToken(claims -> claims.put("nbf", Instant.now().getEpochSecond() + 100), 160));

    assertEquals(
        "WARN SetupWarnings - Tokens of https://pr-7.app.test are refused: if it is yours, add it"
            + " to CLIENT_URL, or to CLERK_AUTHORIZED_PARTIES if that is set, now"
            + " http://localhost:3000",
        warnings().get(0));
    assertTrue(
        warnings().get(1).matches(".* clock is \\d+ s behind Clerk's, so good tokens .*"),
        Log.text());
  }

  @Test
  void ofTokensThatAnybodyCanWriteAndOfAnyAfterAGoodOneNothingIsTold() {
    String issuer = "https://clerk.example.com";
    ObjectNode claims = clerk.claims("user_1", Duration.ofSeconds(60)).put("azp", "http://x.test");
    ObjectNode header = clerk.header().put("cat", "cl_B7d4PD222AAA");
    try (TestServer server = server()) {
      server.sync(foreignToken("ins\nERROR forged", issuer));
      server.sync(foreignToken("ins_foreign", "https://forged\u001b[2J"));
      server.sync(foreignToken("ins_foreign", "https://" + "x".repeat(300)));
      server.sync(foreignToken("ins_foreign", null));
      server.sync(foreignToken("ins_1", issuer)); // ours by name: junk, or a rotated key
      server.sync(StandInClerk.sign(clerk.header(), claims, FOREIGN.pair().getPrivate()));
      server.sync(StandInClerk.sign(header, claims, FOREIGN.pair().getPrivate()));
      server.sync("undefined2");
      assertEquals(List.of(), warnings());

      assertEquals(200, server.sync(clerk.token("user_1")).statusCode());
      server.sync(foreignToken("ins_foreign", issuer));
      refusedTokens().forEach(token -> assertEquals(401, server.sync(token).statusCode()));
      assertEquals(List.of(), warnings());
    }
  }

  // An address that is not IPv4

  @Test
  void addressOfIpv6IsLoggedInBrackets() {
    try (ServerSocket socket = new ServerSocket()) {
      socket.bind(new InetSocketAddress("::1", 0));
    } catch (IOException e) {
      Assumptions.abort("there is no IPv6");
    }
    try (TestServer server = server("HOST", "::1", "METRICS_PORT", "0")) {
      String log = Log.text();
      assertTrue(log.contains("Ready on http://[::1]:" + server.port() + " for "), log);
      assertTrue(log.contains("Metrics on http://[::1]:"), log);
    }
  }

  // A webhook without a secret

  @Test
  void eventWithoutASecretIsToldOnce() {
    assertEquals(404, shared.get("/api/webhooks/clerk").statusCode());
    assertEquals(List.of(), warnings());
    for (int i = 0; i < 2; i++) {
      HttpRequest.Builder event =
          StandInClerk.webhook(
              shared.uri("/api/webhooks/clerk"), Fleet.SECRET, Instant.now(), "{}");
      assertEquals(404, shared.send(event).statusCode());
    }
    assertEquals(
        List.of(
            "WARN SetupWarnings - Events at /api/webhooks/clerk are answered with 404, because"
                + " CLERK_WEBHOOK_SIGNING_SECRET is not set: copy the endpoint's signing secret,"
                + " whsec_..., from Clerk's dashboard"),
        warnings());
  }

  @Test
  void olderNameOfTheWebhookSecretIsTaken() {
    try (TestServer server = server("CLERK_WEBHOOK_SECRET", Fleet.SECRET)) {
      HttpRequest.Builder event =
          StandInClerk.webhook(
              server.uri("/api/webhooks/clerk"),
              Fleet.SECRET,
              Instant.now(),
              clerk.event("user.created", "user_1"));
      assertEquals(200, server.send(event).statusCode());
      assertEquals(List.of(), warnings());
    }
  }

  // A front end on another port

  private static int preflight(TestServer server, String origin) {
    return server
        .send(
            HttpRequest.newBuilder(server.uri("/api/user/sync"))
                .method("OPTIONS", HttpRequest.BodyPublishers.noBody())
                .header("Origin", origin)
                .header("Access-Control-Request-Method", "POST"))
        .statusCode();
  }

  @Test
  void refusedOriginIsToldOnceAndAFewAtMost() {
    try (TestServer server = server("CLIENT_URL", "http://localhost:3000,https://app.test")) {
      assertEquals(204, preflight(server, "https://app.test"));
      preflight(server, "http://127.0.0.1:" + server.port()); // a page of the server itself
      preflight(server, "null");
      preflight(server, "http://evil.test/?ERROR=forged");
      preflight(server, "http://" + "x".repeat(300));
      assertEquals(List.of(), warnings());

      assertEquals(405, preflight(server, "http://localhost:5173"));
      preflight(server, "http://localhost:5173");
      assertEquals(
          List.of(
              "WARN Cors - A page of http://localhost:5173 may not read responses: if it is yours, add"
                  + " it to CLIENT_URL, now http://localhost:3000,https://app.test"),
          warnings());

      for (int i = 0; i < 20; i++) {
        preflight(server, "http://evil-" + i + ".test");
      }
      assertEquals(10, warnings().size());
    }
  }

  // A wrong clock

  @ParameterizedTest
  @CsvSource({"4, 100, behind", "-1, -100, ahead of"})
  void wrongClockIsToldOnceButNotOfAFewSeconds(int few, int many, String difference) {
    try (FaultyClerk faulty = new FaultyClerk();
        TestServer server = faulty.server(clerk, TestPostgres.newDatabase())) {
      for (String id : List.of("user_1", "user_2")) {
        syncAtClerksTime(few, id, faulty, server);
      }
      assertEquals(List.of(), warnings());

      for (String id : List.of("user_3", "user_4")) {
        syncAtClerksTime(many, id, faulty, server);
      }
      assertEquals(1, warnings().size(), Log.text());
      String line =
          "WARN SetupWarnings - This machine's clock is \\d+ s "
              + difference
              + " Clerk's, so good tokens may be refused: set it, best by NTP";
      assertTrue(warnings().get(0).matches(line), Log.text());
    }
  }

  private static void syncAtClerksTime(
      int seconds, String id, FaultyClerk faulty, TestServer server) {
    String date =
        ZonedDateTime.now(ZoneOffset.UTC)
            .plusSeconds(seconds)
            .format(DateTimeFormatter.RFC_1123_DATE_TIME);
    faulty.put(id, FaultyClerk.answer(200, FaultyClerk.user(id), "Date: " + date));
    assertEquals(200, server.sync(clerk.token(id)).statusCode());
  }
}
