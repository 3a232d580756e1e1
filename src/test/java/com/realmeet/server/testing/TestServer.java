package com.realmeet.server.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.realmeet.server.Application;
import com.realmeet.server.Config;
import com.realmeet.server.Main;
import com.realmeet.server.core.Access;
import io.javalin.http.Handler;
import io.javalin.http.HandlerType;
import io.javalin.json.JsonMapper;
import io.javalin.router.Endpoint;
import io.javalin.security.Roles;
import io.javalin.security.RouteRole;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import kotlin.Lazy;
import org.eclipse.jetty.server.ServerConnector;

/** The real server on a free port, and a client that speaks to it as a front end would. */
public final class TestServer implements AutoCloseable {
  /** Speaks HTTP/1.1 only: by default, Java's client requests an upgrade to HTTP/2 each time. */
  private static final HttpClient HTTP =
      HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

  private static final ObjectMapper JSON = new ObjectMapper();

  private final Main main;

  private TestServer(Main main) {
    this.main = main;
  }

  /**
   * The settings of a server in production, against a stand-in and a database. It does not poll:
   * tests do that by {@link #poll}.
   *
   * @param changes names and values, in turn, that differ
   */
  public static Map<String, String> settings(
      StandInClerk clerk, String databaseUrl, String... changes) {
    Map<String, String> settings = new HashMap<>();
    settings.put("DATABASE_URL", databaseUrl);
    settings.put("CLERK_SECRET_KEY", clerk.secretKey());
    settings.put("CLERK_API_URL", clerk.url());
    settings.put("CLIENT_URL", "http://localhost:3000");
    settings.put("NODE_ENV", "production");
    settings.put("HOST", "127.0.0.1");
    settings.put("PORT", "0");
    settings.put("CLERK_POLL_SECONDS", "0");
    for (int i = 0; i < changes.length; i += 2) {
      settings.put(changes[i], changes[i + 1]);
    }
    return settings;
  }

  /**
   * Starts a server.
   *
   * @param changes names and values, in turn, that differ from {@link #settings}
   */
  public static TestServer start(StandInClerk clerk, String databaseUrl, String... changes) {
    return start(Application.NONE, clerk, databaseUrl, changes);
  }

  /** Starts a server with more tables and routes. */
  public static TestServer start(
      Application application, StandInClerk clerk, String databaseUrl, String... changes) {
    Map<String, String> settings = settings(clerk, databaseUrl, changes);
    return new TestServer(Main.start(Config.from(settings), application));
  }

  public int port() {
    return main.port();
  }

  /**
   * Looks for changes at Clerk now.
   *
   * @return whether it has succeeded
   */
  public boolean poll() {
    return main.poll.poll();
  }

  /** The routes that are declared, such as "GET /api/health", and whether each demands a token. */
  public Map<String, Boolean> routes() {
    return main.app.unsafe.internalRouter.allHttpHandlers().stream()
        .map(route -> route.endpoint)
        .filter(route -> route.method.isHttpMethod())
        .collect(
            Collectors.toMap(route -> route.method + " " + route.path, route -> !isPublic(route)));
  }

  private static boolean isPublic(Endpoint route) {
    Roles roles = route.metadata(Roles.class);
    return roles != null && roles.getRoles().contains(Access.PUBLIC);
  }

  /**
   * Adds a POST route, as one of the application's own.
   *
   * @param roles none for a route that demands a token
   */
  public void addRoute(String path, Handler handler, RouteRole... roles) {
    main.app.unsafe.internalRouter.addHttpEndpoint(
        Endpoint.create(HandlerType.POST, path)
            .addMetadata(new Roles(Set.of(roles)))
            .handler(handler));
  }

  /** Closes new connections that are idle for so long, instead of the server's own time. */
  public void setIdleTime(Duration time) {
    connector().setIdleTimeout(time.toMillis());
  }

  private ServerConnector connector() {
    return (ServerConnector) main.app.jettyServer().server().getConnectors()[0];
  }

