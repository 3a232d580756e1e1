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
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Function;

/**
 * Asks the database for many users at once: all who come while a statement is under way share the
 * next one. So a statement serves the more users the more there are, and the distance to the
 * database does not limit how many are served; who comes alone does not wait for more.
 *
 * @param <T> what the statement needs of a user
 */
final class Batches<T> implements AutoCloseable {
  /** Statements at once: with more, each would serve fewer users. */
  private static final int THREADS = 2;

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
  private final Queue<Waiting<T>> waiting = new ArrayDeque<>(); // guarded by this

  /**
   * @param name of the threads and, as a label, of the meter
   */
  Batches(String name, Statement<T> statement, Function<T, String> id, MeterRegistry meters) {
    this.statement = statement;
    this.id = id;
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
    }
    threads.execute(this::executeNext); // once for each, so that nobody is left over
    return mine.row;
  }

  private void executeNext() {
    List<Waiting<T>> batch = next();
    if (batch.isEmpty()) { // an earlier one has taken ours along
      return;
    }
    try {
      Deadline deadline = batch.stream().map(Waiting::deadline).min(EARLIEST).get();
      Map<String, User> rows =
          statement.execute(batch.stream().map(Waiting::user).toList(), deadline);
      batch.forEach(one -> one.row.complete(Optional.ofNullable(rows.get(id.apply(one.user)))));
    } catch (Throwable e) {
      batch.forEach(one -> one.row.completeExceptionally(e));
    }
  }

  private synchronized List<Waiting<T>> next() {
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
