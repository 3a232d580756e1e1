package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.clerk.SessionAuth;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.LogRateLimiter;
import io.javalin.http.Context;
import io.micrometer.core.instrument.MeterRegistry;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Syncs single users from Clerk to the table, for requests, webhooks, the poll and the backfill.
 */
public final class UserSync implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(UserSync.class);

  /** Part of a request's time that is reserved for the database when Clerk is slow. */
  private static final Duration DATABASE_RESERVE = Duration.ofMillis(1600);

  /**
   * Maximum tries to resolve an email conflict. Each refreshes the rows that have the address,
   * while other rows may change.
   */
  private static final int MAX_EMAIL_ATTEMPTS = 3;

  private final UserDao users;
  private final ClerkApi clerk;
  private final InstanceCheck instance;
  private final LogRateLimiter warnings = new LogRateLimiter();
  private final BatchLoader lookups;
  private final SingleFlight<String, User> firstSyncs;
  private final SingleFlight<String, User> refreshes;

  /** Starts the threads of the batch loader. */
  public UserSync(UserDao users, ClerkApi clerk, InstanceCheck instance, MeterRegistry meters) {
    this.users = users;
    this.clerk = clerk;
    this.instance = instance;
    lookups = new BatchLoader(users::findAll, meters);
    Semaphore waitingThreads = new Semaphore(SingleFlight.MAX_WAITING_THREADS);
    firstSyncs = new SingleFlight<>(waitingThreads, clerk::isDown);
    refreshes = new SingleFlight<>(waitingThreads, clerk::isDown);
  }

  /**
   * Returns the row of the caller of a request, creating it if necessary, so that rows of other
   * tables can reference it.
   *
   * @throws Failure as {@link #sync}
   */
  public User caller(Context ctx) {
    return sync(SessionAuth.userId(ctx), Deadline.of(ctx));
  }

  /**
   * Returns the row of a signed-in user. If there is none, fetches the user from Clerk, once for
   * all concurrent requests of that user (single flight), and inserts the row.
   *
   * @throws Failure USER_DELETED, USER_NOT_AT_CLERK, NO_EMAIL, EMAIL_IN_USE, OVERLOADED, or a fault
   *     of Clerk or the database
   */
  public User sync(String id, Deadline deadline) {
    return usableRow(lookups.load(id, deadline))
        .orElseGet(() -> firstSyncs.join(id, deadline, () -> create(id, deadline)));
  }

  /** Creates the row, unless another request or server has created it meanwhile. */
  private User create(String id, Deadline deadline) {
    return usableRow(lookups.load(id, deadline)).orElseGet(() -> insert(id, deadline));
  }

  private User insert(String id, Deadline deadline) {
    ClerkUser user = fetchWithEmail(id, deadline);
    instance.requireBeforeInsert(deadline);
    return requireNotDeleted(store(user, deadline));
  }

  /**
   * Returns the row if sync may return it; empty if it has a placeholder because another user has
   * taken over its address.
   *
   * @throws Failure USER_DELETED if it is a tombstone
   */
  private static Optional<User> usableRow(Optional<User> row) {
    return row.map(UserSync::requireNotDeleted).filter(user -> !user.hasPlaceholderEmail());
  }

  /**
   * Fetches a user from Clerk.
   *
   * @return a user with an email address
   * @throws Failure USER_NOT_AT_CLERK, NO_EMAIL, OVERLOADED if too little time is left, or a fault
   *     of Clerk
   */
  private ClerkUser fetchWithEmail(String id, Deadline deadline) {
    ClerkUser user =
        clerk.user(id, clerkDeadline(deadline)).orElseThrow(() -> notAtClerk(deadline));
    if (user.email() == null) {
      throw Failure.of(Kind.NO_EMAIL);
    }
    if (!user.hasStorableEmail()) {
      throw unexpected(id, "it has an email address that cannot be stored");
    }
    return user;
  }

  /**
   * Returns USER_NOT_AT_CLERK, and not CLERK_OTHER_INSTANCE, even if the key is known to be of
   * another instance, so that a 404 has the same answer whether or not the key has been checked.
   */
  private Failure notAtClerk(Deadline deadline) {
    return Failure.of(
        Kind.USER_NOT_AT_CLERK,
        instance.isKnownToBeWrong(deadline)
            ? "CLERK_SECRET_KEY is of another Clerk instance"
            : "Clerk does not have the user");
  }

  /**
   * Fetches a user from Clerk and stores that version unless the row is newer. Writes nothing if
   * Clerk does not have the user: a 404 alone deletes no row.
   *
   * @return the row
   * @throws Failure as {@link #sync}
   */
  public User refresh(String id, Deadline deadline) {
    Optional<User> row = users.find(id, deadline);
    row.ifPresent(UserSync::requireNotDeleted);
    return refreshes.joinNext(
        id,
        deadline,
        () -> {
          ClerkUser user = fetchWithEmail(id, deadline);
          if (row.isEmpty()) {
            instance.requireBeforeInsert(deadline);
          }
          return requireNotDeleted(store(user, deadline));
        });
  }

  /**
   * Makes a tombstone of a user whom another source reports as deleted, if Clerk confirms that by a
   * 404; otherwise refreshes the user. It works without an existing row.
   *
   * @param by that source, for the log
   * @return true if there is a new tombstone
   * @throws Failure as {@link #refresh}, and CLERK_OTHER_INSTANCE
   */
  boolean markDeletedIfMissing(String id, String by, Deadline deadline) {
    try {
      refresh(id, deadline);
    } catch (Failure e) {
      switch (e.kind()) {
        case USER_DELETED -> {
          return false;
        }
        case USER_NOT_AT_CLERK -> {
          instance.require(Instant.now(), deadline);
          return markDeleted(id, by, deadline);
        }
        case NO_EMAIL, EMAIL_IN_USE -> {} // Clerk has the user
        default -> throw e;
      }
    }
    log.warn("{} is reported as deleted by {}, but Clerk has the user", id, by);
    return false;
  }

  /**
   * Makes a tombstone of a user, and logs it.
   *
   * @param by the cause, for the log
   * @return false if the row already was a tombstone
   */
  boolean markDeleted(String id, String by, Deadline deadline) {
    boolean marked = users.markDeleted(id, deadline);
    if (marked) {
      log.warn("{} is deleted: {}", id, by);
    }
    return marked;
  }

  /**
   * Stores a version of a user. Email addresses are unique at Clerk, so if another row has the
   * address, that row is outdated and is refreshed first.
   *
   * @throws Failure EMAIL_IN_USE, CLERK_OTHER_INSTANCE, OVERLOADED, or a fault of Clerk or the
   *     database
   */
  User store(ClerkUser user, Deadline deadline) {
    // Two concurrent upserts of one user can collide on the address; the second try finds the first
    // one committed.
    Optional<User> row = users.upsert(user, deadline).or(() -> users.upsert(user, deadline));
    for (int attempts = 0; row.isEmpty() && attempts < MAX_EMAIL_ATTEMPTS; attempts++) {
      row = resolveEmailConflict(user, deadline);
    }
    return row.orElseThrow(() -> emailConflict(user, deadline));
  }

  /**
   * Returns EMAIL_IN_USE if no row has the address, since then a unique index of the application
   * rejects it; otherwise CLERK_BAD_RESPONSE, since Clerk's version of the user who has it is older
   * than the row.
   */
  private Failure emailConflict(ClerkUser user, Deadline deadline) {
    return users
        .findIdByEmail(user.email(), List.of(user.id()), deadline)
        .map(
            holder ->
                unexpected(
                    user.id(),
                    "Clerk's version of "
                        + holder
                        + ", whose row has the same address, is older than the row"))
        .orElseGet(() -> Failure.of(Kind.EMAIL_IN_USE));
  }

  /** Returns CLERK_BAD_RESPONSE because of one user, and logs why that one is not stored. */
  private Failure unexpected(String id, String reason) {
    if (warnings.allows(id)) {
      log.warn("{} is not stored: {}", id, reason);
    }
    return Failure.of(Kind.CLERK_BAD_RESPONSE, id + ": " + reason);
  }

  /**
   * Refreshes the row that has the address, then the row that has that user's new address, and so
   * on, since several users may have swapped addresses.
   */
  private Optional<User> resolveEmailConflict(ClerkUser user, Deadline deadline) {
    List<ClerkUser> moved = new ArrayList<>(List.of(user));
    String email = user.email();
    while (email != null) {
      List<String> ids = new ArrayList<>(moved.stream().map(ClerkUser::id).toList());
      Optional<String> owner = users.findIdByEmail(email, ids, deadline);
      if (owner.isEmpty()) {
        break;
      }
      if (!ClerkUser.isId(owner.get())) {
        throw Failure.of(Kind.EMAIL_IN_USE); // not a row of Clerk's
      }
      Optional<ClerkUser> current = clerk.user(owner.get(), clerkDeadline(deadline));
      if (current.isEmpty()) {
        instance.require(Instant.now(), deadline);
        Optional<User> row = users.upsertMovedEmails(moved, owner, deadline);
        row.ifPresent(
            stored ->
                log.info(
                    "{} has lost its email address: Clerk does not have the user", owner.get()));
        return row;
      }
      if (email.equalsIgnoreCase(current.get().email())) {
        throw Failure.of(Kind.EMAIL_IN_USE); // Clerk confirms the address for both
      }
      ClerkUser holder = current.get().withStorableEmail();
      moved.add(holder);
      email = holder.email();
    }
    return users.upsertMovedEmails(moved, Optional.empty(), deadline);
  }

  /**
   * Returns the deadline of a call to Clerk within a request, which leaves time for the database.
   *
   * @throws Failure OVERLOADED if it has passed
   */
  static Deadline clerkDeadline(Deadline deadline) {
    Deadline clerkDeadline = deadline.minus(DATABASE_RESERVE);
    if (clerkDeadline.remaining().isZero()) {
      throw ClerkApi.tooLittleTime();
    }
    return clerkDeadline;
  }

  /** Stops the threads of the batch loader. */
  @Override
  public void close() {
    lookups.close();
  }

  private static User requireNotDeleted(User user) {
    if (user.deletedAt() != null) {
      throw Failure.of(Kind.USER_DELETED);
    }
    return user;
  }
}
