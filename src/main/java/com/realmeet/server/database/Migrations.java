package com.realmeet.server.database;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.LogRateLimiter;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import javax.sql.DataSource;
import org.flywaydb.core.Flyway;
import org.flywaydb.core.api.FlywayException;
import org.flywaydb.core.api.MigrationInfo;
import org.flywaydb.core.api.callback.BaseCallback;
import org.flywaydb.core.api.callback.Callback;
import org.flywaydb.core.api.callback.Context;
import org.flywaydb.core.api.callback.Event;
import org.flywaydb.core.api.configuration.FluentConfiguration;
import org.flywaydb.core.api.exception.FlywayValidateException;
import org.flywaydb.core.api.output.MigrateResult;
import org.flywaydb.core.internal.exception.FlywayMigrateException;
import org.flywaydb.database.postgresql.PostgreSQLConfigurationExtension;
import org.postgresql.ds.PGSimpleDataSource;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs the migrations of {@code db/migration} with Flyway. Versions up to 100 are those of this
 * server, later ones those of the team that builds on it.
 */
public final class Migrations {
  private static final Logger log = LoggerFactory.getLogger(Migrations.class);

  /** Startup timeout: how long the start waits for an unreachable database. */
  private static final Duration STARTUP_TIMEOUT = Duration.ofSeconds(30);

  /** Seconds that one statement of a migration may take, such as an index on a large table. */
  private static final int STATEMENT_TIMEOUT_SECONDS = 600;

  /** Id of the advisory lock, which no other application in the same database should use. */
  private static final long MIGRATION_LOCK_ID = 0x7265616c6d656574L; // "realmeet"

  /** Interval of the attempts to get the lock. */
  private static final Duration LOCK_INTERVAL = Duration.ofMillis(200);

  /** Finds the process that has the lock. */
  private static final String LOCK_HOLDER =
      """
      SELECT pid
      FROM pg_locks
      WHERE locktype = 'advisory' AND granted
        AND classid = %d AND objid = %d
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      """
          .formatted(MIGRATION_LOCK_ID >>> 32, MIGRATION_LOCK_ID & 0xFFFFFFFFL);

  /**
   * Flyway's schema history table; not the default name, since an application may use Flyway, too.
   */
  static final String HISTORY = "real_meet_server_migrations";

  /**
   * Selects the rows of the history table whose migrations must run again: V1 and V2 of earlier
   * versions since release 1.0.0, whose files have changed and can run on their result; failed
   * ones; and both if the table {@code users}, or a column, unique index or trigger that they make,
   * is missing.
   */
  static final String TO_REPEAT =
      """
      version = '1' AND checksum IN (1412849516, 1694028560, 690228550, -2041042412, -760126869)
      OR version = '2' AND checksum IN (-26672931)
      OR version IN ('1', '2') AND (NOT success OR NOT EXISTS (
        SELECT
        FROM pg_class c
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relname = 'users'
          AND 3 = (
            SELECT count(*)
            FROM pg_attribute
            WHERE attrelid = c.oid AND attname IN ('clerk_updated_at', 'deleted_at', 'clerk_fields'))
          AND 2 = (
            SELECT count(DISTINCT attname)
            FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
            WHERE indrelid = c.oid AND attname IN ('id', 'email')
              AND indnkeyatts = 1 AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL)
          AND EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = 'real_meet_server_updated_at')))
      """;

  /**
   * Returns what to do if sessions that set no time zone, such as Prisma's, do not have UTC. The
   * time zone of postgresql.conf cannot be read, since pgjdbc always sets one; initdb sets
   * log_timezone to the same value.
   */
  private static final String TIME_ZONE =
      """
      WITH setting AS (
        SELECT substring(item FROM '=(.*)') AS zone, setrole != 0 AS of_role, setdatabase != 0 AS of_database
        FROM pg_db_role_setting, unnest(setconfig) item
        WHERE item ILIKE 'timezone=%'
          AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
          AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
        UNION ALL
        SELECT current_setting('log_timezone'), NULL, NULL
        ORDER BY of_role DESC NULLS LAST, of_database DESC
        LIMIT 1
      )
      SELECT format('sessions have the time zone %s and not UTC, run ALTER ROLE %I%s SET timezone = %L',
        zone, current_user,
        CASE WHEN of_role AND of_database THEN format(' IN DATABASE %I', current_database()) END, 'UTC')
      FROM setting
      WHERE timestamptz '2026-01-01Z' AT TIME ZONE zone != '2026-01-01'
        OR timestamptz '2026-07-01Z' AT TIME ZONE zone != '2026-07-01'
      """;

