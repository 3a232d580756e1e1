package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.TestServer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Whatever the order of events, the row ends as what Clerk holds. An event about a user who has
 * been deleted since comes again until the deletion has come.
 */
class ConvergenceTest {
  private static final List<String> LIFE =
      List.of("user.created", "user.updated", "user.updated", "user.deleted");

  private static final AtomicInteger users = new AtomicInteger();
  private static Fleet fleet;

  @BeforeAll
  static void start() {
    fleet = new Fleet(2);
  }

  @AfterAll
  static void stop() {
    fleet.close();
  }

  /** All orders of a life's events, by their place in it. */
  static Stream<List<Integer>> orders() {
    return permutations(List.of(0, 1, 2, 3)).stream();
  }

  /** All orders of the events of a user who lives on. */
  static Stream<List<Integer>> ordersOfTheLiving() {
    return permutations(List.of(0, 1, 2)).stream();
  }

  private static List<List<Integer>> permutations(List<Integer> of) {
    if (of.isEmpty()) {
      return List.of(List.of());
    }
    List<List<Integer>> all = new ArrayList<>();
    for (Integer first : of) {
      List<Integer> others = new ArrayList<>(of);
      others.remove(first);
      for (List<Integer> rest : permutations(others)) {
        List<Integer> one = new ArrayList<>(List.of(first));
        one.addAll(rest);
        all.add(one);
      }
    }
    return all;
  }

  /** Events come as soon as they have happened at Clerk, but in any order. */
  @ParameterizedTest
  @MethodSource({"orders", "ordersOfTheLiving"})
  void eventsInAnyOrderOnTwoServers(List<Integer> order) {
    String id = "user_" + users.incrementAndGet();
    List<String> happened = new ArrayList<>();
    for (int i = 0; i < order.size(); i++) {
      while (happened.size() <= order.get(i)) {
        happened.add(happen(id, happened.size()));
      }
      boolean deleted = happened.size() == LIFE.size();
      boolean told = order.subList(0, i + 1).contains(LIFE.size() - 1);
      String before = fleet.row(id);
      assertEquals(
          deleted && !told ? 503 : 200, fleet.webhook(i, happened.get(order.get(i))).statusCode());
      // An event that is not the latest brings the latest state nevertheless.
      assertEquals(deleted && !told ? before : clerkHolds(id), fleet.row(id));
      assertEquals(deleted ? 401 : 200, fleet.sync(i + 1, id).statusCode());
    }
  }

  /** All of it at once, as after an outage. */
  @ParameterizedTest
  @MethodSource({"orders", "ordersOfTheLiving"})
  void eventsAtOnceOnTwoServers(List<Integer> order) {
    String id = "user_" + users.incrementAndGet();
    List<String> happened = new ArrayList<>();
    order.forEach(i -> happened.add(happen(id, happened.size())));
    AtomicInteger next = new AtomicInteger();

    List<Integer> statuses =
        TestServer.atOnce(
            2 * order.size(),
            () -> {
              int i = next.getAndIncrement();
              return i % 2 == 0
                  ? fleet.webhook(i / 2, happened.get(order.get(i / 2))).statusCode()
                  : fleet.sync(i / 2, id).statusCode();
            });

    assertTrue(List.of(200, 401, 503).containsAll(statuses), statuses + Log.text());
    assertEquals(happened.size() < LIFE.size(), !statuses.contains(401), statuses + Log.text());
    happened.forEach(event -> assertEquals(200, fleet.webhook(0, event).statusCode()));
    assertEquals(clerkHolds(id), fleet.row(id));
  }

  @Test
  void deletionsAtOnceOfUsersWhoWereNeverHere() {
    for (String id : List.of("user_x", "user_y", "user_z")) { // so that the instance is checked
      fleet.clerk().putUser(id, id + "@example.com", "Here", null);
      assertEquals(200, fleet.sync(0, id).statusCode());
    }
    CyclicBarrier all = new CyclicBarrier(8);
    fleet
        .clerk()
        .onLookup(
            exchange -> {
              awaitAll(all);
              fleet.clerk().answerLookup(exchange);
            });
    AtomicInteger next = new AtomicInteger();
    for (int i = 0; i < 30; i++) { // two of them have to write within some microseconds
      String id = "user_never" + i;
      String event = fleet.clerk().event("user.deleted", id);

      List<Integer> statuses =
          TestServer.atOnce(8, () -> fleet.webhook(next.getAndIncrement(), event).statusCode());

      assertEquals(Collections.nCopies(8, 200), statuses, Log.text());
      assertEquals("tombstone", fleet.row(id));
    }
    fleet.clerk().heal();
  }

  private static void awaitAll(CyclicBarrier all) {
    try {
      all.await();
    } catch (InterruptedException | BrokenBarrierException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Lets the next event of a user's life happen at Clerk, and returns it. */
  private static String happen(String id, int event) {
    if (LIFE.get(event).equals("user.deleted")) {
      fleet.clerk().deleteUser(id);
    } else {
      fleet.clerk().putUser(id, id + "." + event % 2 + "@example.com", "State " + event, null);
    }
    return fleet.clerk().event(LIFE.get(event), id);
  }

  private static String clerkHolds(String id) {
    var user = fleet.clerk().users().get(id);
    return user == null
        ? "tombstone"
        : Fleet.row(
            id,
            user.get("email_addresses").get(1).get("email_address").asText(),
            user.get("first_name").asText());
  }
}
