package com.realmeet.server.bench;

import com.realmeet.server.example.ExampleApplication;
import com.realmeet.server.http.Success;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import io.javalin.http.Context;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * How long other requests take while a route of an application is slow: its query takes 200 ms, it
 * computes for 20 ms, or its clients send their bodies slowly. Server, clients and stand-in Clerk
 * share this process.
 *
 * <pre>java -cp target/classes:target/test-classes:… com.realmeet.server.bench.SlowApplication
 * </pre>
 */
public final class SlowApplication {
  private static final String SLOW_QUERY =
      """
      ALTER TABLE meet.meetings RENAME TO rows;
      CREATE VIEW meet.meetings AS
        SELECT * FROM meet.rows WHERE (SELECT pg_sleep(0.2)) IS NOT NULL
      """;

  private static final String LIST = "GET /api/meetings";
  private static final Duration STEP = Duration.ofSeconds(10);
  private static final List<String> PROBES =
      List.of("POST /api/user/sync", "GET /api/health", "GET /api/ready");

  private final int port;
  private final String token;

  private SlowApplication(int port, String token) {
    this.port = port;
    this.token = token;
  }

  /** Prints a line for each step. */
  public static void main(String[] args) {
    Locale.setDefault(Locale.ROOT);
    String database = TestPostgres.newDatabase("meet");
    try (StandInClerk clerk = new StandInClerk();
        TestServer server = TestServer.start(new ExampleApplication(), clerk, database)) {
      clerk.putUser("user_ada", "ada@example.com", "Ada", null);
      String token = clerk.token("user_ada", Duration.ofHours(1));
      server.sync(token);
      TestPostgres.execute(database, SLOW_QUERY);
      SlowApplication bench = new SlowApplication(server.port(), token);
      server.addRoute("/api/compute", SlowApplication::compute);
      bench.step("warm-up", 0, LIST, 0);
      bench.step("nothing else", 0, LIST, 0);
      bench.step("64 connections, query of 200 ms", 64, LIST, 0);
      bench.step("256 connections, query of 200 ms", 256, LIST, 0);
      bench.step("64 connections, 20 ms of CPU", 64, "POST /api/compute", 0);
      bench.step("20 slow bodies", 0, LIST, 20);
    } catch (Exception e) {
      e.printStackTrace();
    }
    System.exit(0);
  }

  private static void compute(Context ctx) {
    long end = System.nanoTime() + 20_000_000;
    int rounds = 0;
    while (System.nanoTime() < end) {
      rounds++;
    }
    ctx.json(Success.of(rounds > 0));
  }

  private void step(String name, int clients, String request, int bodies) throws Exception {
    AtomicBoolean end = new AtomicBoolean();
    AtomicInteger served = new AtomicInteger();
    AtomicInteger failed = new AtomicInteger();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < clients; i++) {
      threads.add(new Thread(() -> ask(request, end, served, failed, new long[1], 0)));
    }
    for (int i = 0; i < bodies; i++) {
      threads.add(new Thread(() -> sendSlowly(end)));
    }
    long[][] longest = new long[PROBES.size()][1];
    AtomicInteger probes = new AtomicInteger();
    AtomicInteger bad = new AtomicInteger();
    for (int i = 0; i < PROBES.size(); i++) {
      String probe = PROBES.get(i);
      long[] most = longest[i];
      threads.add(new Thread(() -> ask(probe, end, probes, bad, most, 20)));
    }
    threads.forEach(Thread::start);
    Thread.sleep(STEP.toMillis());
    end.set(true);
    for (Thread thread : threads) {
      thread.join();
    }
    System.out.printf(
        "%-34s sync %4d ms, health %4d ms, ready %4d ms at most; %d of %d not 200; of the slow %d served, %d not%n",
        name,
        longest[0][0],
        longest[1][0],
        longest[2][0],
        bad.get(),
        probes.get() + bad.get(),
        served.get(),
        failed.get());
  }

  /** Sends a request again and again on one connection. */
  private void ask(
      String request,
      AtomicBoolean end,
      AtomicInteger served,
      AtomicInteger failed,
      long[] longest,
      long pause) {
    byte[] text = head(request, "").getBytes(StandardCharsets.ISO_8859_1);
    try (Socket socket = new Socket("127.0.0.1", port)) {
      socket.setTcpNoDelay(true);
      while (!end.get()) {
        long start = System.nanoTime();
        socket.getOutputStream().write(text);
        boolean ok = Load.status(socket.getInputStream()) == 200;
        longest[0] = Math.max(longest[0], (System.nanoTime() - start) / 1_000_000);
        (ok ? served : failed).incrementAndGet();
        Thread.sleep(pause);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Sends a byte of a body each second, and begins again when the server has had enough. */
  private void sendSlowly(AtomicBoolean end) {
    while (!end.get()) {
      try (Socket socket = new Socket("127.0.0.1", port)) {
        String head = head("POST /api/meetings", "Content-Length: 1000\r\n");
        socket.getOutputStream().write((head + "{").getBytes(StandardCharsets.ISO_8859_1));
        while (!end.get() && socket.getInputStream().available() == 0) {
          Thread.sleep(1000);
          socket.getOutputStream().write(' ');
        }
      } catch (IOException e) {
        // closed by the server
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
  }

  private String head(String request, String more) {
    return "%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n%s\r\n"
        .formatted(request, token, more);
  }
}
