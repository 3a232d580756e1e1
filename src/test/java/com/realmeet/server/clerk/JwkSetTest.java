package com.realmeet.server.clerk;

import static com.realmeet.server.testing.StandInClerk.answering;
import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.realmeet.server.Metrics;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import com.realmeet.server.testing.TestServer;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import java.io.IOException;
import java.security.KeyPairGenerator;
import java.security.NoSuchAlgorithmException;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;
import org.junit.jupiter.api.parallel.ResourceAccessMode;
import org.junit.jupiter.api.parallel.ResourceLock;
import org.junit.jupiter.api.parallel.ResourceLockTarget;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** What Clerk may send as its key set, and how the keys age; the hours pass on a clock of ours. */
@Execution(ExecutionMode.CONCURRENT) // they hardly do anything but wait
@ResourceLock(value = "log", mode = ResourceAccessMode.READ, target = ResourceLockTarget.CHILDREN)
class JwkSetTest {
  private static final SigningKey KEY = SigningKey.usual();

  /** That of RFC 7517, appendix A.1, with our name. */
  private static final String ELLIPTIC =
      """
      {"kty":"EC","crv":"P-256","kid":"ins_1","use":"sig",
       "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
       "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}""";

  private final AtomicLong nanos = new AtomicLong();
  private final CountDownLatch over = new CountDownLatch(1);
  private StandInClerk clerk;
  private ClerkKeys keys;

  /** An answer without a usable key. */
  private record Broken(String name, HttpHandler answer) {
    @Override
    public String toString() {
      return name;
    }
  }

  @BeforeEach
  void start() {
    clerk = new StandInClerk(0, KEY);
    keys =
        new ClerkKeys(
            new ClerkApi(
                clerk.url(),
                StandInClerk.SECRET_KEY,
                Set.of(),
                Metrics.noMeters(),
                new SetupWarnings(),
                () -> {}),
            null,
            nanos::get,
            Metrics.noMeters());
  }

  @AfterEach
  void stop() {
    over.countDown();
    keys.close();
    clerk.close();
  }

  static Stream<Broken> broken() throws NoSuchAlgorithmException {
    KeyPairGenerator small = KeyPairGenerator.getInstance("RSA");
    small.initialize(1024);
    String fields = KEY.jwk().toString();
    return Stream.of(
        body("nothing", ""),
        body("not JSON", "<html>"),
        body("cut off", "{\"keys\":[" + fields),
        body("null", "null"),
        body("a list", "[]"),
        body("a list of keys", "[" + fields + "]"),
        body("an empty object", "{}"),
        body("no keys", set("")),
        body("keys null", "{\"keys\":null}"),
        body("keys a string", "{\"keys\":\"ins_1\"}"),
        body("keys an object", "{\"keys\":{\"ins_1\":" + fields + "}}"),
        body("entries that are no objects", set("null,1,\"ins_1\",[],{}")),
        body("too deep", "{\"keys\":" + "[".repeat(5000) + "]".repeat(5000) + "}"),
        body("an elliptic key", set(ELLIPTIC)),
        key("a small key", new SigningKey("ins_1", small.generateKeyPair()).jwk()),
        key("a key for encryption", KEY.jwk().put("use", "enc")),
        key("a key for another algorithm", KEY.jwk().put("alg", "RS512")),
        key("a key without a name", KEY.jwk().without("kid")),
        key("a key with an odd name", KEY.jwk().set("kid", KEY.jwk())),
        key("a key without a modulus", KEY.jwk().without("n")),
        key("a modulus that is not base64", KEY.jwk().put("n", "§§§")),
        body("100 KB", "{\"keys\":[" + fields + "]" + " ".repeat(100 << 10) + "}"),
        new Broken("status 404", answering(404, set(fields))),
        new Broken("status 500", answering(500, set(fields))),
        new Broken("a redirect", JwkSetTest::redirect),
        new Broken("an endless body", JwkSetTest::endless));
  }

  @ParameterizedTest
  @MethodSource("broken")
  void brokenAnswerNeitherYieldsNorReplacesAKey(Broken broken) {
    clerk.onKeys(broken.answer);
    assertEquals(Failure.Kind.CLERK_UNAVAILABLE, kindOfFailure());

    clerk.heal();
    TestServer.await("the keys are there", () -> has("ins_1"));

    clerk.onKeys(broken.answer);
    refresh();
    assertThrows(Failure.class, () -> key("ins_2"), "this waits until the fetch has failed");
    assertNotNull(key("ins_1"));
    assertEquals(0, clerk.otherCalls(), "the redirect was followed");
  }

  @Test
  void badEntrySpoilsOnlyItself() {
    clerk.onKeys(answering(200, set("null,{},{\"kty\":\"RSA\",\"kid\":1}," + KEY.jwk())));

    assertNotNull(key("ins_1"));
  }

  @Test
  void optionalFieldsMayBeMissing() {
    clerk.onKeys(answering(200, set(KEY.jwk().without(List.of("use", "alg")))));

    assertNotNull(key("ins_1"));
  }

