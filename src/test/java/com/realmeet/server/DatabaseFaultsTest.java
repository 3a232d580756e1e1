package com.realmeet.server;

import static java.util.concurrent.CompletableFuture.supplyAsync;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.bench.Load;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.SlowStatements;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TcpProxy;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import java.sql.Connection;
import java.sql.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInfo;

/** What clients and the log see while the database is ill, and that it heals by itself. */
@Order(1)
class DatabaseFaultsTest {
  /** The contract says 5; a loaded machine may take its time to notice. */
  private static final Duration LIMIT = Duration.ofSeconds(6);

  /** Marks tests on one server: they leave it well, and do not ask what it has not logged. */
  private static final String SHARES = "shared-server";

  private static final AtomicInteger newUsers = new AtomicInteger();
  private static String database;
  private static TcpProxy proxy;
  private static StandInClerk clerk;
  private static TestServer server;
  private static TestServer shared;
  private static ExecutorService threads;

  private record Answer(HttpResponse<String> response, Duration time) {
    int status() {
      return response.statusCode();
    }
  }

  @BeforeAll
  static void start() {
    database = TestPostgres.newDatabase();
    proxy = TcpProxy.before(database);
    clerk = new StandInClerk();
    threads = Executors.newCachedThreadPool();
    clerk.putUser("user_known", "known@example.com", "Ada", "Lovelace");
  }

  @AfterAll
  static void stop() {
    if (shared != null) {
      shared.close();
    }
    proxy.close();
    clerk.close();
    threads.shutdownNow();
  }

  /** A new one for each test of the log, since it says only once a minute what is wrong. */
  @BeforeEach
  void startServer(TestInfo test) {
    boolean own = !test.getTags().contains(SHARES);
    server = own ? newServer() : shared;
    if (server == null) {
      server = newServer();
      shared = server;
    }
    assertEquals(200, syncKnown().status());
  }

  private static TestServer newServer() {
    return TestServer.start(clerk, TestPostgres.withPort(database, proxy.port()));
  }

  @AfterEach
  void heal() {
    clerk.heal();
    proxy.thaw();
    TestServer.await("the database is back", () -> syncKnown().status() == 200);
    if (server != shared) {
      server.close();
    }
  }

  @Test
  void killedConnectionsCostNoRequest() {
    Load load = new Load();
    for (int i = 0; i < 3; i++) {
      // No request is then at its second try, and no connection was idle for long, or else the
      // pool would test it.
      load.awaitMoreOfEach(6);
      killConnections();
    }
    load.awaitMoreOfEach(6);

    load.stop().forEach(answer -> assertEquals(200, answer.status(), answer.response().body()));
    assertFalse(Log.text().contains("unavailable"), Log.text());
  }

  /** They share a statement, which runs until the last of their deadlines. */
  @Test
  @Tag(SHARES)
  void requestDoesNotFailTogetherWithOneThatHasLessTime() throws Exception {
    List<CompletableFuture<Answer>> earlier = new ArrayList<>();
    CompletableFuture<Answer> last;
    try (Connection connection = DatabaseUrl.parse(database).dataSource(30).getConnection();
        Statement lock = connection.createStatement()) {
      connection.setAutoCommit(false);
      lock.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE");
      for (int i = 1; i <= 2; i++) { // one for each lookup thread
        int statements = i;
        earlier.add(supplyAsync(DatabaseFaultsTest::syncKnown, threads));
        TestServer.await("it waits", () -> SlowStatements.waiting(database) == statements);
        SECONDS.sleep(1); // so that the first thread is free before the second
      }
      earlier.add(supplyAsync(DatabaseFaultsTest::syncKnown, threads));
      MILLISECONDS.sleep(1500);
      last = supplyAsync(DatabaseFaultsTest::syncKnown, threads);
      earlier.forEach(answer -> assertEquals(503, answer.join().status()));
    }
    assertEquals(200, last.join().status());
  }

