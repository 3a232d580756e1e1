package com.realmeet.server;

import com.auth0.jwk.InvalidPublicKeyException;
import com.auth0.jwk.Jwk;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.realmeet.server.Failure.Kind;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
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

  private static final Duration TTL = Duration.ofMinutes(5);
  private static final Duration REFRESH_AFTER = TTL.minusSeconds(30);
  private static final Duration REFRESH_AFTER_FAILURE = Duration.ofSeconds(10);

  /** How old keys may become while Clerk cannot be reached. */
  private static final Duration STALE = Duration.ofHours(1);

  /** How long a request waits for a fetch, and how long a fetch itself may go on. */
  private static final Duration WAIT = Duration.ofSeconds(2);

  private static final Duration FETCH = Duration.ofSeconds(5);

  /** Without any keys, the least time between a failed fetch and the next that a request begins. */
  private static final Duration COLD_PAUSE = Duration.ofSeconds(1);

  /** At most so many fetches in the window because of tokens whose key we do not have. */
  private static final int EXTRA_FETCHES = 2;

  private static final Duration EXTRA_WINDOW = Duration.ofSeconds(30);
  private static final int MIN_RSA_BITS = 2048;

  private record KeySet(Map<String, RSAPublicKey> byId, long fetchedNanos) {
    boolean isYoungerThan(Duration age) {
      return System.nanoTime() - fetchedNanos < age.toNanos();
    }
  }

  private final ClerkApi clerk;

  /** The key of CLERK_JWT_KEY: the only one, whatever a token calls it; or null. */
  private final RSAPublicKey fixed;

  private final ScheduledExecutorService fetcher =
      Executors.newSingleThreadScheduledExecutor(
          task -> {
            Thread thread = new Thread(task, "clerk-keys");
            thread.setDaemon(true);
            return thread;
          });

  private volatile KeySet keys;
  private volatile boolean failing;

  // Guarded by this.
  private CompletableFuture<KeySet> inFlight;
  private long failedNanos;
  private final Deque<Long> extraFetches = new ArrayDeque<>();

  /**
   * @param fixedKey verifies all tokens without asking Clerk; null: Clerk's key set does
   */
  ClerkKeys(ClerkApi clerk, RSAPublicKey fixedKey) {
    this.clerk = clerk;
    this.fixed = fixedKey;
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
    try {
      await(fetch());
    } catch (Failure e) {
      if (e.kind() == Kind.CLERK_REJECTS_KEY) {
        throw new StartFailure(
            "Clerk rejects CLERK_SECRET_KEY: copy it again from Clerk's dashboard");
      }
      log.warn("Starting without Clerk's signing keys: {}", e.getMessage());
    }
  }

  /**
   * The key of a name.
   *
   * @return null if Clerk has no such key
   * @throws Failure CLERK_UNAVAILABLE if the keys cannot be had
   */
  RSAPublicKey get(String id) {
    if (fixed != null) {
      return fixed;
    }
    if (id == null) {
      return null;
    }
    KeySet usable = usable();
    RSAPublicKey key = usable.byId.get(id);
    return key != null ? key : refetch(usable).byId.get(id);
  }

  /**
   * The key that has taken the name of another: Clerk may keep the name when it rotates the key.
   *
   * @param tried a key under which a signature was wrong
   * @return null if there is no other
   */
  RSAPublicKey successor(String id, RSAPublicKey tried) {
    KeySet before = keys;
    if (fixed != null || before == null) {
      return null;
    }
    RSAPublicKey now = before.byId.get(id);
    if (tried.equals(now)) {
      now = refetch(before).byId.get(id);
    }
    return tried.equals(now) ? null : now;
  }

  private KeySet usable() {
    KeySet current = keys;
    if (current != null
        && (current.isYoungerThan(TTL) || failing && current.isYoungerThan(STALE))) {
      return current;
    }
    CompletableFuture<KeySet> fetch;
    synchronized (this) {
      if (inFlight == null && failing && System.nanoTime() - failedNanos < COLD_PAUSE.toNanos()) {
        throw unavailable();
      }
      fetch = fetch();
    }
    try {
      return await(fetch);
    } catch (Failure e) {
      if (current != null && current.isYoungerThan(STALE)) {
        return current;
      }
      throw e;
    }
  }

  /** A set other than the given one, if a fetch is allowed and brings one. */
  private KeySet refetch(KeySet seen) {
    CompletableFuture<KeySet> fetch;
    synchronized (this) {
      if (keys != seen) {
        return keys;
      }
      if (inFlight == null && !extraFetchAllowed()) {
        if (failing) {
          throw unavailable();
        }
        return seen;
      }
      fetch = fetch();
    }
    return await(fetch);
  }

  private boolean extraFetchAllowed() {
    long now = System.nanoTime();
    extraFetches.removeIf(time -> now - time > EXTRA_WINDOW.toNanos());
    return extraFetches.size() < EXTRA_FETCHES && extraFetches.add(now);
  }

  /** Begins a fetch, or joins the one that is under way. */
  private synchronized CompletableFuture<KeySet> fetch() {
    if (inFlight == null) {
      CompletableFuture<KeySet> future = new CompletableFuture<>();
      inFlight = future;
      fetcher.execute(() -> fetchInto(future));
    }
    return inFlight;
  }

  private void fetchInto(CompletableFuture<KeySet> future) {
    KeySet fetched = null;
    Failure failure = null;
    try {
      fetched = parse(clerk.keySet(Deadline.in(FETCH)));
    } catch (Failure e) {
      failure = e;
    } catch (RuntimeException e) {
      log.error("Reading Clerk's signing keys failed", e);
      failure = unavailable();
    }
    synchronized (this) {
      if (fetched != null) {
        keys = fetched;
      } else {
        failedNanos = System.nanoTime();
      }
      failing = fetched == null;
      inFlight = null;
    }
    Duration next = failing ? REFRESH_AFTER_FAILURE : REFRESH_AFTER;
    fetcher.schedule(this::refresh, next.toMillis(), TimeUnit.MILLISECONDS);
    if (failure == null) {
      future.complete(fetched);
    } else {
      future.completeExceptionally(failure);
    }
  }

  /** Fetches again, unless a request has had that done since this was planned. */
  private void refresh() {
    KeySet current = keys;
    if (current == null || !current.isYoungerThan(REFRESH_AFTER.minusSeconds(1))) {
      fetch();
    }
  }

  private KeySet await(CompletableFuture<KeySet> fetch) {
    try {
      return fetch.get(WAIT.toMillis(), TimeUnit.MILLISECONDS);
    } catch (ExecutionException e) {
      throw (Failure) e.getCause();
    } catch (TimeoutException e) {
      throw unavailable();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw unavailable();
    }
  }

  private static Failure unavailable() {
    return Failure.because(Kind.CLERK_UNAVAILABLE, "Clerk's signing keys cannot be had");
  }

  /**
   * Keeps what can verify a session token; one bad entry spoils only itself.
   *
   * @throws Failure CLERK_UNEXPECTED if nothing is left: a good set is never replaced by that
   */
  private KeySet parse(JsonNode set) {
    Map<String, RSAPublicKey> byId = new HashMap<>();
    for (JsonNode entry : set.path("keys")) {
      try {
        Jwk jwk = Jwk.fromValues(Json.CLERK.convertValue(entry, new TypeReference<>() {}));
        if (jwk.getId() != null
            && (jwk.getUsage() == null || jwk.getUsage().equals("sig"))
            && (jwk.getAlgorithm() == null || jwk.getAlgorithm().equals("RS256"))
            && jwk.getPublicKey() instanceof RSAPublicKey key
            && key.getModulus().bitLength() >= MIN_RSA_BITS) {
          byId.put(jwk.getId(), key);
        }
      } catch (InvalidPublicKeyException | RuntimeException e) {
        log.warn(
            "Clerk's key set has an entry that is not a key: {}", e.getClass().getSimpleName());
      }
    }
    if (byId.isEmpty()) {
      throw Failure.because(Kind.CLERK_UNEXPECTED, "Clerk's key set has no usable key");
    }
    return new KeySet(Map.copyOf(byId), System.nanoTime());
  }

  @Override
  public void close() {
    fetcher.shutdownNow();
  }
}