  /** How many connections of clients are open. */
  public int connections() {
    return main.app.jettyServer().server().getConnectors()[0].getConnectedEndPoints().size();
  }

  /** Runs a task whenever Javalin's servlet prepares itself. */
  public void onPreparing(Runnable task) {
    JsonMapper mapper = main.app.unsafe.jsonMapper.getValue();
    main.app.unsafe.jsonMapper =
        new Lazy<>() {
          @Override
          public JsonMapper getValue() {
            task.run();
            return mapper;
          }

          @Override
          public boolean isInitialized() {
            return false;
          }
        };
  }

  public URI uri(String path) {
    return URI.create("http://127.0.0.1:" + port() + path);
  }

  /** Asks for a user's row, as a signed-in front end does. */
  public HttpResponse<String> sync(String token) {
    return send(signedIn(token, "/api/user/sync").POST(HttpRequest.BodyPublishers.noBody()));
  }

  public HttpResponse<String> get(String path) {
    return send(HttpRequest.newBuilder(uri(path)));
  }

  /** The same by a user who is signed in. */
  public HttpResponse<String> get(String token, String path) {
    return send(signedIn(token, path));
  }

  /**
   * Posts a body as a user who is signed in.
   *
   * @param body JSON
   */
  public HttpResponse<String> post(String token, String path, String body) {
    return send(
        signedIn(token, path)
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body)));
  }

  private HttpRequest.Builder signedIn(String token, String path) {
    return HttpRequest.newBuilder(uri(path)).header("Authorization", "Bearer " + token);
  }

  /** Sends a request, and fails if the OpenAPI document does not promise the answer. */
  public HttpResponse<String> send(HttpRequest.Builder request) {
    HttpResponse<String> answer = exchange(request);
    Contract.check(
        answer.request().method() + " " + answer.uri().getRawPath(),
        answer.statusCode(),
        answer.headers().map(),
        Optional.of(answer.body()));
    return answer;
  }

  /** A value of what a response brings, such as its id, as text. */
  public static String data(HttpResponse<String> response, String key) {
    try {
      return JSON.readTree(response.body()).path("data").path(key).asText();
    } catch (JsonProcessingException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Fails unless a response is an error with this sentence. */
  public static void assertError(int status, String message, HttpResponse<String> response) {
    assertEquals(status, response.statusCode(), response.body());
    assertEquals(message, response.body().replaceFirst(".*\"message\":\"(.*)\"}", "$1"));
  }

  /** Gets what is no part of the API, from whatever server. */
  public static HttpResponse<String> getPage(URI uri) {
    return exchange(HttpRequest.newBuilder(uri));
  }

  private static HttpResponse<String> exchange(HttpRequest.Builder request) {
    try {
      return HTTP.send(request.build(), HttpResponse.BodyHandlers.ofString());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Does something so many times at once and returns all results. */
  public static <T> List<T> atOnce(int times, Callable<T> work) {
    ExecutorService threads = Executors.newFixedThreadPool(times);
    try {
      List<Future<T>> results =
          threads.invokeAll(IntStream.range(0, times).mapToObj(i -> work).toList());
      return results.stream().map(TestServer::get).toList();
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    } finally {
      threads.shutdownNow();
    }
  }

  /** Waits until something holds, for 30 s at most: a new JVM on a busy machine may need 10. */
  public static void await(String what, BooleanSupplier holds) {
    long began = System.nanoTime();
    while (!holds.getAsBoolean()) {
      long waited = System.nanoTime() - began;
      if (waited > 30_000_000_000L) {
        throw new AssertionError("waited 30 s in vain: " + what);
      }
      LockSupport.parkNanos(Math.min(5_000_000 + waited / 20, 200_000_000)); // looks cost time too
    }
  }

  private static <T> T get(Future<T> result) {
    try {
      return result.get();
    } catch (InterruptedException | ExecutionException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Stops as in production, where clients have a second in which to use their connections. */
  public void stop() {
    main.close();
  }

  /** Stops without that second, which our own client would let pass. */
  @Override
  public void close() {
    connector().setShutdownIdleTimeout(10);
    stop();
  }
}
