package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TwoServers;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** An address belongs to one user, here and at Clerk; if another row holds it, that row is old. */
class EmailTest {
  private static TwoServers servers;

  @BeforeAll
  static void start() {
    servers = new TwoServers();
  }

  @AfterAll
  static void stop() {
    servers.close();
  }

  @AfterEach
  void heal() {
    servers.clerk.heal();
  }

  private static void assertSynced(String email, HttpResponse<String> response) {
    assertEquals(200, response.statusCode(), response.body());
    assertTrue(response.body().contains("\"email\":\"" + email + "\""), response.body());
  }

  private static void assertTaken(HttpResponse<String> response) {
    assertEquals(409, response.statusCode());
    assertEquals(
        "{\"error\":\"Conflict\",\"message\":\"Email address is already in use by another user\"}",
        response.body());
  }

  private static void assertGone(HttpResponse<String> response) {
    assertEquals(401, response.statusCode());
    assertEquals(
        "{\"error\":\"Unauthorized\",\"message\":\"User no longer exists\"}", response.body());
  }

  @Test
  void addressOfAUserWhoHasAnotherNowIsTakenOver() {
    String email = servers.newAddress();
    String newEmail = servers.newAddress();
    servers.putRow("user_moved", email);
    servers.clerk.putUser("user_moved", newEmail, "Johanna", null);
    servers.put("user_heir", email);
    int calls = servers.clerk.userCalls();

    assertSynced(email, servers.sync("user_heir"));

    assertEquals(calls + 2, servers.clerk.userCalls());
    assertEquals(
        List.of(newEmail + "|Johanna|t"),
        servers.query(
            "SELECT email, name, updated_at > created_at FROM users WHERE id = 'user_moved'"));
    assertSynced(newEmail, servers.sync("user_moved"));
  }

  @Test
  void holderWhomClerkDoesNotHaveLosesTheAddressOnly() {
    String email = servers.newAddress();
    servers.putRow("user_deleted", email);
    servers.clerk.deleteUser("user_deleted");
    servers.put("user_next", email);

    assertSynced(email, servers.sync("user_next"));

    assertEquals(
        List.of("user_deleted@moved.invalid|John Doe|https://img.clerk.com/user_deleted|null"),
        servers.query(
            "SELECT email, name, image_url, deleted_at FROM users WHERE id = 'user_deleted'"));
    assertGone(servers.sync("user_deleted"));
    String newEmail = servers.newAddress();
    servers.put("user_deleted", newEmail); // it was an odd answer of Clerk's
    assertSynced(newEmail, servers.sync("user_deleted"));
  }

  @Test
  void holderWhomClerkDoesNotHaveKeepsTheAddressIfTheNewcomerCannotBeWritten() {
    String email = servers.newAddress();
    servers.putRow("user_stays", email);
    servers.clerk.deleteUser("user_stays");
    servers.put("user_refused", email);
    TestPostgres.execute(
        servers.database,
        "ALTER TABLE users ADD CONSTRAINT refused CHECK (id != 'user_refused') NOT VALID");
    List<String> before = servers.table();

    assertEquals(500, servers.sync("user_refused").statusCode());

    assertEquals(before, servers.table());
    TestPostgres.execute(servers.database, "ALTER TABLE users DROP CONSTRAINT refused");
  }

  /** As an application may demand it: for Clerk, too, these are one address. */
  @Test
  void addressThatAnIndexOfTheApplicationsOwnFindsTakenIsTakenOver() {
    TestPostgres.execute(servers.database, "CREATE UNIQUE INDEX app_email ON users (lower(email))");
    String email = servers.newAddress();
    String newEmail = servers.newAddress();
    servers.putRow("user_upper", email.toUpperCase(Locale.ROOT));
    servers.put("user_upper", newEmail);
    servers.put("user_lower", email);
    assertSynced(email, servers.sync("user_lower"));
    assertEquals(newEmail, servers.emailOf("user_upper"));

    servers.put("user_third", email.toUpperCase(Locale.ROOT));
    assertTaken(servers.sync("user_third"));

    servers.clerk.deleteUser("user_lower");
    assertSynced(email.toUpperCase(Locale.ROOT), servers.sync("user_third"));
    assertEquals("user_lower@moved.invalid", servers.emailOf("user_lower"));
    TestPostgres.execute(servers.database, "DROP INDEX app_email");
  }

  @ParameterizedTest
  @ValueSource(ints = {2_100, 20_000, 200_000})
  void addressThatIsTooLongToStoreIsClerksFault(int length) {
    String id = "user_long" + length;
    servers.clerk.putUser(id, randomText(length) + "@example.com", "Long", null);

    HttpResponse<String> response = servers.sync(id);

    assertEquals(502, response.statusCode());
    assertEquals(
        "{\"error\":\"Bad Gateway\",\"message\":\"Clerk sent an unexpected answer\"}",
        response.body());
    assertEquals("", servers.emailOf(id));
    assertTrue(
        Log.text().contains("WARN UserSync - " + id + " is not stored: it has an email address"),
        Log.text());
  }

  /** Else that row could never become a tombstone, or a tombstone would hold up all polls. */
  @ParameterizedTest
  @ValueSource(strings = {"user_victim@deleted.invalid", "user_victim@Moved.invalid"})
  void placeholderOfARowIsNobodysAddress(String email) {
    servers.clerk.putUser("user_squatter", email, null, null);

    assertEquals(502, servers.sync("user_squatter").statusCode());
    assertEquals("", servers.emailOf("user_squatter"));
  }

