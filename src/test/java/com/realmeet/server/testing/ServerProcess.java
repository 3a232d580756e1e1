package com.realmeet.server.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.dev.Dev;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * The jar, or what {@code make dev} starts, in a process of its own, with nothing in its
 * environment but what a test gives it.
 */
public final class ServerProcess implements AutoCloseable {
  public static final Path JAR = Path.of("target", "real-meet-server.jar").toAbsolutePath();
  private static final String JAVA =
      Path.of(System.getProperty("java.home"), "bin", "java").toString();
  private static final Pattern READY = Pattern.compile("Ready on http://[^ ]*:(\\d+) for");

  /**
   * A copy of the jar beside its scripts, and the archive from which it starts in half the time.
   */
  public static final class Deployed {
    public static final Path HOME = JAR.resolveSibling("deploy-test");
    static final Path COPY = HOME.resolve(JAR.getFileName());
    static final Path OPTIONS = HOME.resolve("archive.options");

    /** Output of make-archive. */
    public static final String MADE = make();

    private static String make() {
      try (StandInClerk clerk = new StandInClerk()) {
        Files.createDirectories(HOME);
        Files.copy(JAR, COPY, StandardCopyOption.REPLACE_EXISTING);
        for (String file : List.of("start", "make-archive", "jvm.options")) {
          Path copy = HOME.resolve(file);
          Files.copy(Path.of("src/deploy", file), copy, StandardCopyOption.REPLACE_EXISTING);
          assertTrue(copy.toFile().setExecutable(true));
        }
        Map<String, String> settings = TestServer.settings(clerk, TestPostgres.newDatabase());
        settings.put("PORT", "1"); // the script takes a free one instead
        settings.put("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1"); // faster
        settings.put("JAVA", JAVA);
        Stream<String> lines =
            settings.entrySet().stream().map(e -> e.getKey() + "='" + e.getValue() + "'");
        Files.write(HOME.resolve("env"), lines.toList()); // as a program in PATH
        Process script =
            new ProcessBuilder(HOME.resolve("make-archive").toString(), "env")
                .directory(HOME.toFile())
                .redirectErrorStream(true)
                .start();
        String output = new String(script.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        if (script.waitFor() == 127) { // there is no bash
          settings.put("PORT", "0");
          makeArchive(settings);
        } else {
          assertEquals(0, script.exitValue(), output);
        }
        return output;
      } catch (IOException | InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }

    /** Makes it without the script. */
    private static void makeArchive(Map<String, String> settings) throws IOException {
      Path file = HOME.resolve("real-meet-server.jsa");
      List<String> arguments = List.of("-XX:ArchiveClassesAtExit=" + file, "-jar", COPY.toString());
      try (ServerProcess jar = new ServerProcess(HOME, settings, arguments)) {
        jar.port();
        jar.terminate();
        jar.awaitEnd();
      }
      Files.writeString(OPTIONS, "-XX:SharedArchiveFile=\"" + file + '"');
    }
  }

  private final Process process;
  private final StringBuffer output = new StringBuffer();
  private final Thread reader = new Thread(this::read, "output of the jar");

  /**
   * Starts the jar.
   *
   * @param directory where a {@code .env} may lie
   */
  public ServerProcess(Path directory, Map<String, String> environment, String... arguments) {
    this(directory, environment, jar(arguments));
  }

  private static List<String> jar(String... arguments) {
    if (!Files.exists(JAR)) {
      throw new AssertionError("there is no " + JAR + ": run the tests by mvn verify");
    }
    return Stream.concat(
            Stream.of("@" + Deployed.OPTIONS, "-jar", Deployed.COPY.toString()),
            Stream.of(arguments))
        .toList();
  }

  /** Starts what {@code make dev} starts; its output has a token. */
  public static ServerProcess dev(Path directory, Map<String, String> environment) {
    String classPath =
        Stream.of(System.getProperty("java.class.path").split(File.pathSeparator))
            .map(entry -> Path.of(entry).toAbsolutePath().toString())
            .collect(Collectors.joining(File.pathSeparator));
    return new ServerProcess(
        directory, environment, List.of("-cp", classPath, Dev.class.getName()));
  }

  private ServerProcess(Path directory, Map<String, String> environment, List<String> arguments) {
    List<String> command = new ArrayList<>();
    command.add(JAVA);
    command.addAll(List.of("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")); // starts faster
    command.addAll(arguments);
    ProcessBuilder builder =
        new ProcessBuilder(command).directory(directory.toFile()).redirectErrorStream(true);
    builder.environment().clear();
    builder.environment().putAll(environment);
    try {
      process = builder.start();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    reader.start();
  }

  private void read() {
    try (InputStream in = process.getInputStream()) {
      byte[] buffer = new byte[8192];
      for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
        output.append(new String(buffer, 0, n, StandardCharsets.UTF_8));
      }
    } catch (IOException closed) {
      output.append(closed);
    }
  }

  /** What it has printed until now. */
  public String output() {
    return output.toString();
  }

  /** The lines that it has printed until now. */
  public List<String> lines() {
    return output().lines().toList();
  }

  /** Waits until it listens, or ends, as it does by itself; the port. */
  public int port() {
    while (!READY.matcher(output).find() && process.isAlive()) {
      LockSupport.parkNanos(10_000_000);
    }
    Matcher ready = READY.matcher(output);
    if (!ready.find()) {
      throw new AssertionError("the jar has ended: " + output);
    }
    return Integer.parseInt(ready.group(1));
  }

  /** Sends it a SIGTERM; {@link Process#destroy} would also stop listening to its output. */
  public void terminate() {
    process.toHandle().destroy();
  }

  /** Sends it a SIGKILL. */
  public void kill() {
    process.destroyForcibly();
  }

  /** Waits until it ends, for 30 s at most; the exit code. No secret may stand in its output. */
  public int exitCode() {
    int code = awaitEnd();
    Log.assertNoSecret(output());
    return code;
  }

  /** Like {@link #exitCode}, but secrets may. */
  public int awaitEnd() {
    try {
      if (!process.waitFor(30, TimeUnit.SECONDS)) {
        throw new AssertionError("the jar has not ended: " + output);
      }
      reader.join();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
    return process.exitValue();
  }

  @Override
  public void close() {
    kill();
  }
}
