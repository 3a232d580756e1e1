package com.realmeet.server.testing;

import static java.util.stream.Collectors.groupingBy;
import static java.util.stream.Collectors.mapping;
import static java.util.stream.Collectors.toList;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.core.Threads;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.net.SocketException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * One connection, on which HTTP is written and read byte by byte, as no client library would. Fails
 * if the OpenAPI document does not promise an answer.
 */
public final class RawHttp implements AutoCloseable {
  /** What every answer carries. */
  public static final List<String> COMMON_HEADERS =
      List.of(
          "Cache-Control: no-store",
          "Content-Type: application/json",
          "Vary: Origin",
          "X-Content-Type-Options: nosniff");

  /** Those that are not promised: the time, the id and those that delimit the message. */
  private static final Pattern FREE_HEADER =
      Pattern.compile("(Date|X-Request-Id|Content-Length|Connection): .*");

  /** Milliseconds after which a test gives up on an answer. */
  private static final int PATIENCE = 10_000;

  /** An answer; its header lines are as they came. */
  public record Answer(int status, String reason, List<String> headers, String body) {
    /** The values of a header. */
    public List<String> header(String name) {
      String start = name.toLowerCase(Locale.ROOT) + ": ";
      return headers.stream()
          .filter(line -> line.toLowerCase(Locale.ROOT).startsWith(start))
          .map(line -> line.substring(start.length()))
          .toList();
    }

    /**
     * Returns the headers that the contract promises, sorted: all but the time, the id and those
     * that delimit the message.
     */
    public List<String> contractHeaders() {
      return headers.stream()
          .filter(line -> !FREE_HEADER.matcher(line).matches())
          .sorted()
          .toList();
    }

    /**
     * Fails unless this is an error of the contract, with the common headers and the given ones.
     */
    public void assertError(int status, String phrase, String message, String... more) {
      assertEquals("{\"error\":\"" + phrase + "\",\"message\":\"" + message + "\"}", body);
      assertEquals(status, this.status);
      assertEquals(
          Stream.concat(COMMON_HEADERS.stream(), Stream.of(more)).sorted().toList(),
          contractHeaders());
    }
  }

  private static final Pattern REQUEST =
      Pattern.compile("(?<![\\w-])([\\w-]{1,20} [^ \r\n]+) HTTP/1\\.1\r\n");

  private final Socket socket;
  private final InputStream in;
  private final Queue<String> sent = new ConcurrentLinkedQueue<>();
  private int answers;

  public RawHttp(int port) {
    try {
      socket = new Socket("127.0.0.1", port);
      socket.setSoTimeout(PATIENCE);
      in = new BufferedInputStream(socket.getInputStream());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The text of a request without a body. */
  public static String request(String method, String path, String... headers) {
    return method
        + " "
        + path
        + " HTTP/1.1\r\nHost: localhost\r\n"
        + String.join("", List.of(headers).stream().map(line -> line + "\r\n").toList())
        + "\r\n";
  }

  /** The answer to a text, sent on a connection of its own. */
  public static Answer ask(int port, String text) {
    try (RawHttp connection = new RawHttp(port)) {
      connection.send(text);
      return text.startsWith("HEAD ") ? connection.head() : connection.answer();
    }
  }

  /** Sends a text, one byte for each character; less of it if the server has closed meanwhile. */
  public RawHttp send(String text) {
    sent.add(text);
    try {
      socket.getOutputStream().write(text.getBytes(StandardCharsets.ISO_8859_1));
    } catch (SocketException closed) {
      // What the server had to say can still be read.
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return this;
  }

  /** Waits until the server wants the body, which proves that the request is there. */
  public void awaitContinue() {
    assertEquals(100, readHead().status);
  }

  /** Reads the next answer. */
  public Answer answer() {
    Answer answer = unchecked();
    return checked(answer, Optional.of(answer.body));
  }

  /** Reads the next answer, of a route that is not in the OpenAPI document. */
  public Answer unchecked() {
    Answer head = readHead();
    List<String> length = head.header("Content-Length");
    if (length.isEmpty()) {
      return head;
    }
    try {
      byte[] bytes = in.readNBytes(Integer.parseInt(length.get(0)));
      String body = new String(bytes, StandardCharsets.UTF_8);
      return new Answer(head.status, head.reason, head.headers, body);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Reads the next answer up to its body. */
  public Answer head() {
    return checked(readHead(), Optional.empty());
  }

  private Answer checked(Answer answer, Optional<String> body) {
    String request =
        REQUEST
            .matcher(String.join("", sent))
            .results()
            .skip(answers++)
            .map(match -> match.group(1))
            .findFirst()
            .orElse("");
    Map<String, List<String>> headers =
        answer.headers.stream()
            .map(line -> line.split(": ", 2))
            .collect(groupingBy(line -> line[0], mapping(line -> line[1], toList())));
    Contract.check(request, answer.status, headers, body);
    return answer;
  }

  private Answer readHead() {
    try {
      String[] status = line().split(" ", 3);
      List<String> headers = new ArrayList<>();
      for (String line = line(); !line.isEmpty(); line = line()) {
        headers.add(line);
      }
      return new Answer(Integer.parseInt(status[1]), status[2], headers, "");
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private String line() throws IOException {
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    for (int b = in.read(); b != '\n'; b = in.read()) {
      if (b < 0) {
        throw new EOFException("the server closed the connection");
      }
      line.write(b);
    }
    return line.toString(StandardCharsets.ISO_8859_1).stripTrailing();
  }

  /** Waits until the server closes the connection; whether it did, with nothing more to read. */
  public boolean isClosed() {
    try {
      return in.read() < 0;
    } catch (SocketException reset) {
      return true;
    } catch (IOException e) {
      return false;
    }
  }

  /** Whether the server has closed the connection, with nothing more to read. */
  public boolean isClosedNow() {
    try {
      socket.setSoTimeout(1);
      return isClosed();
    } catch (SocketException closed) {
      return true;
    } finally {
      restorePatience();
    }
  }

  private void restorePatience() {
    try {
      socket.setSoTimeout(PATIENCE);
    } catch (SocketException closed) {
      // There is nothing to wait for.
    }
  }

  /** Sends nothing more, and reads on. */
  public void endOutput() {
    try {
      socket.shutdownOutput();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Closes the connection as a crash does. */
  public void reset() {
    try {
      socket.setSoLinger(true, 0);
      socket.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public void close() {
    try {
      socket.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /**
   * Asks on kept connections in turn until the stop begins, and returns the first answer that is
   * 503. A server that stops closes each connection after its next answer, or already after its
   * last, and the answers that it overtakes are still good.
   *
   * @param before the status of its answers before the stop
   */
  public static CompletableFuture<Answer> answerWhileStopping(
      int port, String request, int before) {
    Deque<RawHttp> open = new ArrayDeque<>();
    for (int i = 0; i < 5; i++) {
      open.add(new RawHttp(port));
      assertEquals(before, open.getLast().send(request).answer().status());
    }
    return Threads.supply(
        () -> {
          while (true) {
            RawHttp next = open.remove();
            try {
              Answer answer = next.send(request).answer();
              if (answer.status() == 503) {
                return answer;
              }
              if (answer.header("Connection").isEmpty()) {
                open.add(next);
              }
            } catch (UncheckedIOException closed) {
              // the next one is still open
            }
          }
        });
  }
}
