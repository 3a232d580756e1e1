package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The commands of the jar, what they print, and their exit codes. */
class CommandsTest {
  private static final String TABLE = "SELECT to_regclass('users')";

  @TempDir private Path directory;

  /** Runs a command in this JVM, and returns what it prints to both streams. */
  private static String run(int exitCode, Map<String, String> settings, String... arguments) {
    int before = Log.text().length();
    String printed =
        Log.printed(() -> assertEquals(exitCode, Main.run(arguments, () -> Config.from(settings))));
    return printed + Log.text().substring(before);
  }

  /** The same in a JVM of its own. */
  private String jar(int exitCode, Map<String, String> settings, String... arguments) {
    try (ServerProcess jar = new ServerProcess(directory, settings, arguments)) {
      assertEquals(exitCode, jar.exitCode(), jar::output);
      return jar.output();
    }
  }

  @ParameterizedTest
  @CsvSource({
    "version, 0, 'real-meet-server \\d+\\.\\d+\\.\\d+.* \\([0-9a-f]{7,}\\) on Java \\d\\S*'",
    "srve, 2, Usage: .*"
  })
  void processEndsWithTheCodeOfItsCommand(String argument, int exitCode, String firstLine) {
    String line = jar(exitCode, Map.of(), argument).split("\n")[0];
    assertTrue(line.matches(firstLine), line);
  }

  @ParameterizedTest
  @CsvSource({
    "help, 0, Usage: java -jar real-meet-server.jar [serve | migrate | backfill | check | help | version]",
    "check --verbose, 2, Usage: .*",
    "serve now, 2, Usage: .*"
  })
  void commandEndsWithItsCode(String arguments, int exitCode, String firstLine) {
    String line = run(exitCode, Map.of(), arguments.split(" ")).split("\n")[0];
    assertTrue(line.equals(firstLine) || line.matches(firstLine), line);
  }

  @Test
  void wrongSettingsOpenNothing() {
    String database = TestPostgres.emptyDatabase();
    try (StandInClerk clerk = new StandInClerk()) {
      Map<String, String> settings = TestServer.settings(clerk, database);
      settings.put("CLIENT_URL", "*");
      settings.put("DATABASE_POOL_SIZE", "0");
      assertEquals(
          List.of("CLIENT_URL", "DATABASE_POOL_SIZE"),
          run(2, settings).lines().map(line -> line.split(" ")[0]).toList());
      assertEquals(0, clerk.keyCalls() + clerk.otherCalls());
      assertEquals(List.of("null"), TestPostgres.query(database, TABLE));
    }
  }

  @Test
  void portInUseIsToldInOneLineBeforeAnythingElse() throws IOException {
    assertPortInUseIsTold("PORT", settings -> jar(1, settings));
  }

  @Test
  void metricsPortInUseIsToldInOneLineBeforeAnythingElse() throws IOException {
    assertPortInUseIsTold("METRICS_PORT", settings -> run(1, settings));
  }

  private static void assertPortInUseIsTold(
      String setting, Function<Map<String, String>, String> start) throws IOException {
    String database = TestPostgres.emptyDatabase();
    try (StandInClerk clerk = new StandInClerk();
        ServerSocket other = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"))) {
      Map<String, String> settings = TestServer.settings(clerk, database);
      settings.put(setting, String.valueOf(other.getLocalPort()));
      String output = start.apply(settings);
      assertEquals(1, output.lines().count(), output);
      assertTrue(
          output.endsWith(
              "ERROR Main - Cannot listen on 127.0.0.1:%d, see %s and HOST: %s\n"
                  .formatted(other.getLocalPort(), setting, "Address already in use")),
          output);
      assertEquals(0, clerk.keyCalls());
      assertEquals(List.of("null"), TestPostgres.query(database, TABLE));
    }
  }

  /** With a CA file there, psql verifies for {@code sslmode=require}, by a revocation list too. */
  @ParameterizedTest
  @CsvSource({
    "ca.pem, would be checked against the revocation list",
    "expired-ca.pem, names a CA file (~/.postgresql/root.crt) that has expired"
  })
  void filesOfTheHomeDirectoryAreNotOverlooked(String ca, String problem) throws IOException {
    Path files = Files.createDirectories(directory.resolve(".postgresql"));
    Files.copy(Path.of("src/test/resources/tls", ca), files.resolve("root.crt"));
    Files.createFile(files.resolve("root.crl"));
    Map<String, String> settings =
        settingsWithHome("postgresql://ada@127.0.0.1:1/app?sslmode=require");
    String output = jar(2, settings, "migrate");
    assertTrue(output.contains("DATABASE_URL " + problem), output);
  }

