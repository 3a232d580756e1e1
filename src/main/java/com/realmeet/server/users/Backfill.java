package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import com.realmeet.server.database.SqlErrors;
import com.realmeet.server.users.UserDao.Change;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;
import org.jdbi.v3.core.JdbiException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Runs the command {@code backfill}: stores all users of the Clerk instance. It may be killed and
 * restarted at any time, and run while servers run: the upsert never replaces a newer version.
 */
public final class Backfill {
  private static final Logger log = LoggerFactory.getLogger(Backfill.class);

  /** Maximum users per page that Clerk allows. */
  private static final int PAGE_SIZE = 500;

  /**
   * Time for one call: a page with metadata is large, and the rate limiter may delay a call by 10
   * s.
   */
  private static final Duration CALL_TIMEOUT = Duration.ofSeconds(30);

  /** Consecutive failures of one call that end the run; a 429 is not counted. */
  private static final int MAX_ATTEMPTS = 10;

  /** Before a call with a bad response is retried: it is no overload that must pass. */
  private static final Duration BAD_RESPONSE_PAUSE = Duration.ofSeconds(1);

  /**
   * Maximum fraction of the rows that is deleted without {@code --force}: more suggest a key of
   * another instance.
   */
  private static final double MAX_DELETE_RATIO = 0.05;

  /** Ids per page when all rows are listed. */
  private static final int MAX_LISTED_IDS = 10_000;

  /** Maximum skipped users that are logged one by one. */
  private static final int MAX_SKIPPED_LOGGED = 1000;

  /**
   * Options of the command line.
   *
   * @param deleteMissing make tombstones of rows whose users Clerk does not have
   * @param revive make live rows of tombstones whose users Clerk has
   * @param dryRun write nothing, print what would change
   * @param force delete even if too many rows are missing
   */
  public record Options(boolean deleteMissing, boolean revive, boolean dryRun, boolean force) {

    /**
     * Parses the arguments; empty if one is unknown, or if {@code --force} has nothing to force.
     */
    public static Optional<Options> parse(List<String> arguments) {
      Set<String> given = new HashSet<>(arguments);
      Options options =
          new Options(
              given.remove("--delete-missing"),
              given.remove("--revive"),
              given.remove("--dry-run"),
              given.remove("--force"));
      boolean understood = given.isEmpty() && (options.deleteMissing || !options.force);
      return understood ? Optional.of(options) : Optional.empty();
    }
  }

  private final ClerkApi clerk;
  private final UserDao users;
  private final UserSync sync;
  private final InstanceCheck instance;
  private final Options options;
  private final BulkUpsert bulk;

  private final Set<String> listed = new HashSet<>();
  private final Map<Change, Integer> counts = new LinkedHashMap<>();
  private final List<String> skipped = new ArrayList<>();
  private int skippedCount;

  /** Creates a run for these options; {@link #run} may be called once. */
  public Backfill(
      ClerkApi clerk, UserDao users, UserSync sync, InstanceCheck instance, Options options) {
    this.clerk = clerk;
    this.users = users;
    this.sync = sync;
    this.instance = instance;
    this.options = options;
    this.bulk = new BulkUpsert(users, sync, Backfill::withRetries, this::skip);
  }

  /**
   * Returns a rate limiter that uses at most half of Clerk's limit for the instance, which is 1000
   * calls per 10 s, or 100 for a development instance.
   */
  public static Runnable rateLimiter(String secretKey) {
    int calls = secretKey.startsWith("sk_live_") ? 500 : 50;
    return new RateLimiter(calls, Duration.ofSeconds(10))::acquire;
  }

  /**
   * Runs the backfill.
   *
   * @return true if every user of Clerk has a row that is not a tombstone and, with {@code
   *     --delete-missing}, all missing users were handled
   * @throws StartupException if it cannot continue
   */
  public boolean run() {
    Instant began = Instant.now();
    boolean complete = true;
    try {
      requireInstance(began); // once stored, users of another instance look like ours
      complete = listAll();
      if (options.deleteMissing) {
        complete &= markMissingDeleted(began);
      }
    } catch (Failure e) {
      throw new StartupException(
          e.kind() == Kind.CLERK_OTHER_INSTANCE
              ? "Backfill stopped: " + e.reason()
              : "Backfill failed, start it again: " + e.reason());
    } catch (JdbiException e) {
      if (!options.dryRun || SqlErrors.whyRejected(e).isPresent()) {
        throw e;
      }
      throw new StartupException("A dry run needs the table as it is now: migrate first");
    }
    summarize();
    return complete && skippedCount == 0;
  }

  private void requireInstance(Instant began) {
    withRetries(
        () -> {
          instance.require(began, Deadline.in(CALL_TIMEOUT));
          return null;
        });
  }

