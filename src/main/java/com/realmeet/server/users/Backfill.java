package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
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
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.DelegatingProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.jdbi.v3.core.JdbiException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Brings all users of the Clerk instance into the table. It may be killed and started again at any
 * time, and run while servers run: every write is guarded by Clerk's clock, like any other.
 */
public final class Backfill {
  private static final Logger log = LoggerFactory.getLogger(Backfill.class);

  /** The most users that Clerk lists at once. */
  private static final int PAGE_SIZE = 500;

  /**
   * For a page of full users, metadata included, or up to 10 s in which the rate limiter holds it
   * back.
   */
  private static final Duration CALL_TIMEOUT = Duration.ofSeconds(30);

  /** So many failures in a row end the run; a pause that Clerk asks for is none. */
  private static final int MAX_ATTEMPTS = 10;

  /**
   * More rows than this part are never deleted unasked: a key of another instance looks like that.
   */
  private static final double MAX_DELETE_RATIO = 0.05;

  /** Ids of rows that are read at once. */
  private static final int MAX_LISTED_IDS = 10_000;

  /** How many skipped users are listed. */
  private static final int MAX_SKIPPED_LOGGED = 1000;

  /** What the command line asks for beside the listing. */
  public record Options(boolean deleteMissing, boolean revive, boolean dryRun, boolean force) {

    /** Empty if an argument is none of these, or forces nothing. */
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

  public Backfill(
      ClerkApi clerk, UserDao users, UserSync sync, InstanceCheck instance, Options options) {
    this.clerk = clerk;
    this.users = users;
    this.sync = sync;
    this.instance = instance;
    this.options = options;
    this.bulk = new BulkUpsert(users, sync, Backfill::withRetries, this::skip);
  }

  /** At most half of what Clerk allows the instance: 1000 calls in 10 s, in development 100. */
  public static Runnable rateLimiter(String secretKey) {
    int calls = secretKey.startsWith("sk_live_") ? 500 : 50;
    return new RateLimiter(calls, Duration.ofSeconds(10))::acquire;
  }

  /**
   * Runs to the end.
   *
   * @return whether every user of Clerk is in the table, none of them as a tombstone, and every
   *     missing one gone if so asked
   * @throws StartupException if it cannot go on
   */
  public boolean run() {
    Instant began = Instant.now();
    boolean complete = true;
    try {
      requireInstance(began); // the users of another one would look like ours once they are stored
      listAll();
      if (options.deleteMissing) {
        complete = deleteMissing(began);
      }
    } catch (Failure e) {
      throw new StartupException(
          e.kind() == Kind.CLERK_OTHER_INSTANCE
              ? "Backfill stopped: " + e.getMessage()
              : "Backfill failed, start it again: " + e.getMessage());
    } catch (JdbiException e) {
      if (!options.dryRun) {
        throw e;
      }
      throw new StartupException("A dry run needs the table as it is now: migrate first");
    }
    summarize();
    return complete && skippedCount == 0;
  }

  private void requireInstance(Instant began) {
    withRetries(() -> instance.require(List.of(), began, Deadline.in(CALL_TIMEOUT)));
  }

  private void listAll() {
    int total = withRetries(() -> clerk.userCount(Deadline.in(CALL_TIMEOUT)));
    Set<String> cursors = new HashSet<>();
    List<ClerkUser> before = List.of();
    try (ProgressBar bar = bar("Users", total)) {
      CompletableFuture<List<ClerkUser>> next = fetch("");
      while (next != null) {
        List<ClerkUser> page = Threads.join(next);
        List<ClerkUser> confirmed = page.size() < PAGE_SIZE ? dropDeletedTail(before) : page;
        boolean last = confirmed == before;
        next = last ? null : fetch(cursor(confirmed, cursors)); // while this page is stored
        before = confirmed;
        store(page);
        bar.stepBy(page.size());
      }
    }
  }

