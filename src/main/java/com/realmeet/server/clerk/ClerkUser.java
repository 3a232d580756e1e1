package com.realmeet.server.clerk;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.NullNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import com.realmeet.server.core.Failure;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * Version of a Clerk user, reduced to what the table stores.
 *
 * @param id Clerk's user id
 * @param email primary email, or null for a user who signed up by phone or username
 * @param name first and last name, or null
 * @param imageUrl URL of the profile image, or null
 * @param updatedAt time of the last change by Clerk's clock: orders two versions of a user
 * @param fields fields of Clerk's object that CLERK_FIELDS names, as text of a JSON object that
 *     jsonb can store; null if it names none
 * @see <a href="https://clerk.com/docs/reference/backend-api/tag/users">Clerk's user object</a>
 */
public record ClerkUser(
    String id, String email, String name, String imageUrl, Instant updatedAt, String fields) {

  private static final Pattern ID = Pattern.compile("user_[A-Za-z0-9_-]{1,64}");

  /**
   * Maximum length of an address in UTF-8: an entry of a B-tree index in Postgres holds 2,704
   * bytes.
   */
  private static final int MAX_EMAIL_BYTES = 2000;

  /** Address that a row has while its user has none; nobody can receive mail there (RFC 2606). */
  private static final Pattern PLACEHOLDER =
      Pattern.compile(".*@(deleted|moved)\\.invalid", Pattern.CASE_INSENSITIVE | Pattern.DOTALL);

  /** Maximum characters of a name; a longer one is truncated. */
  private static final int MAX_NAME_LENGTH = 1000;

  /**
   * Maximum characters of an image URL; a longer one becomes null, since a truncated URL is
   * useless.
   */
  private static final int MAX_IMAGE_URL_LENGTH = 2000;

  /**
   * Maximum time by which Clerk's clock may be ahead of ours: a version of the far future would
   * reject all later ones.
   */
  private static final Duration MAX_AHEAD = Duration.ofDays(1);

  /** Maximum levels of nesting in a field that is kept; what is deeper becomes null. */
  private static final int MAX_DEPTH = 500;

  /**
   * Maximum decimal exponent of a number. jsonb stores numbers as numeric, which has at most 16,383
   * digits after the decimal point.
   */
  private static final int MAX_EXPONENT = 10_000;

  /** Keys that {@link Wire} reads. */
  private static final Set<String> KEYS =
      Set.of(
          "id",
          "first_name",
          "last_name",
          "image_url",
          "primary_email_address_id",
          "email_addresses",
          "updated_at");

  /**
   * Clerk's user object in its own form, reduced to the fields that are read; times in
   * milliseconds.
   */
  @JsonIgnoreProperties(ignoreUnknown = true) // the mapper's setting would buffer them
  record Wire(
      String id,
      String firstName,
      String lastName,
      String imageUrl,
      String primaryEmailAddressId,
      List<EmailAddress> emailAddresses,
      Long updatedAt) {}

  /** Email address of a user. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  record EmailAddress(String id, String emailAddress) {}

  /**
   * Returns true if there is no address, or one that Postgres can index and that is no placeholder
   * of a row, which would keep that row from becoming a tombstone.
   */
  public boolean hasStorableEmail() {
    return email == null
        || email.getBytes(StandardCharsets.UTF_8).length <= MAX_EMAIL_BYTES
            && !PLACEHOLDER.matcher(email).matches();
  }

  /** Returns this version, without its address if that cannot be stored. */
  public ClerkUser withStorableEmail() {
    return hasStorableEmail() ? this : new ClerkUser(id, null, name, imageUrl, updatedAt, fields);
  }

  /** Returns true if a user object of Clerk has a primary email address. */
  public static boolean hasEmail(JsonNode user) {
    try {
      return primaryEmail(ClerkApi.JSON.convertValue(user, Wire.class)) != null;
    } catch (IllegalArgumentException e) { // not a user object
      return false;
    }
  }

  /**
   * Returns true if a text has the form of a user id and is safe in a URL: another text could
   * change the path of a call to Clerk.
   */
  public static boolean isId(String text) {
    return ID.matcher(text).matches();
  }

  /**
   * Parses Clerk's user object, beginning at its first token. Keys that are not needed are skipped
   * without creating objects, since metadata may be large and a page has 500 users.
   *
   * @param fields keys to keep in addition to those of every row
   * @throws Failure CLERK_BAD_RESPONSE if the id or the time is missing
   * @throws IOException if it is not the JSON of a user
   */
  static ClerkUser read(JsonParser json, Set<String> fields) throws IOException {
    if (json.currentToken() != JsonToken.START_OBJECT) {
      throw Failure.of(Failure.Kind.CLERK_BAD_RESPONSE, "a user who is no object");
    }
    ObjectNode user = ClerkApi.JSON.createObjectNode();
    while (json.nextToken() != JsonToken.END_OBJECT) {
      String key = json.currentName();
      json.nextToken();
      if (KEYS.contains(key) || fields.contains(key)) {
        user.set(key, ClerkApi.VALUE_READER.readTree(json));
      } else {
        json.skipChildren();
      }
    }
    Wire wire = ClerkApi.JSON.treeToValue(user, Wire.class); // before retain() changes the object
    return from(
        wire, fields.isEmpty() ? null : storable(user.retain(fields), MAX_DEPTH).toString());
  }

  private static ClerkUser from(Wire wire, String fields) {
    if (wire.id == null || !isId(wire.id) || !isTime(wire.updatedAt)) {
      throw Failure.of(Failure.Kind.CLERK_BAD_RESPONSE, "a user without id or updated_at");
    }
    String imageUrl = text(wire.imageUrl);
    String name =
        Stream.of(wire.firstName, wire.lastName)
            .map(ClerkUser::text)
            .filter(Objects::nonNull)
            .collect(Collectors.joining(" "));
    return new ClerkUser(
        wire.id,
        primaryEmail(wire),
        cut(text(name)),
        imageUrl == null || imageUrl.length() > MAX_IMAGE_URL_LENGTH ? null : imageUrl,
        Instant.ofEpochMilli(wire.updatedAt),
        fields);
  }

  /** Returns the version with the later time. */
  public static ClerkUser newer(ClerkUser a, ClerkUser b) {
    return a.updatedAt.isBefore(b.updatedAt) ? b : a;
  }

  /**
   * Returns a value that jsonb can store: texts without invalid characters, and too large numbers
   * as texts.
   *
   * @param depth maximum levels of nesting
   */
  private static JsonNode storable(JsonNode value, int depth) {
    if (value.isContainerNode() && depth == 0) {
      return NullNode.getInstance();
    }
    if (value.isObject()) {
      ObjectNode object = ClerkApi.JSON.createObjectNode();
      value
          .properties()
          .forEach(e -> object.set(storable(e.getKey()), storable(e.getValue(), depth - 1)));
      return object;
    }
    if (value.isArray()) {
      ArrayNode array = ClerkApi.JSON.createArrayNode();
      value.forEach(element -> array.add(storable(element, depth - 1)));
      return array;
    }
    boolean tooLarge =
        value.isBigDecimal() && Math.abs((long) value.decimalValue().scale()) > MAX_EXPONENT;
    return value.isTextual() || tooLarge ? TextNode.valueOf(storable(value.asText())) : value;
  }

  private static String cut(String name) {
    return name == null || name.codePointCount(0, name.length()) <= MAX_NAME_LENGTH
        ? name
        : name.substring(0, name.offsetByCodePoints(0, MAX_NAME_LENGTH)).strip();
  }

  private static boolean isTime(Long millis) {
    return millis != null
        && millis >= 0
        && millis <= System.currentTimeMillis() + MAX_AHEAD.toMillis();
  }

  /** Returns the primary email address, or null; there is no fallback to the first address. */
  private static String primaryEmail(Wire wire) {
    if (wire.primaryEmailAddressId == null || wire.emailAddresses == null) {
      return null;
    }
    return wire.emailAddresses.stream()
        .filter(Objects::nonNull)
        .filter(address -> wire.primaryEmailAddressId.equals(address.id))
        .map(address -> text(address.emailAddress))
        .filter(Objects::nonNull)
        .findFirst()
        .orElse(null);
  }

  /** Returns a trimmed text that Postgres can store, or null if it is empty. */
  private static String text(String value) {
    String text = value == null ? "" : storable(value).strip();
    return text.isEmpty() ? null : text;
  }

  /** Removes U+0000 and unpaired surrogates, which Postgres' text type cannot store. */
  private static String storable(String text) {
    return text.codePoints()
        .filter(c -> c != 0 && !(c >= Character.MIN_SURROGATE && c <= Character.MAX_SURROGATE))
        .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append)
        .toString();
  }
}
