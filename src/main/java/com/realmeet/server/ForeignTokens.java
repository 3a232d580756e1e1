package com.realmeet.server;

import com.auth0.jwt.interfaces.DecodedJWT;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Says once that a token is of another Clerk instance than ours, unless one of ours has come
 * before. Anybody can make up a token: one that does not look like Clerk's is not spoken of.
 */
final class ForeignTokens {
  private static final Logger log = LoggerFactory.getLogger(ForeignTokens.class);

  /** Such as {@code https://clerk.example.com}, or behind a proxy with a path. */
  private static final Pattern ISSUER = Pattern.compile("https://[\\w.:/-]{1,200}");

  private static final Pattern KEY_ID = Pattern.compile("[\\w-]{1,64}");

  private final ClerkKeys keys;

  /** Whether there is no more to say. */
  private volatile boolean told;

  ForeignTokens(ClerkKeys keys) {
    this.keys = keys;
  }

  /** Notes a token that one of our keys has signed. */
  void ownSeen() {
    if (!told) {
      told = true;
    }
  }

  /** Notes a token that none of our keys has signed. */
  void seen(DecodedJWT jwt) {
    if (told) {
      return;
    }
    String issuer = String.valueOf(jwt.getIssuer());
    String keyId = String.valueOf(jwt.getHeaderClaim("kid").asString());
    if (ISSUER.matcher(issuer).matches() && KEY_ID.matcher(keyId).matches()) {
      tell(issuer, keyId);
    }
  }

  private synchronized void tell(String issuer, String keyId) {
    String ours = keys.describeOthers(keyId);
    if (!told && ours != null) {
      told = true;
      log.warn(
          "A token comes from {} and is signed with key {}, but {}: copy both keys from the Clerk"
              + " instance whose publishable key the front end has",
          issuer,
          keyId,
          ours);
    }
  }
}
