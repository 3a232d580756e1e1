package com.realmeet.server;

import static com.realmeet.server.testing.RawHttp.request;
import static com.realmeet.server.testing.TestServer.assertError;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.clerk.SessionAuth;
import com.realmeet.server.core.Failure;
import com.realmeet.server.database.Database;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.example.ExampleApplication;
import com.realmeet.server.http.Success;
import com.realmeet.server.testing.Log;
import com.realmeet.server.testing.RawHttp;
import com.realmeet.server.testing.RawHttp.Answer;
import com.realmeet.server.testing.SlowStatements;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import com.realmeet.server.users.UserSync;
import io.javalin.http.BadRequestResponse;
import io.javalin.http.Context;
import io.javalin.http.HttpResponseException;
import io.javalin.http.NotFoundResponse;
import io.javalin.http.RedirectResponse;
import io.javalin.http.RequestTimeoutResponse;
import io.javalin.http.ServiceUnavailableResponse;
import io.javalin.http.UnauthorizedResponse;
import io.javalin.router.JavalinDefaultRoutingApi;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.net.URLEncoder;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * What routes of an application's own may rely on without a line of theirs, and what the rest of
 * the server suffers from them: nothing.
 */
class ApplicationTest {
  private static final String MEETINGS = "/api/meetings";
  private static final String PARTICIPANTS = "/api/meetings/1/participants";
  private static final String NEW = "{\"title\":\"Lunch\",\"startsAt\":\"2026-02-09T17:00:00Z\"}";
  private static final String POOL_SIZE = "4";
  private static final int OF_APPLICATION = 2; // connections of the pool

  private static String database;
  private static StandInClerk clerk;
  private static TestServer server;
  private static String token;

  @BeforeAll
  static void start() {
    database = TestPostgres.newDatabase("meet");
    clerk = new StandInClerk();
    token = clerk.signUp("ada");
    server =
        TestServer.start(
            new ExampleApplication(), clerk, database, "DATABASE_POOL_SIZE", POOL_SIZE);
    assertEquals(200, server.sync(token).statusCode());
  }

  @AfterAll
  static void stop() {
    server.close();
    clerk.close();
  }

  /** The example with a handler of a test's own for GET /api/meetings. */
  private record WithHandler(HandlerOfTest handler) implements Application {
    @Override
    public String[] migrations() {
      return new ExampleApplication().migrations();
    }

    @Override
    public void declareRoutes(
        JavalinDefaultRoutingApi routes, Database database, UserSync userSync) {
      routes.get(MEETINGS, ctx -> handler.handle(ctx, database));
    }
  }

  private static TestServer serverWith(HandlerOfTest handler) {
    return TestServer.start(new WithHandler(handler), clerk, database);
  }

  /** Its handler of a test answers requests with {@code ?large}, and an empty list the others. */
  private static TestServer serverWithLarge(HandlerOfTest handler) {
    return serverWith(
        (ctx, database) -> {
          if (ctx.queryParam("large") == null) {
            ctx.json(Success.of(List.of()));
          } else {
            handler.handle(ctx, database);
          }
        });
  }

  private interface HandlerOfTest {
    void handle(Context ctx, Database database) throws Exception;
  }

  private static void assertOthersAreServed(TestServer server) {
    assertEquals(200, server.get("/api/health").statusCode());
    assertEquals(200, server.get("/api/ready").statusCode());
    assertEquals(200, server.sync(token).statusCode());
  }

  @Test
  void slowQueriesLeaveConnectionsToSyncAndReadiness() throws Exception {
    ExecutorService clients = Executors.newFixedThreadPool(20);
    List<Future<HttpResponse<String>>> slow = new ArrayList<>();
    try (Connection connection = DatabaseUrl.parse(database).dataSource(30).getConnection();
        Statement lock = connection.createStatement()) {
      connection.setAutoCommit(false);
      lock.execute("LOCK TABLE meet.meetings IN ACCESS EXCLUSIVE MODE");
      for (int i = 0; i < 20; i++) {
        slow.add(clients.submit(() -> server.get(token, MEETINGS)));
      }
      TestServer.await(
          "the application's share is in use",
          () -> SlowStatements.waiting(database) == OF_APPLICATION);

      assertOthersAreServed(server);
      assertEquals(OF_APPLICATION, SlowStatements.waiting(database));
    }
    for (Future<HttpResponse<String>> response : slow) {
      assertEquals(200, response.get().statusCode(), response.get().body());
    }
    clients.shutdown();
  }

