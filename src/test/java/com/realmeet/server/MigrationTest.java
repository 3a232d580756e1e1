package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TcpProxy;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.postgresql.PGConnection;

class MigrationTest {
  private static final String COLUMNS =
      """
      SELECT column_name, data_type, is_nullable, column_default = 'now()'
      FROM information_schema.columns
      WHERE table_schema = 'public' AND table_name = 'users'
      ORDER BY ordinal_position
      """;

  private static final String HISTORY =
      "SELECT version, success FROM %s.real_meet_server_migrations WHERE version IN ('1', '2')";

  private static final String EDITED =
      "Migration of the database failed: migration %s has run with another text (checksum mismatch): restore its"
          + " file and add another one, or, if another branch's has run, renumber yours";

  /** What Prisma makes of the Node server's schema, and a table of the application. */
  private static final String PRISMA =
      """
      CREATE TABLE "users" (
        "id" TEXT NOT NULL,
        "email" TEXT NOT NULL,
        "name" TEXT,
        "image_url" TEXT,
        "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updated_at" TIMESTAMP(3) NOT NULL,
        CONSTRAINT "users_pkey" PRIMARY KEY ("id")
      );
      CREATE UNIQUE INDEX "users_email_key" ON "users"("email");
      CREATE TABLE "_prisma_migrations" ("id" VARCHAR(36) NOT NULL PRIMARY KEY);
      INSERT INTO "_prisma_migrations" VALUES ('first');
      INSERT INTO "users" VALUES
        ('user_old', 'old@example.com', 'Old User', NULL,
          '2025-01-02 03:04:05.678', '2025-02-03 04:05:06.789'),
        ('user_other', 'other@example.com', NULL, NULL,
          '2025-01-02 03:04:05.678', '2025-02-03 04:05:06.789');
      CREATE TABLE "posts" (
        "id" SERIAL PRIMARY KEY,
        "author" TEXT NOT NULL REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE
      );
      INSERT INTO "posts" ("author") VALUES ('user_old'), ('user_old')
      """;