  @Test
  void frozenDatabaseIsAnsweredInTimeAndLoggedOnce() throws Exception {
    TestServer.atOnce(6, DatabaseFaultsTest::syncKnown);
    CountDownLatch frozen = new CountDownLatch(1);
    clerk.onUser(
        exchange -> {
          proxy.freeze();
          frozen.countDown();
          clerk.answerUser(exchange);
        });
    List<CompletableFuture<Answer>> answers = new ArrayList<>();
    answers.add(supplyAsync(DatabaseFaultsTest::syncNew, threads)); // its INSERT meets the ice
    frozen.await();

    Answer ready = timed(() -> server.get("/api/ready"));
    assertEquals(503, ready.status());
    assertEquals(
        "{\"status\":\"unavailable\",\"database\":\"unavailable\"}", ready.response().body());
    assertTrue(ready.time().toMillis() < 2000, ready.time().toString());
    assertEquals(200, server.get("/api/health").statusCode());
    for (int i = 0; i < 12; i++) {
      answers.add(supplyAsync(DatabaseFaultsTest::syncKnown, threads));
    }
    answers.forEach(answer -> assertUnavailable(answer.orTimeout(20, SECONDS).join()));

    clerk.heal();
    proxy.thaw();
    TestServer.await("a first sync succeeds", () -> syncNew().status() == 200);
    TestServer.await("ready again", () -> server.get("/api/ready").statusCode() == 200);
    assertEquals("{\"status\":\"ok\",\"database\":\"ok\"}", server.get("/api/ready").body());
    assertEquals(1, count("ERROR Database - Database is unavailable: "), Log.text());
    assertEquals(1, count("INFO Database - Database is available again after "), Log.text());
    assertEquals(0, count("\tat "), Log.text());
  }

  @Test
  @Tag(SHARES)
  void restartUnderLoadHealsByItself() {
    Load load = new Load();
    load.awaitMore(50);
    proxy.refuse();
    TestServer.await("an outage", () -> load.count(503) > 0);
    proxy.restore();
    load.awaitMore(50);

    for (Answer answer : load.stop()) {
      if (answer.status() == 200) {
        assertTrue(answer.time().compareTo(LIMIT) < 0, answer.time().toString());
      } else if (answer.response().body().contains("overloaded")) {
        assertUnavailable("Server is overloaded", answer); // too little time was left for Clerk
      } else {
        assertUnavailable(answer);
      }
    }
  }

  @Test
  @Tag(SHARES)
  void connectionThatTakesLongIsWaitedFor() throws Exception {
    proxy.refuse();
    proxy.restore();
    proxy.freeze();
    CompletableFuture<Answer> answer = supplyAsync(DatabaseFaultsTest::syncKnown, threads);
    Thread.sleep(1500); // as long as Neon may take to wake up
    proxy.thaw();

    assertEquals(200, answer.join().status());
  }

  @Test
  void slowDatabaseIsNotTakenForASlowClerk() throws Exception {
    CountDownLatch end = new CountDownLatch(1);
    clerk.onUser(
        exchange -> {
          try {
            end.await();
          } catch (InterruptedException e) {
            throw new IllegalStateException(e);
          }
        });
    proxy.refuse();
    proxy.restore();
    proxy.freeze();
    CompletableFuture<Answer> answer = supplyAsync(DatabaseFaultsTest::syncNew, threads);
    Thread.sleep(2300); // of 4.5 s, of which Clerk needs 1 s and the INSERT 1.6 s
    proxy.thaw();

    assertUnavailable("Server is overloaded", answer.join());
    assertFalse(Log.text().contains("Clerk is unavailable"), Log.text());
    end.countDown();
  }

