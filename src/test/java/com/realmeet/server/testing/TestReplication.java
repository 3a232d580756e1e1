package com.realmeet.server.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.UserPrincipal;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Stream;

/**
 * Two real Postgres servers, of which one can be a streaming standby of the other, where a full
 * Postgres is installed: the embedded binaries lack pg_basebackup.
 */
public final class TestReplication implements AutoCloseable {
  /** Runs Postgres, which refuses to run as root; Debian's package makes this user. */
  private static final String USER = "postgres";

  private static final boolean ROOT = System.getProperty("user.name").equals("root");
  private static final Path RUNUSER = Path.of("/usr/sbin/runuser"); // often not in PATH
  private static final Optional<Path> BINARIES = binaries();

  private final Path directory;

  /** The primary at first: an empty cluster, which is not started yet. */
  public final Node one;

  /** The other one, which has no data yet. */
  public final Node two;

  public TestReplication() {
    try {
      directory = Files.createTempDirectory("replication");
      if (ROOT) {
        Files.setOwner(directory, user());
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    one = new Node("one");
    two = new Node("two");
    run("initdb", "-D", one.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync");
  }

  public static boolean isInstalled() {
    return BINARIES.isPresent() && (!ROOT || hasUser() && Files.isExecutable(RUNUSER));
  }

  private static boolean hasUser() {
    try {
      return user() != null;
    } catch (IOException e) {
      return false;
    }
  }

  private static UserPrincipal user() throws IOException {
    return Path.of("").getFileSystem().getUserPrincipalLookupService().lookupPrincipalByName(USER);
  }

  private static Optional<Path> binaries() {
    List<Path> places = new ArrayList<>();
    for (String place : System.getenv().getOrDefault("PATH", "").split(":")) {
      places.add(Path.of(place));
    }
    try (Stream<Path> versions = Files.list(Path.of("/usr/lib/postgresql"))) { // Debian's place
      versions.map(version -> version.resolve("bin")).forEach(places::add);
    } catch (IOException e) {
      // not Debian
    }
    return places.stream()
        .filter(
            place ->
                Stream.of("initdb", "pg_ctl", "pg_basebackup")
                    .allMatch(program -> Files.isExecutable(place.resolve(program))))
        .findFirst();
  }

  /** The URL for a server that follows the primary. */
  public String url() {
    return "postgresql://%s@127.0.0.1:%d,127.0.0.1:%d/postgres?target_session_attrs=read-write"
        .formatted(USER, one.port, two.port);
  }

  /** One of the two. */
  public final class Node {
    private final String data;
    private final int port = freePort();

    private Node(String name) {
      data = directory.resolve(name).toString();
    }

    /** The URL of this one alone. */
    public String url() {
      return "postgresql://%s@127.0.0.1:%d/postgres".formatted(USER, port);
    }

    /** Starts it as a primary whose commits wait for a standby. */
    public void startSynchronous() {
      start("-c synchronous_standby_names=*");
    }

    private void start(String options) {
      String all = "-h 127.0.0.1 -k '' -p " + port + " -c fsync=off " + options;
      run("pg_ctl", "-s", "-w", "-D", data, "-l", data + ".log", "-o", all, "start");
    }

    /** Replaces its data by a copy of the primary's, and starts it as a standby of that. */
    public void startAsStandbyOf(Node primary) {
      delete(Path.of(data));
      run("pg_basebackup", "-d", primary.url(), "-D", data, "-R", "-c", "fast", "--no-sync");
      start("");
    }

    public void promote() {
      run("pg_ctl", "-s", "-w", "-D", data, "promote");
    }

    /** Ends it as a crash does. */
    public void crash() {
      run("pg_ctl", "-s", "-m", "immediate", "-D", data, "stop");
    }
  }

  /** Not one that the system gives to a client's connection while the server is down. */
  private static int freePort() {
    return ThreadLocalRandom.current()
        .ints(20_000, 32_000)
        .filter(TestReplication::isFree)
        .findFirst()
        .getAsInt();
  }

  private static boolean isFree(int port) {
    try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
      return socket.isBound();
    } catch (IOException e) {
      return false;
    }
  }

  private void run(String program, String... arguments) {
    List<String> command = new ArrayList<>();
    if (ROOT) {
      command.addAll(List.of(RUNUSER.toString(), "-u", USER, "--"));
    }
    command.add(BINARIES.orElseThrow().resolve(program).toString());
    command.addAll(List.of(arguments));
    Path output = directory.resolve(program + ".out");
    try {
      Process process =
          new ProcessBuilder(command)
              .directory(directory.toFile())
              .redirectErrorStream(true)
              .redirectOutput(output.toFile())
              .start();
      if (process.waitFor() != 0) {
        throw new IllegalStateException(command + ": " + Files.readString(output));
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void delete(Path directory) {
    if (Files.exists(directory)) {
      try (Stream<Path> files = Files.walk(directory)) {
        files.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(file -> file.delete());
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  /** Ends both and deletes their data. */
  @Override
  public void close() {
    for (Node node : List.of(one, two)) {
      if (Files.exists(Path.of(node.data, "postmaster.pid"))) {
        node.crash();
      }
    }
    delete(directory);
  }
}
