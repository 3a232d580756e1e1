package com.realmeet.server;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.postgresql.ds.PGSimpleDataSource;

/**
 * A {@code postgresql://} URL as Neon, Supabase, RDS or Prisma print it. pgjdbc does not take such
 * a URL, and its complaint would print the password; so it is read here, and no message of this
 * class contains any part of a value.
 *
 * @see <a
 *     href="https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS">the
 *     form of a connection URI</a>
 */
final class DatabaseUrl {
  static final String FORM = "postgresql://user:password@host/database?sslmode=require";

  /** A server of a URL; several may stand in one, separated by commas. */
  private record Host(String name, int port) {
    private static final Pattern PATTERN =
        Pattern.compile("(\\[[0-9A-Fa-f:.%]+]|[^:\\[\\]]+)(?::(\\d+))?");

    static Host parse(String text) {
      Matcher matcher = PATTERN.matcher(text);
      if (!matcher.matches()) {
        throw new IllegalArgumentException(
            "has no valid host: write "
                + DatabaseUrl.FORM
                + ", with special characters percent-encoded");
      }
      int port = matcher.group(2) == null ? 5432 : number("the port", matcher.group(2));
      if (port < 1 || port > 65535) {
        throw new IllegalArgumentException("has a port that is not between 1 and 65535");
      }
      return new Host(matcher.group(1), port);
    }

    /** Neon's pooled host is the direct one with {@code -pooler} after its first label. */
    boolean isPooler() {
      return name.split("\\.", 2)[0].endsWith("-pooler");
    }

    Host direct() {
      return new Host(name.replaceFirst("-pooler(?=\\.|$)", ""), port);
    }
  }

  private static final List<String> SSL_MODES =
      List.of("disable", "allow", "prefer", "require", "verify-ca", "verify-full");
  private static final Map<String, String> SERVER_TYPES =
      Map.of(
          "any", "any",
          "read-write", "primary",
          "primary", "primary",
          "read-only", "secondary",
          "standby", "secondary",
          "prefer-standby", "preferSecondary");

  /** Seconds that a login may take: the longest wait that a request ever meets. */
  private static final int LOGIN_TIMEOUT = 5;

  private final List<Host> hosts;
  private final String database;
  private final String user;
  private final String password;
  private final Map<String, String> properties = new LinkedHashMap<>();
  private final List<String> warnings = new ArrayList<>();
  private String schema;
  private Integer connectionLimit;
  private Integer poolTimeout;
  private boolean pgbouncer;

  private DatabaseUrl(List<Host> hosts, String database, String user, String password) {
    this.hosts = hosts;
    this.database = database;
    this.user = user;
    this.password = password;
  }

  /**
   * Reads a URL.
   *
   * @throws IllegalArgumentException with the rest of a sentence that begins with the variable's
   *     name, and without any part of the URL
   */
  static DatabaseUrl parse(String url) {
    if (url.startsWith("jdbc:")) {
      throw new IllegalArgumentException("must be " + FORM + ": leave out \"jdbc:\"");
    }
    if (!url.matches("(?s)postgres(ql)?://.*")) {
      throw new IllegalArgumentException("must look like " + FORM);
    }
    String rest = url.substring(url.indexOf("://") + 3);
    String beforeQuery = rest.split("\\?", 2)[0];
    String authority = beforeQuery.split("/", 2)[0];
    String path = beforeQuery.substring(authority.length());
    int at = authority.lastIndexOf('@');
    String[] credentials = at < 0 ? new String[0] : authority.substring(0, at).split(":", 2);
    if (rest.lastIndexOf('@') > at) { // the password would go on in what looks like the database
      throw new IllegalArgumentException(
          "has a special character before an @: percent-encode them, "
              + "such as %2F for /, %3F for ?, %40 for @");
    }
    if (path.length() < 2) {
      throw new IllegalArgumentException("names no database: write " + FORM);
    }

    List<Host> hosts = new ArrayList<>();
    for (String host : authority.substring(at + 1).split(",", -1)) {
      hosts.add(Host.parse(host));
    }
    DatabaseUrl result =
        new DatabaseUrl(
            hosts,
            decode(path.substring(1)),
            credentials.length > 0 ? decode(credentials[0]) : "",
            credentials.length > 1 ? decode(credentials[1]) : "");
    if (rest.length() > beforeQuery.length() + 1) {
      for (String parameter : rest.substring(beforeQuery.length() + 1).split("&")) {
        String[] pair = parameter.split("=", 2);
        result.set(decode(pair[0]), pair.length > 1 ? decode(pair[1]) : "");
      }
    }
    return result;
  }

  /** Takes over one parameter. Never passed through: pgjdbc's own keys could change the host. */
  private void set(String key, String value) {
    switch (key) {
      case "" -> {} // a doubled &
      case "sslmode" -> properties.put(key, oneOf(key, value, SSL_MODES));
      case "channel_binding" ->
          properties.put(
              "channelBinding", oneOf(key, value, List.of("disable", "prefer", "require")));
      case "sslnegotiation" ->
          properties.put("sslNegotiation", oneOf(key, value, List.of("postgres", "direct")));
      case "sslrootcert" -> {
        if (value.equals("system")) {
          properties.put("sslfactory", "org.postgresql.ssl.DefaultJavaSSLFactory");
          properties.putIfAbsent("sslmode", "verify-full");
        } else {
          properties.put("sslrootcert", value);
        }
      }
      case "application_name" -> properties.put("ApplicationName", value);
      case "target_session_attrs" ->
          properties.put(
              "targetServerType",
              SERVER_TYPES.get(oneOf(key, value, List.copyOf(SERVER_TYPES.keySet()))));
      case "schema" -> {
        if (!value.matches("[\\w$-]+")) {
          throw new IllegalArgumentException("has a schema that is not a plain name");
        }
        schema = value;
      }
      case "pgbouncer" -> pgbouncer = value.equals("true");
      case "connect_timeout" -> {
        int seconds = number(key, value);
        properties.put("connectTimeout", String.valueOf(capped(key, seconds)));
      }
      case "connection_limit" -> {
        connectionLimit = number(key, value);
        if (connectionLimit < 1 || connectionLimit > 1000) {
          throw new IllegalArgumentException("has a connection_limit that is not 1 to 1000");
        }
      }
      case "pool_timeout" -> poolTimeout = capped(key, number(key, value));
      case "options" -> {
        if (!value.startsWith("endpoint=")) { // Neon's, for clients without SNI: pgjdbc has it
          warnings.add("the unknown parameter options is ignored");
        }
      }
      default ->
          warnings.add("the unknown parameter " + key.replaceAll("[^\\w.-]", "?") + " is ignored");
    }
  }

