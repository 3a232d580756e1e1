package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.database.Database;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestReplication;
import com.realmeet.server.testing.TestServer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;

/**
 * The server on a primary and its synchronous standby, both named in DATABASE_URL. The standby
 * comes with the second test.
 */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class FailoverTest {
  private static final int CLIENTS = 20;

  /** Interval between two syncs of a client; all clients together sync 200 times a second. */
  private static final Duration INTERVAL = Duration.ofMillis(100);

  private static TestReplication postgres;

  @BeforeAll
  static void start() {
    Assumptions.assumeTrue(
        TestReplication.isInstalled(), "initdb and pg_basebackup are not installed");
    postgres = new TestReplication();
    postgres.one.startSynchronous();
  }

  @AfterAll
  static void stop() {
    if (postgres != null) {
      postgres.close();
    }
  }

  /** Postgres itself reports success then: the transaction is committed, but on one server only. */
  @Test
  @Order(1)
  void commitThatWaitsInVainForAStandbyIsNotAcknowledged() {
    try (Database database =
        new Database(DatabaseUrl.parse(postgres.one.url()), 1, Metrics.noMeters())) {
      Deadline generous = Deadline.in(Duration.ofSeconds(30)); // the connection is opened here
      database.read(generous, handle -> handle.execute("SELECT 1"));
      Failure e =
          assertThrows(
              Failure.class,
              () ->
                  database.write(
                      Deadline.in(Duration.ofMillis(700)),
                      handle -> handle.execute("CREATE TABLE notes ()")));

      assertEquals(Failure.Kind.DATABASE_UNAVAILABLE, e.kind());
      assertTrue(Log.text().contains("SyncRep, a wait for a synchronous standby"), Log.text());
    }
  }

  @Test
  @Order(2)
  void standbyTakesOverWithinFiveSecondsAndNoStoredRowIsLost() {
    postgres.two.startAsStandbyOf(postgres.one);
    try (StandInClerk clerk = new StandInClerk();
        TestServer server = TestServer.start(clerk, postgres.url())) {
      Load load = new Load(clerk, server);
      load.awaitMoreRows(40);
      postgres.one.crash();
      postgres.two.promote();
      long promoted = System.nanoTime();
      load.awaitMoreRows(1);
      Duration outage = Duration.ofNanos(System.nanoTime() - promoted);
      assertTrue(outage.toSeconds() < 5, outage.toString());
      load.awaitMoreRows(CLIENTS); // whatever the outage has delayed is answered
      load.awaitMoreRows(CLIENTS);

      int failures = load.failures.get();
      postgres.one.startAsStandbyOf(postgres.two);
      load.awaitMoreRows(40);
      assertEquals(failures, load.failures.get());

      Set<String> acknowledged = load.stop();
      acknowledged.removeAll(rows(postgres.two));
      assertEquals(Set.of(), acknowledged);
      TestServer.await(
          "the old primary follows", () -> rows(postgres.one).equals(rows(postgres.two)));
    }
  }

  private static Set<String> rows(TestReplication.Node node) {
    return new HashSet<>(TestPostgres.query(node.url(), "SELECT id FROM users"));
  }

  /** Clients who sync; every other request is some user's first. */
  private static final class Load {
    private final StandInClerk clerk;
    private final TestServer server;
    private final AtomicInteger users = new AtomicInteger();
    private final Set<String> stored = ConcurrentHashMap.newKeySet();
    final AtomicInteger failures = new AtomicInteger();
    private final ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
    private final List<CompletableFuture<Void>> clients = new ArrayList<>();
    private volatile boolean stopped;

    Load(StandInClerk clerk, TestServer server) {
      this.clerk = clerk;
      this.server = server;
      for (int i = 0; i < CLIENTS; i++) {
        clients.add(CompletableFuture.runAsync(this::run, threads));
      }
    }

    private void run() {
      while (!stopped) {
        String id = "user_" + users.incrementAndGet();
        clerk.putUser(id, id + "@example.com", null, null);
        sync(id);
        sync(id);
      }
    }

    private void sync(String id) {
      long next = System.nanoTime() + INTERVAL.toNanos();
      int status = server.sync(clerk.token(id)).statusCode();
      if (status == 200) {
        stored.add(id);
      } else {
        assertEquals(503, status);
        failures.incrementAndGet();
      }
      try {
        Thread.sleep(Math.max(0, Duration.ofNanos(next - System.nanoTime()).toMillis()));
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }

    /** Waits until some more users have a row, as they were told. */
    void awaitMoreRows(int number) {
      int before = stored.size();
      TestServer.await("more rows", () -> stored.size() >= before + number);
    }

    /** Ends the load, and returns whose rows were acknowledged. */
    Set<String> stop() {
      stopped = true;
      clients.forEach(CompletableFuture::join);
      threads.shutdown();
      return stored;
    }
  }
}
