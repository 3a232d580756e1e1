package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** What the README tells people to run, and what it lists, is true. */
class ReadmeTest {
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
    TestPostgres.execute(database, all("README.md", "(?s)```sql\n(BEGIN;.*?)```").get(0));

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

  /** Blocks of the chapter that quotes the example; a line "…" stands for what is left out. */
  @Test
  void chapterOnOwnTablesQuotesTheExample() throws IOException {
    Matcher chapter =
        Pattern.compile("(?ms)^## Adding your own tables and routes$(.*?)(^## |\\z)")
            .matcher(Files.readString(Path.of("README.md")));
    assumeTrue(chapter.find());
    List<String> files = new ArrayList<>();
    for (String directory : List.of("java/com/realmeet/server/example", "resources/example")) {
      try (Stream<Path> paths = Files.walk(Path.of("src/test", directory))) {
        for (Path file : paths.filter(Files::isRegularFile).toList()) {
          files.add(Files.readString(file));
        }
      }
    }
    List<String> quotes =
        Pattern.compile("(?ms)^```\\w+\n(.*?)^```")
            .matcher(chapter.group(1))
            .results()
            .map(quote -> quote.group(1))
            .toList();

    assertTrue(quotes.size() >= 5, quotes::toString);
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

  private static List<String> all(String file, String pattern) throws IOException {
    return Pattern.compile(pattern)
        .matcher(Files.readString(Path.of(file)))
        .results()
        .map((MatchResult match) -> match.group(1))
        .toList();
  }
}
