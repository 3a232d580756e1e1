package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Migrations over what is already there: tables of 1.0.0, and tables whose history is lost. */
class RepeatedMigrationTest {
  private static final String OBJECTS =
      """
      SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = 'users'::regclass AND NOT tgisinternal
      UNION ALL
      SELECT 'function ' || proname || '(' || pg_get_function_identity_arguments(oid) || ')'
      FROM pg_proc WHERE pronamespace = 'public'::regnamespace
      ORDER BY 1
      """;

  private static final List<String> OUR_OBJECTS =
      List.of(
          "function real_meet_server_users_updated_at()", "trigger real_meet_server_updated_at");

  private static final String HISTORY =
      "SELECT version, success FROM real_meet_server_migrations WHERE version IN ('1', '2') ORDER BY 1";

  private static final String PARTS =
      """
      SELECT attname FROM pg_attribute WHERE attrelid = 'app.users'::regclass AND attnum > 0 AND NOT attisdropped
      UNION ALL
      SELECT tgname FROM pg_trigger WHERE tgrelid = 'app.users'::regclass AND NOT tgisinternal
      UNION ALL
      SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'app.users'::regclass AND contype IN ('p', 'u')
      ORDER BY 1
      """;

  private static StandInClerk clerk;

  /** One of 1.0.0 that is migrated; tests change copies of it. */
  private static String carriedOver;

  @BeforeAll
  static void start() throws IOException {
    clerk = new StandInClerk();
    clerk.putUser("user_new", "new@example.com", "New", null);
    carriedOver = TestPostgres.emptyDatabase();
    TestPostgres.execute(carriedOver, read("1.0.0.sql"));
    Migrations.migrate(DatabaseUrl.parse(carriedOver));
  }

  @AfterAll
  static void stop() {
    clerk.close();
  }

  @ParameterizedTest
  @CsvSource({"1.0.0.sql,3", "1.0.0-prisma.sql,4"})
  void databaseOfTheFirstReleaseIsCarriedOver(String dump, int rows) throws IOException {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, read(dump));
    List<String> before = rows(database);
    assertEquals(rows, before.size());

