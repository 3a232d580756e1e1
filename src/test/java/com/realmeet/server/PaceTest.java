package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import org.junit.jupiter.api.Test;

class PaceTest {
  @Test
  void soManyCallsAndNoMoreBeginInAnyStretch() {
    Pace pace = new Pace(3, Duration.ofMillis(200));
    long began = System.nanoTime();
    for (int i = 0; i < 10; i++) {
      pace.await();
    }
    long millis = Duration.ofNanos(System.nanoTime() - began).toMillis();

    assertTrue(millis >= 595, millis + " ms"); // three whole stretches, each ends within a ms
  }
}
