package com.realmeet.server.database;

import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * Maps the parameters of a database URL to properties of pgjdbc, ignores some with a warning, and
 * rejects the others. Unknown ones are never passed through: a pgjdbc property could change the
 * host.
 *
 * @see <a
 *     href="https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS">libpq's
 *     parameters</a>
 */
final class DatabaseParameters {
  /** Parameters that pgjdbc also has: libpq's name → pgjdbc's. */
  private static final Map<String, String> PROPERTIES =
      Map.of(
          "application_name", "ApplicationName",
          "channel_binding", "channelBinding",
          "load_balance_hosts", "loadBalanceHosts",
          "options", "options",
          "require_auth", "requireAuth",
          "sslnegotiation", "sslNegotiation",
          "target_session_attrs", "targetServerType");

  /** Permitted values of some of them: libpq's → pgjdbc's. */
  private static final Map<String, Map<String, String>> VALUES =
      Map.of(
          "channel_binding",
          Map.of("disable", "disable", "prefer", "prefer", "require", "require"),
          "load_balance_hosts",
          Map.of("disable", "false", "random", "true"),
          "sslnegotiation",
          Map.of("direct", "direct", "postgres", "postgres"),
          "target_session_attrs",
          Map.of(
              "any", "any",
              "read-write", "primary",
              "primary", "primary",
              "read-only", "secondary",
              "standby", "secondary",
              "prefer-standby", "preferSecondary"));

  private static final String METHOD = "(none|password|md5|gss|sspi|scram-sha-256)";

  /**
   * Advice for a parameter that is not supported, and without which the connection would be a
   * different or a less secure one.
   *
   * @param harmless pattern of the values that have no effect; an empty value has none, too
   * @param advice what to do instead
   */
  private record Refusal(String harmless, String advice) {}

  private static final Map<String, Refusal> REFUSED =
      Map.ofEntries(
          refused("hostaddr", "", "write the address as the host"),
          refused("service", "", "write what the service file says into the URL"),
          refused("servicefile", "", "write what the service file says into the URL"),
          refused("passfile", "", "write the password into the URL, or use ~/.pgpass"),
          refused("replication", "false|off|no|0", "leave it out, no query can be made with it"),
          refused("gssencmode", "disable|prefer", "use sslmode, there is no GSSAPI encryption"),
          refused("scram_client_key", "", "write the password into the URL"),
          refused("scram_server_key", "", "write the password into the URL"),
          refused("oauth_issuer", "", "use a password"),
          refused("oauth_client_id", "", "use a password"),
          refused("oauth_client_secret", "", "use a password"),
          refused("oauth_scope", "", "use a password"),
          refused("min_protocol_version", "3\\.0", "leave it out, the protocol is 3.0"),
          refused("sslcrl", "", "leave it out, revocation lists are not checked"),
          refused("sslcrldir", "", "leave it out, revocation lists are not checked"),
          refused("sslcertmode", "allow|disable", "leave it out"),
          refused("sslpassword", "", "name a key without a password with sslkey"),
          refused("sslidentity", "", "name PEM files with sslcert and sslkey"),
          refused(
              "ssl_min_protocol_version",
              "TLSv1(\\.[12])?",
              "leave it out and start Java with -Djdk.tls.client.protocols=TLSv1.3"),
          // Not libpq's, but other programs use them to choose the user or the tables.
          refused("username", "", "write user=..."),
          refused("db", "", "write dbname=..., or the database behind the host"),
          refused("database", "", "write dbname=..., or the database behind the host"),
          refused("search_path", "", "write schema=..."),
          refused("currentSchema", "", "write schema=..."));

  /** Parameters of libpq that can be ignored without harm. */
  private static final Set<String> IGNORED =
      Set.of(
          "client_encoding",
          "gssdelegation",
          "gsslib",
          "keepalives",
          "keepalives_count",
          "keepalives_idle",
          "keepalives_interval",
          "krbsrvname",
          "max_protocol_version",
          "requirepeer",
          "ssl_max_protocol_version",
          "sslcompression",
          "sslkeylogfile",
          "sslsni",
          "tcp_user_timeout");

  /** All parameters that are not unknown, for the detection of typos. */
  static final Set<String> KNOWN =
      Stream.of(
              PROPERTIES.keySet(),
              REFUSED.keySet(),
              IGNORED,
              DatabaseTls.PARAMETERS,
              Set.of("host", "port", "dbname", "user", "password"),
              Set.of("connect_timeout", "fallback_application_name", "uselibpqcompat"),
              Set.of("schema", "pgbouncer", "connection_limit", "pool_timeout"))
          .flatMap(Set::stream)
          .collect(Collectors.toCollection(TreeSet::new));

  private DatabaseParameters() {}

