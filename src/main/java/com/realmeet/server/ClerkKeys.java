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
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
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

  /** Whether CLERK_JWT_KEY is the only key. */
  private final boolean fixed;

  private final LongSupplier nanoTime;
  private final Outage outage = new Outage(log, "Clerk's key set");
  private final ScheduledExecutorService fetcher =
      Executors.newSingleThreadScheduledExecutor(Background.threads("clerk-keys"));

  private volatile JwkSet keys;

  // Guarded by this.
  private CompletableFuture<JwkSet> inFlight;
  private final Deque<Long> extraFetches = new ArrayDeque<>();

  /**
   * @param fixedKey verifies all tokens without asking Clerk; null: Clerk's key set does
   * @param nanoTime the clock by which keys age
   */
  ClerkKeys(ClerkApi clerk, RSAPublicKey fixedKey, LongSupplier nanoTime, MeterRegistry meters) {
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
   * Fetches the keys and begins to keep them fresh.
   *
   * @throws StartFailure if Clerk rejects the secret key; that Clerk cannot be reached is no reason
   *     not to start
   */
  void warm() {
    if (fixed) {
      return;
    }
    long tick = TICK.toMillis();
    fetcher.scheduleWithFixedDelay(this::refreshIfDue, tick, tick, TimeUnit.MILLISECONDS);
    try {
      Background.join(within(FETCH.plusSeconds(1), fetch())); // no request waits here
    } catch (Failure e) {
      if (e.kind() == Kind.CLERK_REJECTS_KEY) {
        throw new StartFailure(
            "Clerk rejects CLERK_SECRET_KEY: copy it again from Clerk's dashboard");
      }
      if (!isClosed()) {
        log.warn("Starting without Clerk's signing keys: {}", e.getMessage());
      }
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
    JwkSet current = keys;
    return current == null ? Optional.empty() : current.any();
  }

  /**
   * The keys, at once unless they are too old, or there are none yet.
   *
   * @return fails within 2 s with a {@link Failure} CLERK_UNAVAILABLE or CLERK_REJECTS_KEY
   */
  CompletableFuture<JwkSet> usable() {
    JwkSet current = keys;
    if (fixed || isYounger(current, outage.lasts() ? STALE : TTL)) {
      return CompletableFuture.completedFuture(current);
    }
    CompletableFuture<JwkSet> fetched = within(WAIT, fetch());
    return isYounger(current, STALE) ? fetched.exceptionally(e -> current) : fetched;
  }

  private boolean isYounger(JwkSet set, Duration age) {
    return set != null && nanoTime.getAsLong() - set.fetchedNanos() < age.toNanos();
  }

  /**
   * The keys that Clerk has now, for a token that none of those seen has signed: it may have a new
   * key since, even under an old name.
   *
   * @return at once the same if Clerk may not be asked; fails like {@link #usable}
   */
  synchronized CompletableFuture<JwkSet> newerThan(JwkSet seen) {
    if (fixed || keys != seen) {
      return CompletableFuture.completedFuture(keys);
    }
    // While Clerk hangs, junk is not worth waiting for it.
    if ((inFlight == null || outage.lasts()) && !extraFetchAllowed()) {
      return outage.lasts()
          ? CompletableFuture.failedFuture(unavailable("no fetch is allowed now"))
          : CompletableFuture.completedFuture(seen);
    }
    return within(WAIT, fetch());
  }

  private boolean extraFetchAllowed() {
    long now = nanoTime.getAsLong();
    extraFetches.removeIf(time -> now - time > EXTRA_WINDOW.toNanos());
    return extraFetches.size() < EXTRA_FETCHES && extraFetches.add(now);
  }

  /** Begins a fetch, or joins the one that is under way. */
  private synchronized CompletableFuture<JwkSet> fetch() {
    if (inFlight == null) {
      long pause = outage.lasts() ? PAUSE.toMillis() : 0;
      inFlight =
          CompletableFuture.supplyAsync(
              this::load, CompletableFuture.delayedExecutor(pause, TimeUnit.MILLISECONDS, fetcher));
    }
    return inFlight;
  }

  private JwkSet load() {
    JwkSet loaded = null;
    try {
      loaded = JwkSet.from(clerk.keySet(Deadline.in(FETCH)), nanoTime.getAsLong());
      outage.succeeded();
      return loaded;
    } catch (Failure e) {
      if (!isClosed()) {
        outage.failed(e.getMessage());
      }
      throw e.kind() == Kind.CLERK_UNEXPECTED ? unavailable(e.getMessage()) : e;
    } catch (RuntimeException e) {
      log.error("A bug in the server", e);
      throw unavailable("a bug");
    } finally {
      synchronized (this) {
        keys = loaded == null ? keys : loaded;
        inFlight = null;
      }
    }
  }

  /** The same fetch, for one who does not wait until it ends. */
  private static CompletableFuture<JwkSet> within(Duration wait, CompletableFuture<JwkSet> fetch) {
    return fetch
        .copy()
        .completeOnTimeout(null, wait.toMillis(), TimeUnit.MILLISECONDS)
        .thenApply(
            set -> {
              if (set == null) {
                throw unavailable("no answer in time");
              }
              return set;
            });
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
    if (fixed) {
      return "CLERK_JWT_KEY is another";
    }
    JwkSet current = keys;
    if (current == null || current.byId().containsKey(id)) {
      return null;
    }
    String ids = String.join(", ", current.byId().keySet()).replaceAll("[^\\w, -]", "?");
    return "CLERK_SECRET_KEY's instance has " + ids;
  }

  /** Since then, a failed fetch is no outage: {@link #close} has cut it off. */
  private boolean isClosed() {
    return fetcher.isShutdown();
  }

  @Override
  public void close() {
    fetcher.shutdownNow();
  }
}
