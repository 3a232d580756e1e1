package com.realmeet.server;

import static java.nio.charset.StandardCharsets.US_ASCII;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.Socket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
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

  @ParameterizedTest
  @ValueSource(strings = {"Content-Length: 2097152", "Transfer-Encoding: chunked"})
  void bodyOfMoreThanAMegabyteIsRefused(String length) throws IOException {
    try (Socket socket = connect(length)) {
      socket.setSoTimeout(5000);
      byte[] chunk = ("10000\r\n" + "x".repeat(1 << 16) + "\r\n").getBytes(US_ASCII);
      for (int i = 0; i < 17; i++) {
        socket.getOutputStream().write(chunk);
      }
      byte[] answer = new byte[4096];
      String text = new String(answer, 0, socket.getInputStream().read(answer), US_ASCII);

      assertTrue(text.startsWith("HTTP/1.1 413 "), text);
      assertTrue(text.contains("Content-Type: application/json"), text);
    }
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

  /** A connection on which a webhook's body is about to come. */
  private static Socket connect(String length) throws IOException {
    Socket socket = new Socket("127.0.0.1", fleet.server(0).port());
    String head = "POST /api/webhooks/clerk HTTP/1.1\r\nHost: x\r\n" + length + "\r\n\r\n";
    socket.getOutputStream().write(head.getBytes(US_ASCII));
    return socket;
  }
}
