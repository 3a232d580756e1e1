package com.realmeet.server.database;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Threads;
import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;

/**
 * Cancels statements in Postgres whose callers have timed out; without that, Postgres runs them to
 * the end. A cancel request (PostgreSQL protocol, "Canceling Requests in Progress") needs no
 * session state, so it also works through a transaction pooler, which neither {@code SET
 * statement_timeout} nor the startup parameter of that name does.
 *
 * <p>One periodic check covers all connections in use: a timer per statement, as in {@code
 * Statement.setQueryTimeout}, would wake a thread for each.
 */
final class StatementCanceller implements AutoCloseable {
  /** Interval of the check, and so the precision of the timeouts. */
  private static final Duration TICK = Duration.ofMillis(100);

  /**
   * Time from the cancel request to the end of the connection, if that has not ended the statement:
   * the database or the network is probably frozen. A network timeout would begin anew with each
   * statement.
   */
  private static final Duration ABORT_DELAY = Duration.ofMillis(200);

  private final Set<Watch> watches = ConcurrentHashMap.newKeySet();
  private final ScheduledExecutorService ticks =
      Executors.newSingleThreadScheduledExecutor(Threads.named("statement-timeouts"));

  /** Threads for cancel requests: each opens its own connection, and blocks if that hangs. */
  private final ExecutorService cancels = Executors.newCachedThreadPool(Threads.named("cancel"));

  /** Starts the periodic check. */
  StatementCanceller() {
    ticks.scheduleWithFixedDelay(
        () -> watches.forEach(Watch::cancelIfOverdue),
        TICK.toMillis(),
        TICK.toMillis(),
        TimeUnit.MILLISECONDS);
  }

  /** Cancels the statements on a connection from a time on, repeatedly, until {@link Watch#end}. */
  Watch watch(Connection connection, Deadline cancelTime) {
    Watch watch = new Watch(connection, cancelTime);
    watches.add(watch);
    return watch;
  }

  /** Use of a connection for one call. */
  final class Watch {
    private final Connection connection;
    private final Deadline cancelTime;
    private final Deadline abortTime;

    // Guarded by this:
    private boolean sending;
    private boolean cancelled;
    private boolean ended;

    private Watch(Connection connection, Deadline cancelTime) {
      this.connection = connection;
      this.cancelTime = cancelTime;
      this.abortTime = new Deadline(cancelTime.nanoTime() + ABORT_DELAY.toNanos());
    }

    /**
     * Ends the watch.
     *
     * @return true if a cancel was sent: it may still arrive, so the connection must not be reused
     */
    boolean end() {
      watches.remove(this);
      synchronized (this) {
        ended = true;
        return cancelled;
      }
    }

    private synchronized void cancelIfOverdue() {
      if (ended || !cancelTime.remaining().isZero()) {
        return;
      }
      if (cancelled && abortTime.remaining().isZero()) { // not before the cancel request
        abort();
      }
      cancelled = true;
      if (!sending) {
        sending = true;
        cancels.execute(this::cancel);
      }
    }

    private void abort() {
      try {
        connection.abort(cancels);
      } catch (SQLException e) {
        // It has been closed meanwhile.
      }
    }

    private void cancel() {
      try {
        connection.unwrap(PGConnection.class).cancelQuery();
      } catch (SQLException e) {
        // The connection has been closed meanwhile, or Postgres cannot be reached.
      } finally {
        synchronized (this) {
          sending = false;
        }
      }
    }
  }

  @Override
  public void close() {
    ticks.shutdownNow();
    cancels.shutdown();
  }
}
