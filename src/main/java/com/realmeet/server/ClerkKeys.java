package com.realmeet.server;

import com.realmeet.server.Failure.Kind;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.TimeGauge;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Clerk's signing keys. A background thread keeps them fresh, so that a request rarely waits for
 * them; they survive an outage of Clerk for an hour; and junk tokens cannot make us ask Clerk more
 * than twice in 30 s. (The cache that comes with jwks-rsa locks valid users out after ten junk
 * tokens, and serves a removed key for ever.)
 */
final class ClerkKeys implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(ClerkKeys.class);

  /** The age at which the background thread fetches the keys anew. */
  private static final Duration REFRESH_AFTER = Duration.ofSeconds(270);

  /** The age at which a request waits for that. */
  private static final Duration TTL = Duration.ofMinutes(5);

  /** How old keys may become while they cannot be fetched. */
  private static final Duration STALE = Duration.ofHours(1);

  /** How often the background thread looks whether there is something to do. */
  private static final Duration TICK = Duration.ofSeconds(10);

  /** How long a request waits for a fetch, and how long a fetch itself may go on. */
  private static final Duration WAIT = Duration.ofSeconds(2);

  private static final Duration FETCH = Duration.ofSeconds(5);

  /** The least time between a failed fetch and the next, however many requests want one. */
  private static final Duration PAUSE = Duration.ofMillis(250);

  /** At most so many fetches in the window because of tokens whose key we do not have. */
  private static final int EXTRA_FETCHES = 2;

  private static final Duration EXTRA_WINDOW = Duration.ofSeconds(30);

  private final ClerkApi clerk;

  /** The key of CLERK_JWT_KEY: the only one, whatever a token calls it; or null. */
  private final RSAPublicKey fixed;

  private final LongSupplier nanoTime;
  private final Outage outage = new Outage(log, "Clerk's key set");
  private final ScheduledExecutorService fetcher =
      Executors.newSingleThreadScheduledExecutor(
          task -> {
            Thread thread = new Thread(task, "clerk-keys");
            thread.setDaemon(true);
            return thread;
          });

  private volatile KeySet keys;

  // Guarded by this.
  private CompletableFuture<KeySet> inFlight;
  private final Deque<Long> extraFetches = new ArrayDeque<>();

  /**
   * @param fixedKey verifies all tokens without asking Clerk; null: Clerk's key set does
   * @param nanoTime the clock by which keys age
   */
  ClerkKeys(ClerkApi clerk, RSAPublicKey fixedKey, LongSupplier nanoTime, MeterRegistry meters) {
    this.clerk = clerk;
    this.fixed = fixedKey;
    this.nanoTime = nanoTime;
    if (fixedKey == null) {
      long began = nanoTime.getAsLong();
      TimeGauge.builder("clerk.keys.age", () -> age(began), TimeUnit.NANOSECONDS)
          .description("Time since Clerk's keys were fetched; since the start, if never")
          .register(meters);
    }
  }

  private long age(long began) {
    KeySet current = keys;
    return nanoTime.getAsLong() - (current == null ? began : current.fetchedNanos());
  }

  /**
   * Fetches the keys and begins to keep them fresh.
   *
   * @throws StartFailure if Clerk rejects the secret key; that Clerk cannot be reached is no reason
   *     not to start
   */
  void warm() {
    if (fixed != null) {
      return;
    }
    long tick = TICK.toMillis();
    fetcher.scheduleWithFixedDelay(this::refreshIfDue, tick, tick, TimeUnit.MILLISECONDS);
    try {
      await(fetch(), FETCH.plusSeconds(1)); // no request waits here
    } catch (Failure e) {
      if (e.kind() == Kind.CLERK_REJECTS_KEY) {
        throw new StartFailure(
            "Clerk rejects CLERK_SECRET_KEY: copy it again from Clerk's dashboard");
      }
      log.warn("Starting without Clerk's signing keys: {}", e.getMessage());
    }
  }

  /** What the background thread does at every tick. */
  void refreshIfDue() {
    if (outage.lasts() || !isYounger(keys, REFRESH_AFTER)) {
      fetch();
    }
  }

  /** One of the keys, if there are any yet. */
  Optional<RSAPublicKey> any() {
    KeySet current = keys;
    if (fixed != null || current == null) {
      return Optional.ofNullable(fixed);
    }
    return current.byId().values().stream().findAny();
  }

  /**
   * The key of a name.
   *
   * @param id null if a token names none
   * @return null if Clerk has no such key
   * @throws Failure CLERK_UNAVAILABLE, or CLERK_REJECTS_KEY, if that cannot be known
   */
  RSAPublicKey get(String id) {
    if (fixed != null) {
      return fixed;
    }
    if (id == null) {
      return null;
    }
    KeySet usable = usable();
    RSAPublicKey key = usable.byId().get(id);
    return key != null ? key : refetch(usable).byId().get(id);
  }

  /**
   * The key that has taken the name of another: Clerk may keep the name when it rotates the key.
   *
   * @param tried what {@link #get} returned: a key under which a signature was wrong
   * @return null if no other is known; an outage does not make a wrong signature our fault
   */
  RSAPublicKey successor(String id, RSAPublicKey tried) {
    if (fixed != null) {
      return null;
    }
    KeySet current = keys;
    try {
      RSAPublicKey key = current.byId().get(id);
      key = tried.equals(key) ? refetch(current).byId().get(id) : key;
      return tried.equals(key) ? null : key;
    } catch (Failure e) {
      return null;
    }
  }

  private KeySet usable() {
    KeySet current = keys;
    if (isYounger(current, outage.lasts() ? STALE : TTL)) {
      return current;
    }
    try {
      return await(fetch(), WAIT);
    } catch (Failure e) {
      if (isYounger(current, STALE)) {
        return current;
      }
      throw e;
    }
  }

  private boolean isYounger(KeySet set, Duration age) {
    return set != null && nanoTime.getAsLong() - set.fetchedNanos() < age.toNanos();
  }

  /** A newer set than the given one, or the same if no fetch is allowed. */
  private KeySet refetch(KeySet seen) {
    CompletableFuture<KeySet> fetch;
    synchronized (this) {
      if (keys != seen) {
        return keys;
      }
      // While Clerk hangs, few may wait: threads are for users whose key is here.
      if ((inFlight == null || outage.lasts()) && !extraFetchAllowed()) {
        if (outage.lasts()) {
          throw unavailable("no fetch is allowed now");
        }
        return seen;
      }
      fetch = fetch();
    }
    return await(fetch, WAIT);
  }

  private boolean extraFetchAllowed() {
    long now = nanoTime.getAsLong();
    extraFetches.removeIf(time -> now - time > EXTRA_WINDOW.toNanos());
    return extraFetches.size() < EXTRA_FETCHES && extraFetches.add(now);
  }

  /** Begins a fetch, or joins the one that is under way. */
  private synchronized CompletableFuture<KeySet> fetch() {
    if (inFlight == null) {
      long pause = outage.lasts() ? PAUSE.toMillis() : 0;
      inFlight =
          CompletableFuture.supplyAsync(
              this::load, CompletableFuture.delayedExecutor(pause, TimeUnit.MILLISECONDS, fetcher));
    }
    return inFlight;
  }

  private KeySet load() {
    KeySet loaded = null;
    try {
      loaded = KeySet.from(clerk.keySet(Deadline.in(FETCH)), nanoTime.getAsLong());
      outage.succeeded();
      return loaded;
    } catch (Failure e) {
      outage.failed(e.getMessage());
      throw e.kind() == Kind.CLERK_UNEXPECTED ? unavailable(e.getMessage()) : e;
    } finally {
      synchronized (this) {
        keys = loaded == null ? keys : loaded;
        inFlight = null;
      }
    }
  }

  private static KeySet await(CompletableFuture<KeySet> fetch, Duration wait) {
    try {
      return fetch.get(wait.toMillis(), TimeUnit.MILLISECONDS);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof Failure failure) {
        throw failure;
      }
      log.error("A bug in the server", e.getCause());
      throw unavailable("a bug");
    } catch (TimeoutException e) {
      throw unavailable("no answer in time");
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw unavailable("interrupted");
    }
  }

  private static Failure unavailable(String reason) {
    return Failure.because(Kind.CLERK_UNAVAILABLE, "no signing keys: " + reason);
  }

  /**
   * Says, for the log, which keys there are instead of one.
   *
   * @return the rest of a sentence, or null if there is a key of that name
   */
  String otherThan(String id) {
    if (fixed != null) {
      return "CLERK_JWT_KEY is another";
    }
    KeySet current = keys;
    if (current == null || current.byId().containsKey(id)) {
      return null;
    }
    String ids = String.join(", ", current.byId().keySet()).replaceAll("[^\\w, -]", "?");
    return "CLERK_SECRET_KEY's instance has " + ids;
  }

  @Override
  public void close() {
    fetcher.shutdownNow();
  }
}
