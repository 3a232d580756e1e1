package com.realmeet.server.testing;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.interfaces.RSAPrivateCrtKey;
import java.security.interfaces.RSAPublicKey;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.RSAPublicKeySpec;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Stands in for Clerk, over HTTP: users, signing keys and session tokens, in the shapes of Clerk's
 * Backend API. It counts its calls and can be told to fail. Tests and {@code make dev} share it.
 */
public final class StandInClerk implements AutoCloseable {
  public static final String SECRET_KEY = "sk_test_stand_in";

  /** How long a user keeps a token, of the minute for which it is valid. */
  private static final Duration TOKEN_REUSE = Duration.ofSeconds(10);

  private static final JsonMapper JSON = new JsonMapper();
  private static final Base64.Encoder BASE64 = Base64.getUrlEncoder().withoutPadding();

  /** One of Clerk's signing keys. */
  public record SigningKey(String kid, KeyPair pair) {
    /** Ready-made, since the JVM of the tests takes a second to make one. */
    private static final class Stored {
      static final List<KeyPair> PAIRS = read();

      private static List<KeyPair> read() {
        try (InputStream in = StandInClerk.class.getResourceAsStream("/signing-keys.txt")) {
          return new String(in.readAllBytes(), StandardCharsets.US_ASCII)
              .lines()
              .filter(line -> !line.startsWith("#"))
              .map(line -> pair(Base64.getDecoder().decode(line)))
              .toList();
        } catch (IOException e) {
          throw new UncheckedIOException(e);
        }
      }
    }

    /** The one with which the stand-in signs unless told otherwise. */
    public static SigningKey usual() {
      return new SigningKey("ins_1", Stored.PAIRS.get(0));
    }

    /** Always the same key, which is not the usual one. */
    public static SigningKey second(String kid) {
      return new SigningKey(kid, Stored.PAIRS.get(1));
    }

    /** Always the same key, which is neither the usual nor the second one. */
    public static SigningKey third(String kid) {
      return new SigningKey(kid, Stored.PAIRS.get(2));
    }

    /** A new 2048-bit key. */
    public static SigningKey generate(String kid) {
      try {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
        generator.initialize(2048);
        return new SigningKey(kid, generator.generateKeyPair());
      } catch (GeneralSecurityException e) {
        throw new IllegalStateException(e);
      }
    }

    /**
     * Both halves of a key.
     *
     * @param secret in PKCS #8
     * @throws IllegalArgumentException if it is no RSA key
     */
    public static KeyPair pair(byte[] secret) {
      try {
        KeyFactory rsa = KeyFactory.getInstance("RSA");
        RSAPrivateCrtKey key =
            (RSAPrivateCrtKey) rsa.generatePrivate(new PKCS8EncodedKeySpec(secret));
        RSAPublicKeySpec open = new RSAPublicKeySpec(key.getModulus(), key.getPublicExponent());
        return new KeyPair(rsa.generatePublic(open), key);
      } catch (GeneralSecurityException e) {
        throw new IllegalArgumentException(e);
      }
    }

    /** As an entry of a JSON Web Key Set. */
    public ObjectNode jwk() {
      RSAPublicKey key = (RSAPublicKey) pair.getPublic();
      return JSON.createObjectNode()
          .put("use", "sig")
          .put("kty", "RSA")
          .put("kid", kid)
          .put("alg", "RS256")
          .put("n", BASE64.encodeToString(unsigned(key.getModulus().toByteArray())))
          .put("e", BASE64.encodeToString(key.getPublicExponent().toByteArray()));
    }

    private static byte[] unsigned(byte[] bytes) {
      return bytes[0] == 0 ? java.util.Arrays.copyOfRange(bytes, 1, bytes.length) : bytes;
    }
  }

  private record Token(String text, long made) {}

  /** A user and the time by which a list is sorted. */
  private record Timed(ObjectNode user, long time) {}

  private final HttpServer server;
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final Map<String, ObjectNode> users = new ConcurrentSkipListMap<>();
  private final Map<String, Token> tokens = new ConcurrentHashMap<>();
  private final AtomicInteger userCalls = new AtomicInteger();
  private final AtomicInteger keyCalls = new AtomicInteger();
  private final AtomicInteger listCalls = new AtomicInteger();
  private final AtomicInteger otherCalls = new AtomicInteger();
  private final AtomicLong clock = new AtomicLong();
  private final AtomicInteger lookupCalls = new AtomicInteger();
  private final String secretKey;
  private volatile SigningKey key;
  private volatile String authorizedParty = "http://localhost:3000";
  private volatile HttpHandler userHandler = this::answerUser;
  private volatile HttpHandler keyHandler = this::answerKeys;
  private volatile HttpHandler listHandler = this::answerList;
  private volatile HttpHandler lookupHandler = this::answerLookup;

