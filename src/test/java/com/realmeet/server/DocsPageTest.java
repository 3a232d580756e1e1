package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The page on which the API can be tried: in development, where Swagger UI is, and nowhere else.
 */
class DocsPageTest {
  private static final Pattern LINK = Pattern.compile("(?:href|src)=\"([^\"]+)\"");

  private static StandInClerk clerk;
  private static String database;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    database = TestPostgres.newDatabase();
  }

  @AfterAll
  static void stop() {
    clerk.close();
  }

  private static String header(HttpResponse<String> answer, String name) {
    return String.join(", ", answer.headers().allValues(name));
  }

  @Test
  void developmentServesThePageAndAllThatItLoads() {
    Map<String, String> types =
        Map.of("js", "text/javascript", "css", "text/css", "png", "image/png");
    try (TestServer server = TestServer.start(clerk, database, "NODE_ENV", "development")) {
      HttpResponse<String> page = TestServer.getPage(server.uri("/api/docs"));

      assertEquals(200, page.statusCode());
      assertEquals("text/html", header(page, "Content-Type"));
      assertTrue(page.body().contains("data-clerk=\"" + clerk.url() + "\""), page.body());
      List<String> links =
          LINK.matcher(page.body()).results().map(match -> match.group(1)).toList();
      assertEquals(3, links.size(), page.body());
      for (String link : links) {
        HttpResponse<String> file = TestServer.getPage(server.uri(link));
        assertEquals(200, file.statusCode(), link);
        assertEquals(types.get(link.replaceFirst(".*\\.", "")), header(file, "Content-Type"), link);
        assertEquals("nosniff", header(file, "X-Content-Type-Options"), link);
        assertEquals("no-store", header(file, "Cache-Control"), link);
      }
      assertEquals(404, server.get("/api/docs/nope").statusCode());
      assertEquals(404, server.get("/api/docs/..%2f..%2fdb/migration").statusCode());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"production", "test"})
  void thereIsNoPageOutsideDevelopment(String environment) {
    try (TestServer server = TestServer.start(clerk, database, "NODE_ENV", environment)) {
      for (String path : List.of("/api/docs", "/api/docs/", "/api/docs/swagger-ui.css")) {
        assertEquals(
            "{\"error\":\"Not Found\",\"message\":\"Not found\"}", server.get(path).body());
      }
    }
  }
}
