package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Access;
import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import io.javalin.http.Context;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Handlers that hang take neither health nor readiness with them, and give their place back. */
class BulkheadTest {
  private static final int PLACES = 60;
  private static final String DATABASE = TestPostgres.newDatabase();
  private static StandInClerk clerk;
  private static TestServer server;

  private static final AtomicInteger inside = new AtomicInteger();
  private static volatile CountDownLatch released;
  private final List<RawHttp> connections = new ArrayList<>();

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    clerk.putUser("user_known", "known@example.com", "Ann", null);
    server = TestServer.start(clerk, DATABASE);
    addRoutes(server);
  }

  private static void addRoutes(TestServer server) {
    server.addRoute("/hang", BulkheadTest::hang, Access.PUBLIC);
    server.addRoute("/api/user/compute", BulkheadTest::compute, Access.PUBLIC);
    server.addRoute("/slow", BulkheadTest::respondSlowly, Access.PUBLIC);
    server.addRoute(
        "/throw",
        ctx -> {
          throw new IllegalStateException("on purpose");
        },
        Access.PUBLIC);
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  @AfterEach
  void close() {
    released.countDown();
    connections.forEach(RawHttp::close);
    TestServer.await("all have left", () -> inside.get() == 0);
  }

  private static void hang(Context ctx) throws InterruptedException {
    inside.incrementAndGet();
    try {
      released.await();
      ctx.result("done");
    } finally {
      inside.decrementAndGet();
    }
  }

  /** Uses a processor until it is released. */
  private static void compute(Context ctx) {
    inside.incrementAndGet();
    while (released.getCount() > 0) {
      Thread.onSpinWait();
    }
    inside.decrementAndGet();
  }

  /** The client has gone when this writes. */
  private static void respondSlowly(Context ctx) throws InterruptedException {
    hang(ctx);
    ctx.result("x".repeat(200_000));
  }

  private void open(int number, String path) {
    for (int i = 0; i < number; i++) {
      connections.add(new RawHttp(server.port()).send(request("POST", path)));
    }
  }

  /** Requests take all places: so many, and no more. */
  private void fill() {
    released = new CountDownLatch(1);
    open(PLACES, "/hang");
    TestServer.await("all places are taken", () -> inside.get() == PLACES);
  }

  @Test
  void healthAndReadinessDoNotWaitForHangingHandlers() {
    fill();
    RawHttp suspended = new RawHttp(server.port());
    suspended.send(request("GET", "/api/openapi.yaml", "Origin: http://localhost:3000"));

    for (int i = 0; i < 20; i++) {
      long began = System.nanoTime();
      assertEquals(200, server.get("/api/health").statusCode());
      assertEquals(200, server.get("/api/ready").statusCode());
      assertTrue(System.nanoTime() - began < Duration.ofSeconds(2).toNanos());
    }
    Answer answer = suspended.answer();
    assertEquals(503, answer.status());
    assertEquals(
        "{\"error\":\"Service Unavailable\",\"message\":\"Server is overloaded\"}", answer.body());
    assertEquals(List.of("1"), answer.header("Retry-After"));
    assertEquals(List.of("http://localhost:3000"), answer.header("Access-Control-Allow-Origin"));
    assertFalse(Log.text().contains(" ERROR "), Log.text());
    suspended.close();
  }

  /** More of them than carry the virtual threads of the server's own routes. */
  @Test
  void syncGoesOnBesideHandlersThatCompute() {
    released = new CountDownLatch(1);
    int number = Math.min(PLACES, 4 * Runtime.getRuntime().availableProcessors() + 1);
    open(number, "/api/user/compute");
    TestServer.await("all compute", () -> inside.get() == number);

    assertEquals(200, server.sync(clerk.token("user_known")).statusCode());
  }

  @Test
  void placeIsGivenBackHoweverARequestEnds() {
    released = new CountDownLatch(1);
    open(50, "/throw");
    open(PLACES, "/slow");
    connections.forEach(RawHttp::reset);
    connections.clear();
    open(50, "/slow"); // wait for a place
    connections.forEach(RawHttp::reset);
    connections.clear();
    released.countDown();
    TestServer.await("a place is free", () -> server.get("/nope").statusCode() == 404);
    TestServer.await("all have left", () -> inside.get() == 0);

    fill();

    released.countDown();
    connections.forEach(connection -> assertEquals("done", connection.unchecked().body()));
    assertFalse(Log.text().replace("on purpose", "").contains("EofException"), "is no fault");
  }

  @Test
  void requestsWhileTheServerStopsAreToldSo() {
    TestServer stopping = TestServer.start(clerk, DATABASE);
    addRoutes(stopping);
    released = new CountDownLatch(1);
    try (RawHttp hanging = new RawHttp(stopping.port())) {
      hanging.send(request("POST", "/hang"));
      TestServer.await("it hangs", () -> inside.get() == 1);
      CompletableFuture<Answer> late =
          RawHttp.answerWhileStopping(stopping.port(), request("POST", "/api/user/sync"), 401);
      CompletableFuture<Void> stop = Threads.run(stopping::stop);
      Answer answer = late.join();
      released.countDown();

      assertEquals("done", hanging.unchecked().body());
      answer.assertError(503, "Service Unavailable", "Server is stopping", "Retry-After: 1");
      stop.join();
    }
  }

  @Test
  void firstRequestOfAllMayHang() {
    released = new CountDownLatch(1);
    try (TestServer fresh = TestServer.start(clerk, DATABASE)) {
      addRoutes(fresh);
      RawHttp first = new RawHttp(fresh.port()).send(request("POST", "/hang"));
      TestServer.await("it hangs", () -> inside.get() == 1);

      assertEquals(200, fresh.get("/api/health").statusCode());

      released.countDown();
      assertEquals("done", first.unchecked().body());
    }
  }
}
