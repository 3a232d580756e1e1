package com.realmeet.server;

import com.realmeet.server.clerk.JwkSet;
import com.realmeet.server.clerk.SessionAuth;
import com.realmeet.server.core.Origins;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.InvalidKeyException;
import java.security.KeyFactory;
import java.security.interfaces.RSAPublicKey;
import java.security.spec.X509EncodedKeySpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Settings of the server. The variables have the names of the Node server's {@code .env}; the
 * README has the table.
 *
 * @param databaseUrl database for requests
 * @param directUrl database for migrations: the host behind the pooler if it is known
 * @param clerkSecretKey {@code sk_test_…} or {@code sk_live_…}
 * @param port 0 picks a free one
 * @param nodeEnv the value of NODE_ENV
 * @param origins front ends that may read our responses (CORS), in the form of {@link Origins}
 * @param host address to listen on
 * @param poolSize maximum number of connections to the database
 * @param authorizedParties accepted {@code azp} claims, in the form of {@link SessionAuth}; empty:
 *     any
 * @param clerkApiUrl base URL of Clerk's Backend API, without a trailing slash
 * @param clerkJwtKey public key that verifies tokens, so that none is fetched; or null
 * @param webhookSecrets keys, any of which may sign a webhook; empty: no webhook route
 * @param clerkFields keys of Clerk's user object to store in the column clerk_fields
 * @param pollSeconds interval of the poll in seconds; 0: no poll
 * @param metricsPort port of the metrics page, 0 picks a free one; null: no page
 * @param contradictions warnings about variables that contradict the settings
 */
