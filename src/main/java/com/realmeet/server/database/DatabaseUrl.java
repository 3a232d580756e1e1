package com.realmeet.server.database;

import java.net.InetAddress;
import java.net.URLDecoder;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.postgresql.ds.PGSimpleDataSource;

/**
 * Parsed {@code postgresql://} URL. It has the same meaning as in libpq and psql, or is rejected.
 * pgjdbc does not accept this form, and its error message would print the password: no message of
 * this class contains a value.
 *
 * @param hosts tried in this order
 * @param database may be empty: the database named like the user
 * @param user may be empty: the user of the operating system, pgjdbc's default as well as libpq's
 * @param password may be empty: pgjdbc then looks into {@code ~/.pgpass}, as libpq does
 * @param properties of pgjdbc, by its names
 * @param schema Prisma's {@code schema}, or null for the first of the search path
 * @param connectionLimit Prisma's {@code connection_limit}, or null
 * @param poolTimeout Prisma's {@code pool_timeout} in seconds, or null
 * @param pgbouncer Prisma's {@code pgbouncer}, or null: {@link DatabasePoolers} decides
 * @param warnings parameters that are ignored or limited, each the rest of a sentence about the
 *     variable
 * @see <a
 *     href="https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS">the
 *     form of a connection URI</a>
 */
