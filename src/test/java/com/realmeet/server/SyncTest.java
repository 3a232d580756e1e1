package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

class SyncTest {
  private static final String DATABASE = TestPostgres.newDatabase();
  private static StandInClerk clerk;
  private static TestServer server;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    server = TestServer.start(clerk, DATABASE);
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  @Test
  void firstSyncInsertsTheUserAndLaterOnesReturnTheRow() {
    clerk.putUser("user_first", "first@example.com", "John", "Doe");
    int calls = clerk.userCalls();

    HttpResponse<String> first = server.sync(clerk.token("user_first"));
    HttpResponse<String> second = server.sync(clerk.token("user_first"));

    assertEquals(200, first.statusCode(), first.body());
    assertTrue(
        first
            .body()
            .matches(
                "\\{\"success\":true,\"data\":\\{\"id\":\"user_first\",\"email\":\"first@example.com\","
                    + "\"name\":\"John Doe\",\"imageUrl\":\"https://img.clerk.com/user_first\","
                    + "\"createdAt\":\"(\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z)\",\"updatedAt\":\"\\1\"}}"),
        first.body());
    assertEquals(first.body(), second.body());
    assertEquals(calls + 1, clerk.userCalls());
  }
}
