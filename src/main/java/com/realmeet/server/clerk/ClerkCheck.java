package com.realmeet.server.clerk;

import static com.realmeet.server.core.CheckLine.fail;
import static com.realmeet.server.core.CheckLine.ok;
import static com.realmeet.server.core.CheckLine.warn;

import com.realmeet.server.core.CheckLine;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import io.micrometer.core.instrument.composite.CompositeMeterRegistry;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;

/** Checks Clerk for the command {@code check}: reachability, secret key, signing keys and clock. */
public final class ClerkCheck {
  /** Limits the key set's part of the check's 9 s, so that the comparison of the rows has time. */
  private static final Duration TIMEOUT = Duration.ofSeconds(4);

  private final SetupWarnings warnings = new SetupWarnings();
  private final ClerkApi clerk;
  private final String url;
  private final boolean development;
  private final Consumer<CheckLine> lines;

  /**
   * @param lines receives the results
   */
  public ClerkCheck(String url, String secretKey, Consumer<CheckLine> lines) {
    this.url = url;
    this.development = secretKey.startsWith("sk_test_");
    this.lines = lines;
    clerk =
        new ClerkApi(url, secretKey, Set.of(), new CompositeMeterRegistry(), warnings, () -> {});
  }

  /**
   * Fetches the key set, within 4 s, and adds the lines about it.
   *
   * @param jwtKey CLERK_JWT_KEY, or null
   * @return the client, for further checks with the same key; empty if Clerk is unreachable or
   *     rejects the key, so that they make no sense
   */
  public Optional<ClerkApi> run(RSAPublicKey jwtKey) {
    JwkSet keys = null;
    boolean accepted = true;
    try {
      keys = JwkSet.from(clerk.keySet(Deadline.in(TIMEOUT)), 0);
      lines.accept(ok("clerk", accepted(keys)));
    } catch (Failure e) {
      accepted = e.kind() == Kind.CLERK_BAD_RESPONSE;
      lines.accept(fail("clerk", problem(e)));
    }
    if (keys != null || jwtKey != null) {
      lines.accept(jwtKey(jwtKey, Optional.ofNullable(keys)));
    }
    lines.accept(clock());
    return accepted ? Optional.of(clerk) : Optional.empty();
  }

  private String accepted(JwkSet keys) {
    return "Clerk accepts CLERK_SECRET_KEY, of the %s instance %s"
        .formatted(
            development ? "development" : "production",
            JwkSet.quotable(keys.byKid().keySet().stream().sorted().toList()));
  }

  private String problem(Failure e) {
    return switch (e.kind()) {
      case CLERK_UNAUTHORIZED ->
          "Clerk rejects CLERK_SECRET_KEY: copy it again from Clerk's dashboard, API keys";
      case CLERK_BAD_RESPONSE ->
          "what responds at " + url + " is not Clerk, see CLERK_API_URL: " + e.reason();
      default ->
          "Clerk cannot be reached at "
              + url
              + ", look for a firewall or a proxy in between, and see CLERK_API_URL: "
              + e.reason();
    };
  }

  private static CheckLine jwtKey(RSAPublicKey jwtKey, Optional<JwkSet> keys) {
    if (jwtKey == null) {
      return ok("keys", "tokens are verified with the keys that Clerk publishes");
    }
    if (keys.isEmpty()) {
      return warn(
          "keys", "CLERK_JWT_KEY cannot be compared with Clerk's keys, since these cannot be had");
    }
    return keys.get().byKid().values().stream()
            .anyMatch(key -> key.getModulus().equals(jwtKey.getModulus()))
        ? ok("keys", "tokens are verified with CLERK_JWT_KEY, which is a key of this instance")
        : fail(
            "keys",
            "CLERK_JWT_KEY is no key of the instance of CLERK_SECRET_KEY, so all its tokens are"
                + " refused: remove it, or copy it again from Clerk's dashboard, API keys, JWKS");
  }

  private CheckLine clock() {
    Optional<Duration> skew = warnings.clockSkew();
    if (skew.isEmpty()) {
      return warn("clock", "this machine's clock cannot be compared with Clerk's at the moment");
    }
    long seconds = skew.get().toSeconds();
    return seconds == 0
        ? ok("clock", "this machine's clock and Clerk's are the same to 5 s")
        : fail(
            "clock",
            "this machine's clock is %d s %s Clerk's, so good tokens are refused: set it, best by NTP"
                .formatted(Math.abs(seconds), seconds > 0 ? "behind" : "ahead of"));
  }
}
