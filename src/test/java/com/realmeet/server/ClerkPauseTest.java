package com.realmeet.server;

import static com.realmeet.server.testing.FaultyClerk.answer;
import static com.realmeet.server.testing.FaultyClerk.stall;
import static com.realmeet.server.testing.FaultyClerk.user;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.FaultyClerk;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInfo;
import org.junit.jupiter.api.condition.EnabledForJreRange;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Clerk is spared while it throttles us, and never gets more than 32 calls at once. */
class ClerkPauseTest {
  private static final String DATABASE = TestPostgres.newDatabase();
  private static final StandInClerk KEYS = new StandInClerk();
  private static final AtomicInteger users = new AtomicInteger();

  /** Marks tests on one server: they cause no pause, which would outlive them. */
  private static final String SHARES = "shared-server";

  private static Pair shared;

  private FaultyClerk clerk;
  private TestServer server;

  /** A Clerk, and a server that takes its users from there. */
  private record Pair(FaultyClerk clerk, TestServer server) implements AutoCloseable {
    static Pair start() {
      FaultyClerk clerk = new FaultyClerk();
      return new Pair(clerk, clerk.server(KEYS, DATABASE));
    }

    @Override
    public void close() {
      server.close();
      clerk.close();
    }
  }

  @BeforeAll
  static void startShared() {
    shared = Pair.start();
  }

  @BeforeEach
  void start(TestInfo test) {
    Pair pair = test.getTags().contains(SHARES) ? shared : Pair.start();
    clerk = pair.clerk;
    server = pair.server;
  }

  @AfterEach
  void stop() {
    if (server != shared.server) {
      new Pair(clerk, server).close();
    }
  }

  @AfterAll
  static void stopShared() {
    shared.close();
  }

  private static String newUser() {
    return "user_" + users.incrementAndGet();
  }

  private HttpResponse<String> sync(String id) {
    return server.sync(KEYS.token(id));
  }

  private CompletableFuture<HttpResponse<String>> syncSoon(String id) {
    return Threads.supply(() -> sync(id));
  }

  private List<HttpResponse<String>> syncAtOnce(List<String> ids) {
    AtomicInteger next = new AtomicInteger();
    return TestServer.atOnce(ids.size(), () -> sync(ids.get(next.getAndIncrement())));
  }

  private static List<String> newUsers(int count) {
    return IntStream.range(0, count).mapToObj(i -> newUser()).toList();
  }

  private static FaultyClerk.Fault userAfter(CountDownLatch done, String id) {
    return connection -> {
      done.await();
      answer(200, user(id)).answer(connection);
    };
  }

  private static int retryAfter(HttpResponse<String> response) {
    assertEquals(503, response.statusCode(), response.body());
    assertEquals(
        "{\"error\":\"Service Unavailable\",\"message\":\"Clerk is unavailable\"}",
        response.body());
    return Integer.parseInt(response.headers().firstValue("Retry-After").orElseThrow());
  }

  @ParameterizedTest(name = "Retry-After: {0}")
  @CsvSource({
    "7, 7",
    "3600, 60",
    "99999999999999999999999, 60",
    "0, 1",
    "'Wed, 21 Oct 2099 07:28:00 GMT', 1"
  })
  void noUserIsAskedForUntilThePauseIsOver(String header, int seconds) {
    String known = newUser();
    sync(known);
    String throttled = newUser();
    clerk.put(throttled, answer(429, "{}", "Retry-After: " + header));
    int calls = clerk.requests();

    assertEquals(seconds, retryAfter(sync(throttled)));
    HttpResponse<String> other = sync(newUser());
    HttpResponse<String> row = sync(known);

    if (seconds > 1) { // one second may have passed on a slow machine
      int left = retryAfter(other);
      assertTrue(left > seconds - 6 && left <= seconds, "left: " + left);
      assertEquals(calls + 1, clerk.requests());
    }
    assertEquals(200, row.statusCode());
  }

  @Test
  void pauseEndsByItself() {
    String id = newUser();
    clerk.put(id, answer(429, "{}"));
    assertEquals(1, retryAfter(sync(id)));
    clerk.heal();

    TestServer.await("the pause is over", () -> sync(id).statusCode() == 200);

    assertEquals(2, clerk.requests(id).size());
  }

  @Test
  void shorterPauseDoesNotEndALongerOne() {
    String early = newUser();
    String late = newUser();
    CountDownLatch paused = new CountDownLatch(1);
    clerk.put(
        late,
        connection -> {
          paused.await();
          answer(429, "{}", "Retry-After: 1").answer(connection);
        });
    clerk.put(early, answer(429, "{}", "Retry-After: 50"));
    CompletableFuture<HttpResponse<String>> lateAnswer = syncSoon(late);
    TestServer.await("the call is under way", () -> clerk.requests() == 1);

    retryAfter(sync(early));
    paused.countDown();
    lateAnswer.join();

    assertTrue(retryAfter(sync(newUser())) > 40);
  }

