package com.realmeet.server.example;

import static com.realmeet.server.testing.TestServer.assertError;
import static com.realmeet.server.testing.TestServer.data;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import java.util.List;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Meetings, as the front ends of two users see them. */
class MeetingsTest {
  private static final String MEETINGS = "/api/meetings";
  private static final String NEW =
      "{\"title\":\"Lunch\",\"startsAt\":\"2026-02-09T17:00:00+01:00\"}";
  private static final String database = TestPostgres.newDatabase("meet");
  @AutoClose private static final StandInClerk clerk = new StandInClerk();

  @AutoClose
  private static final TestServer server =
      TestServer.start(new ExampleApplication(), clerk, database);

  private static final String ada = clerk.signUp("ada");
  private static final String bob = clerk.signUp("bob");

  @BeforeAll
  static void start() {
    server.sync(bob);
  }

  private static String participants(HttpResponse<String> created) {
    return MEETINGS + "/" + data(created, "id") + "/participants";
  }

  @Test
  void firstCallOfANewUserMayCreateAMeeting() {
    HttpResponse<String> created = server.post(clerk.signUp("new"), MEETINGS, NEW);

    assertEquals(201, created.statusCode());
    assertEquals("user_new", data(created, "hostId"));
    assertEquals("Lunch", data(created, "title"));
    assertEquals("2026-02-09T16:00:00.000Z", data(created, "startsAt"));
  }

  @Test
  void titleMayHave200Emoji() {
    String title = "\uD83C\uDF89".repeat(200);

    assertEquals(201, server.post(ada, MEETINGS, NEW.replace("Lunch", title)).statusCode());
    assertError(
        400,
        "title must have 1 to 200 characters",
        server.post(ada, MEETINGS, NEW.replace("Lunch", title + "!")));
  }

  @Test
  void hostAndParticipantsSeeAMeetingAndOthersDoNot() {
    String eve = clerk.signUp("eve");
    HttpResponse<String> created = server.post(ada, MEETINGS, NEW);
    String meeting = created.body().replaceFirst(".*\"data\":(.*)}", "$1");
    assertEquals(
        200, server.post(ada, participants(created), "{\"userId\":\"user_bob\"}").statusCode());

    for (String reader : List.of(ada, bob, eve)) {
      boolean sees = server.get(reader, MEETINGS).body().contains(meeting);
      assertEquals(!reader.equals(eve), sees);
    }
  }

  @Test
  void participantWhoIsAddedTwiceIsThereOnce() {
    String path = participants(server.post(ada, MEETINGS, NEW));

    for (int i = 0; i < 2; i++) {
      HttpResponse<String> added = server.post(ada, path, "{\"userId\":\"user_bob\"}");
      assertEquals(200, added.statusCode());
      assertEquals("user_bob", data(added, "userId"));
    }
    String id = path.replaceAll("\\D", "");
    assertEquals(
        List.of("user_bob"),
        TestPostgres.query(
            database, "SELECT user_id FROM meet.participants WHERE meeting_id = " + id));
  }

  @Test
  void onlyTheHostMayAddParticipants() {
    String path = participants(server.post(ada, MEETINGS, NEW));

    assertError(
        403,
        "Only the host may add participants",
        server.post(bob, path, "{\"userId\":\"user_bob\"}"));
  }

  @ParameterizedTest
  @CsvSource({
    "999999999, There is no such meeting",
    "0, There is no such meeting",
    "x, Not found",
    "-1, Not found",
    "1.5, Not found",
    "99999999999999999999, Not found",
  })
  void unknownMeetingIs404(String id, String message) {
    assertError(
        404,
        message,
        server.post(ada, MEETINGS + "/" + id + "/participants", "{\"userId\":\"user_bob\"}"));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{                                                       | The body is not JSON, see line 1",
        "null                                                    | The body is null",
        "[]                                                      | The body is not an object",
        "`{\"title\":5,\"startsAt\":\"2026-02-09T17:00:00Z\"}`   | title is not a text",
        "`{\"title\":\" \",\"startsAt\":\"2026-02-09T17:00:00Z\"}` | title must have 1 to 200 characters",
        "`{\"title\":\"a\",\"title\":\"b\"}`                    | title is there twice",
        "`{\"title\":\"a\",\"startsAt\":\"2026-02-09T17:00:00Z\",\"title\":\"b\"}` | title is there twice",
        "`{\"title\":\"a\",\"more\":[0,{\"x\":1,\"x\":1}]}`     | x is there twice",
        "`{\"title\":\"a\\u0000\",\"startsAt\":\"2026-02-09T17:00:00Z\"}` | title has a character that cannot be stored",
        "`{\"title\":\"a\\ud800\",\"startsAt\":\"2026-02-09T17:00:00Z\"}` | title has a character that cannot be stored",
        "`{\"startsAt\":\"2026-02-09T17:00:00Z\"}`               | title must have 1 to 200 characters",
        "`{\"title\":\"Lunch\"}`                                 | startsAt is missing",
        "`{\"title\":\"Lunch\",\"startsAt\":\"noon\"}`           | startsAt is not a time such as 2026-02-09T17:00:00Z",
        "`{\"title\":\"Lunch\",\"startsAt\":1770656400}`         | startsAt is not a time such as 2026-02-09T17:00:00Z",
        "`{\"title\":\"Lunch\",\"startsAt\":\"+999999-02-09T17:00:00Z\"}` | startsAt is not a time such as 2026-02-09T17:00:00Z",
        "`{\"title\":\"Lunch\",\"startsAt\":\"2026-02-09T17:00:00Z\"} x` | The body is not JSON, see line 1",
      })
  void bodyThatCannotBeReadIs400AndSaysWhy(String body, String message) {
    assertError(400, message, server.post(ada, MEETINGS, body));
  }

  @ParameterizedTest
  @ValueSource(strings = {"user_nobody", "user_Ada", "", "ada", "'; DROP TABLE meetings --"})
  void participantMustBeAUser(String userId) {
    String path = participants(server.post(ada, MEETINGS, NEW));

    assertError(
        400,
        "userId is not the id of a user",
        server.post(ada, path, "{\"userId\":\"" + userId + "\"}"));
  }
}
