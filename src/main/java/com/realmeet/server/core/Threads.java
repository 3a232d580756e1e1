package com.realmeet.server.core;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;
import java.util.concurrent.ThreadFactory;
import java.util.function.Supplier;
import org.eclipse.jetty.util.VirtualThreads;

/**
 * Daemon threads. What may block runs on a thread of its own, never on the JDK's common pool: on
 * two cores that has two threads, which complete the calls of HttpClient.
 */
public final class Threads {
  private static final Executor THREADS = task -> named("background").newThread(task).start();

  private Threads() {}

  /** Whether requests run on virtual threads, as from Java 21 on: then it is cheap to wait. */
  public static boolean areVirtual() {
    return VirtualThreads.areSupported();
  }

  /** A factory of threads of that name, which do not keep the process from ending. */
  public static ThreadFactory named(String name) {
    return task -> {
      Thread thread = new Thread(task, name);
      thread.setDaemon(true);
      return thread;
    };
  }

  /**
   * Waits.
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

  /** Runs work that has a result; its failure comes out of {@link #join}. */
  public static <T> CompletableFuture<T> supply(Supplier<T> work) {
    return CompletableFuture.supplyAsync(work, THREADS);
  }

  public static CompletableFuture<Void> run(Runnable work) {
    return CompletableFuture.runAsync(work, THREADS);
  }

  /** The result that another thread computes, or its failure as it was thrown there. */
  public static <T> T join(CompletableFuture<T> result) {
    try {
      return result.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : e;
    }
  }
}
