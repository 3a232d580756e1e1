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
import com.realmeet.server.users.InstanceCheck.Verdict;
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
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.jdbi.v3.core.JdbiException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Looks at Clerk at regular intervals, since the delivery of webhooks is not guaranteed: stores the
 * users who have changed since the last time, and compares up to 100 rows with Clerk (the audit).
 * Touches neither the database while nothing has changed, nor Clerk while it throttles. Any number
 * of servers may do this at once: every write is guarded by Clerk's clock.
 */
public final class Poll implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(Poll.class);

  private static final int PAGE_SIZE = 100;

  /** Users at the end of a page who are asked for again: deletions move the next page up. */
  private static final int PAGE_OVERLAP = 10;

  /** 50 pages: more is the work of a backfill. */
  private static final int MAX_CHANGED_USERS = 5000;

  /** Characters of CLERK_FIELDS among the changes; bounds the memory. */
  private static final int MAX_FIELDS_LENGTH = 32 << 20;

  /** Pages in a row that bring nobody new. */
  private static final int MAX_REPEATED_PAGES = 3;

  /** Users stored by one statement. */
  private static final int BATCH_SIZE = 500;

  /** Missing rows of one audit: a key of another instance, or a fault at Clerk, looks like more. */
  private static final int MAX_MISSING = 5;

  private static final Duration CALL_TIMEOUT = Duration.ofSeconds(10);

  /** The first poll need not wait for the interval, but not compete with the first requests. */
  private static final Duration MAX_FIRST_DELAY = Duration.ofSeconds(30);

  /** The longest pause after failures, unless the interval is longer. */
  private static final Duration MAX_BACK_OFF = Duration.ofMinutes(5);

  /** How far before the newest row the first poll begins: others may just have been storing. */
  private static final Duration START_OVERLAP = Duration.ofMinutes(5);

  /** Clerk may list a change a little later than a younger one. */
  private static final Duration OVERLAP = Duration.ofSeconds(10);

  /** Within this time after a statement, a database that suspends is still awake. */
  private static final Duration AWAKE = Duration.ofMinutes(1);

  /** The least time between two errors about too many missing rows. */
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
  private final CountDownLatch closed = new CountDownLatch(1);
  private final Instant began = Instant.now();
  private volatile long succeededNanos = System.nanoTime();

  // Guarded by this: one poll at a time.
  private Instant since; // Clerk's clock: what is older has been seen; null: not known yet
  private final Map<String, Instant> seen = new HashMap<>(); // versions at or after since
  private boolean isOurInstance;
  private String lastAuditedId = ""; // the last id of the last audit
  private long databaseUseNanos; // of the database's last use at the end of the last poll
  private Deadline remindAfter = Deadline.in(Duration.ZERO);

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

  /** Polls from now on, in a thread of its own. */
  public synchronized void start(Duration interval) {
    try { // before a request or a webhook can store anything newer
      since = newestRow(Deadline.in(Duration.ofSeconds(1)));
    } catch (Failure e) {
      log.debug("The newest row is not known yet: {}", e.getMessage());
    }
    databaseUseNanos = database.lastUseNanos();
    REPORTED_CHANGES.forEach(this::counter); // an alert cannot see a first increase
    TimeGauge.builder("clerk.poll.age", this, TimeUnit.NANOSECONDS, Poll::age)
        .description("Time since the last successful poll, or since the start before the first")
        .register(meters);
    Threads.named("poll").newThread(() -> run(interval)).start();
  }

  private void run(Duration interval) {
    Duration pause = interval.compareTo(MAX_FIRST_DELAY) < 0 ? interval : MAX_FIRST_DELAY;
    try {
      for (int failures = 0; !closed.await(pause.toMillis(), TimeUnit.MILLISECONDS); ) {
        failures = poll() ? 0 : failures + 1;
        pause = pause(interval, failures);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Doubles the interval with each failure in a row. */
  static Duration pause(Duration interval, int failures) {
    Duration longest = interval.compareTo(MAX_BACK_OFF) > 0 ? interval : MAX_BACK_OFF;
    Duration doubled = interval.multipliedBy(1L << Math.min(failures, 10));
    return doubled.compareTo(longest) < 0 ? doubled : longest;
  }

  /**
   * Looks once.
   *
   * @return whether that has succeeded; if not, the next time does all of it again
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
      log.debug("Poll failed: {}", e.getMessage());
    } catch (RuntimeException e) {
      if (!isClosed()) {
        SqlErrors.explain(e)
            .ifPresentOrElse(log::error, () -> log.error("Unhandled exception in the poll", e));
      }
    } finally {
      databaseUseNanos = database.lastUseNanos();
      report(counts);
    }
    return false;
  }

  /** Whether anybody else has used the database since the last poll, so that it is awake anyway. */
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
   * What Clerk lists.
   *
   * @param newest the latest change on the first page; null if Clerk has no users
   * @param users whose latest version has not been seen, that version of each
   * @param tooMany whether there are more than a poll stores
   * @param isComplete false if users between two pages may be missing
   */
  private record Changes(
      Instant newest, Map<String, ClerkUser> users, boolean tooMany, boolean isComplete) {}

  private void storeChanges(Map<Change, Integer> counts) {
    if (since == null) {
      since = newestRow(Deadline.in(Deadline.REQUEST_TIMEOUT));
    }
    Changes changes = listChanges();
    // The oldest first: where a crash interrupts this, the next start finds how far it has come.
    List<ClerkUser> users =
        changes.users.values().stream().sorted(Comparator.comparing(ClerkUser::updatedAt)).toList();
    if (changes.tooMany) {
      log.warn(
          "More than {} users have changed at Clerk since {}: run backfill",
          Math.min(MAX_CHANGED_USERS, users.size() - 1),
          since);
    } else if (!users.isEmpty() && !isClosed()) {
      requireInstance();
      for (int i = 0; i < users.size() && !isClosed(); i += BATCH_SIZE) {
        store(users.subList(i, Math.min(users.size(), i + BATCH_SIZE)), counts);
      }
    }
    users.forEach(user -> seen.put(user.id(), user.updatedAt()));
    if (!changes.isComplete && !changes.tooMany) {
      log.warn("Clerk's pages do not fit together: all changes are read again next time");
      throw Failure.of(Kind.CLERK_BAD_RESPONSE, "the pages do not fit together");
    }
    advance(changes.newest);
  }

  /** The first poll begins a little before the newest row; with an empty table now. */
  private Instant newestRow(Deadline deadline) {
    return users
        .newestClerkUpdate(deadline)
        .map(newest -> earlier(newest, began).minus(START_OVERLAP))
        .orElse(began);
  }

  /**
   * Reads pages, the latest changes first, up to one that has not only new ones. Each must begin
   * with users of the one before, and bring others: else deletions have moved users past us, or
   * Clerk repeats a page.
   */
  private Changes listChanges() {
    List<ClerkUser> page = page(0);
    Instant newest =
        page.stream().map(ClerkUser::updatedAt).max(Comparator.naturalOrder()).orElse(null);
    Set<String> listed = new HashSet<>();
    Map<String, ClerkUser> unseen = new HashMap<>();
    boolean isComplete = true;
    long length = 0;
    for (int number = 1, repeated = 0; ; number++) {
      long known = page.stream().filter(user -> listed.contains(user.id())).count();
      boolean isRepeated = page.size() >= PAGE_SIZE && known == page.size();
      repeated = isRepeated ? repeated + 1 : 0;
      isComplete &= !isRepeated && (known > 0 || listed.isEmpty() || page.isEmpty());
      boolean goesOn = page.size() >= PAGE_SIZE && repeated < MAX_REPEATED_PAGES;
      for (ClerkUser user : page) {
        if (user.updatedAt().isBefore(since)) {
          goesOn = false;
          continue;
        }
        listed.add(user.id());
        if (!user.updatedAt().equals(seen.get(user.id()))) {
          unseen.merge(user.id(), user, Poll::newer);
          length += user.fields() == null ? 0 : user.fields().length();
        }
      }
      boolean tooMany = unseen.size() > MAX_CHANGED_USERS || length > MAX_FIELDS_LENGTH;
      if (!goesOn || tooMany) {
        return new Changes(newest, unseen, tooMany, isComplete);
      }
      page = page(number);
    }
  }

  private List<ClerkUser> page(int number) {
    int offset = number * (PAGE_SIZE - PAGE_OVERLAP);
    return clerk.recentlyUpdated(offset, PAGE_SIZE, Deadline.in(CALL_TIMEOUT));
  }

  private static ClerkUser newer(ClerkUser a, ClerkUser b) {
    return a.updatedAt().isBefore(b.updatedAt()) ? b : a;
  }

  /** Goes on from the latest change, whose time may be in the future by our clock. */
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

  /** Without this, the users of another instance would be taken for new ones of ours. */
  private void requireInstance() {
    if (!isOurInstance) {
      Deadline deadline = Deadline.in(Deadline.REQUEST_TIMEOUT);
      isOurInstance = instance.require(List.of(), began, deadline) == Verdict.SAME_INSTANCE;
    }
  }

  /** A constraint of the application's own, which one user violates, does not stop the others. */
  private void store(List<ClerkUser> some, Map<Change, Integer> counts) {
    List<ClerkUser> batch = bulk.storable(some);
    try {
      count(bulk.store(batch), counts);
    } catch (JdbiException e) {
      if (!SqlErrors.isOfData(e)) {
        throw e;
      }
      batch.forEach(user -> storeOne(user, counts));
    }
  }

  private void storeOne(ClerkUser user, Map<Change, Integer> counts) {
    try {
      count(bulk.store(List.of(user)), counts);
    } catch (JdbiException e) {
      if (!SqlErrors.isOfData(e)) {
        throw e;
      }
      skipped(user.id(), SqlErrors.explain(e).orElse("the database refuses a value"));
    }
  }

  private static void count(Map<Change, Integer> stored, Map<Change, Integer> counts) {
    stored.forEach((change, number) -> counts.merge(change, number, Integer::sum));
  }

  private void skipped(String id, String reason) {
    if (reason.endsWith("no email address")) { // signed up by phone: not a fault
      log.debug("{} is not stored: {}", id, reason);
    } else if (warnings.allows(id)) {
      log.warn("{} is not stored: {}", id, reason);
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
      compare(ids, counts);
    }
    lastAuditedId = rows.size() < ClerkApi.MAX_LOOKUP ? "" : rows.get(rows.size() - 1);
  }

  private void compare(List<String> ids, Map<Change, Integer> counts) {
    Map<String, ClerkUser> atClerk =
        clerk.lookup(ids, Deadline.in(CALL_TIMEOUT)).stream()
            .collect(Collectors.toMap(ClerkUser::id, Function.identity(), Poll::newer));
    Map<String, Change> differences = users.compare(bulk.storable(List.copyOf(atClerk.values())));
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
      missing.forEach(id -> deleteIfGone(id, counts));
    }
  }

  private void refuseToDelete(int missing, int rows) {
    instance.require(List.of(), Deadline.in(Deadline.REQUEST_TIMEOUT));
    if (remindAfter.remaining().isZero()) {
      log.error(
          "Clerk does not have {} of {} users: nobody is deleted. If that is right, run backfill"
              + " --delete-missing",
          missing,
          rows);
      remindAfter = Deadline.in(REMINDER_INTERVAL);
    }
  }

  private void deleteIfGone(String id, Map<Change, Integer> counts) {
    try {
      if (sync.deleteIfGone(id, "audit of the poll")) {
        counts.merge(Change.DELETE, 1, Integer::sum);
      }
    } catch (Failure e) {
      switch (e.kind()) {
        case NO_EMAIL, EMAIL_IN_USE -> log.debug("Clerk has {} after all", id);
        default -> throw e;
      }
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

  /** Ends the polling. One that hangs at Clerk ends by itself, and stores nothing any more. */
  @Override
  public void close() {
    closed.countDown();
  }

  private boolean isClosed() {
    return closed.getCount() == 0;
  }
}