  /**
   * Lifts limits of the role or the database for the transaction that waits for the lock, or holds
   * it while Flyway migrates. As the last statement it also ends the snapshot of a query, for which
   * CREATE INDEX CONCURRENTLY in a migration would wait.
   */
  private static final String NO_TIMEOUTS =
      """
      SET LOCAL statement_timeout = 0;
      SET LOCAL lock_timeout = 0;
      SET LOCAL idle_in_transaction_session_timeout = 0
      """;

  /** Lifts the role's limit for a migration, so that STATEMENT_TIMEOUT_SECONDS counts. */
  private static final String NO_STATEMENT_TIMEOUT = "SET statement_timeout = 0";

  private static final String HAS_PRISMAS_TIMES =
      """
      SELECT EXISTS (
        SELECT
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
          AND c.relname = 'users'
          AND a.attname IN ('created_at', 'updated_at')
          AND a.atttypid = 'timestamp'::regtype)
      """;

  private Migrations() {}

  /**
   * Migrates the database; any number of servers may do so concurrently.
   *
   * @param locations of further migrations, in addition to {@code db/migration}
   * @throws StartupException if the database cannot be reached within 30 s, refuses the login, or a
   *     migration fails
   */
  public static void migrate(DatabaseUrl url, String... locations) {
    PGSimpleDataSource source = url.dataSource(STATEMENT_TIMEOUT_SECONDS);
    source.setPrepareThreshold(0); // the URL may lead to a pooler that is not known as one
    Deadline deadline = Deadline.in(STARTUP_TIMEOUT);
    for (int attempt = 1; ; attempt++) {
      try {
        Migrated result = migrateAlone(source, url, locations);
        log.info(
            "Database {} is at version {}, {} migrations applied",
            url,
            result.version,
            result.count);
        return;
      } catch (SQLException | FlywayException e) {
        String reason = reasonToRetry(url, e);
        Duration pause = Duration.ofSeconds(Math.min(attempt, 5));
        if (deadline.remaining().compareTo(pause) < 0) {
          throw new StartupException(
              "The database at "
                  + url
                  + " cannot be reached, see DATABASE_URL and DIRECT_URL: "
                  + reason);
        }
        log.warn(
            "Database {} is unreachable, attempt {}: {}; trying for {} s more",
            url,
            attempt,
            reason,
            deadline.remaining().toSeconds());
        Threads.sleep(pause);
      }
    }
  }

  private record Migrated(String version, int count) {}

