package com.realmeet.server.testing;

import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.testcontainers.DockerClientFactory;
import org.testcontainers.postgresql.PostgreSQLContainer;
import org.testcontainers.utility.DockerImageName;

/**
 * A real Postgres for all tests: the one that TEST_DATABASE_URL names, else a container if a Docker
 * engine answers, else embedded binaries. Each caller gets a database of its own in it.
 */
public final class TestPostgres {
  /** Of a server that is thrown away, and so need not survive a crash. */
  private static final Map<String, String> SETTINGS =
      Map.of(
          "fsync", "off",
          "synchronous_commit", "off",
          "full_page_writes", "off",
          "autovacuum", "off",
          "max_connections", "300");

  /** Linux's file system in memory: each database is hundreds of files. */
  private static final Path MEMORY = Path.of("/dev/shm");

  /** All databases together need 2.2 GB there. */
  private static final long ROOM_IN_MEMORY = 4L << 30;

  private static final AtomicInteger databases = new AtomicInteger();

  /** Open connections of the tests themselves, the last used first: to open one is expensive. */
  private static final Deque<Kept> kept = new ArrayDeque<>(); // guarded by itself

  private static final int MAX_KEPT = 20;
  private static final String URL = start();

  private record Kept(String url, Connection connection) {}

  private interface Work<T> {
    T with(Statement statement) throws SQLException;
  }

  /** Writes no copy of a new database to the log as well; Postgres 14 knows no other way. */
  private static final String STRATEGY =
      Integer.parseInt(query(URL, "SHOW server_version_num").get(0)) < 150000
          ? ""
          : " STRATEGY file_copy";

  /** A migrated database, made once, when first used. */
  private static final class Template {
    static final String NAME = databaseName();

