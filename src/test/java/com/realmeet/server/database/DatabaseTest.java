package com.realmeet.server.database;

import static java.util.concurrent.CompletableFuture.supplyAsync;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.Metrics;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.TcpProxy;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.jdbi.v3.core.Handle;
import org.jdbi.v3.core.JdbiException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Tests the guarantees of Database for an application's DAO, and for the rest of the server beside
 * it.
 */
class DatabaseTest {
  private static final int POOL_SIZE = 4;

  /** No server listens on TCP port 1, "tcpmux". */
  private static final DatabaseUrl NOBODY =
      DatabaseUrl.parse("postgresql://a@127.0.0.1:1/a?pool_timeout=1");

  private static String url;
  private static Database database;
  private static ExecutorService threads;

  @BeforeAll
  static void start() {
    url = TestPostgres.newDatabase();
    TestPostgres.execute(
        url,
        """
        CREATE TABLE notes (id serial PRIMARY KEY, text text UNIQUE);
        -- Ends the connection while a transaction commits.
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM pg_terminate_backend(pg_backend_pid());
          PERFORM pg_sleep(10);
          RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER die AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW WHEN (NEW.text = 'dies at the commit') EXECUTE FUNCTION die();
        """);
    database = new Database(DatabaseUrl.parse(url), POOL_SIZE, Metrics.noMeters());
    threads = Executors.newCachedThreadPool();
  }

  @AfterAll
  static void stop() {
    database.close();
    threads.shutdownNow();
  }

  @BeforeEach
  void empty() {
    TestPostgres.execute(url, "TRUNCATE notes");
  }

  private static int insert(Handle handle, String text) {
    return handle
        .createUpdate("INSERT INTO notes (text) VALUES (:text)")
        .bind("text", text)
        .execute();
  }

  private static int killOnFirst(AtomicInteger runs, Handle handle) {
    return runs.incrementAndGet() > 1
        ? 1
        : handle.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(10)");
  }

  private static String notes() {
    return String.join(",", TestPostgres.query(url, "SELECT text FROM notes ORDER BY id"));
  }

  @Test
  void readIsRepeatedAfterAFailover() {
    AtomicInteger runs = new AtomicInteger();

    database.read(handle -> killOnFirst(runs, handle));

    assertEquals(2, runs.get());
  }

  @Test
  void writeThatBreaksBeforeItsCommitIsRepeatedAndInsertsOnce() {
    AtomicInteger runs = new AtomicInteger();

    database.write(handle -> insert(handle, "once") + killOnFirst(runs, handle));

    assertEquals(2, runs.get());
    assertEquals("once", notes());
  }

  @Test
  void writeThatBreaksDuringItsCommitIsNotRepeated() {
    AtomicInteger runs = new AtomicInteger();

    Failure e =
        assertThrows(
            Failure.class,
            () ->
                database.write(
                    handle -> {
                      runs.incrementAndGet();
                      return insert(handle, "dies at the commit");
                    }));

    assertEquals(Failure.Kind.DATABASE_UNAVAILABLE, e.kind());
    assertEquals(1, runs.get());
  }

  @Test
  void idempotentWriteIsRepeatedWhateverBreaks() {
    AtomicInteger runs = new AtomicInteger();

    assertThrows(
        Failure.class,
        () ->
            database.writeIdempotent(
                Deadline.in(Deadline.REQUEST_TIMEOUT),
                handle -> {
                  runs.incrementAndGet();
                  return insert(handle, "dies at the commit");
                }));

    assertEquals(2, runs.get());
  }

  @Test
  void writeThatFailsLeavesNothing() {
    assertThrows(
        Failure.class,
        () ->
            database.write(
                handle -> {
                  insert(handle, "half");
                  throw Failure.of(Failure.Kind.EMAIL_IN_USE);
                }));

    assertEquals("", notes());
  }

  @Test
  void handlerLearnsWhichConstraintRefusesItsRow() {
    database.write(handle -> insert(handle, "twice"));

    JdbiException e =
        assertThrows(JdbiException.class, () -> database.write(handle -> insert(handle, "twice")));

    assertTrue(SqlErrors.violates(e, "notes_text_key"));
    assertFalse(SqlErrors.violates(e, "notes_pkey"));
  }

