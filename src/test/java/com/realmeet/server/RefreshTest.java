package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.StandInClerk;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

class RefreshTest {
  private static Fleet fleet;
  private static StandInClerk clerk;

  @BeforeAll
  static void start() {
    fleet = new Fleet(1);
    clerk = fleet.clerk();
  }

  @AfterAll
  static void stop() {
    fleet.close();
  }

  @AfterEach
  void heal() {
    clerk.heal();
  }

  @Test
  void changedProfileIsStoredAndReturnedLikeASync() {
    clerk.putUser("user_new", "old@example.com", "Old", "Name");
    fleet.sync(0, "user_new");
    clerk.putUser("user_new", "new@example.com", "New", "Name");

    HttpResponse<String> refreshed = fleet.refresh(0, "user_new");

    assertEquals(200, refreshed.statusCode(), refreshed.body());
    assertTrue(refreshed.body().contains("\"email\":\"new@example.com\""), refreshed.body());
    assertEquals(fleet.sync(0, "user_new").body(), refreshed.body());
    assertEquals(Fleet.row("user_new", "new@example.com", "New Name"), fleet.row("user_new"));
    assertEquals("no-store", refreshed.headers().firstValue("Cache-Control").orElse(""));
  }

  @Test
  void unchangedProfileLeavesUpdatedAtAlone() {
    clerk.putUser("user_same", "same@example.com", "Same", null);
    HttpResponse<String> synced = fleet.sync(0, "user_same");
    clerk.putUser(clerk.users().get("user_same").deepCopy());

    assertEquals(synced.body(), fleet.refresh(0, "user_same").body());
  }

  @Test
  void olderCopyIsIgnored() {
    ObjectNode old = clerk.putUser("user_older", "older@example.com", "Old", null).deepCopy();
    clerk.putUser("user_older", "older@example.com", "New", null);
    HttpResponse<String> synced = fleet.sync(0, "user_older");
    clerk.onUser(StandInClerk.answering(200, old.toString()));

    HttpResponse<String> refreshed = fleet.refresh(0, "user_older");

    assertEquals(200, refreshed.statusCode());
    assertEquals(synced.body(), refreshed.body());
  }

  @Test
  void unknownUserIsInserted() {
    clerk.putUser("user_insert", "insert@example.com", null, null);

    assertEquals(200, fleet.refresh(0, "user_insert").statusCode());
    assertEquals("insert@example.com|https://img.clerk.com/user_insert", fleet.row("user_insert"));
  }

  @Test
  void onlyASignedInUserMayAsk() {
    int calls = clerk.userCalls();
    HttpResponse<String> answer =
        fleet
            .server(0)
            .send(
                HttpRequest.newBuilder(fleet.server(0).uri("/api/user/refresh"))
                    .POST(BodyPublishers.ofString("{\"id\":\"user_new\"}")));

    assertEquals(401, answer.statusCode());
    assertEquals(calls, clerk.userCalls());
  }

  @Test
  void userWhomClerkDoesNotHaveKeepsTheRowUntilAnEventConfirmsTheDeletion() {
    clerk.putUser("user_gone", "gone@example.com", "Gone", null);
    fleet.sync(0, "user_gone");
    clerk.deleteUser("user_gone");

    assertGone(fleet.refresh(0, "user_gone"));
    assertEquals(Fleet.row("user_gone", "gone@example.com", "Gone"), fleet.row("user_gone"));
    assertEquals(200, fleet.webhook("user.deleted", "user_gone").statusCode());
    assertEquals("tombstone", fleet.row("user_gone"));

    int calls = clerk.userCalls();
    assertGone(fleet.refresh(0, "user_gone"));
    assertGone(fleet.sync(0, "user_gone"));
    assertEquals(calls, clerk.userCalls());
  }

  @Test
  void unknownUserWhomClerkDoesNotHaveLeavesNoRow() {
    assertGone(fleet.refresh(0, "user_never"));
    assertGone(fleet.sync(0, "user_never"));
    assertEquals("none", fleet.row("user_never"));
  }

  private static void assertGone(HttpResponse<String> answer) {
    assertEquals(401, answer.statusCode());
    assertEquals(
        "{\"error\":\"Unauthorized\",\"message\":\"User no longer exists\"}", answer.body());
  }

  @Test
  void userWhoHasLostTheAddressKeepsTheRow() {
    clerk.putUser("user_lost", "lost@example.com", "Lost", null);
    fleet.sync(0, "user_lost");
    clerk.putUser("user_lost", null, "Lost", null);

    assertEquals(422, fleet.refresh(0, "user_lost").statusCode());
    assertEquals(Fleet.row("user_lost", "lost@example.com", "Lost"), fleet.row("user_lost"));
  }

  /** A proxy's 404 is no word of Clerk's. */
  @Test
  void faultsOfClerkKeepTheRow() {
    clerk.putUser("user_kept", "kept@example.com", "Kept", null);
    fleet.sync(0, "user_kept");
    record Fault(int status, String body, int answer) {}
    for (Fault fault :
        new Fault[] {
          new Fault(500, "", 503),
          new Fault(401, "{}", 503),
          new Fault(404, "{\"message\":\"no route\"}", 502),
          new Fault(200, "{\"id\":\"user_other\",\"updated_at\":1}", 502),
          new Fault(200, "<html>", 502)
        }) {
      clerk.onUser(StandInClerk.answering(fault.status, fault.body));

      assertEquals(fault.answer, fleet.refresh(0, "user_kept").statusCode(), fault.toString());
      assertEquals(Fleet.row("user_kept", "kept@example.com", "Kept"), fleet.row("user_kept"));
    }
  }

  @Test
  void addressThatMovedHereIsTakenOver() {
    clerk.putUser("user_giver", "moved@example.com", "Giver", null);
    clerk.putUser("user_taker", "taker@example.com", "Taker", null);
    fleet.sync(0, "user_giver");
    fleet.sync(0, "user_taker");
    clerk.putUser("user_giver", null, "Giver", null); // Clerk knows no address any more
    clerk.putUser("user_taker", "moved@example.com", "Taker", null);

    assertEquals(200, fleet.refresh(0, "user_taker").statusCode());
    assertEquals(Fleet.row("user_taker", "moved@example.com", "Taker"), fleet.row("user_taker"));
    assertEquals(
        Fleet.row("user_giver", "user_giver@moved.invalid", "Giver"), fleet.row("user_giver"));
  }
}
