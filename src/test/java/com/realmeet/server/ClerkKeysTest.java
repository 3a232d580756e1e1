package com.realmeet.server;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.core.Threads;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.SessionTokens;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class ClerkKeysTest {
  private static final String DATABASE = TestPostgres.newDatabase();
  private static final SigningKey KEY = SigningKey.usual();
  private static final SigningKey OTHER_NAME = SigningKey.second("ins_2");
  private static final SigningKey SAME_NAME = SigningKey.third("ins_1");
  private static final AtomicInteger inventions = new AtomicInteger();

  private final CountDownLatch over = new CountDownLatch(1);
  private StandInClerk clerk;
  private TestServer server;

  @BeforeEach
  void startClerk() {
    clerk = clerkAt(0);
  }

  @AfterEach
  void stop() {
    over.countDown();
    if (server != null) {
      server.close();
    }
    clerk.close();
  }

  @Test
  void neitherAKnownKeyNorATokenWithoutAKeyIdCausesAFetch() {
    start();

    for (int i = 0; i < 20; i++) {
      assertEquals(200, sync(KEY));
    }
    assertEquals(1, clerk.keyCalls());

    clerk.onKeys(StandInClerk.answering(500, "{}"));
    assertEquals(401, sync(new SigningKey(null, OTHER_NAME.pair())));
    assertEquals(1, clerk.keyCalls());
  }

  @Test
  void newKeyIsAcceptedAtOnceAndTheRemovedOneIsNot() {
    start();
    assertEquals(200, sync(KEY));

    clerk.setKey(OTHER_NAME);

    assertEquals(200, sync(OTHER_NAME));
    assertEquals(2, clerk.keyCalls());
    assertEquals(401, sync(KEY));
  }

  @Test
  void newKeyMayHaveTheNameOfTheOldOne() {
    start();
    assertEquals(200, sync(KEY));

    clerk.setKey(SAME_NAME);

    assertEquals(200, sync(SAME_NAME));
    assertEquals(2, clerk.keyCalls());
    assertEquals(401, sync(KEY));
  }

  @Test
  void invalidTokensCauseTwoFetchesAtMost() {
    start();

    TestServer.atOnce(16, () -> assertStatus(401, server.sync(junk())));
    TestServer.atOnce(16, () -> assertStatus(401, server.sync(token(SAME_NAME))));

    assertTrue(clerk.keyCalls() <= 3, "calls: " + clerk.keyCalls());
    assertEquals(200, sync(KEY));
  }

  @Test
  void keysOutliveAnOutage() {
    start();
    clerk.onKeys(StandInClerk.answering(500, "{}"));

    assertUnavailable(server.sync(token(OTHER_NAME)));
    assertEquals(200, sync(KEY));
    assertEquals(401, sync(SAME_NAME), "the signature is wrong, whatever Clerk would say");
    assertTrue(Log.text().contains("Clerk's key set is unavailable: status 500"), Log.text());
  }

  @Test
  void rejectedSecretKeyIsAnOutageOnceTheServerRuns() {
    start();
    clerk.onKeys(StandInClerk.answering(401, "{\"errors\":[]}"));

    assertUnavailable(server.sync(token(OTHER_NAME)));
    assertEquals(200, sync(KEY));

    clerk.heal();
    clerk.setKey(OTHER_NAME);
    assertEquals(200, sync(OTHER_NAME));
    assertTrue(Log.text().contains("Clerk's key set is available again"), Log.text());
  }

  @Test
  void unknownKeyIdsDoNotWaitWhileClerkHangs() {
    start();
    clerk.onKeys(StandInClerk.answering(500, "{}"));
    assertUnavailable(server.sync(junk()));
    int calls = clerk.keyCalls();
    clerk.onKeys(exchange -> awaitOver());
    CompletableFuture<?> waiting = Threads.run(() -> server.sync(junk()));
    TestServer.await("a fetch hangs", () -> clerk.keyCalls() > calls);

    List<Long> millis = TestServer.atOnce(5, () -> millisOf(() -> server.sync(junk())));

    assertTrue(Collections.min(millis) < 1000, "junk waits for the fetch: " + millis);
    assertEquals(200, sync(KEY));
    waiting.join();
  }

  @Test
  void serverStartsWithoutClerkAndHealsByItself() {
    clerk.close();
    start();

    assertUnavailable(server.sync(token(KEY)));
    assertEquals(200, server.get("/api/health").statusCode());
    assertUnavailable(server.sync(token(KEY)));

    clerk = clerkAt(Integer.parseInt(clerk.url().replaceFirst(".*:", "")));
    assertEquals(200, sync(KEY));
  }

  @Test
  void whatHasNoSignatureIsRefusedWithoutKeysToo() {
    clerk.close();
    start();
    String token = token(KEY);

    String signed = token.substring(0, token.lastIndexOf('.') + 1);
    for (String signature : List.of("", "!!!", "A+B/", "A")) {
      assertEquals(401, server.sync(signed + signature).statusCode(), signature);
    }
  }

  @Test
  void coldServerUnderInvalidTokensAcceptsTheFirstGoodOne() {
    clerk.onKeys(StandInClerk.answering(200, "{}"));
    start();
    assertUnavailable(server.sync(token(KEY)));
    int calls = clerk.keyCalls();
    clerk.heal();
    CompletableFuture<List<List<Integer>>> junk =
        Threads.supply(() -> TestServer.atOnce(50, this::fiveTimesJunk));
    TestServer.await("the junk arrives", () -> clerk.keyCalls() > calls);

    assertEquals(200, sync(KEY));
    List<Integer> statuses = junk.join().stream().flatMap(List::stream).toList();
    assertEquals(250, statuses.size());
    assertTrue(Set.of(401, 503).containsAll(statuses), statuses.toString());
    assertTrue(clerk.keyCalls() <= calls + 3, "calls: " + (clerk.keyCalls() - calls));
  }

  @Test
  void givenKeyNeedsNoNetwork() {
    TestPostgres.execute(
        DATABASE,
        "INSERT INTO users (id, email, clerk_updated_at) VALUES ('user_1', 'one@example.com', now())"
            + " ON CONFLICT DO NOTHING");

    start("CLERK_JWT_KEY", SessionTokens.pem((RSAPublicKey) KEY.pair().getPublic()));
    assertEquals(401, sync(SAME_NAME));
    assertEquals(401, server.sync(junk()).statusCode());
    assertEquals(200, sync(new SigningKey("any_name", KEY.pair())));
    assertEquals(0, clerk.keyCalls());

    clerk.close();
    assertEquals(200, sync(KEY));
  }

  @Test
  void rejectedSecretKeyEndsTheStart() {
    String secret = "sk_test_rejected";

    StartupException failure =
        assertThrows(
            StartupException.class,
            () -> TestServer.start(clerk, DATABASE, "CLERK_SECRET_KEY", secret));

    assertTrue(failure.getMessage().contains("CLERK_SECRET_KEY"), failure.getMessage());
    assertFalse(failure.getMessage().contains(secret), failure.getMessage());
  }

  private static StandInClerk clerkAt(int port) {
    StandInClerk clerk = new StandInClerk(port, KEY);
    clerk.putUser("user_1", "one@example.com", "One", null);
    return clerk;
  }

  private void start(String... changes) {
    server = TestServer.start(clerk, DATABASE, changes);
  }

  private int sync(SigningKey key) {
    return server.sync(token(key)).statusCode();
  }

  /** A good token, but for its key. */
  private String token(SigningKey key) {
    return StandInClerk.sign(
        clerk.header().put("kid", key.kid()),
        clerk.claims("user_1", Duration.ofMinutes(1)),
        key.pair().getPrivate());
  }

  /** A token of a key that nobody has. */
  private static String junk() {
    String header = "{\"alg\":\"RS256\",\"kid\":\"invented_%d\"}";
    byte[] bytes = header.formatted(inventions.incrementAndGet()).getBytes(UTF_8);
    return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes) + ".e30.AAAA";
  }

  private List<Integer> fiveTimesJunk() {
    return Stream.generate(() -> server.sync(junk()).statusCode()).limit(5).toList();
  }

  private static long millisOf(Runnable work) {
    long begin = System.nanoTime();
    work.run();
    return Duration.ofNanos(System.nanoTime() - begin).toMillis();
  }

  private void awaitOver() {
    try {
      over.await();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private static boolean assertStatus(int status, HttpResponse<String> answer) {
    assertEquals(status, answer.statusCode(), answer.body());
    return true;
  }

  private static void assertUnavailable(HttpResponse<String> answer) {
    assertEquals(
        "{\"error\":\"Service Unavailable\",\"message\":\"Clerk is unavailable\"}", answer.body());
    assertEquals(503, answer.statusCode());
    assertTrue(
        answer
            .headers()
            .firstValue("Retry-After")
            .filter(s -> s.matches("[1-9]|[1-5]\\d|60"))
            .isPresent());
  }
}
