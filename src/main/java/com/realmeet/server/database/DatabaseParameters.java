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
 * The parameters of a database URL: which become properties of pgjdbc, which are ignored with a
 * warning, and which are refused. They are never passed through: pgjdbc's own could change the
 * host.
 *
 * @see <a
 *     href="https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS">libpq's
 *     parameters</a>
 */
final class DatabaseParameters {
  /** Parameters that pgjdbc has too: libpq's name → pgjdbc's. */
  private static final Map<String, String> PROPERTIES =
      Map.of(
          "application_name", "ApplicationName",
          "channel_binding", "channelBinding",
          "load_balance_hosts", "loadBalanceHosts",
          "options", "options",
          "require_auth", "requireAuth",
          "sslnegotiation", "sslNegotiation",
          "target_session_attrs", "targetServerType");

  /** The values that some of them may have: libpq's → pgjdbc's. */
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
   * A parameter that cannot be taken, and without which the connection would be another one or less
   * secure.
   *
   * @param harmless pattern of the values that ask for nothing; an empty value never does
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
          // Not libpq's, but other programs let them choose the user or the tables.
          refused("username", "", "write user=..."),
          refused("db", "", "write dbname=..., or the database behind the host"),
          refused("database", "", "write dbname=..., or the database behind the host"),
          refused("search_path", "", "write schema=..."),
          refused("currentSchema", "", "write schema=..."));

  /** Parameters of libpq that make no difference here, or only for the better. */
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

  /** Takes what becomes a property of pgjdbc. */
  static Map<String, String> takeProperties(Map<String, String> values, List<String> warnings) {
    Map<String, String> properties = new TreeMap<>(DatabaseTls.takeProperties(values));
    String applicationName = values.remove("fallback_application_name");
    if (applicationName != null) {
      values.putIfAbsent("application_name", applicationName);
    }
    if (values.getOrDefault("options", "").matches("(endpoint|project)=.*")) {
      values.remove("options"); // Neon's, for clients that send no server name with TLS
    }
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
      properties.put("connectTimeout", seconds("connect_timeout", timeout, warnings).toString());
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

  static IllegalArgumentException unknownValue(String name, List<String> choices) {
    return new IllegalArgumentException(
        "has an unknown value for " + name + ": use one of " + String.join(", ", choices));
  }

  /** A wait in seconds, where 0 means for ever to libpq and Prisma. */
  static Integer seconds(String name, String text, List<String> warnings) {
    if (!text.matches("\\d{1,9}")) {
      throw new IllegalArgumentException("has a value for " + name + " that is not a number");
    }
    int seconds = Integer.parseInt(text);
    if (seconds == 0 || seconds > DatabaseUrl.LOGIN_TIMEOUT) {
      warnings.add(
          name
              + " is taken as "
              + DatabaseUrl.LOGIN_TIMEOUT
              + " s, the longest that a request waits");
      return DatabaseUrl.LOGIN_TIMEOUT;
    }
    return seconds;
  }

  /** Refuses, or warns of, each parameter that nobody has taken. */
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

  /** psql refuses every unknown parameter; other clients' are let pass if they cannot matter. */
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

  /** Whether two names differ in at most one letter: another, missing or surplus one. */
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
