package com.realmeet.server.database;

import static com.realmeet.server.core.Deadline.REQUEST_TIMEOUT;
import static com.realmeet.server.database.SqlErrors.READ_ONLY;
import static com.realmeet.server.database.SqlErrors.isTransient;
import static com.realmeet.server.database.SqlErrors.isUnavailable;
import static com.realmeet.server.database.SqlErrors.oneLine;
import static com.realmeet.server.database.SqlErrors.sqlException;
import static com.realmeet.server.database.SqlErrors.whyUnavailable;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.LogRateLimiter;
import com.realmeet.server.core.Outage;
import com.realmeet.server.core.Threads;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import com.zaxxer.hikari.pool.HikariPool;
import io.micrometer.core.instrument.MeterRegistry;
import java.lang.reflect.Type;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.SQLTransientConnectionException;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.jdbi.v3.core.ConnectionException;
import org.jdbi.v3.core.ConnectionFactory;
import org.jdbi.v3.core.Handle;
import org.jdbi.v3.core.HandleCallback;
import org.jdbi.v3.core.Jdbi;
import org.jdbi.v3.core.JdbiException;
import org.jdbi.v3.core.config.ConfigRegistry;
import org.jdbi.v3.core.mapper.RowMapper;
import org.jdbi.v3.core.mapper.RowMappers;
import org.jdbi.v3.core.mapper.reflect.ConstructorMapper;
import org.jdbi.v3.core.statement.StatementException;
import org.jdbi.v3.core.statement.StatementExceptions;
import org.jdbi.v3.postgres.PostgresPlugin;
import org.postgresql.PGConnection;
import org.postgresql.core.BaseConnection;
import org.postgresql.core.TransactionState;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Connection pool for any number of threads, which may block. It lets an idle Neon database
 * suspend, ends every call of a request within 5 s, cancels statements in Postgres that time out,
 * and retries after a failover where that is safe.
 *
 * <p>An application's DAO calls {@link #read}, {@link #write} or {@link #writeIdempotent}. In its
 * SQL, {@code <schema>} before a table's name is replaced by the schema of the URL. Rows map to
 * records, a column {@code host_id} to the component {@code hostId}. Calls may be nested: the inner
 * one runs on the connection, in the transaction and by the deadline of the outer, which goes on if
 * the inner one fails. A setting needs SET LOCAL: after SET it would stay for later calls. All its
 * DAOs together use at most the pool's size less two connections, but one at least (a bulkhead), so
 * that their slow queries block neither sync nor readiness.
 */
