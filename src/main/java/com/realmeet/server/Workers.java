package com.realmeet.server;

import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Tags;
import io.micrometer.core.instrument.binder.jvm.ExecutorServiceMetrics;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.eclipse.jetty.util.component.LifeCycle;
import org.eclipse.jetty.util.thread.QueuedThreadPool;

/**
 * The threads on which requests wait, so that those of the HTTP server never do. What only reads a
 * row has as many as there are connections: with more, they would only queue for these, and each
 * wake the next. What may ask Clerk has many, since that may take seconds.
 */
final class Workers implements AutoCloseable {
  private static final int FETCHING = 200;

  private final ExecutorService finding;
  private final QueuedThreadPool fetching = new QueuedThreadPool(FETCHING, 0);

  Workers(int connections, MeterRegistry meters) {
    finding =
        Executors.newFixedThreadPool(
            connections,
            task -> {
              Thread thread = new Thread(task, "find");
              thread.setDaemon(true);
              return thread;
            });
    new ExecutorServiceMetrics(finding, "find", Tags.empty()).bindTo(meters);
    fetching.setName("fetch");
    fetching.setDaemon(true);
    LifeCycle.start(fetching);
  }

  /**
   * What is in the database, or else what has to be fetched.
   *
   * @param find asks only the database
   * @param fetch may ask Clerk; runs if nothing was found
   * @param end as in {@link #fetch(Supplier, Deadline)}
   */
  <T> CompletableFuture<T> findOrFetch(
      Supplier<Optional<T>> find, Supplier<T> fetch, Deadline end) {
    return CompletableFuture.supplyAsync(find, finding)
        .thenCompose(
            found ->
                found.map(CompletableFuture::completedFuture).orElseGet(() -> fetch(fetch, end)));
  }

  /**
   * Does work that may ask Clerk.
   *
   * @param end when nobody waits for the result any longer: it fails with a TimeoutException
   */
  <T> CompletableFuture<T> fetch(Supplier<T> work, Deadline end) {
    return CompletableFuture.supplyAsync(work, fetching)
        .orTimeout(end.left().toMillis(), TimeUnit.MILLISECONDS);
  }

  /** Like {@link #fetch(Supplier, Deadline)}, without a result or an end. */
  CompletableFuture<Void> fetch(Runnable work) {
    return CompletableFuture.runAsync(work, fetching);
  }

  @Override
  public void close() {
    finding.shutdown();
    LifeCycle.stop(fetching);
  }
}
