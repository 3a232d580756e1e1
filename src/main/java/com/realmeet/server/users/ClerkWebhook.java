package com.realmeet.server.users;

import com.fasterxml.jackson.databind.JsonNode;
import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.clerk.JwkSet;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.RequestId;
import io.javalin.http.Context;
import io.micrometer.core.instrument.MeterRegistry;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Applies Clerk's webhooks. An event only triggers a refresh: the user is fetched from Clerk, so
 * that order and repetition of events do not matter, and a user is deleted only if both the event
 * and Clerk say so. Svix, Clerk's webhook provider, retries for about a day after any response but
 * a 2xx.
 *
 * @see <a href="https://docs.svix.com/receiving/verifying-payloads/how-manual">Svix's
 *     signatures</a>
 * @see <a href="https://clerk.com/docs/guides/development/webhooks/overview">Clerk's events</a>
 */
public final class ClerkWebhook {
  private static final Logger log = LoggerFactory.getLogger(ClerkWebhook.class);

  /** Accepted difference between an event's timestamp and our clock, as in Svix's libraries. */
  private static final Duration TOLERANCE = Duration.ofMinutes(5);

  private static final Pattern INSTANCE_ID = Pattern.compile("ins_\\w{1,64}");

  /**
   * Signature of version 1, the only one that Svix makes with a shared secret: HMAC-SHA256 in
   * Base64.
   */
  private static final Pattern SIGNATURE = Pattern.compile("v1,[A-Za-z0-9+/]{43}=");

  private record Received(boolean success) {}

  private record Signed(String id, String timestamp, String signatures) {}

  private final List<byte[]> secrets;
  private final UserSync userSync;
  private final InstanceCheck instanceCheck;
  private final Supplier<Set<String>> ourInstanceIds;
  private final AtomicBoolean otherInstanceLogged = new AtomicBoolean();
  private final WebhookMetrics metrics;

  /**
   * @param secrets keys in use; several during a key rotation
   * @param ourInstanceIds returns the possible ids of CLERK_SECRET_KEY's Clerk instance; empty if
   *     unknown
   */
  public ClerkWebhook(
      List<byte[]> secrets,
      UserSync userSync,
      InstanceCheck instanceCheck,
      Supplier<Set<String>> ourInstanceIds,
      MeterRegistry meters) {
    this.secrets = secrets;
    this.userSync = userSync;
    this.instanceCheck = instanceCheck;
    this.ourInstanceIds = ourInstanceIds;
    this.metrics = new WebhookMetrics(meters);
  }

  /**
   * Responds 200 when the table reflects the event, or if the event does not concern users.
   *
   * @throws Failure one of the WEBHOOK kinds, or a fault of Clerk or the database; never a 4xx for
   *     these, which would look like an invalid signature
   */
  public void receive(Context ctx) {
    String type = WebhookMetrics.UNVERIFIED;
    try {
      Signed signed = signed(ctx); // the body of an unsigned request is not read
      byte[] body = ctx.bodyAsBytes();
      if (!isSigned(signed.id, signed.timestamp, body, signed.signatures)) {
        throw Failure.of(Kind.WEBHOOK_BAD_SIGNATURE);
      }
      JsonNode event = parse(body);
      type = event.get("type").asText();
      String loggedType = type.replaceAll("[^\\w.]", "?");
      String name = "webhook " + loggedType + " (request " + RequestId.of(ctx) + ")";
      apply(name, event, Deadline.of(ctx));
      metrics.succeeded(type);
    } catch (RuntimeException e) {
      metrics.failed(type, e);
      throw e;
    }
    ctx.json(new Received(true));
  }

  /** Reads the signature headers, and rejects those that are invalid whatever the body is. */
  private static Signed signed(Context ctx) {
    String id = header(ctx, "id");
    String timestamp = header(ctx, "timestamp");
    String signatures = header(ctx, "signature");
    if (!timestamp.matches("\\d{1,12}")) {
      throw Failure.of(Kind.WEBHOOK_UNSIGNED);
    }
    Instant sent = Instant.ofEpochSecond(Long.parseLong(timestamp));
    if (Duration.between(sent, Instant.now()).abs().compareTo(TOLERANCE) > 0) {
      throw Failure.of(Kind.WEBHOOK_TIMESTAMP_OUT_OF_TOLERANCE);
    }
    if (Stream.of(signatures.split(" ")).noneMatch(text -> SIGNATURE.matcher(text).matches())) {
      throw Failure.of(Kind.WEBHOOK_BAD_SIGNATURE);
    }
    return new Signed(id, timestamp, signatures);
  }

  /** Returns true if one of the signatures, each "v1,base64", was made with one of the secrets. */
  public boolean isSigned(String id, String timestamp, byte[] body, String signatures) {
    byte[] prefix = (id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8);
    return secrets.stream()
        .map(secret -> sign(secret, prefix, body))
        .anyMatch(expected -> contains(signatures, expected));
  }

