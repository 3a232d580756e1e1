package com.realmeet.server.bench;

import com.realmeet.server.bench.Load.Result;
import com.realmeet.server.dev.Dev;
import com.realmeet.server.testing.StandInClerk;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * What {@code make bench} runs: how fast the jar is on this machine, with an embedded Postgres and
 * a stand-in Clerk beside it, as a table and a plot.
 */
public final class Bench {
  private static final int[] CONNECTIONS = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  private static final int KNOWN_USERS = 5000;
  private static final int NEW_USERS = 5000;
  private static final int BUSY = 64; // connections
  private static final Duration WARM_UP = Duration.ofSeconds(60);
  private static final Duration STEP = Duration.ofSeconds(4);
  private static final Duration TOKEN_LIFE = Duration.ofHours(1);
  private static final Path JAR = Path.of("target", "real-meet-server.jar").toAbsolutePath();
  private static final Path DIRECTORY = Path.of("target", "bench");

  /**
   * @param cpuMicros CPU time of the server for each request, in microseconds
   * @param selectsPerSecond what the database alone answers to as many connections
   */
  record Step(int connections, Result result, double cpuMicros, double selectsPerSecond) {}

  private final EmbeddedPostgres postgres;
  private final StandInClerk clerk = new StandInClerk();
  private final List<String> options;
  private Process server;

  /**
   * @param args options for the server's JVM
   */
  public static void main(String[] args) {
    System.setProperty("org.slf4j.simpleLogger.log.io.zonky", "warn");
    // Without it, the kernel keeps half of each answer of the stand-in back for 40 ms.
    System.setProperty("sun.net.httpserver.nodelay", "true");
    Locale.setDefault(Locale.ROOT);
    boolean passed = false;
    try {
      passed = new Bench(List.of(args)).run();
    } catch (Exception e) {
      e.printStackTrace();
    }
    System.exit(passed ? 0 : 1); // the stand-in's threads would keep the process
  }

  private Bench(List<String> options) throws IOException {
    this.options = options;
    postgres =
        EmbeddedPostgres.builder()
            .setServerConfig("max_connections", "300")
            .setServerConfig("fsync", "on") // it is meant for tests, and keeps nothing safe
            .setServerConfig("synchronous_commit", "on")
            .start();
    Runtime.getRuntime().addShutdownHook(new Thread(this::stop));
  }

  private boolean run() throws Exception {
    Files.createDirectories(DIRECTORY);
    Path wrkFiles = Load.hasWrk() ? DIRECTORY : null;
    URI url = start();
    Load known = new Load(url, tokens("known", KNOWN_USERS), wrkFiles);
    Load first = new Load(url, tokens("new", NEW_USERS), null);
    Selects limit = new Selects(postgres.getPostgresDatabase(), ids("known", KNOWN_USERS));

    String machine = machine();
    System.out.printf("%s%njava %s%n", machine, String.join(" ", options));
    System.out.printf(
        "POST /api/user/sync by %s, %d s a step after %d s of warm-up; each connection waits for its answer%n",
        wrkFiles == null ? "threads of this program" : "wrk",
        STEP.toSeconds(),
        WARM_UP.toSeconds());
    long failed = known.each(BUSY).failed() + known.random(BUSY, WARM_UP).failed();
    limit.perSecond(BUSY, STEP); // warms up, too
    System.out.println("connections     req/s   p50 ms   p99 ms   CPU us/req  failed   SELECTs/s");
    List<Step> steps = new ArrayList<>();
    for (int connections : CONNECTIONS) {
      Duration before = cpuTime();
      Result result = known.random(connections, STEP);
      double cpuMicros = cpuMicros(before, result);
      Step step = new Step(connections, result, cpuMicros, limit.perSecond(connections, STEP));
      print(String.valueOf(connections), step);
      steps.add(step);
      failed += result.failed();
    }
    Duration before = cpuTime();
    Result inserted = first.each(BUSY);
    failed += inserted.failed();
    print("first time", new Step(BUSY, inserted, cpuMicros(before, inserted), Double.NaN));
    System.out.printf(
        "first time: %d new users, once each, on %d connections, by threads of this program%n",
        NEW_USERS, BUSY);
    Path plot = DIRECTORY.resolve("bench.svg");
    Files.writeString(plot, Plot.of(steps, machine));
    System.out.println("Plot: " + plot);

    long rows = rows();
    System.out.printf(
        "Failed, warm-up included: %d. Rows: %d of %d%n", failed, rows, KNOWN_USERS + NEW_USERS);
    return failed == 0 && rows == KNOWN_USERS + NEW_USERS;
  }

