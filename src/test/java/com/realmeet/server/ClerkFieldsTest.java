package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.Backfilling;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The keys of Clerk's user object that CLERK_FIELDS names are in the column clerk_fields. */
class ClerkFieldsTest {
  private static final String FIELDS =
      "username, public_metadata,unsafe_metadata,image_url,to_come";
  private static final JsonMapper JSON = new JsonMapper();
  private static final AtomicInteger users = new AtomicInteger();
  private static StandInClerk clerk;
  private static String database;
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    database = TestPostgres.newDatabase();
    server = start(FIELDS);
  }

  private static TestServer start(String fields) {
    return TestServer.start(
        clerk, database, "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET, "CLERK_FIELDS", fields);
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  private static ObjectNode put(String id, String metadata) {
    try {
      ObjectNode user = clerk.putUser(id, id + "@example.com", "Ada", null);
      user.set("public_metadata", JSON.readTree(metadata));
      return user;
    } catch (IOException e) {
      throw new IllegalArgumentException(e);
    }
  }

  private static String newId() {
    return "user_" + users.incrementAndGet();
  }

  private static String sql(String expression, String id) {
    return String.join(
        " ",
        TestPostgres.query(
            database, "SELECT " + expression + " FROM users WHERE id = '" + id + "'"));
  }

  private static String role(String id) {
    return sql("clerk_fields->'public_metadata'->>'role'", id);
  }

  private static HttpResponse<String> refresh(String id) {
    return server.send(
        HttpRequest.newBuilder(server.uri("/api/user/refresh"))
            .header("Authorization", "Bearer " + clerk.token(id))
            .POST(HttpRequest.BodyPublishers.noBody()));
  }

  @Test
  void everyWayInKeepsThemAndNoAnswerShowsThem() {
    String id = newId();
    put(id, "{\"role\":\"member\"}").put("username", "ada").put("last_sign_in_at", 1);
    String row = server.sync(clerk.token(id)).body();
    assertEquals(
        "t",
        sql(
            "clerk_fields = '{\"username\": \"ada\", \"public_metadata\": {\"role\": \"member\"}, \"image_url\": \"https://img.clerk.com/"
                + id
                + "\"}'",
            id));

    put(id, "{\"role\":\"by webhook\"}");
    assertEquals(200, new Backfilling(clerk, database).webhook(server, "user.updated", id));
    assertEquals("by webhook", role(id));
    put(id, "{\"role\":\"by refresh\"}");
    assertEquals(row, refresh(id).body(), "updated_at moves with visible columns only");
    assertEquals("by refresh", role(id));
    put(id, "{\"role\":\"by poll\"}");
    assertTrue(server.poll());
    assertEquals("by poll", role(id));
    put(id, "{\"role\":\"by backfill\"}");
    new Backfilling(clerk, database, "CLERK_FIELDS", FIELDS).expect(0, "Backfill done");
    assertEquals("by backfill", role(id));
    assertEquals(row, server.sync(clerk.token(id)).body());
  }

  @Test
  void olderVersionDoesNotReplaceThemAndTombstoneHasNone() {
    String id = newId();
    put(id, "{\"role\":\"new\"}");
    server.sync(clerk.token(id));
    put(id, "{\"role\":\"old\"}").put("updated_at", 1);
    refresh(id);
    assertEquals("new", role(id));

    clerk.deleteUser(id);
    assertEquals(200, new Backfilling(clerk, database).webhook(server, "user.deleted", id));
    assertEquals("null", sql("clerk_fields", id));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "null|null",
        "true|true",
        "\"text\"|\"text\"",
        "[]|[]",
        "[1,[2,{\"a\":[]}]]|[1, [2, {\"a\": []}]]",
        "{\"b\":1,\"a\":{\"\":null}}|{\"a\": {\"\": null}, \"b\": 1}",
        "12345678901234567890123456789|12345678901234567890123456789",
        "0.1234567890123456789012345678901|0.1234567890123456789012345678901",
        "1.10|1.10",
        "-2e3|-2000",
        "1e40|1" + "0000000000000000000000000000000000000000",
        "1e200000|\"1E+200000\"",
        "1e-200000|\"1E-200000\"",
        "\"a\\u0000b\"|\"ab\"",
        "\"\\ud83d\\ude00 \\ud83d \\ude00\"|\"\uD83D\uDE00  \"",
        "{\"\\u0000k\":[\"\\u0000\"]}|{\"k\": [\"\"]}",
        "\"it's :name, ? and <users>\"|\"it's :name, ? and <users>\""
      })
  void anyValueIsKept(String sent, String kept) {
    String id = newId();
    clerk.putUser(id, id + "@example.com", "Ada", null);
    clerk.onUser(
        StandInClerk.answering(
            200,
            clerk
                .users()
                .get(id)
                .toString()
                .replace("\"public_metadata\":{}", "\"public_metadata\":" + sent)));

    assertEquals(200, server.sync(clerk.token(id)).statusCode());
    clerk.heal();

    assertEquals(kept, sql("(clerk_fields->'public_metadata')::text", id));
    assertFalse(sql("clerk_fields::text", id).contains("to_come"));
  }

  @Test
  void valueOf32KilobytesIsKept() {
    String id = newId();
    put(id, "{\"role\":\"" + "é".repeat(16_000) + "\",\"list\":[" + "1,".repeat(8000) + "1]}");

    assertEquals(200, server.sync(clerk.token(id)).statusCode());

    assertEquals("16000", sql("length(clerk_fields->'public_metadata'->>'role')", id));
    assertEquals("8001", sql("jsonb_array_length(clerk_fields->'public_metadata'->'list')", id));
  }

  @ParameterizedTest
  @ValueSource(strings = {"username", ""})
  void changedListIsShownByDryRunAndTakesEffectByBackfill(String fields) {
    StandInClerk other = new StandInClerk();
    String table = TestPostgres.newDatabase();
    for (int i = 0; i < 3; i++) {
      other.putUser("user_" + i, "u" + i + "@example.com", null, null).put("username", "u" + i);
    }
    new Backfilling(other, table, "CLERK_FIELDS", "image_url,id").expect(0, "3 inserted");
    String before = TestPostgres.query(table, "TABLE users ORDER BY id").toString();
    Backfilling changed = new Backfilling(other, table, "CLERK_FIELDS", fields);

    changed.expect(0, "0 inserted, 3 updated", "--dry-run");
    assertEquals("update user_0\nupdate user_1\nupdate user_2\n", changed.printed());
    assertEquals(before, TestPostgres.query(table, "TABLE users ORDER BY id").toString());
    changed.expect(0, "0 inserted, 3 updated");
    changed.expect(0, "0 inserted, 0 updated, 3 unchanged");

    assertEquals(
        fields.isEmpty()
            ? List.of("null", "null", "null")
            : List.of("{\"username\": \"u0\"}", "{\"username\": \"u1\"}", "{\"username\": \"u2\"}"),
        TestPostgres.query(table, "SELECT clerk_fields FROM users ORDER BY id"));
    other.close();
  }

  @Test
  void withoutTheSettingTheColumnIsNullAndWithoutAnyOfTheKeysAnEmptyObject() {
    String id = newId();
    JsonNode user = put(id, "{}");
    try (TestServer bare = start("")) {
      bare.sync(clerk.token(id));
      assertEquals("null", sql("clerk_fields", id));
    }
    assertTrue(user.path("to_come").isMissingNode());
    try (TestServer future = start("to_come")) {
      clerk.putUser(id, id + "@example.com", "Ada", "New");
      assertTrue(future.poll());
      assertEquals("{}", sql("clerk_fields", id));
    }
  }
}
