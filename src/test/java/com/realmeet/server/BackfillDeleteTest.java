package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The options that delete rows, and the one that writes none. */
class BackfillDeleteTest {
  private static Backfilling filled;

  private final StandInClerk clerk = new StandInClerk();
  private final Backfilling backfill = filled.restored(clerk);
  private final String database = backfill.database();

  @BeforeAll
  static void fill() {
    try (StandInClerk clerk = new StandInClerk()) {
      filled = new Backfilling(clerk, TestPostgres.newDatabase());
      filled.putUsers(0, 100);
      filled.expect(0, "Backfill done: 100 inserted");
      filled.save();
    }
  }

  @AfterEach
  void stop() {
    clerk.close();
  }

  @Test
  void rowsThatClerkDoesNotHaveBecomeTombstones() {
    deleteAtClerk(5);
    backfill.expect(0, "95 unchanged, 0 deleted");
    assertEquals(100, backfill.living().size());
    assertEquals(0, clerk.userCalls());

    backfill.expect(0, "95 unchanged, 5 deleted, 0 skipped", "--delete-missing");
    assertEquals(clerk.users().keySet(), backfill.living());
    assertEquals("tombstone", backfill.rows().get("user_0"));
    assertTrue(Log.text().contains("user_0 is deleted: backfill --delete-missing"), Log.text());
    assertEquals(5, clerk.userCalls());

    backfill.expect(0, "95 unchanged, 0 deleted, 0 skipped", "--delete-missing");
    assertEquals(5, clerk.userCalls());
  }

  @Test
  void userWhomOnlyTheListingLacksStays() {
    var hidden = clerk.users().remove("user_7");
    clerk.onUser(StandInClerk.answering(200, hidden.toString()));

    backfill.expect(0, "99 unchanged, 0 deleted, 0 skipped", "--delete-missing");
    assertEquals(100, backfill.living().size());
  }

  @ParameterizedTest
  @ValueSource(strings = {"{\"message\":\"no route\"}", "{\"errors\":[{\"code\":\"404\"}]}"})
  void notFoundOfAProxyDeletesNoOne(String body) {
    deleteAtClerk(1);
    clerk.onUser(StandInClerk.answering(404, body));

    backfill.expect(1, "Backfill failed, start it again", "--delete-missing");
    assertEquals(100, backfill.living().size());
  }

  @Test
  void manyRowsAreDeletedOnlyByForce() {
    deleteAtClerk(6);

    backfill.expect(
        1, "Clerk does not have 6 of 100 rows: nothing is deleted.", "--delete-missing");
    assertEquals(100, backfill.living().size());
    assertEquals(0, clerk.userCalls());

    backfill.expect(1, "94 unchanged, 6 deleted", "--delete-missing", "--dry-run");
    assertEquals(6, backfill.printed().lines().filter(line -> line.startsWith("delete ")).count());
    assertEquals(100, backfill.living().size());

    backfill.expect(0, "94 unchanged, 6 deleted", "--delete-missing", "--force");
    assertEquals(clerk.users().keySet(), backfill.living());
  }

  @Test
  void emptyListingDeletesOnlyByForce() {
    TestPostgres.execute(database, "DELETE FROM users WHERE id > 'user_1'");
    clerk.users().clear();

    backfill.expect(1, "Clerk does not have 2 of 2 rows", "--delete-missing");
    assertEquals(2, backfill.living().size());

    backfill.expect(0, "0 unchanged, 2 deleted", "--delete-missing", "--force");
    assertEquals(Set.of(), backfill.living());
  }

  @Test
  void emptyListingOfAnEmptyTableIsInOrder() {
    TestPostgres.execute(database, "DELETE FROM users");
    clerk.users().clear();

    backfill.expect(0, "0 unchanged, 0 deleted", "--delete-missing");
  }

  @Test
  void brokenListingDeletesNoOne() {
    backfill.putUsers(100, 700);
    deleteAtClerk(3);
    clerk.onList(
        exchange -> {
          if (exchange.getRequestURI().getQuery().contains("starting_after")) {
            StandInClerk.send(exchange, 200, "<html>");
          } else {
            clerk.answerList(exchange);
          }
        });

    backfill.expect(1, "Backfill failed, start it again", "--delete-missing", "--force");
    assertFalse(backfill.rows().containsValue("tombstone"));
    assertEquals(0, clerk.userCalls());
  }