  private static StandInClerk clerk;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
  }

  @AfterAll
  static void stop() {
    clerk.close();
  }

  @Test
  void emptyDatabaseGetsTheTable() {
    String database = TestPostgres.emptyDatabase();
    Migrations.migrate(DatabaseUrl.parse(database));

    assertEquals(
        List.of(
            "id|text|NO|null",
            "email|text|NO|null",
            "name|text|YES|null",
            "image_url|text|YES|null",
            "created_at|timestamp with time zone|NO|t",
            "updated_at|timestamp with time zone|NO|t",
            "clerk_updated_at|timestamp with time zone|NO|f",
            "deleted_at|timestamp with time zone|YES|null",
            "clerk_fields|jsonb|YES|null"),
        TestPostgres.query(database, COLUMNS));
    assertEquals(
        List.of(
            "real_meet_server_users_clerk_updated_at|false|false|clerk_updated_at",
            "users_email_key|true|false|email",
            "users_pkey|true|true|id"),
        TestPostgres.query(
            database,
            """
            SELECT c.relname, i.indisunique::text, i.indisprimary::text,
              pg_get_indexdef(i.indexrelid, 1, true)
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE i.indrelid = 'users'::regclass
            ORDER BY 1
            """));
    assertEquals(
        List.of("real_meet_server_updated_at"),
        TestPostgres.query(
            database,
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'users'::regclass AND NOT tgisinternal"));
    assertTrue(
        Pattern.compile("is at version \\d+, \\d+ migrations applied").matcher(Log.text()).find(),
        Log.text());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "email = 'new@test.invalid'",
        "name = 'New'",
        "name = NULL",
        "image_url = 'https://img.test.invalid'",
        "email = 'new@test.invalid', clerk_updated_at = now(), updated_at = '2001-01-01'"
      })
  void updatedAtMovesWithWhatClientsSee(String change) {
    assertEquals(List.of("t|t"), timesMovedBy(change));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "email = email, name = name, image_url = image_url",
        "clerk_updated_at = now()",
        "deleted_at = now()",
        "updated_at = now()"
      })
  void updatedAtStaysOtherwise(String change) {
    assertEquals(List.of("f|t"), timesMovedBy(change));
  }

  /** Whether a change moved updated_at, and left created_at. */
  private static List<String> timesMovedBy(String change) {
    String database = Migrated.DATABASE;
    TestPostgres.execute(database, "DELETE FROM users");
    // The trigger is for updates: an insert may bring any time.
    TestPostgres.execute(
        database,
        "INSERT INTO users (id, email, name, created_at, updated_at)"
            + " VALUES ('user_1', 'old@example.com', 'Old', '2020-01-01Z', '2020-01-02Z')");
    TestPostgres.execute(database, "UPDATE users SET " + change);
    return TestPostgres.query(
        database,
        "SELECT updated_at > now() - interval '1 hour', created_at = '2020-01-01Z' FROM users");
  }

  /** Made once, when first used. */
  private static final class Migrated {
    static final String DATABASE = TestPostgres.newDatabase();
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "schema=app"})
  void fiveCopiesAtOnceMigrateOnce(String parameter) {
    String database = with(TestPostgres.emptyDatabase(), parameter);
    List<CompletableFuture<TestServer>> servers = new ArrayList<>();
    for (int i = 0; i < 2; i++) {
      servers.add(Threads.supply(() -> TestServer.start(clerk, database)));
    }
    TestServer.atOnce(
        3,
        () -> {
          Migrations.migrate(DatabaseUrl.parse(database));
          return true;
        });
    clerk.putUser("user_new", "new@example.com", "New", "User");

    for (CompletableFuture<TestServer> server : servers) {
      try (TestServer started = server.join()) {
        assertEquals(200, started.sync(clerk.token("user_new")).statusCode());
      }
    }
    String schema = parameter.isEmpty() ? "public" : "app";
    assertEquals(List.of("1|t", "2|t"), TestPostgres.query(database, HISTORY.formatted(schema)));
    assertEquals(
        List.of("user_new"), TestPostgres.query(database, "SELECT id FROM " + schema + ".users"));
    assertEquals(
        List.of(schema + ".users"),
        TestPostgres.query(
            database,
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE tablename = 'users'"));
  }

  @Test
  void editedMigrationIsDetectedInProductionToo() {
    String database = TestPostgres.newDatabase();
    TestPostgres.execute(database, "UPDATE real_meet_server_migrations SET checksum = 1");

    StartupException failure =
        assertThrows(StartupException.class, () -> TestServer.start(clerk, database));

    assertEquals(
        List.of(EDITED.formatted(1), EDITED.formatted(2)),
        failure.lines().stream().filter(line -> line.matches(".*migration [12] .*")).toList());
  }

  @Test
  void fileAndLineOfAMistakeAreNamed(@TempDir Path directory) throws IOException {
    DatabaseUrl url = DatabaseUrl.parse(TestPostgres.newDatabase());
    Files.writeString(
        directory.resolve("V1001__rooms.sql"),
        "CREATE TABLE rooms (id int);\n\nINSERT INTO rooms (id) VALUES (1, 2)");

    StartupException failure =
        assertThrows(
            StartupException.class, () -> Migrations.migrate(url, "filesystem:" + directory));

    assertEquals(
        "Migration of the database failed: ERROR: INSERT has more expressions than target columns"
            + " (42601) in V1001__rooms.sql, line 3",
        failure.getMessage());
  }

  @Test
  void migrationOfAnotherBranchIsNamed(@TempDir Path directory) throws IOException {
    DatabaseUrl url = DatabaseUrl.parse(TestPostgres.newDatabase());
    String location = "filesystem:" + directory;
    Path file = Files.writeString(directory.resolve("V1001__rooms.sql"), "SELECT 'rooms'");
    Migrations.migrate(url, location);
    Files.delete(file);
    Files.writeString(directory.resolve("V1001__teams.sql"), "SELECT 'teams'");

    StartupException failure =
        assertThrows(StartupException.class, () -> Migrations.migrate(url, location));

    assertEquals(EDITED.formatted(1001), failure.getMessage());
  }

  @Test
  void restOfAFailedMigrationCanBeRemovedAsTheMessageSays(@TempDir Path directory)
      throws IOException {
    String database = TestPostgres.newDatabase();
    DatabaseUrl url = DatabaseUrl.parse(database);
    String location = "filesystem:" + directory;
    TestPostgres.execute(
        database, "CREATE TABLE rooms AS SELECT 1 AS number FROM generate_series(1, 2)");
    Files.writeString(
        directory.resolve("V1001__rooms.sql"),
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS rooms_number ON rooms (number)");
    assertThrows(StartupException.class, () -> Migrations.migrate(url, location));

    StartupException failure =
        assertThrows(StartupException.class, () -> Migrations.migrate(url, location));

    String message =
        "Migration of the database failed: migration 1001 stopped half way: drop what it left, such"
            + " as an invalid index, mend what made it fail, then run ";
    assertTrue(failure.getMessage().startsWith(message), failure.getMessage());
    TestPostgres.execute(database, "DROP INDEX rooms_number; TRUNCATE rooms");
    TestPostgres.execute(database, failure.getMessage().substring(message.length()));
    Migrations.migrate(url, location);
    assertEquals(
        List.of("t"),
        TestPostgres.query(
            database,
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'rooms_number'::regclass"));
  }

  @Test
  void historyOfAnotherSchemaIsAnothersEvenIfItIsFound() {
    String database = TestPostgres.newDatabase();
    TestPostgres.execute(database, "CREATE SCHEMA app");
    setSearchPath(database, "app, public");

    TestServer.start(clerk, database).close();

    assertEquals(List.of("1|t", "2|t"), TestPostgres.query(database, HISTORY.formatted("app")));
  }

  @Test
  void schemaThatDirectUrlLacksIsNamed() {
    String database = TestPostgres.newDatabase();

    StartupException failure =
        assertThrows(
            StartupException.class,
            () -> TestServer.start(clerk, with(database, "schema=app"), "DIRECT_URL", database));

    String message = failure.getMessage();
    assertTrue(message.contains("has DIRECT_URL the same database and schema? "), message);
    assertTrue(message.contains("relation \"app.users\" does not exist"), message);
  }

  @Test
  void searchPathWithoutASchemaIsNamed() {
    String database = TestPostgres.emptyDatabase();
    setSearchPath(database, "''''");

    StartupException failure =
        assertThrows(StartupException.class, () -> TestServer.start(clerk, database));

    assertTrue(failure.getMessage().contains("add schema=public"), failure.getMessage());
  }

  private static void setSearchPath(String database, String path) {
    TestPostgres.execute(
        database,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET search_path = %s', current_database()); END $$"
            .formatted(path));
  }

  @Test
  void serverBeforeAnUpdateStartsOnTheUpdatedDatabase() {
    String database = TestPostgres.newDatabase();
    TestPostgres.execute(
        database,
        """
        INSERT INTO real_meet_server_migrations
        VALUES (999, '999', 'more', 'SQL', 'V999__more.sql', 1, 'x', now(), 1, true),
          -- of a branch with a lower number
          (1000, '1.5', 'merged later', 'SQL', 'V1.5__merged_later.sql', 1, 'x', now(), 1, true)
        """);

    TestServer.start(clerk, database).close();

    assertTrue(Log.text().contains("is at version 999, 0 migrations applied"), Log.text());
  }

  @ParameterizedTest
  @ValueSource(strings = {"V1001_rooms.sql", "v1001__rooms.sql"})
  void migrationWithAMistakeInItsNameIsNotOverlooked(String name, @TempDir Path directory)
      throws IOException {
    Files.writeString(directory.resolve(name), "CREATE TABLE rooms (id int)");

    StartupException failure =
        assertThrows(
            StartupException.class,
            () ->
                Migrations.migrate(
                    DatabaseUrl.parse(Migrated.DATABASE), "filesystem:" + directory));

    assertTrue(failure.getMessage().contains(name), failure.getMessage());
  }

  @Test
  void waitForAnotherServersMigrationIsTold() throws Exception {
    DatabaseUrl url = DatabaseUrl.parse(TestPostgres.newDatabase());
    CompletableFuture<Void> waiting;
    try (Connection other = url.dataSource(30).getConnection();
        Statement statement = other.createStatement()) {
      other.setAutoCommit(false);
      statement.execute("SELECT pg_advisory_xact_lock(" + 0x7265616c6d656574L + ")");
      int pid = other.unwrap(PGConnection.class).getBackendPID();
      waiting = Threads.run(() -> Migrations.migrate(url));
      String line = "Another server migrates the database: process " + pid;
      TestServer.await("the log says so", () -> Log.text().contains(line));
    }
    waiting.join();
  }

  @Test
  void tableOfTheNodeServerIsAdoptedWithItsRows() {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, PRISMA);
    int calls = clerk.userCalls();

    try (TestServer server = TestServer.start(clerk, database)) {
      HttpResponse<String> old = server.sync(clerk.token("user_old"));

      assertEquals(
          "{\"success\":true,\"data\":{\"id\":\"user_old\",\"email\":\"old@example.com\","
              + "\"name\":\"Old User\",\"imageUrl\":null,"
              + "\"createdAt\":\"2025-01-02T03:04:05.678Z\","
              + "\"updatedAt\":\"2025-02-03T04:05:06.789Z\"}}",
          old.body());
      assertEquals(calls, clerk.userCalls());

      clerk.putUser("user_new", "new@example.com", null, null);
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
      // Somebody took the address of an old row: Clerk is asked about that row, epoch yields.
      clerk.putUser("user_other", "moved@example.com", null, null);
      clerk.putUser("user_heir", "other@example.com", null, null);
      assertEquals(200, server.sync(clerk.token("user_heir")).statusCode());
    }
    assertEquals(
        List.of(
            "user_heir|other@example.com",
            "user_new|new@example.com",
            "user_old|old@example.com",
            "user_other|moved@example.com"),
        TestPostgres.query(database, "SELECT id, email FROM users ORDER BY id"));
    assertEquals(
        List.of("user_old|2"),
        TestPostgres.query(database, "SELECT author, count(*) FROM posts GROUP BY 1"));
    assertEquals(
        List.of("first"), TestPostgres.query(database, "SELECT id FROM _prisma_migrations"));
    IllegalStateException orphan =
        assertThrows(
            IllegalStateException.class,
            () -> TestPostgres.execute(database, "INSERT INTO posts (author) VALUES ('nobody')"));
    assertTrue(orphan.getMessage().contains("posts_author_fkey"), orphan.getMessage());
  }

  @Test
  void nodeServerCanGoOnWritingToTheMigratedTable() {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, PRISMA);
    Migrations.migrate(DatabaseUrl.parse(database));

    TestPostgres.execute(
        database,
        """
        INSERT INTO "public"."users" ("id", "email", "name", "image_url", "created_at", "updated_at")
        VALUES ('user_node', 'node@example.com', 'Node', NULL,
          '2025-03-04 05:06:07.890 UTC', '2025-03-04 05:06:07.890 UTC')
        """);
    TestPostgres.execute(
        database,
        """
        UPDATE "public"."users" SET "name" = 'Noder', "updated_at" = '2025-03-05 05:06:07.890 UTC'
        WHERE "public"."users"."id" = 'user_node' AND 1 = 1
        """);
    TestPostgres.execute(database, "DELETE FROM \"public\".\"users\" WHERE id = 'user_old'");

    assertEquals(
        List.of("Noder|2025-03-04 05:06:07.89|t|t"),
        TestPostgres.query(
            database,
            """
            SELECT name, created_at AT TIME ZONE 'UTC', updated_at > now() - interval '1 hour',
              clerk_updated_at = 'epoch'
            FROM users
            WHERE id = 'user_node'
            """));
    assertEquals(List.of("0"), TestPostgres.query(database, "SELECT count(*) FROM posts"));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "(id serial PRIMARY KEY, email text, name text, image_url text, created_at date, updated_at date)|:",
        "(id text PRIMARY KEY, email text UNIQUE, password_hash text)"
            + "|, or lacks its columns name, image_url, created_at, updated_at: add them,",
        "(id uuid PRIMARY KEY, \"imageUrl\" text)|:"
      })
  void strangersTableIsRefusedAndLeftAlone(String columns, String lack) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, "CREATE TABLE users " + columns);
    List<String> before = TestPostgres.query(database, COLUMNS);

    StartupException failure =
        assertThrows(StartupException.class, () -> Migrations.migrate(DatabaseUrl.parse(database)));

    assertEquals(
        "Migration of the database failed: ERROR: there is a table \"users\" that is not the Node"
            + " server's"
            + lack
            + " rename it, or name another schema in DATABASE_URL (P0001)",
        failure.getMessage());
    assertEquals(before, TestPostgres.query(database, COLUMNS));
    assertFalse(Log.text().contains("ERROR Db"), Log.text());

    if (lack.endsWith("add them,")) { // the last thing that the message proposes
      Migrations.migrate(DatabaseUrl.parse(with(database, "schema=app")));
      assertEquals(before, TestPostgres.query(database, COLUMNS));
    }
  }

  @Test
  void unknownDatabaseEndsTheStartAtOnce() {
    String database = TestPostgres.withDatabase(TestPostgres.emptyDatabase(), "nowhere");

    StartupException failure =
        assertThrows(StartupException.class, () -> TestServer.start(clerk, database));

    assertTrue(
        failure.getMessage().endsWith("FATAL: database \"nowhere\" does not exist (3D000)"),
        failure.getMessage());
    assertTrue(failure.getMessage().contains("see DATABASE_URL"), failure.getMessage());
    assertFalse(Log.text().contains("attempt"), Log.text());
  }

  @Test
  void wrongPasswordEndsTheStartAtOnce() {
    String database = TestPostgres.emptyDatabase();
    String wrong = database.replaceFirst("://([^:@/]+):[^@]*@", "://$1:wr0ng@");
    Assumptions.assumeFalse(isAccepted(wrong), "this Postgres trusts everybody");

    StartupException failure =
        assertThrows(StartupException.class, () -> TestServer.start(clerk, wrong));

    assertTrue(failure.getMessage().contains("(28P01)"), failure.getMessage());
    assertFalse(failure.getMessage().contains("wr0ng"), failure.getMessage());
    assertFalse(Log.text().contains("attempt"), Log.text());
  }

  private static boolean isAccepted(String url) {
    try {
      TestPostgres.query(url, "SELECT 1");
      return true;
    } catch (IllegalStateException refused) {
      return false;
    }
  }

  @Test
  void indexIsCreatedConcurrently(@TempDir Path directory) throws IOException {
    String database = TestPostgres.newDatabase();
    Files.writeString(
        directory.resolve("V1001__index.sql"),
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS users_name ON users (name)");

    assertTimeoutPreemptively(
        Duration.ofSeconds(20),
        () -> Migrations.migrate(DatabaseUrl.parse(database), "filesystem:" + directory));

    assertEquals(
        List.of("users_name"), TestPostgres.query(database, "SELECT to_regclass('users_name')"));
  }

  @Test
  void limitsOfTheDatabaseEndNoStart(@TempDir Path directory) throws IOException {
    String database = TestPostgres.newDatabase();
    String name = TestPostgres.nameOf(database);
    for (String limit :
        List.of("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")) {
      TestPostgres.execute(database, "ALTER DATABASE " + name + " SET " + limit + " = '200ms'");
    }
    Files.writeString(directory.resolve("V1001__slow.sql"), "SELECT pg_sleep(0.8)");

    TestServer.atOnce(
        2,
        () -> {
          Migrations.migrate(DatabaseUrl.parse(database), "filesystem:" + directory);
          return null;
        });

    assertFalse(Log.text().contains("unreachable"), Log.text());
  }

  @Test
  void migrationThatTakesTooLongFailsAtOnceAndBlamesNoUrl(@TempDir Path directory)
      throws IOException {
    DatabaseUrl url = DatabaseUrl.parse(TestPostgres.newDatabase());
    Files.writeString(
        directory.resolve("V1001__fill.sql"),
        "SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(20)");

    StartupException failure =
        assertThrows(
            StartupException.class, () -> Migrations.migrate(url, "filesystem:" + directory));

    String message = failure.getMessage();
    assertTrue(
        message.startsWith("Migration of the database failed: a statement was cancelled"), message);
    assertFalse(Log.text().contains("unreachable"), Log.text());
  }

  @Test
  void startWaitsForADatabaseThatIsNotThereYet() {
    String database = TestPostgres.emptyDatabase();
    try (TcpProxy proxy = TcpProxy.before(database)) {
      proxy.refuse();
      CompletableFuture<TestServer> server =
          Threads.supply(
              () -> TestServer.start(clerk, TestPostgres.withPort(database, proxy.port())));
      TestServer.await("a second attempt", () -> Log.text().contains("unreachable, attempt 2: "));
      assertFalse(server.isDone());
      proxy.restore();

      try (TestServer started = server.join()) {
        assertEquals(200, started.get("/api/ready").statusCode());
      }
    }
  }

  private static String with(String url, String parameter) {
    return parameter.isEmpty() ? url : url + (url.contains("?") ? "&" : "?") + parameter;
  }
}
