package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestServer;
import com.sun.net.httpserver.HttpExchange;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Users change at Clerk, swap and take over addresses and are deleted, while webhooks come late,
 * repeated, out of order or never, servers poll and restart, polls break off, and front ends sync
 * and refresh; all at once, on two servers. When every event has come through, or else after some
 * polls, the table is as Clerk.
 *
 * <p>The seed of a failed run, {@code -Dseed=…}, repeats what is done, if not the timing.
 */
class InterleavingTest {
  private static final int RUNS = Integer.getInteger("runs", 1);
  private static final int ROUNDS = 14;
  private static final int AT_ONCE = 8;
  private static final int RESTART = 7;
  private static final Duration SPREAD = Duration.ofMillis(50);

  /** What becomes of the events. */
  enum Webhooks {
    COME_IN_THE_END,
    MAY_BE_LOST,
    NEVER_COME
  }

  private final Queue<String> undelivered = new ConcurrentLinkedQueue<>();
  private final List<String> delivered = new CopyOnWriteArrayList<>();
  private final List<String> ids = new CopyOnWriteArrayList<>(List.of("user_0"));
  private int changes;
  private Webhooks webhooks;
  private Fleet fleet;
  private StandInClerk clerk;

  static Stream<Arguments> runs() {
    Long given = Long.getLong("seed");
    LongStream seeds = given != null ? LongStream.of(given) : new Random().longs(RUNS);
    return seeds.boxed().flatMap(seed -> Stream.of(Webhooks.values()).map(w -> arguments(w, seed)));
  }

  @BeforeEach
  void start() {
    fleet = new Fleet(2);
    clerk = fleet.clerk();
    clerk.onUser(this::answerLate);
    clerk.onList(this::answerOrBreak);
    clerk.onLookup(this::lookUpLate);
    put("user.created", "user_0", "zero@example.com");
  }

  @AfterEach
  void stop() {
    fleet.close();
  }

  @ParameterizedTest
  @MethodSource("runs")
  void tableEndsAsClerk(Webhooks webhooks, long seed) {
    this.webhooks = webhooks;
    Random random = new Random(seed);
    for (int round = 1; round <= ROUNDS; round++) {
      atOnce(Stream.generate(() -> action(random)).limit(AT_ONCE).toList());
      if (round % RESTART == 0) {
        fleet.restart(round / RESTART);
      }
      if (webhooks == Webhooks.COME_IN_THE_END) {
        TestServer.await("every event comes through", () -> deliverAll(0).isEmpty());
      } else {
        undelivered.clear();
        awaitPolls(round);
      }
      assertTableIsAsClerk();
    }
  }

  /** Two polls of one server, since the first is no audit if nobody has used the database. */
  private void awaitPolls(int server) {
    clerk.onList(clerk::answerList);
    for (int i = 0; i < 2; i++) {
      fleet.sync(server, "user_0");
      assertTrue(fleet.server(server).poll(), Log::text);
    }
    clerk.onList(this::answerOrBreak);
  }

  /** One thing that happens; all that is random about it is drawn now. */
  private Callable<List<Integer>> action(Random random) {
    int kind = random.nextInt(10);
    int a = random.nextInt(1 << 20);
    int b = random.nextInt(1 << 20);
    return switch (kind) {
      case 0 -> () -> List.of(fleet.sync(b, ids.get(a % ids.size())).statusCode());
      case 1 -> () -> List.of(fleet.refresh(b, ids.get(a % ids.size())).statusCode());
      case 2 -> () -> deliverAgain(a, b);
      case 3, 4 ->
          () -> {
            fleet.server(b).poll();
            return List.of();
          };
      default ->
          () -> {
            change(a, b);
            return webhooks == Webhooks.NEVER_COME ? List.of() : deliverAll(b);
          };
    };
  }

  private static void atOnce(List<Callable<List<Integer>>> actions) {
    Queue<Callable<List<Integer>>> queue = new ConcurrentLinkedQueue<>(actions);
    TestServer.atOnce(
            actions.size(),
            () -> {
              pause(SPREAD); // or all changes would be over before the first event arrives
              return queue.remove().call();
            })
        .forEach(
            statuses ->
                assertTrue(
                    Set.of(200, 401, 409, 422, 503).containsAll(statuses), () -> "" + statuses));
  }