  /**
   * Starts on 127.0.0.1.
   *
   * @param port 0 picks a free one
   */
  public StandInClerk(int port, SigningKey key) {
    this(port, key, SECRET_KEY);
  }

  /**
   * Starts on 127.0.0.1 as an instance of its own.
   *
   * @param port 0 picks a free one
   * @param key whose kid is the id of the instance, as at Clerk
   * @param secretKey the only one that it accepts
   */
  public StandInClerk(int port, SigningKey key, String secretKey) {
    this.key = key;
    this.secretKey = secretKey;
    try {
      server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 1024);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    server.createContext("/", this::route);
    server.setExecutor(threads);
    server.start();
  }

  public StandInClerk() {
    this(0, SigningKey.usual());
  }

  public String url() {
    return "http://127.0.0.1:" + server.getAddress().getPort();
  }

  /** The handler of Clerk's own routes, to which others can be added. */
  public void addRoute(String path, HttpHandler handler) {
    server.createContext(path, handler);
  }

  /** What a server has to send in order to be answered. */
  public String secretKey() {
    return secretKey;
  }

  // Users

  /**
   * Adds a user, or replaces one: what Clerk would send, with the few fields that matter varied.
   */
  public ObjectNode putUser(String id, String email, String firstName, String lastName) {
    ObjectNode user = JSON.createObjectNode().put("id", id).put("object", "user");
    user.put("first_name", firstName).put("last_name", lastName);
    user.put("image_url", "https://img.clerk.com/" + id).put("has_image", true);
    user.put("primary_email_address_id", email == null ? null : "idn_" + id);
    var emails = user.putArray("email_addresses");
    if (email != null) {
      emails.addObject().put("id", "idn_other").put("email_address", "other-" + email);
      emails.addObject().put("id", "idn_" + id).put("email_address", email);
    }
    user.putObject("public_metadata");
    ObjectNode before = users.get(id);
    user.put("created_at", before == null ? now() : createdAt(before));
    return putUser(user);
  }

  /** In milliseconds, and never twice the same: two changes in one would have no order. */
  private long now() {
    return clock.updateAndGet(last -> Math.max(last + 1, Instant.now().toEpochMilli()));
  }

  /** Stores a user as of now. */
  public ObjectNode putUser(ObjectNode user) {
    user.put("updated_at", now());
    users.put(user.get("id").asText(), user);
    return user;
  }

  /**
   * Adds a user, user_ada with ada@example.com for "ada", and returns a session token of theirs.
   */
  public String signUp(String name) {
    putUser("user_" + name, name + "@example.com", name, null);
    return token("user_" + name);
  }

  public void deleteUser(String id) {
    users.remove(id);
  }

  /** All users by id. */
  public Map<String, ObjectNode> users() {
    return users;
  }

  // Faults

  /** Lets a handler answer for a user instead, until {@link #heal}. */
  public void onUser(HttpHandler handler) {
    userHandler = handler;
  }

  /** Lets a handler answer for the keys instead, until {@link #heal}. */
  public void onKeys(HttpHandler handler) {
    keyHandler = handler;
  }

  /** Ends all faults. */
  public void heal() {
    userHandler = this::answerUser;
    keyHandler = this::answerKeys;
    listHandler = this::answerList;
    lookupHandler = this::answerLookup;
  }

  /** Lets a handler answer for the list of users instead, until {@link #heal}. */
  public void onList(HttpHandler handler) {
    listHandler = handler;
  }

  /** Lets a handler answer for users that are listed by their ids, until {@link #heal}. */
  public void onLookup(HttpHandler handler) {
    lookupHandler = handler;
  }

  /** A handler that answers with a status and a body. */
  public static HttpHandler answering(int status, String body) {
    return exchange -> send(exchange, status, body);
  }

  /** How often a user was asked for. */
  public int userCalls() {
    return userCalls.get();
  }

  /** How often the keys were asked for. */
  public int keyCalls() {
    return keyCalls.get();
  }

  /** How often a page of users was asked for. */
  public int listCalls() {
    return listCalls.get();
  }

  /** How often users were listed by their ids. */
  public int lookupCalls() {
    return lookupCalls.get();
  }

  /** How often anything else was asked for. */
  public int otherCalls() {
    return otherCalls.get();
  }

  // Tokens

  public SigningKey key() {
    return key;
  }

  /** Signs, and publishes, with another key from now on. */
  public void setKey(SigningKey key) {
    this.key = key;
    tokens.clear();
  }

