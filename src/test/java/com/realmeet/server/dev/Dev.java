package com.realmeet.server.dev;

import com.realmeet.server.DotEnv;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/**
 * What {@code make dev} runs: the server in a JVM of its own, made anew when its sources change,
 * and stand-ins for what neither {@code .env} nor the environment sets. Their data, and the
 * stand-in's key and users, are kept in {@code .dev}.
 */
public final class Dev {
  private static final Path DATA = Path.of(".dev");
  private static final Path POSTGRES = DATA.resolve("postgres");
  private static final Path KEY = DATA.resolve("clerk-key.der");
  private static final int POSTGRES_PORT = 54320;
  private static final int CLERK_PORT = 3002;

  /** Lifetime of the tokens that are made for a shell. */
  static final Duration TOKEN_LIFE = Duration.ofHours(1);

  private static final String WEBHOOK_SECRET = "whsec_c3RhbmQtaW4tc2VjcmV0LW9mLW1ha2UtZGV2";
  private static final HttpClient HTTP = HttpClient.newHttpClient();

  /** The settings of the server. */
  private final Map<String, String> variables = new HashMap<>();

  /** Those of them that neither {@code .env} nor the environment has. */
  private final Map<String, String> standIns = new HashMap<>();

  private EmbeddedPostgres postgres;
  private StandInClerk clerk;
  private Process server;

  public static void main(String[] args) throws IOException, InterruptedException {
    System.setProperty("org.slf4j.simpleLogger.log.io.zonky", "warn");
    System.exit(new Dev().run());
  }

  private int run() throws IOException, InterruptedException {
    try {
      variables.putAll(DotEnv.read(Path.of(".env")).values());
    } catch (IOException e) {
      System.err.println(e.getMessage());
      return 2;
    }
    variables.putAll(System.getenv());
    Runtime.getRuntime().addShutdownHook(new Thread(this::stop));
    if (isUnset("DATABASE_URL")) {
      startPostgres();
    } else if (isUnset("CLERK_SECRET_KEY")
        && !variables
            .get("DATABASE_URL")
            .matches(".*[@/](localhost|127\\.0\\.0\\.1|\\[::1])[:/].*")) {
      System.err.println(
          "DATABASE_URL is not on this machine and CLERK_SECRET_KEY is not set: the stand-in for"
              + " Clerk knows none of its users, and would have them deleted. Set both or neither");
      return 2;
    }
    standInFor("HOST", "127.0.0.1");
    standInFor("PORT", "3001");
    standInFor("CLERK_POLL_SECONDS", "10");
    override("PORT", variables.get("PORT")); // for all reloads: webhooks go there
    if (isUnset("CLERK_SECRET_KEY")) {
      startClerk();
    }
    startServer();
    if (awaitServer()) {
      printHelp();
    }
    return server.waitFor();
  }

  private boolean isUnset(String name) {
    return variables.getOrDefault(name, "").isBlank();
  }

  private void standInFor(String name, String value) {
    if (isUnset(name)) {
      override(name, value);
    }
  }

  private void override(String name, String value) {
    variables.put(name, value);
    standIns.put(name, value);
  }

  private void startPostgres() throws IOException {
    Files.createDirectories(POSTGRES);
    postgres =
        EmbeddedPostgres.builder()
            .setDataDirectory(POSTGRES)
            .setCleanDataDirectory(false)
            .setRegisterShutdownHook(false)
            .setPort(freePort(POSTGRES_PORT))
            .setPGStartupWait(Duration.ofSeconds(60)) // a busy machine may need more than 10
            .start();
    override("DATABASE_URL", databaseUrl(postgres.getPort()));
    override("DIRECT_URL", "");
  }

  /** The URL of a stand-in database. */
  public static String databaseUrl(int port) {
    return "postgresql://postgres:postgres@127.0.0.1:" + port + "/postgres";
  }

  /** The URL of the stand-in database that a run in some directory has, if there is one. */
  public static Optional<String> databaseUrl(Path directory) throws IOException {
    Path lock = directory.resolve(POSTGRES).resolve("postmaster.pid"); // line 4 has the port
    return Files.exists(lock)
        ? Optional.of(databaseUrl(Integer.parseInt(Files.readAllLines(lock).get(3).strip())))
        : Optional.empty();
  }