  /**
   * A short page ends the listing, unless the user after whom it should begin was deleted
   * meanwhile: nobody knows what follows then.
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
      throw Failure.of(Kind.CLERK_BAD_RESPONSE, "Clerk's listing repeats itself");
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
      withRetries(() -> users.compare(batch)).forEach(this::report);
    } else {
      count(bulk.store(batch));
    }
  }

  /**
   * Finds rows that are tombstones although Clerk has the users, and revives or lists them.
   *
   * @return all tombstones of the page
   */
  private Set<String> tombstones(List<ClerkUser> page) {
    List<String> ids =
        withRetries(() -> users.findTombstones(page.stream().map(ClerkUser::id).toList()));
    for (int from = 0; from < ids.size(); from += ClerkApi.MAX_LOOKUP) {
      List<String> some = ids.subList(from, Math.min(ids.size(), from + ClerkApi.MAX_LOOKUP));
      // A user who was deleted since the page was read is a tombstone rightly.
      withRetries(() -> clerk.lookup(some, Deadline.in(CALL_TIMEOUT))).forEach(this::revive);
    }
    return Set.copyOf(ids);
  }

  private void revive(ClerkUser user) {
    if (options.revive && options.dryRun) {
      report(user.id(), Change.REVIVE);
    } else if (options.revive && withRetries(() -> users.revive(user))) {
      count(Map.of(Change.REVIVE, 1));
      bulk.storable(List.of(user)).forEach(bulk::storeOrSkip);
    } else {
      skip(user.id(), "is deleted here, but not at Clerk: --revive brings the user back");
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
   * Makes tombstones of the rows that the listing did not have; each is confirmed by a 404.
   *
   * @param began rows younger than this may have come too late for the listing
   * @return false if that would be too many
   */
  private boolean deleteMissing(Instant began) {
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
    if (!options.force && (listed.isEmpty() || missing.size() > rows * MAX_DELETE_RATIO)) {
      log.error(
          "Clerk does not have {} of {} rows: nothing is deleted. Is CLERK_SECRET_KEY of this"
              + " instance? If so, add --force",
          missing.size(),
          rows);
      return false;
    }
    try (ProgressBar bar = bar("Missing", missing.size())) {
      for (String id : missing) {
        deleteIfGone(id);
        bar.step();
      }
    }
    return true;
  }

  private void deleteIfGone(String id) {
    if (!ClerkUser.isId(id)) {
      skip(id, "is not a Clerk user id");
    } else if (withRetries(() -> clerk.user(id, Deadline.in(CALL_TIMEOUT))).isEmpty()) {
      if (options.dryRun) {
        report(id, Change.DELETE);
      } else {
        withRetries(() -> sync.delete(id, "backfill --delete-missing", Deadline.in(CALL_TIMEOUT)));
        count(Map.of(Change.DELETE, 1));
      }
    }
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

  /** Sits out what passes, and a pause that Clerk asks for. */
  private static <T> T withRetries(Supplier<T> call) {
    for (int failures = 0; ; ) {
      try {
        return call.get();
      } catch (Failure e) {
        if (!e.isThrottled() && ++failures >= maxAttempts(e.kind())) {
          throw e;
        }
        Threads.sleep(Duration.ofSeconds(e.retryAfter()));
      }
    }
  }

  /** Nonsense may come once, from a proxy in Clerk's place. */
  private static int maxAttempts(Kind kind) {
    return switch (kind) {
      case CLERK_UNAVAILABLE, DATABASE_UNAVAILABLE -> MAX_ATTEMPTS;
      case CLERK_BAD_RESPONSE -> 2;
      default -> 1;
    };
  }

  /** A bar on a terminal that nothing else is printed on; elsewhere a line every few seconds. */
  private ProgressBar bar(String name, int total) {
    ProgressBarBuilder builder =
        new ProgressBarBuilder()
            .setTaskName(name)
            .setInitialMax(total)
            .setStyle(ProgressBarStyle.ASCII)
            .showSpeed();
    return System.console() != null && !options.dryRun
        ? builder.setConsumer(new ConsoleProgressBarConsumer(System.err)).build()
        : builder
            .setUpdateIntervalMillis(5000)
            .setConsumer(new DelegatingProgressBarConsumer(log::info, 100))
            .build();
  }

  /** Sliding-window rate limiter. */
  static final class RateLimiter {
    private final int maxCalls;
    private final long windowNanos;
    private final Deque<Long> begun = new ArrayDeque<>();

    /**
     * @param maxCalls that may begin in any stretch of time as long as the window
     */
    RateLimiter(int maxCalls, Duration window) {
      this.maxCalls = maxCalls;
      this.windowNanos = window.toNanos();
    }

    /** Returns when one more call may begin. */
    synchronized void acquire() {
      if (begun.size() == maxCalls) {
        Threads.sleep(Duration.ofNanos(begun.removeFirst() + windowNanos - System.nanoTime()));
      }
      begun.addLast(System.nanoTime());
    }
  }
}
