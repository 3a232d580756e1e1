package com.realmeet.server.core;

import java.time.Duration;

/**
 * Closed set of the errors that the server expects, each with its HTTP status. Any other exception
 * is a bug and becomes a 500.
 *
 * <p>The exception has no stack trace: filling one in would make requests with invalid tokens
 * expensive, and the kind identifies the place.
 */
public final class Failure extends RuntimeException {

  /** Kind of failure, with the status and the sentence that a client receives. */
  public enum Kind {
    /**
     * Raised by a route of the application with its own sentence, see {@link Failure#badRequest};
     * the same holds for the next three kinds.
     */
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
    /** All faults of a token share this sentence, so that an attacker learns nothing from it. */
    INVALID_TOKEN(401, "Invalid or expired token"),
    /** The row is a tombstone (soft-deleted). */
    USER_DELETED(401, "User no longer exists"),
    /** Clerk responds 404 for the user; that alone does not delete the row. */
    USER_NOT_AT_CLERK(401, "User no longer exists"),
    EMAIL_IN_USE(409, "Email address is already in use by another user"),
    NO_EMAIL(422, "User has no email address"),
    CLERK_BAD_RESPONSE(502, "Clerk sent an unexpected answer"),
    CLERK_UNAVAILABLE(503, "Clerk is unavailable"),
    /** Clerk rejects CLERK_SECRET_KEY; clients see the same response as for an outage. */
    CLERK_UNAUTHORIZED(503, "Clerk is unavailable"),
    /** Clerk accepts the key but has none of the users in the table; also reported as an outage. */
    CLERK_OTHER_INSTANCE(503, "Clerk is unavailable"),
    DATABASE_UNAVAILABLE(503, "Database is unavailable"),
    /** A concurrency limit of the server is reached, or other work has used up the time. */
    OVERLOADED(503, "Server is overloaded"),
    // The same faults in webhooks. Svix shows these sentences in its log, and retries after a 503.
    WEBHOOK_USER_NOT_AT_CLERK(503, "Clerk does not have the user of this event"),
    WEBHOOK_EMAIL_IN_USE(503, "Email address of this user is already in use by another user"),
    WEBHOOK_OTHER_INSTANCE(503, "CLERK_SECRET_KEY is of another Clerk instance than the users");

    /** HTTP status of the response. */
    public final int status;

    /** Sentence of the response, unless the failure has its own. */
    public final String sentence;

    Kind(int status, String sentence) {
      this.status = status;
      this.sentence = sentence;
    }
  }

  /** Value of the {@code Retry-After} header, in seconds, where the fault itself names no time. */
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
   * Returns a 400: the route cannot read the request.
   *
   * @param sentence tells the client which part is wrong; contains no secret and no data of other
   *     users
   */
  public static Failure badRequest(String sentence) {
    return sentence(Kind.BAD_REQUEST, sentence);
  }

  /** Returns a 403: a rule of the route forbids the request. */
  public static Failure forbidden(String sentence) {
    return sentence(Kind.FORBIDDEN, sentence);
  }

  /** Returns a 404: the resource that the path names does not exist. */
  public static Failure notFound(String sentence) {
    return sentence(Kind.NOT_FOUND, sentence);
  }

  /** Returns a 409: the request contradicts the stored state. */
  public static Failure conflict(String sentence) {
    return sentence(Kind.CONFLICT, sentence);
  }

  private static Failure sentence(Kind kind, String sentence) {
    return new Failure(kind, sentence, sentence, RETRY_AFTER_SECONDS, false);
  }

  /** Returns a failure without a further reason. */
  public static Failure of(Kind kind) {
    return of(kind, kind.sentence);
  }

  /**
   * Returns a failure with a reason for the log.
   *
   * @param reason never part of a response; contains no secret and no personal data
   */
  public static Failure of(Kind kind, String reason) {
    return new Failure(kind, kind.sentence, reason, RETRY_AFTER_SECONDS, false);
  }

  /**
   * Returns a CLERK_UNAVAILABLE because Clerk rate-limits us (429), or because too many calls to
   * Clerk are in flight.
   *
   * @param reason for the log, see {@link #of(Kind, String)}
   * @param wait until the next try; the client sees it as {@code Retry-After}, 1 to 60 s
   */
  public static Failure throttled(String reason, Duration wait) {
    long seconds = (wait.toMillis() + 999) / 1000;
    Kind kind = Kind.CLERK_UNAVAILABLE;
    int retryAfter = (int) Math.max(1, Math.min(60, seconds));
    return new Failure(kind, kind.sentence, reason, retryAfter, true);
  }

  /** Returns the kind, which determines the status. */
  public Kind kind() {
    return kind;
  }

  /** Returns the sentence that the client receives. */
  public String sentence() {
    return sentence;
  }

  /** Returns the reason, which is for the log and never for a client. */
  public String reason() {
    return getMessage();
  }

  /**
   * Returns true if Clerk's rate limit or our own limit of concurrent calls to Clerk is the only
   * cause, so that waiting resolves it.
   */
  public boolean isThrottled() {
    return throttled;
  }

  /** Returns the value of the {@code Retry-After} header of a 503, 1 to 60 seconds. */
  public int retryAfter() {
    return retryAfter;
  }
}
