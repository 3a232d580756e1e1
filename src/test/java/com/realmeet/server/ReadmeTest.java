package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import com.realmeet.server.core.Failure;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What the README tells people to run, and what it lists, is true. */
class ReadmeTest {
  private static final int MAX_LINES = 400;

  private static final int MAX_COLUMNS = 120;

  /** Parts of log lines that are not in the sources, since Flyway or Postgres write them. */
  private static final Set<String> FOREIGN =
      Set.of("canceling statement due to lock timeout", "status 429,"); // of Clerk's response

  /**
   * What Prisma makes of a model {@code User} without {@code @@map}, as its migrations write it.
   */
  private static final String PRISMA_USER =
      """
      CREATE TABLE "User" (
        "id" TEXT NOT NULL,
        "email" TEXT NOT NULL,
        "name" TEXT,
        "imageUrl" TEXT,
        "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updatedAt" TIMESTAMP(3) NOT NULL,
        CONSTRAINT "User_pkey" PRIMARY KEY ("id")
      );
      CREATE UNIQUE INDEX "User_email_key" ON "User"("email");
      INSERT INTO "User" VALUES
        ('user_old', 'old@example.com', 'Old User', NULL,
          '2025-01-02 03:04:05.678', '2025-02-03 04:05:06.789');
      CREATE TABLE "Post" ("id" INT PRIMARY KEY, "author" TEXT NOT NULL REFERENCES "User"("id"));
      INSERT INTO "Post" VALUES (1, 'user_old')
      """;

  @Test
  void sqlForPrismasOwnTableNameMovesItsRows() throws IOException {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, PRISMA_USER);
    TestPostgres.execute(database, Files.readString(Path.of("src/deploy/rename-prisma-table.sql")));

