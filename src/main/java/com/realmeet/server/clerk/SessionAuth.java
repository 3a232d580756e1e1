package com.realmeet.server.clerk;

import com.auth0.jwt.JWT;
import com.auth0.jwt.algorithms.Algorithm;
import com.auth0.jwt.exceptions.SignatureVerificationException;
import com.auth0.jwt.interfaces.Claim;
import com.auth0.jwt.interfaces.DecodedJWT;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.util.BufferRecycler;
import com.fasterxml.jackson.core.util.JsonRecyclerPools;
import com.realmeet.server.core.Access;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.Origins;
import io.javalin.http.Context;
import io.javalin.http.Handler;
import java.io.IOException;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import org.eclipse.jetty.util.VirtualThreads;

/**
 * Before-handler that authenticates requests by a Clerk session token. The rules are those of
 * Clerk's own JavaScript SDK ({@code @clerk/backend}).
 *
 * @see <a href="https://clerk.com/docs/guides/sessions/manual-jwt-verification">Clerk on manual JWT
 *     verification</a>
 */
public final class SessionAuth implements Handler {
  private static final String SCHEME = "Bearer ";

  /**
   * Values of the header {@code cat} by which Clerk marks session tokens; tokens of JWT templates
   * and of machines are signed with the same key.
   */
  private static final Set<String> SESSION_CATEGORIES =
      Set.of("cl_B7d4PD111AAA", "cl_I7d4PD111III");

  /** Accepted clock skew between this machine and Clerk, the same as in Clerk's SDK. */
  static final Duration MAX_CLOCK_SKEW = Duration.ofSeconds(5);

  /**
   * Entry of CLERK_AUTHORIZED_PARTIES that accepts tokens without {@code azp}, which native apps
   * have.
   */
  public static final String NO_PARTY = "none";

  /** Texts into which JavaScript converts a missing token or a pending promise. */
  private static final Set<String> NO_TOKENS =
      Set.of("null", "undefined", "[object Promise]", "[object Object]");

  /**
   * Parser of tokens that nobody has verified yet. It accepts no long names of keys, since it and
   * java-jwt, which parses the token afterwards, keep thousands of names for the next tokens.
   */
  private static final JsonFactory JSON =
      JsonFactory.builder()
          .streamReadConstraints(StreamReadConstraints.builder().maxNameLength(128).build())
          .build();

  /** Well-formed token with an invalid signature, for the warm-up. */
  private static final String UNSIGNED = "eyJhbGciOiJSUzI1NiJ9.e30." + "A".repeat(342);

  private final ClerkKeys keys;
  private final Set<String> authorizedParties;
  private final Origins origins;
  private final SetupWarnings warnings;

  /**
   * @param authorizedParties accepted {@code azp} claims, in the form of {@link Origins}; {@link
   *     #NO_PARTY} accepts tokens without one; empty: all tokens
   */
  public SessionAuth(ClerkKeys keys, Set<String> authorizedParties, SetupWarnings warnings) {
    this.keys = keys;
    this.authorizedParties = authorizedParties;
    this.origins =
        new Origins(
            authorizedParties.stream()
                .filter(party -> !party.equals(NO_PARTY))
                .collect(Collectors.toSet()));
    this.warnings = warnings;
  }

  /**
   * Fetches the keys and verifies a token once (warm-up), so that the first request waits neither
   * for keys nor for class loading.
   *
   * @throws StartupException if Clerk rejects the secret key
   */
  public void warmUp() {
    keys.prefetch();
    keys.any().ifPresent(key -> isSigned(JWT.decode(UNSIGNED), key));
  }

  /**
   * Verifies the token of a request and stores its user id in the context. Blocks only if Clerk's
   * keys have to be fetched, for at most 2 s per fetch.
   *
   * @throws Failure AMBIGUOUS_AUTHORIZATION, MISSING_TOKEN, INVALID_TOKEN, or CLERK_UNAVAILABLE if
   *     there is no key to verify the token
   */
  @Override
  public void handle(Context ctx) {
    if (ctx.routeRoles().contains(Access.PUBLIC)) {
      return;
    }
    DecodedJWT jwt = decode(bearerToken(ctx));
    checkHeader(jwt);
    checkSignature(jwt, Deadline.of(ctx));
    checkCategory(jwt);
    checkTimes(jwt);
    String subject = subject(jwt); // before azp, which tokens of machines do not have either
    checkSession(jwt);
    ctx.attribute(Access.USER_ID_ATTRIBUTE, subject);
    warnings.tokenAccepted();
  }

