package com.realmeet.server.testing;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.IntNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import com.networknt.schema.Error;
import com.networknt.schema.Schema;
import com.networknt.schema.SchemaLocation;
import com.networknt.schema.SchemaRegistry;
import com.networknt.schema.dialect.OpenApi31;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.eclipse.jetty.http.HttpStatus;

/**
 * The OpenAPI document as a promise that every answer of a server under test must keep: path,
 * method, status, headers and body. What is the same for all operations, and so is not written out
 * there for each, is checked here: headers of every answer, errors of no operation, HEAD,
 * preflights.
 */
public final class Contract {
  private static final Path FILE = Path.of("src/main/resources/openapi.yaml");
  private static final Path EXAMPLE = Path.of("src/test/resources/example/openapi.yaml");
  private static final String IRI = "https://real-meet-server/openapi";
  private static final JsonMapper JSON = new JsonMapper();

  /** They say how the message is delimited, not what it means; the body has its media type. */
  private static final Set<String> OF_HTTP =
      Set.of("connection", "content-length", "content-type", "date", "transfer-encoding");

  /** Patterns of headers that every answer carries, whatever it is. */
  private static final Map<String, Pattern> COMMON_HEADERS =
      Map.of(
          "Cache-Control", Pattern.compile("no-store"),
          "Vary", Pattern.compile("Origin"),
          "X-Content-Type-Options", Pattern.compile("nosniff"),
          "X-Request-Id", Pattern.compile("[A-Za-z0-9._-]{1,64}"));

  /** Patterns of headers that a preflight's answer carries beside its methods. */
  private static final Map<String, Pattern> PREFLIGHT_HEADERS =
      Map.of(
          "Access-Control-Allow-Headers", Pattern.compile(".+"),
          "Access-Control-Max-Age", Pattern.compile("7200"));

  /** Those of an answer of a server that is overloaded, or stops. */
  private static final Map<String, Pattern> HEADERS_OF_503 =
      Map.of("Retry-After", Pattern.compile("[1-9]|[1-5]\\d|60"));

  private static final Pattern ORIGIN = Pattern.compile("[a-z][a-z0-9+.-]*://[^/,]+");
  private static final Pattern QUERY = Pattern.compile("[?#].*");

  private static final String ERROR_SCHEMA = "/components/schemas/Error";
  private static final String REFUSED = "/components/responses/Refused";
  private static final String SIGNED_IN = "/components/responses/SignedIn";
  private static final String SYNC = "/paths/~1api~1user~1sync/post";

  /**
   * What is said to a request that is for no operation; other errors are those of malformed HTTP.
   */
  private static final Map<Integer, Set<String>> WITHOUT_OPERATION =
      Map.of(
          404, Set.of("Not found"),
          405, Set.of("Method not allowed"),
          503, Set.of("Server is overloaded", "Server is stopping"));

  /** The document that the server shows. */
  public static final String TEXT = read(FILE);

  public static final JsonNode SERVER = parse(TEXT);

  /** That of the README's example too. */
  public static final JsonNode DOCUMENT = merge(parse(TEXT), parse(read(EXAMPLE)));

  /** A path of the document, as targets of requests match it. */
  private record DescribedPath(Pattern pattern, String pointer) {
    static DescribedPath of(String path) {
      return new DescribedPath(
          Pattern.compile(path.replaceAll("\\{[^}]*}", "[^/]+")),
          "/paths/" + path.replace("~", "~0").replace("/", "~1"));
    }
  }

  /** Those without a name first: a target that matches literally means no other. */
  private static final List<DescribedPath> PATHS =
      DOCUMENT
          .get("paths")
          .propertyStream()
          .map(Map.Entry::getKey)
          .sorted((a, b) -> Boolean.compare(a.contains("{"), b.contains("{")))
          .map(DescribedPath::of)
          .toList();

  private static final SchemaRegistry SCHEMAS =
      SchemaRegistry.withDialect(
          OpenApi31.getInstance(), registry -> registry.schemas(Map.of(IRI, DOCUMENT.toString())));

  private Contract() {}

