package com.realmeet.server;

import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Supplier;
import org.eclipse.jetty.util.component.LifeCycle;
import org.eclipse.jetty.util.thread.QueuedThreadPool;

/**
 * The threads on which requests wait, so that those of the HTTP server never do. What waits for the
 * database has as many as there are connections: with more, they would only queue for these, and
 * each wake the next. What waits for Clerk has many, since that may take seconds.
 */
final class Workers implements AutoCloseable {
  private static final int CLERK_THREADS = 200;

  private final ExecutorService database;
  private final QueuedThreadPool clerk = new QueuedThreadPool(CLERK_THREADS, 0);

  Workers(int poolSize) {
    database =
        Executors.newFixedThreadPool(
            poolSize,
            task -> {
              Thread thread = new Thread(task, "database");
              thread.setDaemon(true);
              return thread;
            });
    clerk.setName("clerk");
    clerk.setDaemon(true);
    LifeCycle.start(clerk);
  }

  /**
   * What the database knows, or else Clerk.
   *
   * @param row asks only the database
   * @param user may ask Clerk; asked if there is no row
   */
  <T> CompletableFuture<T> supply(Supplier<Optional<T>> row, Supplier<T> user) {
    return CompletableFuture.supplyAsync(row, database)
        .thenCompose(
            found -> found.map(CompletableFuture::completedFuture).orElseGet(() -> supply(user)));
  }

  /** What Clerk has to be asked for. */
  <T> CompletableFuture<T> supply(Supplier<T> work) {
    return CompletableFuture.supplyAsync(work, clerk);
  }

  /** Like {@link #supply(Supplier)}, without a result. */
  CompletableFuture<Void> run(Runnable work) {
    return CompletableFuture.runAsync(work, clerk);
  }

  @Override
  public void close() {
    database.shutdown();
    LifeCycle.stop(clerk);
  }
}
