package com.realmeet.server.users;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Threads;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.eclipse.jetty.util.VirtualThreads;

/**
 * Single flight: concurrent threads that need the same result share one call. The first thread
 * makes the call, the others wait for its result.
 *
 * @param <K> key; calls with different keys run concurrently
 * @param <V> result
 */
final class SingleFlight<K, V> {
  /**
   * Maximum platform threads that wait for calls until their deadlines, so that users who repeat
   * their requests while Clerk hangs do not occupy all threads of JettyServer. The one that makes
   * the next call for a key is not counted.
   */
  static final int MAX_WAITING_THREADS = 60;

  /** How long further platform threads wait: calls of a healthy Clerk end sooner. */
  private static final Duration SURPLUS_TIMEOUT = Duration.ofMillis(1500);

  private final Semaphore waitingThreads;
  private final BooleanSupplier isDown;

  // Guarded by this:
  private final Map<K, CompletableFuture<V>> running = new HashMap<>();
  private final Map<K, CompletableFuture<V>> next = new HashMap<>();

  /**
   * @param waitingThreads {@link #MAX_WAITING_THREADS} permits, which single flights may share
   * @param isDown true while calls probably fail, so that further platform threads do not wait
   */
  SingleFlight(Semaphore waitingThreads, BooleanSupplier isDown) {
    this.waitingThreads = waitingThreads;
    this.isDown = isDown;
  }

  /**
   * Makes a call, or shares the running one.
   *
   * @throws Failure as the call, or OVERLOADED if it exceeds the deadline or too many threads wait
   */
  V join(K key, Deadline deadline, Supplier<V> work) {
    CompletableFuture<V> mine = new CompletableFuture<>();
    CompletableFuture<V> other;
    synchronized (this) {
      other = running.putIfAbsent(key, mine);
    }
    return other == null ? run(key, mine, work) : share(other, deadline);
  }

  /**
   * Makes a call after the running one has ended, or shares the next one. Callers cannot share the
   * running call, since it may have read its source before the change that they want to see.
   *
   * @throws Failure as {@link #join}
   */
  V joinNext(K key, Deadline deadline, Supplier<V> work) {
    CompletableFuture<V> mine = new CompletableFuture<>();
    CompletableFuture<V> before;
    CompletableFuture<V> other = null;
    synchronized (this) {
      before = running.putIfAbsent(key, mine);
      if (before != null) {
        other = next.putIfAbsent(key, mine);
      }
    }
    if (other != null) {
      return share(other, deadline);
    }
    if (before != null) {
      awaitTurn(key, mine, before, deadline);
    }
    return run(key, mine, work);
  }

  /** Waits until the running call has ended, with or without success, and takes its place. */
  private void awaitTurn(
      K key, CompletableFuture<V> mine, CompletableFuture<V> before, Deadline deadline) {
    try {
      await(before, deadline);
    } catch (RuntimeException e) {
      // its failure does not concern this call; if it used up the time, our work fails by its
      // deadline
    }
    synchronized (this) {
      if (next.remove(key, mine)) { // the running call has exceeded our deadline
        running.put(key, mine);
      }
    }
  }

  private V run(K key, CompletableFuture<V> mine, Supplier<V> work) {
    try {
      V value = work.get();
      mine.complete(value);
      return value;
    } catch (Throwable e) {
      mine.completeExceptionally(e);
      throw e;
    } finally {
      end(key, mine);
    }
  }

  private synchronized void end(K key, CompletableFuture<V> mine) {
    if (running.remove(key, mine)) {
      CompletableFuture<V> following = next.remove(key);
      if (following != null) {
        running.put(key, following);
      }
    }
  }

  private V share(CompletableFuture<V> call, Deadline deadline) {
    if (VirtualThreads.isVirtualThread()) {
      return await(call, deadline);
    }
    if (!waitingThreads.tryAcquire()) {
      Duration timeout = isDown.getAsBoolean() ? Duration.ZERO : SURPLUS_TIMEOUT;
      return await(call, Deadline.earlier(deadline, Deadline.in(timeout)));
    }
    try {
      return await(call, deadline);
    } finally {
      waitingThreads.release();
    }
  }

  private static <V> V await(CompletableFuture<V> call, Deadline deadline) {
    return Threads.join(call, deadline, () -> Failure.of(Failure.Kind.OVERLOADED));
  }
}
