package com.realmeet.server;

import java.time.Duration;
import java.time.Instant;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.util.concurrent.atomic.AtomicBoolean;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Says once if this machine's clock differs from Clerk's by more than a token may be off: from then
 * on good tokens look as if they came from the future, or look expired.
 */
final class ClerkClock {
  private static final Logger log = LoggerFactory.getLogger(ClerkClock.class);

  private final AtomicBoolean told = new AtomicBoolean();

  /**
   * Compares an answer's date with the time in which it was made; how long it took is no
   * difference.
   *
   * @param asked when the request was sent, by this machine's clock
   * @param date the answer's Date header, in whole seconds (RFC 9110 §6.6.1)
   */
  void compare(Instant asked, String date) {
    Instant clerk;
    try {
      clerk = ZonedDateTime.parse(date, DateTimeFormatter.RFC_1123_DATE_TIME).toInstant();
    } catch (DateTimeParseException e) {
      return; // no date of Clerk's
    }
    Duration behind = Duration.between(Instant.now(), clerk);
    Duration ahead = Duration.between(clerk.plusSeconds(1), asked);
    if (behind.compareTo(SessionAuth.SKEW) > 0) {
      tell(behind, "behind");
    } else if (ahead.compareTo(SessionAuth.SKEW) > 0) {
      tell(ahead, "ahead of");
    }
  }

  private void tell(Duration difference, String direction) {
    if (told.compareAndSet(false, true)) {
      log.warn(
          "This machine's clock is {} s {} Clerk's, so good tokens may be refused: set it, best by NTP",
          difference.toSeconds(),
          direction);
    }
  }
}
