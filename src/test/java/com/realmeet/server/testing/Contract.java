package com.realmeet.server.testing;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.IntNode;
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
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/**
 * The OpenAPI document as a promise that every answer of a server under test must keep: path,
 * method, status, headers and body.
 */
public final class Contract {
  private static final Path FILE = Path.of("src/main/resources/openapi.yaml");
  private static final String IRI = "https://real-meet-server/openapi";
  private static final JsonMapper JSON = new JsonMapper();

  /** They say how the message is delimited, not what it means; the body has its media type. */
  private static final Set<String> OF_HTTP =
      Set.of("connection", "content-length", "content-type", "date");

  /** For what no operation answers: a path or a method that there is not, or no HTTP at all. */
  private static final Map<Integer, String> WITHOUT_OPERATION =
      Map.of(404, "NotFound", 405, "MethodNotAllowed", 503, "Stopping");

  public static final String TEXT = read();
  public static final JsonNode DOCUMENT = parse();

  private static final SchemaRegistry SCHEMAS =
      SchemaRegistry.withDialect(
          OpenApi31.getInstance(), registry -> registry.schemas(Map.of(IRI, DOCUMENT.toString())));

  private Contract() {}

  private static String read() {
    try {
      return Files.readString(FILE);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static JsonNode parse() {
    try {
      return new YAMLMapper().readTree(TEXT);
    } catch (JsonProcessingException e) {
      throw new UncheckedIOException(e);
    }
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
    String response = resolve(response(request, status, answer));
    Map<String, List<String>> named = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
    named.putAll(headers);
    body.ifPresent(text -> checkBody(response, named.get("Content-Type"), text, answer));
    checkHeaders(response, named, answer);
  }

  /** A pointer to the response of the operation, or to one that several have. */
  private static String response(String request, int status, String answer) {
    String[] line = request.split(" ", 2);
    String path = line.length < 2 ? "" : line[1].replaceFirst("[?#].*", "").replaceFirst("/$", "");
    String item = "/paths/" + path.replace("~", "~0").replace("/", "~1");
    String operation = item + "/" + line[0].toLowerCase(Locale.ROOT);
    if (!line[0].equals(line[0].toUpperCase(Locale.ROOT))
        || DOCUMENT.at(operation).isMissingNode()) {
      require(status != 405 || DOCUMENT.at(item).isObject(), answer + "no such path");
      return "/components/responses/" + WITHOUT_OPERATION.getOrDefault(status, "Refused");
    }
    String responses = operation + "/responses/";
    return responses + (DOCUMENT.at(responses + status).isMissingNode() ? "default" : status);
  }

  private static void checkHeaders(
      String response, Map<String, List<String>> headers, String answer) {
    OF_HTTP.forEach(headers::remove);
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
    require(headers.isEmpty(), answer + headers);
  }

  private static void checkBody(String response, List<String> types, String body, String answer) {
    JsonNode content = DOCUMENT.at(response + "/content");
    if (content.isMissingNode()) {
      require(body.isEmpty(), answer + body);
      return;
    }
    String type = content.fieldNames().next();
    require(List.of(type).equals(types), answer + types);
    String schema = response + "/content/" + type.replace("/", "~1") + "/schema";
    try {
      JsonNode value =
          type.equals("application/json") ? JSON.readTree(body) : TextNode.valueOf(body);
      checkValue(schema, value, answer + body);
    } catch (JsonProcessingException e) {
      throw new AssertionError(answer + body, e);
    }
  }

  /** Fails if a value does not fit the schema that a pointer names. */
  public static void checkValue(String schema, JsonNode value, String message) {
    Schema compiled = SCHEMAS.getSchema(SchemaLocation.of(IRI + "#" + schema));
    List<Error> errors = compiled.validate(value);
    require(errors.isEmpty(), message + " " + errors);
  }

  /** Follows a reference, if there is one. */
  public static String resolve(String pointer) {
    JsonNode reference = DOCUMENT.at(pointer + "/$ref");
    return reference.isMissingNode() ? pointer : reference.asText().substring(1);
  }

  private static void require(boolean holds, String message) {
    if (!holds) {
      throw new AssertionError(message);
    }
  }
}
