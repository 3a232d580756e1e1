package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The commands of the jar, what they print, and their exit codes. */
class CommandsTest {
  private static final String TABLE = "SELECT to_regclass('users')";

  @TempDir private Path directory;

  @ParameterizedTest
  @CsvSource({
    "help, 0, Usage: java -jar real-meet-server.jar [serve | migrate | backfill | check | help | version]",
    "version, 0, 'real-meet-server \\d+\\.\\d+\\.\\d+.* \\([0-9a-f]{7,}\\) on Java \\d\\S*'",
    "srve, 2, Usage: .*",
    "check --verbose, 2, Usage: .*",
    "serve now, 2, Usage: .*"
  })
  void commandEndsWithItsCode(String arguments, int exitCode, String firstLine) {
    try (ServerProcess jar = new ServerProcess(directory, Map.of(), arguments.split(" "))) {
      assertEquals(exitCode, jar.exitCode(), jar::output);
      String line = jar.lines().get(0);
      assertTrue(line.equals(firstLine) || line.matches(firstLine), line);
    }
  }

  @Test
  void wrongSettingsOpenNothing() {
    String database = TestPostgres.emptyDatabase();
    try (StandInClerk clerk = new StandInClerk()) {
      Map<String, String> settings = TestServer.settings(clerk, database);
      settings.put("CLIENT_URL", "*");
      settings.put("DATABASE_POOL_SIZE", "0");
      try (ServerProcess jar = new ServerProcess(directory, settings)) {
        assertEquals(2, jar.exitCode());
        assertEquals(
            List.of("CLIENT_URL", "DATABASE_POOL_SIZE"),
            jar.lines().stream().map(line -> line.split(" ")[0]).toList());
      }
      assertEquals(0, clerk.keyCalls() + clerk.otherCalls());
      assertEquals(List.of("null"), TestPostgres.query(database, TABLE));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"PORT", "METRICS_PORT"})
  void portInUseIsToldInOneLineBeforeAnythingElse(String setting) throws IOException {
    String database = TestPostgres.emptyDatabase();
    try (StandInClerk clerk = new StandInClerk();
        ServerSocket other = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"))) {
      Map<String, String> settings = TestServer.settings(clerk, database);
      settings.put(setting, String.valueOf(other.getLocalPort()));
      try (ServerProcess jar = new ServerProcess(directory, settings)) {
        assertEquals(1, jar.exitCode());
        assertEquals(1, jar.lines().size(), jar::output);
        assertTrue(
            jar.output()
                .endsWith(
                    "ERROR Main - Cannot listen on 127.0.0.1:%d, see %s and HOST: %s\n"
                        .formatted(other.getLocalPort(), setting, "Address already in use")),
            jar::output);
      }
      assertEquals(0, clerk.keyCalls());
      assertEquals(List.of("null"), TestPostgres.query(database, TABLE));
    }
  }

  @Test
  void rejectedKeyEndsTheStartAndTheProcess() {
    try (StandInClerk clerk = new StandInClerk()) {
      Map<String, String> settings = TestServer.settings(clerk, TestPostgres.emptyDatabase());
      settings.put("CLERK_SECRET_KEY", "sk_test_other");
      try (ServerProcess jar = new ServerProcess(directory, settings)) {
        assertEquals(1, jar.exitCode());
        assertTrue(
            jar.output().contains("ERROR Main - Clerk rejects CLERK_SECRET_KEY"), jar::output);
      }
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
  @ParameterizedTest
  @CsvSource({
    "-Xmx128m, ok    memory        the heap may grow to 1\\d\\d MB",
    "-XX:MaxRAMPercentage=50 -Xmx32m, 'warn  memory        the heap may grow to 3\\d MB, which is little: -Xmx128m'"
  })
  void checkPrintsItsListAndNothingElse(String options, String memory) {
    String database = TestPostgres.emptyDatabase();
    try (StandInClerk clerk = new StandInClerk()) {
      Map<String, String> settings = TestServer.settings(clerk, database);
      settings.put("CLERK_SECRET_KEY", "sk_test_other");
      settings.put("JDK_JAVA_OPTIONS", options);
      try (ServerProcess jar = new ServerProcess(directory, settings, "check")) {
        assertEquals(1, jar.exitCode());
        List<String> lines =
            jar.lines().stream().filter(line -> !line.startsWith("NOTE: ")).toList();
        assertTrue(
            lines.stream().allMatch(line -> line.matches("(ok  |warn|fail)  \\w.*")), jar::output);
        assertTrue(lines.get(1).matches(memory), lines.get(1));
        assertTrue(
            lines.contains(
                "fail  clerk         Clerk rejects CLERK_SECRET_KEY: copy it again from Clerk's dashboard, API keys"),
            jar::output);
      }
      assertEquals(List.of("null"), TestPostgres.query(database, TABLE));
    }
  }
}
