package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.dev.StandInClerk;
import java.net.http.HttpResponse;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class WebhookTest {
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

  @ParameterizedTest
  @ValueSource(strings = {"user.created", "user.updated"})
  void clerksCopyIsStoredWhateverTheEventSays(String type) {
    ObjectNode user = clerk.putUser("user_hint", "hint@example.com", "True", "Copy");
    String lie = clerk.event(type, "user_hint").replace("True", "False").replace("hint@", "lie@");
    clerk.putUser(user.put("last_name", "Later"));

    HttpResponse<String> answer = fleet.webhook(0, lie);

    assertEquals(200, answer.statusCode());
    assertEquals("{\"success\":true}", answer.body());
    assertEquals(Fleet.row("user_hint", "hint@example.com", "True Later"), fleet.row("user_hint"));
  }

  @Test
  void eventAboutAUserWhoIsGoneLeavesATombstone() {
    clerk.putUser("user_gone", "gone@example.com", "Gone", null);
    String created = clerk.event("user.created", "user_gone");
    clerk.deleteUser("user_gone");

    assertEquals(200, fleet.webhook(0, created).statusCode());
    assertEquals("tombstone", fleet.row("user_gone"));
  }

  @Test
  void deletionLeavesATombstoneAlsoOfAnUnknownUser() {
    int calls = clerk.userCalls();

    assertEquals(200, fleet.webhook("user.deleted", "user_unknown").statusCode());
    assertEquals("tombstone", fleet.row("user_unknown"));
    assertEquals(calls, clerk.userCalls());
  }

  @Test
  void lateUpdateDoesNotBringADeletedUserBack() {
    clerk.putUser("user_late", "late@example.com", "Late", null);
    assertEquals(200, fleet.webhook("user.created", "user_late").statusCode());
    String late = clerk.event("user.updated", "user_late");

    // Even if Clerk still shows the user, as a replica that lags behind might.
    assertEquals(200, fleet.webhook("user.deleted", "user_late").statusCode());
    assertEquals(200, fleet.webhook(0, late).statusCode());

    assertEquals("tombstone", fleet.row("user_late"));
    assertEquals(401, fleet.sync(0, "user_late").statusCode());
  }

  @Test
  void addressOfADeletedUserIsFreeForANewOne() {
    clerk.putUser("user_first", "again@example.com", "First", null);
    fleet.webhook("user.created", "user_first");
    clerk.deleteUser("user_first");
    clerk.putUser("user_second", "again@example.com", "Second", null);

    // The new one comes first: Svix promises no order.
    assertEquals(200, fleet.webhook("user.created", "user_second").statusCode());
    assertEquals(200, fleet.webhook("user.deleted", "user_first").statusCode());

    assertEquals("tombstone", fleet.row("user_first"));
    assertEquals(Fleet.row("user_second", "again@example.com", "Second"), fleet.row("user_second"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"a,b", "b,a"})
  void swappedAddressesAreSwappedHereToo(String order) {
    for (String each : List.of("a", "b")) {
      clerk.putUser("user_swap_" + each, "swap-" + each + "@example.com", each, null);
      fleet.webhook("user.updated", "user_swap_" + each);
    }
    clerk.putUser("user_swap_a", "swap-b@example.com", "a", null);
    clerk.putUser("user_swap_b", "swap-a@example.com", "b", null);

    for (String each : order.split(",")) {
      assertEquals(200, fleet.webhook("user.updated", "user_swap_" + each).statusCode());
    }

    assertEquals(Fleet.row("user_swap_a", "swap-b@example.com", "a"), fleet.row("user_swap_a"));
    assertEquals(Fleet.row("user_swap_b", "swap-a@example.com", "b"), fleet.row("user_swap_b"));
  }

  @Test
  void otherEventsAreAcceptedAndIgnored() {
    int calls = clerk.userCalls();

    for (String type : List.of("session.created", "organization.updated", "us\\ner.\\u001bx")) {
      String event = "{\"type\":\"" + type + "\",\"data\":{\"id\":\"sess_1\"}}";
      assertEquals(200, fleet.webhook(0, event).statusCode());
    }
    assertEquals(calls, clerk.userCalls());
    assertTrue(Log.text().contains("Webhook session.created is none of ours"), Log.text());
    assertTrue(Log.text().contains("Webhook us?er.?x is none of ours"), Log.text());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "not JSON",
        "null",
        "[]",
        "{\"data\":{}}",
        "{\"type\":1}",
        "{\"type\":\"user.updated\"}",
        "{\"type\":\"user.deleted\",\"data\":{\"id\":\"user_1?a=b\"}}"
      })
  void signedBodyThatIsNoEventIsRefused(String body) {
    HttpResponse<String> answer = fleet.webhook(0, body);

    assertEquals(400, answer.statusCode());
    assertEquals(
        "{\"error\":\"Bad Request\",\"message\":\"Webhook body is not an event of Clerk\"}",
        answer.body());
  }

  /** Clerk's own sample has no address, and an id that no user has. */
  @Test
  void testButtonOfClerksDashboardSucceeds() {
    String sample =
        "{\"object\":\"event\",\"type\":\"user.created\",\"data\":{\"id\":\"user_29w83sxmDNGwOuEthce5gg56FcC\","
            + "\"object\":\"user\",\"email_addresses\":[],\"primary_email_address_id\":null}}";

    assertEquals(200, fleet.webhook(0, sample).statusCode());
  }

  @Test
  void userWithoutAddressIsAcceptedWithOneWarning() {
    clerk.putUser("user_phone", null, "Phone", null);

    assertEquals(200, fleet.webhook("user.created", "user_phone").statusCode());
    assertEquals("none", fleet.row("user_phone"));
    assertEquals(1, Log.text().lines().filter(line -> line.contains(" WARN ")).count());
    assertTrue(Log.text().contains("user_phone has no email address"), Log.text());
  }
}