  /**
   * Returns the id of the user whose token was verified.
   *
   * @throws IllegalStateException if the route is public, or for a before-handler, which runs
   *     before the token is verified
   */
  public static String userId(Context ctx) {
    String id = ctx.attribute(Access.USER_ID_ATTRIBUTE);
    if (id == null) {
      throw new IllegalStateException(
          "no token was verified: the route is public, or this is a before-handler, which must be"
              + " beforeMatched");
    }
    return id;
  }

  private String bearerToken(Context ctx) {
    List<String> headers = Collections.list(ctx.req().getHeaders("Authorization"));
    if (headers.size() > 1) {
      throw Failure.of(Kind.AMBIGUOUS_AUTHORIZATION);
    }
    String header = headers.isEmpty() ? "" : headers.get(0);
    boolean bearer = header.regionMatches(true, 0, SCHEME, 0, SCHEME.length());
    String token = bearer ? header.substring(SCHEME.length()) : "";
    if (NO_TOKENS.contains(token)) {
      warnings.noToken(token);
    }
    if (token.isEmpty() || contains(token, ' ') || contains(token, '\t') || contains(token, ',')) {
      throw Failure.of(Kind.MISSING_TOKEN);
    }
    return token;
  }

  private static boolean contains(String text, char c) {
    return text.indexOf(c) >= 0;
  }

  private static DecodedJWT decode(String token) {
    require(!contains(token, '='), "padded"); // RFC 7515 §2, but java-jwt lets it pass
    String[] parts = token.split("\\.", -1);
    require(parts.length == 3, "not three parts");
    try {
      requireOneObject(parts[0]);
      requireOneObject(parts[1]);
      require(decoded(parts[2]).length > 0, "not signed");
      DecodedJWT jwt = JWT.decode(token);
      discardParseBuffer();
      return jwt;
    } catch (Failure e) {
      throw e;
    } catch (IOException
        | RuntimeException e) { // of an invalid token; its message quotes the token
      throw invalid(e.getClass().getSimpleName());
    }
  }

  private static byte[] decoded(String part) {
    return Base64.getUrlDecoder().decode(part);
  }

  /**
   * Requires a part to be one JSON object: java-jwt accepts {@code null}, and ignores trailing
   * text.
   */
  private static void requireOneObject(String part) throws IOException {
    try (JsonParser json = JSON.createParser(decoded(part))) {
      require(json.nextToken() == JsonToken.START_OBJECT, "not a JSON object");
      json.skipChildren();
      require(json.nextToken() == null, "text follows the JSON object");
    }
  }

  /**
   * Discards the buffer of 8 KB that Jackson keeps for the next parse of the thread. A virtual
   * thread usually parses no other token, but keeps the buffer while it waits for the database.
   * Delete when java-jwt's Jackson mapper can be given a recycler pool.
   */
  private static void discardParseBuffer() {
    if (VirtualThreads.isVirtualThread()) {
      JsonRecyclerPools.defaultPool()
          .acquirePooled()
          .allocCharBuffer(BufferRecycler.CHAR_TOKEN_BUFFER);
    }
  }

  private static String keyId(DecodedJWT jwt) {
    return jwt.getHeaderClaim("kid").asString();
  }

  private static void checkHeader(DecodedJWT jwt) {
    require("RS256".equals(jwt.getAlgorithm()), "alg is not RS256");
    require(jwt.getHeaderClaim("crit").isMissing(), "crit is not understood"); // RFC 7515 §4.1.11
  }

  private void checkSignature(DecodedJWT jwt, Deadline deadline) {
    JwkSet current = keys.current(deadline);
    if (isSigned(jwt, current)) {
      return;
    }
    JwkSet newer = refreshedAfter(current, jwt, deadline);
    if (newer == current || !isSigned(jwt, newer)) {
      String id = keyId(jwt);
      warnings.foreignToken(jwt.getIssuer(), String.valueOf(id), keys.ids());
      throw invalid(current.get(id) != null ? "signature is wrong" : "no key of this kid");
    }
  }