    try (StandInClerk clerk = new StandInClerk();
        TestServer server = TestServer.start(clerk, database)) {
      assertEquals(
          "{\"success\":true,\"data\":{\"id\":\"user_old\",\"email\":\"old@example.com\","
              + "\"name\":\"Old User\",\"imageUrl\":null,"
              + "\"createdAt\":\"2025-01-02T03:04:05.678Z\",\"updatedAt\":\"2025-02-03T04:05:06.789Z\"}}",
          server.sync(clerk.token("user_old")).body());
      assertEquals(0, clerk.userCalls());
      clerk.putUser("user_new", "new@example.com", null, null);
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }
    assertEquals(
        List.of("user_old"),
        TestPostgres.query(
            database, "SELECT u.id FROM \"Post\" p JOIN users u ON u.id = p.author"));
  }

  @Test
  void settingsAreThoseOfTheExampleInTheSameOrder() throws IOException {
    assertEquals(
        all(".env.example", "(?m)^#?([A-Z_]+)="), all("README.md", "(?m)^\\| `([A-Z_]+)` \\|"));
  }

  /** Asks the settings for each variable, and notes which ones they look at. */
  private static final class Asked extends HashMap<String, String> {
    private final transient Set<Object> names = new TreeSet<>();

    Asked(Map<String, String> variables) {
      super(variables);
    }

    @Override
    public boolean containsKey(Object name) {
      names.add(name);
      return super.containsKey(name);
    }
  }

  @Test
  void settingsAreThoseThatTheServerReads() throws IOException {
    Asked variables =
        new Asked(
            Map.of(
                "DATABASE_URL", "postgresql://u:p@localhost/d",
                "CLERK_SECRET_KEY", "sk_test_1",
                "CLERK_AUTHORIZED_PARTIES", ""));
    Config.from(variables);
    variables.names.remove("CLERK_WEBHOOK_SECRET"); // the older name of another one

    assertEquals(variables.names, Set.copyOf(all("README.md", "(?m)^\\| `([A-Z_]+)` \\|")));
  }

  @Test
  void itIsShortAndNarrow() throws IOException {
    List<String> lines = Files.readAllLines(Path.of("README.md"));

    assertTrue(lines.size() <= MAX_LINES, lines.size() + " lines");
    lines.forEach(line -> assertTrue(line.codePointCount(0, line.length()) <= MAX_COLUMNS, line));
  }

  @Test
  void commandsAreThoseOfTheUsage() throws IOException {
    String usage =
        Log.printed(() -> assertEquals(0, Main.run(new String[] {"help"}, Config::load)));
    String readme = Files.readString(Path.of("README.md"));

    String commands = usage.lines().findFirst().orElseThrow().replace("Usage: ", "");
    assertTrue(readme.contains("\n    " + commands + "\n"), commands);
    find(usage, "(--[a-z-]+)").forEach(option -> assertTrue(readme.contains(option), option));
  }

  @ParameterizedTest
  @EnumSource(
      names = {"BAD_REQUEST", "FORBIDDEN", "NOT_FOUND", "CONFLICT"}, // a route's own sentences
      mode = EnumSource.Mode.EXCLUDE)
  void everyFailureIsAmongTheErrors(Failure.Kind kind) throws IOException {
    String quoted = "`" + kind.sentence + "`";
    boolean tabled =
        all("README.md", "(?m)^\\| (" + kind.status + " \\|.*)").stream()
            .anyMatch(row -> row.contains(quoted));
    String prose = Files.readString(Path.of("README.md")).replaceAll("\\s+", " ");

    boolean webhook = kind.name().startsWith("WEBHOOK_");
    assertTrue(webhook ? prose.contains(quoted) : tabled, kind::toString);
  }

  /** Which the API document has, see {@link ApiDocumentTest}. */
  @Test
  void routesAreThoseOfTheServer() throws IOException {
    JsonNode paths =
        new YAMLMapper().readTree(Path.of("src/main/resources/openapi.yaml").toFile()).get("paths");
    Set<String> routes = new TreeSet<>();
    paths
        .fieldNames()
        .forEachRemaining(
            path ->
                Stream.of("get", "post", "put", "patch", "delete")
                    .filter(method -> paths.get(path).has(method))
                    .forEach(method -> routes.add(method.toUpperCase(Locale.ROOT) + " " + path)));

    // An application's routes need no line in the README.
    List<String> told = all("README.md", "(?m)^\\| `([A-Z]+ /api/[^` ]+)` \\|");
    assertEquals(List.of(), told.stream().filter(route -> !routes.contains(route)).toList());
    assertTrue(told.contains("POST /api/user/sync"), told::toString);
  }

  @Test
  void columnsAreThoseOfTheTable() throws IOException {
    List<String> columns =
        TestPostgres.query(
            TestPostgres.newDatabase(),
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'users'");
    String table = all("README.md", "(?s)\\| column of `users` \\|(.*?)\n\n").get(0);

    List<String> names = find(table, "(?m)^\\| ([^|]+) \\|");
    assertEquals(
        new TreeSet<>(columns), new TreeSet<>(find(String.join(" ", names), "`([a-z_]+)`")));
  }

  @Test
  void filesClassesAndTargetsExist() throws IOException {
    for (String file : all("README.md", "[`( ]((?:src|db|\\.ci)/[\\w./-]+\\w)")) {
      assertTrue(Files.exists(Path.of(file)), file);
    }
    Path sources = Path.of("src/main/java/com/realmeet/server");
    for (String name : all("README.md", "`((?:core|database|clerk|http|users)\\.[A-Z]\\w+)")) {
      assertTrue(Files.exists(sources.resolve(name.replace('.', '/') + ".java")), name);
    }
    String makefile = Files.readString(Path.of("Makefile"));
    for (String target : all("README.md", "(?m)(?:`|^    )make ([a-z-]+)")) {
      assertTrue(Pattern.compile("(?m)^" + target + ":").matcher(makefile).find(), target);
    }
  }

  @Test
  void linksLeadToChapters() throws IOException {
    List<String> chapters =
        all("README.md", "(?m)^#+ (.*)").stream()
            .map(
                title ->
                    title.toLowerCase(Locale.ROOT).replaceAll("[^a-z -]", "").replace(' ', '-'))
            .toList();

    all("README.md", "\\]\\(#([^)]*)\\)")
        .forEach(link -> assertTrue(chapters.contains(link), link));
  }

  /** Of a row of the last table: what stands between the dots that replace the details. */
  @Test
  void linesOfTheLogAreThoseThatTheServerWrites() throws IOException {
    String sources = sources();
    String chapter = all("README.md", "(?s)\n## Troubleshooting(.*?)\n## ").get(0);
    List<String> lines =
        find(chapter, "(?m)^\\| (`[^|]*`)[^|]* \\|").stream()
            .flatMap(cell -> find(cell, "`([^`]*)`").stream())
            .toList();
    assertFalse(lines.isEmpty());
    for (String line : lines) {
      for (String part : line.split("…|: ")) {
        String text = part.strip();
        if (text.endsWith("available")) { // an outage's line begins with what is down
          String subject = text.replaceFirst(" is (un)?available$", "");
          assertTrue(sources.contains("new Outage(log, \"" + subject + "\")"), line);
          text = text.substring(subject.length());
        }
        assertTrue(FOREIGN.contains(text) || sources.contains(text), line);
      }
    }
  }

  /** Blocks of the chapter that quotes the example; a line "…" stands for what is left out. */
  @Test
  void chapterOnOwnTablesQuotesTheExample() throws IOException {
    String chapter =
        all("README.md", "(?s)\n## Adding your own tables and routes\n(.*?)\n## ").get(0);
    List<String> files = new ArrayList<>();
    for (String directory : List.of("java/com/realmeet/server/example", "resources/example")) {
      try (Stream<Path> paths = Files.walk(Path.of("src/test", directory))) {
        for (Path file : paths.filter(Files::isRegularFile).toList()) {
          files.add(Files.readString(file));
        }
      }
    }
    List<String> quotes = find(chapter, "(?ms)^```\\w+\n(.*?)^```");

    assertFalse(quotes.isEmpty());
    for (String quote : quotes) {
      assertTrue(files.stream().anyMatch(file -> isQuote(quote, file)), quote);
    }
  }

  private static boolean isQuote(String quote, String file) {
    int from = 0;
    for (String part : quote.split("(?m)^\\s*…\n")) {
      int found = file.indexOf(part, from);
      if (found < 0) {
        return false;
      }
      from = found + part.length();
    }
    return true;
  }

  /** The code and the migrations, texts of several lines joined. */
  private static String sources() throws IOException {
    StringBuilder text = new StringBuilder();
    for (Path root : List.of(Path.of("src/main/java"), Path.of("db"), Path.of("src/deploy"))) {
      try (Stream<Path> files = Files.walk(root)) {
        for (Path file : files.filter(Files::isRegularFile).toList()) {
          text.append(Files.readString(file));
        }
      }
    }
    return text.toString().replaceAll("\"\\s*\\+\\s*\"", "").replace("\\\"", "\"");
  }

  private static List<String> all(String file, String pattern) throws IOException {
    return find(Files.readString(Path.of(file)), pattern);
  }

  private static List<String> find(String text, String pattern) {
    return Pattern.compile(pattern)
        .matcher(text)
        .results()
        .map((MatchResult match) -> match.group(1))
        .toList();
  }
}
