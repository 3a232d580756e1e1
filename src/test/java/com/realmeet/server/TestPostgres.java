package com.realmeet.server;

import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.testcontainers.DockerClientFactory;
import org.testcontainers.postgresql.PostgreSQLContainer;
import org.testcontainers.utility.DockerImageName;

/**
 * A real Postgres for all tests: the one that TEST_DATABASE_URL names, else a container if a Docker
 * engine answers, else embedded binaries. Each caller gets a database of its own in it.
 */
final class TestPostgres {
  private static final AtomicInteger databases = new AtomicInteger();
  private static final String URL = start();

  private TestPostgres() {}

  private static String start() {
    String given = System.getenv("TEST_DATABASE_URL");
    if (given != null && !given.isEmpty()) {
      return given;
    }
    if (DockerClientFactory.instance().isDockerAvailable()) {
      String image = System.getenv().getOrDefault("TEST_POSTGRES_IMAGE", "postgres:17-alpine");
      PostgreSQLContainer postgres =
          new PostgreSQLContainer(
              DockerImageName.parse(image).asCompatibleSubstituteFor("postgres"));
      postgres.withCommand("postgres", "-c", "fsync=off", "-c", "max_connections=300").start();
      return "postgresql://%s:%s@%s:%d/%s"
          .formatted(
              postgres.getUsername(),
              postgres.getPassword(),
              postgres.getHost(),
              postgres.getMappedPort(5432),
              postgres.getDatabaseName());
    }
    try {
      EmbeddedPostgres postgres =
          EmbeddedPostgres.builder()
              .setServerConfig("fsync", "off")
              .setServerConfig("max_connections", "300")
              .start();
      Runtime.getRuntime().addShutdownHook(new Thread(() -> close(postgres)));
      return "postgresql://postgres:postgres@127.0.0.1:" + postgres.getPort() + "/postgres";
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static void close(EmbeddedPostgres postgres) {
    try {
      postgres.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The URL of a new and empty database. */
  static String newDatabase() {
    String name = "test_" + ProcessHandle.current().pid() + "_" + databases.incrementAndGet();
    execute(URL, "CREATE DATABASE " + name);
    return withDatabase(URL, name);
  }

  /** A URL with the name of its database replaced. */
  static String withDatabase(String url, String name) {
    return url.replaceFirst("(://[^/]+/)[^?]*", "$1" + name);
  }

  /** A URL with host and port replaced. */
  static String withPort(String url, int port) {
    return url.replaceFirst("(://(?:[^/]*@)?)[^/]+", "$1127.0.0.1:" + port);
  }

  /** Host and port of a URL, for a proxy in front of it. */
  static String[] hostAndPort(String url) {
    String authority = url.replaceFirst(".*?://(?:[^/]*@)?([^/?]+).*", "$1");
    String[] parts = authority.split(":(?=\\d+$)");
    return new String[] {parts[0], parts.length > 1 ? parts[1] : "5432"};
  }

  /** Runs SQL as another client would. */
  static void execute(String url, String sql) {
    try (Connection connection = DatabaseUrl.parse(url).dataSource(30).getConnection();
        Statement statement = connection.createStatement()) {
      statement.execute(sql);
    } catch (SQLException e) {
      throw new IllegalStateException(e);
    }
  }

  /** The rows of a query, the columns of each joined by "|". */
  static List<String> query(String url, String sql) {
    List<String> rows = new ArrayList<>();
    try (Connection connection = DatabaseUrl.parse(url).dataSource(30).getConnection();
        Statement statement = connection.createStatement();
        ResultSet result = statement.executeQuery(sql)) {
      int columns = result.getMetaData().getColumnCount();
      while (result.next()) {
        List<String> row = new ArrayList<>();
        for (int i = 1; i <= columns; i++) {
          row.add(result.getString(i));
        }
        rows.add(String.join("|", row.stream().map(String::valueOf).toList()));
      }
      return rows;
    } catch (SQLException e) {
      throw new IllegalStateException(e);
    }
  }
}
