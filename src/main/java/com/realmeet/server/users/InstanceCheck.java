package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import java.time.Duration;
import java.time.Instant;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantLock;
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

  /** Minimum interval between two log lines about a wrong key. */
  private static final Duration REMINDER = Duration.ofMinutes(1);

  /** Result of looking up a sample. */
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
  private final Lock insertLock = new ReentrantLock();

  /**
   * Time at which the first check found a wrong key, or null. The key counts as wrong until Clerk
   * has one of the users that were in the table at that time: later rows may come from the other
   * instance.
   */
  private volatile Instant wrongSince;

  /** When Clerk is asked again, if it did not tell the instance before an insert. */
  private volatile long askAgainNanos = System.nanoTime();

  /** True once a check has not found the key wrong: users may be inserted. */
  private volatile boolean keyAccepted;

  /** Size of the last check's sample if Clerk had none of it, otherwise 0; guarded by this. */
  private int missingSampled;

  private long loggedNanos; // guarded by this

  /** Creates a check, which calls Clerk only when it is used. */
  public InstanceCheck(UserDao users, ClerkApi clerk) {
    this.users = users;
    this.clerk = clerk;
  }

  /**
   * Checks once at the start, and logs an error if the key is of another instance. If Clerk or the
   * database is unavailable, the server starts nevertheless.
   */
  public void atStart() {
    try {
      Deadline deadline = Deadline.in(Deadline.REQUEST_TIMEOUT);
      keyAccepted = check(List.of(), Instant.now(), deadline) != Verdict.OTHER_INSTANCE;
    } catch (Failure e) {
      log.debug("The instance of CLERK_SECRET_KEY is not known yet: {}", e.reason());
    }
  }

  /**
   * Requires, once, the key to be of the rows' instance, before a user is inserted: rows of another
   * instance would make its key look right from the next start on. If Clerk does not tell, users
   * may sign up nevertheless, and Clerk is asked again after a minute.
   *
   * @throws Failure as {@link #require(Collection, Deadline)}, if the key has been found wrong; or
   *     OVERLOADED if no time is left
   */
  void requireBeforeInsert(String id, Deadline deadline) {
    if (mayInsert()) {
      return;
    }
    lockInserts(deadline); // the first of many asks for all
    try {
      if (!mayInsert()) {
        askBeforeInsert(id, deadline);
      }
    } finally {
      insertLock.unlock();
    }
  }

  private void lockInserts(Deadline deadline) {
    try {
      if (insertLock.tryLock(
          UserSync.clerkDeadline(deadline).remaining().toNanos(), TimeUnit.NANOSECONDS)) {
        return;
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    throw ClerkApi.tooLittleTime();
  }

  private boolean mayInsert() {
    return keyAccepted || wrongSince == null && System.nanoTime() - askAgainNanos < 0;
  }

  private void askBeforeInsert(String id, Deadline deadline) {
    try {
      require(List.of(id), deadline);
      keyAccepted = true;
    } catch (Failure e) {
      if (e.kind() == Kind.CLERK_OTHER_INSTANCE || wrongSince != null) {
        throw e;
      }
      askAgainNanos = System.nanoTime() + REMINDER.toNanos();
      log.warn("The instance of CLERK_SECRET_KEY is not known, users are inserted: {}", e.reason());
    }
  }

  /**
   * Requires the key to be of the rows' instance. Must be called before a row is changed because
   * Clerk does not have its user.
   *
   * @param except ids to leave out of the sample, such as that of the user to be deleted
   * @throws Failure CLERK_OTHER_INSTANCE, OVERLOADED, or a fault of Clerk or the database
   */
  void require(Collection<String> except, Deadline deadline) {
    require(except, Instant.now(), deadline);
  }

  /**
   * Requires the same as {@link #require(Collection, Deadline)}, but samples only rows that are
   * older than a time.
   */
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
   * Looks up a sample of up to {@link #SAMPLE_SIZE} users at Clerk.
   *
   * @param except ids to leave out of the sample
   * @param before rows that are younger are left out, too
   * @throws Failure OVERLOADED if too little time is left, or a fault of Clerk or the database
   */
  Verdict check(Collection<String> except, Instant before, Deadline deadline) {
    Instant wrongFrom = wrongSince;
    Instant limit = wrongFrom != null && wrongFrom.isBefore(before) ? wrongFrom : before;
    List<String> ids = users.sample(SAMPLE_SIZE, except, limit, deadline);
    if (ids.isEmpty() || ids.size() < MIN_SAMPLE && wrongFrom == null) {
      synchronized (this) {
        missingSampled = 0;
      }
      return Verdict.TOO_FEW_USERS;
    }
    if (clerk.lookup(ids, UserSync.clerkDeadline(deadline)).isEmpty()) {
      if (!keyAccepted && wrongFrom == null) {
        wrongSince = before;
      }
      reportOtherInstance(ids.size());
      return Verdict.OTHER_INSTANCE;
    }
    reportSameInstance();
    return Verdict.SAME_INSTANCE;
  }

  /**
   * Returns true if the last check found that the key is of another instance, so that a 404 of
   * Clerk says nothing about a user; logs that again, once a minute.
   */
  synchronized boolean reportIfWrong() {
    if (missingSampled > 0) {
      reportOtherInstance(missingSampled);
    }
    return missingSampled > 0;
  }

  private synchronized void reportOtherInstance(int sampleSize) {
    long now = System.nanoTime();
    if (missingSampled == 0 || now - loggedNanos >= REMINDER.toNanos()) {
      log.error(
          "CLERK_SECRET_KEY is of another Clerk instance than the users in the table: Clerk has"
              + " none of {} sampled users. No user is {}marked deleted meanwhile. Set the key of the"
              + " instance that the users come from, and restart",
          sampleSize,
          keyAccepted ? "" : "inserted or ");
      loggedNanos = now;
    }
    missingSampled = sampleSize;
  }

  private synchronized void reportSameInstance() {
    wrongSince = null;
    keyAccepted = true;
    if (missingSampled > 0) {
      log.info("CLERK_SECRET_KEY is of the same Clerk instance as the users in the table");
      missingSampled = 0;
    }
  }
}
