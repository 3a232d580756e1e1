package com.realmeet.server.users;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Threads;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.BiFunction;

/**
 * Batches lookups. Requests that arrive while a statement runs are queued and served by the next
 * one, so batches grow with the load, and the round trip to the database does not limit how many
 * requests are served; a lone request is not delayed.
 */
final class BatchLoader implements AutoCloseable {
  /**
   * Number of threads that run statements: one can run while the other's response is in transit.
   */
  private static final int THREADS = 2;

  /** Maximum ids of one statement: bounds its duration. */
  private static final int MAX_BATCH_SIZE = 100;

  /**
   * Interval at which overdue requests are failed, and so the precision of deadlines. A wait with a
   * timeout would schedule a timer for each request, which virtual threads pay dearly for.
   */
  private static final Duration TICK = Duration.ofMillis(100);

  private static final class Request {
    final String id;
    final Deadline deadline;
    final CompletableFuture<Map<String, User>> rowsOfItsBatch = new CompletableFuture<>();

    Request(String id, Deadline deadline) {
      this.id = id;
      this.deadline = deadline;
    }

    boolean failIfOverdue() {
      boolean overdue = deadline.remaining().isZero();
      if (overdue) {
        fail();
      }
      return overdue;
    }

    void fail() {
      rowsOfItsBatch.completeExceptionally(
          Failure.of(Failure.Kind.DATABASE_UNAVAILABLE, "no response in time"));
    }
  }

  private final BiFunction<List<String>, Deadline, Map<String, User>> find;
  private final BlockingQueue<Request> queue = new LinkedBlockingQueue<>();
  private final Set<Request> waiting = ConcurrentHashMap.newKeySet();
  private final List<Thread> threads = new ArrayList<>();
  private final ScheduledExecutorService ticks;

  /**
   * Starts the threads.
   *
   * @param find returns the rows that exist, by id; its deadline is the latest of the batch
   */
  BatchLoader(BiFunction<List<String>, Deadline, Map<String, User>> find, MeterRegistry meters) {
    this.find = find;
    Gauge.builder("batch.queue.size", queue, BlockingQueue::size)
        .description("Requests that wait for a batched statement to begin")
        .tag("batch", "lookup")
        .register(meters);
    for (int i = 0; i < THREADS; i++) {
      Thread thread = Threads.named("lookup").newThread(this::run);
      thread.start();
      threads.add(thread);
    }
    ticks = Executors.newSingleThreadScheduledExecutor(Threads.named("lookup-timeouts"));
    ticks.scheduleWithFixedDelay(
        () -> waiting.forEach(Request::failIfOverdue),
        TICK.toMillis(),
        TICK.toMillis(),
        TimeUnit.MILLISECONDS);
  }

  /**
   * Returns the row of a user, or empty if there is none. Blocks until its batch is done.
   *
   * @throws Failure DATABASE_UNAVAILABLE by the deadline, or as the lookup
   */
  Optional<User> load(String id, Deadline deadline) {
    Request request = new Request(id, deadline);
    waiting.add(request);
    queue.add(request);
    try {
      return Optional.ofNullable(request.rowsOfItsBatch.get().get(id));
    } catch (ExecutionException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : new IllegalStateException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw Failure.of(Failure.Kind.OVERLOADED);
    } finally {
      waiting.remove(request);
    }
  }

  private void run() {
    List<Request> batch = new ArrayList<>();
    try {
      while (true) {
        batch.add(queue.take());
        Thread.yield(); // on a busy machine, more requests come: fewer and larger statements
        queue.drainTo(batch, MAX_BATCH_SIZE - 1);
        execute(batch);
        batch.clear();
      }
    } catch (InterruptedException closed) {
      Thread.currentThread().interrupt();
    }
  }

  /** Runs the statement of a batch. Drops requests whose deadline has passed. */
  private void execute(List<Request> batch) {
    batch.removeIf(Request::failIfOverdue);
    if (batch.isEmpty()) {
      return;
    }
    try {
      List<String> ids = batch.stream().map(request -> request.id).distinct().toList();
      Deadline latest =
          batch.stream().map(request -> request.deadline).reduce(Deadline::later).orElseThrow();
      Map<String, User> rows = find.apply(ids, latest);
      batch.forEach(request -> request.rowsOfItsBatch.complete(rows));
    } catch (Throwable e) { // the waiting threads rethrow it
      batch.forEach(request -> request.rowsOfItsBatch.completeExceptionally(e));
    }
  }

  /** Stops the threads, and fails the requests that still wait. */
  @Override
  public void close() {
    ticks.shutdownNow();
    threads.forEach(Thread::interrupt);
    waiting.forEach(Request::fail);
  }
}
