package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Clients that send a byte now and then, to keep the server busy with nothing. */
class SlowClientTest {
  private static final Duration IDLE = Duration.ofMillis(500);

  private final ScheduledExecutorService drips = Executors.newSingleThreadScheduledExecutor();
  private static final String DATABASE = TestPostgres.newDatabase();
  private static StandInClerk clerk;
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    server = TestServer.start(clerk, DATABASE);
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  @AfterEach
  void restore() {
    drips.shutdownNow();
    clerk.heal();
    server.setIdleTime(Duration.ofSeconds(25));
    assertFalse(Log.text().contains("ERROR Errors"), Log.text());
  }

  private RawHttp drip(String beginning, String piece) {
    return drip(beginning, piece, 50);
  }

  private RawHttp drip(String beginning, String piece, int millis) {
    RawHttp connection = new RawHttp(server.port()).send(beginning);
    drips.scheduleWithFixedDelay(() -> connection.send(piece), 0, millis, TimeUnit.MILLISECONDS);
    return connection;
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"", "\r\n", "GET /api/", "GET /api/health HTTP/1.1\r\nHost: localhost\r\nX: "})
  void drippingConnectionIsClosedLikeASilentOne(String beginning) {
    server.setIdleTime(IDLE);
    String piece = beginning.isBlank() ? beginning : "a";

    try (RawHttp connection = drip(beginning, piece)) {
      assertTrue(connection.isClosed());
    }
  }

  /** Each takes a buffer until it reads. */
  @Test
  void onlySomeClientsThatDoNotReadStayConnected() throws IOException {
    byte[] requests =
        request("GET", "/api/openapi.yaml").repeat(400).getBytes(StandardCharsets.ISO_8859_1);
    List<Socket> clients = new ArrayList<>();
    server.setIdleTime(Duration.ofMinutes(1));
    try {
      for (int i = 0; i < 70; i++) {
        Socket client = new Socket();
        clients.add(client);
        client.setReceiveBufferSize(4096);
        client.connect(new InetSocketAddress("127.0.0.1", server.port()));
        client.getOutputStream().write(requests);
      }
      TestServer.await("most are closed", () -> server.connections() < 50);
      assertEquals(200, server.get("/api/health").statusCode());
    } finally {
      for (Socket client : clients) {
        client.close();
      }
    }
  }

  @Test
  void drippingBodyIsNotWaitedFor() {
    String unread = request("POST", "/api/user/sync", "Content-Length: 100000");

    try (RawHttp connection = drip(unread, "a")) {
      assertEquals(401, connection.answer().status());
      assertTrue(connection.isClosed());
    }
  }

  @Test
  void connectionInUseStaysOpen() {
    server.setIdleTime(IDLE);
    TestServer.await("one lasts", () -> lasts(Duration.ofMillis(20), IDLE.multipliedBy(5)));
  }

  @Test
  void connectionBetweenTwoRequestsStaysOpenForThreeIdleTimes() {
    server.setIdleTime(IDLE);
    TestServer.await("one lasts", () -> lasts(IDLE.multipliedBy(2), IDLE.multipliedBy(4)));

    try (RawHttp connection = new RawHttp(server.port())) {
      assertEquals(200, connection.send(request("GET", "/api/health")).answer().status());
      assertTrue(connection.isClosed());
    }
  }

  /** Whether a connection serves requests for so long; a busy machine may need several tries. */
  private static boolean lasts(Duration pause, Duration time) {
    long end = System.nanoTime() + time.toNanos();
    try (RawHttp connection = new RawHttp(server.port())) {
      while (System.nanoTime() < end) {
        if (connection.send(request("GET", "/api/health")).answer().status() != 200) {
          return false;
        }
        Threads.sleep(pause);
      }
      return true;
    } catch (UncheckedIOException closed) {
      return false;
    }
  }

  @Test
  void connectionWhoseResponsesAreNotReadIsClosed() {
    try (TestServer own = TestServer.start(clerk, DATABASE)) {
      own.setIdleTime(IDLE);
      RawHttp connection = new RawHttp(own.port());
      Thread sender = // until the server closes
          new Thread(() -> connection.send(request("GET", "/api/openapi.yaml").repeat(4000)));
      sender.start();
      TestServer.await("it is open", () -> own.connections() == 1);

      TestServer.await("the server closes it", () -> own.connections() == 0);
      connection.close();
    }
  }

  @Test
  void stopDoesNotWaitForIdleConnections() {
    TestServer stopping = TestServer.start(clerk, DATABASE);
    List<RawHttp> connections = new ArrayList<>();
    for (int i = 0; i < 50; i++) {
      connections.add(new RawHttp(stopping.port()).send(request("GET", "/api/health")));
    }
    connections.forEach(connection -> assertEquals(200, connection.answer().status()));

    long began = System.nanoTime();
    stopping.close();

    assertTrue(System.nanoTime() - began < Duration.ofSeconds(8).toNanos());
    assertFalse(Log.text().contains("Jetty did not stop gracefully"), Log.text());
    connections.forEach(RawHttp::close);
  }

  @Test
  void answerThatTakesLongerThanTheIdleTimeArrives() {
    server.setIdleTime(IDLE);
    clerk.putUser("user_slow", "slow@example.com", "Ann", null);
    clerk.onUser(
        exchange -> {
          try {
            Thread.sleep(IDLE.multipliedBy(2).toMillis());
          } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
          }
          clerk.answerUser(exchange);
        });

    assertEquals(200, server.sync(clerk.token("user_slow")).statusCode());
  }

  @Test
  void fourHundredOfThemHoldNobodyUp() {
    List<RawHttp> connections = new ArrayList<>();
    for (int i = 0; i < 200; i++) {
      connections.add(drip("GET /api/health HTTP/1.1\r\nHost: localhost\r\nX: ", "a", 2000));
      connections.add(drip(request("POST", "/api/user/sync", "Content-Length: 100000"), "a", 2000));
    }

    assertNobodyIsHeldUp();

    connections.forEach(RawHttp::close);
  }

  @Test
  void clientsThatDoNotReadHoldNobodyUp() {
    List<RawHttp> connections = new ArrayList<>();
    for (int i = 0; i < 20; i++) { // 37 kB each: more than the sockets' buffers
      connections.add(
          new RawHttp(server.port()).send(request("GET", "/api/openapi.yaml").repeat(400)));
    }

    assertNobodyIsHeldUp();

    connections.forEach(RawHttp::close);
  }

  private static void assertNobodyIsHeldUp() {
    clerk.putUser("user_1", "one@example.com", "Ann", null);
    for (int i = 0; i < 20; i++) {
      long began = System.nanoTime();
      assertEquals(200, server.sync(clerk.token("user_1")).statusCode());
      assertTrue(System.nanoTime() - began < Duration.ofSeconds(5).toNanos());
    }
  }

  @Test
  void clientThatGoesAwayIsNoBug() throws Exception {
    CountDownLatch gone = new CountDownLatch(1);
    clerk.putUser("user_left", "left@example.com", "Ann", null);
    clerk.onUser(
        exchange -> {
          try {
            gone.await();
          } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
          }
          clerk.answerUser(exchange);
        });
    String authorization = "Authorization: Bearer " + clerk.token("user_left");
    String sync = request("POST", "/api/user/sync", authorization);
    String halfOfIt = request("POST", "/api/user/sync", authorization, "Content-Length: 9") + "A";
    List<RawHttp> connections = new ArrayList<>();
    for (String text : List.of(sync, halfOfIt, sync + sync)) {
      connections.add(new RawHttp(server.port()).send(text));
    }
    TestServer.await("Clerk is asked", () -> clerk.userCalls() > 0);
    connections.forEach(RawHttp::close);
    gone.countDown();

    assertEquals(200, server.sync(clerk.token("user_left")).statusCode());
  }
}