  @Test
  void requestsDoNotWaitForASlowRefresh() {
    keys.prefetch();
    clerk.onKeys(this::drip);
    refresh();

    long begin = System.nanoTime();
    assertNotNull(key("ins_1"));
    assertTrue(System.nanoTime() - begin < Duration.ofSeconds(1).toNanos());
  }

  @Test
  void keysAreRefreshedAfterFourAndAHalfMinutes() {
    keys.prefetch();

    nanos.addAndGet(Duration.ofSeconds(269).toNanos());
    keys.refreshIfDue();
    assertEquals(1, clerk.keyCalls());

    nanos.addAndGet(Duration.ofSeconds(2).toNanos());
    keys.refreshIfDue();
    TestServer.await("the background fetches", () -> clerk.keyCalls() == 2);
  }

  @Test
  void removedKeyIsGoneAfterTheNextRefresh() {
    keys.prefetch();
    clerk.setKey(SigningKey.second("ins_2"));
    assertNotNull(key("ins_1"));

    refresh();

    TestServer.await("the new keys are there", () -> !has("ins_1"));
  }

  /** A request waits only 2 s for a key that is not there. */
  @Test
  void waitForANewKeyIsLimited() {
    keys.prefetch();
    clerk.onKeys(this::drip);

    long begin = System.nanoTime();
    assertThrows(Failure.class, () -> key("ins_2"));
    assertTrue(System.nanoTime() - begin < Duration.ofMillis(4500).toNanos());
  }

  /** Otherwise tokens with invented key ids would take all threads of the server. */
  @Test
  void onlyAFewRequestsWaitForANewKey() {
    keys.prefetch();
    clerk.onKeys(this::drip);

    List<String> failures =
        TestServer.atOnce(40, () -> assertThrows(Failure.class, () -> key("ins_2")).reason());

    long refused = failures.stream().filter(reason -> reason.contains("too many")).count();
    assertTrue(refused >= 24 && refused < 40, failures.toString());
  }

  @Test
  void keysOutliveOneHourOfOutageButNotMore() {
    keys.prefetch();
    clerk.onKeys(answering(503, "{}"));

    nanos.addAndGet(Duration.ofMinutes(59).toNanos());
    assertNotNull(key("ins_1"));
    nanos.addAndGet(Duration.ofMinutes(2).toNanos());
    assertEquals(Failure.Kind.CLERK_UNAVAILABLE, kindOfFailure());
  }

  @Test
  void unknownKeyIdsCauseTwoFetchesInHalfAMinute() {
    keys.prefetch();
    for (int i = 0; i < 10; i++) {
      assertNull(key("invented_" + i));
    }
    assertEquals(3, clerk.keyCalls());

    nanos.addAndGet(Duration.ofSeconds(31).toNanos());
    assertNull(key("invented"));
    assertEquals(4, clerk.keyCalls());
  }

  @Test
  @ResourceLock("log")
  void closeIsNoOutage() {
    clerk.onKeys(this::drip);
    CompletableFuture<Void> warming = Threads.run(keys::prefetch);
    TestServer.await("the fetch is under way", () -> clerk.keyCalls() == 1);

    keys.close();

    warming.join();
    assertFalse(Log.text().contains("ClerkKeys - "), Log.text());
  }

  /** The key by which a token of that name is verified. */
  private RSAPublicKey key(String id) {
    Deadline deadline = Deadline.in(Duration.ofSeconds(5));
    JwkSet current = keys.current(deadline);
    RSAPublicKey key = current.get(id);
    return key != null ? key : keys.refreshFor(current, deadline).get(id);
  }

  /** Whether there is such a key; not while a fetch fails. */
  private boolean has(String id) {
    try {
      return key(id) != null;
    } catch (Failure e) {
      return false;
    }
  }

  /** Lets the background refresh come due and begin to fetch. */
  private void refresh() {
    int calls = clerk.keyCalls();
    nanos.addAndGet(Duration.ofSeconds(271).toNanos());
    keys.refreshIfDue();
    TestServer.await("the background fetches", () -> clerk.keyCalls() > calls);
  }

  private Failure.Kind kindOfFailure() {
    return assertThrows(Failure.class, () -> key("ins_1")).kind();
  }

  private static Broken body(String name, String body) {
    return new Broken(name, answering(200, body));
  }

  private static Broken key(String name, JsonNode jwk) {
    return body(name, set(jwk));
  }

  private static String set(Object entries) {
    return "{\"keys\":[" + entries + "]}";
  }

  private static void redirect(HttpExchange exchange) throws IOException {
    exchange.getResponseHeaders().set("Location", "/elsewhere");
    answering(302, "").handle(exchange);
  }

  /** Goes on until the client hangs up. */
  private static void endless(HttpExchange exchange) throws IOException {
    exchange.sendResponseHeaders(200, 0);
    byte[] blanks = " ".repeat(8 << 10).getBytes(UTF_8);
    while (true) {
      exchange.getResponseBody().write(blanks);
    }
  }

  private void drip(HttpExchange exchange) throws IOException {
    exchange.sendResponseHeaders(200, 0);
    try {
      while (!over.await(100, TimeUnit.MILLISECONDS)) {
        exchange.getResponseBody().write(' ');
        exchange.getResponseBody().flush();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