  /** Another instance has migrated: the result of a statement that is prepared has other types. */
  @Test
  void changedTableCostsNoRequest() {
    Function<Handle, Integer> select =
        handle -> handle.createQuery("SELECT * FROM notes").mapToMap().list().size();
    for (int i = 0; i < 10; i++) {
      database.write(select::apply);
    }
    TestPostgres.execute(url, "ALTER TABLE notes ADD COLUMN more text");
    try {
      database.write(select::apply);
    } finally {
      TestPostgres.execute(url, "ALTER TABLE notes DROP COLUMN more");
    }
  }

  @Test
  void statementAfterAFailedOneOfItsTransactionIsABugAndNoOutage() {
    JdbiException e =
        assertThrows(
            JdbiException.class,
            () ->
                database.write(
                    handle -> {
                      assertThrows(JdbiException.class, () -> handle.execute("SELECT 1 / 0"));
                      return handle.execute("SELECT 1");
                    }));

    assertTrue(e.getMessage().contains("current transaction is aborted"), e.getMessage());
    assertFalse(Log.text().contains("is unavailable"), Log.text());
  }

  @Test
  void statementThatPostgresDoesNotSupportRunsOnce() {
    AtomicInteger runs = new AtomicInteger();

    assertThrows(
        JdbiException.class,
        () ->
            database.read(
                handle -> {
                  runs.incrementAndGet();
                  return handle.execute("SELECT count(*) FROM notes FOR UPDATE");
                }));

    assertEquals(1, runs.get());
  }

  /** One method of a DAO calls another. */
  @Test
  void workWithinOtherWorkNeedsNoConnectionOfItsOwn() {
    try (Database small = new Database(DatabaseUrl.parse(url), 1, Metrics.noMeters())) {
      small.write(
          outer -> {
            insert(outer, "one");
            return small.write(inner -> insert(inner, "two"));
          });
      assertThrows(
          Failure.class,
          () ->
              small.write(
                  outer -> {
                    small.write(inner -> insert(inner, "three"));
                    throw Failure.of(Failure.Kind.EMAIL_IN_USE);
                  }));
      small.write(outer -> insert(outer, "four"));
    }
    assertEquals("one,two,four", notes());
  }

