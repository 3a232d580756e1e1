package com.realmeet.server.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

/** A real PgBouncer in transaction mode in front of a test database, where one is installed. */
public final class TestPgBouncer implements AutoCloseable {
  private static final Path BINARY =
      Stream.of("/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer")
          .map(Path::of)
          .filter(Files::isExecutable)
          .findFirst()
          .orElse(null);

  private final Process process;

  /** The database's URL through the pooler, with nothing in it that says so. */
  public final String url;

  private TestPgBouncer(Process process, String url) {
    this.process = process;
    this.url = url;
  }

  public static boolean isInstalled() {
    return BINARY != null;
  }

  /**
   * Starts one.
   *
   * @param password of the user "postgres" towards the pooler
   */
  public static TestPgBouncer before(String database, String password) {
    try {
      Path directory = Files.createTempDirectory("pgbouncer");
      int port;
      try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
        port = free.getLocalPort();
      }
      String[] server = TestPostgres.hostAndPort(database);
      String login = database.replaceFirst(".*?://([^@]*)@.*", "$1");
      String[] userAndPassword = (login + ":").split(":", -1);
      Path users = directory.resolve("users.txt");
      Files.writeString(users, "\"postgres\" \"%s\"\n".formatted(password));
      Path settings = directory.resolve("pgbouncer.ini");
      Files.writeString(
          settings,
          """
          [databases]
          * = host=%s port=%s user=%s password=%s
          [pgbouncer]
          listen_addr = 127.0.0.1
          listen_port = %d
          unix_socket_dir =
          auth_type = plain
          auth_file = %s
          pool_mode = transaction
          default_pool_size = 4
          ignore_startup_parameters = extra_float_digits
          """
              .formatted(
                  server[0], server[1], userAndPassword[0], userAndPassword[1], port, users));
      ProcessBuilder builder = new ProcessBuilder(BINARY.toString(), settings.toString());
      if (System.getProperty("user.name").equals("root")) { // which PgBouncer refuses
        for (Path path : new Path[] {directory, users, settings}) {
          path.toFile().setReadable(true, false);
          path.toFile().setExecutable(true, false);
        }
        builder = new ProcessBuilder(BINARY.toString(), "-u", "nobody", settings.toString());
      }
      Process process =
          builder
              .redirectErrorStream(true)
              .redirectOutput(directory.resolve("log").toFile())
              .start();
      TestServer.await("PgBouncer listens", () -> listens(port));
      return new TestPgBouncer(
          process,
          TestPostgres.withPort(database, port)
              .replaceFirst("://[^@]*@", "://postgres:" + password + "@"));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static boolean listens(int port) {
    try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), port)) {
      return socket.isConnected();
    } catch (IOException e) {
      return false;
    }
  }

  @Override
  public void close() {
    process.destroyForcibly();
  }
}
