package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.annotation.JsonSetter;
import com.fasterxml.jackson.databind.JsonNode;
import com.realmeet.server.core.Access;
import com.realmeet.server.core.Failure;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.io.IOException;
import java.math.BigDecimal;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.LocalDate;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.AutoClose;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** JSON that the routes of an application read and write. */
class JsonTest {
  @AutoClose private static final StandInClerk clerk = new StandInClerk();

  @AutoClose
  private static final TestServer server =
      TestServer.start(
          (routes, database, userSync) -> {
            routes.post("/text", ctx -> ctx.json(ctx.bodyAsClass(Room.class)), Access.PUBLIC);
            routes.post(
                "/stream", ctx -> ctx.json(ctx.bodyStreamAsClass(Room.class)), Access.PUBLIC);
            routes.post(
                "/numeric",
                ctx -> {
                  BigDecimal price = ctx.bodyAsClass(Room.class).price();
                  ctx.json(
                      database.read(
                          handle ->
                              handle
                                  .createQuery("SELECT CAST(:price AS numeric)")
                                  .bind("price", price)
                                  .mapTo(BigDecimal.class)
                                  .one()));
                },
                Access.PUBLIC);
            routes.post("/setters", ctx -> ctx.bodyAsClass(Setters.class), Access.PUBLIC);
            routes.get(
                "/query",
                ctx -> {
                  ctx.queryParamAsClass("id", UUID.class).getOrNull();
                  ctx.queryParamAsClass("at", Instant.class).getOrNull();
                  ctx.queryParamAsClass("day", LocalDate.class).getOrNull();
                },
                Access.PUBLIC);
            routes.get("/json", ctx -> ctx.jsonStream(Map.of("a", "é")), Access.PUBLIC);
            routes.get("/list", ctx -> ctx.writeJsonStream(Stream.of(1, "é")), Access.PUBLIC);
            routes.get("/10", ctx -> ctx.writeJsonStream(failingAfter(10)), Access.PUBLIC);
            routes.get("/100000", ctx -> ctx.writeJsonStream(failingAfter(100_000)), Access.PUBLIC);
            routes.get("/endless", ctx -> ctx.writeJsonStream(endless()), Access.PUBLIC);
          },
          clerk,
          TestPostgres.newDatabase());

  private record Room(
      String name,
      JsonNode node,
      Map<String, Object> tags,
      BigDecimal price,
      Double size,
      Visibility vis,
      LocalDate day) {}

  private enum Visibility {
    @JsonProperty("public")
    PUBLIC,
    PRIVATE
  }

  private static final class Setters {
    @JsonSetter
    void name(String name) {
      throw Failure.conflict("The name is taken");
    }

    @JsonSetter
    void size(int size) {
      throw new IllegalArgumentException("private");
    }

    @JsonSetter
    void bug(int bug) {
      throw new IllegalStateException("a bug");
    }
  }

  private static final AtomicInteger written = new AtomicInteger();

  private static Stream<Integer> endless() {
    return Stream.generate(written::incrementAndGet);
  }

  private static Stream<Integer> failingAfter(int elements) {
    return Stream.iterate(1, i -> i + 1)
        .peek(
            i -> {
              if (i > elements) {
                throw Failure.conflict("It has changed");
              }
            });
  }

  private static Answer ask(String text) {
    try (RawHttp client = new RawHttp(server.port())) {
      return client.send(text).unchecked();
    }
  }

  private static Answer post(String path, String body) {
    String json = body.replace('\'', '"');
    return ask(request("POST", path, "Content-Length: " + json.length()) + json);
  }

  private static void assertBadRequest(String message, Answer answer) {
    assertEquals("{\"error\":\"Bad Request\",\"message\":\"" + message + "\"}", answer.body());
    assertEquals(400, answer.status());
  }

  @ParameterizedTest
  @ValueSource(strings = {"/text", "/stream"})
  void bodyIsReadAndWritten(String path) {
    String body =
        "{'name':'a\\\\u0000\\ud83c\\udf89','node':[1.5],'tags':{'a':{'b':1}},'price':1.50,"
            + "'size':1.0E300,'vis':'public','day':'2024-02-29'}";

    assertEquals(
        body.replace('\'', '"').replace("\\ud83c\\udf89", "\ud83c\udf89"), post(path, body).body());
  }

  @Test
  void responseMayBeStreamed() {
    assertEquals("{\"a\":\"é\"}", ask(request("GET", "/json")).body());
    assertEquals("[1,\"é\"]", ask(request("GET", "/list")).body());
  }

