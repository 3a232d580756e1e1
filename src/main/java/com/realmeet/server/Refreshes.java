package com.realmeet.server;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * Runs at most one refresh of a user at a time, and lets all who ask meanwhile share the next one.
 * The one under way does not do for them: it may have read Clerk before the change that they know
 * of.
 */
final class Refreshes {

  /** A refresh, and the result that it has to wait for, or null. */
  private static final class Turn {
    final CompletableFuture<User> result = new CompletableFuture<>();
    final CompletableFuture<User> before;
    boolean begun; // guarded by the map's lock on the user

    Turn(CompletableFuture<User> before) {
      this.before = before;
    }
  }

  private final ConcurrentMap<String, Turn> lastTurns = new ConcurrentHashMap<>();

  /**
   * The result of a refresh that begins after this call.
   *
   * @param deadline for the one under way to end
   * @param work the refresh; run by one of those who share it
   */
  User next(String id, Deadline deadline, Supplier<User> work) {
    boolean[] mine = new boolean[1];
    Turn turn =
        lastTurns.compute(
            id,
            (key, last) -> {
              if (last != null && !last.begun) {
                return last;
              }
              mine[0] = true;
              return new Turn(last == null ? null : last.result);
            });
    if (mine[0]) {
      run(id, turn, deadline, work);
    }
    return Background.join(turn.result);
  }

  private void run(String id, Turn turn, Deadline deadline, Supplier<User> work) {
    try {
      if (turn.before != null) {
        // If time runs out, the work fails for want of it.
        turn.before
            .exceptionally(e -> null)
            .completeOnTimeout(null, deadline.left().toNanos(), TimeUnit.NANOSECONDS)
            .join();
      }
      lastTurns.computeIfPresent(
          id,
          (key, last) -> {
            turn.begun = true;
            return last;
          });
      turn.result.complete(work.get());
    } catch (Throwable e) {
      turn.result.completeExceptionally(e);
    } finally {
      lastTurns.remove(id, turn);
    }
  }
}