  @Test
  void rowOfNoClerkUserIsListedAndStays() {
    TestPostgres.execute(
        database, "INSERT INTO users (id, email) VALUES ('legacy/1', 'legacy@example.com')");

    backfill.expect(1, "0 deleted, 1 skipped", "--delete-missing");
    assertTrue(Log.text().contains("Skipped: legacy/1 is not a Clerk user id"), Log.text());
    assertEquals("legacy@example.com", backfill.rows().get("legacy/1"));
    assertEquals(0, clerk.userCalls());
  }

  @Test
  void dryRunPrintsWhatWouldChangeAndWritesNothing() {
    deleteAtClerk(1);
    clerk.putUser("user_50", "user50@example.com", "Changed", null);
    clerk.putUser("user_51", "user51@example.com", "User", "51"); // only the time
    clerk.putUser("user_new", "new@example.com", "New", null);
    List<String> before = TestPostgres.query(database, "TABLE users ORDER BY id");

    backfill.expect(
        0,
        "Dry run, nothing written; without it: 1 inserted, 1 updated, 98 unchanged, 1 deleted, 0 skipped",
        "--dry-run",
        "--delete-missing");

    assertEquals(
        Set.of("insert user_new", "update user_50", "delete user_0"),
        new TreeSet<>(backfill.printed().lines().toList()));
    assertEquals(before, TestPostgres.query(database, "TABLE users ORDER BY id"));
  }

  @Test
  void listingOfNobodyDeletesNotEvenByForce() {
    clerk.users().clear();
    List<String> before = TestPostgres.query(database, "TABLE users ORDER BY id");

    backfill.expect(1, "Backfill stopped: ", "--delete-missing", "--force");

    assertEquals(before, TestPostgres.query(database, "TABLE users ORDER BY id"));
  }

  /** As a wrong key, or a backfill that had one, may have left them. */
  private void tombstone(String... ids) {
    for (String id : ids) {
      TestPostgres.execute(
          database,
          "UPDATE users SET email = id || '@deleted.invalid', name = NULL, image_url = NULL,"
              + (" deleted_at = now() WHERE id = '" + id + "'"));
    }
  }

  @Test
  void tombstonesOfUsersWhomClerkHasAreNamedAndRevivedOnDemand() {
    Map<String, String> before = backfill.rows();
    tombstone("user_1", "user_2", "user_3");
    clerk.deleteUser("user_3");
    List<String> table = TestPostgres.query(database, "TABLE users ORDER BY id");

    backfill.expect(1, "97 unchanged, 0 deleted, 2 skipped");
    for (String id : List.of("user_1", "user_2")) {
      assertTrue(
          Log.text().contains("Skipped: " + id + " is deleted here, but not at Clerk"), Log.text());
    }
    assertFalse(Log.text().contains("user_3"));
    backfill.expect(0, "0 skipped, 2 revived", "--revive", "--dry-run");
    assertEquals(
        Set.of("revive user_1", "revive user_2"), Set.copyOf(backfill.printed().lines().toList()));
    assertEquals(table, TestPostgres.query(database, "TABLE users ORDER BY id"));

    backfill.expect(0, "97 unchanged, 0 deleted, 0 skipped, 2 revived", "--revive");
    before.put("user_3", "tombstone");
    assertEquals(before, backfill.rows());
    assertEquals(
        List.of("https://img.clerk.com/user_1|t"),
        TestPostgres.query(
            database, "SELECT image_url, updated_at > created_at FROM users WHERE id = 'user_1'"));
    backfill.expect(0, "0 skipped, 0 revived", "--revive");
  }

  @Test
  void revivedUserGetsTheAddressBackIfItsHolderHasAnother() {
    tombstone("user_1");
    TestPostgres.execute(
        database, "UPDATE users SET email = 'user1@example.com' WHERE id = 'user_2'");
    clerk.putUser("user_2", "user2@example.com", "User", "2");

    backfill.expect(0, "1 revived", "--revive");

    assertEquals("user1@example.com|User 1", backfill.rows().get("user_1"));
    assertEquals("user2@example.com|User 2", backfill.rows().get("user_2"));
  }

