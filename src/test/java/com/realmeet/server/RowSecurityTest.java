package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.example.ExampleApplication;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Tables in a database like Supabase's, where a public API's roles may use every new table. */
@Order(Integer.MAX_VALUE) // the roles that it creates persist, and make migrations slower
class RowSecurityTest {
  /** A role without any right of its own, for a server with the least privileges. */
  private static final String APP = "real_meet_app_" + ProcessHandle.current().pid();

  private static final String DEFAULTS =
      """
      ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated;
      ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated;
      ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated;
      """;

  private static final String APP_RIGHTS =
      "GRANT SELECT, INSERT, UPDATE ON users TO %1$s;"
          + " GRANT SELECT ON real_meet_server_migrations TO %1$s";

  private static StandInClerk clerk;

  /** One like Supabase's that is migrated; tests change copies of it. */
  private static String migrated;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    clerk.putUser("user_new", "new@example.com", "New", null);
    String empty = TestPostgres.emptyDatabase();
    TestPostgres.createPublicApiRoles(empty);
    TestPostgres.execute(empty, "CREATE ROLE " + APP + " LOGIN PASSWORD 'app'");
    migrated = supabase();
    Migrations.migrate(DatabaseUrl.parse(migrated));
  }

  @AfterAll
  static void stop() {
    clerk.close();
  }

  private static String supabase() {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, DEFAULTS);
    return database;
  }

  private static String asApp(String database) {
    return database.replaceFirst("://[^@]*@", "://" + APP + ":app@");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "1.0.0.sql", "1.0.0-prisma.sql"})
  void rolesOfThePublicApiHaveNoRights(String dump) throws Exception {
    String database = supabase();
    if (!dump.isEmpty()) {
      TestPostgres.execute(database, RepeatedMigrationTest.read(dump));
      assertTrue(can(database, "anon", "DELETE FROM users WHERE false"));
    }

    try (TestServer server = TestServer.start(clerk, database)) {
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }
    assertClosed(database);
    assertEquals(List.of(), TestPostgres.query(database, "SELECT polname FROM pg_policy"));
    assertEquals(
        List.of("f|f"),
        TestPostgres.query(
            database,
            """
            SELECT has_function_privilege('anon', 'real_meet_server_users_updated_at()', 'EXECUTE'),
              has_function_privilege('authenticated', 'real_meet_server_users_updated_at()', 'EXECUTE')
            """));
  }

  /** The lock's transaction secures the history table, which Flyway makes after it has begun. */
  @Test
  void historyIsClosedWhereTransactionsAreSerializable() throws SQLException {
    String database = supabase();
    TestPostgres.execute(
        database,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable',"
            + " current_database()); END $$");

    Migrations.migrate(DatabaseUrl.parse(database));

    assertClosed(database);
  }

  /** A dump of another host is restored with Supabase's default privileges. */
  @Test
  void restoredTablesAreClosedAtTheNextStart() throws SQLException {
    String database = TestPostgres.copyOf(migrated);
    TestPostgres.execute(
        database,
        """
        ALTER TABLE users DISABLE ROW LEVEL SECURITY;
        ALTER TABLE real_meet_server_migrations DISABLE ROW LEVEL SECURITY;
        GRANT ALL ON users, real_meet_server_migrations TO anon, authenticated;
        """);

    Migrations.migrate(DatabaseUrl.parse(database));

    assertClosed(database);
  }

  @Test
  void laterGrantsAndPoliciesOfTheApplicationStand() throws SQLException {
    String database = supabase();
    TestPostgres.execute(
        database,
        """
        CREATE TABLE users (id text PRIMARY KEY, email text NOT NULL, name text, image_url text,
          created_at timestamp(3) NOT NULL, updated_at timestamp(3) NOT NULL);
        ALTER TABLE users ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own_row ON users TO authenticated USING (id = 'user_new');
        """);
    try (TestServer server = TestServer.start(clerk, database)) {
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }
    assertClosed(database);
    TestPostgres.execute(
        database,
        "INSERT INTO users (id, email) VALUES ('user_2', '2@example.com');"
            + " GRANT SELECT ON users TO authenticated");

    Migrations.migrate(DatabaseUrl.parse(database));

    assertTrue(can(database, "authenticated", "SELECT 1 / (count(*) = 1)::int FROM users"));
    assertEquals(List.of("own_row"), TestPostgres.query(database, "SELECT polname FROM pg_policy"));
  }

  @Test
  void laterGrantsStandAfterTheHistoryIsLost() throws SQLException {
    String database = TestPostgres.copyOf(migrated);
    TestPostgres.execute(
        database,
        """
        GRANT SELECT (id, name) ON users TO authenticated;
        CREATE POLICY own_row ON users FOR SELECT TO authenticated USING (id = 'user_2');
        INSERT INTO users (id, email) VALUES ('user_1', '1@example.com'), ('user_2', '2@example.com');
        DROP TABLE real_meet_server_migrations;
        """);

    Migrations.migrate(DatabaseUrl.parse(database));

    assertTrue(can(database, "authenticated", "SELECT 1 / (count(id) = 1)::int FROM users"));
    assertFalse(can(database, "anon", "SELECT id FROM users"));
    assertFalse(can(database, "authenticated", "SELECT FROM real_meet_server_migrations"));
  }

  /** The grants that the README names for a role that serves. */
  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void roleWithTheLeastPrivilegesServes(boolean migratesItself) throws SQLException {
    String database = TestPostgres.copyOf(migrated);
    TestPostgres.execute(database, APP_RIGHTS.formatted(APP));
    Migrations.migrate(DatabaseUrl.parse(database));

    try (TestServer server =
        TestServer.start(
            clerk, asApp(database), "DIRECT_URL", migratesItself ? asApp(database) : database)) {
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }
    assertEquals(List.of("user_new"), TestPostgres.query(database, "SELECT id FROM users"));
    assertClosed(database);
  }

  /** The statements that the README names for tables to come, after the first start. */
  @Test
  void roleWithDefaultPrivilegesServesOwnTablesFromTheirFirstStart() throws Exception {
    String database = TestPostgres.copyOf(migrated);
    TestPostgres.execute(database, APP_RIGHTS.formatted(APP));
    Matcher statements =
        Pattern.compile("`(ALTER DEFAULT PRIVILEGES [^`]+)`")
            .matcher(Files.readString(Path.of("README.md")));
    assertTrue(statements.find());
    TestPostgres.execute(database, statements.group(1).replace(" TO app", " TO " + APP));

    try (TestServer server =
        TestServer.start(
            new ExampleApplication(), clerk, asApp(database), "DIRECT_URL", database)) {
      String meeting = "{\"title\":\"Lunch\",\"startsAt\":\"2026-02-09T16:00:00Z\"}";
      assertEquals(
          201, server.post(clerk.token("user_new"), "/api/meetings", meeting).statusCode());
    }
    assertEquals(
        List.of("t|t|f"),
        TestPostgres.query(
            asApp(database),
            """
            SELECT has_sequence_privilege('meetings_id_seq', 'USAGE'),
              (SELECT count(*) FROM meetings) = 1 AND has_table_privilege('participants', 'DELETE'),
              has_table_privilege('users', 'DELETE')
                OR has_table_privilege('real_meet_server_migrations', 'UPDATE, DELETE')
            """));
    assertClosed(database);
  }

  @Test
  void roleWithoutPoliciesIsToldWhich() {
    String database = TestPostgres.copyOf(migrated);
    TestPostgres.execute(database, APP_RIGHTS.formatted(APP));

    StartupException failure =
        assertThrows(StartupException.class, () -> TestServer.start(clerk, asApp(database)));

    for (String table : List.of("users", "real_meet_server_migrations")) {
      assertTrue(
          failure
              .getMessage()
              .contains("CREATE POLICY real_meet_server ON " + table + " TO " + APP),
          failure.getMessage());
    }
  }

  /** Roles that could read before row level security came still can. */
  @Test
  void rolesWithRightsOfTheirOwnGoOnReading() throws Exception {
    String database = supabase();
    TestPostgres.execute(database, RepeatedMigrationTest.read("1.0.0.sql"));
    TestPostgres.execute(database, "GRANT SELECT (id, name) ON users TO " + APP);

    Migrations.migrate(DatabaseUrl.parse(database));

    assertEquals(List.of("3"), TestPostgres.query(asApp(database), "SELECT count(id) FROM users"));
    assertClosed(database);
  }

  /** Supabase warns of such tables: policy exists, RLS disabled. */
  @Test
  void policiesWithoutEffectHideNoRowsOnceTheyHaveOne() throws Exception {
    String database = supabase();
    TestPostgres.execute(database, RepeatedMigrationTest.read("1.0.0.sql"));
    TestPostgres.execute(database, "GRANT SELECT, INSERT, UPDATE ON users TO " + APP);
    TestPostgres.execute(
        database,
        "CREATE POLICY own_row ON users FOR SELECT"
            + " USING (current_setting('request.jwt.claims', true)::json->>'sub' = id)");

    Migrations.migrate(DatabaseUrl.parse(database));

    assertEquals(List.of("3"), TestPostgres.query(asApp(database), "SELECT count(*) FROM users"));
    assertClosed(database);
  }

  @Test
  void rolesStayInThePolicyWhenAnotherOneComes() throws Exception {
    String reader = APP + "_metabase";
    String database = supabase();
    TestPostgres.execute(database, RepeatedMigrationTest.read("1.0.0.sql"));
    TestPostgres.execute(
        database, "CREATE ROLE %1$s; GRANT SELECT ON users TO %1$s".formatted(reader));
    Migrations.migrate(DatabaseUrl.parse(database));
    TestPostgres.execute(database, "GRANT SELECT, INSERT, UPDATE ON users TO " + APP);

    Migrations.migrate(DatabaseUrl.parse(database));

    for (String role : List.of(reader, APP)) {
      assertTrue(can(database, role, "SELECT 1 / (count(*) = 3)::int FROM users"), role);
    }
  }

  @Test
  void rolesOfThePublicApiSeeNoRowsByTheRightsOfAnother() throws Exception {
    String reader = APP + "_reader";
    String database = supabase();
    TestPostgres.execute(database, RepeatedMigrationTest.read("1.0.0.sql"));
    TestPostgres.execute(
        database, "CREATE ROLE %1$s; GRANT SELECT ON users TO %1$s".formatted(reader));
    TestPostgres.execute(database, "GRANT %s TO anon".formatted(reader));
    try {
      Migrations.migrate(DatabaseUrl.parse(database));

      assertTrue(can(database, "anon", "SELECT 1 / (count(*) = 0)::int FROM users"));
    } finally {
      TestPostgres.execute(database, "REVOKE %s FROM anon".formatted(reader));
    }
  }

  @Test
  void tablesOfATeamsOwnMigrationAreClosedToo(@TempDir Path directory) throws Exception {
    String database = supabase();
    TestPostgres.execute(database, "CREATE TABLE old (id int)");
    Files.writeString(
        directory.resolve("afterMigrate.sql"), "CREATE TABLE IF NOT EXISTS public.late (id int)");
    Files.writeString(
        directory.resolve("afterEachMigrate.sql"),
        "CREATE TABLE IF NOT EXISTS public.later (id int)");
    migrateWith(
        directory,
        database,
        """
        CREATE TABLE meetings (id bigserial PRIMARY KEY, host text NOT NULL REFERENCES users (id));
        CREATE VIEW hosts AS SELECT email FROM users;
        CREATE TABLE notes (id serial PRIMARY KEY, note text);
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everybody ON notes TO authenticated WITH CHECK (true);
        ALTER TABLE old ADD COLUMN name text;
        INSERT INTO old VALUES (1, '${text}');
        CREATE SCHEMA other;
        GRANT USAGE ON SCHEMA other TO anon, authenticated;
        CREATE TABLE other.notes (id int);
        GRANT ALL ON other.notes TO anon, authenticated;
        -- as in each file of pg_dump
        SELECT set_config('search_path', '', false);
        CREATE TABLE public.dumped (id int);
        """);

    try (Connection connection = connect(database)) {
      for (String role : List.of("anon", "authenticated")) {
        assertDenied(connection, role, "SELECT FROM meetings");
        assertDenied(connection, role, "SELECT FROM hosts");
        assertDenied(connection, role, "SELECT nextval('meetings_id_seq')");
        assertDenied(connection, role, "SELECT FROM other.notes");
        assertDenied(connection, role, "SELECT FROM dumped");
        assertDenied(connection, role, "SELECT FROM late");
        assertDenied(connection, role, "SELECT FROM later");
        assertTrue(can(connection, role, "SELECT FROM old"));
      }
      assertTrue(can(connection, "authenticated", "INSERT INTO notes (note) VALUES ('new')"));
    }
    assertEquals(
        List.of(
            "meetings|t|f", "notes|t|f", "old|f|f", "real_meet_server_migrations|t|f", "users|t|f"),
        TestPostgres.query(
            database,
            """
            SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
            WHERE relname IN ('meetings', 'notes', 'old', 'real_meet_server_migrations', 'users')
              AND relnamespace = 'public'::regnamespace
            ORDER BY 1
            """));
  }

  @Test
  void tablesAreClosedThoughTheNextMigrationFails(@TempDir Path directory) throws Exception {
    String database = supabase();
    Files.writeString(directory.resolve("V1003__fails.sql"), "SELECT 1 / 0");

    assertThrows(
        StartupException.class,
        () -> migrateWith(directory, database, "CREATE TABLE meetings (id int)"));

    assertFalse(can(database, "anon", "SELECT FROM meetings"));
    assertEquals(List.of("0"), TestPostgres.query(database, "SELECT count(*) FROM meetings"));
  }

  @Test
  void unqualifiedTablesOfATeamsMigrationAreInTheSchemaOfTheUrl(@TempDir Path directory)
      throws Exception {
    String database = TestPostgres.emptyDatabase();
    TestPostgres.execute(database, "CREATE TABLE users (id int); CREATE TABLE meetings (id int)");
    migrateWith(
        directory,
        database + (database.contains("?") ? "&" : "?") + "schema=My-App",
        "CREATE TABLE meetings (id bigserial PRIMARY KEY, host text NOT NULL REFERENCES users (id))");

    assertEquals(
        List.of("users|\"My-App\".users"),
        TestPostgres.query(
            database,
            """
            SELECT c.relname, confrelid::regclass
            FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid
            WHERE f.conrelid = '"My-App".meetings'::regclass AND f.contype = 'f'
            """));
  }

  /** Migrates with one more file in db/migration. */
  private static void migrateWith(Path directory, String database, String sql) throws Exception {
    Files.writeString(directory.resolve("V1002__create_notes.sql"), sql);
    Migrations.migrate(DatabaseUrl.parse(database), "filesystem:" + directory);
  }

  /** Runs all statements on one connection, since opening one is expensive. */
  private static void assertClosed(String database) throws SQLException {
    try (Connection connection = connect(database)) {
      for (String role : List.of("anon", "authenticated")) {
        for (String table : List.of("users", "real_meet_server_migrations")) {
          assertDenied(connection, role, "SELECT count(*) FROM " + table);
          assertDenied(connection, role, "DELETE FROM " + table);
          assertDenied(connection, role, "TRUNCATE " + table);
        }
      }
      assertEquals(
          List.of("real_meet_server_migrations|t|f", "users|t|f"),
          TestPostgres.query(
              database,
              """
              SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
              WHERE relname IN ('users', 'real_meet_server_migrations') ORDER BY 1
              """));
      // Should rights be given by mistake, the rows are still hidden.
      TestPostgres.execute(database, "GRANT SELECT ON real_meet_server_migrations TO anon");
      assertTrue(
          can(
              connection,
              "anon",
              "SELECT 1 / (count(*) = 0)::int FROM real_meet_server_migrations"));
      TestPostgres.execute(database, "REVOKE SELECT ON real_meet_server_migrations FROM anon");
    }
  }

  private static void assertDenied(Connection connection, String role, String sql) {
    SQLException denied = assertThrows(SQLException.class, () -> as(role, connection, sql), sql);
    assertEquals("42501", denied.getSQLState(), sql);
  }

  private static boolean can(String database, String role, String sql) throws SQLException {
    try (Connection connection = connect(database)) {
      return can(connection, role, sql);
    }
  }

  private static boolean can(Connection connection, String role, String sql) {
    try {
      as(role, connection, sql);
      return true;
    } catch (SQLException e) {
      return false;
    }
  }

  private static Connection connect(String database) throws SQLException {
    return DatabaseUrl.parse(database).dataSource(30).getConnection();
  }

  private static void as(String role, Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.execute("SET ROLE " + role);
      statement.execute(sql);
    }
  }
}