  @Test
  void holderWhoseNewAddressCannotBeStoredLosesTheOldOne() {
    String email = servers.newAddress();
    servers.putRow("user_unstorable", email);
    servers.clerk.putUser("user_unstorable", randomText(3_000) + "@example.com", "Long", null);
    servers.put("user_successor", email);

    assertSynced(email, servers.sync("user_successor"));

    assertEquals("user_unstorable@moved.invalid", servers.emailOf("user_unstorable"));
  }

  @Test
  void rowThatIsNewerThanClerksVersionKeepsItsAddressAndClerkIsBlamed() {
    String email = servers.newAddress();
    servers.putRow("user_newer", email);
    TestPostgres.execute(
        servers.database,
        "UPDATE users SET clerk_updated_at = now() + interval '1 day' WHERE id = 'user_newer'");
    servers.clerk.putUser("user_newer", servers.newAddress(), null, null);
    servers.clerk.putUser("user_claims", email, null, null);

    assertEquals(502, servers.sync("user_claims").statusCode());

    assertEquals(email, servers.emailOf("user_newer"));
    assertTrue(
        Log.text()
            .contains(
                "WARN UserSync - user_claims is not stored: Clerk's version of user_newer, whose row"
                    + " has the same address, is older"),
        Log.text());
  }

  @Test
  void longAddressNameAndImageAreStoredAsFarAsTheyAreOfUse() {
    String email = "é".repeat(900) + "@example.com";
    ObjectNode user = servers.clerk.putUser("user_long", email, "N" + "😀".repeat(1500), "Doe");
    servers.clerk.putUser(user.put("image_url", "https://" + randomText(20_000)));

    assertSynced(email, servers.sync("user_long"));

    assertEquals(
        List.of("N" + "😀".repeat(999) + "|null"),
        servers.query("SELECT name, image_url FROM users WHERE id = 'user_long'"));
  }

  /** Text that Postgres cannot compress. */
  private static String randomText(int length) {
    return new Random(1)
        .ints(length, 'a', 'z' + 1)
        .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append)
        .toString();
  }

  @Test
  void newUserWhoSwappedWithAKnownOneIsSynced() {
    String email = servers.newAddress();
    String other = servers.newAddress();
    servers.putRow("user_swapped", email);
    servers.put("user_swapped", other);
    servers.put("user_swapper", email);

    assertSynced(email, servers.sync("user_swapper"));

    assertEquals(other, servers.emailOf("user_swapped"));
  }

  @Test
  void addressesMoveUpAlongAChainThatEndsAtADeletedUser() {
    List<String> emails = Stream.generate(servers::newAddress).limit(3).toList();
    for (int i = 0; i < 3; i++) {
      servers.putRow("user_chain" + i, emails.get(i));
    }
    servers.put("user_chain0", emails.get(1));
    servers.put("user_chain1", emails.get(2));
    servers.clerk.deleteUser("user_chain2");
    servers.put("user_chain", emails.get(0));

    assertSynced(emails.get(0), servers.sync("user_chain"));

    assertEquals(emails.get(1), servers.emailOf("user_chain0"));
    assertEquals(emails.get(2), servers.emailOf("user_chain1"));
    assertEquals("user_chain2@moved.invalid", servers.emailOf("user_chain2"));
  }

  @Test
  void holderWithoutAnAddressGivesItUp() {
    String email = servers.newAddress();
    servers.putRow("user_phone", email);
    servers.put("user_phone", null);
    servers.put("user_mail", email);

    assertSynced(email, servers.sync("user_mail"));

    assertEquals("user_phone@moved.invalid", servers.emailOf("user_phone"));
    assertEquals(422, servers.sync("user_phone").statusCode());
    String newEmail = servers.newAddress();
    servers.put("user_phone", newEmail);
    assertSynced(newEmail, servers.sync("user_phone"));
  }

  @Test
  void addressThatClerkConfirmsForBothIsAConflict() {
    String email = servers.newAddress();
    servers.putRow("user_owner", email);
    servers.put("user_rival", email);
    List<String> before = servers.table();

    assertTaken(servers.sync("user_rival"));

    assertEquals(before, servers.table());
  }

  @Test
  void nothingChangesWhileClerkCannotBeAskedAboutTheHolder() {
    String email = servers.newAddress();
    servers.putRow("user_holder", email);
    servers.put("user_holder", servers.newAddress());
    servers.put("user_waiting", email);
    List<String> before = servers.table();
    servers.clerk.onUser(
        exchange -> {
          if (exchange.getRequestURI().getPath().endsWith("user_holder")) {
            StandInClerk.send(exchange, 500, "{}");
          } else {
            servers.clerk.answerUser(exchange);
          }
        });

    HttpResponse<String> response = servers.sync("user_waiting");

    assertEquals(503, response.statusCode());
    assertTrue(response.headers().firstValue("Retry-After").isPresent());
    assertEquals(before, servers.table());
    servers.clerk.heal();
    assertSynced(email, servers.sync("user_waiting"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"cltk3x9zw0000", "../jwks", "user_1?a=b", "user_1#x", "user_ü"})
  void rowThatIsNotClerksKeepsItsAddress(String id) {
    String email = servers.newAddress();
    TestPostgres.execute(
        servers.database, "INSERT INTO users (id, email) VALUES ('%s', '%s')".formatted(id, email));
    servers.put("user_late", email);
    List<String> before = servers.table();
    int calls = servers.clerk.userCalls() + servers.clerk.keyCalls() + servers.clerk.otherCalls();

    assertTaken(servers.sync("user_late"));

    assertEquals(
        calls + 1,
        servers.clerk.userCalls() + servers.clerk.keyCalls() + servers.clerk.otherCalls());
    assertEquals(before, servers.table());
  }
}
