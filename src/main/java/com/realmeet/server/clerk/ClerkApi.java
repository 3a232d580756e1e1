package com.realmeet.server.clerk;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.cfg.JsonNodeFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.Outage;
import com.realmeet.server.core.Threads;
import io.micrometer.core.instrument.MeterRegistry;
import java.io.IOException;
import java.net.ConnectException;
import java.net.ProtocolException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpConnectTimeoutException;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.Flow;
import java.util.concurrent.Semaphore;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import javax.net.ssl.SSLException;
import org.eclipse.jetty.util.VirtualThreads;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Client of Clerk's Backend API. A call waits for Clerk no longer than its deadline, reads a
 * response of limited size, follows no redirect, and is not made while Clerk rate-limits us.
 *
 * @see <a href="https://clerk.com/docs/reference/backend-api">Clerk's Backend API</a>
 */
public final class ClerkApi {
  private static final Logger log = LoggerFactory.getLogger(ClerkApi.class);

  /**
   * Maximum levels of nesting, and maximum digits of a number. A user can write 8 KB of metadata in
   * the browser; with the default of 1000, such metadata would make a page of users unreadable.
   */
  private static final int MAX_JSON_COMPLEXITY = 20_000;

  /** JSON mapper for Clerk's snake_case keys. */
  public static final JsonMapper JSON =
      JsonMapper.builder(
              JsonFactory.builder()
                  // Jackson would keep thousands of names, of which users choose those of metadata
                  .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
                  .streamReadConstraints(
                      StreamReadConstraints.builder()
                          .maxNestingDepth(MAX_JSON_COMPLEXITY)
                          .maxNumberLength(MAX_JSON_COMPLEXITY)
                          .build())
                  .build())
          .propertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          // numbers in metadata keep all digits
          .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
          .disable(JsonNodeFeature.STRIP_TRAILING_BIGDECIMAL_ZEROES)
          .build();