  @Test
  void streamThatFailsIsNoCompleteList() throws IOException {
    ask(request("GET", "/10")).assertError(409, "Conflict", "It has changed");
    try (Socket client = new Socket("127.0.0.1", server.port())) {
      client.setSoTimeout(10_000);
      client.getOutputStream().write(request("GET", "/100000").getBytes(StandardCharsets.US_ASCII));
      String all = ApplicationTest.read(client.getInputStream());
      assertTrue(all.startsWith("HTTP/1.1 200 OK"), all);
      assertFalse(all.endsWith("0\r\n\r\n"));
    }
  }

  @Test
  void clientThatLeavesEndsAStreamAndIsNoBug() {
    try (RawHttp client = new RawHttp(server.port()).send(request("GET", "/endless"))) {
      assertEquals(200, client.unchecked().status());
      client.reset();
    }
    AtomicInteger before = new AtomicInteger(-1);
    TestServer.await("it ends", () -> before.getAndSet(written.get()) == written.get());
    assertFalse(Log.text().contains(" ERROR "), Log::text);
  }

  @Test
  void streamOfABodyHasTheSameLimit() {
    assertEquals(413, post("/stream", " ".repeat(2 << 20)).status());
    String chunk = "20000\r\n" + " ".repeat(0x20000) + "\r\n";
    String request = request("POST", "/stream", "Transfer-Encoding: chunked");
    assertEquals(413, ask(request + chunk.repeat(9) + "0\r\n\r\n").status());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "                             | The body is not an object",
        "null                         | The body is null",
        "{'size':1                    | The body is not JSON, see line 1",
        "{'size':1} x                 | The body is not JSON, see line 1",
        "{'a':[{'size':1,'size':2}]}  | size is there twice",
        "{'price':'1.5'}              | price is not a number",
        "{'price':1e999999999}         | price is out of range",
        "{'price':-1e999}              | price is out of range",
        "{'price':1e-999999999}        | price is out of range",
        "{'price':0e-999999999}        | price is out of range",
        "{'price':1e-99999999999}      | price is out of range",
        "{'size':1e999}                | size is out of range",
        "{'node':{'x':[1,-1E+999]}}    | node.x[1] is out of range",
        "{'vis':'PUBLIC'}             | vis is not one of public, PRIVATE",
        "{'day':'2024-02-30'}         | day is not a date such as 2026-02-09",
        "{'day':'+12024-02-01'}       | day is not a date such as 2026-02-09",
        "{'day':'0000-01-01'}         | day is not a date such as 2026-02-09",
        "{'day':'2024-02-01T00:00Z'}  | day is not a date such as 2026-02-09",
        "{'day':5}                    | day is not a date such as 2026-02-09",
        "{'name':'a\\u0000'}          | name has a character that cannot be stored",
        "{'name':'a\\ud800'}          | name has a character that cannot be stored",
        "{'node':'a\\u0000'}          | node has a character that cannot be stored",
        "{'node':[{},{'x':'\\udc00'}]} | node[1].x has a character that cannot be stored",
        "{'node':[{'\\ud800':1}]}     | The body is not JSON, see line 1",
        "{'tags':{'a':'\\u0000'}}     | tags.a has a character that cannot be stored",
        "{'tags':{'\\u0000':1}}       | tags has a character that cannot be stored",
        "{'other\\u0000':1}           | The body has a character that cannot be stored",
      })
  void bodyThatCannotBeReadIs400AndSaysWhy(String body, String message) {
    for (String path : new String[] {"/text", "/stream"}) {
      assertBadRequest(message, post(path, body == null ? "" : body));
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "1e308",
        "-1e-308",
        "0.00",
        "0e-30",
        "1e-999",
        "5e-324",
        "12345678901234567890123456789.5"
      })
  void numberThatCanBeStoredIsInRange(String number) {
    String stored = post("/numeric", "{'price':" + number + "}").body();

    assertEquals(0, new BigDecimal(number).compareTo(new BigDecimal(stored)), stored);
  }

  @Test
  void exceptionOfASetterIsLikeOneOfAConstructor() {
    post("/setters", "{'name':'a'}").assertError(409, "Conflict", "The name is taken");
    assertBadRequest("size is not valid", post("/setters", "{'size':1}"));
    assertEquals(500, post("/setters", "{'bug':1}").status());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "id=8f14e45f-ceea-467f-a8f5-0000000000aB",
        "at=2026-02-09T17:00%2B01:00",
        "day=2026-02-09"
      })
  void queryIsConvertedLikeABody(String query) {
    assertEquals(200, ask(request("GET", "/query?" + query)).status());

    String name = query.replaceFirst("=.*", "");
    for (String value : new String[] {"x", "1-1-1-1-1", "2026-02-30", "2026"}) {
      assertBadRequest(name + " is not valid", ask(request("GET", "/query?" + name + "=" + value)));
    }
  }
}
