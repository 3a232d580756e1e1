package com.realmeet.server;

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import com.zaxxer.hikari.SQLExceptionOverride;
import io.micrometer.core.instrument.MeterRegistry;
import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
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
 * more than 5 s, and one retry of what a failover breaks.
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
  static boolean isUnavailable(SQLException e) {
    if (e == null) {
      return false;
    }
    String state = e.getSQLState();
    return state == null || isTransient(e) || state.matches("(25|28|3D|53|57|58|XX|HY).*");
  }

  /** The message of a connection problem: of these, none quotes a row or a password. */
  static String describe(SQLException e) {
    Throwable root = e.getCause() instanceof SQLException cause ? cause : e;
    return oneLine(String.valueOf(root.getMessage()))
        + (e.getSQLState() == null ? "" : " (" + e.getSQLState() + ")");
  }

  static String oneLine(String message) {
    return message.replaceAll("\\s*\\R\\s*", " ");
  }

  /** Ends all connections. */
  @Override
  public void close() {
    pool.close();
  }
}