  @Test
  void revivedUserWhoseAddressIsTakenOrMissingIsReported() {
    tombstone("user_1", "user_2");
    TestPostgres.execute(
        database, "INSERT INTO users (id, email) VALUES ('legacy', 'user1@example.com')");
    clerk.putUser("user_2", null, "User", "2");

    backfill.expect(1, "1 skipped, 2 revived", "--revive", "--dry-run");
    assertTrue(Log.text().contains("user_2 has no email address"), Log.text());
    backfill.expect(1, "2 skipped, 2 revived", "--revive");

    assertTrue(Log.text().contains("user_1 has an email address that another row has"));
    assertTrue(Log.text().contains("user_2 has no email address"), Log.text());
    assertEquals("user_1@moved.invalid", backfill.rows().get("user_1"));
    assertEquals("user_2@moved.invalid", backfill.rows().get("user_2"));
  }

  @Test
  void revivalsThatTheApplicationRefusesAreSkippedAndNamed() {
    tombstone("user_1", "user_2", "user_3");
    skipUpdates("OLD.id = 'user_1' AND OLD.deleted_at IS NOT NULL");
    TestPostgres.execute(
        database,
        "ALTER TABLE users ADD CONSTRAINT gone CHECK (id != 'user_2' OR deleted_at IS NOT NULL)");

    backfill.expect(1, "0 deleted, 2 skipped, 1 revived", "--revive");

    assertSkipped("user_1", "a trigger of the application on the table users suppressed the row");
    assertSkipped("user_2", "constraint gone of table users");
    assertEquals("tombstone", backfill.rows().get("user_1"));
    assertEquals("tombstone", backfill.rows().get("user_2"));
    assertEquals("user3@example.com|User 3", backfill.rows().get("user_3"));
  }

  @Test
  void deletionsThatTheApplicationRefusesAreSkippedAndNamed() {
    deleteAtClerk(3);
    skipUpdates("OLD.id = 'user_0'");
    TestPostgres.execute(
        database,
        "ALTER TABLE users ADD CONSTRAINT stays CHECK (id != 'user_1' OR deleted_at IS NULL)");

    backfill.expect(1, "97 unchanged, 1 deleted, 2 skipped", "--delete-missing");

    assertSkipped("user_0", "a trigger of the application on the table users suppressed the row");
    assertSkipped("user_1", "constraint stays of table users");
    assertEquals("tombstone", backfill.rows().get("user_2"));
    assertEquals(99, backfill.living().size());
  }

  private void skipUpdates(String condition) {
    TestPostgres.execute(
        database,
        """
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER skip BEFORE UPDATE ON users FOR EACH ROW WHEN (%s) EXECUTE FUNCTION skip();
        """
            .formatted(condition));
  }

  private static void assertSkipped(String id, String reason) {
    String line = "Skipped: " + id + " is refused: The database refuses a statement: " + reason;
    assertTrue(Log.text().contains(line), Log.text());
  }

  /** The listing says that the user exists; a live row that is newer stays. */
  @Test
  void tombstoneThatIsNewerThanClerksVersionIsRevivedAsTheDryRunSays() {
    Map<String, String> before = backfill.rows();
    tombstone("user_1");
    TestPostgres.execute(
        database,
        "UPDATE users SET clerk_updated_at = now() + interval '1 min' WHERE id IN ('user_1', 'user_2')");
    clerk.users().get("user_2").put("first_name", "Older");

    backfill.expect(0, "0 skipped, 1 revived", "--revive", "--dry-run");
    assertEquals("revive user_1", backfill.printed().strip());
    backfill.expect(0, "0 skipped, 1 revived", "--revive");

    assertEquals(before, backfill.rows());
  }

  @Test
  void addressThatIsTooLongIsSkipped() {
    clerk.putUser("user_long", "x".repeat(20_000) + "@example.com", "Long", null);

    backfill.expect(1, "0 inserted, 0 updated, 100 unchanged, 0 deleted, 1 skipped");

    assertTrue(
        Log.text().contains("Skipped: user_long has an email address that cannot be stored"));
  }

  @Test
  void dryRunDoesNotMigrate() {
    String empty = TestPostgres.emptyDatabase();

    new Backfilling(clerk, empty).expect(1, "migrate first", "--dry-run");
    assertEquals(
        List.of(),
        TestPostgres.query(empty, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"));
  }

  /** Those that were created first. */
  private void deleteAtClerk(int users) {
    for (int i = 0; i < users; i++) {
      clerk.deleteUser("user_" + i);
    }
  }
}