    try (TestServer server = TestServer.start(clerk, database)) {
      assertEquals(200, server.sync(clerk.token("user_ada")).statusCode());
      assertEquals(401, server.sync(clerk.token("user_gone")).statusCode());
      assertEquals(before, rows(database));
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }
    assertEquals(OUR_OBJECTS, TestPostgres.query(database, OBJECTS));
    assertEquals(List.of("1|t", "2|t"), TestPostgres.query(database, HISTORY));
    assertEquals(
        List.of("t", "t"),
        TestPostgres.query(
            database,
            """
            SELECT NOT relrowsecurity OR EXISTS (
              SELECT FROM pg_roles WHERE rolname IN ('anon', 'authenticated'))
            FROM pg_class WHERE relname IN ('users', 'real_meet_server_migrations')
            """),
        "row level security is on only where a public API's roles are");
    TestPostgres.execute(database, "UPDATE users SET clerk_fields = '{\"a\": 1}'");
    assertEquals(before, rowsWithout(database, "user_new"));
    TestServer.start(clerk, database).close();
  }

  /** A view would stop a change of the type of a column, even one to the same type. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "DROP TABLE real_meet_server_migrations",
        "TRUNCATE real_meet_server_migrations",
        "DELETE FROM real_meet_server_migrations WHERE version = '2'",
        "UPDATE real_meet_server_migrations SET success = false WHERE version = '2'",
        "DELETE FROM real_meet_server_migrations WHERE version = '2';"
            + " ALTER TABLE users DROP COLUMN clerk_fields",
        "DROP TABLE real_meet_server_migrations; DROP TRIGGER real_meet_server_updated_at ON users;"
            + " DROP FUNCTION real_meet_server_users_updated_at()",
        "DROP TABLE real_meet_server_migrations; ALTER TABLE users DROP CONSTRAINT users_email_key;"
            + " CREATE UNIQUE INDEX users_email_key ON users (email)"
      })
  void lostHistoryIsMadeAgain(String loss) {
    String database = TestPostgres.copyOf(carriedOver);
    List<String> before = rows(database);
    TestPostgres.execute(database, "CREATE VIEW recent AS SELECT id, created_at FROM users");
    TestPostgres.execute(database, loss);

    Migrations.migrate(DatabaseUrl.parse(database));

    assertEquals(before, rows(database));
    assertEquals(OUR_OBJECTS, TestPostgres.query(database, OBJECTS));
    assertEquals(List.of("1|t", "2|t"), TestPostgres.query(database, HISTORY));
    TestPostgres.execute(database, "UPDATE users SET clerk_fields = '{}'");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "DROP TABLE users",
        "ALTER TABLE users DROP deleted_at, DROP clerk_updated_at, DROP clerk_fields",
        "ALTER TABLE users DROP clerk_fields",
        "ALTER TABLE users DROP CONSTRAINT users_pkey",
        "ALTER TABLE users DROP CONSTRAINT users_email_key",
        "ALTER TABLE users DROP CONSTRAINT users_email_key;"
            + " CREATE UNIQUE INDEX ON users (email) WHERE deleted_at IS NULL",
        "DROP TRIGGER real_meet_server_updated_at ON users"
      })
  void partOfTheTableThatIsMissingIsMadeAgain(String loss) {
    String url = TestPostgres.emptyDatabase() + "?schema=app";
    Migrations.migrate(DatabaseUrl.parse(url));
    List<String> before = TestPostgres.query(url, PARTS);
    TestPostgres.execute(
        url, "CREATE TABLE users (); SET search_path = app;" + loss + "; RESET ALL");

    try (TestServer server = TestServer.start(clerk, url)) {
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }

    assertEquals(before, TestPostgres.query(url, PARTS));
    String line = "WARN Migrations - Migrations '1', '2' run again: ";
    assertEquals(2, Log.text().split(line, -1).length, Log.text());
    Migrations.migrate(DatabaseUrl.parse(url));
    assertEquals(2, Log.text().split(line, -1).length, Log.text());
  }

  @Test
  void serverStartsWithoutItsHistory() {
    String database = TestPostgres.copyOf(carriedOver);
    TestPostgres.execute(database, "DROP TABLE real_meet_server_migrations");

    try (TestServer server = TestServer.start(clerk, database)) {
      assertEquals(200, server.sync(clerk.token("user_ada")).statusCode());
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }
  }

  @Test
  void historyOfTheFirstReleaseMayBeLostToo() throws IOException {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, read("1.0.0-prisma.sql"));
    TestPostgres.execute(
        database,
        "DROP TABLE real_meet_server_migrations;"
            + " CREATE VIEW recent AS SELECT id, updated_at FROM users");
    List<String> before = rows(database);

    Migrations.migrate(DatabaseUrl.parse(database));

    assertEquals(before, rows(database));
    assertEquals(OUR_OBJECTS, TestPostgres.query(database, OBJECTS));
  }

  /** After a change of V1 or V2, its checksum is appended here, the previous one to TO_REPEAT. */
  @ParameterizedTest
  @CsvSource({
    "1, 1412849516 1694028560 690228550 -2041042412 -760126869 169861949",
    "2, -26672931 1098121626"
  })
  void everyVersionOfTheFirstMigrationsIsBroughtUpToDate(String version, String allChecksums) {
    List<String> checksums = List.of(allChecksums.split(" "));
    String row = " real_meet_server_migrations %s WHERE version = '" + version + "'";
    String database = TestPostgres.newDatabase();
    TestPostgres.execute(database, "CREATE VIEW recent AS SELECT id, created_at FROM users");
    for (String checksum : checksums) {
      TestPostgres.execute(database, "UPDATE" + row.formatted("SET checksum = " + checksum));

      Migrations.migrate(DatabaseUrl.parse(database));

      assertEquals(
          checksums.subList(checksums.size() - 1, checksums.size()),
          TestPostgres.query(database, "SELECT checksum FROM" + row.formatted("")));
    }
  }

  @Test
  void editedFirstMigrationIsStillDetected() {
    String database = TestPostgres.copyOf(carriedOver);
    TestPostgres.execute(
        database, "UPDATE real_meet_server_migrations SET checksum = 7 WHERE version = '1'");

    StartupException failure =
        assertThrows(StartupException.class, () -> Migrations.migrate(DatabaseUrl.parse(database)));

    assertTrue(failure.getMessage().contains("1 has run with another text"), failure.getMessage());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "users_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "users_updated_at(a int) RETURNS int LANGUAGE sql AS $$ SELECT a $$",
        "users_updated_at() RETURNS timestamptz LANGUAGE sql AS $$ SELECT now() $$"
      })
  void functionOfTheApplicationWithTheOldNameStays(String function) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, "CREATE FUNCTION " + function);
    List<String> before = functions(database);

    for (int i = 0; i < 2; i++) {
      Migrations.migrate(DatabaseUrl.parse(database));
      assertEquals(before, functions(database));
      TestPostgres.execute(database, "DROP TABLE real_meet_server_migrations");
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "FUNCTION real_meet_server_users_updated_at() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "PROCEDURE real_meet_server_users_updated_at() LANGUAGE sql AS 'SELECT 1'"
      })
  void functionOfTheApplicationWithTheNewNameIsNamed(String function) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, "CREATE " + function);

    StartupException failure =
        assertThrows(StartupException.class, () -> Migrations.migrate(DatabaseUrl.parse(database)));

    String rename = "ALTER ROUTINE real_meet_server_users_updated_at() RENAME TO ";
    assertTrue(failure.getMessage().contains("rename it by " + rename), failure.getMessage());
    TestPostgres.execute(database, rename + "mine");
    Migrations.migrate(DatabaseUrl.parse(database));
  }

  @Test
  void triggersOfTheApplicationStay() throws IOException {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(
        database,
        """
        CREATE FUNCTION users_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          NEW.name := upper(NEW.name);
          RETURN NEW;
        END $$;
        CREATE TABLE posts (name text);
        CREATE TRIGGER users_updated_at BEFORE INSERT ON posts
          FOR EACH ROW EXECUTE FUNCTION users_updated_at();
        """);
    Migrations.migrate(DatabaseUrl.parse(database));
    TestPostgres.execute(
        database,
        """
        CREATE TRIGGER users_updated_at BEFORE INSERT ON users
          FOR EACH ROW EXECUTE FUNCTION users_updated_at();
        DROP TABLE real_meet_server_migrations;
        """);

    Migrations.migrate(DatabaseUrl.parse(database));

    TestPostgres.execute(
        database,
        "INSERT INTO users (id, email, name) VALUES ('user_1', 'a@example.com', 'ada');"
            + " INSERT INTO posts VALUES ('eve')");
    assertEquals(
        List.of("ADA", "EVE"),
        TestPostgres.query(
            database, "SELECT name FROM users UNION ALL SELECT name FROM posts ORDER BY 1"));
  }

  /** The first release's function is dropped only when nothing else uses it. */
  @Test
  void oldFunctionThatTheApplicationUsesStays() throws IOException {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, read("1.0.0.sql"));
    TestPostgres.execute(
        database,
        """
        CREATE TABLE public.posts (LIKE public.users);
        CREATE TRIGGER posts_updated_at BEFORE UPDATE ON public.posts
          FOR EACH ROW EXECUTE FUNCTION public.users_updated_at();
        """);

    Migrations.migrate(DatabaseUrl.parse(database));

    assertEquals(
        List.of(
            "function real_meet_server_users_updated_at()",
            "function users_updated_at()",
            "trigger real_meet_server_updated_at"),
        TestPostgres.query(database, OBJECTS));
  }

  private static List<String> functions(String database) {
    return TestPostgres.query(
        database, "SELECT oid, prosrc FROM pg_proc WHERE proname = 'users_updated_at' ORDER BY 1");
  }

  private static List<String> rows(String database) {
    return rowsWithout(database, "");
  }

  private static List<String> rowsWithout(String database, String id) {
    return TestPostgres.query(
        database,
        "SELECT id, email, name, image_url, created_at, updated_at, clerk_updated_at, deleted_at"
            + " FROM users WHERE id != '"
            + id
            + "' ORDER BY id");
  }

  /** A dump of pg_dump, and the end of the settings that it makes. */
  static String read(String dump) throws IOException {
    try (InputStream stream =
        RepeatedMigrationTest.class.getResourceAsStream("/migration/" + dump)) {
      return new String(stream.readAllBytes(), StandardCharsets.UTF_8) + "RESET ALL;";
    }
  }
}
