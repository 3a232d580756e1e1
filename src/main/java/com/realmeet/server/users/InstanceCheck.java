package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.LogRateLimiter;
import com.realmeet.server.core.Threads;
import java.time.Instant;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Checks that CLERK_SECRET_KEY belongs to the Clerk instance that the rows come from. With the key
 * of another instance, such as the development one, Clerk responds 404 for every user, as if all
 * were deleted.
 */
public final class InstanceCheck {
  private static final Logger log = LoggerFactory.getLogger(InstanceCheck.class);

  /** Number of rows to look up, in one call to Clerk. */
  static final int SAMPLE_SIZE = 20;

  /** Minimum sample: fewer users than this may all have been deleted at Clerk. */
  static final int MIN_SAMPLE = 3;

  private final UserDao users;
  private final ClerkApi clerk;
  private final LogRateLimiter limiter = new LogRateLimiter();

  /** True once a check has not found the key wrong: users may be inserted. */
  private volatile boolean insertsAllowed;

  /**
   * True if Clerk had nobody of the last check's sample. Then fewer users than {@link #MIN_SAMPLE}
   * are enough for the next check.
   */
  private volatile boolean foundWrong;

  /** Creates a check, which calls Clerk only when it is used. */
  public InstanceCheck(UserDao users, ClerkApi clerk) {
    this.users = users;
    this.clerk = clerk;
  }

  /**
   * Checks once at the start, and logs an error if the key is of another instance. If Clerk or the
   * database is unavailable, the server starts nevertheless.
   *
   * @return ends with the call to Clerk; the database is read before this method returns
   */
  public CompletableFuture<Void> atStart() {
    Deadline deadline = Deadline.in(Deadline.REQUEST_TIMEOUT);
    try {
      List<String> ids = users.sample(SAMPLE_SIZE, Instant.now(), deadline);
      return Threads.run(() -> checkAtStart(ids, deadline));
    } catch (Failure e) {
      log.debug("The rows are not known yet: {}", e.reason());
      return CompletableFuture.completedFuture(null);
    }
  }

  private void checkAtStart(List<String> ids, Deadline deadline) {
    try {
      insertsAllowed = !isWrong(ids, deadline);
    } catch (Failure e) {
      log.debug("The instance of CLERK_SECRET_KEY is not known yet: {}", e.reason());
    }
  }

  /**
   * Requires, once, the key to be of the rows' instance before users are inserted: rows of another
   * instance would make its key look right from the next start on. If Clerk does not understand the
   * question, users are inserted nevertheless.
   *
   * @throws Failure as {@link #require}
   */
  void requireBeforeInsert(Deadline deadline) {
    if (insertsAllowed) {
      return;
    }
    try {
      require(Instant.now(), deadline);
    } catch (Failure e) {
      if (e.kind() != Kind.CLERK_BAD_RESPONSE) {
        throw e;
      }
      if (limiter.allows("not known")) {
        log.warn(
            "The instance of CLERK_SECRET_KEY is not known, users are inserted: {}", e.reason());
      }
    }
    insertsAllowed = true;
  }

  /**
   * Requires the key to be of the rows' instance. Must be called before a row is changed because
   * Clerk does not have its user, while that row still counts as one of the sample.
   *
   * @param before rows that are younger are left out
   * @throws Failure CLERK_OTHER_INSTANCE, OVERLOADED if too little time is left, or a fault of
   *     Clerk or the database
   */
  void require(Instant before, Deadline deadline) {
    if (isWrong(before, deadline)) {
      throw Failure.of(
          Kind.CLERK_OTHER_INSTANCE,
          "CLERK_SECRET_KEY is of another Clerk instance than the users");
    }
  }

  /**
   * Returns true if the last check found that the key is of another instance, so that a 404 of
   * Clerk says nothing about a user. Once a minute it checks again.
   */
  boolean isKnownToBeWrong(Deadline deadline) {
    if (foundWrong && limiter.allows("another check")) {
      try {
        isWrong(Instant.now(), deadline);
      } catch (Failure e) {
        log.debug("The instance of CLERK_SECRET_KEY is not known now: {}", e.reason());
      }
    }
    return foundWrong;
  }

  /** Looks up a sample of up to {@link #SAMPLE_SIZE} users; returns true if Clerk has no one. */
  private boolean isWrong(Instant before, Deadline deadline) {
    return isWrong(users.sample(SAMPLE_SIZE, before, deadline), deadline);
  }

  private boolean isWrong(List<String> ids, Deadline deadline) {
    boolean wasWrong = foundWrong;
    if (ids.size() < (wasWrong ? 1 : MIN_SAMPLE)) {
      foundWrong = false;
      return false;
    }
    if (!clerk.lookup(ids, UserSync.clerkDeadline(deadline)).isEmpty()) {
      if (wasWrong) {
        log.info("CLERK_SECRET_KEY is of the same Clerk instance as the users in the table");
      }
      foundWrong = false;
      insertsAllowed = true;
      return false;
    }
    foundWrong = true;
    if (limiter.allows("error")) {
      log.error(
          "CLERK_SECRET_KEY is of another Clerk instance than the users in the table: Clerk has"
              + " none of {} sampled users. No user is {}marked deleted meanwhile. Set the key of the"
              + " instance that the users come from, and restart; or, if the key is right, and the"
              + " users were deleted at Clerk or came by another key, delete their rows",
          ids.size(),
          insertsAllowed ? "" : "inserted or ");
    }
    return true;
  }
}
