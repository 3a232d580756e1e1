package com.realmeet.server.database;

import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.util.function.BooleanSupplier;
import org.postgresql.ds.PGSimpleDataSource;

/**
 * Data source of the pool that retries at a constant interval. HikariCP itself backs off: after 5 s
 * of an outage its next attempt is 5 s away, although requests wait. Delete when that is a setting.
 */
final class RetryingDataSource extends PGSimpleDataSource {
  private static final Duration INTERVAL = Duration.ofMillis(250);

  private transient volatile BooleanSupplier isWaitedFor = () -> false;
  private volatile SQLException lastFailure;

  /**
   * Sets whether a failed attempt is repeated.
   *
   * @param isWaitedFor returns true while a thread waits for a connection
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
        if (SqlErrors.isLoginRefused(e) || !isWaitedFor.getAsBoolean()) {
          throw e;
        }
      }
      try {
        Thread.sleep(INTERVAL.toMillis());
      } catch (InterruptedException e) { // the pool is being closed
        Thread.currentThread().interrupt();
        throw lastFailure;
      }
    }
  }
}