  /**
   * Nothing of the caller's reaches the server: the settings in a {@code .env} of this directory,
   * or in the environment, may name a database that somebody needs.
   */
  private URI start() throws IOException, InterruptedException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(options);
    command.addAll(List.of("-jar", JAR.toString()));
    Path log = DIRECTORY.resolve("server.log");
    ProcessBuilder process =
        new ProcessBuilder(command)
            .directory(DIRECTORY.toFile())
            .redirectErrorStream(true)
            .redirectOutput(log.toFile());
    int port = Dev.freePort(0);
    Map<String, String> environment = process.environment();
    environment.clear();
    environment.put("DATABASE_URL", Dev.databaseUrl(postgres.getPort()));
    environment.put("CLERK_SECRET_KEY", StandInClerk.SECRET_KEY);
    environment.put("CLERK_API_URL", clerk.url());
    environment.put("CLIENT_URL", "http://localhost:3000");
    environment.put("NODE_ENV", "production");
    environment.put("HOST", "127.0.0.1");
    environment.put("PORT", String.valueOf(port));
    environment.put("CLERK_POLL_SECONDS", "0"); // new users are to come by their first sync
    server = process.start();
    URI base = URI.create("http://127.0.0.1:" + port);
    HttpRequest health = HttpRequest.newBuilder(base.resolve("/api/health")).build();
    while (server.isAlive()) {
      try {
        HttpClient.newHttpClient().send(health, HttpResponse.BodyHandlers.discarding());
        return base.resolve("/api/user/sync");
      } catch (IOException e) {
        Thread.sleep(100);
      }
    }
    throw new IOException("the server ended, see " + log);
  }

  /** Makes users of the stand-in, and a token for each. */
  private List<String> tokens(String name, int number) {
    return ids(name, number).stream()
        .parallel()
        .map(
            id -> {
              clerk.putUser(id, id + "@example.com", "Ada", "Lovelace");
              return clerk.token(id, TOKEN_LIFE);
            })
        .toList();
  }

  private static List<String> ids(String name, int number) {
    return IntStream.range(0, number).mapToObj(i -> "user_" + name + i).toList();
  }

  private Duration cpuTime() {
    return server.toHandle().info().totalCpuDuration().orElse(Duration.ZERO);
  }

  private double cpuMicros(Duration before, Result result) {
    return cpuTime().minus(before).toNanos() / 1e3 / result.requests();
  }

  private long rows() throws SQLException {
    try (Connection connection = postgres.getPostgresDatabase().getConnection();
        Statement statement = connection.createStatement();
        ResultSet count = statement.executeQuery("SELECT count(*) FROM users")) {
      count.next();
      return count.getLong(1);
    }
  }

  private static void print(String name, Step step) {
    System.out.printf(
        "%-11s %9.0f %8.2f %8.2f %12.0f %7d %11s%n",
        name,
        step.result().perSecond(),
        step.result().p50Millis(),
        step.result().p99Millis(),
        step.cpuMicros(),
        step.result().failed(),
        Double.isNaN(step.selectsPerSecond()) ? "" : Math.round(step.selectsPerSecond()));
  }

  /** Where the figures come from. */
  private String machine() throws IOException, SQLException {
    Path linux = Path.of("/proc/cpuinfo");
    String processor = System.getProperty("os.arch");
    if (Files.exists(linux)) {
      processor =
          Files.readAllLines(linux).stream()
              .filter(line -> line.startsWith("model name"))
              .map(line -> line.replaceFirst(".*: ", ""))
              .findFirst()
              .orElse(processor);
    }
    try (Connection connection = postgres.getPostgresDatabase().getConnection()) {
      return "%s, %d cores (%s), %s, Java %s, Postgres %s"
          .formatted(
              LocalDate.now(),
              Runtime.getRuntime().availableProcessors(),
              processor,
              System.getProperty("os.name"),
              System.getProperty("java.version"),
              connection.getMetaData().getDatabaseProductVersion());
    }
  }

  private void stop() {
    try {
      if (server != null) {
        server.destroy();
        server.waitFor();
      }
      clerk.close();
    } catch (InterruptedException e) {
      System.err.println(e);
    }
  }
}
