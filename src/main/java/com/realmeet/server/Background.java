package com.realmeet.server;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;
import java.util.concurrent.ThreadFactory;
import java.util.function.Supplier;

/**
 * Runs what may block, each on a thread of its own. Never on the JDK's common pool: on two cores
 * that has two threads, which complete the calls of HttpClient.
 */
final class Background {
  private static final Executor THREADS = task -> threads("background").newThread(task).start();

  private Background() {}

  /** Threads of that name which do not keep the process from ending. */
  static ThreadFactory threads(String name) {
    return task -> {
      Thread thread = new Thread(task, name);
      thread.setDaemon(true);
      return thread;
    };
  }

  /** Runs what has a result; its failure comes out of {@link #join}. */
  static <T> CompletableFuture<T> supply(Supplier<T> work) {
    return CompletableFuture.supplyAsync(work, THREADS);
  }

  static CompletableFuture<Void> run(Runnable work) {
    return CompletableFuture.runAsync(work, THREADS);
  }

  /** The result that another thread computes, or its failure as it was thrown there. */
  static <T> T join(CompletableFuture<T> result) {
    try {
      return result.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : e;
    }
  }
}
