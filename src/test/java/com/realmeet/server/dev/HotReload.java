package com.realmeet.server.dev;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.HashMap;
import java.util.Map;
import java.util.logging.LogManager;

/**
 * The server, made anew from the working directory whenever one of its files is saved, in one JVM
 * and on one port. What does not compile or does not start leaves the version before it serving.
 */
public final class HotReload {
  /**
   * Milliseconds between two looks at the files, and for which they must rest before they count: a
   * branch that is checked out changes many. Java's WatchService would take 2 to 10 s on a Mac.
   */
  private static final int POLL = 100;

  private Build good;
  private volatile AutoCloseable server = () -> {};

  private HotReload() {}

  /** Serves until it is told to stop, or ends with 1 if there is nothing to begin with. */
  public static void main(String[] args) throws IOException, InterruptedException {
    LogManager.getLogManager().reset(); // this and the next as in Main, whose main is not called
    System.setProperty("jdk.httpclient.keepalive.timeout", "30");
    System.exit(new HotReload().run());
  }

  private int run() throws IOException, InterruptedException {
    Runtime.getRuntime().addShutdownHook(new Thread(this::stop));
    Build.remove(Build.ALL);
    Map<Path, FileTime> built = times();
    good = build();
    if (good == null || !start(good)) {
      return 1;
    }
    for (Map<Path, FileTime> last = built; ; Thread.sleep(POLL)) {
      Map<Path, FileTime> now = times();
      if (now.equals(last) && !now.equals(built)) {
        built = now;
        reload();
      }
      last = now;
    }
  }

  /** When each of the sources was last changed; empty if one went away meanwhile. */
  private static Map<Path, FileTime> times() throws IOException {
    Map<Path, FileTime> times = new HashMap<>();
    try {
      for (Path root : Build.SOURCES) {
        for (Path file : Build.files(root)) {
          times.put(file, Files.getLastModifiedTime(file));
        }
      }
      return times;
    } catch (NoSuchFileException | UncheckedIOException e) {
      return Map.of();
    }
  }

  private void reload() throws IOException {
    long began = System.nanoTime();
    Build next = build();
    if (next == null) {
      System.out.println("Not reloaded: the version before goes on serving");
      return;
    }
    stop();
    if (start(next)) {
      good.remove();
      good = next;
      System.out.printf("Reloaded in %d ms%n", (System.nanoTime() - began) / 1_000_000);
    } else {
      System.out.println("Not reloaded: the version before is started again");
      start(good);
      next.remove();
    }
  }

  /** Null, and a line that says why, if there is something wrong. */
  private static Build build() {
    try {
      return new Build();
    } catch (IOException | RuntimeException e) {
      print(e);
      return null;
    }
  }

  private boolean start(Build build) {
    try {
      server = build.start();
      return true;
    } catch (RuntimeException e) {
      print(e);
      return false;
    }
  }

  private void stop() {
    try {
      server.close();
    } catch (Exception e) {
      print(e);
    }
  }

  /** Our own exceptions are sentences for a person. */
  private static void print(Exception e) {
    if (e.getClass().getName().startsWith("com.realmeet.server.")) {
      System.err.println(e.getMessage());
    } else {
      e.printStackTrace();
    }
  }
}