  /** Reader that does not require the value to be the last one of the input. */
  static final ObjectReader VALUE_READER =
      JSON.reader().without(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  /** The version of the API whose fields {@link ClerkUser} reads. */
  private static final String API_VERSION = "2026-05-12";

  /** Allows for one lost SYN packet, which TCP repeats after 1 s. */
  private static final Duration CONNECT_TIMEOUT = Duration.ofSeconds(2);

  /** Maximum size of a response with one user: 1 MB, far more than a user object has. */
  private static final int MAX_BYTES = 1 << 20;

  /** Maximum size of a page: 16 MB, enough for 500 users with 30 KB of metadata each. */
  private static final int MAX_PAGE_BYTES = 16 << 20;

  /** Maximum {@code user_id} parameters that Clerk accepts in one call. */
  public static final int MAX_LOOKUP = 100;

  /** Maximum size of a key set: 64 KB; Clerk's have about 1 KB. */
  private static final int MAX_KEY_SET_BYTES = 64 << 10;

  /**
   * Concurrency limit of a server's calls about users (bulkhead). Clerk allows 1000 in 10 s, so
   * more of them would only be rate-limited.
   */
  private static final int MAX_CONCURRENT_CALLS = 32;

  /**
   * Maximum platform threads that wait for a permit, as in a burst of new users. Together with
   * those that make a call, they may take 112 of the 125 that JettyServer gives to sync, for 0.5 s.
   */
  private static final int MAX_WAITING_THREADS = 80;

  /** How long a platform thread waits for a permit. */
  private static final Duration PERMIT_TIMEOUT = Duration.ofMillis(500);

  /** Maximum virtual threads that wait for a permit; bounds the memory. */
  private static final int MAX_WAITING_VIRTUAL_THREADS = 1000;

  /**
   * Minimum timeout of a call that shows, when exceeded, that Clerk is down. A healthy Clerk
   * responds within 0.3 s.
   */
  private static final Duration MIN_CONCLUSIVE_TIMEOUT = Duration.ofSeconds(1);

  static {
    // HttpClient (Java 17 to 25) retries a GET whose connection breaks before the first byte, and a
    // failed connection attempt. That would double the calls of this class, which has its own
    // retry. The properties are read once, with the first request of the JVM.
    System.setProperty("jdk.httpclient.redirects.retrylimit", "1"); // attempts, the first included
    System.setProperty("jdk.httpclient.disableRetryConnect", "true");
  }

  private final HttpClient http =
      HttpClient.newBuilder()
          .executor(Executors.newCachedThreadPool(Threads.named("clerk")))
          .version(HttpClient.Version.HTTP_1_1)
          .connectTimeout(CONNECT_TIMEOUT)
          .followRedirects(
              HttpClient.Redirect.NEVER) // Java 17 would send the secret key to the other host
          .build();
  private final Semaphore permits = new Semaphore(MAX_CONCURRENT_CALLS);
  private final Outage outage = new Outage(log, "Clerk");
  private final String url;
  private final String secretKey;
  private final Set<String> fields;
  private final String userAgent;
  private final Runnable rateLimiter;
  private final ClerkCallMetrics times;
  private final SetupWarnings warnings;

  /**
   * No calls before this time: {@code Retry-After} of the last 429. Clerk's rate limit applies to
   * the instance, not to an endpoint.
   */
  private volatile Deadline throttledUntil = Deadline.in(Duration.ZERO);

  /**
   * @param url base URL without a trailing slash
   * @param fields keys of Clerk's user object to keep, see {@link ClerkUser#fields}
   * @param rateLimiter called before each call; may block
   */
  public ClerkApi(
      String url,
      String secretKey,
      Set<String> fields,
      MeterRegistry meters,
      SetupWarnings warnings,
      Runnable rateLimiter) {
    this.url = url;
    this.secretKey = secretKey;
    this.fields = fields;
    this.warnings = warnings;
    this.rateLimiter = rateLimiter;
    this.times = new ClerkCallMetrics(meters);
    String version = getClass().getPackage().getImplementationVersion();
    this.userAgent = "real-meet-server/" + (version == null ? "development" : version);
  }

  /**
   * Fetches a user.
   *
   * @param id of the form that {@link SessionAuth} lets through: it becomes a part of the URL
   * @return empty if Clerk has no such user
   * @throws Failure CLERK_UNAVAILABLE by the deadline, OVERLOADED if that was less than 1 s away,
   *     CLERK_UNAUTHORIZED, or CLERK_BAD_RESPONSE
   */
  public Optional<ClerkUser> user(String id, Deadline deadline) {
    return call("user", deadline, () -> readUser(id, get("/v1/users/" + id, MAX_BYTES, deadline)));
  }

  /** Makes a call about users: one of a limited number, and none while Clerk rate-limits us. */
  private <T> T call(String what, Deadline deadline, Supplier<T> work) {
    requireNotThrottled();
    acquirePermit(deadline);
    try {
      requireNotThrottled(); // Clerk may have throttled a call meanwhile
      return trackOutage(what, deadline, work);
    } finally {
      permits.release();
    }
  }

  /** Returns true if the last call that had 1 s or more of time failed, for whatever reason. */
  public boolean isDown() {
    return outage.isDown();
  }

  /**
   * Acquires one of the permits. While Clerk is down it does not wait: the calls in flight will
   * show when Clerk is back. A virtual thread waits as long as enough time for the call remains.
   *
   * @throws Failure throttled, if there is no permit in time
   */
  private void acquirePermit(Deadline deadline) {
    if (permits.tryAcquire()) {
      return;
    }
    boolean isVirtual = VirtualThreads.isVirtualThread();
    int maxWaiting = isVirtual ? MAX_WAITING_VIRTUAL_THREADS : MAX_WAITING_THREADS;
    if (!isDown() && permits.getQueueLength() < maxWaiting) {
      Duration timeout =
          isVirtual ? deadline.minus(MIN_CONCLUSIVE_TIMEOUT).remaining() : PERMIT_TIMEOUT;
      try {
        if (permits.tryAcquire(timeout.toNanos(), TimeUnit.NANOSECONDS)) {
          return;
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw unavailable("interrupted");
      }
    }
    throw Failure.throttled(
        MAX_CONCURRENT_CALLS + " calls to Clerk are under way", Duration.ofSeconds(1));
  }

  /**
   * Lists users in order of creation, oldest first.
   *
   * @param after id of the last user of the previous page, or empty
   * @param limit 1 to 500; a shorter page is the last
   * @throws Failure as {@link #user}
   */
  public List<ClerkUser> users(String after, int limit, Deadline deadline) {
    String cursor = after.isEmpty() ? "" : "&starting_after=" + after;
    String path = "/v1/users?limit=" + limit + "&order_by=created_at" + cursor;
    return list("users", path, deadline);
  }

  /**
   * Lists users, most recently updated first. Clerk has no cursor for this order.
   *
   * @param offset number of users to skip
   * @param limit 1 to 500; a shorter page is the last
   * @throws Failure as {@link #user}
   */
  public List<ClerkUser> recentlyUpdated(int offset, int limit, Deadline deadline) {
    String from = offset == 0 ? "" : "&offset=" + offset;
    String path = "/v1/users?order_by=-updated_at&limit=" + limit + from;
    return list("users", path, deadline);
  }

  /**
   * Looks up several users in one call.
   *
   * @param ids 1 to {@link #MAX_LOOKUP}, of the form that {@link ClerkUser#isId} accepts
   * @return the users whom Clerk has, in any order
   * @throws Failure as {@link #user}
   */
  public List<ClerkUser> lookup(Collection<String> ids, Deadline deadline) {
    String path =
        ids.stream()
            .map(id -> "&user_id=" + id)
            .collect(Collectors.joining("", "/v1/users?limit=" + ids.size(), ""));
    List<ClerkUser> users = list("lookup", path, deadline);
    // a proxy that drops the query would return other users
    return users.stream().filter(user -> ids.contains(user.id())).toList();
  }

  private List<ClerkUser> list(String what, String path, Deadline deadline) {
    return call(what, deadline, () -> readUsers(get(path, MAX_PAGE_BYTES, deadline)));
  }

  private List<ClerkUser> readUsers(HttpResponse<byte[]> response) {
    return parse(
        requireOk(response),
        json -> {
          List<ClerkUser> users = new ArrayList<>();
          boolean isArray = json.currentToken() == JsonToken.START_ARRAY;
          while (isArray && json.nextToken() != JsonToken.END_ARRAY) {
            users.add(ClerkUser.read(json, fields));
          }
          return isArray ? users : null;
        });
  }

  /**
   * Returns the number of users.
   *
   * @throws Failure as {@link #user}
   */
  public int userCount(Deadline deadline) {
    return call(
        "count",
        deadline,
        () -> {
          JsonNode count = parse(requireOk(get("/v1/users/count", MAX_BYTES, deadline)));
          if (!count.path("total_count").isInt()) {
            throw badResponse("a count without a number");
          }
          return count.get("total_count").asInt();
        });
  }

  private void requireNotThrottled() {
    if (!throttledUntil.remaining().isZero()) {
      throw Failure.throttled("Clerk rate-limits us (429)", throttledUntil.remaining());
    }
  }

  /**
   * Fetches the instance's signing keys. Clerk's rate limit does not count these calls, so they
   * ignore {@link #throttledUntil}.
   *
   * @return the JSON Web Key Set (RFC 7517 §5)
   * @throws Failure CLERK_UNAVAILABLE by the deadline, CLERK_UNAUTHORIZED, or CLERK_BAD_RESPONSE
   */
  JsonNode keySet(Deadline deadline) {
    return times.measure(
        "keys", () -> parse(requireOk(get("/v1/jwks", MAX_KEY_SET_BYTES, deadline))));
  }

  /**
   * Makes a call, and logs the begin and the end of an outage of Clerk.
   *
   * @param what label of the call in the metrics
   * @throws Failure OVERLOADED instead of CLERK_UNAVAILABLE if less than {@link
   *     #MIN_CONCLUSIVE_TIMEOUT} was left, since something else has used up the time
   */
  private <T> T trackOutage(String what, Deadline deadline, Supplier<T> call) {
    boolean conclusive = deadline.remaining().compareTo(MIN_CONCLUSIVE_TIMEOUT) >= 0;
    try {
      T result = times.measure(what, call);
      outage.succeeded();
      return result;
    } catch (Failure e) {
      if (!conclusive && e.kind() == Kind.CLERK_UNAVAILABLE) {
        throw e.isThrottled() ? e : tooLittleTime();
      }
      outage.failed(e.reason());
      throw e;
    }
  }

  /** Returns the failure of a call for which other work has left too little time. */
  public static Failure tooLittleTime() {
    return Failure.of(Kind.OVERLOADED, "too little time was left to ask Clerk");
  }

  private Optional<ClerkUser> readUser(String id, HttpResponse<byte[]> response) {
    if (response.statusCode() == 404) {
      if (!isNotFound(parse(response))) { // of a proxy: it must not look like a deletion
        throw badResponse("a 404 that is not Clerk's");
      }
      return Optional.empty();
    }
    ClerkUser user = parse(requireOk(response), json -> ClerkUser.read(json, fields));
    if (!user.id().equals(id)) {
      throw badResponse("another user than the one asked for");
    }
    return Optional.of(user);
  }

  /** Returns true for the body of a 404 with which Clerk says that it does not have a user. */
  private static boolean isNotFound(JsonNode body) {
    JsonNode errors = body.path("errors");
    return errors.isArray()
        && (errors.isEmpty() || errors.findValuesAsText("code").contains("resource_not_found"));
  }

  private static JsonNode parse(HttpResponse<byte[]> response) {
    return parse(response, VALUE_READER::readTree);
  }

  /**
   * Parses the single JSON value of a body.
   *
   * @throws Failure CLERK_BAD_RESPONSE if it is not what the reader expects
   */
  private static <T> T parse(HttpResponse<byte[]> response, JsonReader<T> reader) {
    try (JsonParser json = JSON.createParser(response.body())) {
      T value = json.nextToken() == null ? null : reader.read(json);
      if (value != null && json.nextToken() == null) {
        return value;
      }
    } catch (IOException e) {
      log.debug("Clerk's response is not the expected JSON"); // e's message may quote the body
    }
    throw badResponse("not the JSON that was asked for");
  }

  /** Reads a value; returns null if it has another type than expected. */
  private interface JsonReader<T> {
    T read(JsonParser json) throws IOException;
  }

  private HttpResponse<byte[]> requireOk(HttpResponse<byte[]> response) {
    int status = response.statusCode();
    if (status == 200) {
      return response;
    }
    String reason = "status " + status;
    if (status == 401) {
      throw Failure.of(Kind.CLERK_UNAUTHORIZED, "it rejects CLERK_SECRET_KEY, " + reason);
    }
    if (status == 429) {
      Duration retryAfter = retryAfter(response);
      throttleFor(retryAfter);
      throw Failure.throttled(
          reason + ", no calls for " + retryAfter.toSeconds() + " s", retryAfter);
    }
    throw status == 403 || status >= 500 ? unavailable(reason) : badResponse(reason);
  }

  /** Postpones further calls. The longest {@code Retry-After} of concurrent calls wins. */
  private synchronized void throttleFor(Duration retryAfter) {
    if (retryAfter.compareTo(throttledUntil.remaining()) > 0) {
      throttledUntil = Deadline.in(retryAfter);
    }
  }

  private static Duration retryAfter(HttpResponse<byte[]> response) {
    double seconds = // a long could overflow
        response
            .headers()
            .firstValue("Retry-After")
            .filter(value -> value.matches("\\d+"))
            .map(Double::parseDouble)
            .orElse(1.0);
    return Duration.ofSeconds((long) Math.max(1, Math.min(60, seconds)));
  }

  private static Failure unavailable(String reason) {
    return Failure.of(Kind.CLERK_UNAVAILABLE, reason);
  }

  private static Failure badResponse(String reason) {
    return Failure.of(Kind.CLERK_BAD_RESPONSE, "it sent an unexpected response, " + reason);
  }

  /** Sends a GET, and retries once if the connection broke or the status is 5xx. */
  private HttpResponse<byte[]> get(String path, int maxBytes, Deadline deadline) {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(url + path))
            .header("Authorization", "Bearer " + secretKey)
            .header("Clerk-API-Version", API_VERSION)
            .header("User-Agent", userAgent)
            .header("Accept", "application/json")
            .build();
    for (boolean isLast = false; ; isLast = true) {
      try {
        HttpResponse<byte[]> response = exchange(request, maxBytes, deadline);
        if (isLast || response.statusCode() < 500 || !waitBeforeRetry(deadline)) {
          return response;
        }
      } catch (IOException e) {
        if (isLast || !waitBeforeRetry(deadline)) {
          throw connectionLost(e);
        }
      }
    }
  }

  /** Returns CLERK_UNAVAILABLE with the JDK's message, unless that may quote the response. */
  private static Failure connectionLost(IOException e) {
    boolean noConnection =
        e instanceof ConnectException
            || e instanceof HttpConnectTimeoutException
            || e instanceof SSLException;
    return unavailable(noConnection ? e.toString() : "the connection broke during the response");
  }

  /**
   * Waits 50 to 250 ms before a retry; the jitter spreads the retries of many requests.
   *
   * @return false if there must be no retry: too little time is left, or Clerk rate-limits us
   */
  private boolean waitBeforeRetry(Deadline deadline) {
    long millis = ThreadLocalRandom.current().nextLong(50, 250);
    if (deadline.remaining().toMillis() <= millis) {
      return false;
    }
    try {
      Thread.sleep(millis);
      return throttledUntil.remaining().isZero();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /**
   * Sends a request and reads the whole response by the deadline; the JDK's own timeout covers only
   * the headers.
   */
  private HttpResponse<byte[]> exchange(HttpRequest request, int maxBytes, Deadline deadline)
      throws IOException {
    rateLimiter.run();
    Instant sentAt = Instant.now();
    CompletableFuture<HttpResponse<byte[]>> future =
        http.sendAsync(request, info -> new LimitedBody(maxBytes));
    try {
      HttpResponse<byte[]> response =
          future.get(deadline.remaining().toNanos(), TimeUnit.NANOSECONDS);
      response.headers().firstValue("Date").ifPresent(date -> warnings.compareClocks(sentAt, date));
      return response;
    } catch (TimeoutException e) {
      throw unavailable("no response in time");
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw unavailable("interrupted");
    } catch (ExecutionException e) {
      if (e.getCause() instanceof BodyTooLarge) {
        throw badResponse("more than " + maxBytes + " bytes");
      }
      if (e.getCause() instanceof IOException io && !(io instanceof ProtocolException)) {
        throw io;
      }
      throw badResponse("not HTTP"); // the message may quote the response
    } finally {
      future.cancel(true); // closes the connection of an unfinished exchange
    }
  }

  private static final class BodyTooLarge extends IOException {}

  /** Collects a response body up to a limit, so that an endless one does not fill the heap. */
  private static final class LimitedBody implements HttpResponse.BodySubscriber<byte[]> {
    private final HttpResponse.BodySubscriber<byte[]> body =
        HttpResponse.BodySubscribers.ofByteArray();
    private int left;
    private Flow.Subscription subscription;

    LimitedBody(int limit) {
      left = limit;
    }

    @Override
    public CompletionStage<byte[]> getBody() {
      return body.getBody();
    }

    @Override
    public void onSubscribe(Flow.Subscription subscription) {
      this.subscription = subscription;
      body.onSubscribe(subscription);
    }

    @Override
    public void onNext(List<ByteBuffer> buffers) {
      left -= buffers.stream().mapToInt(ByteBuffer::remaining).sum();
      if (left < 0) {
        subscription.cancel();
        body.onError(new BodyTooLarge());
      } else {
        body.onNext(buffers);
      }
    }

    @Override
    public void onError(Throwable e) {
      body.onError(e);
    }

    @Override
    public void onComplete() {
      body.onComplete();
    }
  }
}