public final class Database implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Database.class);

  /** HikariCP's validation timeout: the time in which an idle connection proves to be alive. */
  private static final Duration VALIDATION_TIMEOUT = Duration.ofMillis(500);

  /**
   * Minimum time until a call is cancelled: with a nearer deadline, a late request would close a
   * healthy connection.
   */
  private static final Duration MIN_CALL_TIME = Duration.ofMillis(200);

  /**
   * Time from the begin of a call within which a failure is retried: of a request that begins with
   * it, 3 s are left for the second try, the time to get a connection. It includes the deadlocks
   * that Postgres detects after 1 s.
   */
  private static final Duration RETRY_WINDOW = Duration.ofMillis(1500);

  /**
   * How long before the deadline of a call its statement is cancelled; if that does not end it,
   * StatementCanceller closes the connection at the deadline.
   */
  private static final Duration CANCEL_MARGIN = Duration.ofMillis(200);

  /** Seconds to wait for any response: more than a call takes, which StatementCanceller ends. */
  private static final int SOCKET_TIMEOUT = 6;

  /** Connections of the pool that are reserved for sync and readiness. */
  private static final int RESERVED_CONNECTIONS = 2;

  private static final ClassValue<RowMapper<?>> RECORDS =
      new ClassValue<>() {
        @Override
        protected RowMapper<?> computeValue(Class<?> type) {
          return ConstructorMapper.of(type);
        }
      };

  private final RetryingDataSource source;
  private final HikariDataSource pool;

  /** Call that a thread is making, for its nested calls and for {@link #openConnection}. */
  private final ThreadLocal<Call> current;

  private final Jdbi jdbi;
  private final StatementCanceller canceller;
  private final Outage outage;

  /** Separate from {@link #outage}, since a read-only database still serves most requests. */
  private final Outage readOnly;

  /** True while frequent statements are prepared in Postgres (server-side prepared statements). */
  private final AtomicBoolean preparedStatements;

  private final AtomicBoolean poolerChecked;
  private final LogRateLimiter warnings;

  /**
   * Permits of the bulkhead, one for each connection that an application may use; null for the
   * server's own work.
   */
  private final Semaphore applicationPermits;

  private final AtomicLong lastUseNanos;

  private final Database reserved;

  private CompletableFuture<Void> ping = CompletableFuture.completedFuture(null); // guarded by this

  /**
   * Creates an empty pool, which connects on first use.
   *
   * @param poolSize maximum number of connections
   */
  public Database(DatabaseUrl url, int poolSize, MeterRegistry meters) {
    source = url.configure(new RetryingDataSource(), SOCKET_TIMEOUT);
    source.setCancelSignalTimeout(2); // seconds
    preparedStatements = new AtomicBoolean(!url.isPooled());
    poolerChecked = new AtomicBoolean(url.isPoolingKnown());
    HikariConfig config = new HikariConfig();
    config.setPoolName("database");
    config.setDataSource(source);
    config.setMaximumPoolSize(poolSize);
    config.setInitializationFailTimeout(-1);
    // Idle connections would keep a Neon database awake, which is billed.
    config.setMinimumIdle(0);
    config.setKeepaliveTime(0);
    config.setIdleTimeout(Duration.ofMinutes(1).toMillis());
    config.setConnectionTimeout(url.poolTimeoutMillis());
    config.setValidationTimeout(VALIDATION_TIMEOUT.toMillis());
    config.setMetricRegistry(meters);
    pool = new HikariDataSource(config);
    source.retryWhile(
        () -> !pool.isClosed() && pool.getHikariPoolMXBean().getThreadsAwaitingConnection() > 0);
    current = new ThreadLocal<>();
    jdbi = jdbi(this::openConnection, url);
    jdbi.getConfig(RowMappers.class).register(Database::recordMapper);
    canceller = new StatementCanceller();
    outage = new Outage(log, "Database");
    readOnly = new Outage(log, "Writing to the database");
    warnings = new LogRateLimiter();
    lastUseNanos = new AtomicLong();
    applicationPermits = new Semaphore(Math.max(1, poolSize - RESERVED_CONNECTIONS), true);
    reserved = new Database(this);
  }

  /** Creates a Jdbi with the settings that all connections of the server share. */
  static Jdbi jdbi(ConnectionFactory connections, DatabaseUrl url) {
    Jdbi jdbi = Jdbi.create(connections);
    jdbi.installPlugin(
        new PostgresPlugin() {
          /** Does not query the functions for large objects, which are unused. */
          @Override
          public Handle customizeHandle(Handle handle) {
            return handle;
          }
        });
    // A search path is state of the connection, which poolers reject or mix up.
    jdbi.define("schema", url.qualified(""));
    // By default the message of a failed statement quotes its arguments, such as email addresses.
    jdbi.getConfig(StatementExceptions.class)
        .setMessageRendering(StatementExceptions.MessageRendering.NONE);
    return jdbi;
  }

  private static Optional<RowMapper<?>> recordMapper(Type type, ConfigRegistry jdbi) {
    return type instanceof Class<?> row && row.isRecord()
        ? Optional.of(RECORDS.get(row))
        : Optional.empty();
  }

  private Database(Database shared) {
    source = shared.source;
    pool = shared.pool;
    current = shared.current;
    jdbi = shared.jdbi;
    canceller = shared.canceller;
    outage = shared.outage;
    readOnly = shared.readOnly;
    preparedStatements = shared.preparedStatements;
    poolerChecked = shared.poolerChecked;
    warnings = shared.warnings;
    lastUseNanos = shared.lastUseNanos;
    applicationPermits = null;
    reserved = this;
  }

  /**
   * Returns the same pool without the bulkhead, for the server's own work only. Its calls are never
   * nested in those of an application: others may see the rows of a user before the application
   * commits.
   */
  public Database reserved() {
    return reserved;
  }

  private boolean isReserved() {
    return applicationPermits == null;
  }

  /**
   * Runs queries by the current deadline, which is that of the thread's request; see {@link
   * #read(Deadline, HandleCallback)}.
   */
  public <T> T read(HandleCallback<T, RuntimeException> work) {
    return read(Deadline.current(), work);
  }

  /**
   * Runs queries, and retries once after a transient error such as a failover.
   *
   * @param deadline of the request: a statement that exceeds it, or 4.5 s, is cancelled in Postgres
   * @throws Failure DATABASE_UNAVAILABLE, or OVERLOADED if too many slow queries run at once
   * @throws JdbiException if a statement itself is at fault, see {@link SqlErrors}
   */
  public <T> T read(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    return withRetry(deadline, work);
  }

  /**
   * Runs statements in one transaction by the current deadline, see {@link #write(Deadline,
   * HandleCallback)}.
   */
  public <T> T write(HandleCallback<T, RuntimeException> work) {
    return write(Deadline.current(), work);
  }

  /**
   * Runs statements in one transaction. It is retried only if the first one certainly was not
   * committed, so that nothing is inserted twice; if the connection breaks during the commit, it
   * fails, although it may have been committed.
   *
   * @param work changes nothing but the database, since it may run twice
   * @throws Failure as {@link #read}
   * @throws JdbiException as {@link #read}
   */
  public <T> T write(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    T result = withRetry(deadline, handle -> inTransaction(handle, work));
    readOnly.succeeded();
    return result;
  }

  /**
   * Runs idempotent statements by the current deadline, see {@link #writeIdempotent(Deadline,
   * HandleCallback)}.
   */
  public <T> T writeIdempotent(HandleCallback<T, RuntimeException> work) {
    return writeIdempotent(Deadline.current(), work);
  }

  /**
   * Runs idempotent statements, such as an upsert, without a transaction. Retried like {@link
   * #read}, whether or not the first try took effect.
   *
   * @throws Failure as {@link #read}
   * @throws JdbiException as {@link #read}
   */
  public <T> T writeIdempotent(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    T result = withRetry(deadline, work);
    readOnly.succeeded();
    return result;
  }

  private <T> T inTransaction(Handle handle, HandleCallback<T, RuntimeException> work) {
    if (handle.isInTransaction()) {
      return work.withHandle(handle);
    }
    Call call = current.get();
    call.isCommitting = false;
    T result =
        handle.inTransaction(
            (Handle same) -> {
              T value = work.withHandle(same);
              requireCommittable(same);
              call.isCommitting = true;
              return value;
            });
    call.hasCommitted = true;
    return result;
  }

  /**
   * Requires a transaction in which no statement has failed: Postgres answers a commit of another
   * one with a rollback, which pgjdbc does not report.
   */
  private static void requireCommittable(Handle handle) {
    if (transactionState(handle.getConnection()) == TransactionState.FAILED) {
      throw new IllegalStateException(
          "a statement of this transaction has failed: catch its exception outside, or make it in"
              + " a nested call");
    }
  }

  /** Returns the state of a connection's transaction; IDLE if the connection is closed. */
  private static TransactionState transactionState(Connection connection) {
    try {
      return connection.unwrap(BaseConnection.class).getTransactionState();
    } catch (SQLException e) {
      return TransactionState.IDLE;
    }
  }

  private <T> T withRetry(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    Call outer = current.get();
    if (outer != null && outer.isReserved == isReserved()) {
      return nested(outer, work);
    }
    if (isReserved()) {
      return tryTwice(deadline, work);
    }
    acquirePermit(deadline);
    try {
      return tryTwice(deadline, work);
    } finally {
      applicationPermits.release();
    }
  }

  private void acquirePermit(Deadline deadline) {
    try {
      if (applicationPermits.tryAcquire(deadline.remaining().toNanos(), TimeUnit.NANOSECONDS)) {
        return;
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    String reason = "too many slow queries at once";
    if (warnings.allows(reason)) {
      log.warn(
          "A query of the application found no free connection in time: {}; all but {} of "
              + "DATABASE_POOL_SIZE are busy with others",
          reason,
          RESERVED_CONNECTIONS);
    }
    throw Failure.of(Failure.Kind.OVERLOADED, reason);
  }

  /** Runs work so that, if it fails, a transaction of the outer call can go on. */
  private <T> T nested(Call outer, HandleCallback<T, RuntimeException> work) {
    Handle handle = outer.handle;
    if (!handle.isInTransaction()) {
      return work.withHandle(handle);
    }
    String savepoint = "nested_" + ++outer.savepoints;
    handle.savepoint(savepoint);
    try {
      T result = work.withHandle(handle);
      requireCommittable(handle);
      handle.releaseSavepoint(savepoint);
      return result;
    } catch (RuntimeException e) {
      try {
        handle.rollbackToSavepoint(savepoint);
      } catch (RuntimeException lost) { // with the connection, of which e tells
        e.addSuppressed(lost);
      }
      throw e;
    }
  }

  /** A try of some work, and of the calls that are nested in it. */
  private static final class Call {
    final Deadline deadline;
    final boolean isReserved;

    /** Handle of its connection, once that is open. */
    Handle handle;

    /** Becomes true when a commit begins. */
    boolean isCommitting;

    boolean hasCommitted;

    /** True if a statement was cancelled, since it took too long. */
    boolean isCancelled;

    /** Number of savepoints so far, which gives each its name. */
    int savepoints;

    Call(Deadline deadline, boolean isReserved) {
      this.deadline = deadline;
      this.isReserved = isReserved;
    }

    /** Returns true if there may be time for a second try, and it writes nothing twice. */
    boolean isRepeatable(SQLException e) {
      return !isCancelled && !hasCommitted && (!isCommitting || SqlErrors.isRolledBack(e));
    }
  }

  private <T> T tryTwice(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    Deadline retry = Deadline.in(RETRY_WINDOW);
    Call call = new Call(deadline, isReserved());
    try {
      return tryOnce(work, call);
    } catch (JdbiException e) {
      SQLException cause = sqlException(e);
      if (SqlErrors.isPreparedStatementLost(cause)) {
        disablePreparedStatements(whyUnavailable(cause));
      } else if (isTransient(cause) && !SqlErrors.isRolledBack(cause)) {
        // the same event has cut, outdated or made read-only the other pooled connections
        pool.getHikariPoolMXBean().softEvictConnections();
      }
      if (!isTransient(cause) || retry.remaining().isZero() || !call.isRepeatable(cause)) {
        throw toException(e, cause);
      }
    }
    try {
      return tryOnce(work, new Call(deadline, isReserved()));
    } catch (JdbiException e) {
      throw toException(e, sqlException(e));
    }
  }

  /**
   * Waits no longer than the work has time: the pool's own limit is the same for all. The cast is a
   * workaround for HikariCP 7.1, whose data source has no method with a timeout. Delete when it
   * has.
   */
  private Connection openConnection() throws SQLException {
    long millis = Math.max(1, current.get().deadline.remaining().toMillis());
    HikariPool connections = (HikariPool) pool.getHikariPoolMXBean();
    try {
      return connections.getConnection(Math.min(pool.getConnectionTimeout(), millis));
    } catch (SQLTransientConnectionException e) {
      // Without an SQLSTATE it is not transient here: attempts were repeated for all the time there
      // is, and the other connections of the pool may be healthy.
      throw new SQLTransientConnectionException(
          e.getMessage(), e.getCause() != null ? e.getCause() : source.lastFailure());
    }
  }

  private <T> T tryOnce(HandleCallback<T, RuntimeException> work, Call call) {
    Deadline deadline = call.deadline;
    // during an outage, getting a connection probably takes the whole connection timeout
    boolean down = outage.isDown();
    if (deadline.remaining().toMillis() <= (down ? pool.getConnectionTimeout() : 0)) {
      throw Failure.of(
          down ? Failure.Kind.DATABASE_UNAVAILABLE : Failure.Kind.OVERLOADED,
          "no time is left for the database");
    }
    Call outer = current.get();
    current.set(call);
    T result;
    try (Handle handle = jdbi.open()) {
      call.handle = handle;
      result = watched(handle, work, call);
    } finally {
      current.set(outer);
    }
    if (call.isCancelled) {
      throw cancelledWithSuccess();
    }
    outage.succeeded();
    lastUseNanos.set(System.nanoTime());
    return result;
  }

  /**
   * Runs work on a connection, which is closed afterwards if a statement had to be cancelled, or
   * has begun a transaction that would go on with the next call.
   */
  private <T> T watched(Handle handle, HandleCallback<T, RuntimeException> work, Call call) {
    Connection connection = handle.getConnection();
    StatementCanceller.Watch watch = canceller.watch(connection, cancelTime(call.deadline));
    try {
      prepare(connection);
      T result = work.withHandle(handle);
      if (transactionState(connection) != TransactionState.IDLE) {
        throw new IllegalStateException(
            "a statement has begun a transaction that is not ended: call write instead");
      }
      return result;
    } finally {
      call.isCancelled = watch.end();
      if (call.isCancelled || transactionState(connection) != TransactionState.IDLE) {
        pool.evictConnection(connection);
      }
    }
  }

  /**
   * Returns the failure for a statement that succeeded although it was cancelled. It may be a
   * commit whose wait for a synchronous standby was cancelled: Postgres then reports success, but a
   * failover would lose it.
   */
  private Failure cancelledWithSuccess() {
    String reason =
        "a statement was cancelled, since it took too long: look for locks, slow queries and "
            + "SyncRep, a wait for a synchronous standby, in pg_stat_activity";
    if (isReserved()) {
      outage.failed(reason);
    } else {
      warnOfSlowQuery(reason);
    }
    return Failure.of(Failure.Kind.DATABASE_UNAVAILABLE, reason);
  }

  /**
   * Returns the {@link System#nanoTime} of the last successful statement; a database that suspends
   * when idle stays awake for some minutes after it.
   */
  public long lastUseNanos() {
    return lastUseNanos.get();
  }

  /** Returns when a call that begins now is cancelled. */
  private static Deadline cancelTime(Deadline deadline) {
    Deadline latest = Deadline.earlier(deadline, Deadline.in(REQUEST_TIMEOUT));
    return Deadline.later(latest.minus(CANCEL_MARGIN), Deadline.in(MIN_CALL_TIME));
  }

  private void prepare(Connection connection) {
    try {
      if (poolerChecked.compareAndSet(false, true)) {
        detectPooler(connection);
      }
      if (!preparedStatements.get()) {
        // The pool was opening this connection when prepared statements were turned off.
        connection.unwrap(PGConnection.class).setPrepareThreshold(0);
      }
    } catch (SQLException e) {
      throw new ConnectionException(e);
    }
  }

  /**
   * Turns prepared statements off behind a pooler. In transaction mode, the name of a prepared
   * statement may refer to another client's statement, and that does not always fail.
   */
  private void detectPooler(Connection connection) throws SQLException {
    try {
      if (isBehindPooler(connection)) {
        disablePreparedStatements("its process id is not the one that Postgres knows");
      }
    } catch (SQLException e) {
      poolerChecked.set(false); // not known yet: the database has failed, for example
      throw e;
    }
  }

  /** Returns true if there is a pooler in between: it gives each client an invented process id. */
  static boolean isBehindPooler(Connection connection) throws SQLException {
    int pid = Integer.parseInt(Migrations.query(connection, "SELECT pg_backend_pid()"));
    return pid != connection.unwrap(PGConnection.class).getBackendPID();
  }

  private void disablePreparedStatements(String sign) {
    if (preparedStatements.compareAndSet(true, false)) {
      source.setPrepareThreshold(0);
      pool.getHikariPoolMXBean().softEvictConnections();
      log.warn(
          "DATABASE_URL leads to a connection pooler ({}): server-side prepared statements are off "
              + "from now on. Add pgbouncer=true to DATABASE_URL, and set DIRECT_URL",
          sign);
    }
  }

  private RuntimeException toException(JdbiException e, SQLException cause) {
    if (!(e instanceof ConnectionException) && !isUnavailable(cause)) {
      return e;
    }
    String reason = whyUnavailable(cause);
    if (READ_ONLY.equals(cause.getSQLState())) {
      readOnly.failed(reason);
    } else if (isReserved() || !SqlErrors.isCancelled(cause)) {
      outage.failed(reason);
    } else {
      warnOfSlowQuery(reason + statement(e));
    }
    return Failure.of(Failure.Kind.DATABASE_UNAVAILABLE, reason);
  }

  /** Warns of a cancelled query of the application, which is no outage: the database is healthy. */
  private void warnOfSlowQuery(String reason) {
    if (warnings.allows("cancelled")) {
      log.warn("A query of the application was too slow, {}", reason);
    }
  }

  /**
   * Returns the first 80 characters of the statement, without literals, which may be personal data.
   */
  private static String statement(JdbiException e) {
    if (!(e instanceof StatementException statement) || statement.getStatementContext() == null) {
      return "";
    }
    String sql =
        oneLine(String.valueOf(statement.getStatementContext().getRawSql()))
            .replaceAll("'[^']*'?|\\b\\d+", "?");
    return ": " + sql.substring(0, Math.min(80, sql.length()));
  }

  /**
   * Pings the database; concurrent calls share one query.
   *
   * @param timeout of this call; the query itself may go on
   * @return true if the database responded in time
   */
  public boolean ping(Duration timeout) {
    return sharedPing()
        .handle((done, e) -> e == null)
        .completeOnTimeout(false, timeout.toMillis(), TimeUnit.MILLISECONDS)
        .join();
  }

  private synchronized CompletableFuture<Void> sharedPing() {
    if (ping.isDone()) {
      ping = Threads.run(() -> reserved().read(handle -> handle.execute("SELECT 1")));
    }
    return ping;
  }

  /** Closes all connections. */
  @Override
  public void close() {
    pool.close();
    canceller.close();
  }
}
