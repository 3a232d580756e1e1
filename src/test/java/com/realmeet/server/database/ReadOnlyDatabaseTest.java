package com.realmeet.server.database;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.realmeet.server.testing.TestPostgres;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import org.jdbi.v3.core.JdbiException;
import org.junit.jupiter.api.Test;

/** Postgres itself refuses whatever would change something, and nothing outlives a use. */
class ReadOnlyDatabaseTest {
  private final String database = TestPostgres.newDatabase();

  @Test
  void postgresRefusesChanges() throws SQLException {
    try (ReadOnlyDatabase readOnly = new ReadOnlyDatabase(DatabaseUrl.parse(database))) {
      for (String sql : List.of("DELETE FROM users", "CREATE TABLE t ()", "CREATE SCHEMA s")) {
        JdbiException refused =
            assertThrows(
                JdbiException.class, () -> readOnly.read(handle -> handle.execute(sql)), sql);
        assertEquals(SqlErrors.READ_ONLY, SqlErrors.sqlException(refused).getSQLState());
      }
      assertEquals(
          2,
          readOnly.<Integer>read(
              handle -> (int) handle.createQuery("SELECT 2").mapTo(int.class).one()));
    }
  }

  @Test
  void libraryThatCommitsAndClosesDoesNeither() throws SQLException {
    // Databases that are copies of one template have tables with the same oids.
    String backends =
        """
        SELECT count(*)
        FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE d.datname = current_database() AND relation = 'users'::regclass
        """;
    try (ReadOnlyDatabase readOnly = new ReadOnlyDatabase(DatabaseUrl.parse(database))) {
      readOnly.read(
          handle -> {
            try (Connection connection = readOnly.asDataSource().getConnection();
                Statement statement = connection.createStatement()) {
              connection.setReadOnly(false);
              connection.setAutoCommit(true);
              statement.execute("SELECT set_config('search_path', 'pg_catalog', false) FROM users");
              statement.execute("SELECT set_config('search_path', 'pg_catalog', false)");
              connection.commit();
              assertThrows(SQLException.class, () -> statement.execute("CREATE TABLE t ()"));
            } catch (SQLException e) {
              throw new IllegalStateException(e);
            }
            return null;
          });

      assertEquals(List.of("0"), TestPostgres.query(database, backends));
      assertEquals(
          "\"$user\", public|0",
          readOnly.read(
              handle ->
                  handle
                      .createQuery(
                          "SELECT current_setting('search_path') || '|' || count(*) FROM users")
                      .mapTo(String.class)
                      .one()));
    }
  }
}
