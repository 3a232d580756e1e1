package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static java.nio.charset.StandardCharsets.US_ASCII;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.net.Socket;
import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What strangers can do with the one body that is read. */
class WebhookBodyTest {
  private static Fleet fleet;

  @BeforeAll
  static void start() {
    fleet = new Fleet(1);
  }

  @AfterAll
  static void stop() {
    fleet.close();
  }

  /** Headers that could be Svix's: without them, no body is read. */
  private static String svix() {
    return "svix-id: msg_1\r\nsvix-timestamp: "
        + Instant.now().getEpochSecond()
        + "\r\nsvix-signature: v1,"
        + "A".repeat(43)
        + "=";
  }

  @ParameterizedTest
  @ValueSource(strings = {"Content-Length: 2097152", "Transfer-Encoding: chunked"})
  void bodyOfMoreThanAMegabyteIsRefused(String length) {
    String chunk = "10000\r\n" + "x".repeat(1 << 16) + "\r\n";

    RawHttp.ask(
            fleet.server(0).port(),
            request("POST", "/api/webhooks/clerk", svix(), length) + chunk.repeat(17))
        .assertError(413, "Payload Too Large", "Request body is too large");
  }

  @Test
  void bodyOfAMegabyteIsRead() throws IOException {
    String event = fleet.clerk().event("user.deleted", "user_large");
    String large = event + " ".repeat((1 << 20) - event.length());

    assertEquals(200, fleet.webhook(0, large).statusCode());
    assertEquals(400, fleet.webhook(0, event + "{}").statusCode());
  }

  /** More of them than the server has platform threads. */
  @Test
  void bodiesThatStallHoldNoThread() throws IOException {
    List<Socket> stalled = new ArrayList<>();
    try {
      for (int i = 0; i < 250; i++) {
        stalled.add(connect("Content-Length: 1000"));
      }
      long began = System.nanoTime();

      assertEquals(200, fleet.webhook("user.deleted", "user_x").statusCode());
      assertTrue(Duration.ofNanos(System.nanoTime() - began).toSeconds() < 5);
    } finally {
      for (Socket socket : stalled) {
        socket.close();
      }
    }
  }

  @Test
  void stopWaitsForABodyThatIsStillComing() throws Exception {
    try (TestServer stopping =
        TestServer.start(
            fleet.clerk(), fleet.database(), "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET)) {
      URI url = stopping.uri("/api/webhooks/clerk");
      String event = fleet.clerk().event("user.deleted", "user_late");
      StringBuilder head = new StringBuilder("POST /api/webhooks/clerk HTTP/1.1\r\nHost: x\r\n");
      StandInClerk.webhook(url, Fleet.SECRET, Instant.now(), event)
          .build()
          .headers()
          .map()
          .forEach((name, values) -> head.append(name + ": " + values.get(0) + "\r\n"));
      head.append("Expect: 100-continue\r\nContent-Length: " + event.length() + "\r\n\r\n");
      try (RawHttp connection = new RawHttp(stopping.port())) {
        connection.send(head.toString()).awaitContinue();
        CompletableFuture<Void> stop = Threads.run(stopping::stop);
        TestServer.await("the server stops", () -> Log.text().contains("Stopping"));
        Thread.sleep(1500); // longer than Jetty lets a connection be idle during a stop
        connection.send(event);

        assertEquals(200, connection.answer().status());
        stop.join();
      }
      assertEquals("tombstone", fleet.row("user_late"));
    }
  }

  /** A connection on which a webhook's body is about to come. */
  private static Socket connect(String length) throws IOException {
    Socket socket = new Socket("127.0.0.1", fleet.server(0).port());
    String head = request("POST", "/api/webhooks/clerk", svix(), length);
    socket.getOutputStream().write(head.getBytes(US_ASCII));
    return socket;
  }
}