  private static String read(Path file) {
    try {
      return Files.readString(file);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static JsonNode parse(String yaml) {
    try {
      return new YAMLMapper().readTree(yaml);
    } catch (JsonProcessingException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static JsonNode merge(JsonNode document, JsonNode more) {
    if (document instanceof ArrayNode list && more instanceof ArrayNode others) {
      return list.addAll(others);
    }
    more.properties()
        .forEach(
            field -> {
              JsonNode old = document.get(field.getKey());
              ((ObjectNode) document)
                  .set(
                      field.getKey(),
                      old == null ? field.getValue() : merge(old, field.getValue()));
            });
    return document;
  }

  /** The operations of a document, such as "GET /api/health", and whether each takes a token. */
  public static Map<String, Boolean> operations(JsonNode document) {
    Map<String, Boolean> operations = new TreeMap<>();
    for (Map.Entry<String, JsonNode> path : document.get("paths").properties()) {
      for (Map.Entry<String, JsonNode> operation : path.getValue().properties()) {
        operations.put(
            operation.getKey().toUpperCase(Locale.ROOT) + " " + path.getKey(),
            operation.getValue().path("security").isMissingNode());
      }
    }
    return operations;
  }

  /**
   * Fails if the document does not promise an answer.
   *
   * @param request its first line, less the version; empty if it had none
   * @param headers names in any case
   * @param body empty if it was not read, or there is none
   */
  public static void check(
      String request, int status, Map<String, List<String>> headers, Optional<String> body) {
    String answer = "the answer " + status + " to \"" + request + "\" is not in openapi.yaml: ";
    Map<String, List<String>> named = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
    named.putAll(headers);
    List<String> types = named.get("Content-Type");
    OF_HTTP.forEach(named::remove);
    checkPatterns(COMMON_HEADERS, named, answer);
    checkCors(named, answer);

    String[] line = request.split(" ", 2);
    String method = line[0].equals("HEAD") ? "GET" : line[0];
    Optional<String> path = path(line.length < 2 ? "" : line[1]);
    Optional<String> operation =
        path.map(item -> item + "/" + method.toLowerCase(Locale.ROOT))
            .filter(pointer -> method.equals(method.toUpperCase(Locale.ROOT)) && has(pointer));
    if (method.equals("OPTIONS") && status == 204 && path.isPresent()) {
      checkPreflight(path.get(), named, answer);
      require(body.orElse("").isEmpty(), answer + body);
    } else if (operation.isPresent()) {
      checkOperation(operation.get(), status, types, named, body, answer);
    } else {
      checkWithoutOperation(request, path, status, types, named, body, answer);
    }
    require(named.isEmpty(), answer + named);
  }

  /** A pointer to the path that a target of a request matches. */
  private static Optional<String> path(String target) {
    String whole = QUERY.matcher(target).replaceFirst("");
    String path = whole.endsWith("/") ? whole.substring(0, whole.length() - 1) : whole;
    return PATHS.stream()
        .filter(each -> each.pattern.matcher(path).matches())
        .map(DescribedPath::pointer)
        .findFirst();
  }

  private static boolean has(String pointer) {
    return !DOCUMENT.at(pointer).isMissingNode();
  }

  private static void checkCors(Map<String, List<String>> headers, String answer) {
    List<String> origin = headers.remove("Access-Control-Allow-Origin");
    require(origin == null || ORIGIN.matcher(String.join(",", origin)).matches(), answer + origin);
    List<String> exposed = headers.remove("Access-Control-Expose-Headers");
    List<String> readable = origin == null ? null : List.of("Retry-After, X-Request-Id");
    require(Objects.equals(exposed, readable), answer + exposed);
  }

  private static void checkPreflight(
      String path, Map<String, List<String>> headers, String answer) {
    checkPatterns(PREFLIGHT_HEADERS, headers, answer);
    checkMethods(path, headers.remove("Access-Control-Allow-Methods"), answer);
  }

  private static void checkMethods(String path, List<String> methods, String answer) {
    Set<String> expected = new TreeSet<>();
    DOCUMENT
        .at(path)
        .fieldNames()
        .forEachRemaining(method -> expected.add(method.toUpperCase(Locale.ROOT)));
    if (expected.contains("GET")) {
      expected.add("HEAD");
    }
    require(
        methods != null && new TreeSet<>(List.of(methods.get(0).split(", "))).equals(expected),
        answer + "methods " + methods);
  }

  private static void checkOperation(
      String operation,
      int status,
      List<String> types,
      Map<String, List<String>> headers,
      Optional<String> body,
      String answer) {
    boolean listed = has(operation + "/responses/" + status);
    if (!listed && status >= 400 && resolve(operation + "/responses/default").equals(SIGNED_IN)) {
      checkOperation(SYNC, status, types, headers, body, answer);
      return;
    }
    require(listed || has(REFUSED + "/content/application~1json/examples/" + status), answer);
    String response = resolve(operation + "/responses/" + (listed ? status : "default"));
    checkHeaders(response, headers, answer);
    body.ifPresent(text -> checkBody(response, status, types, text, answer));
  }

  private static void checkHeaders(
      String response, Map<String, List<String>> headers, String answer) {
    DOCUMENT
        .at(response + "/headers")
        .fieldNames()
        .forEachRemaining(
            name -> {
              List<String> values = headers.remove(name);
              String header = resolve(response + "/headers/" + name);
              boolean required = DOCUMENT.at(header + "/required").asBoolean();
              require(values != null || !required, answer + "header " + name + " is missing");
              if (values != null) {
                String value = String.join(", ", values);
                boolean number = DOCUMENT.at(header + "/schema/type").asText().equals("integer");
                JsonNode node =
                    number ? IntNode.valueOf(Integer.parseInt(value)) : TextNode.valueOf(value);
                checkValue(header + "/schema", node, answer + name + ": " + value);
              }
            });
  }

  private static void checkBody(
      String response, int status, List<String> types, String body, String answer) {
    JsonNode content = DOCUMENT.at(response + "/content");
    String type = content.fieldNames().next();
    require(List.of(type).equals(types), answer + types);
    String media = response + "/content/" + type.replace("/", "~1");
    JsonNode value = type.equals("application/json") ? json(body, answer) : TextNode.valueOf(body);
    checkValue(media + "/schema", value, answer + body);
    if (DOCUMENT.at(media + "/schema/$ref").asText().endsWith(ERROR_SCHEMA)) {
      List<String> messages = DOCUMENT.at(media + "/examples").findValuesAsText("message");
      boolean free = messages.isEmpty() || status == 400 || status == 500; // it says which part
      checkError(status, value, free ? Set.of() : Set.copyOf(messages), answer + body);
    }
  }

  private static JsonNode json(String body, String answer) {
    try {
      return JSON.readTree(body);
    } catch (JsonProcessingException e) {
      throw new AssertionError(answer + body, e);
    }
  }

  /**
   * @param messages empty: any
   */
  private static void checkError(int status, JsonNode body, Set<String> messages, String answer) {
    checkValue(ERROR_SCHEMA, body, answer);
    String phrase = status == 500 ? "Internal Server Error" : HttpStatus.getMessage(status);
    require(body.get("error").asText().equals(phrase), answer);
    require(messages.isEmpty() || messages.contains(body.get("message").asText()), answer);
  }

  private static void checkWithoutOperation(
      String request,
      Optional<String> path,
      int status,
      List<String> types,
      Map<String, List<String>> headers,
      Optional<String> body,
      String answer) {
    require(status >= 400, request + " is not described in openapi.yaml");
    if (status == 503) {
      checkPatterns(HEADERS_OF_503, headers, answer);
    }
    if (status == 405) {
      require(path.isPresent(), answer + "no such path");
      checkMethods(path.get(), headers.remove("Allow"), answer);
    }
    require(
        WITHOUT_OPERATION.containsKey(status)
            || has(REFUSED + "/content/application~1json/examples/" + status),
        answer);
    require(List.of("application/json").equals(types), answer + types);
    Set<String> messages = WITHOUT_OPERATION.getOrDefault(status, Set.of());
    body.ifPresent(text -> checkError(status, json(text, answer), messages, answer + text));
  }

  private static void checkPatterns(
      Map<String, Pattern> patterns, Map<String, List<String>> headers, String answer) {
    patterns.forEach(
        (name, pattern) -> {
          List<String> values = headers.remove(name);
          require(
              values != null && pattern.matcher(String.join(", ", values)).matches(),
              answer + name + ": " + values);
        });
  }

  /** Fails if a value does not fit the schema that a pointer names. */
  public static void checkValue(String schema, JsonNode value, String message) {
    Schema compiled = SCHEMAS.getSchema(SchemaLocation.of(IRI + "#" + schema));
    List<Error> errors = compiled.validate(value);
    require(errors.isEmpty(), message + " " + errors);
  }

  /** Follows a reference, if there is one. */
  private static String resolve(String pointer) {
    JsonNode reference = DOCUMENT.at(pointer + "/$ref");
    return reference.isMissingNode() ? pointer : reference.asText().substring(1);
  }

  private static void require(boolean holds, String message) {
    if (!holds) {
      throw new AssertionError(message);
    }
  }
}