  @Test
  void brokenCallIsNotTriedAgainDuringAPause() {
    String broken = newUser();
    String throttled = newUser();
    CountDownLatch paused = new CountDownLatch(1);
    clerk.put(
        broken,
        connection -> {
          paused.await();
          answer(500, "{}").answer(connection);
        });
    clerk.put(throttled, answer(429, "{}", "Retry-After: 50"));
    CompletableFuture<HttpResponse<String>> brokenAnswer = syncSoon(broken);
    TestServer.await("the call is under way", () -> clerk.requests() == 1);

    retryAfter(sync(throttled));
    paused.countDown();

    retryAfter(brokenAnswer.join());
    assertEquals(1, clerk.requests(broken).size());
  }

  @Test
  @Tag(SHARES)
  void surplusCallsAreRefusedAtOnceAndKnownUsersAreServed() {
    String known = newUser();
    sync(known);
    int calls = clerk.requests();
    List<String> slow = newUsers(32);
    CountDownLatch done = new CountDownLatch(1);
    slow.forEach(id -> clerk.put(id, userAfter(done, id)));
    List<CompletableFuture<HttpResponse<String>>> slowAnswers =
        slow.stream().map(this::syncSoon).toList();
    TestServer.await("32 calls are under way", () -> clerk.requests() == calls + 32);

    List<HttpResponse<String>> refused = syncAtOnce(newUsers(4));
    HttpResponse<String> row = sync(known);
    done.countDown();

    refused.forEach(response -> assertEquals(1, retryAfter(response)));
    assertEquals(200, row.statusCode());
    assertEquals(calls + 32, clerk.requests());
    slowAnswers.forEach(answer -> assertEquals(200, answer.join().statusCode()));
  }

  /** Before Java 24, they would take all threads, so some are refused. */
  @Test
  @EnabledForJreRange(minVersion = 24)
  void newUsersWhoComeAtOnceAreAllServed() {
    CountDownLatch done = new CountDownLatch(1);
    List<String> ids = newUsers(200);
    ids.forEach(id -> clerk.put(id, userAfter(done, id)));

    List<CompletableFuture<HttpResponse<String>>> answers =
        ids.stream().map(this::syncSoon).toList();
    TestServer.await("all are connected", () -> server.connections() >= ids.size());
    done.countDown();

    answers.forEach(answer -> assertEquals(200, answer.join().statusCode()));
  }

  /** Before Java 24, more than the threads of the server's own routes. */
  @Test
  @Tag(SHARES)
  void usersWhoRepeatTheirRequestsWhileClerkHangsDoNotHoldUpKnownOnes() {
    String known = newUser();
    sync(known);
    String silent = newUser();
    clerk.put(silent, stall(""));
    retryAfter(sync(silent)); // Clerk is known to be down from now on
    CountDownLatch done = new CountDownLatch(1);
    List<String> slow = newUsers(20);
    slow.forEach(id -> clerk.put(id, userAfter(done, id)));
    int calls = clerk.requests();
    List<CompletableFuture<HttpResponse<String>>> first =
        slow.stream().map(this::syncSoon).toList();
    TestServer.await("20 calls are under way", () -> clerk.requests() == calls + 20);
    List<CompletableFuture<HttpResponse<String>>> repeated = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      slow.forEach(id -> repeated.add(syncSoon(id)));
    }

    HttpResponse<String> row = sync(known);
    done.countDown();

    assertEquals(200, row.statusCode());
    first.forEach(answer -> assertEquals(200, answer.join().statusCode()));
    repeated.forEach(answer -> assertTrue(List.of(200, 503).contains(answer.join().statusCode())));
    assertEquals(calls + 20, clerk.requests());
  }

  @Test
  @Tag(SHARES)
  void callsThatTimeOutMakeRoomForOthers() {
    List<String> silent = newUsers(32);
    silent.forEach(id -> clerk.put(id, stall("")));
    long began = System.nanoTime();

    syncAtOnce(silent).forEach(ClerkPauseTest::retryAfter);

    assertTrue(System.nanoTime() - began < Duration.ofSeconds(6).toNanos());
    syncAtOnce(newUsers(32)).forEach(answer -> assertEquals(200, answer.statusCode()));
    TestServer.await("all connections are closed", () -> clerk.open() == 0);
  }
}
