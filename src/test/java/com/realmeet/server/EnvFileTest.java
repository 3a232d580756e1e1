package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.testing.ServerProcess;
import com.realmeet.server.testing.StandInClerk;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Settings from the {@code .env} of the working directory, and what is said of those it lacks. */
class EnvFileTest {
  private static final String PORT = "PORT must be a number between 0 and 65535";
  private static final String NO_URL =
      "DATABASE_URL is required: postgresql://user:password@host/database?sslmode=require";

  /** Lines 1 and 2 of a file. */
  private static final String REQUIRED =
      "DATABASE_URL=postgresql://app:hidden@db.internal/app\nCLERK_SECRET_KEY=sk_test_hidden\n";

  @TempDir private Path directory;

  /** What the jar says of settings of which at least one is wrong. */
  private List<String> jar(Map<String, String> environment) {
    try (ServerProcess server = new ServerProcess(directory, environment)) {
      assertEquals(2, server.exitCode(), server::output);
      return server.lines();
    }
  }

  private static Config config(Map<String, String> environment, String file) {
    return Config.from(environment, new DotEnv(file.getBytes(StandardCharsets.UTF_8)));
  }

  /** A file as an operator sees it: ⏎ ends a line. */
  private static List<String> problems(Map<String, String> environment, String file) {
    List<String> problems =
        assertThrows(StartupException.class, () -> config(environment, file.replace('⏎', '\n')))
            .lines();
    assertFalse(problems.toString().contains("hidden"), problems::toString);
    return problems;
  }

  @Test
  void jarReadsTheFileForWhatTheEnvironmentDoesNotSet() throws IOException {
    Files.writeString(
        directory.resolve(".env"),
        """
        \ufeff# A comment

        export DATABASE_URL="postgresql://app:p%23w@db.internal/app?sslmode=require\\n"
        CLERK_SECRET_KEY='sk_test_abc'
        Another program's line
        NODE_ENV = production  # after a value
        CLIENT_URL: https://app.example.com,https://b.example.com\r
        PORT=`wrong`
        METRICS_PORT=wrong
        """);

    assertEquals(List.of(PORT + " (.env, line 8)"), jar(Map.of("METRICS_PORT", "0")));
  }

  @Test
  void environmentWins() {
    Map<String, String> environment = new HashMap<>();
    environment.put("DATABASE_URL", "postgresql://app@db.internal/app");
    environment.put("CLERK_SECRET_KEY", "sk_test_abc");
    environment.put("CLIENT_URL", "https://app.example.com");
    environment.put("PORT", "wrong");
    String file = "DATABASE_URL=a⏎CLERK_SECRET_KEY=b⏎CLIENT_URL=*⏎PORT=3001";

    assertEquals(
        List.of(PORT + " (from the environment, which wins over .env, line 4)"),
        problems(environment, file));
  }

  @Test
  void directoryInItsPlaceIsRefused() throws IOException {
    Files.createDirectory(directory.resolve(".env"));

    assertEquals(List.of(".env cannot be read: Is a directory"), jar(Map.of()));
  }

  @Test
  void fileThatCannotBeReadIsRefused() throws IOException {
    Path file = directory.resolve(".env");
    Files.createSymbolicLink(file, file);

    IOException e = assertThrows(IOException.class, () -> DotEnv.read(file));

    String message = file + " cannot be read: Too many levels of symbolic links";
    assertTrue(e.getMessage().startsWith(message), e.getMessage());
  }

  @Test
  void absentFileHasNoValues() throws IOException {
    assertEquals(Map.of(), DotEnv.read(directory.resolve(".env")).values());
  }

  @Test
  void newlineBehindAValueIsNoPartOfIt() {
    Config config =
        config(
            Map.of(),
            "DATABASE_URL=\"postgresql://app@db.internal/app\\n\"\n"
                + "CLERK_SECRET_KEY=\"\nsk_test_hidden\n\"\n");

    assertEquals(
        config(Map.of("DATABASE_URL", "postgresql://app@db.internal/app"), REQUIRED).toString(),
        config.toString());
    assertEquals("sk_test_hidden", config.clerkSecretKey());
  }

  @ParameterizedTest(name = "{index}")
  @ValueSource(strings = {"\"%s\"", "'%s'", "`%s`", "\"\n%s\n\" # PEM"})
  void publicKeyMaySpanLines(String form) {
    assertNotNull(config(Map.of(), REQUIRED + "CLERK_JWT_KEY=" + form.formatted(pem())));
  }

