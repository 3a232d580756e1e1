package com.realmeet.server;

import io.micrometer.core.instrument.MeterRegistry;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.function.Supplier;

/** The row of a user who has signed in: found, or else brought from Clerk. */
final class SignIns implements AutoCloseable {
  private final UserSync users;
  private final Workers workers;
  private final Batches<String> finds;
  private final Batches<ClerkUser> inserts;
  private final ConcurrentMap<String, CompletableFuture<User>> firstSyncs =
      new ConcurrentHashMap<>();

  SignIns(UserDao rows, UserSync users, Workers workers, MeterRegistry meters) {
    this.users = users;
    this.workers = workers;
    finds = new Batches<>("find", rows::findAll, id -> id, meters);
    inserts = new Batches<>("insert", rows::insertEach, ClerkUser::id, meters);
  }

  /**
   * The row of a user; if there is none, it is inserted as Clerk has it.
   *
   * @param deadline for all that is waited for
   * @param end when a TimeoutException is the result, if Clerk has to be asked
   * @return fails with a Failure USER_GONE, NO_EMAIL, EMAIL_IN_USE, or a fault of Clerk or the
   *     database; what depends on it must not wait
   */
  CompletableFuture<User> sync(String id, Deadline deadline, Deadline end) {
    return orElse(find(id, deadline), () -> end.limit(firstSync(id, deadline)));
  }

  private CompletableFuture<Optional<User>> find(String id, Deadline deadline) {
    return finds.row(id, deadline).thenApply(UserSync::usable);
  }

  /** Of several requests for one user, one does the work and the others wait for its result. */
  private CompletableFuture<User> firstSync(String id, Deadline deadline) {
    CompletableFuture<User> mine = new CompletableFuture<>();
    CompletableFuture<User> others = firstSyncs.putIfAbsent(id, mine);
    if (others != null) {
      return others;
    }
    // Another request may have finished between our look into the table and our turn.
    orElse(find(id, deadline), () -> fetch(id, deadline))
        .whenComplete(
            (user, failure) -> {
              firstSyncs.remove(id);
              if (failure == null) {
                mine.complete(user);
              } else {
                mine.completeExceptionally(failure);
              }
            });
    return mine;
  }

  private CompletableFuture<User> fetch(String id, Deadline deadline) {
    return workers
        .supply(() -> users.fetch(id, deadline))
        .thenCompose(user -> insert(user, deadline));
  }

  /** Most are new; a user who has a row, or whose address is taken, is not everybody's trouble. */
  private CompletableFuture<User> insert(ClerkUser user, Deadline deadline) {
    return orElse(
        inserts.row(user, deadline), () -> workers.supply(() -> users.storeAlive(user, deadline)));
  }

  private static CompletableFuture<User> orElse(
      CompletableFuture<Optional<User>> row, Supplier<CompletableFuture<User>> other) {
    return row.thenCompose(found -> found.map(CompletableFuture::completedFuture).orElseGet(other));
  }

  @Override
  public void close() {
    finds.close();
    inserts.close();
  }
}
