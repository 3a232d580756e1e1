package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
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

  private static final Map<List<String>, Answer> WITHOUT_ORIGIN = new HashMap<>();

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    server =
        TestServer.start(
            clerk,
            TestPostgres.newDatabase(),
            "CLIENT_URL",
            "http://localhost:3000, https://app.example.com/,https://[::1]:8443,"
                + "https://Meet-*-team.vercel.app,http://pr*.example.com:8080,"
                + "capacitor://localhost,chrome-extension://abcdefghijklmnopabcdefghijklmnop");
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

  /** The answer to a request that names no origin, which is the same each time. */
  private static Answer withoutOrigin(List<String> line) {
    return WITHOUT_ORIGIN.computeIfAbsent(line, CorsTest::ask);
  }

  private static List<String> corsHeaders(Answer answer) {
    return answer.headers().stream()
        .filter(line -> line.toLowerCase(Locale.ROOT).startsWith("access-control-"))
        .sorted()
        .toList();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "http://localhost:3000",
        "https://app.example.com",
        "https://[::1]:8443",
        "https://meet-git-a-branch-team.vercel.app",
        "https://meet-x-team.vercel.app",
        "http://pr17.example.com:8080",
        "capacitor://localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop"
      })
  void allowedOriginMayReadEveryAnswer(String origin) {
    for (List<String> line : REQUESTS) {
      Answer without = withoutOrigin(line);
      Answer answer = ask(line, "Origin: " + origin);

      assertEquals(
          List.of(
              "Access-Control-Allow-Origin: " + origin,
              "Access-Control-Expose-Headers: Retry-After, X-Request-Id"),
          corsHeaders(answer),
          line::toString);
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
        List.of("https://meet-*-team.vercel.app"),
        List.of("https://meet--team.vercel.app"),
        List.of("https://meet-team.vercel.app"),
        List.of("https://meet-a.b-team.vercel.app"),
        List.of("https://meet-evil.example/x-team.vercel.app"),
        List.of("https://meet-a@evil-team.vercel.app"),
        List.of("https://meet-a_b-team.vercel.app"),
        List.of("https://meet-A-team.vercel.app"),
        List.of("https://Meet-a-team.vercel.app"),
        List.of("https://meet-%61-team.vercel.app"),
        List.of("https://meet-a-team.vercel.app."),
        List.of("https://meet-a-team.vercel.app:443"),
        List.of("https://meet-a-team.vercel.app.evil.example.com"),
        List.of("https://meet-a-teamXvercel.app"),
        List.of("http://meet-a-team.vercel.app"),
        List.of("https://x-meet-a-team.vercel.app"),
        List.of("https://meet-" + "a".repeat(64) + "-team.vercel.app"),
        List.of("http://pr17.example.com"),
        List.of("http://pr17.example.com:80801"),
        List.of("capacitor://localhost:80"),
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
      Answer without = withoutOrigin(line);
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
            "Access-Control-Allow-Headers: authorization,content-type",
            "Access-Control-Allow-Methods: " + methods,
            "Access-Control-Allow-Origin: https://app.example.com",
            "Access-Control-Expose-Headers: Retry-After, X-Request-Id",
            "Access-Control-Max-Age: 7200"),
        corsHeaders(answer));
    assertEquals(List.of("Origin"), answer.header("Vary"));
  }

  private static String allowedHeaders(String... requested) {
    Answer answer =
        ask(
            Stream.concat(
                    Stream.of(
                        "OPTIONS",
                        "/api/user/sync",
                        "Origin: https://meet-x-team.vercel.app",
                        "Access-Control-Request-Method: POST"),
                    Stream.of(requested).map(names -> "Access-Control-Request-Headers: " + names))
                .toList());
    assertEquals(204, answer.status());
    assertEquals(1, answer.header("Access-Control-Allow-Headers").size());
    return answer.header("Access-Control-Allow-Headers").get(0);
  }

  /** Those of tracing tools, of old libraries and of tunnels. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "authorization,baggage,content-type,sentry-trace",
        "authorization, traceparent, tracestate",
        "x-requested-with",
        "ngrok-skip-browser-warning",
        "authorization , x-odd_name!#$%&'+.^`|~1"
      })
  void pageMaySendTheHeadersThatItAsksFor(String names) {
    assertEquals(names, allowedHeaders(names));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"", "*", "authorization,*", "a b", "a,,b", ",", "a,", "a:b", "\"a\"", "a/b", "ä"})
  void listThatIsNoneIsNotRepeated(String names) {
    assertEquals("Authorization, Content-Type", allowedHeaders(names));
  }

  @Test
  void longListIsNotRepeated() {
    assertEquals("Authorization, Content-Type", allowedHeaders("x".repeat(2049)));
    assertEquals("Authorization, Content-Type", allowedHeaders());
  }
}
