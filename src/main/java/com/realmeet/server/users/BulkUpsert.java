package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.users.UserDao.Change;
import java.time.Duration;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Stores users of a listing in one statement, and user by user if the address of one of them is
 * taken, as a webhook would.
 */
final class BulkUpsert {
  private static final Logger log = LoggerFactory.getLogger(BulkUpsert.class);

  /** For one user, up to 10 s of it for the rate limiter of a backfill. */
  private static final Duration TIMEOUT = Duration.ofSeconds(30);

  /** What is done about a call that fails. */
  interface Retries {
    <T> T call(Supplier<T> work);
  }

  private final UserDao users;
  private final UserSync sync;
  private final Retries retries;
  private final BiConsumer<String, String> skip;

  /**
   * @param skip gets the id of each user who is not stored, and why
   */
  BulkUpsert(UserDao users, UserSync sync, Retries retries, BiConsumer<String, String> skip) {
    this.users = users;
    this.sync = sync;
    this.retries = retries;
    this.skip = skip;
  }

  /** Those users who can be stored, each once; the others are skipped. */
  List<ClerkUser> storable(List<ClerkUser> listed) {
    Map<String, ClerkUser> storable = new LinkedHashMap<>();
    listed.stream().filter(this::hasEmail).forEach(user -> storable.put(user.id(), user));
    return List.copyOf(storable.values());
  }

  /** Whether a user can be stored; one who cannot is skipped. */
  private boolean hasEmail(ClerkUser user) {
    if (user.email() == null) {
      skip.accept(user.id(), "has no email address");
    } else if (!user.hasStorableEmail()) {
      skip.accept(user.id(), "has too long an email address");
    } else {
      return true;
    }
    return false;
  }

  /**
   * Stores users of whom no row is newer.
   *
   * @param batch of {@link #storable}
   * @return how many rows were treated how
   * @throws Failure a fault of Clerk or the database
   */
  Map<Change, Integer> store(List<ClerkUser> batch) {
    return retries.call(() -> users.upsertBatch(batch)).orElseGet(() -> storeEach(batch));
  }

  private Map<Change, Integer> storeEach(List<ClerkUser> batch) {
    Map<String, Change> changes = retries.call(() -> users.compare(batch));
    Map<Change, Integer> counts = new EnumMap<>(Change.class);
    for (ClerkUser user : batch) {
      if (storeOrSkip(user)) {
        counts.merge(changes.get(user.id()), 1, Integer::sum);
      }
    }
    return counts;
  }

  /** Stores a user, or skips one who cannot be stored. */
  boolean storeOrSkip(ClerkUser user) {
    try {
      storeOne(user);
      return true;
    } catch (Failure e) {
      switch (e.kind()) {
        case USER_DELETED, USER_NOT_AT_CLERK -> log.debug("{} was deleted meanwhile", user.id());
        case NO_EMAIL -> skip.accept(user.id(), "has no email address");
        case EMAIL_IN_USE -> skip.accept(user.id(), "has an email address that another row has");
        default -> throw e;
      }
      return false;
    }
  }

  /** A clash may be over at Clerk since the page was read, so it is asked once more. */
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