  /** Sends what is waiting, to one server after the other. */
  private List<Integer> deliverAll(int server) {
    List<Integer> statuses = new ArrayList<>();
    for (int waiting = undelivered.size(); waiting > 0; waiting--) {
      String event = undelivered.poll();
      if (event != null) {
        statuses.add(deliver(server + waiting, event));
      }
    }
    return statuses;
  }

  private int deliver(int server, String event) {
    int status = fleet.webhook(server, event).statusCode();
    (status == 200 ? delivered : undelivered).add(event);
    return status;
  }

  private List<Integer> deliverAgain(int which, int server) {
    return delivered.isEmpty()
        ? List.of()
        : List.of(deliver(server, delivered.get(which % delivered.size())));
  }

  /** What a user, or an administrator, does at Clerk, where no two users share an address. */
  private synchronized void change(int kind, int which) {
    List<ObjectNode> users = List.copyOf(clerk.users().values());
    ObjectNode one = users.get(which % users.size());
    ObjectNode other = users.get((which + 1) % users.size());
    String free = "free" + changes + "@example.com";
    switch (users.size() < 3 ? 6 : kind % 6) {
      case 0 -> put("user.updated", id(one), email(one));
      case 1 -> put("user.updated", id(one), free);
      case 2 -> put("user.updated", id(one), null);
      case 3 -> { // takes over
        put("user.updated", id(other), free);
        put("user.updated", id(one), email(other));
      }
      case 4 -> { // swap: each step is one that Clerk allows
        put("user.updated", id(one), free);
        put("user.updated", id(other), email(one));
        put("user.updated", id(one), email(other));
      }
      case 5 -> { // signs up again
        clerk.deleteUser(id(one));
        undelivered.add(clerk.event("user.deleted", id(one)));
        put("user.created", "user_" + ids.size(), email(one));
      }
      default -> put("user.created", "user_" + ids.size(), free);
    }
  }

  private void put(String type, String id, String email) {
    clerk.putUser(id, email, "Change", String.valueOf(++changes));
    undelivered.add(clerk.event(type, id));
    if (!ids.contains(id)) {
      ids.add(id);
    }
  }

  private void assertTableIsAsClerk() {
    Map<String, String> rows = new TreeMap<>(fleet.rows());
    Map<String, String> expected = new TreeMap<>();
    for (String id : ids) {
      ObjectNode user = clerk.users().get(id);
      if (user == null) {
        if (webhooks == Webhooks.COME_IN_THE_END || rows.containsKey(id)) {
          expected.put(id, "tombstone");
        }
      } else if (email(user) != null) {
        expected.put(id, Fleet.row(id, email(user), name(user)));
      } else {
        assertNotEquals("tombstone", rows.remove(id), id + " lives, only without an address");
      }
    }
    assertEquals(expected, rows);
  }

  private static void pause(Duration atMost) {
    LockSupport.parkNanos(ThreadLocalRandom.current().nextLong(atMost.toNanos()));
  }

  private static String id(ObjectNode user) {
    return user.get("id").asText();
  }

  private static String name(ObjectNode user) {
    return user.get("first_name").asText() + " " + user.get("last_name").asText();
  }

  private static String email(ObjectNode user) {
    return user.get("email_addresses").path(1).path("email_address").asText(null);
  }

  /** As Clerk, but what it says may be out of date when it arrives. */
  private void answerLate(HttpExchange exchange) throws IOException {
    ObjectNode user =
        clerk.users().get(exchange.getRequestURI().getPath().substring("/v1/users/".length()));
    pause(SPREAD);
    StandInClerk.send(
        exchange, user == null ? 404 : 200, user == null ? "{\"errors\":[]}" : user.toString());
  }

  /** A poll breaks off now and then; a listing is out of date when it arrives. */
  private void answerOrBreak(HttpExchange exchange) throws IOException {
    pause(SPREAD);
    if (ThreadLocalRandom.current().nextInt(6) == 0) {
      StandInClerk.send(exchange, 200, "{");
    } else {
      clerk.answerList(exchange);
    }
  }

  private void lookUpLate(HttpExchange exchange) throws IOException {
    pause(SPREAD);
    clerk.answerLookup(exchange);
  }
}