  /**
   * Migrates under an advisory lock. Flyway has a lock of its own, but looks at the database before
   * it takes it: if two servers find it empty, one fails because of the incomplete history of the
   * other.
   */
  private static Migrated migrateAlone(DataSource source, DatabaseUrl url, String... locations)
      throws SQLException {
    try (Connection connection = source.getConnection()) {
      boolean isPooled =
          url.isPooled() || !url.isPoolingKnown() && Database.isBehindPooler(connection);
      if (isPooled) {
        requireNoSchema(url);
      }
      connection.setAutoCommit(false); // the transaction holds the lock until it is closed
      execute(
          connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"); // sees Flyway's commits
      execute(connection, NO_TIMEOUTS);
      lock(connection);
      setSchema(connection, url);
      List<String> hidden = RowSecurity.hiddenTables(connection, RowSecurity.OWN_TABLES);
      if (!hidden.isEmpty()) {
        throw new StartupException(
            1, hidden.stream().map("Migration of the database failed: "::concat).toList());
      }
      repeatOwnMigrations(connection, source, url);
      boolean prisma = query(connection, HAS_PRISMAS_TIMES).equals("t");
      RowSecurity rowSecurity = new RowSecurity(connection);
      execute(connection, NO_TIMEOUTS);
      Flyway flyway =
          flyway(source, url, isPooled, locations)
              .callbacks(
                  on(
                      Event.BEFORE_EACH_MIGRATE,
                      migration -> {
                        if (!isPooled) { // a pooler would leave the setting to its other clients
                          execute(migration, NO_STATEMENT_TIMEOUT);
                        }
                      }),
                  on(Event.AFTER_EACH_MIGRATE, rowSecurity::secureMigration))
              .load();
      MigrateResult result = migrate(flyway, url);
      execute(connection, "SET LOCAL lock_timeout = '10s'");
      rowSecurity.secureRest(connection);
      String timeZone = prisma ? timeZoneProblem(connection) : "";
      connection.commit();
      if (!timeZone.isEmpty()) {
        log.warn(
            "Times that a Prisma client reads or writes are shifted from now on: {}", timeZone);
      }
      return new Migrated(
          result.targetSchemaVersion == null
              ? result.initialSchemaVersion
              : result.targetSchemaVersion,
          result.migrationsExecuted);
    }
  }

  /** Work on the connection of a migration. */
  private interface ConnectionWork {
    void run(Connection connection) throws SQLException;
  }

  /** Returns a callback of Flyway that does some work at an event of each migration. */
  private static Callback on(Event event, ConnectionWork work) {
    return new BaseCallback() {
      @Override
      public boolean supports(Event each, Context context) {
        return each == event;
      }

      @Override
      public void handle(Event each, Context context) {
        try {
          work.run(context.getConnection());
        } catch (SQLException e) {
          throw new FlywayException(e.getMessage(), e);
        }
      }
    };
  }

  private static MigrateResult migrate(Flyway flyway, DatabaseUrl url) {
    try {
      return flyway.migrate();
    } catch (FlywayValidateException e) { // proposes a command repair, which there is not
      List<String> problems =
          Stream.of(flyway.info().all())
              .flatMap(migration -> problem(migration, url).stream())
              .map("Migration of the database failed: "::concat)
              .toList();
      throw problems.isEmpty() ? e : new StartupException(1, problems);
    }
  }

  /**
   * Returns what to do about a migration that keeps servers from starting: it stopped half way, or
   * has run with another text.
   */
  static Optional<String> problem(MigrationInfo migration, DatabaseUrl url) {
    if (migration.getState().isFailed()) {
      return Optional.of(
          "migration %s stopped half way: drop what it left, such as an invalid index, mend what made it fail, then run DELETE FROM %s WHERE NOT success"
              .formatted(name(migration), url.qualified(HISTORY)));
    }
    return migration.isChecksumMatching() || !migration.isVersioned() // a repeatable one may change
        ? Optional.empty()
        : Optional.of(
            "migration %s has run with another text (checksum mismatch): restore its file and add another one, or, if another branch's has run, renumber yours"
                .formatted(name(migration)));
  }

  /** Returns the version of a migration; the description of a repeatable one, which has none. */
  static String name(MigrationInfo migration) {
    return migration.isVersioned() ? migration.getVersion().toString() : migration.getDescription();
  }

  /**
   * Waits for the lock while other servers migrate, as long as one statement of them may take.
   *
   * @throws StartupException if it is not free by then
   */
  private static void lock(Connection connection) throws SQLException {
    Deadline deadline = Deadline.in(Duration.ofSeconds(STATEMENT_TIMEOUT_SECONDS));
    Deadline shortWait = Deadline.in(Duration.ofSeconds(5));
    LogRateLimiter limiter = new LogRateLimiter();
    while (query(connection, "SELECT pg_try_advisory_xact_lock(" + MIGRATION_LOCK_ID + ")")
        .equals("f")) {
      if (shortWait.remaining().isZero() && limiter.allows("wait")) {
        log.info(
            "Another server migrates the database: process {}", query(connection, LOCK_HOLDER));
      }
      if (deadline.remaining().isZero()) {
        throw new StartupException(
            "Another server has been migrating the database for too long: process "
                + query(connection, LOCK_HOLDER)
                + ", see pg_stat_activity");
      }
      Threads.sleep(LOCK_INTERVAL);
    }
  }

  /**
   * Requires a URL that leads through a pooler to have no schema: Flyway sets the search path of
   * its session, and may restore it on another connection of the pooler, which other clients use.
   */
  private static void requireNoSchema(DatabaseUrl url) {
    if (url.schema() != null) {
      throw new StartupException(
          "Migrations through a pooler would leave the schema of the URL to its other clients: set"
              + " DIRECT_URL to the direct host, or add pgbouncer=false if there is no pooler");
    }
  }

  private static FluentConfiguration flyway(
      DataSource source, DatabaseUrl url, boolean isPooled, String... locations) {
    FluentConfiguration flyway = Flyway.configure();
    flyway
        .getConfigurationExtension(PostgreSQLConfigurationExtension.class)
        // Through a pooler, a lock of the session would stay on one of its connections. Otherwise
        // CREATE INDEX CONCURRENTLY would wait for the end of a lock's transaction.
        .setTransactionalLock(isPooled);
    return flyway
        .dataSource(escapingRoles(source))
        .locations(locations("classpath:db/migration", locations))
        .defaultSchema(url.schema())
        .table(HISTORY)
        .installedBy("real-meet-server") // Flyway does not escape its default, the user
        .placeholderReplacement(false) // ${x} is text, also in the name of a schema
        .baselineOnMigrate(true) // the Node server's tables may be there
        .baselineVersion("0")
        .outOfOrder(true) // a branch with a lower number may be merged later
        .ignoreMigrationPatterns(
            "*:missing", "*:future") // a branch or release without them may start
        .validateMigrationNaming(true);
  }

  private static String[] locations(String own, String... others) {
    return Stream.concat(Stream.of(own), Stream.of(others)).toArray(String[]::new);
  }

  /**
   * Compares the history table with the migrations of this server.
   *
   * @param readOnly data source whose connections are read-only
   */
  static MigrationInfo[] compare(DataSource readOnly, DatabaseUrl url) {
    boolean isPooled = true; // of no effect, since no lock is taken
    return flyway(readOnly, url, isPooled).load().info().all();
  }

  /**
   * Sets the search path until the end of the transaction, which a pooler keeps on one connection.
   */
  private static void setSchema(Connection connection, DatabaseUrl url) throws SQLException {
    if (url.schema() != null) {
      try (PreparedStatement statement =
          connection.prepareStatement("SELECT set_config('search_path', quote_ident(?), true)")) {
        statement.setString(1, url.schema());
        statement.execute();
      }
    }
  }

  private static void repeatOwnMigrations(Connection connection, DataSource source, DatabaseUrl url)
      throws SQLException {
    if (query(connection, "SELECT to_regclass('" + HISTORY + "') IS NOT NULL").equals("f")) {
      return;
    }
    String history = " FROM " + url.qualified(HISTORY) + " WHERE ";
    String versions =
        query(
            connection,
            "SELECT string_agg(quote_literal(version), ', ' ORDER BY version)"
                + history
                + TO_REPEAT);
    if (versions != null) {
      log.warn(
          "Migrations {} run again: they are of an earlier release or failed, or the table users,"
              + " or a column, unique index or trigger of it, is missing",
          versions);
      try (Connection other = source.getConnection()) { // commits now, so that Flyway sees it
        execute(other, "DELETE" + history + "version IN (" + versions + ")");
      }
    }
  }

  /** Returns what to do if the time zone of Prisma's sessions is not UTC; empty if it is. */
  static String timeZoneProblem(Connection connection) throws SQLException {
    return query(connection, TIME_ZONE);
  }

  static void execute(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.execute(sql);
    }
  }

