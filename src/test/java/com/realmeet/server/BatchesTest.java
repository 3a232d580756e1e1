package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.dev.StandInClerk;
import java.net.URI;
import java.net.http.HttpResponse;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
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

  /** Whose statement begins and ends without being told to. */
  private static final int QUICK = 100;

  private static StandInClerk clerk;
  private static String database;
  private static TestServer server;
  private static URI metrics;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    database = TestPostgres.newDatabase();
    server = TestServer.start(clerk, database, "METRICS_PORT", "0");
    metrics = URI.create("http://127.0.0.1:" + MetricsTest.metricsPort() + "/metrics");
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

  private static boolean isMeasured(String value) {
    return TestServer.getPage(metrics).body().contains("\nusers_waiting{statement=" + value + "\n");
  }

  /**
   * What all get who come while the table is locked: two by a statement of their own each, the
   * others by one.
   *
   * @param statement the kind that waits for the lock
   */
  private static List<HttpResponse<String>> syncBehind(
      String lock, String statement, List<String> ids) {
    List<CompletableFuture<HttpResponse<String>>> answers = new ArrayList<>();
    try (Connection connection = DatabaseUrl.parse(database).dataSource(30).getConnection();
        Statement locking = connection.createStatement()) {
      connection.setAutoCommit(false);
      locking.execute("LOCK TABLE users IN " + lock + " MODE");
      for (String id : ids.subList(0, 2)) {
        answers.add(sync(id));
        TestServer.await("statement waits", () -> statementsThatWait() == answers.size());
      }
      List<String> others = ids.subList(2, ids.size());
      others.forEach(id -> answers.add(sync(id)));
      String waiting = "\"%s\"} %d.0".formatted(statement, others.size());
      TestServer.await("others wait", () -> isMeasured(waiting));
      connection.rollback();
      return answers.stream().map(CompletableFuture::join).toList();
    } catch (SQLException e) {
      throw new IllegalStateException(e);
    }
  }

  private static CompletableFuture<HttpResponse<String>> sync(String id) {
    return Background.supply(() -> server.sync(clerk.token(id)));
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

    List<HttpResponse<String>> answers = syncBehind("ACCESS EXCLUSIVE", "find", ids);

    IntStream.range(0, CROWD).forEach(i -> assertSynced(ids.get(i), answers.get(i)));
  }

  @Test
  void eachOfManyNewUsersGetsTheirOwnRow() {
    List<String> ids = putCrowd("new");

    List<HttpResponse<String>> answers = syncBehind("SHARE", "insert", ids);

    IntStream.range(0, CROWD).forEach(i -> assertSynced(ids.get(i), answers.get(i)));
  }

  @Test
  void addressThatTwoNewUsersHaveIsNoTroubleOfTheOthers() {
    List<String> ids = putCrowd("clash");
    clerk.putUser(ids.get(2), ids.get(3) + "@example.com", null, null);

    List<HttpResponse<String>> answers = syncBehind("SHARE", "insert", ids);

    assertEquals(
        List.of(200, 409),
        Stream.of(answers.get(2), answers.get(3)).map(HttpResponse::statusCode).sorted().toList());
    IntStream.range(4, CROWD).forEach(i -> assertSynced(ids.get(i), answers.get(i)));
  }

  @Test
  void userWhomTheTableRefusesIsNoTroubleOfTheOthers() {
    TestPostgres.execute(database, "ALTER TABLE users ADD CHECK (name != 'refused')");
    List<String> ids = putCrowd("check");
    clerk.putUser(ids.get(2), ids.get(2) + "@example.com", "refused", null);

    List<HttpResponse<String>> answers = syncBehind("SHARE", "insert", ids);

    assertEquals(500, answers.get(2).statusCode());
    IntStream.range(3, CROWD).forEach(i -> assertSynced(ids.get(i), answers.get(i)));
  }

  /** As any insertion into a table that references it does, until its transaction ends. */
  @Test
  void rowThatAnotherTransactionHoldsIsNoTroubleOfTheOthers() throws SQLException {
    List<String> ids = putCrowd("held");
    List<String> held = ids.subList(0, 2);
    held.forEach(
        id ->
            TestPostgres.execute(
                database,
                "INSERT INTO users (id, email) VALUES ('%s', '%s@moved.invalid')"
                    .formatted(id, id)));
    try (Connection connection = DatabaseUrl.parse(database).dataSource(30).getConnection();
        Statement holding = connection.createStatement()) {
      connection.setAutoCommit(false);
      holding.execute("SELECT FROM users WHERE email LIKE '%@moved.invalid' FOR KEY SHARE");
      List<CompletableFuture<HttpResponse<String>>> waiting =
          held.stream().map(BatchesTest::sync).toList();
      TestServer.await("both wait", () -> statementsThatWait() == 2);

      List<CompletableFuture<HttpResponse<String>>> others =
          ids.subList(2, CROWD).stream().map(BatchesTest::sync).toList();
      IntStream.range(2, CROWD).forEach(i -> assertSynced(ids.get(i), others.get(i - 2).join()));

      connection.rollback();
      IntStream.range(0, 2).forEach(i -> assertSynced(held.get(i), waiting.get(i).join()));
    }
  }

  /** Batches of numbers whose statements begin when they are told to. */
  private static final class Numbers implements AutoCloseable {
    final BlockingQueue<List<Integer>> begun = new LinkedBlockingQueue<>();
    final CountDownLatch go = new CountDownLatch(1);
    final Batches<Integer> batches;

    Numbers() {
      this(Duration.ofMillis(1));
    }

    /**
     * @param slow what a statement takes that gets another beside it
     */
    Numbers(Duration slow) {
      batches = new Batches<>("numbers", this::execute, String::valueOf, Metrics.none(), slow);
    }

    private Map<String, User> execute(List<Integer> numbers, Deadline deadline) {
      begun.add(numbers);
      try {
        if (!numbers.contains(QUICK)) {
          go.await();
        }
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

    /** A statement for this number alone. */
    void begin(int number) throws InterruptedException {
      row(number, 5);
      assertEquals(List.of(number), begun.poll(5, TimeUnit.SECONDS));
    }

    /** Keeps both threads busy, so that whoever comes now is in a later statement. */
    void occupy() throws InterruptedException {
      begin(1);
      begin(2);
    }

    @Override
    public void close() {
      go.countDown();
      batches.close();
    }
  }

  @Test
  void secondStatementWaitsForTheFirstUntilMoreUsersWaitThanFit() throws InterruptedException {
    try (Numbers numbers = new Numbers(Duration.ofHours(1))) {
      numbers.begin(1);
      List<Integer> others = IntStream.rangeClosed(101, 200).boxed().toList();
      others.subList(0, 99).forEach(number -> numbers.row(number, 5));
      assertNull(numbers.begun.poll(200, TimeUnit.MILLISECONDS));
      numbers.row(200, 5);

      assertEquals(others, numbers.begun.poll(5, TimeUnit.SECONDS));
    }
  }

  /** As long as it hangs, and not only for the first who comes. */
  @Test
  void statementThatHangsHoldsUpNobodyElse() throws InterruptedException {
    try (Numbers numbers = new Numbers()) {
      numbers.begin(1);
      for (int i = 0; i < 3; i++) {
        assertTrue(numbers.row(QUICK, 5).orTimeout(5, TimeUnit.SECONDS).join().isEmpty());
      }
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
