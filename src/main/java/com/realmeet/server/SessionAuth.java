package com.realmeet.server;

import com.auth0.jwt.JWT;
import com.auth0.jwt.algorithms.Algorithm;
import com.auth0.jwt.exceptions.SignatureVerificationException;
import com.auth0.jwt.interfaces.Claim;
import com.auth0.jwt.interfaces.DecodedJWT;
import com.realmeet.server.Failure.Kind;
import io.javalin.http.Context;
import io.javalin.http.Handler;
import java.security.interfaces.RSAPublicKey;
import java.time.Instant;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Set;

/**
 * Lets a request pass if it carries a Clerk session token, and notes whose it is. The rules are
 * those of Clerk's own JavaScript SDK ({@code @clerk/backend}).
 *
 * @see <a href="https://clerk.com/docs/guides/sessions/manual-jwt-verification">Clerk on manual JWT
 *     verification</a>
 */
final class SessionAuth implements Handler {
  private static final String SCHEME = "Bearer ";

  /** Clerk's mark of a session token; its JWT templates and machine tokens have the same key. */
  private static final Set<String> SESSION_CATEGORIES =
      Set.of("cl_B7d4PD111AAA", "cl_I7d4PD111III");

  /** A token in form only: its signature is of the right length. */
  private static final String UNSIGNED = "eyJhbGciOiJSUzI1NiJ9.e30." + "A".repeat(342);

  private static final String USER_ID_ATTRIBUTE = "userId";

  private final ClerkKeys keys;
  private final Set<String> authorizedParties;
  private final SetupWarnings warnings;

  /**
   * @param authorizedParties accepted {@code azp} claims; empty: any
   */
  SessionAuth(ClerkKeys keys, Set<String> authorizedParties, SetupWarnings warnings) {
    this.keys = keys;
    this.authorizedParties = authorizedParties;
    this.warnings = warnings;
  }

  /**
   * Fetches the keys and verifies something, so that the first token need not wait for that, and
   * for classes to load.
   *
   * @throws StartFailure if Clerk rejects the secret key
   */
  void warmUp() {
    keys.prefetch();
    keys.any().ifPresent(key -> isSigned(JWT.decode(UNSIGNED), key));
  }

  /**
   * Verifies the token of a request and notes its user. Waits, for 2 s at most, only if Clerk's
   * keys have to be fetched.
   *
   * @throws Failure AMBIGUOUS_AUTHORIZATION, MISSING_TOKEN, INVALID_TOKEN, or CLERK_UNAVAILABLE if
   *     there is no key to verify it with
   */
  @Override
  public void handle(Context ctx) {
    DecodedJWT jwt = decode(bearerToken(ctx));
    checkSignature(jwt, HttpServer.deadline(ctx));
    warnings.ownToken();
    ctx.attribute(USER_ID_ATTRIBUTE, checkClaims(jwt));
  }

  /** The user whose token this handler has verified: the only identity that a request has. */
  static String userId(Context ctx) {
    String id = ctx.attribute(USER_ID_ATTRIBUTE);
    if (id == null) {
      throw new IllegalStateException("the route is not behind SessionAuth");
    }
    return id;
  }

  private static String bearerToken(Context ctx) {
    List<String> headers = Collections.list(ctx.req().getHeaders("Authorization"));
    if (headers.size() > 1) {
      throw Failure.of(Kind.AMBIGUOUS_AUTHORIZATION);
    }
    String header = headers.isEmpty() ? "" : headers.get(0);
    String token = header.startsWith(SCHEME) ? header.substring(SCHEME.length()) : "";
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
    try {
      DecodedJWT jwt = JWT.decode(token);
      checkHeader(jwt);
      require(signature(jwt).length > 0, "not signed");
      jwt.getSubject(); // fails if the payload is the word null
      return jwt;
    } catch (Failure e) {
      throw e;
    } catch (RuntimeException e) { // whatever java-jwt makes of junk; its messages quote it
      throw invalid(e.getClass().getSimpleName());
    }
  }

  private static String keyId(DecodedJWT jwt) {
    return jwt.getHeaderClaim("kid").asString();
  }

  private static void checkHeader(DecodedJWT jwt) {
    require("RS256".equals(jwt.getAlgorithm()), "alg is not RS256");
    require(isAbsentOrOneOf(jwt.getHeaderClaim("typ"), Set.of("JWT")), "typ is not JWT");
    require(isAbsentOrOneOf(jwt.getHeaderClaim("cat"), SESSION_CATEGORIES), "not a session token");
    require(jwt.getHeaderClaim("crit").isMissing(), "crit is not understood"); // RFC 7515 §4.1.11
  }

  private void checkSignature(DecodedJWT jwt, Deadline deadline) {
    JwkSet current = keys.current(deadline);
    if (isSigned(jwt, current)) {
      return;
    }
    JwkSet newer = newerThan(current, jwt, deadline);
    if (newer == current || !isSigned(jwt, newer)) {
      String id = keyId(jwt);
      warnings.foreignToken(jwt.getIssuer(), String.valueOf(id), keys.describeOthers(id));
      throw invalid(current.get(keyId(jwt)) != null ? "signature is wrong" : "no key of this kid");
    }
  }

  /** The keys that Clerk has now: it may have rotated one. */
  private JwkSet newerThan(JwkSet current, DecodedJWT jwt, Deadline deadline) {
    if (keyId(jwt) == null) {
      return current; // no key is without an id
    }
    try {
      return keys.refreshFor(current, deadline);
    } catch (Failure e) {
      if (current.get(keyId(jwt)) != null) {
        return current; // no outage excuses a wrong signature
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

  private static byte[] signature(DecodedJWT jwt) {
    return Base64.getUrlDecoder().decode(jwt.getSignature());
  }

  private String checkClaims(DecodedJWT jwt) {
    double now = Instant.now().toEpochMilli() / 1000.0;
    Double expires = seconds(jwt, "exp");
    double skew = SetupWarnings.MAX_CLOCK_SKEW.toSeconds();
    require(expires != null && expires > now - skew, "expired");
    for (String name : List.of("nbf", "iat")) {
      Double begins = seconds(jwt, name);
      require(begins == null || begins <= now + skew, name + " lies in the future");
    }
    require(!"pending".equals(jwt.getClaim("sts").asString()), "the session is pending");
    String party = jwt.getClaim("azp").asString();
    require(
        authorizedParties.isEmpty() || party != null && authorizedParties.contains(party),
        "azp is not an authorized party, see CLERK_AUTHORIZED_PARTIES");
    String subject = jwt.getClaim("sub").asString();
    require(subject != null && ClerkUser.isId(subject), "sub is not a user id");
    return subject;
  }

  /** A time in seconds since 1970 (RFC 7519 §2, NumericDate), or null if absent. */
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

  private static Failure invalid(String fault) {
    return Failure.because(Kind.INVALID_TOKEN, "Token refused: " + fault);
  }
}