  /** The front end's origin in tokens to come. */
  public void setAuthorizedParty(String origin) {
    authorizedParty = origin;
    tokens.clear();
  }

  /** A session token as Clerk makes them, but for the given life. */
  public String token(String userId, Duration life) {
    return sign(header(), claims(userId, life), key.pair().getPrivate());
  }

  /**
   * A session token that is valid for a minute, as at Clerk. As there, a user has the same one for
   * a while: without optimized code, signing takes longer than all else in a request.
   */
  public String token(String userId) {
    long now = System.nanoTime();
    return tokens.compute(
            userId,
            (id, last) ->
                last != null && now - last.made < TOKEN_REUSE.toNanos()
                    ? last
                    : new Token(token(id, Duration.ofSeconds(60)), now))
        .text;
  }

  /** The header of a good token. */
  public ObjectNode header() {
    return JSON.createObjectNode()
        .put("alg", "RS256")
        .put("cat", "cl_B7d4PD111AAA")
        .put("kid", key.kid())
        .put("typ", "JWT");
  }

  /** The claims of a good token. */
  public ObjectNode claims(String userId, Duration life) {
    long now = Instant.now().getEpochSecond();
    return JSON.createObjectNode()
        .put("azp", authorizedParty)
        .put("exp", now + life.toSeconds())
        .put("iat", now)
        .put("iss", "https://stand-in.clerk.accounts.dev")
        .put("nbf", now - 10)
        .put("sid", "sess_1")
        .put("sts", "active")
        .put("sub", userId)
        .put("v", 2);
  }

  /** A token of any header and claims, sensible or not. */
  public static String sign(JsonNode header, JsonNode claims, PrivateKey key) {
    String text = encode(header.toString()) + "." + encode(claims.toString());
    try {
      Signature signature = Signature.getInstance("SHA256withRSA");
      signature.initSign(key);
      signature.update(text.getBytes(StandardCharsets.US_ASCII));
      return text + "." + BASE64.encodeToString(signature.sign());
    } catch (GeneralSecurityException e) {
      throw new IllegalArgumentException(e);
    }
  }

  private static String encode(String json) {
    return BASE64.encodeToString(json.getBytes(StandardCharsets.UTF_8));
  }

  // Webhooks

  /** An event about a user as it is now, or as it is when it is gone. */
  public String event(String type, String userId) {
    ObjectNode event = JSON.createObjectNode().put("object", "event").put("type", type);
    ObjectNode user = users.get(userId);
    if (type.equals("user.deleted") || user == null) {
      event.putObject("data").put("id", userId).put("object", "user").put("deleted", true);
    } else {
      event.set("data", user.deepCopy());
    }
    event.put("timestamp", Instant.now().toEpochMilli());
    return event.put("instance_id", key.kid()).toString();
  }

  /** A webhook, signed as Svix does it, ready to be sent. */
  public static HttpRequest.Builder webhook(URI url, String secret, Instant time, String body) {
    String id = "msg_" + UUID.randomUUID().toString().replace("-", "");
    String timestamp = String.valueOf(time.getEpochSecond());
    return HttpRequest.newBuilder(url)
        .header("svix-id", id)
        .header("svix-timestamp", timestamp)
        .header("svix-signature", "v1," + hmac(secret, id + "." + timestamp + "." + body))
        .header("Content-Type", "application/json")
        .POST(HttpRequest.BodyPublishers.ofString(body));
  }

