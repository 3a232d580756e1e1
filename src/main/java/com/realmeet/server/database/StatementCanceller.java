package com.realmeet.server.database;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Threads;
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
 * Cancels statements in Postgres that nobody waits for any longer: when a client gives up, Postgres
 * itself runs them to their end. A cancel request (PostgreSQL protocol, "Canceling Requests in
 * Progress") needs no session state, so that it works through a transaction pooler too, which
 * neither {@code SET statement_timeout} nor the startup parameter of that name does.
 *
 * <p>A tick looks at all connections in use: a timer for each statement, as {@code
 * Statement.setQueryTimeout} has it, would wake its thread for each.
 */
final class StatementCanceller implements AutoCloseable {
  private static final Duration TICK = Duration.ofMillis(100);

  private final Set<Watch> watches = ConcurrentHashMap.newKeySet();
  private final ScheduledExecutorService ticks =
      Executors.newSingleThreadScheduledExecutor(Threads.named("statement-timeouts"));

  /** A cancel request is a connection of its own, and waits for one that hangs. */
  private final ExecutorService cancels = Executors.newCachedThreadPool(Threads.named("cancel"));

  StatementCanceller() {
    ticks.scheduleWithFixedDelay(
        () -> watches.forEach(Watch::cancelIfOverdue),
        TICK.toMillis(),
        TICK.toMillis(),
        TimeUnit.MILLISECONDS);
  }

  /** Cancels what runs on a connection from a moment on, again and again, until {@code end}. */
  Watch watch(PGConnection connection, Deadline deadline) {
    Watch watch = new Watch(connection, deadline);
    watches.add(watch);
    return watch;
  }

  /** The use of a connection by one piece of work. */
  final class Watch {
    private final PGConnection connection;
    private final Deadline deadline;

    // Guarded by this:
    private boolean sending;
    private boolean cancelled;
    private boolean ended;

    private Watch(PGConnection connection, Deadline deadline) {
      this.connection = connection;
      this.deadline = deadline;
    }

    /**
     * Ends the watch.
     *
     * @return whether a cancel was sent: it may still arrive, and must not meet the next statement
     */
    boolean end() {
      watches.remove(this);
      synchronized (this) {
        ended = true;
        return cancelled;
      }
    }

    private synchronized void cancelIfOverdue() {
      if (!ended && !sending && deadline.remaining().isZero()) {
        sending = true;
        cancelled = true;
        cancels.execute(this::cancel);
      }
    }

    private void cancel() {
      try {
        connection.cancelQuery();
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
