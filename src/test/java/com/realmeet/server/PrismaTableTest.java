package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Migrations in a database whose tables Prisma made, and what they refuse. */
class PrismaTableTest {
  private static final String CHAPTER = "Moving from the Node server";

  /** What Prisma makes of the model without @@map, with and without @map. */
  private static final String TABLE =
      """
      CREATE TABLE %s (
        "id" TEXT NOT NULL PRIMARY KEY,
        "email" TEXT NOT NULL,
        "name" TEXT,
        "%s" TEXT,
        "%s" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "%s" TIMESTAMP(3) NOT NULL,
        "role" TEXT
      );
      CREATE UNIQUE INDEX ON %1$s ("email");
      """;

  private static final String ROW =
      "INSERT INTO %s VALUES"
          + " ('user_old', 'old@example.com', 'Old', NULL, '2025-01-02 03:04:05.678', '2025-02-03')";

  private static String camel(String table) {
    return TABLE.formatted(table, "imageUrl", "createdAt", "updatedAt");
  }

  private static String snake(String table) {
    return TABLE.formatted(table, "image_url", "created_at", "updated_at");
  }

  private static String withSchema(String database) {
    TestPostgres.execute(database, "CREATE SCHEMA IF NOT EXISTS app");
    return database + (database.contains("?") ? "&" : "?") + "schema=app";
  }

  private static int migrate(String database) {
    return Main.run(
        new String[] {"migrate"},
        () -> Config.from(Map.of("DATABASE_URL", database, "CLERK_SECRET_KEY", "sk_test_any")));
  }

  /** The line that the command logs when a migration is refused. */
  private static String refusalOfTheCommand(String database) {
    assertEquals(1, migrate(database));
    List<String> errors = Log.text().lines().filter(line -> line.contains(" ERROR ")).toList();
    assertEquals(1, errors.size(), Log.text());
    return errors.get(0);
  }

  private static String refusal(String database) {
    return assertThrows(
            StartupException.class, () -> Migrations.migrate(DatabaseUrl.parse(database)))
        .getMessage();
  }

  @ParameterizedTest
  @CsvSource({
    "true,true,public",
    "false,true,public",
    "true,false,public",
    "true,true,app",
  })
  void fullTableUserIsNotOverlooked(boolean camel, boolean capital, String schema) {
    String database = TestPostgres.emptyDatabase();
    String url = schema.equals("app") ? withSchema(database) : database;
    String table = schema + (capital ? ".\"User\"" : ".\"user\"");
    TestPostgres.execute(database, camel ? camel(table) : snake(table));
    TestPostgres.execute(database, ROW.formatted(table));

    String message = refusalOfTheCommand(url);
    assertTrue(message.contains(CHAPTER), message);
    assertTrue(message.contains("rename it first"), message);
    assertTrue(message.contains("keep it as it is, name another schema in DATABASE_URL"), message);
    assertEquals(
        List.of("f"),
        TestPostgres.query(database, "SELECT to_regclass('" + schema + ".users') IS NOT NULL"));
    assertEquals(List.of("user_old"), TestPostgres.query(database, "SELECT id FROM " + table));

    if (schema.equals("public") && camel && capital) { // what the README says
      TestPostgres.execute(
          database,
          """
          ALTER TABLE "User" RENAME TO users;
          ALTER TABLE users RENAME COLUMN "imageUrl" TO image_url;
          ALTER TABLE users RENAME COLUMN "createdAt" TO created_at;
          ALTER TABLE users RENAME COLUMN "updatedAt" TO updated_at;
          ALTER INDEX "User_email_idx" RENAME TO users_email_key;
          """);
      assertEquals(0, migrate(database));
      assertEquals(List.of("user_old"), TestPostgres.query(database, "SELECT id FROM users"));
    }
  }

