package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.realmeet.server.core.Failure;
import com.realmeet.server.example.ExampleApplication;
import com.realmeet.server.testing.Contract;
import com.realmeet.server.testing.Fleet;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.http.HttpResponse;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The OpenAPI document: that it is served, complete, and true to itself. That all answers keep it
 * is checked wherever a test receives one, see {@link Contract}.
 */
class ApiDocumentTest {
  private static final Map<String, List<String>> HEADERS =
      Map.of(
          "Content-Type", List.of("application/json"),
          "Cache-Control", List.of("no-store"),
          "Vary", List.of("Origin"),
          "X-Content-Type-Options", List.of("nosniff"),
          "X-Request-Id", List.of("0b9F-4.c_d"));

  private static final String READY = "{\"status\":\"ok\",\"database\":\"ok\"}";

  @Test
  void documentIsServedAndHasTheVeryRoutesOfTheServer() {
    try (StandInClerk clerk = new StandInClerk();
        TestServer server =
            TestServer.start(
                clerk, TestPostgres.newDatabase(), "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET)) {
      HttpResponse<String> answer = server.get("/api/openapi.yaml");

      assertEquals(200, answer.statusCode());
      assertEquals(Contract.TEXT, answer.body());
      assertDescribed(server, Contract.SERVER);
    }
  }

  @Test
  void documentOfTheExampleHasItsVeryRoutes() {
    try (StandInClerk clerk = new StandInClerk();
        TestServer server =
            TestServer.start(
                new ExampleApplication(),
                clerk,
                TestPostgres.newDatabase(),
                "CLERK_WEBHOOK_SIGNING_SECRET",
                Fleet.SECRET)) {
      assertDescribed(server, Contract.DOCUMENT);
    }
  }

  private static void assertDescribed(TestServer server, JsonNode document) {
    Map<String, Boolean> operations = Contract.operations(document);
    Map<String, Boolean> routes = server.routes();
    Set<String> all = new TreeSet<>(operations.keySet());
    all.addAll(routes.keySet());
    List<String> problems =
        all.stream()
            .filter(name -> !Objects.equals(operations.get(name), routes.get(name)))
            .map(name -> name + problem(operations.get(name), routes.get(name)))
            .toList();
    assertEquals(List.of(), problems);
  }

  private static String problem(Boolean described, Boolean declared) {
    if (described == null) {
      return " is not described in openapi.yaml";
    }
    if (declared == null) {
      return " of openapi.yaml is not a route of the server";
    }
    return declared
        ? " demands a token, but not in openapi.yaml"
        : " is public, but not in openapi.yaml: add security: []";
  }

  @ParameterizedTest
  @EnumSource(
      mode = EnumSource.Mode.EXCLUDE,
      names = {"BAD_REQUEST", "FORBIDDEN", "NOT_FOUND", "CONFLICT"}) // with a route's own sentence
  void everyFailureIsAnExampleUnderItsStatus(Failure.Kind kind) {
    List<String> messages =
        Contract.DOCUMENT.get("paths").findValues(String.valueOf(kind.status)).stream()
            .map(response -> Contract.DOCUMENT.at(response.get("$ref").asText().substring(1)))
            .flatMap(response -> response.findValuesAsText("message").stream())
            .toList();

    assertTrue(messages.contains(kind.sentence), messages::toString);
  }

  @Test
  void everyExampleFitsItsSchema() {
    Set<String> examples = new TreeSet<>();
    checkExamples("", Contract.DOCUMENT, examples);

    assertTrue(examples.size() > 30, examples::toString);
  }

  private static void checkExamples(String pointer, JsonNode node, Set<String> checked) {
    if (node.has("schema")) {
      Stream.concat(
              Stream.ofNullable(node.get("example")),
              node.path("examples").valueStream().map(example -> example.get("value")))
          .forEach(
              example -> {
                Contract.checkValue(pointer + "/schema", example, pointer);
                checked.add(pointer + " " + example);
              });
    }
    node.properties()
        .forEach(
            field ->
                checkExamples(
                    pointer + "/" + field.getKey().replace("/", "~1"), field.getValue(), checked));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          a path           | GET /api/other        | 200 | {"status":"ok","database":"ok"}
          a method         | PUT /api/ready        | 200 | {"status":"ok","database":"ok"}
          a status         | GET /api/ready        | 201 | {"status":"ok","database":"ok"}
          a word           | GET /api/ready        | 200 | {"status":"ok","database":"slow"}
          a key            | GET /api/ready        | 200 | {"status":"ok","database":"ok","more":1}
          a missing key    | GET /api/ready        | 200 | {"status":"ok"}
          no JSON          | GET /api/ready        | 200 | {
          a 404 of a route | GET /api/ready        | 404 | {"error":"Not Found","message":"Not found"}
          a message        | POST /api/user/sync   | 422 | {"error":"Unprocessable Entity","message":"No"}
          one of SignedIn  | POST /api/meetings    | 422 | {"error":"Unprocessable Entity","message":"No"}
          a 404 beside it  | POST /api/meetings    | 404 | {"error":"Not Found","message":"Not found"}
          sync's 200       | POST /api/meetings    | 200 | {"success":true,"data":{"id":"user_2aB3dE4fG5","email":"john@example.org","name":null,"imageUrl":null,"createdAt":"2026-02-09T17:00:00.000Z","updatedAt":"2026-02-09T17:00:00.000Z"}}
          a header         | GET /nope             | 405 | {"error":"Method Not Allowed","message":"Method not allowed"}
          a body           | OPTIONS /api/ready    | 204 | {}
          """)
  void answerThatTheDocumentDoesNotPromiseIsFound(
      String what, String request, int status, String body) {
    assertThrows(
        AssertionError.class,
        () -> Contract.check(request, status, HEADERS, Optional.of(body)),
        what);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "Server: Jetty",
        "Retry-After: 5",
        "Vary: Accept",
        "Vary:",
        "Cache-Control: max-age=5",
        "X-Request-Id: a b",
        "Content-Type: text/css"
      })
  void headerThatTheDocumentDoesNotPromiseIsFound(String line) {
    String[] header = line.split(": ?", 2);
    Map<String, List<String>> headers = new HashMap<>(HEADERS);
    Contract.check("GET /api/ready", 200, headers, Optional.of(READY));

    headers.put(header[0], List.of(header[1]));
    assertThrows(
        AssertionError.class,
        () -> Contract.check("GET /api/ready", 200, headers, Optional.of(READY)));
  }
}