  /** Returns a header by Svix's name, or by that of Standard Webhooks. */
  private static String header(Context ctx, String name) {
    String value = ctx.header("svix-" + name);
    if (value == null) {
      value = ctx.header("webhook-" + name);
    }
    if (value == null || value.isBlank()) {
      throw Failure.of(Kind.WEBHOOK_UNSIGNED);
    }
    return value;
  }

  private static byte[] sign(byte[] secret, byte[] prefix, byte[] body) {
    try {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(secret, "HmacSHA256"));
      mac.update(prefix);
      return mac.doFinal(body);
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Returns true if the list contains the expected signature; compares in constant time. */
  private static boolean contains(String signatures, byte[] expected) {
    byte[] text =
        ("v1," + Base64.getEncoder().encodeToString(expected)).getBytes(StandardCharsets.US_ASCII);
    boolean found = false;
    for (String signature : signatures.split(" ")) {
      found |= MessageDigest.isEqual(text, signature.getBytes(StandardCharsets.UTF_8));
    }
    return found;
  }

  private static JsonNode parse(byte[] body) {
    try {
      JsonNode event = ClerkApi.JSON.readTree(body);
      if (event.path("type").isTextual()) {
        return event;
      }
    } catch (IOException e) {
      log.debug("A signed webhook is not JSON");
    }
    throw Failure.of(Kind.WEBHOOK_MALFORMED);
  }

  /**
   * @param name name of the webhook in the log
   */
  private void apply(String name, JsonNode event, Deadline deadline) {
    warnOfOtherInstance(name, event.path("instance_id").asText());
    String type = event.get("type").asText();
    JsonNode user = event.path("data");
    switch (type) {
      case "user.created", "user.updated" -> {
        String id = userId(user);
        runForSvix(name, id, user, deadline, () -> userSync.refresh(id, deadline));
      }
      case "user.deleted" -> {
        if (user.path("id").asText("").isEmpty()) { // Clerk's API declares the id as optional
          log.warn("{} has no user id: run backfill --delete-missing", name);
        } else {
          String id = userId(user);
          runForSvix(
              name, id, user, deadline, () -> userSync.markDeletedIfMissing(id, name, deadline));
        }
      }
      default -> log.debug("{} is ignored", name);
    }
  }

  /**
   * Logs once that an event comes from another Clerk instance. It is harmless, but the endpoint or
   * the key is wrong.
   */
  private void warnOfOtherInstance(String name, String eventInstanceId) {
    Set<String> ours = ourInstanceIds.get();
    if (INSTANCE_ID.matcher(eventInstanceId).matches()
        && !ours.isEmpty()
        && !ours.contains(eventInstanceId)
        && otherInstanceLogged.compareAndSet(false, true)) {
      log.warn(
          "{} comes from Clerk instance {}, but CLERK_SECRET_KEY is of {}: create the"
              + " endpoint in the instance of the key, or set the key of the endpoint's instance",
          name,
          eventInstanceId,
          JwkSet.quotable(ours));
    }
  }

  private static String userId(JsonNode user) {
    String id = user.path("id").asText();
    if (!ClerkUser.isId(id)) {
      throw Failure.of(Kind.WEBHOOK_MALFORMED);
    }
    return id;
  }

  /**
   * Runs the work of an event, and translates its failures for Svix.
   *
   * @param name name of the webhook in the log
   * @param user as the event contains the user
   * @throws Failure of a kind that makes Svix send the event again
   */
  private void runForSvix(String name, String id, JsonNode user, Deadline deadline, Runnable work) {
    try {
      work.run();
    } catch (Failure e) {
      switch (e.kind()) {
        case USER_DELETED -> log.debug("{}: {} is a tombstone", name, id);
        case USER_NOT_AT_CLERK -> {
          if (ClerkUser.hasEmail(user)) { // else it is an example of Clerk's dashboard
            if (instanceCheck.isKnownToBeWrong(deadline)) {
              throw Failure.of(Kind.WEBHOOK_OTHER_INSTANCE);
            }
            log.warn("{}: Clerk does not have {}, the row is left unchanged", name, id);
            throw Failure.of(Kind.WEBHOOK_USER_NOT_AT_CLERK);
          }
          log.info("{}: Clerk does not have {}, perhaps one of its example events", name, id);
        }
        case NO_EMAIL -> log.warn("{}: {} has no email address and is not stored", name, id);
        case EMAIL_IN_USE -> { // may be resolved when Svix retries
          log.warn("{}: {} has an email address that another row has", name, id);
          throw Failure.of(Kind.WEBHOOK_EMAIL_IN_USE);
        }
        case CLERK_OTHER_INSTANCE -> throw Failure.of(Kind.WEBHOOK_OTHER_INSTANCE);
        default -> throw e;
      }
    }
  }
}