  private static String hmac(String secret, String text) {
    try {
      byte[] key = Base64.getDecoder().decode(secret.substring("whsec_".length()));
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(key, "HmacSHA256"));
      return Base64.getEncoder().encodeToString(mac.doFinal(text.getBytes(StandardCharsets.UTF_8)));
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  // HTTP

  private void route(HttpExchange exchange) throws IOException {
    String path = exchange.getRequestURI().getPath();
    try {
      if (!("Bearer " + secretKey).equals(exchange.getRequestHeaders().getFirst("Authorization"))) {
        otherCalls.incrementAndGet();
        send(
            exchange, 401, error("clerk_key_invalid", "The provided Clerk Secret Key is invalid."));
      } else if (path.equals("/v1/jwks")) {
        keyCalls.incrementAndGet();
        keyHandler.handle(exchange);
      } else if (path.equals("/v1/users") && !values(exchange, "user_id").isEmpty()) {
        lookupCalls.incrementAndGet();
        lookupHandler.handle(exchange);
      } else if (path.equals("/v1/users")) {
        listCalls.incrementAndGet();
        listHandler.handle(exchange);
      } else if (path.equals("/v1/users/count")) {
        otherCalls.incrementAndGet();
        send(exchange, 200, "{\"object\":\"total_count\",\"total_count\":" + users.size() + "}");
      } else if (path.startsWith("/v1/users/")) {
        userCalls.incrementAndGet();
        userHandler.handle(exchange);
      } else {
        otherCalls.incrementAndGet();
        send(exchange, 404, error("resource_not_found", "not found"));
      }
    } finally {
      exchange.close();
    }
  }

  /** Clerk's own answer about a user. */
  public void answerUser(HttpExchange exchange) throws IOException {
    ObjectNode user =
        users.get(exchange.getRequestURI().getPath().substring("/v1/users/".length()));
    if (user == null) {
      send(exchange, 404, error("resource_not_found", "not found"));
    } else {
      send(exchange, 200, user.toString());
    }
  }

  /**
   * Clerk's own page of users, by order_by and offset, or after a user: after one who is gone,
   * none.
   */
  public void answerList(HttpExchange exchange) throws IOException {
    Map<String, String> query = query(exchange);
    int limit = Integer.parseInt(query.getOrDefault("limit", "10"));
    int offset = Integer.parseInt(query.getOrDefault("offset", "0"));
    String order = query.getOrDefault("order_by", "-created_at");
    String key = order.replaceFirst("^[+-]", "");
    if (limit < 1 || limit > 500 || offset < 0 || !key.matches("(created|updated)_at")) {
      send(exchange, 422, error("form_param_value_invalid", "is invalid"));
      return;
    }
    String after = query.get("starting_after");
    long from = after == null ? 0 : createdAt(users.get(after));
    Comparator<Timed> oldestFirst = Comparator.comparingLong(Timed::time);
    var page = JSON.createArrayNode();
    users.values().stream()
        .filter(user -> after == null || createdAt(user) > from)
        .map(user -> new Timed(user, user.get(key).asLong()))
        .sorted(order.startsWith("-") ? oldestFirst.reversed() : oldestFirst)
        .skip(offset)
        .limit(limit)
        .forEach(each -> page.add(each.user));
    send(exchange, 200, page.toString());
  }

  /** Clerk's own list of the users with some ids: those that do not exist are left out. */
  public void answerLookup(HttpExchange exchange) throws IOException {
    List<String> ids = values(exchange, "user_id");
    if (ids.size() > 100) {
      send(exchange, 422, error("form_param_exceeds_allowed_size", "too many user_id"));
      return;
    }
    List<String> limit = values(exchange, "limit");
    var page = JSON.createArrayNode();
    ids.stream()
        .distinct()
        .map(users::get)
        .filter(Objects::nonNull)
        .limit(limit.isEmpty() ? 10 : Integer.parseInt(limit.get(0)))
        .forEach(page::add);
    send(exchange, 200, page.toString());
  }

  private static long createdAt(ObjectNode user) {
    return user == null ? Long.MAX_VALUE : user.get("created_at").asLong();
  }

  private static Map<String, String> query(HttpExchange exchange) {
    return parameters(exchange)
        .collect(Collectors.toMap(pair -> pair[0], pair -> pair[1], (a, b) -> a));
  }

  /** All values of a parameter, which may be repeated. */
  private static List<String> values(HttpExchange exchange, String name) {
    return parameters(exchange).filter(pair -> pair[0].equals(name)).map(pair -> pair[1]).toList();
  }

  private static Stream<String[]> parameters(HttpExchange exchange) {
    String query = exchange.getRequestURI().getQuery();
    return query == null
        ? Stream.empty()
        : Stream.of(query.split("&")).map(pair -> pair.split("=", 2));
  }

  private void answerKeys(HttpExchange exchange) throws IOException {
    send(exchange, 200, keySet(key).toString());
  }

  /** A JSON Web Key Set of some keys. */
  public static ObjectNode keySet(SigningKey... keys) {
    ObjectNode set = JSON.createObjectNode();
    var entries = set.putArray("keys");
    for (SigningKey each : keys) {
      entries.add(each.jwk());
    }
    return set;
  }

  private static String error(String code, String message) {
    ObjectNode error = JSON.createObjectNode();
    error.putArray("errors").addObject().put("code", code).put("message", message);
    return error.put("clerk_trace_id", "stand-in").toString();
  }

  /** Sends a whole answer. */
  public static void send(HttpExchange exchange, int status, String body) throws IOException {
    byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", "application/json");
    exchange.sendResponseHeaders(status, bytes.length == 0 ? -1 : bytes.length);
    exchange.getResponseBody().write(bytes);
    exchange.close();
  }

  @Override
  public void close() {
    server.stop(0);
    threads.shutdownNow();
  }
}
