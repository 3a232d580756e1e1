package com.realmeet.server;

import java.time.Duration;
import java.time.Instant;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Warns of a set-up with which good users are refused: one line for each kind, with what to do. */
final class SetupWarnings {
  private static final Logger log = LoggerFactory.getLogger(SetupWarnings.class);

  private enum Kind {
    WRONG_CLOCK,
    OTHER_INSTANCE
  }

  /** By how much this machine's clock and Clerk's may differ. */
  static final Duration MAX_CLOCK_SKEW = Duration.ofSeconds(5);

  /** Such as {@code https://clerk.example.com}, or behind a proxy with a path. */
  private static final Pattern ISSUER = Pattern.compile("https://[\\w.:/-]{1,200}");

  private static final Pattern KEY_ID = Pattern.compile("[\\w-]{1,64}");

  private final Set<Kind> logged = ConcurrentHashMap.newKeySet();
  private volatile boolean ownTokenSeen;

  /** Notes a token that one of our keys has signed: the instance is the right one. */
  void ownToken() {
    if (!ownTokenSeen) {
      ownTokenSeen = true;
    }
  }

  /**
   * Warns of a token of another Clerk instance, while none of ours has come. Anybody can make up a
   * token: nothing is said of one that does not look like Clerk's.
   *
   * @param ourKeys which keys we have instead, or null if we have one of that id
   */
  void foreignToken(String issuer, String keyId, String ourKeys) {
    if (!ownTokenSeen
        && ourKeys != null
        && issuer != null
        && ISSUER.matcher(issuer).matches()
        && KEY_ID.matcher(keyId).matches()) {
      warn(
          Kind.OTHER_INSTANCE,
          "A token comes from {} and is signed with key {}, but {}: copy both keys from the Clerk"
              + " instance whose publishable key the front end has",
          issuer,
          keyId,
          ourKeys);
    }
  }

  /**
   * Warns if this machine's clock is off, so that good tokens look expired or as if they came from
   * the future.
   *
   * @param asked when a request was sent to Clerk, by this machine's clock
   * @param date the response's Date header, in whole seconds (RFC 9110 §6.6.1)
   */
  void compareClocks(Instant asked, String date) {
    Instant clerk;
    try {
      clerk = ZonedDateTime.parse(date, DateTimeFormatter.RFC_1123_DATE_TIME).toInstant();
    } catch (DateTimeParseException e) {
      return; // no date of Clerk's
    }
    // How long the response took is no difference.
    Duration behind = Duration.between(Instant.now(), clerk);
    Duration ahead = Duration.between(clerk.plusSeconds(1), asked);
    if (behind.compareTo(MAX_CLOCK_SKEW) > 0) {
      wrongClock(behind.toSeconds(), "behind");
    } else if (ahead.compareTo(MAX_CLOCK_SKEW) > 0) {
      wrongClock(ahead.toSeconds(), "ahead of");
    }
  }

  private void wrongClock(long seconds, String direction) {
    warn(
        Kind.WRONG_CLOCK,
        "This machine's clock is {} s {} Clerk's, so good tokens may be refused: set it, best by NTP",
        seconds,
        direction);
  }

  private void warn(Kind kind, String line, Object... arguments) {
    if (logged.add(kind)) {
      log.warn(line, arguments);
    }
  }
}
