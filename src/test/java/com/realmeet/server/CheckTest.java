package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.testing.FaultyClerk;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import com.realmeet.server.testing.TcpProxy;
import com.realmeet.server.testing.TestPgBouncer;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The command {@code check}: each line that it can print, provoked. */
@Order(Integer.MAX_VALUE) // the roles that it creates persist, and make migrations slower
class CheckTest {
  private static final String APP = "check_app_" + ProcessHandle.current().pid();
  private static final String WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  private static final String THREE_USERS =
      "INSERT INTO users (id, email) SELECT 'user_' || i, 'u' || i || '@example.com' FROM generate_series(0, 2) i;";

  private static final String PRISMA =
      """
      CREATE TABLE "User" (id text PRIMARY KEY, email text NOT NULL, name text, "imageUrl" text,
        "createdAt" timestamp(3) NOT NULL DEFAULT now(), "updatedAt" timestamp(3) NOT NULL DEFAULT now());
      INSERT INTO "User" VALUES ('user_old', 'old@example.com')
      """;

  private static final String NO_RLS =
      "ALTER TABLE users DISABLE ROW LEVEL SECURITY;"
          + " ALTER TABLE real_meet_server_migrations DISABLE ROW LEVEL SECURITY; ";

  private static final String RLS = "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ";

  private static final String HISTORY_99 =
      """
      INSERT INTO real_meet_server_migrations
      SELECT 99, '99', 'later', 'SQL', 'V99__later.sql', 1, 'test', now(), 1, %s
      """;

  private static StandInClerk clerk;

  /** Migrated and without rows; no test changes it. */
  private static String database;

  private int exitCode;
  private String printed = "";

  @BeforeAll
  static void start() {
    clerk = new StandInClerk(0, SigningKey.usual(), "sk_live_stand_in");
    database = TestPostgres.newDatabase();
    TestPostgres.execute(database, "CREATE ROLE " + APP + " LOGIN PASSWORD 'app'");
    TestPostgres.createPublicApiRoles(database);
  }

  @AfterEach
  void nothingSecretIsPrinted() {
    Log.assertNoSecret(printed);
    assertTrue(!printed.contains("@example.com"), printed);
    clerk.users().clear();
  }

  @AfterAll
  static void stop() {
    clerk.close();
  }

  private static Map<String, String> settings(String... changes) {
    Map<String, String> settings = TestServer.settings(clerk, database);
    settings.put("CLERK_WEBHOOK_SIGNING_SECRET", WEBHOOK_SECRET);
    for (int i = 0; i < changes.length; i += 2) {
      settings.put(changes[i], changes[i + 1]);
    }
    return settings;
  }

  /** Runs the command; its lines, without the spaces between their columns. */
  private List<String> check(String... changes) {
    return run(false, settings(changes));
  }