  /** Returns the first column of the first row, or an empty text. */
  static String query(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet row = statement.executeQuery(sql)) {
      return row.next() ? row.getString(1) : "";
    }
  }

  /**
   * Escapes the name of the role in the {@code SET ROLE 'name'} of Flyway 13.12.0, which fails for
   * a name with an apostrophe. Delete when its PostgreSQLConnection does so.
   */
  private static DataSource escapingRoles(DataSource source) {
    return proxy(DataSource.class, source);
  }

  private static <T> T proxy(Class<T> type, T target) {
    InvocationHandler handler =
        (proxy, method, arguments) -> {
          if (method.getName().equals("prepareStatement")
              && arguments[0] instanceof String sql
              && sql.startsWith("SET ROLE '")) {
            String role = sql.substring("SET ROLE '".length(), sql.length() - 1);
            arguments[0] = "SET ROLE '" + role.replace("'", "''") + "'";
          }
          try {
            Object result = method.invoke(target, arguments);
            return result instanceof Connection connection
                ? proxy(Connection.class, connection)
                : result;
          } catch (InvocationTargetException e) {
            throw e.getCause();
          }
        };
    return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler));
  }

  private static String reasonToRetry(DatabaseUrl url, Exception e) {
    SQLException cause = SqlErrors.sqlException(e);
    if (cause == null) {
      throw new StartupException(
          "Migration of the database failed: " + SqlErrors.oneLine(e.getMessage()));
    }
    String reason = SqlErrors.whyUnavailable(cause);
    if (SqlErrors.isLoginRefused(cause)) { // a retry cannot succeed
      throw new StartupException(
          "The database at "
              + url
              + " refuses the login, see DATABASE_URL and DIRECT_URL: "
              + reason);
    }
    boolean isOfMigration = e instanceof FlywayMigrateException && !SqlErrors.isTransient(cause);
    if (isOfMigration || !SqlErrors.isUnavailable(cause)) {
      throw new StartupException("Migration of the database failed: " + reason + place(e));
    }
    return reason;
  }

  /**
   * Returns file and line of the statement that failed; an empty text if they are not known, or an
   * exception was raised, which says enough.
   */
  private static String place(Exception e) {
    if (!(e instanceof FlywayMigrateException failed)
        || "P0001".equals(SqlErrors.sqlException(e).getSQLState())) {
      return "";
    }
    String line = failed.getLineNumber() > 0 ? ", line " + failed.getLineNumber() : "";
    return " in " + failed.getMigration().getScript() + line;
  }
}
