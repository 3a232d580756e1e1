package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.ServerProcess.Deployed;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.sun.net.httpserver.HttpServer;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.MatchResult;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The files of {@code src/deploy}, each judged by its own tool. A test whose tool is not installed
 * is skipped.
 */
class DeployTest {
  private static final Path DEPLOY = Path.of("src", "deploy").toAbsolutePath();
  private static final double MAX_EXPOSURE = 2.0;

  private static StandInClerk clerk;
  private static String database;

  @TempDir private Path directory;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    clerk.putUser("user_1", "one@example.com", "Ann", null);
    database = TestPostgres.newDatabase();
  }

  @AfterAll
  static void stop() {
    clerk.close();
  }

  private static String read(String file) throws IOException {
    return Files.readString(DEPLOY.resolve(file));
  }

  private record Result(int exitCode, String output) {}

  /** Runs a program to its end, with these variables added to our own. */
  private Result run(Map<String, String> environment, String... command) throws Exception {
    ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.directory(directory.toFile()).environment().putAll(environment);
    Process process = builder.start();
    process.getOutputStream().close();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertTrue(process.waitFor(60, TimeUnit.SECONDS), output);
    return new Result(process.exitValue(), output);
  }

  private String succeed(String... command) throws Exception {
    Result result = run(Map.of(), command);
    assertEquals(0, result.exitCode, result.output);
    return result.output;
  }

  private static String installed(String program) {
    return Stream.concat(
            Stream.of(System.getenv("PATH").split(File.pathSeparator)), Stream.of("/usr/sbin"))
        .map(folder -> Path.of(folder, program))
        .filter(Files::isExecutable)
        .map(Path::toString)
        .findFirst()
        .orElse(null);
  }

  private static String require(String program) {
    String path = installed(program);
    assumeTrue(path != null, program + " is not installed");
    return path;
  }

  // systemd

  @Test
  void systemdAcceptsTheUnitAndItsExposureIsLow() throws Exception {
    String systemdAnalyze = require("systemd-analyze");
    Path unit = directory.resolve("real-meet-server.service");
    Files.writeString(
        unit, read("real-meet-server.service").replace("/opt/real-meet-server", DEPLOY.toString()));
    String problems = succeed(systemdAnalyze, "verify", unit.toString());
    assertFalse(problems.contains("real-meet-server"), problems);

    String report =
        succeed(systemdAnalyze, "security", "--offline=true", "--no-pager", unit.toString());
    Matcher exposure = Pattern.compile("Overall exposure level .*: ([0-9.]+)").matcher(report);
    assertTrue(exposure.find(), report);
    assertTrue(Double.parseDouble(exposure.group(1)) < MAX_EXPOSURE, exposure.group());
  }

  // Scripts

  @Test
  void archiveSpeedsUpTheVeryJarThatItWasMadeFrom() throws Exception {
    require("bash");
    assumeTrue(Files.exists(ServerProcess.JAR), "there is no jar: run mvn verify");
    String made = Deployed.MADE;
    assertTrue(made.startsWith("Made " + Deployed.HOME.resolve("real-meet-server.")), made);
    assertTrue(usesArchive(Deployed.HOME));

    Path other = Files.createDirectory(directory.resolve("other"));
    for (String file : List.of("start", "make-archive", "jvm.options", "archive.options")) {
      Files.copy(
          Deployed.HOME.resolve(file), other.resolve(file), StandardCopyOption.COPY_ATTRIBUTES);
    }
    copyWithOneMoreEntry(ServerProcess.JAR, other.resolve("real-meet-server.jar"));
    assertFalse(usesArchive(other));

    Path settings = Files.copy(Deployed.HOME.resolve("env"), directory.resolve("env"));
    Files.writeString(settings, "CLIENT_URL='*'\n", StandardOpenOption.APPEND);
    Result wrong = run(Map.of(), other.resolve("make-archive").toString(), "env");
    assertEquals(2, wrong.exitCode, wrong.output);
    assertTrue(wrong.output.contains("CLIENT_URL must be "), wrong.output);
  }

  private boolean usesArchive(Path home) throws Exception {
    String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
    Path log = directory.resolve("classes");
    Map<String, String> environment =
        Map.of("JAVA", java, "JDK_JAVA_OPTIONS", "-Xlog:class+load:file=" + log);
    Result version = run(environment, home.resolve("start").toString(), "version");
    assertEquals(0, version.exitCode, version.output);
    assertTrue(version.output.contains("real-meet-server 1."), version.output);
    boolean used =
        Files.readString(log).contains("com.realmeet.server.Main source: shared objects file");
    assertNotEquals(used, version.output.contains("The archive is of another jar"));
    return used;
  }

  private static void copyWithOneMoreEntry(Path from, Path to) throws IOException {
    Files.copy(from, to);
    try (FileSystem jar = FileSystems.newFileSystem(to)) {
      Files.createFile(jar.getPath("one-more"));
    }
  }

  // nginx

  /** nginx with our file, whose addresses are replaced by these. */
  private final class Nginx implements AutoCloseable {
    final int port = freePort();
    private final Process process;

    Nginx(int first, int second) throws Exception {
      String nginx = require("nginx");
      String site =
          read("nginx.conf")
              .replace("listen 443 ssl;", "listen 127.0.0.1:" + port + ";")
              .replaceAll("(?m)^ *(listen \\[::]|ssl_).*\n", "")
              .replace("127.0.0.1:3001", "127.0.0.1:" + first)
              .replace("127.0.0.1:3002", "127.0.0.1:" + second);
      Path configuration = write(site);
      process =
          new ProcessBuilder(
                  nginx,
                  "-e",
                  directory.resolve("error.log").toString(),
                  "-c",
                  configuration.toString(),
                  "-g",
                  "daemon off; master_process off;")
              .inheritIO()
              .start();
      TestServer.await("nginx listens", () -> isOpen(port));
    }

    @Override
    public void close() {
      process.destroy();
    }
  }

  /** A whole configuration around our file, which is an include. */
  private Path write(String site) throws IOException {
    String temporary =
        Stream.of("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            .map(name -> name + "_temp_path " + directory.resolve(name) + ";")
            .collect(Collectors.joining("\n"));
    Path file = directory.resolve("nginx.conf");
    Files.writeString(
        file,
        """
        pid %1$s/nginx.pid;
        error_log %1$s/error.log;
        events {}
        http {
          access_log off;
          %2$s
          %3$s
        }
        """
            .formatted(directory, temporary, site));
    return file;
  }

  private static int freePort() {
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      return socket.getLocalPort();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static boolean isOpen(int port) {
    try {
      new RawHttp(port).close();
      return true;
    } catch (UncheckedIOException refused) {
      return false;
    }
  }

  @Test
  void nginxAcceptsItsConfiguration() throws Exception {
    String nginx = require("nginx");
    String certificate =
        " req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=test"
            + " -keyout key.pem -out certificate.pem";
    succeed((require("openssl") + certificate).split(" "));
    String site =
        read("nginx.conf")
            .replace("/etc/ssl/api.example.com.pem", directory + "/certificate.pem")
            .replace("/etc/ssl/api.example.com.key", directory + "/key.pem");
    succeed(nginx, "-t", "-e", directory + "/error.log", "-c", write(site).toString());
  }

  private static int status(int port, String method, String path, int bytes) throws Exception {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
            .method(method, HttpRequest.BodyPublishers.ofByteArray(new byte[bytes]))
            .build();
    return HttpClient.newHttpClient().send(request, BodyHandlers.discarding()).statusCode();
  }

  @Test
  void nginxRepeatsOnlyWhatIsIdempotent() throws Exception {
    require("nginx");
    AtomicInteger requests = new AtomicInteger();
    HttpServer unavailable = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    unavailable.createContext(
        "/",
        exchange -> {
          exchange.getRequestBody().readAllBytes();
          requests.incrementAndGet();
          exchange.sendResponseHeaders(503, -1);
          exchange.close();
        });
    unavailable.start();
    int port = unavailable.getAddress().getPort();
    try (Nginx nginx = new Nginx(port, port)) {
      for (String once : List.of("POST /api/meetings", "POST /api/user/avatar", "PATCH /api/x")) {
        assertEquals(503, status(nginx.port, once.split(" ")[0], once.split(" ")[1], 2));
        assertEquals(1, requests.getAndSet(0), once);
      }
      for (String twice :
          List.of(
              "GET /api/meetings",
              "POST /api/user/sync",
              "POST /api/user/refresh",
              "POST /api/webhooks/clerk")) {
        assertEquals(503, status(nginx.port, twice.split(" ")[0], twice.split(" ")[1], 2));
        assertEquals(2, requests.getAndSet(0), twice);
      }
      // The server's own 413 is to reach the client.
      assertEquals(503, status(nginx.port, "POST", "/api/meetings", 1_500_000));
    } finally {
      unavailable.stop(0);
    }
    try (Nginx nginx = new Nginx(freePort(), freePort())) {
      assertEquals(502, status(nginx.port, "POST", "/api/meetings", 2));
    }
  }

  @Test
  void restartOfOneInstanceAfterTheOtherFailsNoRequest() throws Exception {
    require("nginx");
    int[] ports = {freePort(), freePort()};
    TestServer[] servers = {server(ports[0]), server(ports[1])};
    AtomicInteger answers = new AtomicInteger();
    AtomicBoolean done = new AtomicBoolean();
    try (Nginx nginx = new Nginx(ports[0], ports[1])) {
      URI uri = URI.create("http://127.0.0.1:" + nginx.port + "/api/user/sync");
      HttpRequest sync =
          HttpRequest.newBuilder(uri)
              .header("Authorization", "Bearer " + clerk.token("user_1"))
              .POST(HttpRequest.BodyPublishers.noBody())
              .build();
      List<CompletableFuture<Set<Integer>>> clients = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        clients.add(Threads.supply(() -> statuses(sync, answers, done)));
      }
      for (int i = 0; i < 2; i++) {
        servers[i].stop();
        servers[i] = server(ports[i]);
        int before = answers.get();
        TestServer.await("nginx has noticed", () -> answers.get() > before + 50);
      }
      done.set(true);
      for (CompletableFuture<Set<Integer>> client : clients) {
        assertEquals(Set.of(200), client.join());
      }
    } finally {
      done.set(true);
      servers[0].close();
      servers[1].close();
    }
  }

  private static TestServer server(int port) {
    return TestServer.start(clerk, database, "PORT", Integer.toString(port));
  }

  private static Set<Integer> statuses(
      HttpRequest request, AtomicInteger answers, AtomicBoolean done) {
    Set<Integer> statuses = new TreeSet<>();
    HttpClient client = HttpClient.newHttpClient();
    try {
      while (!done.get()) {
        statuses.add(client.send(request, BodyHandlers.discarding()).statusCode());
        answers.incrementAndGet();
        Thread.sleep(3);
      }
      return statuses;
    } catch (IOException | InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  // Prometheus

  @Test
  void eachAlertFiresWhereItShouldAndNowhereElse() throws Exception {
    String promtool = require("promtool");
    Path series = Path.of("src", "test", "resources", "alerts-test.yml").toAbsolutePath();
    succeed(promtool, "check", "rules", DEPLOY.resolve("alerts.yml").toString());
    succeed(promtool, "test", "rules", series.toString());
    String tested = Files.readString(series);
    for (JsonNode rule : alerts()) {
      String fires = "alertname: " + rule.get("alert").asText() + "\n +exp_alerts";
      assertTrue(Pattern.compile(fires).matcher(tested).find(), fires);
    }
  }

  private static List<JsonNode> alerts() throws IOException {
    JsonNode groups = new YAMLMapper().readTree(read("alerts.yml")).get("groups");
    List<JsonNode> alerts = new ArrayList<>();
    groups.forEach(group -> group.get("rules").forEach(alerts::add));
    return alerts;
  }

  @Test
  void alertsAskForMetricsThatTheServerHas() throws Exception {
    String[] settings = {
      "METRICS_PORT", "0",
      "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET,
      "CLERK_POLL_SECONDS", "300"
    };
    try (TestServer server = TestServer.start(clerk, database, settings)) {
      server.sync(clerk.token("user_1"));
      int port = MetricsTest.metricsPort();
      TestServer.await( // after its response
          "the request is measured",
          () -> MetricsTest.page(port).contains("http_server_requests_seconds_count"));
      String page = MetricsTest.page(port);
      for (JsonNode rule : alerts()) {
        assertFalse(rule.at("/annotations/summary").asText().isEmpty(), rule::toString);
        List<String> names =
            Pattern.compile("(\\w+)\\{job=\"real-meet-server\"")
                .matcher(rule.get("expr").asText())
                .results()
                .map((MatchResult match) -> match.group(1))
                .toList();
        assertFalse(names.isEmpty(), rule::toString);
        names.stream()
            .filter(name -> !name.equals("up")) // Prometheus' own
            .forEach(name -> assertTrue(page.matches("(?s).*\n" + name + "[{ ].*"), name));
      }
    }
  }

  // Containers

  /** The instructions of the Dockerfile, continuation lines joined. */
  private static List<String> instructions() throws IOException {
    return read("Dockerfile")
        .replaceAll("(?m)^#.*\n", "")
        .replaceAll("\\\\\n *", "")
        .lines()
        .filter(line -> !line.isBlank())
        .toList();
  }

  @Test
  void imageIsBuiltFromFilesOfTheReleaseAndRunsWithoutRoot() throws IOException {
    List<String> instructions = instructions();
    for (String each : instructions) {
      assertTrue(
          each.matches("(FROM|COPY|ENV|WORKDIR|RUN|USER|EXPOSE|HEALTHCHECK|ENTRYPOINT) .+"), each);
    }
    for (String copy : instructions) {
      if (copy.startsWith("COPY ") && !copy.contains("--from=")) {
        List<String> words = List.of(copy.replaceAll("--\\S+ ", "").split(" +"));
        for (String file : words.subList(1, words.size() - 1)) {
          assertTrue(
              file.equals("real-meet-server.jar") || Files.exists(DEPLOY.resolve(file)), file);
        }
      }
    }
    List<String> image =
        instructions.subList(instructions.lastIndexOf("FROM java"), instructions.size());
    assertTrue(image.stream().anyMatch(each -> each.matches("USER [1-9]\\d*:[1-9]\\d*")));
    assertEquals(
        List.of(
            "java",
            "@/app/jvm.options",
            "-XX:AOTCache=/app/real-meet-server.aot",
            "-jar",
            "/app/real-meet-server.jar"),
        execForm("ENTRYPOINT "));
  }

  private static List<String> execForm(String before) throws IOException {
    String line =
        instructions().stream().filter(each -> each.contains(before)).findFirst().orElseThrow();
    String json = line.substring(line.indexOf(before) + before.length());
    return List.of(new ObjectMapper().readValue(json, String[].class));
  }

  @Test
  void healthCheckOfTheImageTellsAServerFromNone() throws Exception {
    require("bash");
    String[] check = execForm(" CMD ").toArray(String[]::new);
    Map<String, String> environment = new HashMap<>();
    try (TestServer server = TestServer.start(clerk, database)) {
      environment.put("PORT", Integer.toString(server.port()));
      Result result = run(environment, check);
      assertEquals(0, result.exitCode, result.output);
    }
    assertEquals(1, run(environment, check).exitCode);
  }

  @Test
  void composeFileSetsOnlySettingsThatThereAre() throws IOException {
    JsonNode services = new YAMLMapper().readTree(read("compose.yaml")).get("services");
    Set<String> settings = new TreeSet<>();
    services.at("/server/environment").fieldNames().forEachRemaining(settings::add);
    assertTrue(settings.contains("DATABASE_URL"));
    String example = Files.readString(Path.of(".env.example"));
    settings.forEach(
        name -> assertTrue(Pattern.compile("(?m)^#?" + name + "=").matcher(example).find(), name));
    services
        .at("/server/depends_on")
        .fieldNames()
        .forEachRemaining(name -> assertTrue(services.has(name), name));
  }

  @Test
  void composeAcceptsItsFile() throws Exception {
    List<String> command = new ArrayList<>();
    if (installed("docker-compose") != null) {
      command.add("docker-compose");
    } else {
      command.addAll(List.of(require("docker"), "compose"));
      int exitCode = run(Map.of(), "docker", "compose", "version").exitCode;
      assumeTrue(exitCode == 0, "docker compose is not installed");
    }
    command.addAll(List.of("-f", DEPLOY.resolve("compose.yaml").toString(), "config"));
    Result config = run(Map.of("CLERK_SECRET_KEY", "sk_test_1"), command.toArray(String[]::new));
    assertEquals(0, config.exitCode, config.output);
  }
}
