package com.realmeet.server.clerk;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import com.realmeet.server.core.Failure;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * What we keep of a Clerk user.
 *
 * @param id Clerk's user id
 * @param email primary email, or null for a user who signed up by phone or username
 * @param name first and last name, or null
 * @param imageUrl or null
 * @param updatedAt Clerk's clock: orders two copies of one user
 * @param fields what CLERK_FIELDS names of Clerk's object, as the text of a JSON object that jsonb
 *     can hold; null if it names nothing
 * @see <a href="https://clerk.com/docs/reference/backend-api/tag/users">Clerk's user object</a>
 */
public record ClerkUser(
    String id, String email, String name, String imageUrl, Instant updatedAt, String fields) {

  private static final Pattern ID = Pattern.compile("user_[A-Za-z0-9_-]{1,64}");

  /** In UTF-8: a row of a B-tree index in Postgres holds 2,704 bytes. */
  private static final int MAX_EMAIL_BYTES = 2000;

  /** In characters; a name is cut off here. */
  private static final int MAX_NAME_LENGTH = 1000;

  /** In characters; a URL that is cut off would be of no use, so that a longer one is none. */
  private static final int MAX_IMAGE_URL_LENGTH = 2000;

  /** The end of the year 9999, in milliseconds: Postgres could not store much more. */
  private static final long END_OF_TIME = 253_402_300_800_000L;

  /** Postgres' numeric, in which jsonb keeps numbers, has up to 16,383 digits after the point. */
  private static final int MAX_EXPONENT = 10_000;

  /** The keys of {@link Wire}. */
  private static final Set<String> KEYS =
      Set.of(
          "id",
          "first_name",
          "last_name",
          "image_url",
          "primary_email_address_id",
          "email_addresses",
          "updated_at");

  /** Clerk's user object as it comes, less the fields that we do not read; in milliseconds. */
  @JsonIgnoreProperties(ignoreUnknown = true) // by the mapper's setting they would be buffered
  record Wire(
      String id,
      String firstName,
      String lastName,
      String imageUrl,
      String primaryEmailAddressId,
      List<EmailAddress> emailAddresses,
      Long updatedAt) {}

  /** One of a user's addresses. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  record EmailAddress(String id, String emailAddress) {}

  /** Whether Postgres can index the address, if there is one. */
  public boolean hasStorableEmail() {
    return email == null || email.getBytes(StandardCharsets.UTF_8).length <= MAX_EMAIL_BYTES;
  }

  /** Whether a user object as it comes has an email address that would be stored. */
  public static boolean hasEmail(JsonNode user) {
    try {
      return primaryEmail(ClerkApi.JSON.convertValue(user, Wire.class)) != null;
    } catch (IllegalArgumentException e) { // it is no user object
      return false;
    }
  }

  /** Whether this may become part of a URL: anything else could ask Clerk for something else. */
  public static boolean isId(String text) {
    return ID.matcher(text).matches();
  }

  /**
   * Reads Clerk's object from its first token on. Of the keys that nobody needs no objects are
   * made: metadata may be large, and a page has 500 users.
   *
   * @param fields the keys to keep, beside those that every row has
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
    return from(
        ClerkApi.JSON.treeToValue(user, Wire.class),
        fields.isEmpty() ? null : storable(user.retain(fields)).toString());
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

  /** A value as jsonb can hold it: without what text lacks; a number that is too large is text. */
  private static JsonNode storable(JsonNode value) {
    if (value.isObject()) {
      ObjectNode object = ClerkApi.JSON.createObjectNode();
      value.properties().forEach(e -> object.set(storable(e.getKey()), storable(e.getValue())));
      return object;
    }
    if (value.isArray()) {
      ArrayNode array = ClerkApi.JSON.createArrayNode();
      value.forEach(element -> array.add(storable(element)));
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
    return millis != null && millis >= 0 && millis < END_OF_TIME;
  }

  /** The address that Clerk calls primary: there is no fallback to the first. */
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

  /** Trimmed text that Postgres can store, or null. */
  private static String text(String value) {
    String text = value == null ? "" : storable(value).strip();
    return text.isEmpty() ? null : text;
  }

  /** Postgres' text type has no NUL and no half pairs. */
  private static String storable(String text) {
    return text.codePoints()
        .filter(c -> c != 0 && !(c >= Character.MIN_SURROGATE && c <= Character.MAX_SURROGATE))
        .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append)
        .toString();
  }
}
