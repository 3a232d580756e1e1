package com.realmeet.server.core;

import java.time.Duration;

/**
 * Everything that can go wrong on purpose; whatever else is thrown is a bug and answered with 500.
 *
 * <p>A failure is a value that travels as an exception: it has no stack trace, because a stranger's
 * junk token must cost next to nothing and because its kind says all there is to know.
 */
public final class Failure extends RuntimeException {

  /** The status and the sentence that a client sees for each kind of failure. */
  public enum Kind {
    /** The four kinds that a route of the application's own has a sentence for. */
    BAD_REQUEST(400, "Bad request"),
    FORBIDDEN(403, "Forbidden"),
    NOT_FOUND(404, "Not found"),
    CONFLICT(409, "Conflict"),
    AMBIGUOUS_AUTHORIZATION(400, "More than one Authorization header"),
    WEBHOOK_UNSIGNED(400, "Missing or malformed webhook signature headers"),
    WEBHOOK_TIMESTAMP_OUT_OF_TOLERANCE(400, "Webhook timestamp is more than 5 minutes off"),
    WEBHOOK_BAD_SIGNATURE(400, "Webhook signature is wrong"),
    WEBHOOK_MALFORMED(400, "Webhook body is not an event of Clerk"),
    MISSING_TOKEN(401, "Missing or invalid authorization header"),
    /** One text for every fault of a token: it tells an attacker nothing. */
    INVALID_TOKEN(401, "Invalid or expired token"),
    /** The row is a tombstone. */
    USER_DELETED(401, "User no longer exists"),
    /** Clerk does not have the user, which alone deletes nobody. */
    USER_NOT_AT_CLERK(401, "User no longer exists"),
    EMAIL_IN_USE(409, "Email address is already in use by another user"),
    NO_EMAIL(422, "User has no email address"),
    CLERK_BAD_RESPONSE(502, "Clerk sent an unexpected answer"),
    CLERK_UNAVAILABLE(503, "Clerk is unavailable"),
    /** Our fault, but one that a new key heals; clients cannot tell it from any other. */
    CLERK_UNAUTHORIZED(503, "Clerk is unavailable"),
    /** Likewise: Clerk accepts the key, but has none of the users in the table. */
    CLERK_OTHER_INSTANCE(503, "Clerk is unavailable"),
    DATABASE_UNAVAILABLE(503, "Database is unavailable"),
    /** Too many requests at once; neither Clerk nor the database is at fault. */
    OVERLOADED(503, "Server is overloaded"),
    // The same faults in webhooks, of which Svix shows the answers: a 503 makes it send them again.
    WEBHOOK_USER_NOT_AT_CLERK(503, "Clerk does not have the user of this event"),
    WEBHOOK_EMAIL_IN_USE(503, "Email address of this user is already in use by another user"),
    WEBHOOK_OTHER_INSTANCE(503, "CLERK_SECRET_KEY is of another Clerk instance than the users");

    public final int status;
    public final String message;

    Kind(int status, String message) {
      this.status = status;
      this.message = message;
    }
  }

  /** Seconds after which a client may try again when the fault itself names no time. */
  private static final int RETRY_AFTER_SECONDS = 5;

  private final Kind kind;
  private final String sentence;
  private final int retryAfter;
  private final boolean throttled;

  private Failure(Kind kind, String sentence, String reason, int retryAfter, boolean throttled) {
    super(reason, null, false, false);
    this.kind = kind;
    this.sentence = sentence;
    this.retryAfter = retryAfter;
    this.throttled = throttled;
  }

  /**
   * 400: a request that a route cannot read.
   *
   * @param sentence says which part, to the client; free of secrets and of others' data
   */
  public static Failure badRequest(String sentence) {
    return sentence(Kind.BAD_REQUEST, sentence);
  }

  /** 403: a rule of the route forbids it. */
  public static Failure forbidden(String sentence) {
    return sentence(Kind.FORBIDDEN, sentence);
  }

  /** 404: what the path names is not there. */
  public static Failure notFound(String sentence) {
    return sentence(Kind.NOT_FOUND, sentence);
  }

  /** 409: the request contradicts what is there. */
  public static Failure conflict(String sentence) {
    return sentence(Kind.CONFLICT, sentence);
  }

  private static Failure sentence(Kind kind, String sentence) {
    return new Failure(kind, sentence, sentence, RETRY_AFTER_SECONDS, false);
  }

  /** A failure of which nothing more is to be said. */
  public static Failure of(Kind kind) {
    return of(kind, kind.message);
  }

  /**
   * A failure with a reason for the log.
   *
   * @param reason never part of an answer, and free of secrets and personal data
   */
  public static Failure of(Kind kind, String reason) {
    return new Failure(kind, kind.message, reason, RETRY_AFTER_SECONDS, false);
  }

  /** Clerk throttles us, or we ourselves, until {@code wait} has passed. */
  public static Failure throttled(String reason, Duration wait) {
    long seconds = (wait.toMillis() + 999) / 1000;
    Kind kind = Kind.CLERK_UNAVAILABLE;
    int retryAfter = (int) Math.max(1, Math.min(60, seconds));
    return new Failure(kind, kind.message, reason, retryAfter, true);
  }

  public Kind kind() {
    return kind;
  }

  /** The sentence that the client sees. */
  public String sentence() {
    return sentence;
  }

  /** Whether nothing is broken, and only time has to pass. */
  public boolean isThrottled() {
    return throttled;
  }

  /** Seconds, 1 to 60, for the {@code Retry-After} header of a 503. */
  public int retryAfter() {
    return retryAfter;
  }
}
