package com.realmeet.server.core;

import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Set of web origins (RFC 6454), compared as text. An entry may have a wildcard for preview
 * deployments: {@code https://app-*.example.com}.
 */
public final class Origins {
  private static final Pattern ORIGIN =
      Pattern.compile("[a-z][a-z0-9+.-]*://(\\[[0-9a-f:.]+]|[a-z0-9._-]+)(:(?<port>\\d{1,5}))?");

  /**
   * Allows one {@code *}, in the first label of a host and after at least one other character,
   * followed by a registered domain: anybody can register a match of {@code https://app-*.com}.
   */
  private static final Pattern WILDCARD =
      Pattern.compile(
          "https?://[a-z0-9_][a-z0-9_-]*\\*[a-z0-9_-]*(\\.[a-z0-9_-]+)*"
              + "\\.([a-z0-9_-]+\\.[a-z0-9-]*[a-z][a-z0-9-]*|localhost|local|internal|test|example)"
              + "(:(?<port>\\d{1,5}))?");

  /** Maximum characters of a label of a host name (RFC 1035 §2.3.4). */
  private static final int MAX_LABEL = 63;

  /** Maximum characters of an origin: a host name has at most 253, plus scheme and port. */
  private static final int MAX_LENGTH = 300;

  private record Wildcard(String prefix, String suffix) {
    static Wildcard of(String entry) {
      int star = entry.indexOf('*');
      return new Wildcard(entry.substring(0, star), entry.substring(star + 1));
    }

    boolean matches(String origin) {
      int end = origin.length() - suffix.length();
      int length = end - prefix.length();
      return length > 0
          && length <= MAX_LABEL
          && origin.startsWith(prefix)
          && origin.endsWith(suffix)
          && origin.chars().skip(prefix.length()).limit(length).allMatch(Wildcard::stands);
    }

    /**
     * Returns true for characters that {@code *} may match: never a dot, which would admit another
     * domain.
     */
    private static boolean stands(int c) {
      return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-';
    }
  }

  private final Set<String> exact;
  private final List<Wildcard> wildcards;

  /**
   * @param entries as {@link #parse} returns them
   */
  public Origins(Set<String> entries) {
    exact =
        entries.stream()
            .filter(entry -> !isWildcard(entry))
            .collect(Collectors.toUnmodifiableSet());
    wildcards = entries.stream().filter(Origins::isWildcard).map(Wildcard::of).toList();
  }

  private static boolean isWildcard(String entry) {
    return entry.indexOf('*') >= 0;
  }

  /**
   * Returns true if the set contains this origin.
   *
   * @param origin as browsers write it
   */
  public boolean contains(String origin) {
    return exact.contains(origin)
        || wildcards.stream().anyMatch(wildcard -> wildcard.matches(origin));
  }

  /** Returns true if a text is an origin as browsers write it, and so is safe to log. */
  public static boolean isOrigin(String text) {
    return text.length() < MAX_LENGTH && ORIGIN.matcher(text).matches();
  }

  /**
   * Parses an entry of a setting.
   *
   * @return the origin as browsers write it (RFC 6454 §6.2), perhaps with a wildcard
   * @throws IllegalArgumentException if it is neither; its message is the predicate of a sentence
   */
  public static String parse(String entry) {
    String origin = entry.strip().toLowerCase(Locale.ROOT).replaceFirst("/$", "");
    Matcher matcher = (isWildcard(origin) ? WILDCARD : ORIGIN).matcher(origin);
    if (!matcher.matches()
        || matcher.group("port") != null && Integer.parseInt(matcher.group("port")) > 65535) {
      throw new IllegalArgumentException(
          "must be a comma-separated list of origins, each a scheme and a host without a path,"
              + " such as https://app.example.com; for previews one * inside the first part of a"
              + " host, as in https://app-*.example.com; * alone or in front and null are not"
              + " origins");
    }
    return origin.replaceFirst("^(http://.*):80$", "$1").replaceFirst("^(https://.*):443$", "$1");
  }
}
