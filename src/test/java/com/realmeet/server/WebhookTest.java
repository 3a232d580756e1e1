package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
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

  @ParameterizedTest
  @ValueSource(strings = {"user.created", "user.updated"})
  void eventAboutAUserWhomClerkDoesNotHaveWritesNothingAndComesAgain(String type) {
    String id = "user_gone_" + type.substring(5);
    String row = Fleet.row(id, id + "@example.com", "Gone");
    clerk.putUser(id, id + "@example.com", "Gone", null);
    String event = clerk.event(type, id);
    assertEquals(200, fleet.webhook(0, event).statusCode());
    ObjectNode user = clerk.users().remove(id);

    HttpResponse<String> answer = fleet.webhook(0, event);

    assertEquals(503, answer.statusCode());
    assertEquals(
        "{\"error\":\"Service Unavailable\",\"message\":\"Clerk does not have the user of this event\"}",
        answer.body());
    assertTrue(answer.headers().firstValue("Retry-After").isPresent());
    assertEquals(row, fleet.row(id));
    clerk.putUser(user);
    assertEquals(200, fleet.webhook(0, event).statusCode());
    clerk.deleteUser(id);
    assertEquals(503, fleet.webhook(0, event).statusCode());
    assertEquals(200, fleet.webhook("user.deleted", id).statusCode());
    assertEquals(200, fleet.webhook(0, event).statusCode());
    assertEquals("tombstone", fleet.row(id));
  }

  @Test
  void deletionThatClerkConfirmsLeavesATombstoneAlsoOfAnUnknownUser() {
    int calls = clerk.userCalls();

    HttpResponse<String> first = fleet.webhook("user.deleted", "user_unknown");
    assertEquals(200, first.statusCode());
    assertEquals(200, fleet.webhook("user.deleted", "user_unknown").statusCode());

    assertEquals("tombstone", fleet.row("user_unknown"));
    assertEquals(calls + 1, clerk.userCalls());
    assertEquals(
        List.of("user_unknown is deleted: webhook user.deleted" + request(first)),
        Log.text()
            .lines()
            .filter(line -> line.contains(" WARN "))
            .map(line -> line.replaceFirst(".* - ", ""))
            .toList());
  }

  @Test
  void deletionOfAUserWhomClerkHasIsAnUpdate() {
    clerk.putUser("user_here", "here@example.com", "Here", null);
    assertEquals(200, fleet.webhook("user.created", "user_here").statusCode());
    clerk.putUser("user_here", "here2@example.com", "Here", "Still");

    assertEquals(200, fleet.webhook("user.deleted", "user_here").statusCode());

    assertEquals(Fleet.row("user_here", "here2@example.com", "Here Still"), fleet.row("user_here"));
    assertTrue(Log.text().contains("user_here is reported as deleted"), Log.text());
  }

  /** Their row cannot be refreshed, and Svix would ask again for days. */
  @Test
  void deletionOfAUserWhoHasNoAddressAnyMoreIsNoFault() {
    clerk.putUser("user_lost", "lost@example.com", "Lost", null);
    assertEquals(200, fleet.webhook("user.created", "user_lost").statusCode());
    clerk.putUser("user_lost", null, "Lost", null);

    assertEquals(200, fleet.webhook("user.deleted", "user_lost").statusCode());

    assertEquals(Fleet.row("user_lost", "lost@example.com", "Lost"), fleet.row("user_lost"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"", ",\"data\":{}", ",\"data\":{\"id\":null,\"deleted\":true}"})
  void deletionOfNobodyIsAccepted(String data) {
    List<String> before = TestPostgres.query(fleet.database(), "TABLE users ORDER BY id");

    assertEquals(200, fleet.webhook(0, "{\"type\":\"user.deleted\"" + data + "}").statusCode());

    assertEquals(before, TestPostgres.query(fleet.database(), "TABLE users ORDER BY id"));
    assertTrue(Log.text().contains("WARN"), Log.text());
  }

  @Test
  void addressOfTwoUsersIsNotCalledAnOutage() {
    clerk.putUser("user_owner", "shared@example.com", "Owner", null);
    clerk.putUser("user_rival", "shared@example.com", "Rival", null);
    assertEquals(200, fleet.webhook("user.created", "user_owner").statusCode());

    HttpResponse<String> answer = fleet.webhook("user.created", "user_rival");

    assertEquals(503, answer.statusCode());
    assertEquals(
        "{\"error\":\"Service Unavailable\",\"message\":\"Email address of this user is already in use by another user\"}",
        answer.body());
    assertEquals(409, fleet.sync(0, "user_rival").statusCode());
    clerk.deleteUser("user_rival");
  }

  @Test
  void eventOfAnotherInstanceIsAppliedWithOneWarning() {
    clerk.putUser("user_foreign", "foreign@example.com", "Foreign", null);
    String event = clerk.event("user.created", "user_foreign");

    for (String instance : List.of("ins_1", "other", "ins_2", "ins_2", "ins_3")) {
      assertEquals(
          200, fleet.webhook(0, event.replace("\"ins_1\"", "\"" + instance + "\"")).statusCode());
    }

    assertEquals(
        Fleet.row("user_foreign", "foreign@example.com", "Foreign"), fleet.row("user_foreign"));
    List<String> warnings = Log.text().lines().filter(line -> line.contains(" WARN ")).toList();
    assertEquals(1, warnings.size(), Log.text());
    assertTrue(warnings.get(0).contains("ins_2, but CLERK_SECRET_KEY is of ins_1"), Log.text());
  }

  @Test
  void lateUpdateDoesNotBringADeletedUserBack() {
    clerk.putUser("user_late", "late@example.com", "Late", null);
    assertEquals(200, fleet.webhook("user.created", "user_late").statusCode());
    String late = clerk.event("user.updated", "user_late");

    ObjectNode user = clerk.users().remove("user_late");
    assertEquals(200, fleet.webhook("user.deleted", "user_late").statusCode());
    clerk.putUser(user); // as a replica that lags behind might show
    assertEquals(200, fleet.webhook(0, late).statusCode());
    assertEquals(200, fleet.webhook("user.deleted", "user_late").statusCode());

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
    assertEquals(
        Fleet.row("user_first", "user_first@moved.invalid", "First"), fleet.row("user_first"));
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
    String log = Log.text().replaceAll(" \\(request \\w+\\)", "");
    assertTrue(log.contains("webhook session.created is ignored"), log);
    assertTrue(log.contains("webhook us?er.?x is ignored"), log);
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
    assertEquals("none", fleet.row("user_29w83sxmDNGwOuEthce5gg56FcC"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"created", "updated"})
  void onlyAnEventThatShowsAnAddressComesAgainForAnUnknownUser(String type) {
    String sample =
        ("{\"type\":\"user." + type + "\",\"data\":{\"id\":\"user_nowhere\",\"email_addresses\":")
            + "[{\"id\":\"idn_1\",\"email_address\":\"a@example.com\"}],\"primary_email_address_id\":%s}}";

    assertEquals(200, fleet.webhook(0, sample.formatted("null")).statusCode());
    assertEquals(503, fleet.webhook(0, sample.formatted("\"idn_1\"")).statusCode());
    assertEquals("none", fleet.row("user_nowhere"));
  }

  @Test
  void userWithoutAddressIsAcceptedWithOneWarning() {
    clerk.putUser("user_phone", null, "Phone", null);

    HttpResponse<String> response = fleet.webhook("user.created", "user_phone");
    assertEquals(200, response.statusCode());
    assertEquals("none", fleet.row("user_phone"));
    assertEquals(1, Log.text().lines().filter(line -> line.contains(" WARN ")).count());
    String line = "webhook user.created" + request(response) + ": user_phone has no email address";
    assertTrue(Log.text().contains(line), Log.text());
  }

  /** How the log names the request. */
  private static String request(HttpResponse<String> response) {
    return " (request " + response.headers().firstValue("X-Request-Id").orElseThrow() + ")";
  }
}