public record DatabaseUrl(
    List<Host> hosts,
    String database,
    String user,
    String password,
    Map<String, String> properties,
    String schema,
    Integer connectionLimit,
    Integer poolTimeout,
    Boolean pgbouncer,
    List<String> warnings) {

  /** Example of the form, for error messages. */
  public static final String FORM = "postgresql://user:password@host/database?sslmode=require";

  /** Maximum seconds for a login: a request ends within 5 s, too. */
  static final int LOGIN_TIMEOUT = 5;

  /**
   * Maximum seconds to wait for a connection of the pool, in which a suspended Neon database can
   * resume.
   */
  private static final int POOL_TIMEOUT = 3;

  /**
   * Seconds for the TCP connection to one of several hosts, so that a request, which waits 3 s for
   * a connection, gets one to the next host if a machine is lost and does not even refuse.
   */
  private static final int HOST_TIMEOUT = 1;

  /**
   * Matches the parts of a URL. As in libpq, the credentials end at an {@code @} before the first
   * slash; but no host contains an {@code @}, so with several of them the last one counts.
   */
  private static final Pattern PARTS =
      Pattern.compile(
          "(?s)(?:(?<credentials>[^/@]*(?:@[^/?@]*)*)@)?(?<hosts>[^/?@]*)"
              + "(?:/(?<database>[^?]*))?(?:\\?(?<query>.*))?");

  private static final Pattern HOST_AND_PORT =
      Pattern.compile("(?s)(?:\\[(?<address>[^]]*)]|(?<name>[^:]*))(?::(?<port>.*))?");

  private static final Pattern BAD_PERCENT = Pattern.compile("%(?![0-9A-Fa-f]{2})|%00");

  /**
   * Server of a URL.
   *
   * @param name a host name or an address, IPv6 without brackets
   */
  record Host(String name, int port) {
    private static final Pattern NAME =
        Pattern.compile("[\\p{L}\\p{N}._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[\\w.-]+)?");

    /** Address with a leading zero, which libpq reads as octal and Java as decimal. */
    private static final Pattern OCTAL = Pattern.compile("(?=.*\\.)[0-9.]*(?<![0-9])0[0-9][0-9.]*");

    static Host of(String name, String port) {
      if (name.startsWith("/") || name.startsWith("@")) {
        throw new IllegalArgumentException(
            "names a Unix socket, and Java connects by TCP only: name a host and a port, "
                + "such as 127.0.0.1 of a proxy or the database's private address");
      }
      if (name.isEmpty()) {
        throw new IllegalArgumentException("names no host: write " + FORM);
      }
      if (!NAME.matcher(name).matches() || OCTAL.matcher(name).matches()) {
        throw new IllegalArgumentException(
            "has no valid host: write " + FORM + ", with special characters percent-encoded");
      }
      if (port.isEmpty()) {
        return new Host(name, 5432);
      }
      if (!port.matches("\\d{1,5}")
          || Integer.parseInt(port) < 1
          || Integer.parseInt(port) > 65535) {
        throw new IllegalArgumentException(
            "has a port that is not a number between 1 and 65535: percent-encode special "
                + "characters of the password, write an IPv6 address in brackets");
      }
      return new Host(name, Integer.parseInt(port));
    }

    /** Returns the host in the form of a URL. */
    String inUrl() {
      return name.contains(":") ? "[" + name + "]" : name;
    }

    /**
     * Returns the host in the form that pgjdbc compares, as text, with the names of a certificate:
     * it reads {@code ::1} there as {@code 0:0:0:0:0:0:0:1}.
     */
    String asInCertificate() {
      try {
        return name.contains(":")
            ? new Host(InetAddress.getByName(name).getHostAddress(), port).inUrl()
            : name;
      } catch (UnknownHostException e) { // a network interface that is not there
        return inUrl();
      }
    }

    @Override
    public String toString() {
      return inUrl() + ":" + port;
    }
  }

  /**
   * Parses a URL.
   *
   * @throws IllegalArgumentException with the rest of a sentence that begins with the variable's
   *     name, and without any part of the URL but names of parameters
   */
  public static DatabaseUrl parse(String url) {
    if (url.startsWith("jdbc:")) {
      throw new IllegalArgumentException("must be " + FORM + ": leave out \"jdbc:\"");
    }
    if (!url.matches("(?s)postgres(ql)?://.*")) { // libpq takes no upper case either
      throw new IllegalArgumentException("must look like " + FORM);
    }
    Map<String, String> values = split(url.substring(url.indexOf("://") + 3));
    List<String> warnings = new ArrayList<>();
    return new DatabaseUrl(
        hosts(take(values, "host"), take(values, "port")),
        take(values, "dbname"),
        take(values, "user"),
        take(values, "password"),
        DatabaseParameters.takeProperties(values, warnings),
        optional(values, "schema", DatabaseUrl::schemaName),
        optional(values, "connection_limit", DatabaseUrl::connectionLimit),
        optional(
            values,
            "pool_timeout",
            text -> DatabaseParameters.seconds("pool_timeout", text, POOL_TIMEOUT, warnings)),
        optional(values, "pgbouncer", DatabaseUrl::trueOrFalse),
        DatabaseParameters.requireHarmless(values, warnings));
  }

  /** Returns the parts by libpq's names; parameters of the query override them. */
  private static Map<String, String> split(String text) {
    Matcher parts = PARTS.matcher(text);
    if (!parts.matches()
        || part(parts, "database").contains("@")
        || part(parts, "credentials").matches("(?s).*@.*,.*")) {
      throw unencoded(); // part of the password would be taken for the database
    }
    String[] credentials = part(parts, "credentials").split(":", 2);
    List<String> names = new ArrayList<>();
    List<String> ports = new ArrayList<>();
    for (String host : part(parts, "hosts").split(",", -1)) {
      Matcher matcher = HOST_AND_PORT.matcher(host);
      if (!matcher.matches()) {
        throw new IllegalArgumentException("has no valid host: write " + FORM);
      }
      names.add(part(matcher, "address") + part(matcher, "name"));
      ports.add(part(matcher, "port"));
    }
    Map<String, String> values = new LinkedHashMap<>();
    values.put("user", decode(credentials[0]));
    values.put("password", credentials.length > 1 ? decode(credentials[1]) : "");
    values.put("host", decode(String.join(",", names)));
    values.put("port", decode(String.join(",", ports)));
    values.put("dbname", decode(part(parts, "database")));
    for (String parameter : part(parts, "query").split("&")) {
      String[] pair = parameter.split("=", -1);
      String key = decode(pair[0]);
      if (parameter.contains("@") && !DatabaseParameters.KNOWN.contains(key)) {
        throw unencoded(); // part of the password would be taken for the query
      }
      if (pair.length != 2 && !parameter.isEmpty()) {
        throw new IllegalArgumentException(
            "has a parameter that is not name=value: percent-encode special characters, "
                + "such as %26 for &, %3D for =");
      }
      if (!parameter.isEmpty()) {
        values.put(key, decode(pair[1]));
      }
    }
    return values;
  }

  private static String part(Matcher matcher, String group) {
    return matcher.group(group) == null ? "" : matcher.group(group);
  }

  private static IllegalArgumentException unencoded() {
    return new IllegalArgumentException(
        "has a special character before an @: percent-encode them, "
            + "such as %2F for /, %3F for ?, %40 for @");
  }

  private static List<Host> hosts(String names, String ports) {
    String[] name = names.split(",", -1);
    String[] port = ports.split(",", -1);
    if (port.length != 1 && port.length != name.length) {
      throw new IllegalArgumentException("must have one port for all hosts, or one for each");
    }
    List<Host> hosts = new ArrayList<>();
    for (int i = 0; i < name.length; i++) {
      hosts.add(Host.of(name[i], port[port.length == 1 ? 0 : i]));
    }
    return List.copyOf(hosts);
  }

  private static String schemaName(String text) {
    if (!text.matches("[\\w$-]{1,63}")) { // Postgres truncates longer ones
      throw new IllegalArgumentException("has a schema that is not a plain name");
    }
    return text;
  }

  private static Integer connectionLimit(String text) {
    if (!text.matches("\\d{1,4}") || Integer.parseInt(text) < 1 || Integer.parseInt(text) > 1000) {
      throw new IllegalArgumentException("has a connection_limit that is not 1 to 1000");
    }
    return Integer.valueOf(text);
  }

  private static Boolean trueOrFalse(String text) {
    if (!text.matches("true|false")) {
      throw DatabaseParameters.unknownValue("pgbouncer", List.of("true", "false"));
    }
    return Boolean.valueOf(text);
  }

  /** Decodes percent-encoding (RFC 3986): unlike in a form, {@code +} is literal. */
  private static String decode(String text) {
    if (BAD_PERCENT.matcher(text).find()) {
      throw new IllegalArgumentException(
          "has a % that is not followed by two hex digits: "
              + "a percent sign itself is written %25");
    }
    String decoded = URLDecoder.decode(text.replace("+", "%2B"), StandardCharsets.UTF_8);
    if (decoded.contains("\uFFFD")) { // the replacement character for bytes that are not UTF-8
      throw new IllegalArgumentException("has percent-encoded bytes that are not UTF-8");
    }
    return decoded;
  }

  private static String take(Map<String, String> values, String name) {
    String value = values.remove(name);
    return value == null ? "" : value;
  }

  private static <T> T optional(
      Map<String, String> values, String name, Function<String, T> parse) {
    String value = values.remove(name);
    return value == null ? null : parse.apply(value);
  }

  /**
   * Returns Prisma's {@code connection_limit}, or the given number of connections if it is not set.
   */
  public int poolSize(int otherwise) {
    return connectionLimit == null ? otherwise : connectionLimit;
  }

  /** Returns Prisma's {@code pool_timeout} in milliseconds, or the default. */
  long poolTimeoutMillis() {
    return 1000L * (poolTimeout == null ? POOL_TIMEOUT : poolTimeout);
  }

  /**
   * Returns a table's name in SQL, qualified by the schema: PgBouncer rejects, or loses, a search
   * path.
   */
  public String qualified(String table) {
    return schema == null ? table : '"' + schema + "\"." + table;
  }

  /**
   * Returns true if connections go through a pooler in transaction mode, where no session state
   * outlives a transaction.
   */
  public boolean isPooled() {
    return pgbouncer == null ? hosts.stream().anyMatch(DatabasePoolers::isPooler) : pgbouncer;
  }

  /**
   * Returns true if the URL tells whether there is a pooler; otherwise a connection may show one.
   */
  boolean isPoolingKnown() {
    return pgbouncer != null || hosts.stream().allMatch(DatabasePoolers::isKnown);
  }

  /**
   * Returns the URL that bypasses the pooler, if the provider's naming scheme tells the direct
   * host; otherwise this URL without warnings.
   */
  public DatabaseUrl direct() {
    List<Host> direct = isPooled() ? hosts.stream().map(DatabasePoolers::direct).toList() : hosts;
    return new DatabaseUrl(
        direct,
        database,
        user,
        password,
        properties,
        schema,
        connectionLimit,
        poolTimeout,
        direct.equals(hosts) ? pgbouncer : null,
        List.of());
  }

  /**
   * Returns a data source for this URL, which does not connect yet.
   *
   * @param socketTimeout seconds that any response of the database may take; without it, a query on
   *     a frozen database never ends
   */
  public PGSimpleDataSource dataSource(int socketTimeout) {
    return configure(new PGSimpleDataSource(), socketTimeout);
  }

  /** Sets what {@link #dataSource} returns, on a data source of any class. */
  <T extends PGSimpleDataSource> T configure(T source, int socketTimeout) {
    boolean verifiesHost = "verify-full".equals(properties.get("sslmode"));
    source.setServerNames(
        hosts.stream()
            .map(verifiesHost ? Host::asInCertificate : Host::inUrl)
            .toArray(String[]::new));
    source.setPortNumbers(hosts.stream().mapToInt(Host::port).toArray());
    source.setUser(user.isEmpty() ? null : user);
    source.setPassword(password.isEmpty() ? null : password);
    source.setDatabaseName(
        Stream.of(database, user, System.getProperty("user.name"))
            .filter(name -> !name.isEmpty())
            .findFirst()
            .orElse(null));
    source.setApplicationName("real-meet-server");
    source.setConnectTimeout(hosts.size() > 1 ? HOST_TIMEOUT : LOGIN_TIMEOUT);
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
          } catch (SQLException e) {
            throw new IllegalStateException("pgjdbc does not know the property " + key, e);
          }
        });
    return source;
  }

  /** Returns host, port and database, without user and password. */
  @Override
  public String toString() {
    return hosts.get(0) + "/" + database.replaceAll("\\p{Cntrl}", "?");
  }
}
