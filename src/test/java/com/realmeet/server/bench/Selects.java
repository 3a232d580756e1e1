package com.realmeet.server.bench;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import javax.sql.DataSource;

/**
 * The limit of any server: the one statement that a known user costs, asked for by plain JDBC and
 * without HTTP.
 *
 * @param ids of the users, each as likely as any other
 */
record Selects(DataSource database, List<String> ids) {
  private static final String FIND =
      """
      SELECT id, email, name, image_url, created_at, updated_at, deleted_at
      FROM users
      WHERE id = ?
      """;

  /** How many a second the database answers to as many connections. */
  double perSecond(int connections, Duration time) throws SQLException {
    List<Connection> opened = new ArrayList<>();
    try {
      for (int i = 0; i < connections; i++) { // before the clock starts: each is a new process
        opened.add(database.getConnection());
      }
      long began = System.nanoTime();
      long end = began + time.toNanos();
      List<CompletableFuture<Long>> counts =
          opened.stream()
              .map(
                  connection ->
                      CompletableFuture.supplyAsync(
                          () -> count(connection, end), task -> new Thread(task).start()))
              .toList();
      long selects = counts.stream().mapToLong(CompletableFuture::join).sum();
      return selects * 1e9 / (System.nanoTime() - began);
    } finally {
      for (Connection connection : opened) {
        connection.close();
      }
    }
  }

  private long count(Connection connection, long end) {
    long selects = 0;
    try (PreparedStatement statement = connection.prepareStatement(FIND)) {
      for (; System.nanoTime() < end; selects++) {
        statement.setString(1, ids.get(ThreadLocalRandom.current().nextInt(ids.size())));
        try (ResultSet row = statement.executeQuery()) {
          if (!row.next()) {
            throw new IllegalStateException("a known user has no row");
          }
        }
      }
    } catch (SQLException e) {
      throw new IllegalStateException(e);
    }
    return selects;
  }
}
