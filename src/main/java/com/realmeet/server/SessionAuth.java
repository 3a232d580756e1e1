package com.realmeet.server;

import com.auth0.jwt.JWT;
import com.auth0.jwt.interfaces.Claim;
import com.auth0.jwt.interfaces.DecodedJWT;
import com.realmeet.server.Failure.Kind;
import io.javalin.http.Context;
import io.javalin.http.Handler;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.Signature;
import java.security.SignatureException;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.function.Consumer;

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

  /** By how much two clocks may differ. */
  static final Duration SKEW = Duration.ofSeconds(5);

  /** A token in form only: its signature is of the right length. */
  private static final String UNSIGNED = "eyJhbGciOiJSUzI1NiJ9.e30." + "A".repeat(342);

  private static final String USER_ID_ATTRIBUTE = "userId";

  private final ClerkKeys keys;
  private final Set<String> authorizedParties;
  private final ForeignTokens foreignTokens;

  /**
   * @param authorizedParties accepted {@code azp} claims; empty: any
   */
  SessionAuth(ClerkKeys keys, Set<String> authorizedParties) {
    this.keys = keys;
    this.authorizedParties = authorizedParties;
    this.foreignTokens = new ForeignTokens(keys);
  }

  /**
   * Fetches the keys and verifies something, so that the first token need not wait for that, and
   * for classes to load.
   *
   * @throws StartFailure if Clerk rejects the secret key
   */
  void warmUp() {
    keys.warm();
    keys.any().ifPresent(key -> isSigned(JWT.decode(UNSIGNED), key));
  }

  /**
   * Verifies the token of a request. That waits for nothing, unless the keys have to be fetched:
   * then what follows runs when they are here.
   *
   * @throws Failure AMBIGUOUS_AUTHORIZATION, MISSING_TOKEN, INVALID_TOKEN, or CLERK_UNAVAILABLE if
   *     there is no key to verify it with
   */
  @Override
  public void handle(Context ctx) {
    DecodedJWT jwt = decode(bearerToken(ctx));
    with(keys.usable(), ctx, usable -> verify(jwt, usable, ctx));
  }

  /** Later, the work runs on the thread that has fetched the keys, where it must not wait. */
  private static void with(CompletableFuture<JwkSet> keys, Context ctx, Consumer<JwkSet> work) {
    if (keys.isDone()) {
      work.accept(Background.join(keys));
    } else {
      ctx.future(() -> keys.thenAccept(work));
    }
  }

  private void verify(DecodedJWT jwt, JwkSet usable, Context ctx) {
    if (isSigned(jwt, usable)) {
      admit(jwt, ctx);
      return;
    }
    String id = keyId(jwt);
    boolean known = usable.get(id) != null;
    // No newer keys have one without a name, and no outage excuses a wrong signature.
    CompletableFuture<JwkSet> newer =
        id == null ? CompletableFuture.completedFuture(usable) : keys.newerThan(usable);
    with(
        known ? newer.exceptionally(e -> usable) : newer,
        ctx,
        found -> {
          if (found == usable || !isSigned(jwt, found)) {
            foreignTokens.seen(jwt);
            throw invalid(known ? "signature is wrong" : "no key of this kid");
          }
          admit(jwt, ctx);
        });
  }

  private void admit(DecodedJWT jwt, Context ctx) {
    foreignTokens.ownSeen();
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

  private static boolean isSigned(DecodedJWT jwt, JwkSet keys) {
    RSAPublicKey key = keys.get(keyId(jwt));
    return key != null && isSigned(jwt, key);
  }

  /**
   * By the JDK itself: java-jwt would report a wrong signature by an exception, stack trace and
   * all.
   */
  private static boolean isSigned(DecodedJWT jwt, RSAPublicKey key) {
    String signed = jwt.getHeader() + "." + jwt.getPayload();
    try {
      Signature signature = Signature.getInstance("SHA256withRSA");
      signature.initVerify(key);
      signature.update(signed.getBytes(StandardCharsets.US_ASCII));
      return signature.verify(signature(jwt));
    } catch (SignatureException e) { // of a wrong length
      return false;
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  private static byte[] signature(DecodedJWT jwt) {
    return Base64.getUrlDecoder().decode(jwt.getSignature());
  }

  private String checkClaims(DecodedJWT jwt) {
    double now = Instant.now().toEpochMilli() / 1000.0;
    Double expires = seconds(jwt, "exp");
    double skew = SKEW.toSeconds();
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