  @ParameterizedTest(name = "{index}")
  @ValueSource(strings = {"%s", "\"%s\"", "'%s'", "`%s`"})
  void publicKeyMayStandInOneLine(String form) {
    String line = pem().replace("\n", "\\n");

    Config config = config(Map.of(), REQUIRED + "CLERK_JWT_KEY=" + form.formatted(line));

    assertNotNull(config.clerkJwtKey());
  }

  private static String pem() {
    byte[] key = StandInClerk.SigningKey.usual().pair().getPublic().getEncoded();
    String base64 = Base64.getMimeEncoder(64, "\n".getBytes()).encodeToString(key);
    return "-----BEGIN PUBLIC KEY-----\n" + base64 + "\n-----END PUBLIC KEY-----";
  }

  @Test
  void publicKeyOverLinesWithoutQuotesIsExplained() {
    String problem = problems(Map.of(), REQUIRED + "CLERK_JWT_KEY=" + pem()).get(0);

    assertEquals(
        " (.env, line 3: the next line is not part of it, only quotes hold several lines together)",
        problem.substring(problem.indexOf(" (.env")));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '~',
      value = {
        "PORT=hidden | line 3",
        "⏎PORT='hidden'⏎METRICS_PORT=1 | line 4",
        "PORT=3001⏎PORT=hidden | line 4, which overrides line 3",
        "PORT=1⏎PORT=2⏎PORT=hidden # | line 5, which overrides line 4",
        "PORT=\"3001⏎METRICS_PORT=1⏎ | line 3: its quotes do not match",
        "PORT=\"3001\" hidden | line 3: its quotes do not match",
        "PORT=\"'3001'\" | line 3: its quotes do not match",
        "PORT=\"3001⏎METRICS_PORT=1⏎WIDTH=5\" # inches | lines 3 to 5",
        "PORT=-⏎3001 | line 3: the next line is not part of it, only quotes hold several lines together",
      })
  void wrongValueIsNamedWithItsLine(String file, String place) {
    assertEquals(List.of(PORT + " (.env, " + place + ")"), problems(Map.of(), REQUIRED + file));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '~',
      nullValues = "-",
      value = {
        "PORT=3001 | -",
        "MY_URL=${DATABASE_URL} | -",
        "DATABASE_URL_OLD=hidden⏎MY_DATABASE_URL hidden | -",
        "DATABASE_URL= | (.env, line 2)",
        "DATABASE_URL=hidden⏎DATABASE_URL=# hidden | (.env, line 3, which overrides line 2)",
        "DATABASE_URL postgres://hidden | (.env, line 2 is not DATABASE_URL=value)",
        "PORT=1⏎⏎DATABASE_URL:postgres://hidden | (.env, line 4 is not DATABASE_URL=value)",
        "database_url=hidden | (.env, line 2 is not DATABASE_URL=value)",
        "set DATABASE_URL=hidden | (.env, line 2 is not DATABASE_URL=value)",
        "$env:DATABASE_URL='hidden' | (.env, line 2 is not DATABASE_URL=value)",
        "- DATABASE_URL=hidden | (.env, line 2 is not DATABASE_URL=value)",
        "#DATABASE_URL=hidden | (.env, line 2 is a comment)",
        "# DATABASE_URL is⏎DATABASE_URL hidden | (.env, line 3 is not DATABASE_URL=value)",
        "A=\"hidden⏎DATABASE_URL=hidden⏎B=5\" | (.env, line 3 is within the quotes that line 2 opens)",
      })
  void missingSettingIsLookedForInTheLinesThatWereSkipped(String file, String hint) {
    assertEquals(
        List.of(NO_URL + (hint == null ? "" : " " + hint)),
        problems(Map.of(), "CLERK_SECRET_KEY=sk_test_hidden⏎" + file));
  }

  @Test
  void fileInUtf16IsCalledByItsName() {
    byte[] file = ("\ufeff" + REQUIRED).getBytes(StandardCharsets.UTF_16LE);

    List<String> problems =
        assertThrows(StartupException.class, () -> Config.from(Map.of(), new DotEnv(file))).lines();

    assertEquals(NO_URL + " (.env is not UTF-8 text: save it as UTF-8)", problems.get(0));
  }

  /** Docker's env files keep quotes; in a .env, quotes within quotes are the value's own. */
  @Test
  void secondPairOfQuotesCountsAsNodeCountsIt() {
    String url = "DATABASE_URL=postgresql://app@db.internal/app\n";

    assertNotNull(config(Map.of("CLERK_SECRET_KEY", "'sk_test_hidden'"), url));
    assertEquals(
        List.of(
            "CLERK_SECRET_KEY must be a secret key, sk_test_... or sk_live_..."
                + " (.env, line 2: its quotes do not match)"),
        problems(Map.of(), url + "CLERK_SECRET_KEY=\"'sk_test_hidden'\""));
  }
}