  /** Returns the keys that Clerk has now, since it may have rotated one. */
  private JwkSet refreshedAfter(JwkSet current, DecodedJWT jwt, Deadline deadline) {
    if (keyId(jwt) == null) {
      return current; // every key has an id
    }
    try {
      return keys.refreshFor(current, deadline);
    } catch (Failure e) {
      if (current.get(keyId(jwt)) != null) {
        return current; // an outage does not turn a wrong signature into a 503
      }
      throw e;
    }
  }

  private static boolean isSigned(DecodedJWT jwt, JwkSet keys) {
    RSAPublicKey key = keys.get(keyId(jwt));
    return key != null && isSigned(jwt, key);
  }

  private static boolean isSigned(DecodedJWT jwt, RSAPublicKey key) {
    try {
      Algorithm.RSA256(key, null).verify(jwt);
      return true;
    } catch (SignatureVerificationException e) {
      return false;
    }
  }

  private void checkCategory(DecodedJWT jwt) {
    require(
        isAbsentOrOneOf(jwt.getHeaderClaim("typ"), Set.of("JWT")),
        "typ is not JWT", // but "at+jwt", for example: RFC 9068 §2.1
        warnings::otherCategory);
    require(
        isAbsentOrOneOf(jwt.getHeaderClaim("cat"), SESSION_CATEGORIES),
        "not a session token",
        warnings::otherCategory);
  }

  private void checkTimes(DecodedJWT jwt) {
    double now = Instant.now().toEpochMilli() / 1000.0;
    double skew = MAX_CLOCK_SKEW.toSeconds();
    Double expires = seconds(jwt, "exp");
    require(expires != null, "exp is missing");
    require(expires > now - skew, "expired", () -> warnings.expired((long) (now - expires)));
    for (String name : List.of("nbf", "iat")) {
      Double begins = seconds(jwt, name);
      require(
          begins == null || begins <= now + skew,
          name + " lies in the future",
          () -> warnings.wrongClock((long) (begins - now), "behind"));
    }
  }

  private void checkSession(DecodedJWT jwt) {
    require(
        !"pending".equals(jwt.getClaim("sts").asString()),
        "the session is pending",
        warnings::pendingSession);
    Claim azp = jwt.getClaim("azp");
    String party = azp.asString();
    boolean absent = azp.isMissing() || azp.isNull();
    require(
        authorizedParties.isEmpty()
            || absent && authorizedParties.contains(NO_PARTY)
            || party != null && origins.contains(party),
        "azp is not an authorized party, see CLERK_AUTHORIZED_PARTIES",
        () -> warnings.otherParty(party, String.join(",", authorizedParties)));
  }

  private String subject(DecodedJWT jwt) {
    String subject = jwt.getClaim("sub").asString();
    require(
        subject != null && ClerkUser.isId(subject),
        "sub is not a user id",
        () -> warnings.otherSubject(subject));
    return subject;
  }

  /** Returns a time in seconds since 1970 (RFC 7519 §2, NumericDate), or null if it is absent. */
  private static Double seconds(DecodedJWT jwt, String name) {
    Claim claim = jwt.getClaim(name);
    require(claim.isMissing() || claim.asDouble() != null, name + " is not a number");
    return claim.asDouble();
  }

  private static boolean isAbsentOrOneOf(Claim claim, Set<String> values) {
    return claim.isMissing() || claim.asString() != null && values.contains(claim.asString());
  }

  private static void require(boolean holds, String fault) {
    if (!holds) {
      throw invalid(fault);
    }
  }

  /**
   * Rejects a token that one of our keys has signed.
   *
   * @param warning logs what to do, since the cause may be a wrong configuration
   */
  private static void require(boolean holds, String fault, Runnable warning) {
    if (!holds) {
      warning.run();
      throw invalid(fault);
    }
  }

  private static Failure invalid(String fault) {
    return Failure.of(Kind.INVALID_TOKEN, "Token refused: " + fault);
  }
}