    static {
      execute(URL, "CREATE DATABASE " + NAME + STRATEGY);
      Migrations.migrate(DatabaseUrl.parse(withDatabase(URL, NAME)));
    }
  }

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
      List<String> command = new ArrayList<>(List.of("postgres"));
      SETTINGS.forEach((name, value) -> command.addAll(List.of("-c", name + "=" + value)));
      postgres.withCommand(command.toArray(String[]::new)).start();
      return "postgresql://%s:%s@%s:%d/%s"
          .formatted(
              postgres.getUsername(),
              postgres.getPassword(),
              postgres.getHost(),
              postgres.getMappedPort(5432),
              postgres.getDatabaseName());
    }
    try {
      EmbeddedPostgres.Builder builder =
          EmbeddedPostgres.builder().setPGStartupWait(Duration.ofSeconds(60));
      SETTINGS.forEach(builder::setServerConfig);
      Path data = null;
      if (Files.isWritable(MEMORY) && MEMORY.toFile().getUsableSpace() > ROOM_IN_MEMORY) {
        data = MEMORY.resolve("test-postgres-" + ProcessHandle.current().pid());
        builder.setDataDirectory(data).setCleanDataDirectory(false);
      }
      EmbeddedPostgres postgres = builder.start();
      Path inMemory = data;
      Runtime.getRuntime().addShutdownHook(new Thread(() -> close(postgres, inMemory)));
      return "postgresql://postgres:postgres@127.0.0.1:" + postgres.getPort() + "/postgres";
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static void close(EmbeddedPostgres postgres, Path inMemory) {
    try {
      postgres.close();
      if (inMemory != null) { // the JVM would need seconds
        new ProcessBuilder("rm", "-rf", inMemory.toString()).start();
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The URL of a new database that is up to date: a copy, which is cheaper than a migration. */
  public static String newDatabase() {
    return copy(Template.NAME);
  }

  /** The URL of a new database that is like another one, to which nobody may be connected now. */
  public static String copyOf(String url) {
    forgetConnections(nameOf(url));
    return copy(nameOf(url));
  }

  /** The name of the database in a URL. */
  public static String nameOf(String url) {
    return url.replaceFirst(".*/([^?]*).*", "$1");
  }

  private static String copy(String template) {
    String name = databaseName();
    execute(URL, "CREATE DATABASE " + name + " TEMPLATE " + template + STRATEGY);
    return withDatabase(URL, name);
  }

  /** The same with tables in a schema of their own: SQL that does not name it finds none. */
  public static String newDatabase(String schema) {
    return emptyDatabase() + "?schema=" + schema;
  }

  /** The URL of a new database that has no table yet. */
  public static String emptyDatabase() {
    String name = databaseName();
    execute(URL, "CREATE DATABASE " + name + STRATEGY);
    return withDatabase(URL, name);
  }

  /** The same with another encoding than UTF8. */
  public static String emptyDatabase(String encoding) {
    String name = databaseName();
    execute(
        URL,
        "CREATE DATABASE %s ENCODING '%s' LOCALE 'C' TEMPLATE template0".formatted(name, encoding));
    return withDatabase(URL, name);
  }

  private static String databaseName() {
    return "test_" + ProcessHandle.current().pid() + "_" + databases.incrementAndGet();
  }

  /** A URL with the name of its database replaced. */
  public static String withDatabase(String url, String name) {
    return url.replaceFirst("(://[^/]+/)[^?]*", "$1" + name);
  }

  /** A URL with host and port replaced. */
  public static String withPort(String url, int port) {
    return url.replaceFirst("(://(?:[^/]*@)?)[^/]+", "$1127.0.0.1:" + port);
  }

  /** Host and port of a URL, for a proxy in front of it. */
  public static String[] hostAndPort(String url) {
    String authority = url.replaceFirst(".*?://(?:[^/]*@)?([^/?]+).*", "$1");
    String[] parts = authority.split(":(?=\\d+$)");
    return new String[] {parts[0], parts.length > 1 ? parts[1] : "5432"};
  }

  /**
   * Makes the roles of Supabase's public API. Roles belong to the cluster, which other tests share:
   * these are made once and stay.
   */
  public static void createPublicApiRoles(String url) {
    execute(
        url,
        """
        DO $$
        DECLARE
          name text;
        BEGIN
          FOREACH name IN ARRAY ARRAY['anon', 'authenticated'] LOOP
            BEGIN
              EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
              NULL;
            END;
          END LOOP;
        END $$
        """);
  }

  /**
   * Runs SQL as another client would, which is named "test". Its connection stays open for the next
   * statement: what it sets must end with it.
   */
  public static void execute(String url, String sql) {
    withStatement(url, statement -> statement.execute(sql));
  }

  /** The rows of a query, the columns of each joined by "|". */
  public static List<String> query(String url, String sql) {
    return withStatement(
        url,
        statement -> {
          List<String> rows = new ArrayList<>();
          try (ResultSet result = statement.executeQuery(sql)) {
            int columns = result.getMetaData().getColumnCount();
            while (result.next()) {
              List<String> row = new ArrayList<>();
              for (int i = 1; i <= columns; i++) {
                row.add(result.getString(i));
              }
              rows.add(String.join("|", row.stream().map(String::valueOf).toList()));
            }
          }
          return rows;
        });
  }

  private static <T> T withStatement(String url, Work<T> work) {
    try {
      Kept by = take(url);
      try (Statement statement = by.connection.createStatement()) {
        T result = work.with(statement);
        keep(by);
        return result;
      } catch (SQLException e) {
        by.connection.close();
        throw e;
      }
    } catch (SQLException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Returns the connection of an earlier statement if it still lives, else a new one. */
  private static Kept take(String url) throws SQLException {
    Kept last;
    synchronized (kept) {
      last = kept.stream().filter(each -> each.url.equals(url)).findFirst().orElse(null);
      kept.remove(last);
    }
    if (last != null && last.connection.isValid(5)) {
      return last;
    }
    String named =
        url.contains("application_name=")
            ? url
            : url + (url.contains("?") ? "&" : "?") + "application_name=test";
    return new Kept(url, DatabaseUrl.parse(named).dataSource(30).getConnection());
  }

  private static void keep(Kept connection) throws SQLException {
    Kept oldest = null;
    synchronized (kept) {
      kept.addFirst(connection);
      if (kept.size() > MAX_KEPT) {
        oldest = kept.removeLast();
      }
    }
    if (oldest != null) {
      oldest.connection.close();
    }
  }

  private static void forgetConnections(String database) {
    synchronized (kept) {
      for (Kept each : List.copyOf(kept)) {
        if (nameOf(each.url).equals(database)) {
          kept.remove(each);
          try {
            each.connection.close();
          } catch (SQLException e) {
            throw new IllegalStateException(e);
          }
        }
      }
    }
  }
}