  /** A copy by CREATE TABLE AS, or of a dump without what pg_dump writes after the rows. */
  @ParameterizedTest
  @CsvSource({"'', f", "ALTER TABLE users ADD number serial PRIMARY KEY, t"})
  void tableWithoutAKeyGetsOne(String change, String hasOther) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, snake("original"));
    TestPostgres.execute(database, ROW.formatted("original"));
    TestPostgres.execute(database, "CREATE TABLE users AS TABLE original;" + change);

    try (StandInClerk clerk = new StandInClerk();
        TestServer server = TestServer.start(clerk, database)) {
      assertEquals(200, server.sync(clerk.signUp("fresh")).statusCode());
      assertEquals(200, server.sync(clerk.token("user_old")).statusCode());
    }
    Migrations.migrate(DatabaseUrl.parse(database));
    assertEquals(
        List.of("1|" + hasOther),
        TestPostgres.query(
            database,
            """
            SELECT count(*) FILTER (WHERE indkey::text = '1'), bool_or(indisprimary AND indkey::text != '1')
            FROM pg_index WHERE indrelid = 'users'::regclass AND indisunique
            """));
  }

  @Test
  void copyOfAMigratedTableGetsTheTimesThatItLacks() {
    String database = TestPostgres.newDatabase();
    TestPostgres.execute(
        database,
        """
        ALTER TABLE users RENAME TO original;
        CREATE TABLE users AS TABLE original;
        INSERT INTO users (id, email, name) VALUES ('user_old', 'old@example.com', 'Old');
        INSERT INTO users VALUES
          ('user_kept', 'kept@example.com', NULL, NULL, NULL, '2025-02-03Z', '2025-03-04Z');
        CREATE TRIGGER real_meet_server_updated_at BEFORE UPDATE ON users
          FOR EACH ROW EXECUTE FUNCTION real_meet_server_users_updated_at();
        """);

    try (StandInClerk clerk = new StandInClerk();
        TestServer server = TestServer.start(clerk, database)) {
      String token = clerk.token("user_old");
      String old = server.sync(token).body();
      assertTrue(old.matches(".*\"createdAt\":\"2.*\"updatedAt\":\"2.*"), old);
      clerk.putUser("user_old", "old@example.com", "New", null);
      new Backfilling(clerk, database)
          .expect(0, "Backfill done: 0 inserted, 1 updated, 0 unchanged, 0 deleted, 0 skipped");
    }
    TestPostgres.execute(
        database, "INSERT INTO users (id, email) VALUES ('user_node', 'n@example.com')");
    assertEquals(
        List.of(
            "user_kept|2025-02-03 00:00:00|2025-03-04 00:00:00",
            "user_node|null|1970-01-01 00:00:00"),
        TestPostgres.query(
            database,
            """
            SELECT id, CASE id WHEN 'user_kept' THEN updated_at AT TIME ZONE 'UTC' END,
              clerk_updated_at AT TIME ZONE 'UTC'
            FROM users
            WHERE id != 'user_old'
            ORDER BY id
            """));
  }

  /** "Rename it", as the refusal of such a table says, leaves the name of its index. */
  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void addressIsUniqueThoughAnotherTableHasTheNameOfTheIndex(boolean adopted) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(
        database, "CREATE TABLE old (email text CONSTRAINT users_email_key UNIQUE)");
    if (adopted) {
      TestPostgres.execute(database, snake("users").replaceFirst("CREATE UNIQUE INDEX .*", ""));
    }

    assertEquals(0, migrate(database));

    assertEquals(
        List.of("UNIQUE (email)"),
        TestPostgres.query(
            database,
            """
            SELECT pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid = 'users'::regclass AND contype = 'u'
            """));
  }

  @ParameterizedTest
  @CsvSource({
    "deleted_at timestamptz, deleted_at",
    "clerk_updated_at bigint, clerk_updated_at",
    "clerk_fields text, clerk_fields"
  })
  void columnsOfAnApplicationAreNotTakenForOurs(String column, String name) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, snake("users"));
    TestPostgres.execute(database, "ALTER TABLE users ADD " + column);

    String message = refusal(database);

    assertTrue(message.contains("columns of its own with names of the server's: rename " + name));
  }

  @ParameterizedTest
  @CsvSource({"id, user_old, other", "email, user_other, old"})
  void tableWithTheSameIdOrAddressTwiceIsRefused(String column, String id, String name) {
    String email = name + "@example.com";
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, snake("original"));
    TestPostgres.execute(database, ROW.formatted("original"));
    TestPostgres.execute(database, "CREATE TABLE users AS TABLE original");
    TestPostgres.execute(database, "INSERT INTO users VALUES ('%s', '%s')".formatted(id, email));

    String message = refusal(database);

    assertTrue(message.contains("have the same " + column + ": "), message);
    Matcher query = Pattern.compile("SELECT .* > 1").matcher(message);
    assertTrue(query.find(), message);
    String shared = column.equals("id") ? id : email;
    assertEquals(List.of(shared + "|2"), TestPostgres.query(database, query.group()));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "\"User\" (id text, email text, name text, \"createdAt\" date, \"updatedAt\" date)|, and add the columns image_url, see",
        "\"USERS\" (id varchar(40), \"Email\" text, image_url text)|, and add the columns name, created_at, updated_at, see",
        "\"user\" (id char(40), email int) PARTITION BY LIST (id); CREATE TABLE rest PARTITION OF \"user\" DEFAULT|, and add",
      })
  void fullTableUserThatLacksColumnsIsNotOverlooked(String table, String advice) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(
        database,
        "CREATE TABLE %s; INSERT INTO %s (id) VALUES ('user_old')"
            .formatted(table, table.substring(0, table.indexOf('(') - 1)));

    String message = refusal(database);
    assertTrue(message.contains("rename it first" + advice), message);
    assertTrue(message.contains(CHAPTER), message);
    assertEquals(List.of("null"), TestPostgres.query(database, "SELECT to_regclass('users')"));
  }

  /** 1.0.0 has made the empty table beside it already. */
  @Test
  void emptyTableBesideAFullOneIsNoticedLater() {
    String database = TestPostgres.newDatabase();
    TestPostgres.execute(
        database,
        "UPDATE real_meet_server_migrations SET checksum = 1412849516 WHERE version = '1'");
    TestPostgres.execute(database, camel("\"User\"") + ROW.formatted("\"User\""));

    assertTrue(refusal(database).contains(CHAPTER));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "CREATE TABLE \"User\" (id text PRIMARY KEY, name text); INSERT INTO \"User\" VALUES ('1')",
        "CREATE TABLE \"user\" (id uuid, email text, name text, \"imageUrl\" text,"
            + " \"createdAt\" date, \"updatedAt\" date);"
            + " INSERT INTO \"user\" VALUES (gen_random_uuid())",
        "CREATE TABLE \"User\" (id text, email text, name text, \"imageUrl\" text,"
            + " \"createdAt\" date, \"updatedAt\" date)",
        // of another library for signing in
        "CREATE TABLE \"user\" (id text, name text, email text, \"emailVerified\" boolean,"
            + " image text, \"createdAt\" timestamp, \"updatedAt\" timestamp);"
            + " INSERT INTO \"user\" VALUES ('V1StGXR8Z5jdHi6BmyT2'), ('username')",
        "CREATE SCHEMA other; CREATE TABLE other.\"User\" (id text, email text, name text,"
            + " image_url text, created_at date, updated_at date);"
            + " INSERT INTO other.\"User\" VALUES ('1')",
        "CREATE TABLE users (id text PRIMARY KEY, email text, name text, image_url text,"
            + " created_at timestamptz, updated_at timestamptz); INSERT INTO users VALUES ('1');"
            + " CREATE TABLE \"User\" AS SELECT * FROM users"
      })
  void otherTablesBlockNothing(String tables) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, tables);

    assertEquals(0, migrate(database));
  }

  @Test
  void tableWithPrismasColumnNamesIsNamed() {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, camel("users"));

    String message = refusal(database);
    assertTrue(message.contains("rename them first"), message);
    assertTrue(message.contains(CHAPTER), message);
  }

  @Test
  void viewNamedUsersIsRefused() {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, snake("people") + "CREATE VIEW users AS SELECT * FROM people");

    String message = refusal(database);
    assertTrue(message.contains("that is not the Node server's"), message);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "CREATE VIEW recent AS SELECT id, created_at FROM users;view recent",
        "CREATE MATERIALIZED VIEW recent AS SELECT updated_at FROM users;view recent",
        "CREATE RULE stamp AS ON UPDATE TO users WHERE OLD.updated_at > NEW.updated_at"
            + " DO INSTEAD NOTHING;rule stamp",
        "ALTER TABLE users ADD COLUMN day date"
            + " GENERATED ALWAYS AS (created_at::date) STORED;generated column",
        "CREATE POLICY fresh ON users USING (created_at > '2020-01-01');policy",
        "CREATE INDEX by_day ON users (date(created_at));IMMUTABLE"
      })
  void whatDependsOnATimeIsNamed(String dependent, String name) {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, snake("users") + ROW.formatted("users") + ";" + dependent);

    String message = refusalOfTheCommand(database);
    assertTrue(message.contains("cannot become timestamptz"), message);
    assertTrue(message.contains(name), message);
    assertTrue(message.contains(CHAPTER), message);
    assertEquals(
        List.of("timestamp without time zone"),
        TestPostgres.query(
            database,
            "SELECT data_type FROM information_schema.columns"
                + " WHERE table_name = 'users' AND column_name = 'created_at'"));
  }

  @Test
  void timeZoneOtherThanUtcIsNamed() {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, snake("users") + ROW.formatted("users"));
    String name = TestPostgres.query(database, "SELECT current_database()").get(0);
    TestPostgres.execute(database, "ALTER DATABASE " + name + " SET timezone = 'America/New_York'");

    Migrations.migrate(DatabaseUrl.parse(database));

    assertTrue(
        Log.text()
            .contains("sessions have the time zone America/New_York and not UTC, run ALTER ROLE"),
        Log.text());
    assertTrue(Log.text().contains("SET timezone = 'UTC'"), Log.text());
    assertEquals(
        List.of("2025-01-02 03:04:05.678"),
        TestPostgres.query(database, "SELECT created_at AT TIME ZONE 'UTC' FROM users"));
  }

  @Test
  void timeZoneDoesNotMatterWithoutATableOfPrismas() {
    String database = TestPostgres.emptyDatabase();
    String name = TestPostgres.query(database, "SELECT current_database()").get(0);
    TestPostgres.execute(database, "ALTER DATABASE " + name + " SET timezone = 'America/New_York'");

    Migrations.migrate(DatabaseUrl.parse(database));

    assertFalse(Log.text().contains("time zone"), Log.text());
  }

  @Test
  void timeZoneOfTheRoleComesBeforeTheDatabases() {
    String database = TestPostgres.emptyDatabase();
    String name = TestPostgres.query(database, "SELECT current_database()").get(0);
    TestPostgres.execute(database, snake("users") + ROW.formatted("users"));
    TestPostgres.execute(
        database,
        "ALTER DATABASE %1$s SET timezone = 'Asia/Tokyo'; ALTER ROLE CURRENT_USER IN DATABASE %1$s SET timezone = 'GMT'"
            .formatted(name));

    Migrations.migrate(DatabaseUrl.parse(database));

    assertFalse(Log.text().contains("time zone"), Log.text());
  }

  /** An application's schema is migrated as the public one is. */
  @Test
  void viewInTheSchemaOfTheUrlIsNamedToo() {
    String database = TestPostgres.emptyDatabase();
    String url = withSchema(database);
    TestPostgres.execute(
        database,
        snake("app.users") + "CREATE VIEW app.recent AS SELECT created_at FROM app.users");

    String message = refusal(url);
    assertTrue(message.contains("view recent"), message);
  }

  /** Prisma's {@code email String?}. */
  @Test
  void rowWithoutAnAddressGetsClerksAtItsNextSync() {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(
        database,
        """
        CREATE TABLE users (
          id text PRIMARY KEY,
          email text UNIQUE,
          name text,
          image_url text,
          created_at timestamp(3) NOT NULL DEFAULT now(),
          updated_at timestamp(3) NOT NULL DEFAULT now());
        INSERT INTO users (id) VALUES ('user_none'), ('user_late');
        """);
    try (StandInClerk clerk = new StandInClerk();
        TestServer server = TestServer.start(clerk, database)) {
      clerk.putUser("user_none", null, "No", "Address");
      clerk.putUser("user_late", "late@example.com", "Late", null);

      assertEquals(422, server.sync(clerk.token("user_none")).statusCode());
      assertEquals(
          "late@example.com", TestServer.data(server.sync(clerk.token("user_late")), "email"));
    }
  }
}