  /**
   * Stores all users that Clerk lists.
   *
   * @return false if they are clearly fewer than Clerk counts
   */
  private boolean listAll() {
    int total = withRetries(() -> clerk.userCount(Deadline.in(CALL_TIMEOUT)));
    Set<String> cursors = new HashSet<>();
    List<ClerkUser> before = List.of();
    CompletableFuture<List<ClerkUser>> next = fetch("");
    while (next != null) {
      List<ClerkUser> page = Threads.join(next);
      long added = page.stream().filter(user -> !listed.contains(user.id())).count();
      boolean isShort = page.size() < PAGE_SIZE;
      boolean areAllListed = listed.size() + added >= total;
      List<ClerkUser> confirmed = isShort && !areAllListed ? dropDeletedTail(before) : before;
      boolean isTailDeleted = confirmed != before;
      boolean isLast = isShort && (areAllListed || added == 0 && !isTailDeleted);
      before = isTailDeleted ? confirmed : page;
      next = isLast ? null : fetch(cursor(before, cursors)); // while this page is stored
      if (added > 0) {
        store(page);
      }
      log.info("{} of {} users", listed.size(), total);
    }
    boolean complete = total - listed.size() <= UsersCheck.tolerance(total);
    if (!complete) {
      log.error("Clerk listed {} of {} users: start backfill again", listed.size(), total);
    }
    return complete;
  }

  /**
   * Handles a short page: if the cursor's user was deleted meanwhile, Clerk's result is undefined.
   *
   * @param before the page before the short one
   * @return that page, or its part up to the last user who still exists
   */
  private List<ClerkUser> dropDeletedTail(List<ClerkUser> before) {
    for (int size = before.size(); size > 0; size--) {
      String id = before.get(size - 1).id();
      if (withRetries(() -> clerk.user(id, Deadline.in(CALL_TIMEOUT))).isPresent()) {
        return size == before.size() ? before : before.subList(0, size);
      }
    }
    if (!before.isEmpty()) {
      throw Failure.of(Kind.CLERK_BAD_RESPONSE, "all users of a page were deleted meanwhile");
    }
    return before;
  }

  private static String cursor(List<ClerkUser> page, Set<String> cursors) {
    String id = page.get(page.size() - 1).id();
    if (!cursors.add(id)) {
      throw Failure.of(Kind.CLERK_BAD_RESPONSE, "Clerk's listing repeats a page");
    }
    return id;
  }

  private CompletableFuture<List<ClerkUser>> fetch(String cursor) {
    return Threads.supply(
        () -> withRetries(() -> clerk.users(cursor, PAGE_SIZE, Deadline.in(CALL_TIMEOUT))));
  }

  private void store(List<ClerkUser> page) {
    Set<String> tombstones = tombstones(page);
    page.forEach(user -> listed.add(user.id()));
    List<ClerkUser> batch =
        bulk.storable(page.stream().filter(user -> !tombstones.contains(user.id())).toList());
    if (options.dryRun) {
      bulk.compare(batch).forEach(this::report);
    } else {
      for (int i = 0; i < batch.size(); i += BulkUpsert.MAX_USERS) {
        count(bulk.store(batch.subList(i, Math.min(batch.size(), i + BulkUpsert.MAX_USERS))));
      }
    }
  }

  /**
   * Finds tombstones of users whom Clerk has, and revives or skips them.
   *
   * @return all tombstones of the page
   */
  private Set<String> tombstones(List<ClerkUser> page) {
    List<String> ids =
        withRetries(() -> users.findTombstones(page.stream().map(ClerkUser::id).toList()));
    for (int from = 0; from < ids.size(); from += ClerkApi.MAX_LOOKUP) {
      List<String> some = ids.subList(from, Math.min(ids.size(), from + ClerkApi.MAX_LOOKUP));
      // a user may have been deleted since the page was read: then the tombstone is right
      withRetries(() -> clerk.lookup(some, Deadline.in(CALL_TIMEOUT))).forEach(this::revive);
    }
    return Set.copyOf(ids);
  }

  private void revive(ClerkUser user) {
    if (!options.revive) {
      skip(user.id(), "is deleted here, but not at Clerk: --revive brings the user back");
      return;
    }
    List<ClerkUser> storable = bulk.storable(List.of(user));
    if (options.dryRun) {
      report(user.id(), Change.REVIVE);
    } else {
      bulk.skipIfRefused(
          user.id(),
          () -> {
            count(withRetries(() -> users.revive(user)) ? Map.of(Change.REVIVE, 1) : Map.of());
            storable.forEach(bulk::storeOrSkip);
          });
    }
  }

  private void count(Map<Change, Integer> changes) {
    changes.forEach((change, n) -> counts.merge(change, n, Integer::sum));
  }

