package com.realmeet.server;

import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * Asks the database for many users at once: all who come while a statement is under way share the
 * next one. That begins when the first is done, or slow, or when more users wait than fit into one.
 * So a statement serves the more users the more there are, and the distance to the database does
 * not limit how many are served; who comes alone does not wait for more.
 *
 * @param <T> what the statement needs of a user
 */
final class Batches<T> implements AutoCloseable {
  /** Statements at once: two only if one does not do, since each would serve half as many users. */
  private static final int THREADS = 2;

  /** A statement and the writing of its answers take less, unless something holds them up. */
  private static final Duration SLOW = Duration.ofMillis(20);

  /** Users per statement, whose answers are then written one after the other. */
  private static final int MOST = 100;

  /** One who has waited for longer than others, as in an outage, does not share his haste. */
  private static final Duration SAME_HASTE = Duration.ofMillis(500);

  private static final Comparator<Deadline> EARLIEST = Comparator.comparing(Deadline::left);

  /** A statement for several users. */
  interface Statement<T> {
    /** The resulting rows, by id. */
    Map<String, User> execute(List<T> users, Deadline deadline);
  }

  private record Waiting<T>(T user, Deadline deadline, CompletableFuture<Optional<User>> row) {}

  private final Statement<T> statement;
  private final Function<T, String> id;
  private final ExecutorService threads;
  private final Duration slow;
  private final Executor later;

  // Guarded by this:
  private final Queue<Waiting<T>> waiting = new ArrayDeque<>();
  private final List<Run> runs = new ArrayList<>();
  private boolean watched;

  /**
   * @param name of the threads and, as a label, of the meter
   */
  Batches(String name, Statement<T> statement, Function<T, String> id, MeterRegistry meters) {
    this(name, statement, id, meters, SLOW);
  }

  Batches(
      String name,
      Statement<T> statement,
      Function<T, String> id,
      MeterRegistry meters,
      Duration slow) {
    this.statement = statement;
    this.id = id;
    this.slow = slow;
    later = CompletableFuture.delayedExecutor(slow.toNanos(), TimeUnit.NANOSECONDS, Runnable::run);
    threads = Executors.newFixedThreadPool(THREADS, Background.threads(name));
    Gauge.builder("users.waiting", this::waiting)
        .description("Users who wait for a statement to begin")
        .tag("statement", name)
        .register(meters);
  }

  /**
   * The row of one user after the next statement, or empty if that has none.
   *
   * @return fails like the statement; what depends on it must not wait
   */
  CompletableFuture<Optional<User>> row(T user, Deadline deadline) {
    Waiting<T> mine = new Waiting<>(user, deadline, new CompletableFuture<>());
    synchronized (this) {
      waiting.add(mine);
      beginIfNeeded();
    }
    return mine.row;
  }

  private synchronized void beginIfNeeded() {
    if (waiting.isEmpty() || runs.size() == THREADS) {
      return;
    }
    if (runs.isEmpty() || runs.get(0).alone.left().isZero() || waiting.size() >= MOST) {
      Run run = new Run();
      threads.execute(run);
      runs.add(run);
    } else if (!watched) {
      later.execute(this::lookAgain);
      watched = true;
    }
  }

  private synchronized void lookAgain() {
    watched = false;
    beginIfNeeded();
  }

  private synchronized void end(Run run) {
    runs.remove(run);
    beginIfNeeded(); // for one who has come since the run found nobody
  }

  /** One statement after the other, as long as users wait. */
  private final class Run implements Runnable {
    /** When the statement is slow. Guarded by the batches. */
    Deadline alone = Deadline.in(slow);

    @Override
    public void run() {
      try {
        for (List<Waiting<T>> batch = next(this); !batch.isEmpty(); batch = next(this)) {
          execute(batch);
        }
      } finally {
        end(this);
      }
    }
  }

  private void execute(List<Waiting<T>> batch) {
    try {
      Deadline deadline = batch.stream().map(Waiting::deadline).min(EARLIEST).get();
      Map<String, User> rows =
          statement.execute(batch.stream().map(Waiting::user).toList(), deadline);
      batch.forEach(one -> one.row.complete(Optional.ofNullable(rows.get(id.apply(one.user)))));
    } catch (Throwable e) {
      batch.forEach(one -> one.row.completeExceptionally(e));
    }
  }

  private synchronized List<Waiting<T>> next(Run run) {
    run.alone = Deadline.in(slow);
    List<Waiting<T>> batch = new ArrayList<>();
    Waiting<T> first = waiting.peek();
    while (batch.size() < MOST && !waiting.isEmpty() && isAsHasty(waiting.peek(), first)) {
      batch.add(waiting.poll());
    }
    return batch;
  }

  private static boolean isAsHasty(Waiting<?> one, Waiting<?> first) {
    return one.deadline.nanoTime() - first.deadline.nanoTime() < SAME_HASTE.toNanos();
  }

  private synchronized int waiting() {
    return waiting.size();
  }

  @Override
  public void close() {
    threads.shutdown();
  }
}
