package com.realmeet.server.bench;

import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import java.util.stream.LongStream;

/**
 * Syncs from a number of connections, each of which sends its next request when it has the answer
 * to the last: latencies are those of a server that is as busy as its clients let it be.
 */
public final class Load {
  /** What came of it; failed are all answers but 200, for wrk those from 400 on. */
  record Result(long requests, long failed, double seconds, double p50Millis, double p99Millis) {
    double perSecond() {
      return requests / seconds;
    }
  }

  private static final Pattern WRK =
      Pattern.compile("RESULT (\\d+) (\\d+) (\\d+) (\\d+) (\\d+)"); // times in microseconds

  private static final String SCRIPT =
      """
      local requests = {}
      function init(args)
        for token in io.lines(args[1]) do
          requests[#requests + 1] = wrk.format("POST", nil, {Authorization = "Bearer " .. token})
        end
      end
      function request()
        return requests[math.random(#requests)]
      end
      function done(summary, latency)
        local e = summary.errors
        print(string.format("RESULT %d %d %d %d %d", summary.requests,
          e.status + e.connect + e.read + e.write + e.timeout, summary.duration,
          latency:percentile(50), latency:percentile(99)))
      end
      """;

  private static final Pattern ANSWER =
      Pattern.compile("HTTP/1\\.1 (\\d+) .*?\r\nContent-Length: (\\d+)\r\n.*", Pattern.DOTALL);

  private final URI url;
  private final List<String> tokens;
  private final Path wrkFiles;

  /**
   * @param directory for what wrk reads; null: wrk is not installed, or not wanted
   */
  Load(URI url, List<String> tokens, Path directory) throws IOException {
    this.url = url;
    this.tokens = tokens;
    this.wrkFiles = directory;
    if (directory != null) {
      Files.writeString(directory.resolve("sync.lua"), SCRIPT);
      Files.write(directory.resolve("tokens"), tokens);
    }
  }

  /** Whether there is a wrk on the path. */
  static boolean hasWrk() {
    return Arrays.stream(System.getenv("PATH").split(":"))
        .anyMatch(directory -> Files.isExecutable(Path.of(directory, "wrk")));
  }

  /** Syncs as users at random. */
  Result random(int connections, Duration time) throws IOException, InterruptedException {
    if (wrkFiles != null) {
      return wrk(connections, time);
    }
    long end = System.nanoTime() + time.toNanos();
    return send(
        connections,
        () ->
            System.nanoTime() < end
                ? tokens.get(ThreadLocalRandom.current().nextInt(tokens.size()))
                : null);
  }

  /** Syncs as each of the users once. */
  Result each(int connections) {
    AtomicInteger next = new AtomicInteger();
    return send(
        connections,
        () -> {
          int turn = next.getAndIncrement();
          return turn < tokens.size() ? tokens.get(turn) : null;
        });
  }

  private Result wrk(int connections, Duration time) throws IOException, InterruptedException {
    Process wrk =
        new ProcessBuilder(
                "wrk",
                "-t1",
                "-c" + connections,
                "-d" + time.toSeconds(),
                "--timeout=10s", // longer than any answer takes
                "-s",
                wrkFiles.resolve("sync.lua").toString(),
                url.toString(),
                "--",
                wrkFiles.resolve("tokens").toString())
            .redirectErrorStream(true)
            .start();
    String output = new String(wrk.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    Matcher result = WRK.matcher(output);
    if (wrk.waitFor() != 0 || !result.find()) {
      throw new IOException("wrk failed: " + output);
    }
    return new Result(
        Long.parseLong(result.group(1)),
        Long.parseLong(result.group(2)),
        Long.parseLong(result.group(3)) / 1e6,
        Long.parseLong(result.group(4)) / 1e3,
        Long.parseLong(result.group(5)) / 1e3);
  }

  private Result send(int connections, Supplier<String> nextToken) {
    AtomicInteger failed = new AtomicInteger();
    long began = System.nanoTime();
    List<CompletableFuture<LongStream>> clients =
        IntStream.range(0, connections)
            .mapToObj(
                i ->
                    CompletableFuture.supplyAsync(
                        () -> client(nextToken, failed), task -> new Thread(task).start()))
            .toList();
    long[] nanos = clients.stream().flatMapToLong(CompletableFuture::join).sorted().toArray();
    double seconds = (System.nanoTime() - began) / 1e9;
    return new Result(
        nanos.length,
        failed.get(),
        seconds,
        nanos[nanos.length / 2] / 1e6,
        nanos[nanos.length * 99 / 100] / 1e6);
  }

  /** How long each of its requests took. */
  private LongStream client(Supplier<String> nextToken, AtomicInteger failed) {
    LongStream.Builder nanos = LongStream.builder();
    try (Socket socket = new Socket(url.getHost(), url.getPort())) {
      InputStream in = new BufferedInputStream(socket.getInputStream());
      for (String token = nextToken.get(); token != null; token = nextToken.get()) {
        long began = System.nanoTime();
        if (status(token, in, socket.getOutputStream()) != 200) {
          failed.incrementAndGet();
        }
        nanos.add(System.nanoTime() - began);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return nanos.build();
  }

  private int status(String token, InputStream in, OutputStream out) throws IOException {
    String request =
        "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\n\r\n"
            .formatted(url.getPath(), url.getAuthority(), token);
    out.write(request.getBytes(StandardCharsets.US_ASCII));
    return status(in);
  }

  /** Reads an answer, and returns its status. */
  static int status(InputStream in) throws IOException {
    StringBuilder head = new StringBuilder();
    while (head.indexOf("\r\n\r\n", head.length() - 4) < 0) {
      int c = in.read();
      if (c < 0) {
        throw new EOFException("the server closed a connection");
      }
      head.append((char) c);
    }
    Matcher answer = ANSWER.matcher(head);
    if (!answer.matches()) {
      throw new IOException("not an answer: " + head);
    }
    in.skipNBytes(Integer.parseInt(answer.group(2)));
    return Integer.parseInt(answer.group(1));
  }
}
