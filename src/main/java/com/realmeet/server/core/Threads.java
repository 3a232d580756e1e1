package com.realmeet.server.core;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;

/**
 * Creates daemon threads. Blocking work gets its own thread and never runs on the JDK's common
 * pool: on one or two processors that has two threads, and they complete the calls of HttpClient.
 */
public final class Threads {
  private static final Executor THREADS = task -> named("background").newThread(task).start();

  private Threads() {}

  /** Returns a factory of daemon threads with this name; they do not keep the process alive. */
  public static ThreadFactory named(String name) {
    return task -> {
      Thread thread = new Thread(task, name);
      thread.setDaemon(true);
      return thread;
    };
  }

  /**
   * Sleeps; returns at once if the time is negative.
   *
   * @throws IllegalStateException if the thread is interrupted, as when the process ends
   */
  public static void sleep(Duration time) {
    try {
      Thread.sleep(Math.max(0, time.toMillis()));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted", e);
    }
  }

  /**
   * Runs work on a new thread and returns its future result; {@link #join} rethrows its failure.
   */
  public static <T> CompletableFuture<T> supply(Supplier<T> work) {
    return CompletableFuture.supplyAsync(work, THREADS);
  }

  /** Runs work on a new thread; {@link #join} rethrows its failure. */
  public static CompletableFuture<Void> run(Runnable work) {
    return CompletableFuture.runAsync(work, THREADS);
  }

  /**
   * Waits for the result of another thread, by a deadline.
   *
   * @param late creates the exception to throw if the deadline passes or this thread is interrupted
   * @throws RuntimeException the failure as it was thrown there
   */
  public static <T> T join(Future<T> result, Deadline deadline, Supplier<RuntimeException> late) {
    try {
      return result.get(deadline.remaining().toNanos(), TimeUnit.NANOSECONDS);
    } catch (ExecutionException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : new IllegalStateException(e);
    } catch (TimeoutException e) {
      throw late.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw late.get();
    }
  }

  /**
   * Waits for the result of another thread.
   *
   * @throws RuntimeException the failure as it was thrown there
   */
  public static <T> T join(CompletableFuture<T> result) {
    try {
      return result.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : e;
    }
  }
}