  @Test
  void readOnlyDatabaseRefusesFirstSyncsUntilItIsNot() {
    setReadOnly(true);
    killConnections();
    TestServer.atOnce(8, DatabaseFaultsTest::syncKnown)
        .forEach(answer -> assertEquals(200, answer.status()));
    assertUnavailable(syncNew());
    assertUnavailable(syncNew());
    TestServer.atOnce(8, DatabaseFaultsTest::syncKnown)
        .forEach(answer -> assertEquals(200, answer.status()));
    setReadOnly(false);

    assertEquals(200, syncNew().status());
    assertEquals(1, count("ERROR Database - Writing to the database is unavailable"), Log.text());
    assertEquals(1, count("INFO Database - Writing to the database is available"), Log.text());
    assertEquals(0, count("Database - Database is"), Log.text());
  }

  @Test
  void databaseThatLetsNobodyInIsUnavailable() {
    allowConnections(false);
    try {
      assertUnavailable(syncKnown());
    } finally {
      allowConnections(true);
    }
    assertEquals(1, count("ERROR Database - Database is unavailable: FATAL: "), Log.text());
    assertEquals(0, count("\tat "), Log.text());
  }

  @Test
  void brokenTableIsABugAndNotAnOutage() {
    TestPostgres.execute(database, "ALTER TABLE users RENAME TO moved");
    HttpResponse<String> response;
    try {
      response = syncKnown().response();
    } finally {
      TestPostgres.execute(database, "ALTER TABLE moved RENAME TO users");
    }

    assertEquals(500, response.statusCode());
    assertTrue(response.body().endsWith("\"message\":\"Internal server error\"}"), response.body());
    assertEquals(1, count("ERROR Errors - Unhandled exception"), Log.text());
    assertTrue(Log.text().contains("relation \"users\" does not exist\n\tat "), Log.text());
    assertFalse(Log.text().contains("unavailable"), Log.text());
  }

  @Test
  void statementThatNobodyWaitsForIsCancelledInPostgres() throws Exception {
    SlowStatements.assertCancelled(server, clerk, database);
    assertEquals(
        1,
        count("ERROR Database - Database is unavailable: a statement was cancelled"),
        Log.text());
  }

  @Test
  void preparedStatementsOfAnotherClientAreNoticedAndAvoided() {
    // What a client finds behind a pooler that tells it the true process id: foreign names.
    TestPostgres.execute(
        database,
        """
        CREATE FUNCTION take_names() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          FOR i IN 1..50 LOOP
            BEGIN
              EXECUTE 'PREPARE "S_' || i || '" AS SELECT 1';
            EXCEPTION WHEN duplicate_prepared_statement THEN
            END;
          END LOOP;
          RETURN NEW;
        END $$;
        CREATE TRIGGER take_names BEFORE INSERT ON users
          FOR EACH ROW EXECUTE FUNCTION take_names();
        """);
    try {
      for (int i = 0; i < 10; i++) {
        assertEquals(200, syncNew().status());
        assertEquals(200, syncKnown().status());
      }
    } finally {
      TestPostgres.execute(
          database, "DROP TRIGGER take_names ON users; DROP FUNCTION take_names()");
    }

    assertEquals(1, count("pgbouncer=true"), Log.text());
    assertEquals(0, count("unavailable"), Log.text());
  }

  @Test
  @Tag(SHARES)
  void healthNeverTouchesTheDatabase() {
    String empty = TestPostgres.emptyDatabase();
    try (TestServer idle = TestServer.start(clerk, empty)) {
      TestServer.await("the migration's connections end", () -> connections(empty) == 1);
      TestPostgres.execute(
          database,
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"
              + TestPostgres.nameOf(empty)
              + "'");
      TestServer.await("the one that was warmed up ends", () -> connections(empty) == 0);
      for (int i = 0; i < 5; i++) {
        assertEquals(200, idle.get("/api/health").statusCode());
      }

      assertEquals(0, connections(empty));
      assertEquals(200, idle.get("/api/ready").statusCode());
      assertEquals(1, connections(empty));
    }
  }

