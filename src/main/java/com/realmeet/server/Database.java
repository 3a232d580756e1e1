package com.realmeet.server;

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import com.zaxxer.hikari.SQLExceptionOverride;
import io.micrometer.core.instrument.MeterRegistry;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import javax.sql.DataSource;
import org.flywaydb.core.Flyway;
import org.flywaydb.core.api.FlywayException;
import org.flywaydb.core.api.output.MigrateResult;
import org.jdbi.v3.core.ConnectionException;
import org.jdbi.v3.core.Handle;
import org.jdbi.v3.core.HandleCallback;
import org.jdbi.v3.core.Jdbi;
import org.jdbi.v3.core.JdbiException;
import org.jdbi.v3.core.statement.StatementExceptions;
import org.jdbi.v3.postgres.PostgresPlugin;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The connection to Postgres: a pool that lets Neon fall asleep and never makes a request wait for
 * more than 5 s, one retry of what a failover breaks, and the migrations.
 */
final class Database implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Database.class);

  /** The longest that any work waits; a little less than the 5 s in which a request is answered. */
  static final Duration LIMIT = Duration.ofMillis(4500);

  /** For a connection, and so for a Neon database that is just waking up. */
  private static final Duration POOL_WAIT = Duration.ofSeconds(3);

  /**
   * For finding out that a pooled connection is dead; also what is left for a statement at least.
   */
  private static final Duration VALIDATION = Duration.ofMillis(500);

  /**
   * A failure later than this is not tried again: the second try could exceed the limit. Postgres
   * needs 1 s to find a deadlock.
   */
  private static final Duration RETRY_WITHIN = Duration.ofMillis(1500);

  /** How long the start waits for a database that is not there yet. */
  private static final Duration START_WAIT = Duration.ofSeconds(30);

  /** Seconds that one statement of a migration may take, such as an index on a large table. */
  private static final int MIGRATION_SECONDS = 600;

  /** Any number that no other application in the same database takes for its own lock. */
  private static final long MIGRATION_LOCK = 0x7265616c6d656574L; // "realmeet"

  /** Flyway's: a table of our own, since an application may have a Flyway too. */
  private static final String HISTORY = "real_meet_server_migrations";

  private static final String READ_ONLY = "25006";

  /** SQLSTATEs of the moment: the same statement may work on another connection. */
  private static final Set<String> TRANSIENT =
      Set.of("57P01", "57P02", "57P03", "40001", "40P01", READ_ONLY);

  private final HikariDataSource pool;
  private final Jdbi jdbi;
  private final Outage outage = new Outage(log, "Database");

  /** On its own, since a read-only database still answers most requests. */
  private final Outage readOnly = new Outage(log, "Writing to the database");

  private CompletableFuture<Void> ping = CompletableFuture.completedFuture(null); // guarded by this

  /** A pool that is empty at first: nothing is connected before the first use. */
  Database(DatabaseUrl url, int poolSize, MeterRegistry meters) {
    HikariConfig config = new HikariConfig();
    config.setPoolName("database");
    config.setDataSource(url.dataSource((int) LIMIT.toSeconds()));
    config.setMaximumPoolSize(poolSize);
    config.setInitializationFailTimeout(-1);
    // Idle connections would keep a Neon database awake, and be billed, for ever.
    config.setMinimumIdle(0);
    config.setKeepaliveTime(0);
    config.setIdleTimeout(Duration.ofMinutes(1).toMillis());
    config.setConnectionTimeout(url.poolTimeoutMillis(POOL_WAIT.toMillis()));
    config.setValidationTimeout(VALIDATION.toMillis());
    config.setExceptionOverride(new EvictReadOnly());
    config.setMetricRegistry(meters);
    pool = new HikariDataSource(config);
    jdbi = Jdbi.create(pool).installPlugin(new PostgresPlugin());
    jdbi.define("users", url.qualified("users"));
    // By default a failed statement's message quotes its arguments, and so email addresses.
    jdbi.getConfig(StatementExceptions.class)
        .setMessageRendering(StatementExceptions.MessageRendering.NONE);
  }

  /** A connection to what was the primary before a failover: HikariCP itself would keep it. */
  private static final class EvictReadOnly implements SQLExceptionOverride {
    @java.lang.Override // HikariCP's type of that name hides it
    public Override adjudicate(SQLException e) {
      return READ_ONLY.equals(e.getSQLState()) ? Override.MUST_EVICT : Override.CONTINUE_EVICT;
    }
  }

  /**
   * Does some work on a connection; once more if a failover has just cut the first one.
   *
   * @param work safe to repeat as long as it has not succeeded
   * @throws Failure DATABASE_UNAVAILABLE within 5 s
   * @throws JdbiException if the statement itself is at fault
   */
  <T> T with(HandleCallback<T, RuntimeException> work) {
    return with(Deadline.in(LIMIT), work);
  }

  /**
   * Like {@link #with(HandleCallback)}.
   *
   * @param deadline of the request; the work fails sooner if it takes longer than it may
   */
  <T> T with(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    Deadline retry = Deadline.in(RETRY_WITHIN);
    try {
      return once(work, deadline);
    } catch (JdbiException e) {
      SQLException cause = sqlException(e);
      if (!isTransient(cause) || retry.left().isZero()) {
        throw failed(e, cause);
      }
      if (!cause.getSQLState().startsWith("40")) {
        // The other pooled connections were cut, or made read-only, by the same event.
        pool.getHikariPoolMXBean().softEvictConnections();
      }
    }
    try {
      return once(work, deadline);
    } catch (JdbiException e) {
      throw failed(e, sqlException(e));
    }
  }

  /** Like {@link #with}, for work that changes the table. */
  <T> T write(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    T result = with(deadline, work);
    readOnly.succeeded();
    return result;
  }

  /** Like {@link #write}, all or nothing. */
  <T> T inTransaction(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    return write(deadline, handle -> handle.inTransaction((Handle same) -> work.withHandle(same)));
  }

  private <T> T once(HandleCallback<T, RuntimeException> work, Deadline deadline) {
    // While an outage lasts, a connection will probably take all of the time that it may.
    long needed = outage.lasts() ? pool.getConnectionTimeout() : 0;
    if (deadline.left().toMillis() <= needed) { // spent on earlier work, or in a queue
      throw Failure.because(Failure.Kind.DATABASE_UNAVAILABLE, "no time is left");
    }
    T result =
        jdbi.withHandle(
            handle -> {
              limitWait(handle.getConnection(), deadline);
              return work.withHandle(handle);
            });
    outage.succeeded();
    return result;
  }

  /** Until the connection returns to the pool, which sets it back. */
  private static void limitWait(Connection connection, Deadline deadline) {
    long millis = Math.min(LIMIT.toMillis(), deadline.left().toMillis());
    try {
      connection.setNetworkTimeout(Runnable::run, (int) Math.max(VALIDATION.toMillis(), millis));
    } catch (SQLException e) {
      throw new ConnectionException(e);
    }
  }

  private RuntimeException failed(JdbiException e, SQLException cause) {
    if (!(e instanceof ConnectionException) && !isUnavailable(cause)) {
      return e;
    }
    (READ_ONLY.equals(cause.getSQLState()) ? readOnly : outage).failed(describe(cause));
    return Failure.because(Failure.Kind.DATABASE_UNAVAILABLE, describe(cause));
  }

  /**
   * Whether the database answers in time; several who ask at once share one query.
   *
   * @param time may be less than a query may take
   */
  synchronized CompletableFuture<Boolean> answersWithin(Duration time) {
    if (ping.isDone()) {
      ping = Background.run(() -> with(handle -> handle.execute("SELECT 1")));
    }
    return ping.handle((done, e) -> e == null)
        .completeOnTimeout(false, time.toMillis(), TimeUnit.MILLISECONDS);
  }

  static SQLException sqlException(Throwable e) {
    for (Throwable cause = e; cause != null; cause = cause.getCause()) {
      if (cause instanceof SQLException found) {
        return found;
      }
    }
    return null;
  }

  private static boolean isTransient(SQLException e) {
    String state = e == null ? null : e.getSQLState();
    return state != null && (state.startsWith("08") || TRANSIENT.contains(state));
  }

  /** Whether the database, rather than the statement or its data, is at fault. */
  private static boolean isUnavailable(SQLException e) {
    if (e == null) {
      return false;
    }
    String state = e.getSQLState();
    return state == null || isTransient(e) || state.matches("(25|28|3D|53|57|58|XX|HY).*");
  }

  /** The message of a connection problem: of these, none quotes a row or a password. */
  private static String describe(SQLException e) {
    Throwable root = e.getCause() instanceof SQLException cause ? cause : e;
    return oneLine(String.valueOf(root.getMessage()))
        + (e.getSQLState() == null ? "" : " (" + e.getSQLState() + ")");
  }

  private static String oneLine(String message) {
    return message.replaceAll("\\s*\\R\\s*", " ");
  }

  /** Ends all connections. */
  @Override
  public void close() {
    pool.close();
  }

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
    SQLException cause = sqlException(e);
    if (cause == null) {
      throw new StartFailure("Migration of the database failed: " + oneLine(e.getMessage()));
    }
    String reason = describe(cause);
    if (String.valueOf(cause.getSQLState()).matches("28.*|3D.*|08004")) { // waiting cures none
      throw new StartFailure(
          "The database at "
              + url
              + " refuses the login, see DATABASE_URL and DIRECT_URL: "
              + reason);
    }
    if (!isUnavailable(cause)) {
      throw new StartFailure("Migration of the database failed: " + reason);
    }
    return reason;
  }
}
