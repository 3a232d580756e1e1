package com.realmeet.server.testing;

import static org.junit.jupiter.api.Assertions.assertFalse;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/**
 * The log of the servers under test, at debug level. It goes to {@code target/log}, a file for each
 * test class; tests can read their part of it; and after each of them no secret, token or address
 * may stand there.
 */
public final class Log
    implements BeforeAllCallback, BeforeEachCallback, AfterEachCallback, AfterAllCallback {
  private static final Pattern SECRET =
      Pattern.compile(
          "sk_(test|live)_\\w+|whsec_\\w+|\\beyJ[\\w-]{10,}"
              + "|(?<![\\w.+-])[\\w.+-]++@example\\.com|postgres:postgres@");

  private static final Map<Class<?>, Captured> LOGS = new ConcurrentHashMap<>();

  /**
   * The log of a thread's test class, inherited from the thread that has started it. Those of the
   * JVM's common pool have none.
   */
  private static final ThreadLocal<Captured> log = new InheritableThreadLocal<>();

  private static final ThreadLocal<OutputStream> printed = new InheritableThreadLocal<>();

  static {
    System.setErr(new PrintStream(new OfThread(log, System.err), true, StandardCharsets.UTF_8));
    System.setOut(new PrintStream(new OfThread(printed, System.out), true, StandardCharsets.UTF_8));
  }

  /** Writes to a thread's own stream, or to the JVM's if it has none. */
  private static final class OfThread extends OutputStream {
    private final ThreadLocal<? extends OutputStream> own;
    private final OutputStream otherwise;

    OfThread(ThreadLocal<? extends OutputStream> own, OutputStream otherwise) {
      this.own = own;
      this.otherwise = otherwise;
    }

    @Override
    public void write(int b) throws IOException {
      write(new byte[] {(byte) b}, 0, 1);
    }

    @Override
    public void write(byte[] bytes, int offset, int length) throws IOException {
      OutputStream stream = own.get();
      (stream == null ? otherwise : stream).write(bytes, offset, length);
    }
  }

  /** The log of a test class. */
  private static final class Captured extends ByteArrayOutputStream {
    private final OutputStream file;

    Captured(Class<?> test) {
      try {
        Path folder = Files.createDirectories(Path.of("target", "log"));
        file = Files.newOutputStream(folder.resolve(test.getSimpleName() + ".log"));
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    @Override
    public synchronized void write(byte[] bytes, int offset, int length) {
      super.write(bytes, offset, length);
      try {
        file.write(bytes, offset, length);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  /** What the running test has logged until now. */
  public static String text() {
    return log.get().toString(StandardCharsets.UTF_8);
  }

  /** Runs a command and returns what it prints. */
  public static String printed(Runnable command) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    printed.set(bytes);
    try {
      command.run();
    } finally {
      printed.remove();
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }

  @Override
  public void beforeAll(ExtensionContext context) {
    log.set(LOGS.computeIfAbsent(context.getRequiredTestClass(), Captured::new));
  }

  @Override
  public void beforeEach(ExtensionContext context) {
    beforeAll(context); // the tests of a class may have threads of their own
    Captured captured = log.get();
    String before;
    synchronized (captured) {
      before = text();
      captured.reset();
    }
    System.err.println("---- " + context.getDisplayName().replaceAll("\\R.*", ""));
    assertNoSecret(before); // of a test that runs at the same time, and is not checked yet
  }

  @Override
  public void afterEach(ExtensionContext context) {
    assertNoSecret(text());
  }

  /** The stop of a server that all tests of a class share is logged after the last of them. */
  @Override
  public void afterAll(ExtensionContext context) {
    assertNoSecret(text());
  }

  /** Fails if a log shows what it must not. */
  public static void assertNoSecret(String log) {
    Matcher secret = SECRET.matcher(log);
    assertFalse(secret.find(), () -> "the log shows " + secret.group());
  }
}
