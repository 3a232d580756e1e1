package com.realmeet.server;

import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import javax.sql.DataSource;
import org.flywaydb.core.Flyway;
import org.flywaydb.core.api.FlywayException;
import org.flywaydb.core.api.output.MigrateResult;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Runs the migrations of {@code db/migration} with Flyway. */
final class Migrations {
  private static final Logger log = LoggerFactory.getLogger(Migrations.class);

  /** How long the start waits for a database that is not there yet. */
  private static final Duration START_WAIT = Duration.ofSeconds(30);

  /** Seconds that one statement of a migration may take, such as an index on a large table. */
  private static final int MIGRATION_SECONDS = 600;

  /** Any number that no other application in the same database takes for its own lock. */
  private static final long MIGRATION_LOCK = 0x7265616c6d656574L; // "realmeet"

  /** Flyway's: a table of our own, since an application may have a Flyway too. */
  private static final String HISTORY = "real_meet_server_migrations";

  private Migrations() {}

  /**
   * Brings the table up to date; any number of servers may do so at once.
   *
   * @throws StartFailure if the database cannot be reached within 30 s, refuses the login, or a
   *     migration fails
   */
  static void migrate(DatabaseUrl url) {
    DataSource source = url.dataSource(MIGRATION_SECONDS);
    Deadline deadline = Deadline.in(START_WAIT);
    for (int attempt = 1; ; attempt++) {
      try {
        Migrated result = migrateAlone(source, url);
        log.info(
            "Database {} is at version {}, {} migrations applied",
            url,
            result.version,
            result.count);
        return;
      } catch (SQLException | FlywayException e) {
        String reason = reasonToRetry(url, e);
        Duration pause = Duration.ofSeconds(Math.min(attempt, 5));
        if (deadline.left().compareTo(pause) < 0) {
          throw new StartFailure(
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
            deadline.left().toSeconds());
        Pause.of(pause);
      }
    }
  }

  private record Migrated(String version, int count) {}

  /**
   * One server at a time. Flyway has a lock of its own, but looks at the database before it takes
   * it: of two that find it empty, one fails over the half-made history of the other.
   */
  private static Migrated migrateAlone(DataSource source, DatabaseUrl url) throws SQLException {
    try (Connection connection = source.getConnection();
        Statement lock = connection.createStatement()) {
      connection.setAutoCommit(false); // the transaction holds the lock until it is closed
      lock.execute("SELECT pg_advisory_xact_lock(" + MIGRATION_LOCK + ")");
      MigrateResult result =
          Flyway.configure()
              .dataSource(source)
              .locations("classpath:db/migration")
              .defaultSchema(url.schema())
              .table(HISTORY)
              .baselineOnMigrate(true) // the Node server's tables may be there
              .baselineVersion("0")
              .load()
              .migrate();
      return new Migrated(
          result.targetSchemaVersion == null
              ? result.initialSchemaVersion
              : result.targetSchemaVersion,
          result.migrationsExecuted);
    }
  }

  private static String reasonToRetry(DatabaseUrl url, Exception e) {
    SQLException cause = Database.sqlException(e);
    if (cause == null) {
      throw new StartFailure(
          "Migration of the database failed: " + Database.oneLine(e.getMessage()));
    }
    String reason = Database.describe(cause);
    if (String.valueOf(cause.getSQLState()).matches("28.*|3D.*|08004")) { // waiting cures none
      throw new StartFailure(
          "The database at "
              + url
              + " refuses the login, see DATABASE_URL and DIRECT_URL: "
              + reason);
    }
    if (!Database.isUnavailable(cause)) {
      throw new StartFailure("Migration of the database failed: " + reason);
    }
    return reason;
  }
}
