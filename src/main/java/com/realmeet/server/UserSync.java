package com.realmeet.server;

import com.realmeet.server.Failure.Kind;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;

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
  private final ConcurrentMap<String, CompletableFuture<User>> firstSyncs =
      new ConcurrentHashMap<>();
  private final Refreshes refreshes = new Refreshes();

  UserSync(UserDao users, ClerkApi clerk) {
    this.users = users;
    this.clerk = clerk;
  }

  /**
   * The row of a user, unless another has taken over its address and left it with a placeholder.
   *
   * @throws Failure USER_GONE, or a fault of the database
   */
  Optional<User> find(String id, Deadline deadline) {
    return users
        .find(id, deadline)
        .map(UserSync::alive)
        .filter(user -> !user.email().equals(id + "@moved.invalid"));
  }

  /**
   * Fetches a user without a row from Clerk, and inserts one. Of several requests for one user, one
   * does the work and the others wait for its result.
   *
   * @throws Failure USER_GONE, NO_EMAIL, EMAIL_IN_USE, or a fault of Clerk or the database
   */
  User firstSync(String id, Deadline deadline) {
    CompletableFuture<User> mine = new CompletableFuture<>();
    CompletableFuture<User> others = firstSyncs.putIfAbsent(id, mine);
    if (others != null) {
      return Background.join(others);
    }
    try {
      // Another request may have finished between our look into the table and our turn.
      mine.complete(find(id, deadline).orElseGet(() -> fetch(id, deadline)));
    } catch (Throwable e) {
      mine.completeExceptionally(e);
    } finally {
      firstSyncs.remove(id);
    }
    return Background.join(mine);
  }

  private User fetch(String id, Deadline deadline) {
    ClerkUser user = ask(id, deadline).orElseThrow(() -> Failure.of(Kind.USER_GONE));
    if (user.email() == null) {
      throw Failure.of(Kind.NO_EMAIL);
    }
    return alive(store(user, deadline));
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
      return fetch(id, deadline);
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