  /** psql shows the certificate there, and refuses a key that others may read. */
  @Test
  void clientCertificateOfTheHomeDirectoryIsUsed() throws IOException {
    Path files = Files.createDirectories(directory.resolve(".postgresql"));
    Files.copy(Path.of("src/test/resources/tls/client.pem"), files.resolve("postgresql.crt"));
    Files.copy(Path.of("src/test/resources/tls/client.key"), files.resolve("postgresql.key"));
    Files.setPosixFilePermissions(
        files.resolve("postgresql.key"), PosixFilePermissions.fromString("rw-r--r--"));
    String output = jar(2, settingsWithHome("postgresql://ada@127.0.0.1:1/app"), "migrate");
    assertTrue(output.contains("DATABASE_URL names a client key (sslkey) that others"), output);
  }

  private Map<String, String> settingsWithHome(String url) {
    return Map.of(
        "CLERK_SECRET_KEY",
        "sk_test_x",
        "DATABASE_URL",
        url,
        "JDK_JAVA_OPTIONS",
        "-Duser.home=" + directory);
  }

  @Test
  void rejectedKeyEndsTheStart() {
    try (StandInClerk clerk = new StandInClerk()) {
      Map<String, String> settings = TestServer.settings(clerk, TestPostgres.emptyDatabase());
      settings.put("CLERK_SECRET_KEY", "sk_test_other");
      String output = run(1, settings);
      assertTrue(output.contains("ERROR Main - Clerk rejects CLERK_SECRET_KEY"), output);
    }
  }

  @Test
  void migrateMakesTheTableAndEnds() {
    String database = TestPostgres.emptyDatabase();
    try (StandInClerk clerk = new StandInClerk();
        ServerProcess jar =
            new ServerProcess(directory, TestServer.settings(clerk, database), "migrate")) {
      assertEquals(0, jar.exitCode(), jar::output);
      assertEquals(1, jar.lines().size(), jar::output);
      assertEquals(List.of("users"), TestPostgres.query(database, TABLE));
      assertEquals(0, clerk.keyCalls());
    }
  }

  /** Which options the JVM has is what the tests in one JVM cannot vary. */
  @Test
  void checkPrintsItsListAndNothingElse() {
    String database = TestPostgres.emptyDatabase();
    try (StandInClerk clerk = new StandInClerk()) {
      Map<String, String> settings = TestServer.settings(clerk, database);
      settings.put("CLERK_SECRET_KEY", "sk_test_other");
      settings.put("JDK_JAVA_OPTIONS", "-Xmx128m");
      List<String> lines = check(1, settings);
      assertTrue(
          lines.stream().allMatch(line -> line.matches("(ok  |warn|fail)  \\w.*")),
          lines::toString);
      assertTrue(
          lines.get(1).matches("ok    memory        the heap may grow to 1\\d\\d MB"),
          lines.get(1));
      assertTrue(
          lines.contains(
              "fail  clerk         Clerk rejects CLERK_SECRET_KEY: copy it again from Clerk's dashboard, API keys"),
          lines::toString);
      assertEquals(List.of("null"), TestPostgres.query(database, TABLE));
    }
  }

  @Test
  void checkWarnsOfALittleHeapEvenWithoutSettings() {
    String little = "warn  memory        the heap may grow to 3\\d MB, which is little: -Xmx128m";
    String line = check(2, Map.of("JDK_JAVA_OPTIONS", "-XX:MaxRAMPercentage=50 -Xmx32m")).get(1);
    assertTrue(line.matches(little), line);
  }

  private List<String> check(int exitCode, Map<String, String> environment) {
    return jar(exitCode, environment, "check")
        .lines()
        .filter(line -> !line.startsWith("NOTE: ")) // Java's own, of JDK_JAVA_OPTIONS
        .toList();
  }
}
