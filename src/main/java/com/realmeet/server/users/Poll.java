package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.LogRateLimiter;
import com.realmeet.server.core.Threads;
import com.realmeet.server.database.Database;
import com.realmeet.server.database.SqlErrors;
import com.realmeet.server.users.UserDao.Change;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.TimeGauge;
import java.time.Duration;
import java.time.Instant;
import java.util.Comparator;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Polls Clerk at regular intervals, since the delivery of webhooks is not guaranteed. Each poll
 * stores the users who have changed since the last one, and compares up to 100 rows with Clerk (the
 * audit). It does not use the database while nothing has changed, nor call Clerk while that
 * rate-limits us. Any number of servers may poll concurrently: the upsert never replaces a newer
 * version.
 */
public final class Poll implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Poll.class);

  /** Users per page; one page is enough for a usual poll. */
  private static final int PAGE_SIZE = 100;

  /** Users by which two pages overlap: deletions move later users to earlier pages. */
  private static final int PAGE_OVERLAP = 10;

  /** Maximum changed users of one poll, about 50 pages; more are left to a backfill. */
  private static final int MAX_CHANGED_USERS = 5000;

  /** Maximum characters of CLERK_FIELDS in the changes of one poll; bounds the memory. */
  private static final int MAX_FIELDS_LENGTH = 32 << 20;

  /** Maximum consecutive pages without a new user. */
  private static final int MAX_REPEATED_PAGES = 3;

  /**
   * Maximum users missing at Clerk in one audit: more suggest a key of another instance, or a fault
   * at Clerk.
   */
  private static final int MAX_MISSING = 5;

  /** Time for one call to Clerk; no request waits for it. */
  private static final Duration CALL_TIMEOUT = Duration.ofSeconds(10);

  /**
   * Maximum delay of the first poll: it does not wait for a long interval, nor compete with the
   * first requests.
   */
  private static final Duration MAX_FIRST_DELAY = Duration.ofSeconds(30);

  /** Overlap of the first poll with the newest row: older changes may not have been stored yet. */
  private static final Duration START_OVERLAP = Duration.ofMinutes(5);

  /** Overlap of two polls: Clerk may list a change slightly later than a newer one. */
  private static final Duration OVERLAP = Duration.ofSeconds(10);

  /** Time after a statement during which a suspending database is certainly awake. */
  private static final Duration AWAKE = Duration.ofMinutes(1);

  /** Minimum interval between two errors about too many missing rows. */
  private static final Duration REMINDER_INTERVAL = Duration.ofHours(1);

  private static final Set<Change> REPORTED_CHANGES =
      Set.of(Change.INSERT, Change.UPDATE, Change.DELETE);

  private final ClerkApi clerk;
  private final UserDao users;
  private final UserSync sync;
  private final InstanceCheck instance;
  private final Database database;
  private final MeterRegistry meters;
  private final BulkUpsert bulk;
  private final LogRateLimiter warnings = new LogRateLimiter();
  private final ScheduledExecutorService polls =
      Executors.newSingleThreadScheduledExecutor(Threads.named("poll"));
  private final Instant began = Instant.now();
  private volatile long succeededNanos = System.nanoTime();

  // Guarded by this: one poll at a time.
  private Instant since; // by Clerk's clock: older changes are done; null: not known yet
  private final Map<String, Instant> seen = new HashMap<>(); // versions at or after since
  private String lastAuditedId = ""; // the last id of the last audit
  private long databaseUseNanos; // database.lastUseNanos() at the end of the last poll
  private Deadline remindAfter = Deadline.in(Duration.ZERO);

  /** Creates a poll that does nothing until {@link #start} or {@link #poll} is called. */
  public Poll(
      ClerkApi clerk,
      UserDao users,
      UserSync sync,
      InstanceCheck instance,
      Database database,
      MeterRegistry meters) {
    this.clerk = clerk;
    this.users = users;
    this.sync = sync;
    this.instance = instance;
    this.database = database;
    this.meters = meters;
    bulk = new BulkUpsert(users, sync, Supplier::get, this::skipped);
  }

  /** Starts a thread that polls at this interval. */
  public synchronized void start(Duration interval) {
    try { // before a request or a webhook stores a newer version
      since = firstTime(Deadline.in(Duration.ofSeconds(1)));
    } catch (Failure e) {
      log.debug("The newest row is not known yet: {}", e.reason());
    }
    databaseUseNanos = database.lastUseNanos();
    REPORTED_CHANGES.forEach(
        this::counter); // Prometheus' increase() ignores the first sample of a new series
    TimeGauge.builder("clerk.poll.age", this, TimeUnit.NANOSECONDS, Poll::age)
        .description("Time since the last successful poll, or since the start before the first")
        .register(meters);
    Duration first = interval.compareTo(MAX_FIRST_DELAY) < 0 ? interval : MAX_FIRST_DELAY;
    polls.scheduleWithFixedDelay(
        this::poll, first.toMillis(), interval.toMillis(), TimeUnit.MILLISECONDS);
  }

  /**
   * Polls once.
   *
   * @return true if it succeeded; otherwise the next poll repeats all of it
   */
  public synchronized boolean poll() {
    Map<Change, Integer> counts = new EnumMap<>(Change.class);
    boolean isDatabaseAwake = isDatabaseInUse();
    try {
      storeChanges(counts);
      if (isDatabaseAwake && !isClosed()) {
        audit(counts);
      }
      succeededNanos = System.nanoTime();
      return true;
    } catch (Failure e) { // ClerkApi, Database and InstanceCheck have logged it
      log.debug("Poll failed: {}", e.reason());
    } catch (RuntimeException e) {
      if (!isClosed()) {
        SqlErrors.whyRejected(e)
            .ifPresentOrElse(log::error, () -> log.error("Unhandled exception in the poll", e));
      }
    } finally {
      databaseUseNanos = database.lastUseNanos();
      report(counts);
    }
    return false;
  }

  /**
   * Returns true if requests or webhooks have used the database since the last poll, so that it is
   * awake anyway.
   */
  private boolean isDatabaseInUse() {
    long used = database.lastUseNanos();
    return used != databaseUseNanos && System.nanoTime() - used < AWAKE.toNanos();
  }

  private void report(Map<Change, Integer> counts) {
    REPORTED_CHANGES.forEach(change -> counter(change).increment(counts.getOrDefault(change, 0)));
    if (REPORTED_CHANGES.stream().anyMatch(change -> counts.getOrDefault(change, 0) > 0)) {
      log.info(
          "Caught up with Clerk: {} inserted, {} updated, {} deleted",
          counts.getOrDefault(Change.INSERT, 0),
          counts.getOrDefault(Change.UPDATE, 0),
          counts.getOrDefault(Change.DELETE, 0));
    }
  }

  // Changes

  /**
   * Changes that Clerk lists, collected page by page, latest first. Each page must overlap with the
   * previous one and contain other users: otherwise deletions have moved users to a page that was
   * already read, or Clerk repeats a page.
   */
  private final class Changes {
    /** Time of the latest change on the first page; null if Clerk has no users. */
    private Instant newest;

    /** Latest version of each user that has not been seen, by id. */
    private final Map<String, ClerkUser> unseen = new HashMap<>();

    /** False if users between two pages may be missing. */
    private boolean isComplete = true;

    private final Set<String> listed = new HashSet<>();
    private int repeatedPages;
    private long fieldsLength;

    /** Adds a page; returns false if it was the last one to read. */
    boolean add(List<ClerkUser> page) {
      if (newest == null) {
        newest =
            page.stream().map(ClerkUser::updatedAt).max(Comparator.naturalOrder()).orElse(null);
      }
      boolean isFull = page.size() >= PAGE_SIZE;
      long known = page.stream().filter(user -> listed.contains(user.id())).count();
      boolean isRepeated = isFull && known == page.size();
      repeatedPages = isRepeated ? repeatedPages + 1 : 0;
      isComplete &= !isRepeated && (known > 0 || listed.isEmpty());
      List<ClerkUser> changed =
          page.stream().filter(user -> !user.updatedAt().isBefore(since)).toList();
      changed.forEach(this::add);
      return isFull
          && changed.size() == page.size()
          && repeatedPages < MAX_REPEATED_PAGES
          && !tooMany();
    }

    private void add(ClerkUser user) {
      listed.add(user.id());
      if (!user.updatedAt().equals(seen.get(user.id()))) {
        unseen.merge(user.id(), user, ClerkUser::newer);
        fieldsLength += user.fields() == null ? 0 : user.fields().length();
      }
    }

    /** Returns true if there are more than a poll stores. */
    boolean tooMany() {
      return unseen.size() > MAX_CHANGED_USERS || fieldsLength > MAX_FIELDS_LENGTH;
    }
  }

  private void storeChanges(Map<Change, Integer> counts) {
    if (since == null) {
      since = firstTime(Deadline.in(Deadline.REQUEST_TIMEOUT));
    }
    Changes changes = listChanges();
    // Oldest first: after a crash, the newest row tells the next start where to continue.
    List<ClerkUser> users =
        changes.unseen.values().stream()
            .sorted(Comparator.comparing(ClerkUser::updatedAt))
            .toList();
    if (changes.tooMany()) {
      log.warn(
          "More than {} users have changed at Clerk since {}: run backfill",
          Math.min(MAX_CHANGED_USERS, users.size() - 1),
          since);
    } else if (!users.isEmpty() && !isClosed()) {
      // users of another instance look like new ones
      instance.requireBeforeInsert(Deadline.in(Deadline.REQUEST_TIMEOUT));
      for (int i = 0; i < users.size() && !isClosed(); i += BulkUpsert.MAX_USERS) {
        store(users.subList(i, Math.min(users.size(), i + BulkUpsert.MAX_USERS)), counts);
      }
    }
    users.forEach(user -> seen.put(user.id(), user.updatedAt()));
    if (!changes.isComplete && !changes.tooMany()) {
      log.warn("Clerk's pages do not overlap: the next poll reads all changes again");
      throw Failure.of(Kind.CLERK_BAD_RESPONSE, "the pages do not overlap");
    }
    advance(changes.newest);
  }

  /**
   * Returns the time from which the first poll reads changes: shortly before the newest row; for an
   * empty table, the start.
   */
  private Instant firstTime(Deadline deadline) {
    return users
        .newestClerkUpdate(deadline)
        .map(newest -> earlier(newest, began).minus(START_OVERLAP))
        .orElse(began);
  }

  /** Reads pages until one is short or contains a change before {@link #since}. */
  private Changes listChanges() {
    Changes changes = new Changes();
    int number = 0;
    while (changes.add(page(number))) {
      number++;
    }
    return changes;
  }

  private List<ClerkUser> page(int number) {
    int offset = number * (PAGE_SIZE - PAGE_OVERLAP);
    return clerk.recentlyUpdated(offset, PAGE_SIZE, Deadline.in(CALL_TIMEOUT));
  }

  /**
   * Advances the time of the next poll to the latest change, which may be in the future by our
   * clock.
   */
  private void advance(Instant newest) {
    if (newest != null) {
      Instant next = earlier(newest, Instant.now()).minus(OVERLAP);
      since = next.isAfter(since) ? next : since;
      seen.values().removeIf(time -> time.isBefore(since));
    }
  }

  private static Instant earlier(Instant a, Instant b) {
    return a.isBefore(b) ? a : b;
  }

  private void store(List<ClerkUser> some, Map<Change, Integer> counts) {
    bulk.store(bulk.storable(some))
        .forEach((change, number) -> counts.merge(change, number, Integer::sum));
  }

  private void skipped(String id, String reason) {
    if (reason.equals(BulkUpsert.NO_EMAIL_ADDRESS)) { // normal
      log.debug("Not stored: {} {}", id, reason);
    } else if (warnings.allows(id)) {
      log.warn("Not stored: {} {}", id, reason);
    }
  }

  // Audit

  private void audit(Map<Change, Integer> counts) {
    List<String> rows = users.listIds(lastAuditedId, Instant.now(), ClerkApi.MAX_LOOKUP);
    if (rows.isEmpty() && !lastAuditedId.isEmpty()) {
      rows = users.listIds("", Instant.now(), ClerkApi.MAX_LOOKUP);
    }
    List<String> ids = rows.stream().filter(ClerkUser::isId).toList();
    if (!ids.isEmpty()) {
      auditRows(ids, counts);
    }
    lastAuditedId = rows.size() < ClerkApi.MAX_LOOKUP ? "" : rows.get(rows.size() - 1);
  }

  private void auditRows(List<String> ids, Map<Change, Integer> counts) {
    Map<String, ClerkUser> atClerk =
        clerk.lookup(ids, Deadline.in(CALL_TIMEOUT)).stream()
            .collect(Collectors.toMap(ClerkUser::id, Function.identity(), ClerkUser::newer));
    Map<String, Change> differences = bulk.compare(bulk.storable(List.copyOf(atClerk.values())));
    List<ClerkUser> different =
        differences.keySet().stream()
            .filter(id -> differences.get(id) != Change.UNCHANGED)
            .map(atClerk::get)
            .toList();
    if (!different.isEmpty()) {
      store(different, counts);
    }
    List<String> missing = ids.stream().filter(id -> !atClerk.containsKey(id)).toList();
    if (missing.size() > MAX_MISSING) {
      refuseToDelete(missing.size(), ids.size());
    } else {
      missing.forEach(id -> bulk.skipIfRefused(id, () -> markDeletedIfMissing(id, counts)));
    }
  }

  private void refuseToDelete(int missing, int rows) {
    instance.require(Instant.now(), Deadline.in(Deadline.REQUEST_TIMEOUT));
    if (remindAfter.remaining().isZero()) {
      log.error(
          "Clerk does not have {} of {} users: nobody is deleted. If that is right, run backfill"
              + " --delete-missing",
          missing,
          rows);
      remindAfter = Deadline.in(REMINDER_INTERVAL);
    }
  }

  private void markDeletedIfMissing(String id, Map<Change, Integer> counts) {
    Deadline deadline = Deadline.in(Deadline.REQUEST_TIMEOUT);
    if (sync.markDeletedIfMissing(id, "audit of the poll", deadline)) {
      counts.merge(Change.DELETE, 1, Integer::sum);
    }
  }

  // Metrics

  private double age() {
    return System.nanoTime() - succeededNanos;
  }

  private Counter counter(Change change) {
    return Counter.builder("clerk.poll.changes")
        .description("Rows that a poll has inserted, updated or deleted")
        .tag("change", change.name().toLowerCase(Locale.ROOT))
        .register(meters);
  }

  /**
   * Stops the polling. A poll in progress finishes its current step and stores no further changes.
   */
  @Override
  public void close() {
    polls.shutdown();
  }

  private boolean isClosed() {
    return polls.isShutdown();
  }
}
