package com.realmeet.server.users;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;

/**
 * Single flight: concurrent threads that need the same result share one call. The first thread
 * makes the call, the others wait for its result.
 *
 * @param <K> key; calls with different keys run concurrently
 * @param <V> result
 */
final class SingleFlight<K, V> {
  /**
   * Maximum threads that wait for one call, so that a user who repeats a request while Clerk is
   * slow does not occupy all platform threads.
   */
  private static final int MAX_WAITERS = 100;

  private static final class Call<V> {
    final CompletableFuture<V> result = new CompletableFuture<>();
    int waiters; // guarded by the single flight
  }

  // Guarded by this:
  private final Map<K, Call<V>> running = new HashMap<>();
  private final Map<K, Call<V>> next = new HashMap<>();

  /**
   * Makes a call, or shares the running one.
   *
   * @throws Failure as the call, or OVERLOADED if too many threads wait for it or it exceeds the
   *     deadline
   */
  V join(K key, Deadline deadline, Supplier<V> work) {
    Call<V> mine = new Call<>();
    Call<V> other;
    synchronized (this) {
      other = running.putIfAbsent(key, mine);
      if (other != null) {
        addWaiter(other);
      }
    }
    return other == null ? run(key, mine, work) : await(other, deadline);
  }

  /**
   * Makes a call after the running one has ended, or shares the next one. Callers cannot share the
   * running call, since it may have read its source before the change that they want to see.
   *
   * @throws Failure as {@link #join}
   */
  V joinNext(K key, Deadline deadline, Supplier<V> work) {
    Call<V> mine = new Call<>();
    Call<V> before;
    Call<V> other = null;
    synchronized (this) {
      before = running.putIfAbsent(key, mine);
      if (before != null) {
        other = next.putIfAbsent(key, mine);
      }
      if (other != null) {
        addWaiter(other);
      }
    }
    if (other != null) {
      return await(other, deadline);
    }
    if (before != null) {
      awaitTurn(key, mine, before, deadline);
    }
    return run(key, mine, work);
  }

  private void addWaiter(Call<V> call) {
    if (++call.waiters > MAX_WAITERS) {
      call.waiters--;
      throw Failure.of(Failure.Kind.OVERLOADED);
    }
  }

  /** Waits until the running call has ended, with or without success, and takes its place. */
  private void awaitTurn(K key, Call<V> mine, Call<V> before, Deadline deadline) {
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

  private V run(K key, Call<V> mine, Supplier<V> work) {
    try {
      V value = work.get();
      mine.result.complete(value);
      return value;
    } catch (Throwable e) {
      mine.result.completeExceptionally(e);
      throw e;
    } finally {
      end(key, mine);
    }
  }

  private synchronized void end(K key, Call<V> mine) {
    if (running.remove(key, mine)) {
      Call<V> following = next.remove(key);
      if (following != null) {
        running.put(key, following);
      }
    }
  }

  private static <V> V await(Call<V> call, Deadline deadline) {
    try {
      return call.result.get(deadline.remaining().toNanos(), TimeUnit.NANOSECONDS);
    } catch (ExecutionException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : new IllegalStateException(e);
    } catch (TimeoutException e) {
      throw Failure.of(Failure.Kind.OVERLOADED);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw Failure.of(Failure.Kind.OVERLOADED);
    }
  }
}
