package com.realmeet.server.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.Config;
import com.realmeet.server.Main;
import java.time.Instant;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;

/** The backfill command, run as the command line does, on one database and one stand-in Clerk. */
public final class Backfilling {
  /** Puts the saved rows back, and drops what a test has added: functions, triggers, checks. */
  private static final String RESTORE =
      """
      DO $$
      DECLARE
        command text;
      BEGIN
        FOR command IN
          SELECT format('DROP FUNCTION %s CASCADE', oid::regprocedure)
          FROM pg_proc
          WHERE pronamespace = 'public'::regnamespace AND proname !~ '^real_meet_server_'
          UNION ALL
          SELECT format('ALTER TABLE users DROP CONSTRAINT %I', conname)
          FROM pg_constraint
          WHERE conrelid = 'users'::regclass AND contype = 'c'
        LOOP
          EXECUTE command;
        END LOOP;
      END $$;
      TRUNCATE users;
      INSERT INTO users SELECT * FROM saved.users
      """;

  private final StandInClerk clerk;
  private final String database;
  private final Map<String, String> settings;
  private String printed = "";

  /**
   * @param changes names and values, in turn, that differ from {@link TestServer#settings}
   */
  public Backfilling(StandInClerk clerk, String database, String... changes) {
    this.clerk = clerk;
    this.database = database;
    this.settings = TestServer.settings(clerk, database, changes);
  }

  /** Adds user_from and those after it, up to but without user_to. */
  public void putUsers(int from, int to) {
    for (int i = from; i < to; i++) {
      clerk.putUser("user_" + i, "user" + i + "@example.com", "User", String.valueOf(i));
    }
  }

  /** Keeps the rows as they are now, for {@link #restored}. */
  public void save() {
    TestPostgres.execute(database, "CREATE SCHEMA saved; CREATE TABLE saved.users AS TABLE users");
  }

  /** The same users at another stand-in for Clerk, and in the database the rows of then. */
  public Backfilling restored(StandInClerk clerk) {
    this.clerk.users().forEach((id, user) -> clerk.users().put(id, user.deepCopy()));
    TestPostgres.execute(database, RESTORE);
    return new Backfilling(clerk, database);
  }

  public String database() {
    return database;
  }

  /** Returns the exit code. */
  public int run(String... options) {
    String[] arguments = new String[options.length + 1];
    arguments[0] = "backfill";
    System.arraycopy(options, 0, arguments, 1, options.length);
    AtomicInteger exitCode = new AtomicInteger();
    printed = Log.printed(() -> exitCode.set(Main.run(arguments, () -> Config.from(settings))));
    return exitCode.get();
  }

  /** Runs it, and checks its exit code and a part of its log. */
  public void expect(int exitCode, String line, String... options) {
    int before = Log.text().length();
    int code = run(options);
    String log = Log.text().substring(before);
    assertEquals(exitCode, code, log);
    assertTrue(log.contains(line), log);
  }

  /** What the last run has printed for its user. */
  public String printed() {
    return printed;
  }

  /** Tells a server of a change; returns the status. */
  public int webhook(TestServer server, String type, String id) {
    return server
        .send(
            StandInClerk.webhook(
                server.uri("/api/webhooks/clerk"),
                Fleet.SECRET,
                Instant.now(),
                clerk.event(type, id)))
        .statusCode();
  }

  /** All rows by id: "email|name", or "tombstone". */
  public Map<String, String> rows() {
    return TestPostgres.query(
            database,
            """
            SELECT id, CASE WHEN deleted_at IS NULL THEN concat_ws('|', email, name) ELSE 'tombstone' END
            FROM users
            """)
        .stream()
        .map(row -> row.split("\\|", 2))
        .collect(Collectors.toMap(row -> row[0], row -> row[1], (a, b) -> a, TreeMap::new));
  }

  /** What {@link #rows} shows of a user with an address. */
  public static String row(ObjectNode user) {
    String email = user.get("email_addresses").get(1).get("email_address").asText();
    String last = user.get("last_name").isNull() ? "" : " " + user.get("last_name").asText();
    return email + "|" + user.get("first_name").asText() + last;
  }

  /** The ids of all rows that are no tombstones. */
  public Set<String> living() {
    Map<String, String> rows = rows();
    rows.values().removeIf("tombstone"::equals);
    return rows.keySet();
  }
}
