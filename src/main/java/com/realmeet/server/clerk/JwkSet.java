package com.realmeet.server.clerk;

import com.auth0.jwk.InvalidPublicKeyException;
import com.auth0.jwk.Jwk;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import java.security.interfaces.RSAPublicKey;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Public keys of a JSON Web Key Set (RFC 7517) that can verify session tokens.
 *
 * @param byKid keys by key id
 * @param forAnyKid CLERK_JWT_KEY, which verifies all tokens whatever their key id; or null
 * @param fetchedNanos time of the fetch in nanoseconds, by the clock of {@link ClerkKeys}
 */
public record JwkSet(Map<String, RSAPublicKey> byKid, RSAPublicKey forAnyKid, long fetchedNanos) {
  private static final Logger log = LoggerFactory.getLogger(JwkSet.class);

  /** Minimum key size for RS256 (RFC 7518 §3.3). */
  public static final int MIN_RSA_BITS = 2048;

  /**
   * Parses a set and ignores invalid entries.
   *
   * @throws Failure CLERK_BAD_RESPONSE if it has no key that can be used
   */
  static JwkSet from(JsonNode set, long fetchedNanos) {
    Map<String, RSAPublicKey> byKid = new HashMap<>();
    JsonNode entries = set.path("keys");
    for (JsonNode entry : entries.isArray() ? entries : List.<JsonNode>of()) {
      try {
        Jwk jwk = Jwk.fromValues(ClerkApi.JSON.convertValue(entry, new TypeReference<>() {}));
        if (jwk.getId() != null
            && (jwk.getUsage() == null || jwk.getUsage().equals("sig"))
            && (jwk.getAlgorithm() == null || jwk.getAlgorithm().equals("RS256"))
            && jwk.getPublicKey() instanceof RSAPublicKey key
            && key.getModulus().bitLength() >= MIN_RSA_BITS) {
          byKid.put(jwk.getId(), key);
        }
      } catch (InvalidPublicKeyException | RuntimeException e) {
        log.debug("An entry of Clerk's key set is no key: {}", e.getClass().getSimpleName());
      }
    }
    if (byKid.isEmpty()) {
      throw Failure.of(Kind.CLERK_BAD_RESPONSE, "it has no usable key");
    }
    return new JwkSet(Map.copyOf(byKid), null, fetchedNanos);
  }

  /** Returns a set of one key that verifies all tokens. */
  static JwkSet of(RSAPublicKey key) {
    return new JwkSet(Map.of(), key, 0);
  }

  /** Returns key ids in a form that is safe in a log line. */
  public static String quotable(Collection<String> ids) {
    return String.join(", ", ids).replaceAll("[^\\w, -]", "?");
  }

  /** Returns any one of the keys. */
  Optional<RSAPublicKey> any() {
    return forAnyKid != null ? Optional.of(forAnyKid) : byKid.values().stream().findAny();
  }

  /**
   * Returns the key of a key id.
   *
   * @param kid null if a token has none
   * @return null if there is none
   */
  RSAPublicKey get(String kid) {
    return forAnyKid != null || kid == null ? forAnyKid : byKid.get(kid);
  }
}