  /** With more time than a person would have, for a machine that is busy with other tests. */
  private List<String> run(boolean json, Map<String, String> settings) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    PrintStream out = new PrintStream(bytes, true, StandardCharsets.UTF_8);
    exitCode = Check.run(() -> Config.from(settings), json, Duration.ofMinutes(1), out);
    printed = bytes.toString(StandardCharsets.UTF_8);
    return printed.lines().map(line -> line.replaceAll(" {2,}", " ")).toList();
  }

  /**
   * Checks that a line is there, and that the exit code is that of the worst line.
   *
   * @param line its beginning; % stands for anything, such as migrations of a team's own
   */
  private void assertLine(String line, List<String> lines) {
    String pattern = Pattern.quote(line).replace("%", "\\E.*\\Q") + ".*";
    assertTrue(lines.stream().anyMatch(each -> each.matches(pattern)), () -> line + "\n" + printed);
    boolean fails = lines.stream().anyMatch(each -> each.startsWith("fail "));
    assertEquals(fails ? 1 : 0, exitCode, printed);
  }

  private static String asApp(String database) {
    return database.replaceFirst("://[^@]*@", "://" + APP + ":app@");
  }

  // All together

  @Test
  void serverThatIsSetUpWellHasNothingButOks() {
    String full = TestPostgres.newDatabase();
    TestPostgres.execute(full, THREE_USERS);
    IntStream.range(0, 3).forEach(i -> clerk.putUser("user_" + i, null, null, null));

    List<String> lines = check("DATABASE_URL", full, "METRICS_PORT", "0");

    List<String> expected =
        List.of(
            "ok java Java \\d+.*",
            "warn memory the heap may grow to \\d+ MB here, a part of the machine's memory: .*", // Maven's
            "ok settings all can be used",
            "ok webhook events are verified by CLERK_WEBHOOK_SIGNING_SECRET",
            "ok port a free port is looked for",
            "ok metrics a free port is looked for",
            "ok database 127.0.0.1:\\d+/\\w+ responds, Postgres \\d+.*",
            "ok pooler DATABASE_URL leads straight to Postgres",
            "ok migrations the table is at version \\S+, which is this server's",
            "ok rights the role of DATABASE_URL may read and write users",
            "ok row security the public API's roles anon and authenticated cannot see tables of this server",
            "ok time zone sessions have UTC",
            "ok table the table users is there",
            "ok rows 3 users, 0 tombstones of deleted ones",
            "ok placeholders every user has an address",
            "ok addresses no two users have the same address in different case",
            "ok clerk Clerk accepts CLERK_SECRET_KEY, of the production instance ins_1",
            "ok keys tokens are verified with the keys that Clerk publishes",
            "ok clock this machine's clock and Clerk's are the same to 5 s",
            "ok instance CLERK_SECRET_KEY is of the instance of the rows",
            "ok users Clerk has 3 users, the table 3");
    assertEquals(expected.size(), lines.size(), printed);
    for (int i = 0; i < lines.size(); i++) {
      assertTrue(lines.get(i).matches(expected.get(i)), lines.get(i));
    }
    assertEquals(0, exitCode);
    assertEquals("", Log.text().replaceFirst("(?s)^----.*?\n", ""));
  }

  @Test
  void jsonHasTheSameLines() throws IOException {
    List<String> lines = check("CLERK_SECRET_KEY", "sk_live_other");
    assertEquals(1, exitCode);

    run(true, settings("CLERK_SECRET_KEY", "sk_live_other"));

    assertEquals(1, exitCode);
    JsonNode report = new JsonMapper().readTree(printed);
    assertEquals("fail", report.path("level").asText());
    List<String> same = new ArrayList<>();
    report
        .path("lines")
        .forEach(
            line ->
                same.add(
                    "%s %s %s"
                        .formatted(
                            line.path("level").asText(),
                            line.path("subject").asText(),
                            line.path("sentence").asText())));
    assertEquals(lines, same);
  }

  @Test
  void wrongSettingsAreAListAndCodeTwo() {
    List<String> lines = check("CLIENT_URL", "*", "DATABASE_POOL_SIZE", "0");

    assertEquals(2, exitCode);
    assertEquals(5, lines.size(), printed);
    assertTrue(lines.get(2).startsWith("fail settings CLIENT_URL must be "), printed);
    assertTrue(lines.get(3).startsWith("fail settings DATABASE_POOL_SIZE must be "), printed);
    assertEquals(
        "warn settings everything else is looked at once the settings can be used", lines.get(4));
  }

  @Test
  void nothingIsMadeInAnEmptyDatabase() {
    String empty = TestPostgres.emptyDatabase();

    List<String> lines = check("DATABASE_URL", empty);

    assertLine("warn migrations none has run yet, 1, 2% must run: the next start does so", lines);
    assertLine("warn table there is no table users that the role of DATABASE_URL can see: ", lines);
    assertEquals(
        List.of(),
        TestPostgres.query(
            empty, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"));
    assertEquals(0, exitCode);
  }

  @Test
  void checkBesideAServerSaysThatItsPortIsInUse() {
    try (TestServer server = TestServer.start(clerk, database)) {
      String port = String.valueOf(server.port());
      assertLine(
          "warn port port " + port + " is in use: by this server if it runs, else see PORT",
          check("PORT", port));
      assertEquals(0, exitCode);
    }
  }

  // Settings and this machine

  @Test
  void portsThatCannotBeHadAreTold() throws IOException {
    try (ServerSocket other = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"))) {
      String port = String.valueOf(other.getLocalPort());
      assertLine(
          "warn metrics port "
              + port
              + " is in use: by this server if it runs, else see METRICS_PORT",
          check("METRICS_PORT", port));
    }
    assertLine(
        "fail port Cannot listen on 192.0.2.1:0, see PORT and HOST: ", check("HOST", "192.0.2.1"));
    assertLine(
        "fail metrics Cannot listen on 192.0.2.1:0, see METRICS_PORT and HOST: ",
        check("HOST", "192.0.2.1", "METRICS_PORT", "0"));
  }

  @ParameterizedTest
  @CsvSource({
    "DATABASE_URL, &solar=1, 'warn settings DATABASE_URL: '",
    "NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY, pk_test_x, 'warn settings NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY and CLERK_SECRET_KEY are of two Clerk instances'",
    "CLERK_SECRET_KEY, the development key, 'warn settings NODE_ENV is production, but CLERK_SECRET_KEY is of a development instance'",
    "CLERK_FIELDS, 'username,private_metadata', 'warn settings CLERK_FIELDS keeps private_metadata'",
    "CLERK_WEBHOOK_SIGNING_SECRET, '', 'warn webhook CLERK_WEBHOOK_SIGNING_SECRET is not set, so changes at Clerk come with '"
  })
  void settingsThatAreOddAreTold(String name, String value, String line) {
    String set =
        value.startsWith("&")
            ? database + "?application_name=x" + value
            : value.replace("the development key", StandInClerk.SECRET_KEY);

    List<String> lines = check(name, set);

    assertLine(line, lines);
  }

  // Postgres

  private record Row(String line, String sql) {
    @Override
    public String toString() {
      return line;
    }
  }

  /** Each list is for one database; states that fail are not with others, whose code is 0. */
  static List<List<Row>> states() {
    return List.of(
        List.of(
            new Row(
                "ok rows 3 users, 1 tombstones of deleted ones",
                THREE_USERS
                    + "INSERT INTO users (id, email, deleted_at) VALUES ('user_g', 'g@deleted.invalid', now())"),
            new Row(
                "warn table beside users there is a table \"User\" with rows, as Prisma makes it",
                PRISMA),
            new Row(
                "warn migrations the table is at version %, 1 must run: ",
                "UPDATE real_meet_server_migrations SET checksum = 1412849516 WHERE version = '1'"),
            new Row(
                "warn row security people who are not signed in have rights that somebody gave them (anon on users by the policy everybody)",
                RLS
                    + "GRANT SELECT ON users TO anon; CREATE POLICY everybody ON users USING (true)"),
            new Row(
                "warn time zone sessions have the time zone Europe/Berlin and not UTC, run ALTER ROLE ",
                alterDatabase("timezone = \"Europe/Berlin\""))),
        List.of(
            new Row(
                "warn placeholders users without an address, since another one has taken it over: 2, such as user_0; ",
                THREE_USERS
                    + "UPDATE users SET email = id || '@moved.invalid' WHERE id != 'user_1'"),
            new Row(
                "ok table the table users is there",
                PRISMA
                    + "; ALTER TABLE \"User\" DROP COLUMN name; UPDATE \"User\" SET id = 'username'"),
            new Row(
                "warn migrations the table is at version 1, 2% must run: the next start does so, or make migrate",
                "DELETE FROM real_meet_server_migrations WHERE version != '1'"),
            new Row(
                "ok row security rights that somebody gave the public API: authenticated on users by the policy own_row",
                RLS
                    + "GRANT SELECT ON users TO authenticated;"
                    + " CREATE POLICY own_row ON users TO authenticated USING (id = 'user_1')")),
        List.of(
            new Row(
                "warn addresses users whose addresses differ only in case: 1 times, such as user_0 and user_9; ",
                THREE_USERS + "INSERT INTO users (id, email) VALUES ('user_9', 'U0@Example.com')"),
            new Row(
                "ok table the table users is there",
                "CREATE TABLE \"User\" (id int); INSERT INTO \"User\" VALUES (1)"),
            new Row(
                "warn migrations the table is at version %, this server does not have 99: a newer release",
                HISTORY_99.formatted("true")),
            new Row(
                "ok row security the public API's roles anon and authenticated cannot see tables of this server",
                RLS + "GRANT SELECT ON users TO anon"),
            new Row(
                "warn database 127.0.0.1:%, on which this server is not tested: use 14 or later",
                """
                CREATE FUNCTION current_setting(name text) RETURNS text LANGUAGE sql AS $$
                  SELECT CASE name WHEN 'server_version_num' THEN '130014' ELSE pg_catalog.current_setting(name) END
                $$;
                """
                    + alterDatabase("search_path = public, pg_catalog"))),
        List.of(
            new Row(
                "fail migrations migration 2 has run with another text (checksum mismatch): restore its file and add",
                "UPDATE real_meet_server_migrations SET checksum = 7 WHERE version = '2'"),
            new Row(
                "fail row security whoever has the public key of the project can use tables of this server (anon on users)",
                "GRANT SELECT ON users TO anon; ALTER TABLE users DISABLE ROW LEVEL SECURITY"),
            new Row(
                "fail database 127.0.0.1:%, but it is read-only, a standby for example: ",
                alterDatabase("default_transaction_read_only = on"))),
        List.of(
            new Row(
                "fail table the Node server's users are in the table \"User\": rename it first, see the"
                    + " chapter \"Moving from the Node server\" of the README, or, to keep it as it is,"
                    + " name another schema in DATABASE_URL",
                PRISMA + "; DROP TABLE users CASCADE"),
            new Row(
                "fail migrations migration 99 stopped half way: drop what it left, such as an invalid index, mend what made it fail, then run DELETE FROM real_meet_server_migrations WHERE NOT success",
                HISTORY_99.formatted("false")),
            new Row(
                "fail row security whoever has the public key of the project can use tables of this server (authenticated on real_meet_server_migrations)",
                "GRANT DELETE ON real_meet_server_migrations TO authenticated;"
                    + " ALTER TABLE real_meet_server_migrations DISABLE ROW LEVEL SECURITY")),
        List.of(
            new Row(
                "fail table the Node server's users are in the table \"User\": rename it first",
                PRISMA
                    + "; DROP TABLE users CASCADE; ALTER TABLE \"User\" DROP COLUMN \"imageUrl\"")),
        List.of(
            new Row(
                "ok addresses no two users have the same address in different case",
                THREE_USERS
                    + "ALTER TABLE users ALTER COLUMN email DROP NOT NULL; UPDATE users SET email = NULL")),
        List.of(
            new Row(
                "fail rows ERROR: column \"email\" does not exist",
                "ALTER TABLE users DROP COLUMN email")),
        List.of(
            new Row(
                "warn migrations the table is at version %, 1, 2 must run: the next start does so",
                "DROP TABLE users")),
        List.of(
            new Row(
                "warn table the table users is not migrated yet",
                "ALTER TABLE users DROP COLUMN deleted_at; DROP TABLE real_meet_server_migrations")),
        List.of(
            new Row(
                "fail row security whoever has the public key of the project can use tables of this server (anon on users)",
                "GRANT SELECT (email) ON users TO PUBLIC; GRANT SELECT (email) ON users TO anon;"
                    + " REVOKE ALL ON users FROM authenticated; REVOKE SELECT (email) ON users FROM PUBLIC;"
                    + " ALTER TABLE users DISABLE ROW LEVEL SECURITY")));
  }

  @Test
  void encodingThatLacksLettersIsTold() {
    assertLine(
        "warn database 127.0.0.1:%, but has the encoding LATIN1: ",
        check("DATABASE_URL", TestPostgres.emptyDatabase("LATIN1")));
  }

  private static String alterDatabase(String setting) {
    return "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "
        + setting
        + "', current_database()); END $$";
  }

  @ParameterizedTest
  @MethodSource("states")
  void statesOfTheDatabaseAreTold(List<Row> rows) {
    String own = TestPostgres.newDatabase();
    rows.forEach(row -> TestPostgres.execute(own, row.sql));

    List<String> lines = check("DATABASE_URL", own);

    rows.forEach(row -> assertLine(row.line, lines));
  }

  @Test
  void viewsAndTablesThatAreOpenAreToldUntilTheyAreClosed() {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(
        own,
        """
        CREATE VIEW emails AS SELECT email FROM users;
        CREATE VIEW of_emails AS SELECT email FROM emails;
        CREATE MATERIALIZED VIEW saved WITH (fillfactor = 90) AS SELECT email FROM of_emails;
        CREATE VIEW closed AS SELECT email FROM users;
        CREATE SCHEMA closed;
        CREATE VIEW closed.emails AS SELECT email FROM users;
        GRANT SELECT ON emails TO anon;
        GRANT DELETE ON of_emails TO PUBLIC;
        GRANT SELECT (email) ON saved TO authenticated;
        GRANT SELECT ON closed.emails TO PUBLIC;
        CREATE TABLE rooms (id int);
        GRANT SELECT (id) ON rooms TO anon;
        """);
    boolean hasInvokers =
        TestPostgres.query(own, "SHOW server_version_num").get(0).compareTo("150000") >= 0;
    String line =
        "warn row security views lead past the row level security of users (anon on emails;"
            + " anon, authenticated, public on of_emails; authenticated on saved): unless all that they"
            + " show is for everybody, run ";
    String statements =
        (hasInvokers
                ? "ALTER VIEW emails SET (security_invoker = true);"
                    + " ALTER VIEW of_emails SET (security_invoker = true);"
                : "REVOKE ALL ON emails FROM anon;"
                    + " REVOKE ALL ON of_emails FROM anon, authenticated, public;")
            + " REVOKE ALL ON saved FROM authenticated";
    List<String> lines = check("DATABASE_URL", own);
    assertLine(line + statements, lines);
    assertLine(
        "warn row security whoever has the public key of the project can use tables without row level security (rooms): ",
        lines);

    TestPostgres.execute(own, statements + "; ALTER TABLE rooms ENABLE ROW LEVEL SECURITY");
    if (hasInvokers) { // with the rights of whoever uses it, since emails has them
      TestPostgres.execute(
          own, "CREATE VIEW more AS SELECT email FROM emails; GRANT SELECT ON more TO anon");
    }
    assertLine("ok row security ", check("DATABASE_URL", own));
  }

  @Test
  void rightsThatTheServingRoleLacksAreTold() {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(own, NO_RLS);
    String[] urls = {"DATABASE_URL", asApp(own), "DIRECT_URL", own};
    assertLine(
        "fail rights the role of DATABASE_URL lacks rights: as the owner of the table, run"
            + " GRANT SELECT, INSERT, UPDATE ON users TO "
            + APP,
        check(urls));

    TestPostgres.execute(
        own,
        "GRANT SELECT, INSERT ON users TO %s; GRANT UPDATE (id, email, name, image_url, clerk_updated_at, deleted_at) ON users TO %<s"
            .formatted(APP));
    assertLine(
        "fail rights the role of DATABASE_URL lacks rights: as the owner of the table, run"
            + " GRANT UPDATE ON users TO "
            + APP,
        check(urls));

    TestPostgres.execute(own, "GRANT UPDATE (clerk_fields) ON users TO " + APP);
    assertLine("ok rights the role of DATABASE_URL may read and write users", check(urls));

    TestPostgres.execute(
        own,
        RLS
            + "CREATE POLICY own_row ON users USING (id = 'user_1');"
            + " CREATE POLICY insert ON users FOR INSERT WITH CHECK (true)");
    String hidden =
        "fail row security row level security hides rows of the table users from the role "
            + APP
            + ": as its owner, run ";
    assertLine(
        hidden + "CREATE POLICY real_meet_server ON users TO " + APP + " USING (true)",
        check(urls));

    TestPostgres.execute(own, "CREATE POLICY real_meet_server ON users TO pg_monitor USING (true)");
    String statement =
        "ALTER POLICY real_meet_server ON users TO pg_monitor, " + APP + " USING (true)";
    assertLine(hidden + statement, check(urls));

    TestPostgres.execute(own, statement);
    assertLine("ok row security ", check(urls));
  }

  /** A policy cancels the search, as the timeout does in another library's table of many rows. */
  @Test
  void tableNamedUserThatTakesTooLongToSearchIsNotOurs() {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(
        own,
        PRISMA
            + """
            ; ALTER TABLE "User" DROP COLUMN name;
            CREATE POLICY slow ON "User" USING (CASE WHEN pg_cancel_backend(pg_backend_pid()) THEN pg_sleep(60) IS NULL END);
            ALTER TABLE "User" ENABLE ROW LEVEL SECURITY;
            GRANT SELECT ON "User" TO %s;
            """
                .formatted(APP));

    assertLine(
        "ok table the table users is there", check("DATABASE_URL", asApp(own), "DIRECT_URL", own));
  }

  @Test
  void roleWithoutTheSchemaSeesNoTable() {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(own, "REVOKE ALL ON SCHEMA public FROM PUBLIC");

    assertLine(
        "warn table there is no table users that the role of DATABASE_URL can see: ",
        check("DATABASE_URL", asApp(own), "DIRECT_URL", own));
  }

  @Test
  void roleThatMayNotMigrateIsToldOnlyWhenItHasTo() {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(
        own,
        NO_RLS
            + "GRANT SELECT, INSERT, UPDATE ON users TO %1$s; GRANT SELECT ON real_meet_server_migrations TO %1$s"
                .formatted(APP));
    assertLine("ok migrations the table is at version ", check("DATABASE_URL", asApp(own)));

    TestPostgres.execute(own, "DELETE FROM real_meet_server_migrations WHERE version != '1'");
    assertLine(
        "fail migrations the table is at version 1, 2% must run and the role of DIRECT_URL may not",
        check("DATABASE_URL", asApp(own)));

    TestPostgres.execute(own, "ALTER TABLE real_meet_server_migrations ENABLE ROW LEVEL SECURITY");
    assertLine(
        "fail migrations row level security hides rows of the table real_meet_server_migrations from the role",
        check("DATABASE_URL", asApp(own)));
    assertLine("ok row security ", check("DATABASE_URL", asApp(own), "DIRECT_URL", own));

    TestPostgres.execute(own, NO_RLS + "REVOKE ALL ON real_meet_server_migrations FROM " + APP);
    assertLine("fail migrations ", check("DATABASE_URL", asApp(own)));
  }

  @Test
  void schemaOfTheUrlIsLookedAt() {
    String own = TestPostgres.emptyDatabase();
    Migrations.migrate(DatabaseUrl.parse(own + "?schema=app"));
    TestPostgres.execute(own, "BEGIN; SET LOCAL search_path = app; " + THREE_USERS + " COMMIT");

    List<String> lines = check("DATABASE_URL", own + "?schema=app");

    assertLine("ok rows 3 users, 0 tombstones", lines);
    assertLine("ok migrations the table is at version ", lines);
    assertLine("ok rights ", lines);
    assertLine(
        "warn direct DIRECT_URL leads to the schema public, DATABASE_URL to app: add ?schema=app to DIRECT_URL",
        check("DATABASE_URL", own + "?schema=app", "DIRECT_URL", own));
    assertLine("warn migrations none has run yet", check("DATABASE_URL", own + "?schema=other"));
  }

  @Test
  void directUrlIsLookedAtToo() {
    String other = TestPostgres.newDatabase();
    assertLine(
        "warn direct DIRECT_URL leads to another database, or another server of it, than DATABASE_URL",
        check("DIRECT_URL", other));
    List<String> pooled =
        check(
            "DATABASE_URL",
            database + "?pgbouncer=true",
            "DIRECT_URL",
            asApp(database) + "?pgbouncer=true");
    assertLine("ok pooler DATABASE_URL is known to lead through a pooler", pooled);
    assertLine("warn settings DIRECT_URL: migrations go through a pooler", pooled);
    assertLine("warn direct DIRECT_URL leads through a pooler", pooled);
    assertLine(
        "ok direct migrations go straight to 127.0.0.1:",
        check("DATABASE_URL", asApp(database), "DIRECT_URL", database));
    String tls = database + (database.contains("?") ? "&" : "?") + "sslmode=require";
    assertLine("fail direct the database at 127.0.0.1:", check("DIRECT_URL", tls));
    List<String> refused =
        check("DIRECT_URL", database.replaceFirst("://[^@]*@", "://nobody_here:x@"));
    assertLine("fail direct the database at 127.0.0.1:", refused);
    assertLine("ok database ", refused);
  }

  @Test
  void poolerThatIsNotKnownIsTold() {
    Assumptions.assumeTrue(TestPgBouncer.isInstalled(), "PgBouncer is not installed");
    try (TestPgBouncer pooler = TestPgBouncer.before(database, "p")) {
      List<String> lines = check("DATABASE_URL", pooler.url, "DIRECT_URL", database);
      assertLine(
          "warn pooler DATABASE_URL leads through a pooler, which its host and port do not tell",
          lines);
      assertLine("ok rows 0 users", lines);
      assertLine("ok direct ", lines);
      assertLine("warn direct DIRECT_URL leads through a pooler", check("DIRECT_URL", pooler.url));
      assertLine("ok migrations ", check("DATABASE_URL", pooler.url));
      String denied = pooler.url + "?pgbouncer=false"; // as behind a proxy with ids of its own
      assertLine("ok pooler DATABASE_URL leads straight", check("DATABASE_URL", denied));
      assertLine("ok direct migrations go straight", check("DIRECT_URL", denied));
    }
  }

  @Test
  void databaseThatCannotBeUsedDoesNotEndTheList() {
    List<String> refused =
        check("DATABASE_URL", database.replaceFirst("://[^@]*@", "://nobody_here:x@"));
    assertLine("fail database the database at 127.0.0.1:", refused);
    assertTrue(printed.contains("refuses the login, see DATABASE_URL: "), printed);
    assertLine("ok clerk ", refused);

    List<String> down = check("DATABASE_URL", "postgresql://u:p@127.0.0.1:1/app");
    assertLine(
        "fail database the database at 127.0.0.1:1/app cannot be reached, see DATABASE_URL: nothing listens",
        down);
    assertLine("ok clock ", down);
  }

  @Test
  void listComesInTimeWhileEverythingHangs() {
    try (TcpProxy proxy = TcpProxy.before(database);
        FaultyClerk hanging = new FaultyClerk()) {
      proxy.freeze();
      hanging.put("jwks", FaultyClerk.stall(""));
      String frozen = TestPostgres.withPort(database, proxy.port());
      long start = System.nanoTime();

      List<String> lines =
          check(
              "DATABASE_URL", frozen, "DIRECT_URL", asApp(frozen), "CLERK_API_URL", hanging.url());

      assertLine("fail database the database at 127.0.0.1:", lines);
      assertLine("fail direct the database at 127.0.0.1:", lines);
      assertLine("fail clerk Clerk cannot be reached", lines);
      assertLine("ok port ", lines);
      // 10 s on a machine that is not busy
      assertTrue(Duration.ofNanos(System.nanoTime() - start).toSeconds() < 20);

      ByteArrayOutputStream cut = new ByteArrayOutputStream();
      int code =
          Check.run(
              () -> Config.from(settings("DATABASE_URL", frozen)),
              false,
              Duration.ofMillis(1),
              new PrintStream(cut, true, StandardCharsets.UTF_8));
      assertEquals(1, code);
      assertTrue(
          cut.toString(StandardCharsets.UTF_8)
              .contains("fail  database      could not be looked at to the end within 0 s: "));
    }
  }

  @Test
  void databaseThatBreaksHalfWayIsOneLine() {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(
        own,
        """
        CREATE FUNCTION current_setting(name text) RETURNS text LANGUAGE sql AS $$
          SELECT CASE WHEN name = 'server_version' THEN pg_terminate_backend(pg_backend_pid())::text
            ELSE pg_catalog.current_setting(name) END
        $$;
        """
            + alterDatabase("search_path = public, pg_catalog"));

    List<String> lines = check("DATABASE_URL", own);

    assertLine("fail database ", lines);
    assertTrue(printed.contains("57P01"), printed);
    assertTrue(lines.stream().noneMatch(line -> line.contains("pooler")), printed);
  }

  @Test
  void tableThatIsLockedIsNotWaitedFor() throws SQLException {
    String own = TestPostgres.newDatabase();
    try (Connection connection = DatabaseUrl.parse(own).dataSource(30).getConnection();
        Statement statement = connection.createStatement()) {
      connection.setAutoCommit(false);
      statement.execute("LOCK TABLE users");

      assertLine("warn rows could not be looked at in time, since", check("DATABASE_URL", own));
    }
  }

  // Clerk

  @Test
  void clerkThatCannotBeUsedDoesNotEndTheList() {
    List<String> rejected = check("CLERK_SECRET_KEY", "sk_live_other", "CLERK_JWT_KEY", pem(1));
    assertLine("fail clerk Clerk rejects CLERK_SECRET_KEY: copy it again", rejected);
    assertLine("warn keys CLERK_JWT_KEY cannot be compared with Clerk's keys", rejected);
    assertLine("ok clock ", rejected);
    assertLine("ok rows ", rejected);

    List<String> down = check("CLERK_API_URL", "http://127.0.0.1:1");
    assertLine(
        "fail clerk Clerk cannot be reached at http://127.0.0.1:1, look for a firewall", down);
    assertLine("warn clock this machine's clock cannot be compared with Clerk's", down);

    try (FaultyClerk other = new FaultyClerk()) {
      other.put("jwks", FaultyClerk.answer(404, "<html>"));
      assertLine(
          "fail clerk what responds at " + other.url() + " is not Clerk, see CLERK_API_URL: ",
          check("CLERK_API_URL", other.url()));
    }
  }

  /** In PEM: 1 is the key of the stand-in. */
  private static String pem(int key) {
    SigningKey each = key == 1 ? SigningKey.usual() : SigningKey.second("ins_1");
    return "-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----"
        .formatted(Base64.getEncoder().encodeToString(each.pair().getPublic().getEncoded()));
  }

  @Test
  void jwtKeyIsComparedWithThoseOfTheInstance() {
    assertLine("ok keys tokens are verified with CLERK_JWT_KEY", check("CLERK_JWT_KEY", pem(1)));
    assertLine(
        "fail keys CLERK_JWT_KEY is no key of the instance of CLERK_SECRET_KEY",
        check("CLERK_JWT_KEY", pem(2)));
  }

  @Test
  void developmentInstanceIsNamed() {
    try (StandInClerk development =
        new StandInClerk(0, SigningKey.second("ins_dev"), StandInClerk.SECRET_KEY)) {
      assertLine(
          "ok clerk Clerk accepts CLERK_SECRET_KEY, of the development instance ins_dev",
          check("CLERK_SECRET_KEY", StandInClerk.SECRET_KEY, "CLERK_API_URL", development.url()));
    }
  }

  @ParameterizedTest
  @CsvSource({
    "100, 'fail clock this machine''s clock is (9[5-9]|10[0-5]) s behind Clerk''s, so good tokens are refused: .*'",
    "-100, 'fail clock this machine''s clock is (99|100|101|102) s ahead of Clerk''s, so .*'",
    "3, 'ok clock .*'"
  })
  void clockThatIsOffFails(int secondsOfClerk, String line) {
    try (FaultyClerk faulty = new FaultyClerk()) {
      String date =
          ZonedDateTime.now(ZoneOffset.UTC)
              .plusSeconds(secondsOfClerk)
              .format(DateTimeFormatter.RFC_1123_DATE_TIME);
      faulty.put(
          "jwks",
          FaultyClerk.answer(
              200, StandInClerk.keySet(SigningKey.usual()).toString(), "Date: " + date));
      faulty.put("count", FaultyClerk.answer(200, "{\"total_count\":0}"));

      List<String> lines = check("CLERK_API_URL", faulty.url());

      assertLine(lines.stream().filter(each -> each.matches(line)).findFirst().orElse(line), lines);
    }
  }

  // Rows and Clerk's users

  @Test
  void keyOfAnotherInstanceThanTheRowsFails() {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(own, THREE_USERS);
    assertLine(
        "fail instance CLERK_SECRET_KEY is of another Clerk instance than the rows, Clerk has none of 3 users: ",
        check("DATABASE_URL", own));
    assertLine("ok instance too few users to tell", check());
  }

  @ParameterizedTest
  @ValueSource(ints = {5, 6})
  void usersWhoAreHereOrAtClerkOnlyAreCounted(int difference) {
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(
        own,
        "INSERT INTO users (id, email) SELECT 'user_' || i, i || '@example.com' FROM generate_series(0, 9) i");
    String level = difference > 5 ? "warn" : "ok";
    IntStream.range(0, 10 + difference).forEach(i -> clerk.putUser("user_" + i, null, null, null));
    String sentence = " users Clerk has %d users, the table 10".formatted(10 + difference);
    assertLine(
        level + sentence + (difference > 5 ? ": run backfill" : ""), check("DATABASE_URL", own));

    clerk.users().clear();
    clerk.putUser("user_0", null, null, null);
    TestPostgres.execute(own, "DELETE FROM users WHERE id > 'user_" + difference + "'");
    assertLine(
        (difference > 5 ? "warn" : "ok") + " users Clerk has 1 users, the table ",
        check("DATABASE_URL", own));
  }

  @Test
  void clerkThatThrottlesIsNoFailure() {
    clerk.onLookup(StandInClerk.answering(429, "{}"));
    String own = TestPostgres.newDatabase();
    TestPostgres.execute(own, THREE_USERS);
    try {
      assertLine(
          "warn users Clerk's users cannot be compared with the rows: status 429",
          check("DATABASE_URL", own));
    } finally {
      clerk.onLookup(clerk::answerLookup);
    }
  }
}