  private void report(String id, Change change) {
    counts.merge(change, 1, Integer::sum);
    if (change != Change.UNCHANGED) {
      System.out.println(change.name().toLowerCase(Locale.ROOT) + " " + id);
    }
  }

  private void skip(String id, String reason) {
    skippedCount++;
    if (skipped.size() < MAX_SKIPPED_LOGGED) {
      skipped.add(id + " " + reason);
    }
  }

  /**
   * Makes tombstones of the rows whose users were not listed and for whom Clerk responds 404.
   *
   * @param began rows that are younger may be missing in the listing, and are left out
   * @return false if there would be too many
   */
  private boolean markMissingDeleted(Instant began) {
    List<String> missing = new ArrayList<>();
    int rows = 0;
    List<String> ids = withRetries(() -> users.listIds("", began, MAX_LISTED_IDS));
    while (!ids.isEmpty()) {
      rows += ids.size();
      ids.stream().filter(id -> !listed.contains(id)).forEach(missing::add);
      String last = ids.get(ids.size() - 1);
      ids = withRetries(() -> users.listIds(last, began, MAX_LISTED_IDS));
    }
    if (missing.isEmpty()) {
      return true;
    }
    requireInstance(began);
    boolean tooMany =
        !options.force && (listed.isEmpty() || missing.size() > rows * MAX_DELETE_RATIO);
    if (tooMany) {
      log.error(
          "Clerk does not have {} of {} rows: nothing is deleted. Is CLERK_SECRET_KEY of this"
              + " instance? If so, add --force",
          missing.size(),
          rows);
      if (!options.dryRun) {
        return false;
      }
    }
    missing.forEach(this::markDeletedIfMissing);
    return !tooMany;
  }

  private void markDeletedIfMissing(String id) {
    if (!ClerkUser.isId(id)) {
      skip(id, "is not a Clerk user id");
    } else if (withRetries(() -> clerk.user(id, Deadline.in(CALL_TIMEOUT))).isEmpty()) {
      if (options.dryRun) {
        report(id, Change.DELETE);
      } else {
        bulk.skipIfRefused(id, () -> markDeleted(id));
      }
    }
  }

  private void markDeleted(String id) {
    boolean marked =
        withRetries(
            () -> sync.markDeleted(id, "backfill --delete-missing", Deadline.in(CALL_TIMEOUT)));
    count(marked ? Map.of(Change.DELETE, 1) : Map.of());
  }

  private void summarize() {
    skipped.forEach(line -> log.warn("Skipped: {}", line));
    if (skippedCount > skipped.size()) {
      log.warn("Skipped: {} more", skippedCount - skipped.size());
    }
    log.info(
        "{}: {} inserted, {} updated, {} unchanged, {} deleted, {} skipped{}",
        options.dryRun ? "Dry run, nothing written; without it" : "Backfill done",
        counts.getOrDefault(Change.INSERT, 0),
        counts.getOrDefault(Change.UPDATE, 0),
        counts.getOrDefault(Change.UNCHANGED, 0),
        counts.getOrDefault(Change.DELETE, 0),
        skippedCount,
        options.revive ? ", " + counts.getOrDefault(Change.REVIVE, 0) + " revived" : "");
  }

  /** Makes a call, and retries it after transient failures and after a 429. */
  private static <T> T withRetries(Supplier<T> call) {
    for (int failures = 0; ; ) {
      try {
        return call.get();
      } catch (Failure e) {
        if (!e.isThrottled() && ++failures >= maxAttempts(e.kind())) {
          throw e;
        }
        Threads.sleep(
            e.kind() == Kind.CLERK_BAD_RESPONSE
                ? BAD_RESPONSE_PAUSE
                : Duration.ofSeconds(e.retryAfter()));
      }
    }
  }

  /**
   * Returns how often a call is tried. A bad response is retried once, since a proxy may have sent
   * it.
   */
  private static int maxAttempts(Kind kind) {
    return switch (kind) {
      case CLERK_UNAVAILABLE, DATABASE_UNAVAILABLE, OVERLOADED -> MAX_ATTEMPTS;
      case CLERK_BAD_RESPONSE -> 2;
      default -> 1;
    };
  }

  /** Sliding-window rate limiter. */
  static final class RateLimiter {
    private final int maxCalls;
    private final long windowNanos;
    private final Deque<Long> begun = new ArrayDeque<>();

    /**
     * @param maxCalls that may begin within any period of the window's length
     */
    RateLimiter(int maxCalls, Duration window) {
      this.maxCalls = maxCalls;
      this.windowNanos = window.toNanos();
    }

    /** Blocks until one more call may begin. */
    synchronized void acquire() {
      if (begun.size() == maxCalls) {
        Threads.sleep(Duration.ofNanos(begun.removeFirst() + windowNanos - System.nanoTime()));
      }
      begun.addLast(System.nanoTime());
    }
  }
}
