package com.realmeet.server;

import static java.util.stream.Collectors.joining;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.realmeet.server.testing.TwoServers;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What an application adds to the table {@code users}, and the log that it then finds. */
class ConstraintTest {
  private static TwoServers servers;
  private static int users;

  @BeforeAll
  static void start() {
    servers = new TwoServers();
    execute(
        """
        CREATE TABLE teams (email text PRIMARY KEY);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'we do not like %', NEW.email;
        END $$;
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        """);
  }

  @AfterAll
  static void stop() {
    servers.close();
  }

  private static void execute(String sql) {
    TestPostgres.execute(servers.database, sql);
  }

  private static String newUser() {
    return "user_constrained" + ++users;
  }

  private static int count(String part) {
    return Log.text().split(Pattern.quote(part), -1).length - 1;
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "ADD COLUMN team text NOT NULL"
            + "|DROP COLUMN team|column team of table users; give the column a DEFAULT or drop its NOT NULL (23502)",
        "ADD COLUMN id_copy varchar(3) GENERATED ALWAYS AS (id) STORED"
            + "|DROP COLUMN id_copy|value too long for type character varying(3); a column is too short: make it text (22001)",
        "ADD CONSTRAINT short_name CHECK (length(name) < 2) NOT VALID"
            + "|DROP CONSTRAINT short_name|constraint short_name of table users; the CHECK",
        "ADD CONSTRAINT in_team FOREIGN KEY (email) REFERENCES teams NOT VALID"
            + "|DROP CONSTRAINT in_team|constraint in_team of table users; the row that it references",
        "ADD CONSTRAINT one_name EXCLUDE (name WITH =)"
            + "|DROP CONSTRAINT one_name|constraint one_name of table users; another row has that value (23P01)",
        "ADD CONSTRAINT unique_name UNIQUE (name)"
            + "|DROP CONSTRAINT unique_name|constraint unique_name of table users; another row has that value (23505)",
      })
  void constraintIsNamedOnceAndWithoutTheValue(String add, String drop, String line) {
    execute("DELETE FROM users");
    if (!add.startsWith("ADD COLUMN")) {
      execute("INSERT INTO users (id, email, name) VALUES ('user_x', 'x', 'John Doe')");
    }
    execute("ALTER TABLE users " + add);
    try {
      for (int i = 0; i < 3; i++) {
        String id = newUser();
        servers.put(id, servers.newAddress());
        HttpResponse<String> response = servers.sync(id);

        assertEquals(500, response.statusCode(), response.body());
        assertTrue(response.body().endsWith("\"message\":\"Internal server error\"}"));
      }
    } finally {
      execute("ALTER TABLE users " + drop);
    }

    assertEquals(1, count("ERROR Errors - The database refuses a statement: "), Log.text());
    assertEquals(1, count("a statement: " + line), Log.text());
    assertEquals(0, count("\tat "), Log.text());
    assertEquals(0, count("A bug"), Log.text());
    assertEquals(0, count("unavailable"), Log.text());
    String id = newUser();
    servers.put(id, servers.newAddress());
    assertEquals(200, servers.sync(id).statusCode());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "INSERT INTO gone VALUES (NEW.email)"
            + "|relation \"gone\" does not exist in PL/pgSQL function fail() line 1 at SQL statement; mend or drop this function of the application (42P01)",
        "INSERT INTO teams (gone) VALUES (NEW.email)"
            + "|column \"gone\" of relation \"teams\" does not exist in PL/pgSQL function fail() line 1 at SQL statement; mend or drop this function of the application (42703)",
        "PERFORM gone(NEW.email)"
            + "|function gone(text) does not exist in PL/pgSQL function fail() line 1 at PERFORM; mend or drop this function of the application (42883)",
        "EXECUTE format('SELECT %s', split_part(NEW.email, '@', 1))"
            + "|an exception was raised in PL/pgSQL function fail() line 1 at EXECUTE; mend or drop this function of the application (42703)",
        "NEW.name := NEW.email::int"
            + "|an exception was raised in PL/pgSQL function fail() line 1 at assignment; mend or drop this function of the application (22P02)",
        "NEW.name := (SELECT NEW.email::date)"
            + "|an exception was raised in PL/pgSQL function fail() line 1 at assignment; mend or drop this function of the application (22007)",
        "NEW.nothing := NOW()"
            + "|record \"new\" has no field \"nothing\" in PL/pgSQL function fail() line 1 at assignment; mend or drop this function of the application (42703)",
        "DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE format('SELECT %s', split_part(NEW.email, '@', 1)); END"
            + "|an exception was raised in PL/pgSQL function fail() line 1 at OPEN; mend or drop this function of the application (42703)",
        "DECLARE c gone; BEGIN NULL; END"
            + "|an exception was raised in compilation of PL/pgSQL function \"fail\" near line 1; mend or drop this function of the application (42704)",
        "RETURN (SELECT NEW FROM strictly(NEW.email))"
            + "|an exception was raised in SQL function \"strictly\" statement 1; mend or drop this function of the application (22P02)",
        "NEW.name := NULL"
            + "|an exception was raised in PL/pgSQL function fail(); mend or drop this function of the application (2F005)",
        "RAISE EXCEPTION 'not %', NEW.email USING ERRCODE = '42501'"
            + "|an exception was raised in PL/pgSQL function fail() line 1 at RAISE; a trigger or function of the application raised it (42501)",
        "RAISE EXCEPTION 'not %', NEW.email USING ERRCODE = 'check_violation'"
            + "|an exception was raised in PL/pgSQL function fail() line 1 at RAISE; a trigger or function of the application raised it (23514)",
        "RAISE EXCEPTION 'not %', NEW.email USING ERRCODE = 'unique_violation', TABLE = 'users'"
            + "|table users; a trigger or function of the application raised it (23505)",
        "RAISE EXCEPTION 'not %', NEW.email USING ERRCODE = 'MY001'"
            + "|an exception was raised in PL/pgSQL function fail() line 1 at RAISE; a trigger or function of the application raised it (MY001)",
      })
  void brokenTriggerIsNamedOnceAndWithoutTheValue(String body, String line) {
    execute(
        """
        SET check_function_bodies = off;
        CREATE FUNCTION strictly(text) RETURNS int LANGUAGE sql STABLE STRICT SET search_path = public
          AS 'SELECT $1::int';
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN %s; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION fail();
        """
            .formatted(body));
    try {
      for (int i = 0; i < 2; i++) {
        String id = newUser();
        servers.put(id, servers.newAddress());

        assertEquals(500, servers.sync(id).statusCode());
      }
    } finally {
      execute("DROP FUNCTION fail() CASCADE; DROP FUNCTION strictly");
    }

    assertEquals(1, count("ERROR Errors - The database refuses a statement: "), Log.text());
    assertEquals(1, count("a statement: " + line), Log.text());
    assertEquals(0, count("\tat "), Log.text());
    assertFalse(Log.text().contains("not a"), Log.text());
  }

  @Test
  void triggerThatRaisesIsNamedButNotQuoted() {
    execute("CREATE TRIGGER refuse BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION refuse()");
    try {
      String id = newUser();
      servers.put(id, servers.newAddress());

      assertEquals(500, servers.sync(id).statusCode());
    } finally {
      execute("DROP TRIGGER refuse ON users");
    }
    assertEquals(
        1, count("an exception was raised in PL/pgSQL function refuse() line 3"), Log.text());
    assertFalse(Log.text().contains("we do not like"), Log.text());
  }

  @Test
  void triggerThatSkipsARowIsNoConflictAndNoSuccess() {
    execute("DELETE FROM users");
    String known = newUser();
    String moved = newUser();
    String gone = newUser();
    String fresh = newUser();
    String heirOfMoved = newUser();
    String heirOfGone = newUser();
    List.of(known, moved, gone).forEach(id -> servers.putRow(id, servers.newAddress()));
    servers.put(known, servers.newAddress());
    servers.put(fresh, servers.newAddress());
    servers.put(heirOfMoved, servers.emailOf(moved));
    servers.put(moved, servers.newAddress());
    servers.put(heirOfGone, servers.emailOf(gone));
    servers.clerk.deleteUser(gone);

    assertSkipped("INSERT", fresh, () -> servers.sync(fresh));
    assertSkipped("UPDATE", known, () -> servers.refresh(servers.one, known));
    assertSkipped("UPDATE", known, () -> servers.webhook(servers.one, "user.updated", known));
    assertSkipped("UPDATE", moved, () -> servers.sync(heirOfMoved));
    assertSkipped("UPDATE", gone, () -> servers.sync(heirOfGone));
    assertSkipped("UPDATE", gone, () -> servers.webhook(servers.one, "user.deleted", gone));

    assertEquals(
        1,
        count(
            "ERROR Errors - The database refuses a statement: a trigger of the application on the"
                + " table users suppressed the row; let it return NEW"),
        Log.text());
    assertEquals(0, count("\tat "), Log.text());
    assertEquals(200, servers.sync(fresh).statusCode());
    assertEquals(200, servers.sync(heirOfMoved).statusCode());
  }

  private static void assertSkipped(
      String event, String id, Supplier<HttpResponse<String>> request) {
    List<String> before = servers.table();
    execute(
        "CREATE TRIGGER skip BEFORE %s ON users FOR EACH ROW WHEN (NEW.id = '%s') EXECUTE FUNCTION skip()"
            .formatted(event, id));
    try {
      assertEquals(500, request.get().statusCode());
    } finally {
      execute("DROP TRIGGER skip ON users");
    }
    assertEquals(before, servers.table());
  }

  @Test
  void ruleThatForbidsUpsertsIsNamed() {
    String id = newUser();
    servers.put(id, servers.newAddress());
    execute("CREATE RULE quiet AS ON UPDATE TO users WHERE false DO ALSO NOTHING");
    try {
      assertEquals(500, servers.sync(id).statusCode());
    } finally {
      execute("DROP RULE quiet ON users");
    }
    assertEquals(1, count("make the table's rules triggers (0A000)"), Log.text());
    assertEquals(0, count("\tat "), Log.text());
  }

  @Test
  void bulkUpsertStoresAndCountsAllButTheRowsThatATriggerSkips() {
    execute("DELETE FROM users");
    servers.clerk.users().clear();
    String unchanged = newUser();
    String changed = newUser();
    String skipped = newUser();
    String inserted = newUser();
    String never = newUser();
    List.of(unchanged, changed, skipped).forEach(id -> servers.putRow(id, servers.newAddress()));
    List.of(changed, skipped, inserted, never).forEach(id -> servers.put(id, servers.newAddress()));
    execute(
        """
        CREATE TRIGGER skip BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.id = '%s')
          EXECUTE FUNCTION skip();
        CREATE TRIGGER skip_update BEFORE UPDATE ON users FOR EACH ROW WHEN (NEW.id = '%s')
          EXECUTE FUNCTION skip();
        """
            .formatted(never, skipped));
    Backfilling backfill = new Backfilling(servers.clerk, servers.database);
    try {
      backfill.expect(1, "Backfill done: 1 inserted, 1 updated, 1 unchanged, 0 deleted, 2 skipped");
      servers.put(inserted, servers.newAddress());
      assertTrue(servers.one.poll());
      assertTrue(servers.one.poll());
    } finally {
      execute("DROP TRIGGER skip ON users; DROP TRIGGER skip_update ON users");
    }
    for (String id : List.of(skipped, never)) {
      String reason = " is refused: The database refuses a statement: a trigger of the application";
      assertEquals(1, count("Skipped: " + id + reason), Log.text());
      assertEquals(1, count("Not stored: " + id + reason), Log.text());
    }
    assertEquals(1, count("Caught up with Clerk: 0 inserted, 1 updated, 0 deleted"), Log.text());
    backfill.expect(0, "Backfill done: 1 inserted, 1 updated, 3 unchanged, 0 deleted, 0 skipped");
  }

  @Test
  void redundantUpdateThatATriggerSkipsIsASuccess() {
    execute("DELETE FROM users");
    servers.clerk.users().clear();
    String id = newUser();
    String skipped = newUser();
    servers.putRow(id, servers.newAddress());
    servers.put(skipped, servers.newAddress());
    execute(
        """
        CREATE TRIGGER z_redundant BEFORE UPDATE ON users
          FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
        CREATE TRIGGER skip BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.id = '%s')
          EXECUTE FUNCTION skip();
        """
            .formatted(skipped));
    try {
      List<String> before = servers.table();
      assertEquals(200, servers.refresh(servers.one, id).statusCode());
      assertEquals(200, servers.webhook(servers.one, "user.created", id).statusCode());
      new Backfilling(servers.clerk, servers.database)
          .expect(1, "Backfill done: 0 inserted, 0 updated, 1 unchanged, 0 deleted, 1 skipped");
      assertEquals(before, servers.table());
    } finally {
      execute("DROP TRIGGER z_redundant ON users; DROP TRIGGER skip ON users");
    }
    assertFalse(Log.text().contains("Skipped: " + id), Log.text());
  }

  /** The row that is inserted for the lock has the placeholder that the release would write. */
  @Test
  void redundantUpdateThatATriggerSkipsDoesNotHoldUpAnAddress() {
    String holder = newUser();
    String heir = newUser();
    servers.putRow(holder, servers.newAddress());
    servers.put(heir, servers.emailOf(holder));
    servers.put(holder, servers.newAddress());
    execute(
        """
        CREATE TRIGGER z_redundant BEFORE UPDATE ON users
          FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()
        """);
    try {
      assertEquals(200, servers.sync(heir).statusCode());
      assertEquals(200, servers.sync(holder).statusCode());
    } finally {
      execute("DROP TRIGGER z_redundant ON users");
    }
  }

  @Test
  void valueThatIsTooLongForAnIndexHoldsUpNobodyElse() {
    execute("DELETE FROM users");
    servers.clerk.users().clear();
    String known = newUser();
    String tooLong = newUser();
    servers.putRow(known, servers.newAddress());
    servers.put(known, servers.newAddress());
    servers.put(tooLong, servers.newAddress());
    String incompressible =
        IntStream.range(0, 120).mapToObj("md5(id || '%d')"::formatted).collect(joining(" || "));
    execute(
        "CREATE INDEX long_index ON users ((CASE WHEN id = '%s' THEN %s END))"
            .formatted(tooLong, incompressible));
    try {
      assertEquals(500, servers.sync(tooLong).statusCode());
      assertTrue(servers.one.poll());
    } finally {
      execute("DROP INDEX long_index");
    }
    String reason = "constraint long_index of table users; a value is too long for an index";
    assertEquals(1, count("ERROR Errors - The database refuses a statement: " + reason));
    assertEquals(1, count("Not stored: " + tooLong), Log.text());
    assertEquals(1, count("Caught up with Clerk: 0 inserted, 1 updated, 0 deleted"), Log.text());
    assertEquals(0, count("\tat "), Log.text());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "CREATE UNIQUE INDEX extra ON users (lower(email))",
        "CREATE UNIQUE INDEX extra ON users (lower(email)) WHERE deleted_at IS NULL",
        "ALTER TABLE users ADD CONSTRAINT extra EXCLUDE (lower(email) WITH =)",
        "CREATE EXTENSION IF NOT EXISTS citext; ALTER TABLE users ALTER COLUMN email TYPE citext",
      })
  void addressThatDiffersOnlyInCaseIsTaken(String index) {
    execute("DELETE FROM users");
    execute(index);
    try {
      String holder = newUser();
      String moved = newUser();
      servers.putRow(holder, "Held" + users + "@example.com");
      servers.putRow(moved, "Moved" + users + "@example.com");
      servers.put(moved, servers.newAddress());
      String rival = newUser();
      servers.put(rival, servers.emailOf(holder).toLowerCase());
      String heir = newUser();
      servers.put(heir, "moved" + (users - 2) + "@example.com");

      assertEquals(409, servers.sync(rival).statusCode());
      assertEquals(200, servers.sync(heir).statusCode());

      assertEquals("moved" + (users - 2) + "@example.com", servers.emailOf(heir));
      assertEquals(List.of("3"), servers.query("SELECT count(*) FROM users"));
    } finally {
      execute(
          "ALTER TABLE users DROP CONSTRAINT IF EXISTS extra, ALTER COLUMN email TYPE text;"
              + " DROP INDEX IF EXISTS extra;"
              // The trigger's plans are of the other type: each session keeps them.
              + " SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
              + " WHERE datname = current_database() AND pid != pg_backend_pid()");
    }
    assertEquals(0, count("ERROR"), Log.text());
  }

  @Test
  void addressThatAnIndexOfAnotherKindRefusesIsTaken() {
    execute("DELETE FROM users; CREATE UNIQUE INDEX extra ON users ((split_part(email, '@', 2)))");
    try {
      servers.putRow(newUser(), servers.newAddress());
      String rival = newUser();
      servers.put(rival, servers.newAddress());

      assertEquals(409, servers.sync(rival).statusCode());
    } finally {
      execute("DROP INDEX extra");
    }
  }

  @Test
  void missingRightIsNamed() {
    execute(
        """
        CREATE ROLE %1$s LOGIN PASSWORD 'x';
        GRANT SELECT ON users TO %1$s;
        """
            .formatted(role()));
    String url = servers.database.replaceFirst("://[^@]*@", "://" + role() + ":x@");
    try (TestServer server = TestServer.start(servers.clerk, url, "DIRECT_URL", servers.database)) {
      String id = newUser();
      servers.put(id, servers.newAddress());

      assertEquals(500, server.sync(servers.clerk.token(id)).statusCode());
    } finally {
      execute("DROP OWNED BY %1$s; DROP ROLE %1$s".formatted(role()));
    }
    assertEquals(
        1, count("ERROR Errors - The database refuses a statement: permission denied"), Log.text());
    assertEquals(0, count("\tat "), Log.text());
  }

  private static String role() {
    return "reader_" + ProcessHandle.current().pid();
  }

  @Test
  void backfillStoresAllButTheUserWhomAConstraintRefuses() {
    execute(
        "ALTER TABLE users ADD CONSTRAINT not_refused CHECK (email NOT LIKE 'refused%') NOT VALID");
    String refused = newUser();
    String stored = newUser();
    servers.put(refused, "refused" + servers.newAddress());
    servers.put(stored, servers.newAddress());
    try {
      assertEquals(1, new Backfilling(servers.clerk, servers.database).run());
    } finally {
      execute("ALTER TABLE users DROP CONSTRAINT not_refused");
    }
    String line = "Skipped: " + refused + " is refused: The database refuses a statement: ";
    assertEquals(1, count(line + "constraint not_refused of table users"), Log.text());
    assertEquals(0, count("\tat "), Log.text());
    assertEquals(
        List.of(stored),
        TestPostgres.query(
            servers.database,
            "SELECT id FROM users WHERE id IN ('%s', '%s')".formatted(refused, stored)));
  }
}