  /**
   * Removes the parameters that become properties of pgjdbc, and converts them.
   *
   * @param warnings receives those about limited values
   * @throws IllegalArgumentException if a value is invalid
   */
  static Map<String, String> takeProperties(Map<String, String> values, List<String> warnings) {
    Map<String, String> properties = new TreeMap<>(DatabaseTls.takeProperties(values));
    String applicationName = values.remove("fallback_application_name");
    if (applicationName != null) {
      values.putIfAbsent("application_name", applicationName);
    }
    // Neon's, for clients that send no server name with TLS
    values.computeIfPresent(
        "options",
        (name, options) -> {
          String rest = options.replaceAll("(^|\\s)(endpoint|project)=\\S*", "").strip();
          return rest.isEmpty() ? null : rest;
        });
    PROPERTIES.forEach(
        (name, property) -> {
          String value = values.remove(name);
          if (value != null) {
            properties.put(property, VALUES.containsKey(name) ? choice(name, value) : value);
          }
        });
    if (!properties
        .getOrDefault("requireAuth", "none")
        .matches(METHOD + "(," + METHOD + ")*|!" + METHOD + "(,!" + METHOD + ")*")) {
      throw new IllegalArgumentException(
          "has an unknown value for require_auth: use some of "
              + "none, password, md5, gss, sspi, scram-sha-256");
    }
    String timeout = values.remove("connect_timeout");
    if (timeout != null) {
      properties.put(
          "connectTimeout",
          seconds("connect_timeout", timeout, DatabaseUrl.LOGIN_TIMEOUT, warnings).toString());
    }
    return Map.copyOf(properties);
  }

  private static String choice(String name, String value) {
    Map<String, String> choices = VALUES.get(name);
    if (!choices.containsKey(value)) {
      throw unknownValue(name, choices.keySet().stream().sorted().toList());
    }
    return choices.get(value);
  }

  /** Returns an exception that lists the permitted values of a parameter. */
  static IllegalArgumentException unknownValue(String name, List<String> choices) {
    return new IllegalArgumentException(
        "has an unknown value for " + name + ": use one of " + String.join(", ", choices));
  }

  /**
   * Parses a timeout in seconds; 0 means no timeout in libpq and Prisma.
   *
   * @param max in seconds, to which it is limited
   */
  static Integer seconds(String name, String text, int max, List<String> warnings) {
    if (!text.matches("\\d{1,9}")) {
      throw new IllegalArgumentException("has a value for " + name + " that is not a number");
    }
    int seconds = Integer.parseInt(text);
    if (seconds == 0 || seconds > max) {
      warnings.add(name + " is taken as " + max + " s, the longest that a request waits");
      return max;
    }
    return seconds;
  }

  /**
   * Rejects the remaining parameters, or warns of those that can be ignored.
   *
   * @return all warnings
   * @throws IllegalArgumentException if one cannot be ignored
   */
  static List<String> requireHarmless(Map<String, String> values, List<String> warnings) {
    values.remove("uselibpqcompat"); // node-postgres: read sslmode as libpq does
    values.forEach(
        (name, value) -> {
          Refusal refusal = REFUSED.get(name);
          if (refusal != null && !value.isEmpty() && !value.matches(refusal.harmless)) {
            throw new IllegalArgumentException(
                "has the parameter " + name + ", which cannot be used: " + refusal.advice);
          }
          if (IGNORED.contains(name)) {
            warnings.add("the parameter " + name + " is ignored");
          } else if (refusal == null) {
            warnings.add("the unknown parameter " + requireUnrelated(name) + " is ignored");
          }
        });
    return List.copyOf(warnings);
  }

  /**
   * Returns the name for a warning, or rejects an unknown parameter that looks like TLS or like a
   * typo. psql rejects all unknown ones, but other clients have their own.
   */
  private static String requireUnrelated(String name) {
    String shown = name.replaceAll("[^\\w.-]", "?");
    if (name.matches("(?i).*(ssl|tls|cert|verify|unauthorized).*")) {
      throw new IllegalArgumentException(
          "has the unknown parameter " + shown + ": write sslmode=... and sslrootcert=...");
    }
    for (String known : KNOWN) {
      if (isTypo(plain(name), plain(known))) {
        Refusal refusal = REFUSED.get(known);
        throw new IllegalArgumentException(
            "has the unknown parameter "
                + shown
                + ": "
                + (refusal == null ? "write " + known + ", or leave it out" : refusal.advice));
      }
    }
    return shown;
  }

  private static String plain(String name) {
    return name.toLowerCase(Locale.ROOT).replaceAll("[_-]", "");
  }

  /** Returns true if two names differ in at most one letter: replaced, missing or added. */
  private static boolean isTypo(String name, String known) {
    int shorter = Math.min(name.length(), known.length());
    int start = 0;
    while (start < shorter && name.charAt(start) == known.charAt(start)) {
      start++;
    }
    int end = 0;
    while (end < shorter - start
        && name.charAt(name.length() - 1 - end) == known.charAt(known.length() - 1 - end)) {
      end++;
    }
    return Math.max(name.length(), known.length()) - start - end <= 1;
  }

  private static Map.Entry<String, Refusal> refused(String name, String harmless, String advice) {
    return Map.entry(name, new Refusal(harmless, advice));
  }
}
