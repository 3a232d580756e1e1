package com.realmeet.server.users;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.time.Duration;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Failures in a row make the poll rarer. */
class PollBackOffTest {
  @ParameterizedTest
  @CsvSource({
    "10, 0, 10",
    "10, 1, 20",
    "10, 4, 160",
    "10, 5, 300",
    "10, 1000, 300",
    "300, 0, 300",
    "300, 1, 300",
    "86400, 9, 86400"
  })
  void pauseDoublesUpToFiveMinutes(int interval, int failures, int pause) {
    assertEquals(Duration.ofSeconds(pause), Poll.pause(Duration.ofSeconds(interval), failures));
  }
}
