package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.database.Database;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.realmeet.server.testing.TwoServers;
import com.realmeet.server.users.UserDao;
import java.net.http.HttpResponse;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Known users whose addresses have gone round, on two servers at once. */
class SwapTest {
  private static TwoServers servers;

  @BeforeAll
  static void start() {
    servers = new TwoServers();
    servers.two();
  }

  @AfterAll
  static void stop() {
    servers.close();
    assertEquals( // each would have cost a request a second
        List.of("0"),
        servers.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"));
  }

  private static void assertSynced(String email, HttpResponse<String> response) {
    assertEquals(200, response.statusCode(), response.body());
    assertTrue(response.body().contains("\"email\":\"" + email + "\""), response.body());
  }

  private static String time(String body, String key) {
    return body.replaceFirst(".*\"" + key + "\":\"([^\"]+)\".*", "$1");
  }

  @ParameterizedTest(name = "ring of {0}")
  @ValueSource(ints = {2, 3, 7})
  void addressesGoRoundAmongKnownUsers(int size) {
    List<String> ids =
        IntStream.range(0, size).mapToObj(i -> "user_ring" + size + "_" + i).toList();
    List<String> emails = ids.stream().map(id -> servers.newAddress()).toList();
    IntStream.range(0, size).forEach(i -> servers.putRow(ids.get(i), emails.get(i)));
    IntStream.range(0, size).forEach(i -> servers.put(ids.get(i), emails.get((i + 1) % size)));

    assertSynced(emails.get(1), servers.refresh(servers.one, ids.get(0)));

    IntStream.range(0, size)
        .forEach(i -> assertEquals(emails.get((i + 1) % size), servers.emailOf(ids.get(i))));
  }

  @Test
  void updatedAtMovesOnlyWithAColumnThatClientsSee() {
    servers.put("user_time", servers.newAddress());
    String first = servers.sync("user_time").body();
    servers.clerk.putUser(servers.clerk.users().get("user_time")); // newer, but the same
    assertEquals(first, servers.refresh(servers.one, "user_time").body());

    TestPostgres.execute(
        servers.database, "UPDATE users SET clerk_updated_at = now() WHERE id = 'user_time'");
    assertEquals(first, servers.sync("user_time").body());

    servers.clerk.putUser(servers.clerk.users().get("user_time").put("last_name", "Roe"));
    String changed = servers.refresh(servers.one, "user_time").body();
    assertNotEquals(time(first, "updatedAt"), time(changed, "updatedAt"));
    assertEquals(time(first, "createdAt"), time(changed, "createdAt"));
    assertEquals(changed, servers.sync("user_time").body());
  }

  /**
   * What others do between our look at the holders and our writing cannot be timed from outside.
   */
  @Test
  void yetAnotherHolderUndoesEverything() {
    String email = servers.newAddress();
    servers.putRow("user_undo_a", servers.newAddress());
    servers.putRow("user_undo_b", email);
    List<String> before = servers.table();
    List<ClerkUser> users =
        Stream.of("user_undo_new", "user_undo_a")
            .map(
                id ->
                    new ClerkUser(
                        id, id.endsWith("a") ? email : id, null, null, Instant.now(), null))
            .toList();

    try (Database database =
        new Database(DatabaseUrl.parse(servers.database), 1, Metrics.noMeters())) {
      assertEquals(
          Optional.empty(),
          new UserDao(database)
              .upsertMovedEmails(
                  users, Optional.of("user_undo_x"), Deadline.in(Deadline.REQUEST_TIMEOUT)));
    }

    assertEquals(before, servers.table());
  }

  @Test
  void crossedRefreshesOfSwappedUsersBothSucceed() {
    for (int round = 0; round < 5; round++) {
      List<String> ids = List.of("user_cross_a" + round, "user_cross_b" + round);
      List<String> emails = List.of(servers.newAddress(), servers.newAddress());
      servers.putRow(ids.get(0), emails.get(0));
      servers.putRow(ids.get(1), emails.get(1));
      servers.put(ids.get(0), emails.get(1));
      servers.put(ids.get(1), emails.get(0));
      AtomicInteger turn = new AtomicInteger();

      TestServer.atOnce(
              8, () -> servers.refresh(servers.either(), ids.get(turn.getAndIncrement() / 2 % 2)))
          .forEach(response -> assertEquals(200, response.statusCode(), response.body()));

      assertEquals(emails.get(1), servers.emailOf(ids.get(0)));
      assertEquals(emails.get(0), servers.emailOf(ids.get(1)));
    }
  }

  @Test
  void twoServersTakeOverOneAddressAtOnce() {
    for (int round = 0; round < 5; round++) {
      String email = servers.newAddress();
      String heir = "user_at_once" + round;
      servers.putRow("user_at" + round, email);
      servers.put("user_at" + round, servers.newAddress());
      servers.put(heir, email);

      TestServer.atOnce(8, () -> servers.either().sync(servers.clerk.token(heir)))
          .forEach(response -> assertSynced(email, response));
    }
  }
}
