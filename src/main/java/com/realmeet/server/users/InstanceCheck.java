package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import java.time.Duration;
import java.time.Instant;
import java.util.Collection;
import java.util.List;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Checks that CLERK_SECRET_KEY belongs to the Clerk instance that the rows come from. With the key
 * of another instance, such as the development one, Clerk answers 404 for every user, as if all
 * were deleted.
 */
public final class InstanceCheck {
  private static final Logger log = LoggerFactory.getLogger(InstanceCheck.class);

  /** How many rows are looked up: one call to Clerk. */
  static final int SAMPLE_SIZE = 20;

  /** Fewer users than this may all have been deleted at Clerk. */
  static final int MIN_SAMPLE = 3;

  /** The least time between two log lines about a key that stays wrong. */
  private static final Duration REMINDER = Duration.ofMinutes(1);

  /** What a sample of the rows shows. */
  enum Verdict {
    /** Clerk has at least one of the users. */
    SAME_INSTANCE,
    /** Clerk has none of them. */
    OTHER_INSTANCE,
    /** The table has too few users to tell. */
    TOO_FEW_USERS
  }

  private final UserDao users;
  private final ClerkApi clerk;

  /**
   * When the start found that the key is wrong, or null. From then on it is wrong until Clerk has
   * one of the users who were in the table at that time: those of the other instance may have come
   * since.
   */
  private volatile Instant wrongSince;

  private boolean wrong; // guarded by this
  private long loggedNanos; // guarded by this

  public InstanceCheck(UserDao users, ClerkApi clerk) {
    this.users = users;
    this.clerk = clerk;
  }

  /**
   * Logs an error if the key is of another instance. That nobody can be asked at the moment is no
   * reason not to start.
   */
  public void atStart() {
    Instant now = Instant.now();
    try {
      if (check(List.of(), now, Deadline.in(Deadline.REQUEST_TIMEOUT)) == Verdict.OTHER_INSTANCE) {
        wrongSince = now;
      }
    } catch (Failure e) {
      log.debug("The instance of CLERK_SECRET_KEY is not known yet: {}", e.getMessage());
    }
  }

  /**
   * Has to be called before anything is done because Clerk does not have a user.
   *
   * @param except ids of users who prove nothing, such as the one who is to be deleted
   * @throws Failure CLERK_OTHER_INSTANCE, or a fault of Clerk or the database
   */
  void require(Collection<String> except, Deadline deadline) {
    require(except, Instant.now(), deadline);
  }

  /** Like {@link #require(Collection, Deadline)}, judged by rows that are older than a time. */
  Verdict require(Collection<String> except, Instant before, Deadline deadline) {
    Verdict verdict = check(except, before, deadline);
    if (verdict == Verdict.OTHER_INSTANCE) {
      throw Failure.of(
          Kind.CLERK_OTHER_INSTANCE,
          "CLERK_SECRET_KEY is of another Clerk instance than the users");
    }
    return verdict;
  }

  /**
   * Looks up to twenty users up at Clerk.
   *
   * @param except ids of users who prove nothing
   * @param before rows younger than this prove nothing
   * @throws Failure a fault of Clerk or the database
   */
  Verdict check(Collection<String> except, Instant before, Deadline deadline) {
    Instant wrongFrom = wrongSince;
    Instant limit = wrongFrom != null && wrongFrom.isBefore(before) ? wrongFrom : before;
    List<String> ids = users.sample(SAMPLE_SIZE, except, limit, deadline);
    if (ids.isEmpty() || ids.size() < MIN_SAMPLE && wrongFrom == null) {
      return Verdict.TOO_FEW_USERS;
    }
    if (clerk.lookup(ids, UserSync.clerkDeadline(deadline)).isEmpty()) {
      reportOtherInstance(ids.size());
      return Verdict.OTHER_INSTANCE;
    }
    reportSameInstance();
    return Verdict.SAME_INSTANCE;
  }

  private synchronized void reportOtherInstance(int sampleSize) {
    long now = System.nanoTime();
    if (!wrong || now - loggedNanos >= REMINDER.toNanos()) {
      log.error(
          "CLERK_SECRET_KEY is of another Clerk instance than the users in the table: Clerk has"
              + " none of {} whom it was asked about. Nobody is marked deleted meanwhile. Set the"
              + " key of the instance that the users come from, and restart",
          sampleSize);
      loggedNanos = now;
    }
    wrong = true;
  }

  private synchronized void reportSameInstance() {
    wrongSince = null;
    if (wrong) {
      log.info("CLERK_SECRET_KEY is of the same Clerk instance as the users in the table");
      wrong = false;
    }
  }
}
