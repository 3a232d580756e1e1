package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.database.SqlErrors;
import com.realmeet.server.users.UserDao.Change;
import java.time.Duration;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.BiConsumer;
import java.util.function.Supplier;
import org.jdbi.v3.core.JdbiException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stores users of a listing in one statement. If another row has one of the addresses, or a
 * constraint or trigger of the application refuses a row, stores them one by one with {@link
 * UserSync}, and skips those who cannot be stored.
 */
final class BulkUpsert {
  private static final Logger log = LoggerFactory.getLogger(BulkUpsert.class);

  /** Maximum users of one statement: a trigger of the application may take 40 ms for each. */
  static final int MAX_USERS = 100;

  /** Reason to skip a user who signed up by phone or username. */
  static final String NO_EMAIL_ADDRESS = "has no email address";

  /** Time for one user, of which the rate limiter of a backfill may take 10 s. */
  private static final Duration TIMEOUT = Duration.ofSeconds(30);

  /** Strategy for calls that fail, such as retries. */
  interface Retries {
    /** Makes a call and returns its result. */
    <T> T call(Supplier<T> work);
  }

  private final UserDao users;
  private final UserSync sync;
  private final Retries retries;
  private final BiConsumer<String, String> skip;

  /**
   * @param skip receives the id of each user who is not stored, and the reason
   */
  BulkUpsert(UserDao users, UserSync sync, Retries retries, BiConsumer<String, String> skip) {
    this.users = users;
    this.sync = sync;
    this.retries = retries;
    this.skip = skip;
  }

  /** Returns the users that can be stored, each once; the others are skipped. */
  List<ClerkUser> storable(List<ClerkUser> listed) {
    Map<String, ClerkUser> storable = new LinkedHashMap<>();
    listed.stream()
        .filter(this::hasEmail)
        .forEach(user -> storable.merge(user.id(), user, ClerkUser::newer));
    return List.copyOf(storable.values());
  }

  /** Returns true if a user has an email address that can be stored; otherwise skips the user. */
  private boolean hasEmail(ClerkUser user) {
    if (user.email() == null) {
      skip.accept(user.id(), NO_EMAIL_ADDRESS);
    } else if (!user.hasStorableEmail()) {
      skip.accept(user.id(), "has an email address that cannot be stored");
    } else {
      return true;
    }
    return false;
  }

  /**
   * Stores users whose rows are not newer.
   *
   * @param batch up to {@link #MAX_USERS}, as {@link #storable} returns them
   * @return number of rows by kind of change
   * @throws Failure a fault of Clerk or the database
   */
  Map<Change, Integer> store(List<ClerkUser> batch) {
    try {
      Optional<Map<Change, Integer>> counts = retries.call(() -> users.upsertBatch(batch));
      if (counts.isPresent()) {
        return counts.get();
      }
    } catch (JdbiException e) {
      requireOfData(e);
    }
    return storeEach(batch);
  }

  private Map<Change, Integer> storeEach(List<ClerkUser> batch) {
    Map<String, Change> changes = compare(batch);
    Map<Change, Integer> counts = new EnumMap<>(Change.class);
    for (ClerkUser user : batch) {
      if (changes.containsKey(user.id()) && storeOrSkip(user)) {
        counts.merge(changes.get(user.id()), 1, Integer::sum);
      }
    }
    return counts;
  }

  /**
   * Returns, by id, the change that {@link #store} would make; skips users with characters that the
   * database's encoding lacks.
   *
   * @param batch result of {@link #storable}
   */
  Map<String, Change> compare(List<ClerkUser> batch) {
    try {
      return retries.call(() -> users.compare(batch));
    } catch (JdbiException e) {
      requireOfData(e);
    }
    Map<String, Change> changes = new LinkedHashMap<>();
    for (ClerkUser user : batch) {
      List<ClerkUser> alone = List.of(user);
      skipIfRefused(user.id(), () -> changes.putAll(retries.call(() -> users.compare(alone))));
    }
    return changes;
  }

  /** Stores a user; skips the user and returns false if that is not possible. */
  boolean storeOrSkip(ClerkUser user) {
    try {
      return skipIfRefused(user.id(), () -> storeOne(user));
    } catch (Failure e) {
      switch (e.kind()) {
        case USER_DELETED, USER_NOT_AT_CLERK -> log.debug("{} was deleted meanwhile", user.id());
        case NO_EMAIL -> skip.accept(user.id(), NO_EMAIL_ADDRESS);
        case EMAIL_IN_USE -> skip.accept(user.id(), "has an email address that another row has");
        default -> throw e;
      }
      return false;
    }
  }

  /**
   * Makes a change; skips the user and returns false if a constraint or trigger of the application
   * refuses it, or Clerk sends nonsense about this user: one user must not hold up all others.
   */
  boolean skipIfRefused(String id, Runnable change) {
    try {
      change.run();
      return true;
    } catch (JdbiException e) {
      requireOfData(e);
      String why = SqlErrors.whyRejected(e).orElse("the database refuses a value");
      skip.accept(id, "is refused: " + why);
      return false;
    } catch (Failure e) {
      if (e.kind() != Kind.CLERK_BAD_RESPONSE) {
        throw e;
      }
      skip.accept(id, "is not changed: " + e.reason());
      return false;
    }
  }

  private static void requireOfData(JdbiException e) {
    if (!SqlErrors.isOfData(e)) {
      throw e;
    }
  }

  /**
   * Stores a user. A conflict may have been resolved at Clerk since the page was read, so the user
   * is then fetched again.
   */
  private void storeOne(ClerkUser user) {
    try {
      retries.call(() -> sync.store(user, Deadline.in(TIMEOUT)));
    } catch (Failure e) {
      if (e.kind() != Kind.EMAIL_IN_USE) {
        throw e;
      }
      retries.call(() -> sync.refresh(user.id(), Deadline.in(TIMEOUT)));
    }
  }
}
