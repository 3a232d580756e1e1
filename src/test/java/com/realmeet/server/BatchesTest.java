package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.dev.StandInClerk;
import java.net.http.HttpResponse;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Users who come at once share statements, and nothing else. */
class BatchesTest {
  private static final int CROWD = 20;
  private static StandInClerk clerk;
  private static String database;
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    database = TestPostgres.newDatabase();
    server = TestServer.start(clerk, database);
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  @AfterEach
  void heal() {
    clerk.heal();
  }

  private static List<String> putCrowd(String name) {
    List<String> ids = IntStream.range(0, CROWD).mapToObj(i -> "user_" + name + i).toList();
    ids.forEach(id -> clerk.putUser(id, id + "@example.com", id, null));
    return ids;
  }

  private static int statementsThatWait() {
    String sql =
        """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
        """;
    return Integer.parseInt(TestPostgres.query(database, sql).get(0));
  }

  /** What all get who come while the table is locked, in their order. */
  private static List<HttpResponse<String>> syncBehind(String lock, List<String> ids) {
    int before = clerk.userCalls();
    try (Connection connection = DatabaseUrl.parse(database).dataSource(30).getConnection();
        Statement statement = connection.createStatement()) {
      connection.setAutoCommit(false);
      statement.execute("LOCK TABLE users IN " + lock + " MODE");
      List<CompletableFuture<HttpResponse<String>>> answers =
          ids.stream().map(id -> Background.supply(() -> server.sync(clerk.token(id)))).toList();
      TestServer.await("two statements wait", () -> statementsThatWait() == 2);
      if (lock.equals("SHARE")) { // only insertions wait
        TestServer.await("Clerk has been asked", () -> clerk.userCalls() == before + ids.size());
      }
      assertEquals(2, statementsThatWait());
      connection.rollback();
      return answers.stream().map(CompletableFuture::join).toList();
    } catch (SQLException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void assertSynced(String id, HttpResponse<String> answer) {
    assertEquals(200, answer.statusCode(), answer.body());
    assertTrue(answer.body().contains("{\"id\":\"" + id + "\",\"email\":\"" + id + "@"));
  }

  @Test
  void eachOfManyKnownUsersGetsTheirOwnRow() {
    List<String> ids = putCrowd("known");
    ids.forEach(id -> assertSynced(id, server.sync(clerk.token(id))));
    clerk.onUser(StandInClerk.answering(500, "{}"));

    List<HttpResponse<String>> answers = syncBehind("ACCESS EXCLUSIVE", ids);

    IntStream.range(0, CROWD).forEach(i -> assertSynced(ids.get(i), answers.get(i)));
  }

  @Test
  void eachOfManyNewUsersGetsTheirOwnRow() {
    List<String> ids = putCrowd("new");

    List<HttpResponse<String>> answers = syncBehind("SHARE", ids);

    IntStream.range(0, CROWD).forEach(i -> assertSynced(ids.get(i), answers.get(i)));
  }

  /** Three pairs, of which at least one is in one statement. */
  @Test
  void addressesThatNewUsersHaveTwiceAreNoTroubleOfTheOthers() {
    List<String> ids = putCrowd("clash");
    for (int i = 0; i < 6; i += 2) {
      clerk.putUser(ids.get(i), ids.get(i + 1) + "@example.com", null, null);
    }

    List<HttpResponse<String>> answers = syncBehind("SHARE", ids);

    for (int i = 0; i < 6; i += 2) {
      assertEquals(
          List.of(200, 409),
          Stream.of(answers.get(i), answers.get(i + 1))
              .map(HttpResponse::statusCode)
              .sorted()
              .toList());
    }
    IntStream.range(6, CROWD).forEach(i -> assertSynced(ids.get(i), answers.get(i)));
  }

  /** Batches of numbers whose statements begin when they are told to. */
  private static final class Numbers implements AutoCloseable {
    final BlockingQueue<List<Integer>> begun = new LinkedBlockingQueue<>();
    final CountDownLatch go = new CountDownLatch(1);
    final Batches<Integer> batches =
        new Batches<>("numbers", this::execute, String::valueOf, Metrics.none());

    private Map<String, User> execute(List<Integer> numbers, Deadline deadline) {
      begun.add(numbers);
      try {
        go.await();
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
      if (numbers.contains(13)) {
        throw Failure.of(Failure.Kind.DATABASE_UNAVAILABLE);
      }
      return numbers.contains(7)
          ? Map.of("7", new User("7", "7@", null, null, Instant.EPOCH, Instant.EPOCH, null))
          : Map.of();
    }

    CompletableFuture<Optional<User>> row(int number, long seconds) {
      return batches.row(number, Deadline.in(Duration.ofSeconds(seconds)));
    }

    /** Keeps both threads busy, so that whoever comes now is in a later statement. */
    void occupy() throws InterruptedException {
      row(1, 5);
      assertEquals(List.of(1), begun.poll(5, TimeUnit.SECONDS));
      row(2, 5);
      assertEquals(List.of(2), begun.poll(5, TimeUnit.SECONDS));
    }

    @Override
    public void close() {
      go.countDown();
      batches.close();
    }
  }

  @Test
  void whoComesDuringAStatementSharesTheNext() throws InterruptedException {
    try (Numbers numbers = new Numbers()) {
      numbers.occupy();
      CompletableFuture<Optional<User>> seven = numbers.row(7, 5);
      CompletableFuture<Optional<User>> eight = numbers.row(8, 5);
      numbers.go.countDown();

      assertEquals(List.of(7, 8), numbers.begun.poll(5, TimeUnit.SECONDS));
      assertEquals("7@", seven.join().orElseThrow().email());
      assertTrue(eight.join().isEmpty());
    }
  }

  @Test
  void failureIsThatOfAllInTheStatementAndOfNobodyElse() throws InterruptedException {
    try (Numbers numbers = new Numbers()) {
      numbers.occupy();
      List<CompletableFuture<Optional<User>>> failing =
          List.of(numbers.row(12, 5), numbers.row(13, 5));
      numbers.go.countDown();

      failing.forEach(
          row ->
              assertTrue(
                  assertThrows(CompletionException.class, row::join).getCause()
                      instanceof Failure));
      assertTrue(numbers.row(7, 5).join().isPresent());
    }
  }

  /** Or else one who has just come would be given up with one who has no time left. */
  @Test
  void whoHasWaitedForLongHasAStatementOfTheirOwn() throws InterruptedException {
    try (Numbers numbers = new Numbers()) {
      numbers.occupy();
      numbers.row(3, 1);
      numbers.row(4, 5);
      numbers.row(5, 5);
      numbers.go.countDown();

      assertEquals(
          List.of(List.of(3), List.of(4, 5)),
          List.of(numbers.begun.poll(5, TimeUnit.SECONDS), numbers.begun.poll(5, TimeUnit.SECONDS))
              .stream()
              .sorted((one, other) -> one.get(0) - other.get(0))
              .toList());
    }
  }
}