  private void startClerk() throws IOException {
    clerk = new StandInClerk(freePort(CLERK_PORT), key());
    clerk.setAuthorizedParty(
        variables
            .getOrDefault("CLIENT_URL", "http://localhost:3000")
            .split(",")[0]
            .strip()
            .replace("*", "preview"));
    override("CLERK_SECRET_KEY", StandInClerk.SECRET_KEY);
    override("CLERK_API_URL", clerk.url());
    override("CLERK_JWT_KEY", "");
    standInFor("CLERK_WEBHOOK_SIGNING_SECRET", WEBHOOK_SECRET);
    new DevRoutes(clerk, DATA.resolve("clerk-users.json"), variables).add();
  }

  /** The same key in every run, so that a token in a shell outlives a restart. */
  private static SigningKey key() throws IOException {
    if (!Files.exists(KEY)) {
      Files.createDirectories(DATA);
      Files.write(KEY, SigningKey.generate("ins_dev").pair().getPrivate().getEncoded());
    }
    try {
      return new SigningKey("ins_dev", SigningKey.pair(Files.readAllBytes(KEY)));
    } catch (IllegalArgumentException e) {
      throw new IOException(KEY + " is broken: remove it", e);
    }
  }

  private void startServer() throws IOException {
    ProcessBuilder process =
        new ProcessBuilder(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-cp",
            System.getProperty("java.class.path"),
            "-XX:TieredStopAtLevel=1", // starts faster
            "-XX:+UseSerialGC",
            "com.realmeet.server.dev.HotReload");
    process.environment().putAll(standIns); // the server reads .env itself, again at each reload
    server = process.inheritIO().start();
  }

  private String serverUrl() {
    return serverUrl(variables);
  }

  /** The URL of the server that has these settings. */
  static String serverUrl(Map<String, String> variables) {
    return "http://localhost:" + variables.get("PORT");
  }

  private boolean awaitServer() throws InterruptedException {
    HttpRequest health = HttpRequest.newBuilder(URI.create(serverUrl() + "/api/health")).build();
    while (server.isAlive()) {
      try {
        HTTP.send(health, HttpResponse.BodyHandlers.discarding());
        return true;
      } catch (IOException e) {
        Thread.sleep(100);
      }
    }
    return false;
  }

  private void printHelp() {
    System.out.println();
    if (clerk != null) {
      System.out.println(
          "See it    " + clerk.url() + "/dev: users, their rows, a sign-in for each");
    }
    System.out.println("Server    " + serverUrl());
    System.out.println("Try it    " + serverUrl() + "/api/docs");
    System.out.println(
        "Database  " + (postgres == null ? "of .env" : variables.get("DATABASE_URL")));
    System.out.println("Clerk     " + (clerk == null ? "of .env" : clerk.url() + ", a stand-in"));
    if (clerk != null) {
      System.out.printf(
          """

          Sync a user:
            curl -X POST %s/api/user/sync -H 'Authorization: Bearer %s'
          A token for any user, valid for an hour:
            curl %s/dev/token/user_grace
          The users, and another one:
            curl %s/dev/users
            curl %s/dev/users -d '{"email":"alan@example.com","first_name":"Alan"}'
          Change one, or delete one: a webhook tells the server, and the row follows
            curl -X PATCH %s/dev/users/user_ada -d '{"last_name":"King"}'
            curl -X DELETE %s/dev/users/user_edsger
          The same without a webhook, as if it were lost: the server looks for itself, every %s s
            curl -X PATCH '%s/dev/users/user_ada?webhook=no' -d '{"last_name":"Byron"}'

          """,
          serverUrl(),
          clerk.token(clerk.users().keySet().iterator().next(), TOKEN_LIFE),
          clerk.url(),
          clerk.url(),
          clerk.url(),
          clerk.url(),
          clerk.url(),
          variables.get("CLERK_POLL_SECONDS"),
          clerk.url());
    }
    System.out.println("Ctrl-C stops everything.");
  }

  private void stop() {
    try {
      if (server != null) {
        server.destroy();
        server.waitFor();
      }
      if (clerk != null) {
        clerk.close();
      }
      if (postgres != null) {
        postgres.close();
      }
    } catch (IOException | InterruptedException e) {
      System.err.println(e);
    }
  }

  /** The preferred port, or any other if that is taken. */
  public static int freePort(int preferred) throws IOException {
    for (int port : new int[] {preferred, 0}) {
      try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
        return socket.getLocalPort();
      } catch (IOException e) {
        if (port == 0) {
          throw e;
        }
      }
    }
    throw new IllegalStateException();
  }
}
