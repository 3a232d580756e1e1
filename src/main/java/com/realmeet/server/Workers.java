package com.realmeet.server;

import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;
import org.eclipse.jetty.util.component.LifeCycle;
import org.eclipse.jetty.util.thread.QueuedThreadPool;

/**
 * The threads on which requests wait for Clerk, and for what only one user needs of the database,
 * so that those of the HTTP server never do. They are many, since that may take seconds.
 */
final class Workers implements AutoCloseable {
  private static final int THREADS = 200;

  private final QueuedThreadPool threads = new QueuedThreadPool(THREADS, 0);

  Workers() {
    threads.setName("fetch");
    threads.setDaemon(true);
    LifeCycle.start(threads);
  }

  /** Does work that has a result. */
  <T> CompletableFuture<T> supply(Supplier<T> work) {
    return CompletableFuture.supplyAsync(work, threads);
  }

  /** Does work that has none. */
  CompletableFuture<Void> run(Runnable work) {
    return CompletableFuture.runAsync(work, threads);
  }

  @Override
  public void close() {
    LifeCycle.stop(threads);
  }
}
