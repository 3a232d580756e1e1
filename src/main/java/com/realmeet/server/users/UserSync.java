package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.clerk.SessionAuth;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import io.javalin.http.Context;
import io.micrometer.core.instrument.MeterRegistry;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Brings one user from Clerk into the table. */
public final class UserSync implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(UserSync.class);

  /** Kept for the database when Clerk is slow. */
  private static final Duration DATABASE_RESERVE = Duration.ofMillis(1600);

  /** Each try refreshes the rows that hold the address; others may move meanwhile. */
  private static final int MAX_EMAIL_ATTEMPTS = 3;

  private final UserDao users;
  private final ClerkApi clerk;
  private final InstanceCheck instance;
  private final BatchLoader<String, User> lookups;
  private final SingleFlight<String, User> firstSyncs = new SingleFlight<>();
  private final SingleFlight<String, User> refreshes = new SingleFlight<>();

  public UserSync(UserDao users, ClerkApi clerk, InstanceCheck instance, MeterRegistry registry) {
    this.users = users;
    this.clerk = clerk;
    this.instance = instance;
    lookups = new BatchLoader<>("lookup", users::findAll, registry);
  }

  /**
   * Returns the row of the user who sends a request, as {@link #sync} does. From then on, rows of
   * other tables can reference it.
   *
   * @throws Failure as {@link #sync}
   */
  public User caller(Context ctx) {
    return sync(SessionAuth.userId(ctx), Deadline.of(ctx));
  }

  /**
   * Returns the row of a signed-in user. If there is none, fetches the user from Clerk, once
   * however many requests of that user come together, and inserts the row.
   *
   * @throws Failure USER_DELETED, USER_NOT_AT_CLERK, NO_EMAIL, EMAIL_IN_USE, OVERLOADED, or a fault
   *     of Clerk or the database
   */
  public User sync(String id, Deadline deadline) {
    return usableRow(lookups.load(id, deadline))
        .orElseGet(() -> firstSyncs.join(id, deadline, () -> create(id, deadline)));
  }

  /** Another request, or another server, may have been faster. */
  private User create(String id, Deadline deadline) {
    return usableRow(lookups.load(id, deadline))
        .orElseGet(() -> storeNotDeleted(fetchWithEmail(id, deadline), deadline));
  }

  /**
   * A row as sync returns it; none if another user has taken over its address and left it with a
   * placeholder.
   *
   * @throws Failure USER_DELETED if it is a tombstone
   */
  private static Optional<User> usableRow(Optional<User> row) {
    return row.map(UserSync::requireNotDeleted)
        .filter(user -> !user.email().equals(user.id() + "@moved.invalid"));
  }

  /**
   * Reads a user from Clerk.
   *
   * @return with an email address
   * @throws Failure USER_NOT_AT_CLERK, NO_EMAIL, a fault of Clerk, or DATABASE_UNAVAILABLE if that
   *     has left no time
   */
  ClerkUser fetchWithEmail(String id, Deadline deadline) {
    return fetchWithEmail(id, deadline, culprit(deadline));
  }

  private ClerkUser fetchWithEmail(String id, Deadline deadline, Kind culprit) {
    ClerkUser user =
        fetchFromClerk(id, deadline, culprit).orElseThrow(() -> Failure.of(Kind.USER_NOT_AT_CLERK));
    if (user.email() == null) {
      throw Failure.of(Kind.NO_EMAIL);
    }
    return user;
  }

  /**
   * Reads a user again from Clerk and stores that unless the row is newer. Writes nothing if Clerk
   * does not have the user: an answer of 404 alone deletes nobody.
   *
   * @return the row
   * @throws Failure USER_DELETED, USER_NOT_AT_CLERK, NO_EMAIL, EMAIL_IN_USE, or a fault of Clerk or
   *     the database
   */
  public User refresh(String id) {
    return refresh(id, Deadline.in(Deadline.REQUEST_TIMEOUT));
  }

  /** Like {@link #refresh(String)}, for who has more or less time than a request. */
  public User refresh(String id, Deadline deadline) {
    users.find(id, deadline).ifPresent(UserSync::requireNotDeleted);
    Kind culprit = culprit(deadline);
    return refreshes.joinNext(
        id, deadline, () -> storeNotDeleted(fetchWithEmail(id, deadline, culprit), deadline));
  }

  /**
   * Makes a tombstone of a user of whom somebody else has said that Clerk has deleted them, if
   * Clerk itself says so too; otherwise the same as {@link #refresh(String)}. There need not have
   * been a row.
   *
   * @param by who has said so, for the log
   * @return whether there is a new tombstone
   * @throws Failure as {@link #refresh(String)}, and CLERK_OTHER_INSTANCE
   */
  boolean deleteIfGone(String id, String by) {
    Deadline deadline = Deadline.in(Deadline.REQUEST_TIMEOUT);
    try {
      refresh(id, deadline);
      log.warn("{} is said to be deleted by {}, but Clerk has the user", id, by);
    } catch (Failure e) {
      switch (e.kind()) {
        case USER_DELETED -> log.debug("{} is a tombstone already", id);
        case USER_NOT_AT_CLERK -> {
          instance.require(List.of(id), deadline);
          return delete(id, by, deadline);
        }
        default -> throw e;
      }
    }
    return false;
  }

  /**
   * Makes a tombstone, and logs that.
   *
   * @param by what has asked for it
   * @return false if there was one
   */
  boolean delete(String id, String by, Deadline deadline) {
    boolean deleted = users.delete(id, deadline) > 0;
    if (deleted) {
      log.warn("{} is deleted: {}", id, by);
    }
    return deleted;
  }

  /**
   * Like {@link #store}, for who has just been seen at Clerk.
   *
   * @throws Failure also USER_DELETED, if there is a tombstone
   */
  User storeNotDeleted(ClerkUser user, Deadline deadline) {
    return requireNotDeleted(store(user, deadline));
  }

  /**
   * Stores a copy of a user. The email address is unique at Clerk, so if another row has it, that
   * row is out of date: it is brought up to date first.
   *
   * @throws Failure EMAIL_IN_USE, CLERK_OTHER_INSTANCE, or a fault of Clerk or the database
   */
  User store(ClerkUser user, Deadline deadline) {
    // Two upserts of one user can collide on the address; the second try meets the finished first.
    Optional<User> row = users.upsert(user, deadline).or(() -> users.upsert(user, deadline));
    for (int attempts = 0; row.isEmpty() && attempts < MAX_EMAIL_ATTEMPTS; attempts++) {
      row = resolveEmailConflict(user, deadline);
    }
    return row.orElseThrow(() -> emailConflict(user, deadline));
  }

  /** Where no row has the address, an index of the application's own has another idea of it. */
  private Failure emailConflict(ClerkUser user, Deadline deadline) {
    return users.findIdByEmail(user.email(), List.of(user.id()), deadline).isEmpty()
        ? Failure.of(Kind.EMAIL_IN_USE)
        : Failure.of(Kind.DATABASE_UNAVAILABLE, "rows with the address changed during each try");
  }

  /** Follows the address from owner to owner, since several users may have swapped theirs. */
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
        throw Failure.of(Kind.EMAIL_IN_USE); // somebody else's row: Clerk cannot be asked about it
      }
      Optional<ClerkUser> current =
          fetchFromClerk(owner.get(), deadline, Kind.DATABASE_UNAVAILABLE);
      if (current.isEmpty()) {
        ids.add(owner.get());
        instance.require(ids, deadline);
        Optional<User> row = users.upsertMovedEmails(moved, owner, deadline);
        row.ifPresent(
            stored ->
                log.info(
                    "{} has lost the email address: Clerk does not have the user", owner.get()));
        return row;
      }
      if (email.equalsIgnoreCase(current.get().email())) {
        throw Failure.of(Kind.EMAIL_IN_USE); // Clerk confirms both
      }
      moved.add(current.get());
      email = current.get().email();
    }
    return users.upsertMovedEmails(moved, Optional.empty(), deadline);
  }

  /**
   * Who is to blame if Clerk does not answer in time. To be called while only the database has been
   * waited for: if that took most of the time, Clerk had no fair chance.
   */
  private static Kind culprit(Deadline deadline) {
    return deadline.minus(DATABASE_RESERVE).remaining().compareTo(ClerkApi.FAIR_TIME) < 0
        ? Kind.DATABASE_UNAVAILABLE
        : Kind.CLERK_UNAVAILABLE;
  }

  private Optional<ClerkUser> fetchFromClerk(String id, Deadline deadline, Kind culprit) {
    Deadline clerkDeadline = deadline.minus(DATABASE_RESERVE);
    if (clerkDeadline.remaining().isZero()) {
      throw Failure.of(culprit, "no time is left to ask Clerk");
    }
    boolean fair = clerkDeadline.remaining().compareTo(ClerkApi.FAIR_TIME) >= 0;
    Optional<ClerkUser> user;
    try {
      user = clerk.user(id, clerkDeadline);
    } catch (Failure e) {
      throw fair || e.isThrottled() || e.kind() != Kind.CLERK_UNAVAILABLE
          ? e
          : Failure.of(culprit, "too little time was left to ask Clerk");
    }
    if (!user.map(ClerkUser::hasStorableEmail).orElse(true)) {
      throw Failure.of(Kind.CLERK_BAD_RESPONSE, id + " has too long an email address");
    }
    return user;
  }

  /**
   * What a call to Clerk may take of a request's time.
   *
   * @throws Failure DATABASE_UNAVAILABLE if that is nothing, since the database has used it up
   */
  static Deadline clerkDeadline(Deadline deadline) {
    Deadline clerkDeadline = deadline.minus(DATABASE_RESERVE);
    if (clerkDeadline.remaining().isZero()) { // which is not Clerk's fault
      throw Failure.of(Kind.DATABASE_UNAVAILABLE, "no time is left to ask Clerk");
    }
    return clerkDeadline;
  }

  /** Ends the lookup threads. */
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