  /** Another request may already have been told of the row of a user. */
  @Test
  void workOfTheServerIsNotPartOfATransactionOfTheApplication() {
    assertThrows(
        Failure.class,
        () ->
            database.write(
                outer -> {
                  insert(outer, "one");
                  database.reserved().write(inner -> insert(inner, "two"));
                  throw Failure.conflict("No");
                }));

    assertEquals("two", notes());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "BEGIN; INSERT INTO notes (text) VALUES ('one')",
        "BEGIN; INSERT INTO notes (text) VALUES ('one'); INSERT INTO notes (text) VALUES ('one'); COMMIT"
      })
  void transactionThatAStatementBeginsDoesNotOutliveTheCall(String script) {
    try (Database small = new Database(DatabaseUrl.parse(url), 1, Metrics.noMeters())) {
      assertThrows(
          RuntimeException.class, () -> small.writeIdempotent(handle -> handle.execute(script)));

      small.writeIdempotent(handle -> insert(handle, "two"));
      assertEquals("two", notes());
    }
  }

  @Test
  void workWithinATransactionMayFailWithoutEndingIt() {
    database.write(
        outer -> {
          insert(outer, "one");
          assertThrows(
              JdbiException.class,
              () ->
                  database.write(
                      inner -> {
                        insert(inner, "two");
                        return database.writeIdempotent(innermost -> insert(innermost, "one"));
                      }));
          assertThrows(
              IllegalStateException.class,
              () ->
                  database.write(
                      inner -> {
                        assertThrows(JdbiException.class, () -> insert(inner, "one"));
                        return "created";
                      }));
          return database.write(inner -> insert(inner, "three"));
        });

    assertEquals("one,three", notes());
  }

  /** Postgres rolls it back at the commit, and pgjdbc does not tell. */
  @Test
  void transactionWithAFailedStatementIsNoSuccess() {
    database.write(handle -> insert(handle, "taken"));

    assertThrows(
        IllegalStateException.class,
        () ->
            database.write(
                handle -> {
                  insert(handle, "lost");
                  assertThrows(JdbiException.class, () -> insert(handle, "taken"));
                  return "created";
                }));

    assertEquals("taken", notes());
  }

  @Test
  void nestedWriteIsRepeatedAfterAFailoverToo() {
    AtomicInteger runs = new AtomicInteger();

    database.write(outer -> database.write(inner -> killOnFirst(runs, inner)));

    assertEquals(2, runs.get());
  }

  @Test
  void readIsNotRepeatedAfterAWriteWithinIt() {
    AtomicInteger runs = new AtomicInteger();

    assertThrows(
        Failure.class,
        () ->
            database.read(
                outer ->
                    database.write(inner -> insert(inner, "once" + runs))
                        + killOnFirst(runs, outer)));

    assertEquals("once0", notes());
  }

  @Test
  void slowQueryOfAnApplicationIsCancelledAndIsNoOutage() {
    try (Database fresh = new Database(DatabaseUrl.parse(url), 4, Metrics.noMeters())) {
      fresh.read(handle -> handle.execute("SELECT 1")); // connecting may take longer than 700 ms
      Failure e =
          assertThrows(
              Failure.class,
              () ->
                  fresh.read(
                      Deadline.in(Duration.ofMillis(700)),
                      handle -> handle.execute("SELECT 'a@example.com', pg_sleep(60)")));

      assertEquals(Failure.Kind.DATABASE_UNAVAILABLE, e.kind());
      TestServer.await("nothing runs", () -> running("pg_sleep").isEmpty());
    }
    assertTrue(
        Log.text().contains("WARN Database - A query of the application was too slow"), Log.text());
    assertTrue(Log.text().contains(": SELECT ?, pg_sleep(?)"), Log.text());
    assertFalse(Log.text().contains("Database is unavailable"), Log.text());
  }

  /** Without a limit, each statement of a loop would have its own time. */
  @Test
  void loopOfStatementsEndsByItsDeadlineToo() {
    long began = System.nanoTime();

    assertThrows(
        Failure.class,
        () ->
            database.read(
                Deadline.in(Duration.ofMillis(700)),
                handle -> {
                  while (true) {
                    handle.execute("SELECT pg_sleep(0.05)");
                  }
                }));

    assertTrue(Duration.ofNanos(System.nanoTime() - began).toSeconds() < 10);
  }

  /** The timeout of a socket begins anew with each statement. */
  @Test
  void statementAfterASlowOneEndsByTheDeadlineThoughTheDatabaseIsFrozen() throws Exception {
    try (TcpProxy proxy = TcpProxy.before(url);
        Database frozen =
            new Database(
                DatabaseUrl.parse(TestPostgres.withPort(url, proxy.port())),
                1,
                Metrics.noMeters())) {
      frozen.read(handle -> handle.execute("SELECT 1"));
      long began = System.nanoTime();
      assertThrows(
          Failure.class,
          () ->
              frozen.read(
                  Deadline.in(Duration.ofSeconds(2)),
                  handle -> {
                    handle.execute("SELECT pg_sleep(1.5)");
                    proxy.freeze();
                    return handle.execute("SELECT 1");
                  }));
      assertTrue(Duration.ofNanos(System.nanoTime() - began).toMillis() < 3000);
    }
  }

  @ParameterizedTest
  @CsvSource({"1, 1", "2, 1", "3, 1", "4, 2", "10, 8"})
  void slowApplicationLeavesTwoConnectionsToTheServer(int poolSize, int forApplication)
      throws SQLException {
    String lock = "SELECT pg_advisory_xact_lock(" + poolSize + ")";
    List<CompletableFuture<?>> slow = new ArrayList<>();
    try (Database small = new Database(DatabaseUrl.parse(url), poolSize, Metrics.noMeters())) {
      try (Connection connection = DatabaseUrl.parse(url).dataSource(30).getConnection();
          Statement statement = connection.createStatement()) {
        connection.setAutoCommit(false);
        statement.execute(lock);
        for (int i = 0; i < forApplication; i++) {
          slow.add(supplyAsync(() -> small.read(handle -> handle.execute(lock)), threads));
        }
        TestServer.await("all wait", () -> running(lock).size() == forApplication + 1);

        Failure e =
            assertThrows(
                Failure.class,
                () ->
                    small.read(
                        Deadline.in(Duration.ofMillis(100)), handle -> handle.execute("SELECT 1")));

        assertEquals(Failure.Kind.OVERLOADED, e.kind());
        assertEquals("too many slow queries at once", e.reason());
        if (poolSize > 1) {
          int free = poolSize - forApplication;
          assertTrue(
              TestServer.atOnce(free, () -> small.reserved().read(h -> h.execute("SELECT 1")))
                      .size()
                  == free);
          assertTrue(small.ping(Duration.ofSeconds(20)));
        }
        connection.rollback();
      }
      slow.forEach(CompletableFuture::join);
      small.read(handle -> handle.execute("SELECT 1"));
    }
    assertTrue(
        Log.text().contains("WARN Database - A query of the application found no free connection"));
  }

  @Test
  void everyRequestOfAnOutageLearnsWhyNoConnectionCanBeOpened() {
    try (Database down = new Database(NOBODY, POOL_SIZE, Metrics.noMeters())) {
      TestServer.atOnce(
              8,
              () ->
                  assertThrows(
                      Failure.class,
                      () -> down.reserved().read(handle -> handle.execute("SELECT 1"))))
          .forEach(
              e ->
                  assertEquals(
                      "nothing listens on that host and port (connection refused) (08001)",
                      e.reason()));
    }
  }

  /** A second try would find no time left, and call that an overload. */
  @Test
  void requestWithLittleTimeLearnsOfAnOutageToo() {
    try (Database down = new Database(NOBODY, POOL_SIZE, Metrics.noMeters())) {
      Failure e =
          assertThrows(
              Failure.class,
              () ->
                  down.read(
                      Deadline.in(Duration.ofMillis(300)), handle -> handle.execute("SELECT 1")));

      assertEquals(Failure.Kind.DATABASE_UNAVAILABLE, e.kind());
    }
  }

  @Test
  void failedAttemptToConnectIsRepeatedWhileAThreadWaits() {
    AtomicInteger failures = new AtomicInteger();
    RetryingDataSource source = NOBODY.configure(new RetryingDataSource(), 1);
    source.retryWhile(() -> failures.incrementAndGet() < 3);

    assertThrows(SQLException.class, source::getConnection);

    assertEquals(3, failures.get());
  }

  /** Each attempt costs it the start of a process. */
  @Test
  void attemptToConnectToAFullDatabaseIsNotRepeated() {
    String role = "full_" + ProcessHandle.current().pid();
    TestPostgres.execute(url, "CREATE ROLE " + role + " LOGIN PASSWORD 'x' CONNECTION LIMIT 0");
    try {
      RetryingDataSource source =
          DatabaseUrl.parse(url.replaceFirst("//[^@]*@", "//" + role + ":x@"))
              .configure(new RetryingDataSource(), 1);
      AtomicInteger failures = new AtomicInteger();
      source.retryWhile(() -> failures.incrementAndGet() < 3);

      assertEquals("53300", assertThrows(SQLException.class, source::getConnection).getSQLState());
      assertEquals(0, failures.get());
    } finally {
      TestPostgres.execute(url, "DROP ROLE " + role);
    }
  }

  @Test
  void requestThatWaitsForADatabaseThatIsDownDoesNotDelayTheEnd() throws InterruptedException {
    Thread waiting;
    try (Database down =
        new Database(
            DatabaseUrl.parse("postgresql://a@127.0.0.1:1/a"), POOL_SIZE, Metrics.noMeters())) {
      waiting =
          new Thread(
              () ->
                  assertThrows(
                      Failure.class, () -> down.read(handle -> handle.execute("SELECT 1"))));
      waiting.start();
      TestServer.await("it waits", () -> waiting.getState() == Thread.State.TIMED_WAITING);
    }
    assertTrue(waiting.isAlive(), "closing waited until the request gave up after 3 s");
    waiting.interrupt();
    waiting.join();
  }

  private static List<String> running(String part) {
    return TestPostgres.query(
        url,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            + " AND pid != pg_backend_pid() AND (state = 'active' OR state LIKE 'idle in%') AND query LIKE '%"
            + part
            + "%'");
  }
}
