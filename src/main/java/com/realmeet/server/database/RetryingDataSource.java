package com.realmeet.server.database;

import com.realmeet.server.core.Threads;
import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.util.function.BooleanSupplier;
import org.postgresql.ds.PGSimpleDataSource;

/**
 * Data source of the pool that retries at a constant interval. HikariCP itself backs off: after 5 s
 * of an outage its next attempt is 5 s away, although requests wait. Delete when that is a setting.
 * A full database is left to HikariCP, since each attempt costs it the start of a process.
 */
final class RetryingDataSource extends PGSimpleDataSource {
  private static final Duration INTERVAL = Duration.ofMillis(250);

  private transient volatile BooleanSupplier isWaitedFor = () -> false;
  private volatile SQLException lastFailure;

  /**
   * Sets whether a failed attempt is repeated.
   *
   * @param isWaitedFor returns true while the pool is open and a thread waits for a connection; the
   *     end of the pool waits for an attempt and does not interrupt it
   */
  void retryWhile(BooleanSupplier isWaitedFor) {
    this.isWaitedFor = isWaitedFor;
  }

  /** Returns why the last attempt failed; null if it succeeded. */
  SQLException lastFailure() {
    return lastFailure;
  }

  @Override
  public Connection getConnection() throws SQLException {
    while (true) {
      try {
        Connection connection = super.getConnection();
        lastFailure = null;
        return connection;
      } catch (SQLException e) {
        lastFailure = e;
        if (SqlErrors.isLoginRefused(e) || SqlErrors.isFull(e) || !isWaitedFor.getAsBoolean()) {
          throw e;
        }
      }
      Threads.sleep(INTERVAL);
    }
  }
}
