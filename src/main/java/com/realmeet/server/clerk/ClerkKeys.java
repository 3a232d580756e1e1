package com.realmeet.server.clerk;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.Outage;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.TimeGauge;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Caches Clerk's signing keys (JWKS). A background thread refreshes them, so that requests wait
 * only if there are none. During an outage of Clerk they are used for an hour. Tokens with invented
 * key ids cause at most two fetches in 30 s.
 *
 * <p>The cache is our own because Clerk may rotate a key and keep its id: a wrong signature under a
 * known id must also cause a fetch. jwks-rsa does not do that, its rate limit rejects valid users
 * after ten invented key ids, and it keeps a removed key.
 */
public final class ClerkKeys implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(ClerkKeys.class);

  /** Age at which the background thread refetches the keys. */
  private static final Duration REFRESH_INTERVAL = Duration.ofSeconds(270);

  /** Age up to which keys are used while they cannot be fetched (stale-if-error). */
  private static final Duration MAX_STALE = Duration.ofHours(1);

  /** How often the background thread checks whether a refresh is due. */
  private static final Duration CHECK_INTERVAL = Duration.ofSeconds(10);

  /** Time that a request waits for a fetch. */
  private static final Duration WAIT_TIMEOUT = Duration.ofSeconds(2);

  /** Time that a fetch may take; it goes on for later requests when the first has given up. */
  private static final Duration FETCH_TIMEOUT = Duration.ofSeconds(5);

  /** Minimum delay between a failed fetch and the next. */
  private static final Duration RETRY_DELAY = Duration.ofMillis(250);

  /** Maximum fetches in {@link #EXTRA_FETCH_WINDOW} for tokens that no known key verifies. */
  private static final int MAX_EXTRA_FETCHES = 2;

  private static final Duration EXTRA_FETCH_WINDOW = Duration.ofSeconds(30);

  /**
   * Maximum requests that wait for such a fetch, so that invalid tokens do not occupy all threads
   * while Clerk hangs.
   */
  private static final int MAX_EXTRA_WAITERS = 16;

  private final ClerkApi clerk;

  /** True if CLERK_JWT_KEY is the only key. */
  private final boolean fixed;

  private final LongSupplier nanoTime;
  private final Outage outage = new Outage(log, "Clerk's key set");
  private final ScheduledExecutorService fetcher =
      Executors.newSingleThreadScheduledExecutor(Threads.named("clerk-keys"));
  private final Semaphore extraWaiters = new Semaphore(MAX_EXTRA_WAITERS);

  private volatile JwkSet keys;

  // Guarded by this.
  private Future<JwkSet> inFlight;
  private final Deque<Long> extraFetches = new ArrayDeque<>();

  /**
   * @param fixedKey CLERK_JWT_KEY, which verifies all tokens without a fetch; null: use Clerk's key
   *     set
   * @param nanoTime clock that determines the age of keys
   */
  public ClerkKeys(
      ClerkApi clerk, RSAPublicKey fixedKey, LongSupplier nanoTime, MeterRegistry meters) {
    this.clerk = clerk;
    this.fixed = fixedKey != null;
    this.nanoTime = nanoTime;
    if (fixed) {
      keys = JwkSet.of(fixedKey);
    } else {
      long began = nanoTime.getAsLong();
      TimeGauge.builder("clerk.keys.age", () -> age(began), TimeUnit.NANOSECONDS)
          .description("Time since Clerk's keys were fetched; since the start, if never")
          .register(meters);
    }
  }

  private long age(long began) {
    JwkSet current = keys;
    return nanoTime.getAsLong() - (current == null ? began : current.fetchedNanos());
  }

  /**
   * Fetches the keys and starts to refresh them in the background.
   *
   * @throws StartupException if Clerk rejects the secret key; if Clerk is unreachable, the server
   *     starts without keys
   */
  void prefetch() {
    if (fixed) {
      return;
    }
    long interval = CHECK_INTERVAL.toMillis();
    try {
      fetcher.scheduleWithFixedDelay(this::refreshIfDue, interval, interval, TimeUnit.MILLISECONDS);
      await(fetch(), Deadline.in(FETCH_TIMEOUT.plusSeconds(1))); // no request waits here
    } catch (Failure e) {
      if (e.kind() == Kind.CLERK_UNAUTHORIZED) {
        throw new StartupException(
            "Clerk rejects CLERK_SECRET_KEY: copy it again from Clerk's dashboard");
      }
      if (!isClosed()) {
        log.warn("Starting without Clerk's signing keys: {}", e.reason());
      }
    }
  }

  /** Starts a fetch if the keys are due or the last fetch failed. */
  void refreshIfDue() {
    if (outage.isDown() || !isYounger(keys, REFRESH_INTERVAL)) {
      fetch();
    }
  }

  /** Returns any one of the keys; empty before the first fetch. */
  Optional<RSAPublicKey> any() {
    JwkSet current = keys;
    return current == null ? Optional.empty() : current.any();
  }

  /**
   * Returns the keys; blocks only if there are none yet or they are older than an hour.
   *
   * @throws Failure within 2 s, CLERK_UNAVAILABLE or CLERK_UNAUTHORIZED, if there are none
   */
  JwkSet current(Deadline deadline) {
    JwkSet current = keys;
    if (fixed || isYounger(current, MAX_STALE)) {
      return current;
    }
    return await(fetch(), waitTime(deadline));
  }

  private boolean isYounger(JwkSet set, Duration age) {
    return set != null && nanoTime.getAsLong() - set.fetchedNanos() < age.toNanos();
  }

  /**
   * Refetches the keys (rate-limited) because none of {@code seen} verifies a token: Clerk may have
   * rotated a key and kept its id.
   *
   * @return {@code seen} itself if there is nothing newer and no fetch is allowed
   * @throws Failure within 2 s, CLERK_UNAVAILABLE or CLERK_UNAUTHORIZED, if the fetch fails
   */
  JwkSet refreshFor(JwkSet seen, Deadline deadline) {
    Future<JwkSet> fetch;
    synchronized (this) {
      if (fixed || keys != seen) {
        return keys;
      }
      boolean joins =
          inFlight != null
              && !outage.isDown(); // while Clerk is down, only those wait whose fetch is allowed
      if (!joins && !isExtraFetchAllowed()) {
        if (outage.isDown()) {
          throw unavailable("no fetch is allowed now");
        }
        return seen;
      }
      fetch = fetch();
    }
    if (!extraWaiters.tryAcquire()) {
      throw unavailable("too many requests wait for new ones");
    }
    try {
      return await(fetch, waitTime(deadline));
    } finally {
      extraWaiters.release();
    }
  }

  private boolean isExtraFetchAllowed() {
    long now = nanoTime.getAsLong();
    extraFetches.removeIf(time -> now - time > EXTRA_FETCH_WINDOW.toNanos());
    return extraFetches.size() < MAX_EXTRA_FETCHES && extraFetches.add(now);
  }

  /** Starts a fetch on the background thread, or returns the one in flight. */
  private synchronized Future<JwkSet> fetch() {
    if (inFlight == null) {
      long delay = outage.isDown() ? RETRY_DELAY.toMillis() : 0;
      try {
        inFlight = fetcher.schedule(this::load, delay, TimeUnit.MILLISECONDS);
      } catch (RejectedExecutionException e) {
        throw unavailable("the server is stopping");
      }
    }
    return inFlight;
  }

  private JwkSet load() {
    JwkSet loaded = null;
    try {
      loaded = JwkSet.from(clerk.keySet(Deadline.in(FETCH_TIMEOUT)), nanoTime.getAsLong());
      outage.succeeded();
      return loaded;
    } catch (Failure e) {
      if (!isClosed()) {
        outage.failed(e.reason());
      }
      throw e.kind() == Kind.CLERK_BAD_RESPONSE ? unavailable(e.reason()) : e;
    } catch (RuntimeException e) {
      log.error("Unhandled exception", e);
      throw unavailable("a bug");
    } finally {
      synchronized (this) {
        keys = loaded == null ? keys : loaded;
        inFlight = null;
      }
    }
  }

  /** Returns when a request gives up waiting for a fetch. */
  private static Deadline waitTime(Deadline deadline) {
    return Deadline.earlier(deadline, Deadline.in(WAIT_TIMEOUT));
  }

  private static JwkSet await(Future<JwkSet> fetch, Deadline deadline) {
    return Threads.join(fetch, deadline, () -> unavailable("no response in time"));
  }

  private static Failure unavailable(String reason) {
    return Failure.of(Kind.CLERK_UNAVAILABLE, "no signing keys: " + reason);
  }

  /**
   * Returns the ids of the keys, each of which is the id of a Clerk instance; empty if
   * CLERK_JWT_KEY is used.
   */
  public Set<String> ids() {
    JwkSet current = keys;
    return current == null ? Set.of() : current.byKid().keySet();
  }

  /**
   * Returns true after {@link #close}: a fetch that fails then was cancelled, which is no outage.
   */
  private boolean isClosed() {
    return fetcher.isShutdown();
  }

  @Override
  public void close() {
    fetcher.shutdownNow();
  }
}