public record Config(
    DatabaseUrl databaseUrl,
    DatabaseUrl directUrl,
    String clerkSecretKey,
    int port,
    NodeEnv nodeEnv,
    Set<String> origins,
    String host,
    int poolSize,
    Set<String> authorizedParties,
    String clerkApiUrl,
    RSAPublicKey clerkJwtKey,
    List<byte[]> webhookSecrets,
    Set<String> clerkFields,
    int pollSeconds,
    Integer metricsPort,
    List<String> contradictions) {

  /** NODE_ENV: the name is kept so that an existing {@code .env} works. */
  enum NodeEnv {
    DEVELOPMENT,
    PRODUCTION,
    TEST
  }

  private static final String REQUIRED = " is required: ";

  /** Minimum length of a webhook key in bytes; the secrets that Svix generates have 24. */
  private static final int MIN_WEBHOOK_KEY_BYTES = 16;

  /**
   * Minimum interval of the poll. A development instance of Clerk allows 100 calls per 10 s, shared
   * by all servers and laptops.
   */
  private static final int MIN_POLL_SECONDS = 10;

  /** Variable with the webhook's signing secret. */
  static final String WEBHOOK_SECRET = "CLERK_WEBHOOK_SIGNING_SECRET";

  /** Former name in Clerk's guides; read only if {@link #WEBHOOK_SECRET} is not set. */
  private static final String OLD_WEBHOOK_SECRET = "CLERK_WEBHOOK_SECRET";

  private static final Pattern API_URL =
      Pattern.compile("https?://[A-Za-z0-9._-]+(:(?<port>\\d{1,5}))?(/[A-Za-z0-9._~/-]*)?");

  /**
   * Reads all settings from the environment and, for what it does not set, from a {@code .env} in
   * the working directory.
   *
   * @throws StartupException with every problem there is, and exit code 2
   */
  public static Config load() {
    try {
      return from(System.getenv(), envFile());
    } catch (StartupException e) {
      List<String> lines = new ArrayList<>(e.lines());
      if (e.getMessage().contains(REQUIRED) && Files.notExists(Path.of(".env"))) {
        lines.add(
            "There is no .env in "
                + Path.of("").toAbsolutePath()
                + ": copy .env.example there and fill it in, or set these in the environment");
      }
      throw new StartupException(e.exitCode(), lines);
    }
  }

  private static DotEnv envFile() {
    try {
      return DotEnv.read(Path.of(".env"));
    } catch (IOException e) {
      throw new StartupException(2, List.of(e.getMessage()));
    }
  }

  private static Map<String, String> merge(Map<String, String> environment, DotEnv file) {
    Map<String, String> variables = new HashMap<>(file.values());
    variables.putAll(environment);
    return variables;
  }

  /**
   * Reads all settings from an environment alone.
   *
   * @throws StartupException with every problem there is, and exit code 2
   */
  public static Config from(Map<String, String> environment) {
    return from(environment, DotEnv.NONE);
  }

  /**
   * Reads all settings from an environment and, for what it does not set, from a file.
   *
   * @throws StartupException with every problem there is, and exit code 2
   */
  public static Config from(Map<String, String> environment, DotEnv file) {
    return new Reader(environment, file).read();
  }

  boolean isDevelopment() {
    return nodeEnv == NodeEnv.DEVELOPMENT;
  }

  boolean isProduction() {
    return nodeEnv == NodeEnv.PRODUCTION;
  }

  /** Returns warnings about settings that are usable but look wrong, one line each. */
  List<String> warnings() {
    List<String> warnings = new ArrayList<>(contradictions);
    databaseUrl.warnings().forEach(warning -> warnings.add("DATABASE_URL: " + warning));
    directUrl.warnings().forEach(warning -> warnings.add("DIRECT_URL: " + warning));
    if (directUrl.isPooled()) {
      warnings.add("DIRECT_URL: migrations go through a pooler, set it to the direct host");
    }
    if (poolSize == 1) {
      warnings.add(
          "DATABASE_POOL_SIZE (or connection_limit of DATABASE_URL) is 1: slow queries of your own"
              + " routes then hold up sync, set it to 3 or more");
    }
    return warnings;
  }

  /** Returns a text without secrets. */
  @Override
  public String toString() {
    return "Config[" + nodeEnv + ", database " + databaseUrl + ", Clerk " + clerkApiUrl + "]";
  }

  /** Parses the variables and collects all problems, so that they are reported at once. */
  private static final class Reader {
    private final Map<String, String> environment;
    private final DotEnv file;
    private final Map<String, String> variables;
    private final List<String> problems = new ArrayList<>();

    Reader(Map<String, String> environment, DotEnv file) {
      this.environment = environment;
      this.file = file;
      this.variables = merge(environment, file);
    }

    Config read() {
      DatabaseUrl databaseUrl = required("DATABASE_URL", DatabaseUrl.FORM, DatabaseUrl::parse);
      DatabaseUrl directUrl = optional("DIRECT_URL", null, DatabaseUrl::parse);
      String secretKey =
          required("CLERK_SECRET_KEY", "sk_test_... or sk_live_...", this::secretKey);
      int port = optional("PORT", 3001, text -> number(text, 0, 65535));
      NodeEnv nodeEnv = optional("NODE_ENV", NodeEnv.DEVELOPMENT, this::nodeEnv);
      Set<String> origins = origins(nodeEnv == NodeEnv.PRODUCTION);
      Set<String> parties = origins;
      if (variables.containsKey("CLERK_AUTHORIZED_PARTIES")) {
        parties = optional("CLERK_AUTHORIZED_PARTIES", Set.of(), this::partyList);
      }
      Config config =
          new Config(
              databaseUrl,
              directUrl != null || databaseUrl == null ? directUrl : databaseUrl.direct(),
              secretKey,
              port,
              nodeEnv,
              origins,
              optional("HOST", "0.0.0.0", this::host),
              optional(
                  "DATABASE_POOL_SIZE",
                  databaseUrl == null ? 10 : databaseUrl.poolSize(10),
                  text -> number(text, 1, 1000)),
              parties,
              optional("CLERK_API_URL", "https://api.clerk.com", this::apiUrl),
              optional("CLERK_JWT_KEY", null, this::publicKey),
              optional(webhookSecretName(), List.of(), this::webhookSecrets),
              optional("CLERK_FIELDS", Set.of(), this::fieldList),
              optional("CLERK_POLL_SECONDS", 300, this::pollSeconds),
              optional("METRICS_PORT", null, text -> metricsPort(text, port)),
              contradictions());
      if (!problems.isEmpty()) {
        throw new StartupException(2, problems.stream().map(this::located).toList());
      }
      return config;
    }

    /**
     * Appends the line of the file that defines the variable, whose name is the first word of the
     * problem.
     */
    private String located(String problem) {
      String name = problem.substring(0, problem.indexOf(' '));
      return problem + (environment.containsKey(name) ? file.overridden(name) : file.hint(name));
    }

    /**
     * Parses CLIENT_URL. It is required in production, since the default is a developer's machine.
     */
    private Set<String> origins(boolean required) {
      if (required) {
        return required("CLIENT_URL", "https://app.example.com", this::originList);
      }
      if (variables.containsKey("CLIENT_URL") && value("CLIENT_URL").isEmpty()) {
        problems.add("CLIENT_URL is empty: name an origin such as http://localhost:3000");
      }
      return optional("CLIENT_URL", Set.of("http://localhost:3000"), this::originList);
    }

    private NodeEnv nodeEnv(String text) {
      return Arrays.stream(NodeEnv.values())
          .filter(candidate -> candidate.name().toLowerCase(Locale.ROOT).equals(text))
          .findFirst()
          .orElseThrow(
              () -> new IllegalArgumentException("must be development, production or test"));
    }

    private Set<String> originList(String text) {
      return list(text, Origins::parse);
    }

    private Set<String> partyList(String text) {
      return list(
          text,
          entry ->
              entry.strip().equalsIgnoreCase(SessionAuth.NO_PARTY)
                  ? SessionAuth.NO_PARTY
                  : Origins.parse(entry));
    }

    private Set<String> fieldList(String text) {
      return list(
          text,
          entry -> {
            if (!entry.strip().matches("[a-z_0-9]+")) {
              throw new IllegalArgumentException(
                  "must be keys of Clerk's user object such as username,public_metadata, of small"
                      + " letters, digits and underscores");
            }
            return entry.strip();
          });
    }

    private static Set<String> list(String text, Function<String, String> parse) {
      return Arrays.stream(text.split(",", -1))
          .map(parse)
          .collect(Collectors.toCollection(LinkedHashSet::new));
    }

    /** Checks an address or a host name; a scheme or a port in it would only fail in DNS. */
    private String host(String text) {
      if (!text.matches(
          "[\\w.-]+|\\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[\\w.-]+)?]?")) {
        throw new IllegalArgumentException(
            "must be an address to listen on, such as 0.0.0.0, 127.0.0.1 or ::, without a scheme or"
                + " a port");
      }
      return text;
    }

    private String secretKey(String text) {
      if (text.startsWith("pk_")) {
        throw new IllegalArgumentException(
            "is a publishable key (pk_...): use the secret key, sk_test_... or sk_live_...");
      }
      if (!text.matches("sk_(test|live)_[\\x21-\\x7e]+")) {
        throw new IllegalArgumentException("must be a secret key, sk_test_... or sk_live_...");
      }
      return text;
    }

    private String apiUrl(String text) {
      String url = text.replaceFirst("/+$", "");
      Matcher parts = API_URL.matcher(url);
      if (!parts.matches()
          || parts.group("port") != null && Integer.parseInt(parts.group("port")) > 65535
          || URI.create(url).getHost() == null) { // an underscore, for example
        throw new IllegalArgumentException("must be a URL such as https://api.clerk.com");
      }
      return url;
    }

    private RSAPublicKey publicKey(String text) {
      String pem = text.replace("\\n", "\n").strip();
      String base64 =
          pem.replaceFirst("^-----BEGIN PUBLIC KEY-----", "")
              .replaceFirst("-----END PUBLIC KEY-----$", "")
              .replaceAll("\\s", "");
      try {
        RSAPublicKey key =
            (RSAPublicKey)
                KeyFactory.getInstance("RSA")
                    .generatePublic(new X509EncodedKeySpec(Base64.getDecoder().decode(base64)));
        if (key.getModulus().bitLength() < JwkSet.MIN_RSA_BITS) {
          throw new InvalidKeyException("too short");
        }
        return key;
      } catch (IllegalArgumentException | GeneralSecurityException e) {
        throw new IllegalArgumentException(
            "must be the instance's public key in PEM, RSA of 2048 bits or more, "
                + "-----BEGIN PUBLIC KEY-----...");
      }
    }

    /** Returns the name of the variable to read: the older one only if the newer is not set. */
    private String webhookSecretName() {
      return value(WEBHOOK_SECRET).isEmpty() && !value(OLD_WEBHOOK_SECRET).isEmpty()
          ? OLD_WEBHOOK_SECRET
          : WEBHOOK_SECRET;
    }

    /** Returns warnings about variables that contradict each other. */
    private List<String> contradictions() {
      List<String> warnings = new ArrayList<>();
      String old = value(OLD_WEBHOOK_SECRET);
      if (!old.isEmpty()
          && webhookSecretName().equals(WEBHOOK_SECRET)
          && !old.equals(value(WEBHOOK_SECRET))) {
        warnings.add(
            OLD_WEBHOOK_SECRET
                + " is not read, because "
                + WEBHOOK_SECRET
                + " is set, to something else: delete one of them");
      }
      String otherMode = value("CLERK_SECRET_KEY").startsWith("sk_live_") ? "pk_test_" : "pk_live_";
      variables.keySet().stream()
          .filter(name -> name.endsWith("CLERK_PUBLISHABLE_KEY"))
          .filter(name -> value(name).startsWith(otherMode))
          .sorted()
          .map(
              name ->
                  name
                      + " and CLERK_SECRET_KEY are of two Clerk instances, one for development"
                      + " (_test_) and one for production (_live_): copy both keys from the same")
          .forEach(warnings::add);
      return warnings;
    }

    private List<byte[]> webhookSecrets(String text) {
      return Arrays.stream(text.split(",", -1))
          .map(String::strip)
          .map(this::webhookSecret)
          .toList();
    }

    private byte[] webhookSecret(String text) {
      byte[] key = new byte[0];
      if (text.matches("whsec_[A-Za-z0-9+/]+={0,2}")) {
        try {
          key = Base64.getDecoder().decode(text.substring("whsec_".length()));
        } catch (IllegalArgumentException e) {
          key = new byte[0]; // reported below, with everything else that is not a secret
        }
      }
      if (key.length < MIN_WEBHOOK_KEY_BYTES) {
        throw new IllegalArgumentException(
            "must be the endpoint's signing secret, whsec_...; several are separated by commas");
      }
      return key;
    }

    private Integer metricsPort(String text, int port) {
      int metricsPort = number(text, 0, 65535);
      if (metricsPort == port && port != 0) {
        throw new IllegalArgumentException(
            "is the same as PORT: whoever may use the server need not see its metrics");
      }
      return metricsPort;
    }

    private int pollSeconds(String text) {
      int seconds = number(text, 0, 86_400);
      if (seconds > 0 && seconds < MIN_POLL_SECONDS) {
        throw new IllegalArgumentException(
            "must be at least " + MIN_POLL_SECONDS + " seconds, or 0 for never");
      }
      return seconds;
    }

    private int number(String text, int least, int most) {
      int number = text.matches("\\d{1,6}") ? Integer.parseInt(text) : -1;
      if (number < least || number > most) {
        String kubernetes = // which sets METRICS_PORT if there is a Service "metrics"
            text.matches("(tcp|udp|sctp)://.*")
                ? "; it is an address, as Kubernetes sets for a Service of that name: set"
                    + " enableServiceLinks: false in the Pod, or rename the Service"
                : "";
        throw new IllegalArgumentException(
            "must be a number between " + least + " and " + most + kubernetes);
      }
      return number;
    }

    private <T> T required(String name, String form, Function<String, T> parse) {
      if (value(name).isEmpty()) {
        problems.add(name + REQUIRED + form);
        return null;
      }
      return optional(name, null, parse);
    }

    private <T> T optional(String name, T otherwise, Function<String, T> parse) {
      String value = value(name);
      if (value.isEmpty()) {
        return otherwise;
      }
      try {
        return parse.apply(value);
      } catch (IllegalArgumentException e) {
        problems.add(name + " " + e.getMessage());
        return otherwise;
      }
    }

    /**
     * Returns a value without the newline of a secrets file and without the quotes that Docker
     * keeps in env files.
     */
    private String value(String name) {
      String value = variables.getOrDefault(name, "").strip();
      boolean quoted =
          environment.containsKey(name) && value.matches("(?s)\".*\"|'.*'") && value.length() > 1;
      return quoted ? value.substring(1, value.length() - 1).strip() : value;
    }
  }
}