  /** Eight clients who sync without a pause; every fourth request is some user's first. */
  private static final class Load {
    private final List<Answer> answers = new ArrayList<>(); // guarded by itself
    private final List<CompletableFuture<Void>> clients = new ArrayList<>();
    private final AtomicIntegerArray ofEach = new AtomicIntegerArray(8);
    private volatile boolean stopped;

    Load() {
      for (int i = 0; i < ofEach.length(); i++) {
        int client = i;
        clients.add(CompletableFuture.runAsync(() -> run(client), threads));
      }
    }

    private void run(int client) {
      for (int i = 0; !stopped; i++) {
        ofEach.set(client, i);
        Answer answer = i % 4 == 0 ? syncNew() : syncKnown();
        synchronized (answers) {
          answers.add(answer);
        }
      }
    }

    long count(int status) {
      synchronized (answers) {
        return answers.stream().filter(answer -> answer.status() == status).count();
      }
    }

    /** Waits for some more good answers. */
    void awaitMore(int number) {
      long before = count(200);
      TestServer.await("more answers", () -> count(200) >= before + number);
    }

    /** Waits until each client has had some more answers. */
    void awaitMoreOfEach(int number) {
      int[] enough = IntStream.range(0, ofEach.length()).map(i -> ofEach.get(i) + number).toArray();
      TestServer.await(
          "more answers of each",
          () -> IntStream.range(0, enough.length).allMatch(i -> ofEach.get(i) >= enough[i]));
    }

    List<Answer> stop() {
      stopped = true;
      clients.forEach(CompletableFuture::join);
      return answers;
    }
  }

  private static Answer syncKnown() {
    return timed(() -> server.sync(clerk.token("user_known")));
  }

  private static Answer syncNew() {
    int number = newUsers.incrementAndGet();
    clerk.putUser("user_new" + number, "new" + number + "@example.com", null, null);
    return timed(() -> server.sync(clerk.token("user_new" + number)));
  }

  private static Answer timed(Supplier<HttpResponse<String>> request) {
    long began = System.nanoTime();
    HttpResponse<String> response = request.get();
    return new Answer(response, Duration.ofNanos(System.nanoTime() - began));
  }

  private static void assertUnavailable(Answer answer) {
    assertUnavailable("Database is unavailable", answer);
  }

  private static void assertUnavailable(String sentence, Answer answer) {
    assertEquals(503, answer.status(), answer.response().body());
    assertEquals(
        "{\"error\":\"Service Unavailable\",\"message\":\"" + sentence + "\"}",
        answer.response().body());
    int retryAfter =
        Integer.parseInt(answer.response().headers().firstValue("Retry-After").orElseThrow());
    assertTrue(retryAfter >= 1 && retryAfter <= 60, "Retry-After: " + retryAfter);
    assertTrue(answer.time().compareTo(LIMIT) < 0, answer.time().toString());
  }

  private static void allowConnections(boolean allow) {
    String name = TestPostgres.nameOf(database);
    String postgres = TestPostgres.withDatabase(database, "postgres");
    TestPostgres.execute(
        postgres, "ALTER DATABASE %s WITH ALLOW_CONNECTIONS %s".formatted(name, allow));
    TestPostgres.execute(
        postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s'"
            .formatted(name));
  }

  private static void setReadOnly(boolean on) {
    TestPostgres.execute(
        database,
        "BEGIN READ WRITE; ALTER DATABASE %s SET default_transaction_read_only = %s; COMMIT"
            .formatted(TestPostgres.nameOf(database), on));
  }

  private static void killConnections() {
    ofServer(database, "pg_terminate_backend(pid)");
  }

  private static int connections(String url) {
    return ofServer(url, "pid").size();
  }

  /** Asks about each connection of the server under test. */
  private static List<String> ofServer(String url, String expression) {
    return TestPostgres.query(
        url,
        "SELECT "
            + expression
            + " FROM pg_stat_activity"
            + " WHERE datname = current_database() AND application_name = 'real-meet-server'");
  }

  private static int count(String part) {
    return Log.text().split(Pattern.quote(part), -1).length - 1;
  }
}
