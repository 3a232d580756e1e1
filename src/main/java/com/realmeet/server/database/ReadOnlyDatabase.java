package com.realmeet.server.database;

import com.realmeet.server.core.CheckLine;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.function.Consumer;
import java.util.function.Function;
import javax.sql.DataSource;
import org.jdbi.v3.core.ConnectionException;
import org.jdbi.v3.core.Handle;
import org.jdbi.v3.core.JdbiException;
import org.postgresql.ds.PGSimpleDataSource;

/**
 * Read-only connection for the command {@code check}. Each use is a short READ ONLY transaction
 * that is rolled back, so that no lock and no setting outlives it, also behind a pooler.
 */
public final class ReadOnlyDatabase implements AutoCloseable {
  /** Maximum seconds for any response of Postgres; longer than the limits below. */
  static final int SOCKET_TIMEOUT = 3;

  /**
   * Sets limits within the transaction: a check must neither hold nor wait for a lock any longer.
   */
  private static final String LIMITS =
      """
      SELECT concat(
        set_config('statement_timeout', '2s', true),
        set_config('lock_timeout', '500ms', true),
        set_config('search_path', coalesce(quote_ident(CAST(:schema AS text)), current_setting('search_path')), true))
      """;

  private final String schema;
  private final Connection connection;
  private final Handle handle;
  private boolean broken;

  /**
   * Connects.
   *
   * @throws SQLException within 5 s if that fails, see {@link SqlErrors#whyUnavailable}
   */
  public ReadOnlyDatabase(DatabaseUrl url) throws SQLException {
    schema = url.schema();
    connection = source(url).getConnection();
    connection.setReadOnly(true);
    handle = Database.jdbi(() -> connection, url).open();
  }

  private static PGSimpleDataSource source(DatabaseUrl url) {
    PGSimpleDataSource source = url.dataSource(SOCKET_TIMEOUT);
    source.setPrepareThreshold(0); // it may be an unknown pooler
    return source;
  }

  /**
   * Runs queries in a read-only transaction.
   *
   * @throws JdbiException if one fails
   */
  <T> T read(Function<Handle, T> work) {
    handle.begin();
    try {
      handle.createQuery(LIMITS).bind("schema", schema).mapTo(String.class).one();
      return work.apply(handle);
    } finally {
      if (!isClosed()) { // pgjdbc closes a lost connection
        handle.rollback();
      }
    }
  }

  /**
   * Runs a check and adds its result, or a line about why it failed. Once the connection is lost,
   * for which there is a line already, it adds nothing.
   *
   * @param subject of the line if the check fails
   * @param lines receives the line
   * @param check returns a line, or null to add none
   */
  public void check(String subject, Consumer<CheckLine> lines, Function<Handle, CheckLine> check) {
    if (broken) {
      return;
    }
    try {
      CheckLine line = read(check);
      if (line != null) {
        lines.accept(line);
      }
    } catch (JdbiException e) {
      SQLException cause = SqlErrors.sqlException(e);
      broken = isClosed();
      String state = cause == null ? null : cause.getSQLState();
      if ("57014".equals(state) || "55P03".equals(state)) {
        lines.accept(
            CheckLine.warn(
                subject,
                "could not be looked at in time, since the table is large or locked by another"
                    + " session: try again later"));
      } else {
        lines.accept(
            CheckLine.fail(
                subject,
                SqlErrors.whyRejected(e)
                    .orElseGet(
                        () -> cause == null ? e.getMessage() : SqlErrors.whyUnavailable(cause))));
      }
    }
  }

  private boolean isClosed() {
    try {
      return connection.isClosed();
    } catch (SQLException e) {
      return true;
    }
  }

  /** Returns true if there is a pooler in between. */
  boolean isBehindPooler() {
    try {
      return Database.isBehindPooler(connection);
    } catch (SQLException e) {
      throw new ConnectionException(e);
    }
  }

  /**
   * Returns the current transaction as a data source, for a library that opens, commits and closes
   * connections: these calls have no effect.
   */
  DataSource asDataSource() {
    return proxy(
        DataSource.class,
        (proxy, method, arguments) -> {
          if (!method.getName().equals("getConnection")) {
            throw new UnsupportedOperationException(method.getName());
          }
          return proxy(Connection.class, this::withinTransaction);
        });
  }

  private Object withinTransaction(Object proxy, Method method, Object[] arguments)
      throws Throwable {
    try {
      return switch (method.getName()) {
        case "close", "commit", "rollback", "setAutoCommit", "setReadOnly" -> null;
        case "getAutoCommit" -> true;
        default -> method.invoke(connection, arguments);
      };
    } catch (InvocationTargetException e) {
      throw e.getCause();
    }
  }

  private static <T> T proxy(Class<T> type, InvocationHandler handler) {
    return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, handler));
  }

  @Override
  public void close() {
    try {
      connection.close();
    } catch (SQLException e) {
      broken = true; // it is not used any longer
    }
  }
}
