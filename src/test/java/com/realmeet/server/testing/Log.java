package com.realmeet.server.testing;

import static org.junit.jupiter.api.Assertions.assertFalse;

import java.io.ByteArrayOutputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/**
 * The log of the servers under test, at debug level. It goes to {@code target/test-*.log}, a file
 * for each JVM of the tests; tests can read their part of it; and after each of them no secret,
 * token or address may stand there.
 */
public final class Log implements BeforeEachCallback, AfterEachCallback {
  private static final Pattern SECRET =
      Pattern.compile(
          "sk_(test|live)_\\w+|whsec_\\w+|\\beyJ[\\w-]{10,}|[\\w.+-]+@example\\.com|postgres:postgres@");
  private static final ByteArrayOutputStream captured = new ByteArrayOutputStream();

  static {
    try {
      Path file = Path.of("target", "test-" + ProcessHandle.current().pid() + ".log");
      Files.createDirectories(file.getParent());
      System.setErr(new PrintStream(new Tee(new FileOutputStream(file.toFile())), true, "UTF-8"));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static final class Tee extends OutputStream {
    private final OutputStream file;

    Tee(OutputStream file) {
      this.file = file;
    }

    @Override
    public void write(int b) throws IOException {
      captured.write(b);
      file.write(b);
    }

    @Override
    public void write(byte[] bytes, int offset, int length) throws IOException {
      captured.write(bytes, offset, length);
      file.write(bytes, offset, length);
    }
  }

  /** What the running test has logged until now. */
  public static String text() {
    return captured.toString(StandardCharsets.UTF_8);
  }

  @Override
  public void beforeEach(ExtensionContext context) {
    synchronized (captured) { // a test that runs at the same time may not have been checked yet
      assertNoSecret(text());
      captured.reset();
    }
    System.err.println(
        "---- "
            + context.getRequiredTestClass().getSimpleName()
            + ": "
            + context.getDisplayName().replaceAll("\\R.*", ""));
  }

  @Override
  public void afterEach(ExtensionContext context) {
    assertNoSecret(text());
  }

  /** Fails if a log shows what it must not. */
  public static void assertNoSecret(String log) {
    Matcher secret = SECRET.matcher(log);
    assertFalse(secret.find(), () -> "the log shows " + secret.group());
  }
}