  @Test
  void handlersThatBlockHoldUpNobodyElse() {
    CountDownLatch end = new CountDownLatch(1);
    AtomicInteger blocked = new AtomicInteger();
    int requests = 250;
    List<RawHttp> clients = new ArrayList<>();
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              blocked.incrementAndGet();
              end.await();
              ctx.json(Success.of(List.of()));
            })) {
      for (int i = 0; i < requests; i++) {
        clients.add(new RawHttp(server.port()).send(request("GET", MEETINGS, bearer())));
      }
      TestServer.await("as many as may", () -> blocked.get() == 60);

      assertOthersAreServed(server);
      end.countDown();
      clients.forEach(RawHttp::answer);
    } finally {
      clients.forEach(RawHttp::close);
    }
  }

  @Test
  void recordIsJsonInTheOrderOfItsComponents() {
    HttpResponse<String> created =
        server.post(token, MEETINGS, NEW.replace("17:00:00Z", "18:00+01:00"));

    assertEquals(
        "{\"success\":true,\"data\":{\"id\":0,\"hostId\":\"user_ada\",\"title\":\"Lunch\","
            + "\"startsAt\":\"2026-02-09T17:00:00.000Z\"}}",
        created.body().replaceFirst("\"id\":\\d+", "\"id\":0"));
  }

  @Test
  void queryEndsWithItsRequest() {
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              SECONDS.sleep(3);
              database.read(handle -> handle.execute("SELECT pg_sleep(30)"));
            })) {
      long began = System.nanoTime();
      assertError(503, "Database is unavailable", server.get(token, MEETINGS));

      // it would be 7.5 s with a time of its own
      assertTrue(System.nanoTime() - began < SECONDS.toNanos(6), Log::text);
    }
  }

  private static String bearer() {
    return "Authorization: Bearer " + token;
  }

  @Test
  void slowBodiesOfSignedInUsersHoldNobodyUp() {
    List<RawHttp> clients = new ArrayList<>();
    for (int i = 0; i < 20; i++) {
      clients.add(new RawHttp(server.port()));
      clients
          .get(i)
          .send(request("POST", MEETINGS, bearer(), "Content-Length: 99", "Expect: 100-continue"))
          .awaitContinue(); // the handler waits for the body
      clients.get(i).send("{");
    }

    assertOthersAreServed(server);
    assertEquals(201, server.post(token, MEETINGS, NEW).statusCode());
    clients.forEach(RawHttp::close);
  }

  @Test
  void clientsThatDoNotReadLargeResponsesHoldNobodyUp() {
    AtomicInteger large = new AtomicInteger();
    List<RawHttp> clients = new ArrayList<>();
    try (TestServer server =
        serverWithLarge(
            (ctx, database) -> {
              large.incrementAndGet();
              while (true) { // until the connection is closed
                ctx.outputStream().write(new byte[1 << 20]);
              }
            })) {
      for (int i = 0; i < 100; i++) {
        String request = request("GET", MEETINGS + "?large", bearer());
        clients.add(new RawHttp(server.port()).send(request));
      }
      TestServer.await("all are under way", () -> large.get() == 100);

      assertEquals(200, server.get(token, MEETINGS).statusCode());
      assertOthersAreServed(server);
    } finally {
      clients.forEach(RawHttp::close);
    }
    assertEquals(0, occurrences(" ERROR "));
  }

  /** Also the last part of a response of a known length. */
  @Test
  void clientsThatReadSlowlyAreServedWhileOthersDoNotReadAtAll() throws Exception {
    byte[] large = new byte[16 << 20];
    List<RawHttp> clients = new ArrayList<>();
    try (TestServer server =
        serverWithLarge(
            (ctx, database) -> {
              ctx.res().setContentLength(large.length);
              ctx.res().getOutputStream().write(large);
            })) {
      String request = request("GET", MEETINGS + "?large", bearer());
      try (Socket reader = new Socket("127.0.0.1", server.port())) {
        reader.getOutputStream().write(request.getBytes(StandardCharsets.ISO_8859_1));
        InputStream response = reader.getInputStream();
        response.readNBytes(1000);
        for (int i = 0; i < 80; i++) {
          clients.add(new RawHttp(server.port()).send(request));
        }
        CompletableFuture<HttpResponse<String>> other =
            CompletableFuture.supplyAsync(() -> server.get(token, MEETINGS));
        int read = 1000;
        while (read < large.length) {
          int bytes = response.readNBytes(Math.min(1 << 20, large.length - read)).length;
          assertTrue(bytes > 0, "the response is aborted after " + read);
          read += bytes;
          Thread.sleep(200);
        }
        assertEquals(200, other.get().statusCode());
      }
    } finally {
      clients.forEach(RawHttp::close);
    }
    assertEquals(0, occurrences(" ERROR "));
    assertEquals(1, occurrences("WARN JettyWorkarounds - Responses are aborted: more than 40"));
  }

  @Test
  void whatAHandlerHasWrittenBeforeItFailsIsNoResponse() {
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              ctx.header("Content-Length", "1000").header("Content-Encoding", "gzip");
              ctx.header("ETag", "x").header("Vary", "Accept-Language");
              ctx.outputStream().write(new byte[Integer.parseInt(ctx.queryParam("bytes"))]);
              throw Failure.badRequest("There is no such page");
            })) {
      HttpResponse<String> response = server.get(token, MEETINGS + "?bytes=100");
      assertError(400, "There is no such page", response);
      assertEquals(Optional.empty(), response.headers().firstValue("Content-Encoding"));
      assertEquals(Optional.empty(), response.headers().firstValue("ETag"));
    }
  }

  @Test
  void headerOfAHandlerDoesNotEndTheDifferenceByOrigin() {
    try (TestServer server =
        serverWith((ctx, database) -> ctx.header("Vary", "Accept-Language").result("{}"))) {
      RawHttp client = new RawHttp(server.port()).send(request("GET", MEETINGS, bearer()));

      assertEquals(List.of("Accept-Language, Origin"), client.unchecked().header("Vary"));
      client.close();
    }
  }

  /** Its end would make it look complete. */
  @Test
  void responseWhoseHandlerFailsHalfwayIsAborted() throws Exception {
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              ctx.outputStream().write(new byte[200_000]);
              throw new IllegalArgumentException("the cause");
            })) {
      try (Socket client = new Socket("127.0.0.1", server.port())) {
        client.setSoTimeout(10_000);
        String request = request("GET", MEETINGS, bearer());
        client.getOutputStream().write(request.getBytes(StandardCharsets.ISO_8859_1));
        String all = read(client.getInputStream());
        assertFalse(all.endsWith("0\r\n\r\n"));
        assertFalse(all.contains("\"error\""));
      }
      TestServer.await(
          "the log says so",
          () -> occurrences("WARN Errors - A response is aborted, since its handler failed") == 1);
    }
    assertEquals(1, occurrences("Unhandled exception"));
  }

  /** Reads until the server closes or resets the connection. */
  static String read(InputStream in) {
    StringBuilder text = new StringBuilder();
    byte[] buffer = new byte[1 << 16];
    try {
      for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
        text.append(new String(buffer, 0, n, StandardCharsets.ISO_8859_1));
      }
    } catch (IOException reset) {
      // as good as its end
    }
    return text.toString();
  }

  @Test
  void exceptionsOfJavalinKeepTheirSentence() {
    Map<HttpResponseException, List<String>> sentences =
        Map.of(
            new UnauthorizedResponse("Sign in again"),
            List.of("Unauthorized", "Sign in again", "WWW-Authenticate: Bearer"),
            new NotFoundResponse("There is no such room"),
            List.of("Not Found", "There is no such room"),
            new ServiceUnavailableResponse("Stripe is down"),
            List.of("Service Unavailable", "Stripe is down", "Retry-After: 1"),
            new HttpResponseException(413, "The avatar is over 100 kB"),
            List.of("Payload Too Large", "The avatar is over 100 kB"),
            new RequestTimeoutResponse("It has expired"),
            List.of("Request Timeout", "It has expired"),
            new BadRequestResponse(),
            List.of("Bad Request", "Bad Request"),
            new HttpResponseException(409),
            List.of("Conflict", "Conflict"));
    AtomicReference<HttpResponseException> thrown = new AtomicReference<>();
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              throw thrown.get();
            })) {
      sentences.forEach(
          (exception, error) -> {
            thrown.set(exception);
            String[] headers = error.subList(2, error.size()).toArray(new String[0]);
            askUnchecked(server)
                .assertError(exception.getStatus(), error.get(0), error.get(1), headers);
          });
    }
  }

  @Test
  void redirectOfJavalinHasNoError() {
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              ctx.header("Location", "/other");
              throw new RedirectResponse();
            })) {
      Answer answer = askUnchecked(server);

      assertEquals(302, answer.status());
      assertEquals(List.of("/other"), answer.header("Location"));
      assertEquals("", answer.body());
    }
  }

  private static Answer askUnchecked(TestServer server) {
    try (RawHttp client = new RawHttp(server.port())) {
      return client.send(request("GET", MEETINGS, bearer())).unchecked();
    }
  }

  @Test
  void formThatCannotBeReadIsA400() {
    try (TestServer server = serverWith((ctx, database) -> ctx.result(ctx.formParam("a")))) {
      String[] headers = {
        bearer(), "Content-Type: multipart/form-data; boundary=x", "Content-Length: 5"
      };
      RawHttp.ask(server.port(), request("GET", MEETINGS, headers) + "-----")
          .assertError(400, "Bad Request", "The body is not a form that can be read");
    }
  }

  @Test
  void parameterThatJavalinRefusesIsA400() {
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              ctx.queryParamAsClass("limit", Integer.class).get();
              ctx.json(Success.of(List.of()));
            })) {
      assertEquals(200, server.get(token, MEETINGS + "?limit=1").statusCode());
      for (String limit : List.of("?limit=abc", "?limit=3000000000", "?limit=", "")) {
        assertError(400, "limit is not valid", server.get(token, MEETINGS + limit));
      }
    }
  }

  /** Parts of a body of which the example has none. */
  private record Invitation(Role role, int seats, Seat seat) {
    enum Role {
      HOST,
      GUEST
    }
  }

  private record Seat(int number) {
    Seat {
      if (number == 0) {
        throw new IllegalArgumentException("private");
      }
    }
  }

  @Test
  void bodyIsReadWithoutGuesses() {
    Map<String, String> messages =
        Map.of(
            "{'role':'GUEST','seats':2,'seat':{'number':1}}", "",
            "{'role':'guest','seats':2}", "role is not one of HOST, GUEST",
            "{'role':0,'seats':2}", "role is not one of HOST, GUEST",
            "{'role':'GUEST','seats':3000000000}", "seats is out of range",
            "{'role':'GUEST','seats':1,'seat':{'number':0}}", "seat is not valid");
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              String body = ctx.queryParam("body").replace('\'', '"');
              ctx.jsonMapper().fromJsonString(body, Invitation.class);
              ctx.json(Success.of(List.of()));
            })) {
      messages.forEach(
          (body, message) -> {
            String query = "?body=" + URLEncoder.encode(body, StandardCharsets.UTF_8);
            HttpResponse<String> response = server.get(token, MEETINGS + query);
            if (message.isEmpty()) {
              assertEquals(200, response.statusCode(), response.body());
            } else {
              assertError(400, message, response);
            }
          });
    }
  }

  @Test
  void exceptionIsA500AndOneStackTrace() {
    try (TestServer server =
        serverWith(
            (ctx, database) -> {
              throw new IllegalArgumentException("the cause");
            })) {
      HttpResponse<String> response = server.get(token, MEETINGS);

      assertEquals(500, response.statusCode());
      assertEquals(
          "{\"error\":\"Internal Server Error\",\"message\":\"Internal server error\"}",
          response.body());
      assertEquals(1, occurrences("Unhandled exception"));
      assertEquals(1, occurrences("IllegalArgumentException: the cause"));
      assertEquals(1, occurrences("at com.realmeet.server.ApplicationTest.lambda$exceptionIsA500"));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"uuid", "int", "date"})
  void valueThatTheDatabaseRefusesIsNotLogged(String type) {
    try (TestServer server =
        serverWith(
            (ctx, database) ->
                database.read(
                    handle ->
                        handle
                            .createQuery("SELECT CAST(:value AS " + type + ")")
                            .bind("value", ctx.queryParam("value"))
                            .mapTo(String.class)
                            .one()))) {
      assertEquals(500, server.get(token, MEETINGS + "?value=private").statusCode());
      assertEquals(1, occurrences("Unhandled exception"));
      assertEquals(1, occurrences("SQLDataException: SQLSTATE 22"));
      assertEquals(2, occurrences("at com.realmeet.server.ApplicationTest.lambda$valueThat"));
      assertFalse(Log.text().contains("private"), Log::text);
      assertError(
          400,
          "The request has a character that cannot be stored",
          server.get(token, MEETINGS + "?value=%00"));
      assertEquals(1, occurrences("Unhandled exception"));
    }
  }

  /** Javalin's loop for the first would take the processor of the tests until its end. */
  @ParameterizedTest
  @ValueSource(strings = {"bytes=5000000-", "bytes=0-1", "bytes=-1", "bytes=x"})
  void rangeIsIgnored(String range) {
    try (TestServer server =
        serverWith(
            (ctx, database) ->
                ctx.writeSeekableStream(
                    new ByteArrayInputStream("video".getBytes(StandardCharsets.US_ASCII)),
                    "video/mp4"))) {
      try (RawHttp client = new RawHttp(server.port())) {
        Answer answer =
            client.send(request("GET", MEETINGS, bearer(), "Range: " + range)).unchecked();

        assertEquals(200, answer.status());
        assertEquals("video", answer.body());
      }
    }
  }

  @Test
  void userIsKnownToBeforeMatchedOnly() {
    try (TestServer server =
        TestServer.start(
            (routes, database, userSync) -> {
              routes.get("/team/{id}", ctx -> ctx.result("ok"));
              routes.before("/team/1", SessionAuth::userId);
              routes.beforeMatched("/team/2", SessionAuth::userId);
            },
            clerk,
            database)) {
      try (RawHttp client = new RawHttp(server.port())) {
        assertEquals(500, client.send(request("GET", "/team/1", bearer())).unchecked().status());
        assertEquals(
            1, occurrences("this is a before-handler, which must be beforeMatched"), Log::text);
        assertEquals(200, client.send(request("GET", "/team/2", bearer())).unchecked().status());
      }
    }
  }

  private static int occurrences(String text) {
    return (int) Log.text().lines().filter(line -> line.contains(text)).limit(10).count();
  }

  /** A sequence counts the tries, since it is not rolled back. */
  @ParameterizedTest
  @CsvSource({"1, 201, 1, 2", "2, 503, 0, 1"})
  void connectionThatBreaksDoesNotInsertTwice(int when, int status, String inserted, String tries) {
    TestPostgres.execute(
        database,
        """
        CREATE SEQUENCE meet.tries;
        CREATE FUNCTION meet.die() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF nextval('meet.tries') = 1 THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(10);
          END IF;
          RETURN NEW;
        END $$;
        """
            + (when == 1
                ? "CREATE TRIGGER die AFTER INSERT ON meet.meetings"
                : "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON meet.meetings DEFERRABLE INITIALLY DEFERRED")
            + " FOR EACH ROW WHEN (NEW.title = 'dies') EXECUTE FUNCTION meet.die()");
    try {
      String body = NEW.replace("Lunch", "dies");
      HttpResponse<String> response = server.post(token, MEETINGS, body);

      assertEquals(status, response.statusCode(), response.body());
      assertEquals(
          List.of(inserted + "|" + tries),
          TestPostgres.query(
              database,
              "SELECT (SELECT count(*) FROM meet.meetings WHERE title = 'dies'), last_value FROM meet.tries"));
    } finally {
      TestPostgres.execute(
          database,
          "DROP FUNCTION meet.die() CASCADE; DROP SEQUENCE meet.tries;"
              + " DELETE FROM meet.meetings WHERE title = 'dies'");
      TestServer.await("the pool is well", () -> server.sync(token).statusCode() == 200);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "GET, " + MEETINGS,
    "HEAD, " + MEETINGS,
    "POST, " + MEETINGS,
    "POST, " + PARTICIPANTS,
    "POST, /api/meetings/x/participants",
    "POST, /api/meetings/1/participants/",
  })
  void routeDemandsATokenWithoutSayingSo(String method, String path) {
    assertEquals(401, ask(request(method, path)));
    assertEquals(401, ask(request(method, path, "Authorization: Bearer x")));
  }

  private static int ask(String request) {
    return RawHttp.ask(server.port(), request).status();
  }

  /** That Allow, or Access-Control-Allow-Methods, names the methods of the path: see Contract. */
  @ParameterizedTest
  @CsvSource({
    "PUT, " + MEETINGS,
    "DELETE, " + MEETINGS,
    "PATCH, " + MEETINGS,
    "TRACE, " + MEETINGS,
    "post, " + MEETINGS,
    "GET, " + PARTICIPANTS,
    "HEAD, " + PARTICIPANTS,
    "DELETE, /api/meetings/x/participants",
  })
  void foreignMethodIs405AndAPreflightTellsTheMethods(String method, String path) {
    assertEquals(405, ask(request(method, path)));
    assertEquals(405, ask(request(method, path, bearer())));
    assertEquals(
        204,
        ask(
            request(
                "OPTIONS",
                path,
                "Origin: http://localhost:3000",
                "Access-Control-Request-Method: " + method,
                "Access-Control-Request-Headers: authorization,content-type")));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/api/meetings/1",
        "/api/meetings/participants",
        "/api/meetings//participants",
        "/api/meetings/1/participants/1",
        "/api/meetings/1/2/participants",
        "/api/meetings/1%2F2/participants",
      })
  void pathOfNoRouteIs404(String path) {
    assertEquals(404, ask(request("POST", path, bearer())));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "413 | Content-Length: 2000000 | ",
        "413 | Transfer-Encoding: chunked | 200000",
        "400 | Content-Length: 0 | ",
        "400 | Content-Type: application/json | ",
        "400 | Content-Type: application/json; charset=nonsense | 2",
        "400 | Content-Type: application/json; charset=- | 2",
        "400 | Content-Encoding: gzip | 2",
        "400 | Content-Type: multipart/form-data; boundary=x | 2",
        "400 | Content-Type: application/x-www-form-urlencoded | 2",
        "400 | Content-Length: 9, 8 | ",
        "400 | Transfer-Encoding: nonsense | ",
      })
  void bodyOfAnotherFormIsRefusedInTheHousesWords(int status, String header, Integer length) {
    String body = "x".repeat(length == null ? 0 : length);
    if (header.startsWith("Transfer-Encoding: chunked")) {
      String chunk = Integer.toHexString(length) + "\r\n" + body + "\r\n";
      body = chunk.repeat(6) + "0\r\n\r\n";
    }
    String[] headers =
        length == null || header.startsWith("Transfer")
            ? new String[] {bearer(), header}
            : new String[] {bearer(), header, "Content-Length: " + length};

    assertEquals(status, ask(request("POST", MEETINGS, headers) + body));
    assertOthersAreServed(server);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "text/plain",
        "application/json; charset=UTF-8",
        "application/json; charset=\"utf-8\"",
        "nonsense"
      })
  void typeOfABodyIsNotLookedAt(String type) {
    String[] headers = {bearer(), "Content-Type: " + type, "Content-Length: " + NEW.length()};

    assertEquals(201, ask(request("POST", MEETINGS, headers) + NEW));
  }

  /** Text that is no personal data, but nothing for a log either. */
  @ParameterizedTest
  @ValueSource(ints = {1_000, 900_000})
  void oddBodiesAreRefusedAndNotLogged(int size) {
    List<String> bodies =
        List.of(
            "[".repeat(size),
            "{\"title\":".repeat(size / 10),
            "{\"title\":\""
                + "private".repeat(size / 10)
                + "\",\"startsAt\":\"2026-02-09T17:00:00Z\"}",
            "{\"title\":" + "9".repeat(size) + "}",
            "{\"title\":\"a\",\"startsAt\":\"private" + "9".repeat(size) + "\"}",
            "{\"title\":\"a\",\"startsAt\":1e" + "9".repeat(size) + "}");

    for (String body : bodies) {
      assertEquals(400, server.post(token, MEETINGS, body).statusCode());
    }
    for (String participant : Arrays.asList("private".repeat(size / 10), "user_" + size)) {
      String body = "{\"userId\":\"" + participant + "\"}";
      assertEquals(400, server.post(token, participants(), body).statusCode());
    }
    assertFalse(Log.text().contains("private"));
    assertEquals(0, occurrences("Unhandled exception"));
  }

  private static String participants() {
    return server
        .post(token, MEETINGS, NEW)
        .body()
        .replaceFirst(".*\"id\":(\\d+).*", MEETINGS + "/$1/participants");
  }

  @Test
  void aThousandRowsAreListed() {
    String busy = clerk.signUp("busy");
    server.sync(busy);
    TestPostgres.execute(
        database,
        "INSERT INTO meet.meetings (host_id, title, starts_at)"
            + " SELECT 'user_busy', repeat('x', 200), now() FROM generate_series(1, 1001)");

    String body = server.get(busy, MEETINGS).body();

    assertEquals(1000, body.split("\"id\":", -1).length - 1);
  }

  @Test
  void deadUserCannotHost() {
    String gone = clerk.signUp("gone");
    server.sync(gone);
    TestPostgres.execute(
        database, "UPDATE meet.users SET deleted_at = now() WHERE id = 'user_gone'");

    assertEquals(401, server.post(gone, MEETINGS, NEW).statusCode());
    assertEquals(401, server.post(clerk.token("user_never"), MEETINGS, NEW).statusCode());
  }
}
