package com.realmeet.server;

import static com.realmeet.server.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.RawHttp.Answer;
import com.realmeet.server.dev.StandInClerk;
import java.util.List;
import java.util.Locale;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Which pages a browser lets read our answers. Each origin meets each kind of answer. */
class CorsTest {
  private static StandInClerk clerk;
  private static TestServer server;

  /** Answers of every kind: a route's, the router's, and Jetty's own. */
  private static final List<List<String>> REQUESTS =
      List.of(
          List.of("GET", "/api/health"),
          List.of("HEAD", "/api/health"),
          List.of("GET", "/api/ready"),
          List.of("POST", "/api/user/sync"),
          List.of("POST", "/api/user/sync", "Content-Type: text/plain", "Content-Length: 0"),
          List.of("POST", "/api/user/sync", "Content-Length: 2000000"),
          List.of("POST", "/api/user/sync", "Authorization: a", "Authorization: b"),
          List.of("GET", "/api/health", "X: " + "x".repeat(20_000)),
          List.of("GET", "/" + "x".repeat(20_000)),
          List.of("DELETE", "/api/user/sync"),
          List.of("GET", "/nope"),
          List.of("OPTIONS", "/api/user/sync"),
          List.of("OPTIONS", "/nope", "Access-Control-Request-Method: POST"));

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    server =
        TestServer.start(
            clerk,
            TestPostgres.newDatabase(),
            "CLIENT_URL",
            "http://localhost:3000, https://app.example.com/,https://[::1]:8443");
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  private static Answer ask(List<String> line, String... more) {
    String[] headers = Stream.concat(line.stream().skip(2), Stream.of(more)).toArray(String[]::new);
    return RawHttp.ask(server.port(), request(line.get(0), line.get(1), headers));
  }

  private static List<String> corsHeaders(Answer answer) {
    return answer.headers().stream()
        .filter(line -> line.toLowerCase(Locale.ROOT).startsWith("access-control-"))
        .sorted()
        .toList();
  }

  @ParameterizedTest
  @ValueSource(strings = {"http://localhost:3000", "https://app.example.com", "https://[::1]:8443"})
  void allowedOriginMayReadEveryAnswer(String origin) {
    for (List<String> line : REQUESTS) {
      Answer without = ask(line);
      Answer answer = ask(line, "Origin: " + origin);

      assertEquals(
          List.of("Access-Control-Allow-Origin: " + origin), corsHeaders(answer), line::toString);
      assertEquals(List.of("Origin"), answer.header("Vary"), line::toString);
      assertEquals(without.status(), answer.status(), line::toString);
    }
  }

  static Stream<List<String>> foreignOrigins() {
    return Stream.of(
        List.of("http://evil.example.com"),
        List.of("null"),
        List.of("*"),
        List.of(""),
        List.of("http://localhost"),
        List.of("http://localhost:3001"),
        List.of("http://localhost:30001"),
        List.of("https://localhost:3000"),
        List.of("http://localhost:3000/"),
        List.of("HTTP://LOCALHOST:3000"),
        List.of("https://app.example.com:443"),
        List.of("https://App.example.com"),
        List.of("https://app.example.com.evil.example.com"),
        List.of("https://evil-app.example.com"),
        List.of("https://x.app.example.com"),
        List.of("https://app.example.com@evil.example.com"),
        List.of("https://appxexample.com"),
        List.of("http://localhost:3000, https://app.example.com"),
        List.of("http://localhost:3000 http://localhost:3000"),
        List.of("http://localhost:3000", "http://evil.example.com"),
        List.of("http://evil.example.com", "http://localhost:3000"));
  }

  @ParameterizedTest
  @MethodSource("foreignOrigins")
  void foreignOriginIsAnsweredAsIfItHadNotBeenNamed(List<String> origins) {
    String[] headers = origins.stream().map(origin -> "Origin: " + origin).toArray(String[]::new);
    for (List<String> line :
        Stream.concat(
                REQUESTS.stream(),
                Stream.of(
                    List.of("OPTIONS", "/api/user/sync", "Access-Control-Request-Method: POST"),
                    List.of("OPTIONS", "/api/health", "Access-Control-Request-Method: GET")))
            .toList()) {
      Answer without = ask(line);
      Answer answer = ask(line, headers);

      assertEquals(List.of(), corsHeaders(answer), line::toString);
      assertEquals(without.status(), answer.status(), line::toString);
      assertEquals(without.contractHeaders(), answer.contractHeaders(), line::toString);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "/api/user/sync, POST, POST",
    "/api/user/sync, DELETE, POST",
    "/api/health, GET, 'GET, HEAD'",
    "/api/ready, GET, 'GET, HEAD'"
  })
  void preflightIsAnsweredWithoutAToken(String path, String method, String methods) {
    Answer answer =
        ask(
            List.of("OPTIONS", path),
            "Origin: https://app.example.com",
            "Access-Control-Request-Method: " + method,
            "Access-Control-Request-Headers: authorization,content-type");

    assertEquals(204, answer.status());
    assertEquals("", answer.body());
    assertEquals(List.of(), answer.header("Content-Type"));
    assertEquals(
        List.of(
            "Access-Control-Allow-Headers: Authorization, Content-Type",
            "Access-Control-Allow-Methods: " + methods,
            "Access-Control-Allow-Origin: https://app.example.com",
            "Access-Control-Max-Age: 7200"),
        corsHeaders(answer));
    assertEquals(List.of("Origin"), answer.header("Vary"));
  }
}