  /** A wait in seconds, where 0 means for ever to libpq and Prisma. */
  private int capped(String key, int seconds) {
    if (seconds == 0 || seconds > LOGIN_TIMEOUT) {
      warnings.add(key + " is taken as " + LOGIN_TIMEOUT + " s, the longest that a request waits");
      return LOGIN_TIMEOUT;
    }
    return seconds;
  }

  private static String oneOf(String key, String value, List<String> choices) {
    if (!choices.contains(value)) {
      throw new IllegalArgumentException(
          "has an unknown value for " + key + ": use one of " + String.join(", ", choices));
    }
    return value;
  }

  private static int number(String key, String value) {
    if (!value.matches("\\d{1,6}")) {
      throw new IllegalArgumentException("has a value for " + key + " that is not a number");
    }
    return Integer.parseInt(value);
  }

  /** Percent-decoding of RFC 3986: unlike in a form, {@code +} stands for itself. */
  private static String decode(String text) {
    ByteBuffer bytes = ByteBuffer.allocate(text.length() * 4);
    for (int i = 0; i < text.length(); ) {
      int c = text.codePointAt(i);
      if (c == '%') {
        if (!text.substring(i).matches("(?s)%[0-9A-Fa-f]{2}.*") || text.startsWith("%00", i)) {
          throw new IllegalArgumentException(
              "has a % that is not followed by two hex digits: "
                  + "a percent sign itself is written %25");
        }
        bytes.put((byte) Integer.parseInt(text.substring(i + 1, i + 3), 16));
        i += 3;
      } else {
        bytes.put(Character.toString(c).getBytes(StandardCharsets.UTF_8));
        i += Character.charCount(c);
      }
    }
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(bytes.flip()).toString();
    } catch (CharacterCodingException e) {
      throw new IllegalArgumentException("has percent-encoded bytes that are not UTF-8");
    }
  }

  /** What was left out or limited, each as the rest of a sentence that begins with the variable. */
  List<String> warnings() {
    return warnings;
  }

  /** Prisma's {@code connection_limit}, or the given number of connections. */
  int poolSize(int otherwise) {
    return connectionLimit == null ? otherwise : connectionLimit;
  }

  /** Prisma's {@code pool_timeout} in milliseconds, if that is less than the given limit. */
  long poolTimeoutMillis(long limit) {
    return poolTimeout == null ? limit : Math.min(limit, poolTimeout * 1000L);
  }

  /** Prisma's {@code schema}, or null for the first of the search path. */
  String schema() {
    return schema;
  }

  /** A table's name in SQL, with the schema: PgBouncer refuses, or forgets, a search path. */
  String qualified(String table) {
    return schema == null ? table : '"' + schema + "\"." + table;
  }

  /**
   * Whether connections go through PgBouncer in transaction mode: no state outlives a transaction.
   */
  boolean isPooled() {
    return pgbouncer || hosts.stream().anyMatch(Host::isPooler);
  }

  /** The same database without Neon's pooler; other poolers give no hint of the direct host. */
  DatabaseUrl direct() {
    DatabaseUrl direct =
        new DatabaseUrl(hosts.stream().map(Host::direct).toList(), database, user, password);
    direct.properties.putAll(properties);
    direct.schema = schema;
    direct.pgbouncer = pgbouncer && hosts.stream().noneMatch(Host::isPooler);
    return direct;
  }

  /**
   * Where connections come from.
   *
   * @param socketTimeout seconds that any answer of the database may take; without it, a query on a
   *     frozen database never ends
   */
  PGSimpleDataSource dataSource(int socketTimeout) {
    PGSimpleDataSource source = new PGSimpleDataSource();
    source.setServerNames(hosts.stream().map(Host::name).toArray(String[]::new));
    source.setPortNumbers(hosts.stream().mapToInt(Host::port).toArray());
    source.setDatabaseName(database);
    if (!user.isEmpty()) {
      source.setUser(user);
      source.setPassword(password);
    }
    source.setApplicationName("real-meet-server");
    source.setConnectTimeout(LOGIN_TIMEOUT);
    source.setLoginTimeout(LOGIN_TIMEOUT);
    source.setSocketTimeout(socketTimeout);
    source.setTcpKeepAlive(true);
    source.setLogServerErrorDetail(false); // it quotes rows, and so email addresses
    if (isPooled()) {
      source.setPrepareThreshold(0); // PgBouncer 1.18 and older lose prepared statements
    }
    properties.forEach(
        (key, value) -> {
          try {
            source.setProperty(key, value);
          } catch (java.sql.SQLException e) {
            throw new IllegalStateException("pgjdbc does not know the property " + key, e);
          }
        });
    return source;
  }

  /** Shows where, not who. */
  @Override
  public String toString() {
    return hosts.get(0).name + ":" + hosts.get(0).port + "/" + database;
  }
}
