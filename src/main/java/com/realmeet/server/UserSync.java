package com.realmeet.server;

import com.realmeet.server.Failure.Kind;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** Brings one user from Clerk into the table. */
final class UserSync {
  /** For all that one request waits for. */
  static final Duration REQUEST_TIME = Database.LIMIT;

  /**
   * Kept for the database when Clerk is slow: 2.9 s remain for Clerk, which with 2 s for its keys
   * before it makes 5 s.
   */
  private static final Duration DATABASE_SHARE = Duration.ofMillis(1600);

  /** Each try refreshes the rows that hold the address; others may move meanwhile. */
  private static final int EMAIL_TRIES = 3;

  private final UserDao users;
  private final ClerkApi clerk;
  private final Refreshes refreshes = new Refreshes();

  UserSync(UserDao users, ClerkApi clerk) {
    this.users = users;
    this.clerk = clerk;
  }

  /**
   * A row as sync returns it; none if another user has taken over its address and left it with a
   * placeholder.
   *
   * @throws Failure USER_GONE if it is a tombstone
   */
  static Optional<User> usable(Optional<User> row) {
    return row.map(UserSync::alive)
        .filter(user -> !user.email().equals(user.id() + "@moved.invalid"));
  }

  /**
   * Reads a user from Clerk.
   *
   * @return with an email address
   * @throws Failure USER_GONE, NO_EMAIL, a fault of Clerk, or DATABASE_UNAVAILABLE if that has left
   *     no time
   */
  ClerkUser fetch(String id, Deadline deadline) {
    ClerkUser user = ask(id, deadline).orElseThrow(() -> Failure.of(Kind.USER_GONE));
    if (user.email() == null) {
      throw Failure.of(Kind.NO_EMAIL);
    }
    return user;
  }

  /**
   * Reads a user again from Clerk and stores that unless the row is newer; a user who is gone there
   * leaves a tombstone here.
   *
   * @return the row
   * @throws Failure USER_GONE, NO_EMAIL, EMAIL_IN_USE, or a fault of Clerk or the database
   */
  User refresh(String id) {
    return refresh(id, Deadline.in(REQUEST_TIME));
  }

  /** Like {@link #refresh(String)}, for who has more or less time than a request. */
  User refresh(String id, Deadline deadline) {
    users.find(id, deadline).ifPresent(UserSync::alive);
    return refreshes.next(id, deadline, () -> fetchAgain(id, deadline));
  }

  private User fetchAgain(String id, Deadline deadline) {
    try {
      return storeAlive(fetch(id, deadline), deadline);
    } catch (Failure e) {
      if (e.kind() == Kind.USER_GONE) {
        users.delete(id, deadline);
      }
      throw e;
    }
  }

  /** Makes a tombstone of a user who is gone at Clerk, also of one who was never here. */
  void delete(String id) {
    users.delete(id, Deadline.in(REQUEST_TIME));
  }

  /**
   * Like {@link #store}, for who has just been seen at Clerk.
   *
   * @throws Failure also USER_GONE, if there is a tombstone
   */
  User storeAlive(ClerkUser user, Deadline deadline) {
    return alive(store(user, deadline));
  }

  /**
   * Stores a copy of a user. The email address is unique at Clerk, so if another row has it, that
   * row is out of date: it is brought up to date first.
   *
   * @throws Failure EMAIL_IN_USE, or a fault of Clerk or the database
   */
  User store(ClerkUser user, Deadline deadline) {
    // Two upserts of one user can collide on the address; the second try meets the finished first.
    Optional<User> row = users.upsert(user, deadline).or(() -> users.upsert(user, deadline));
    for (int tries = 0; row.isEmpty() && tries < EMAIL_TRIES; tries++) {
      row = storeWithHolders(user, deadline);
    }
    return row.orElseThrow(
        () ->
            Failure.because(
                Kind.DATABASE_UNAVAILABLE, "rows with the address changed during each try"));
  }

  /** Follows the address from holder to holder, since several users may have swapped theirs. */
  private Optional<User> storeWithHolders(ClerkUser user, Deadline deadline) {
    List<ClerkUser> moved = new ArrayList<>(List.of(user));
    String email = user.email();
    while (email != null) {
      Optional<String> holder =
          users.findHolder(email, deadline).filter(id -> !contains(moved, id));
      if (holder.isEmpty()) {
        break;
      }
      if (!ClerkUser.isId(holder.get())) {
        throw Failure.of(Kind.EMAIL_IN_USE); // somebody else's row: Clerk cannot be asked about it
      }
      Optional<ClerkUser> current = ask(holder.get(), deadline);
      if (current.isEmpty()) {
        return users.upsertAll(moved, holder, deadline);
      }
      if (email.equals(current.get().email())) {
        throw Failure.of(Kind.EMAIL_IN_USE); // Clerk confirms both
      }
      moved.add(current.get());
      email = current.get().email();
    }
    return users.upsertAll(moved, Optional.empty(), deadline);
  }

  private Optional<ClerkUser> ask(String id, Deadline deadline) {
    Deadline share = deadline.minus(DATABASE_SHARE);
    if (share.left().isZero()) { // which is not Clerk's fault
      throw Failure.because(Kind.DATABASE_UNAVAILABLE, "no time is left to ask Clerk");
    }
    return clerk.user(id, share);
  }

  private static boolean contains(List<ClerkUser> users, String id) {
    return users.stream().anyMatch(user -> user.id().equals(id));
  }

  private static User alive(User user) {
    if (user.deletedAt() != null) {
      throw Failure.of(Kind.USER_GONE);
    }
    return user;
  }
}
