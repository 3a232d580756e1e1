package com.realmeet.server.clerk;

import com.realmeet.server.core.Origins;
import io.javalin.http.HandlerType;
import java.time.Duration;
import java.time.Instant;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Logs warnings about configurations that reject valid users: once per kind, with what to do.
 *
 * <p>Invalid and expired tokens also come from attackers and from normal use. So warnings about
 * tokens, except one that Clerk dates in the future, are logged only until the first valid token
 * arrives, and of a token that none of our keys has signed only an issuer and a key id in Clerk's
 * form are quoted.
 */
public final class SetupWarnings {
  private static final Logger log = LoggerFactory.getLogger(SetupWarnings.class);

  /** Issuer such as {@code https://clerk.example.com}; behind a proxy it has a path. */
  private static final Pattern ISSUER = Pattern.compile("https://[\\w.:/-]{1,200}");

  private static final Pattern KEY_ID = Pattern.compile("[\\w-]{1,64}");

  /**
   * Id of another of Clerk's objects, such as {@code mch_…} of a machine; group 1 is its prefix.
   */
  private static final Pattern CLERK_ID = Pattern.compile("([a-z]{1,10}_)[A-Za-z0-9]{1,64}");

  private final Set<String> logged = ConcurrentHashMap.newKeySet();
  private volatile boolean tokenWasAccepted;
  private volatile Duration clockSkew;

  /** Records that a token was accepted, which proves that the configuration is right. */
  void tokenAccepted() {
    if (!tokenWasAccepted) {
      tokenWasAccepted = true;
    }
  }

  /**
   * Warns of a request with a text such as {@code undefined} instead of a token.
   *
   * @param word one of the texts that {@link SessionAuth} knows
   */
  void noToken(String word) {
    token(
        "A request carries \"Bearer {}\": the front end must await getToken(), and call it only when"
            + " the user is signed in",
        word);
  }

  /**
   * Warns of a token of another Clerk instance.
   *
   * @param ourKeys ids of the instance's keys; empty if CLERK_JWT_KEY is the only one
   */
  void foreignToken(String issuer, String keyId, Set<String> ourKeys) {
    if (!ourKeys.contains(keyId)
        && issuer != null
        && ISSUER.matcher(issuer).matches()
        && KEY_ID.matcher(keyId).matches()) {
      token(
          "A token comes from {} and is signed with key {}, but {}: copy both keys from the Clerk"
              + " instance whose publishable key the front end has",
          issuer,
          keyId,
          ourKeys.isEmpty()
              ? "CLERK_JWT_KEY is another"
              : "CLERK_SECRET_KEY's instance has " + JwkSet.quotable(ourKeys));
    }
  }

  // Tokens that one of our keys has signed

  /** Warns of a token that is not a session token. */
  void otherCategory() {
    token(
        "Tokens are refused because they are not session tokens but of a JWT template, an OAuth"
            + " application or a machine: the front end must call getToken() without a template");
  }

  /**
   * Warns of a token that is not of a user.
   *
   * @param subject its {@code sub}, of which only the prefix of an id of Clerk's is quoted, or null
   */
  void otherSubject(String subject) {
    Matcher id = CLERK_ID.matcher(String.valueOf(subject));
    token(
        "Tokens are refused because their sub is not a user id (user_...) but {}: the front end must"
            + " send what getToken() returns for a signed-in user, not a token of a machine or of"
            + " another provider",
        subject == null
            ? "missing or not a text"
            : id.matches() ? id.group(1) + "..." : "another text");
  }

  /** Warns of an expired token. */
  void expired(long seconds) {
    token(
        "Tokens are refused because they expired {} s ago: the front end must call getToken() for"
            + " each request, since a token lives for a minute; or else this machine's clock is"
            + " ahead",
        seconds);
  }

  /** Warns of a token of a pending session. */
  void pendingSession() {
    token(
        "Tokens are refused because their sessions are pending: the front end must let users finish"
            + " what Clerk demands after sign-in, such as choosing an organization (session tasks)");
  }

  /**
   * Warns of a token of a front end that is not an authorized party.
   *
   * @param party its {@code azp}, or null
   * @param accepted the value of CLERK_AUTHORIZED_PARTIES
   */
  void otherParty(String party, String accepted) {
    if (party == null) {
      token(
          "Tokens are refused because they have no azp, as those of native apps: to accept them, set"
              + " CLERK_AUTHORIZED_PARTIES={},none",
          accepted);
    } else {
      token(
          "Tokens of {} are refused: if it is yours, add it to CLIENT_URL, or to"
              + " CLERK_AUTHORIZED_PARTIES if that is set, now {}",
          Origins.isOrigin(party) ? party : "something that is no origin",
          accepted);
    }
  }

  /**
   * Warns of a clock skew, because of which valid tokens look expired or not yet valid.
   *
   * @param sentAt when a request was sent to Clerk, by this machine's clock
   * @param date the response's Date header, in whole seconds (RFC 9110 §6.6.1)
   */
  void compareClocks(Instant sentAt, String date) {
    Instant clerk;
    try {
      clerk = ZonedDateTime.parse(date, DateTimeFormatter.RFC_1123_DATE_TIME).toInstant();
    } catch (DateTimeParseException e) {
      return; // not a date in the form of RFC 9110
    }
    // The time of the exchange is not a skew.
    Duration behind = Duration.between(Instant.now(), clerk);
    Duration ahead = Duration.between(clerk.plusSeconds(1), sentAt);
    clockSkew = Duration.ZERO;
    if (behind.compareTo(SessionAuth.MAX_CLOCK_SKEW) > 0) {
      clockSkew = behind;
      wrongClock(behind.toSeconds(), "behind");
    } else if (ahead.compareTo(SessionAuth.MAX_CLOCK_SKEW) > 0) {
      clockSkew = ahead.negated();
      wrongClock(ahead.toSeconds(), "ahead of");
    }
  }

  /**
   * Returns the clock skew of the last comparison: positive if this machine's clock was behind
   * Clerk's, negative if it was ahead, zero up to 5 s; empty before the first comparison.
   */
  Optional<Duration> clockSkew() {
    return Optional.ofNullable(clockSkew);
  }

  /**
   * Warns of a wrong clock.
   *
   * @param direction "behind" or "ahead of"
   */
  void wrongClock(long seconds, String direction) {
    warn(
        "This machine's clock is {} s {} Clerk's, so good tokens may be refused: set it, best by NTP",
        seconds,
        direction);
  }

  /**
   * Warns of a webhook that gets 404 because no signing secret is set.
   *
   * @param method of the request; only a POST can be an event
   */
  public void webhookWithoutSecret(HandlerType method) {
    if (method == HandlerType.POST) {
      warn(
          "Events at /api/webhooks/clerk are answered with 404, because"
              + " CLERK_WEBHOOK_SIGNING_SECRET is not set: copy the endpoint's signing secret, whsec_...,"
              + " from Clerk's dashboard");
    }
  }

  private void token(String line, Object... arguments) {
    if (!tokenWasAccepted) {
      warn(line, arguments);
    }
  }

  private void warn(String line, Object... arguments) {
    if (logged.add(line)) {
      log.warn(line, arguments);
    }
  }
}
