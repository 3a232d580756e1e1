package com.realmeet.server.dev;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.testing.StandInClerk;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;

/** Routes under {@code /dev} of the stand-in for Clerk, by which a developer changes its users. */
final class DevRoutes {
  private static final JsonMapper JSON = new JsonMapper();
  private static final HttpClient HTTP = HttpClient.newHttpClient();

  /** Loads nothing from elsewhere; no other page may frame this one and its buttons. */
  private static final String CONTENT_SECURITY_POLICY =
      "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
          + " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
          + " frame-ancestors 'none'";

  /** Maximum requests that the page shows. */
  private static final int MAX_REQUESTS = 20;

  private final StandInClerk clerk;
  private final Path file;
  private final Map<String, String> variables;

  /** Requests to the server, latest first. */
  private final Deque<ObjectNode> requests = new ArrayDeque<>();

  /**
   * @param file where the users are kept
   * @param variables the server's settings
   */
  DevRoutes(StandInClerk clerk, Path file, Map<String, String> variables) {
    this.clerk = clerk;
    this.file = file;
    this.variables = variables;
  }

  /** Loads the users, and adds the routes. */
  void add() throws IOException {
    if (Files.exists(file)) {
      for (JsonNode user : JSON.readTree(file.toFile())) {
        clerk.users().put(user.get("id").asText(), (ObjectNode) user);
      }
    } else {
      clerk.putUser("user_ada", "ada@example.com", "Ada", "Lovelace");
      clerk.putUser("user_grace", "grace@example.com", "Grace", "Hopper");
      clerk.putUser("user_edsger", "edsger@example.com", "Edsger", "Dijkstra");
      clerk.putUser("user_noname", "noname@example.com", null, null);
      clerk.putUser("user_noemail", null, "Phone", "Only");
    }
    addRoute("/dev", this::page);
    addRoute("/dev/state", this::state);
    addRoute("/dev/sync/", this::sync);
    addRoute("/dev/users", this::users);
    addRoute("/dev/token/", this::token);
  }

  /**
   * Adds a route that refuses pages of other origins, and names of other hosts (DNS rebinding).
   * Browsers send the origin of a page with each of its requests that is no GET.
   */
  private void addRoute(String path, HttpHandler handler) {
    clerk.addRoute(
        path,
        exchange -> {
          String host = String.valueOf(exchange.getRequestHeaders().getFirst("Host"));
          String origin = exchange.getRequestHeaders().getFirst("Origin");
          boolean isDocs =
              origin != null && path.equals("/dev/token/") && serverOrigins().contains(origin);
          if (isDocs) {
            exchange.getResponseHeaders().set("Access-Control-Allow-Origin", origin);
          }
          if (host.matches("(localhost|127\\.0\\.0\\.1)(:\\d+)?")
              && (origin == null || origin.equals("http://" + host) || isDocs)) {
            handler.handle(exchange);
          } else {
            StandInClerk.send(exchange, 403, "{\"error\":\"not for pages of other origins\"}\n");
          }
        });
  }

  /** The origins of the server's own page, {@code /api/docs}. */
  private List<String> serverOrigins() {
    String port = variables.get("PORT");
    return List.of("http://localhost:" + port, "http://127.0.0.1:" + port);
  }

  /**
   * GET lists the users; POST adds one, PATCH changes one, DELETE removes one. With {@code
   * ?webhook=no} the server is not told, so that its poll has to notice.
   */
  private void users(HttpExchange exchange) throws IOException {
    String id = exchange.getRequestURI().getPath().replaceFirst("^/dev/users/?", "");
    JsonNode body;
    try {
      body = JSON.readTree(exchange.getRequestBody());
    } catch (IOException e) {
      StandInClerk.send(exchange, 400, "{\"error\":\"the body is not JSON\"}\n");
      return;
    }
    boolean known = clerk.users().containsKey(id);
    boolean needsUser = List.of("PATCH", "DELETE").contains(exchange.getRequestMethod());
    if (!known && (needsUser || !id.isEmpty())) {
      StandInClerk.send(exchange, 404, "{\"error\":\"no such user\"}\n");
      return;
    }
    switch (exchange.getRequestMethod()) {
      case "POST" -> {
        id = "user_" + UUID.randomUUID().toString().replace("-", "");
        clerk.putUser(id, text(body, "email"), text(body, "first_name"), text(body, "last_name"));
        sendWebhook(exchange, "user.created", id);
      }
      case "PATCH" -> {
        change(clerk.users().get(id), body);
        sendWebhook(exchange, "user.updated", id);
      }
      case "DELETE" -> {
        clerk.deleteUser(id);
        sendWebhook(exchange, "user.deleted", id);
      }
      default -> {}
    }
    Files.writeString(file, JSON.writeValueAsString(clerk.users().values()));
    JsonNode answer =
        JSON.valueToTree(id.isEmpty() ? clerk.users().values() : clerk.users().get(id));
    StandInClerk.send(exchange, 200, answer.toPrettyString() + "\n");
  }

  private void change(ObjectNode user, JsonNode changes) {
    ObjectNode changed = user.deepCopy();
    changes
        .fieldNames()
        .forEachRemaining(
            name -> {
              if (name.equals("email")) {
                changed.put("primary_email_address_id", "idn_new");
                changed
                    .putArray("email_addresses")
                    .addObject()
                    .put("id", "idn_new")
                    .set("email_address", changes.get(name));
              } else {
                changed.set(name, changes.get(name));
              }
            });
    clerk.putUser(changed);
  }

  /** Responds with the page that shows users, rows and requests; it polls {@link #state}. */
  private void page(HttpExchange exchange) throws IOException {
    boolean exact = exchange.getRequestURI().getPath().equals("/dev");
    byte[] page = {};
    if (exact) {
      try (InputStream in = DevRoutes.class.getResourceAsStream("/dev/index.html")) {
        page = in.readAllBytes();
      }
    }
    exchange.getResponseHeaders().set("Content-Type", "text/html; charset=utf-8");
    exchange.getResponseHeaders().set("Content-Security-Policy", CONTENT_SECURITY_POLICY);
    exchange.sendResponseHeaders(exact ? 200 : 404, exact ? page.length : -1);
    exchange.getResponseBody().write(page);
    exchange.close();
  }

  /** Responds with what the page shows. */
  private void state(HttpExchange exchange) throws IOException {
    ObjectNode state = JSON.createObjectNode().put("server", serverListens());
    state.put("pollSeconds", variables.get("CLERK_POLL_SECONDS"));
    state.set("users", JSON.valueToTree(clerk.users().values()));
    try {
      state.set("rows", rows());
    } catch (SQLException | StartupException e) {
      state.put("databaseError", e.getMessage());
    }
    synchronized (requests) {
      state.set("requests", JSON.valueToTree(requests));
    }
    StandInClerk.send(exchange, 200, state.toString());
  }

  /** Returns true if the port accepts connections. A request would be logged each second. */
  private boolean serverListens() {
    try (Socket socket = new Socket("localhost", Integer.parseInt(variables.get("PORT")))) {
      return socket.isConnected();
    } catch (IOException e) {
      return false;
    }
  }

  /** The rows of the users whom Clerk has, and the latest others. */
  private JsonNode rows() throws IOException, SQLException {
    DatabaseUrl database = Studio.database(variables);
    String sql =
        """
        SELECT coalesce(json_agg(u), '[]') FROM (
          SELECT id, email, name, updated_at, clerk_updated_at, deleted_at FROM %s
          ORDER BY id = ANY (?) DESC, updated_at DESC LIMIT 100) u
        """
            .formatted(database.qualified("users"));
    try (Connection connection = database.dataSource(0).getConnection();
        PreparedStatement statement = connection.prepareStatement(sql)) {
      Object[] ids = clerk.users().keySet().toArray();
      statement.setArray(1, connection.createArrayOf("text", ids));
      ResultSet result = statement.executeQuery();
      result.next();
      return JSON.readTree(result.getString(1));
    }
  }

  /** Signs a user in: syncs with a fresh token, as a front end does. */
  private void sync(HttpExchange exchange) throws IOException {
    String id = exchange.getRequestURI().getPath().substring("/dev/sync/".length());
    if (!exchange.getRequestMethod().equals("POST")) {
      StandInClerk.send(exchange, 405, "{\"error\":\"only POST\"}\n");
      return;
    }
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(Dev.serverUrl(variables) + "/api/user/sync"))
            .header("Authorization", "Bearer " + clerk.token(id))
            .POST(HttpRequest.BodyPublishers.noBody())
            .build();
    send(id, request, "").join();
    StandInClerk.send(exchange, 200, "{}\n");
  }

  /** Sends a request to the server, and remembers it for the page. */
  private CompletableFuture<String> send(String userId, HttpRequest request, String body) {
    long at = System.currentTimeMillis();
    return HTTP.sendAsync(request, HttpResponse.BodyHandlers.ofString())
        .handle(
            (response, e) -> {
              ObjectNode seen = JSON.createObjectNode().put("at", at).put("user", userId);
              seen.put("request", request.method() + " " + request.uri().getPath());
              ArrayNode headers = seen.putArray("headers");
              request
                  .headers()
                  .map()
                  .forEach((name, values) -> headers.add(name + ": " + values.get(0)));
              seen.put("body", body).put("status", e == null ? response.statusCode() : 0);
              seen.put("response", e == null ? response.body() : "the server does not answer");
              remember(seen);
              return e == null ? String.valueOf(response.statusCode()) : e.toString();
            });
  }

  private void remember(ObjectNode request) {
    synchronized (requests) {
      requests.addFirst(request);
      if (requests.size() > MAX_REQUESTS) {
        requests.removeLast();
      }
    }
  }

  /** As Svix would, but only once. */
  private void sendWebhook(HttpExchange exchange, String type, String id) {
    if ("webhook=no".equals(exchange.getRequestURI().getQuery())) {
      return;
    }
    URI url = URI.create(Dev.serverUrl(variables) + "/api/webhooks/clerk");
    String secret = variables.get("CLERK_WEBHOOK_SIGNING_SECRET").split(",")[0].strip();
    String event = clerk.event(type, id);
    send(id, StandInClerk.webhook(url, secret, Instant.now(), event).build(), event)
        .thenAccept(outcome -> System.out.println("Webhook " + type + " " + id + ": " + outcome));
  }

  private static String text(JsonNode body, String name) {
    return body.hasNonNull(name) ? body.get(name).asText() : null;
  }

  private void token(HttpExchange exchange) throws IOException {
    String id = exchange.getRequestURI().getPath().substring("/dev/token/".length());
    StandInClerk.send(exchange, 200, clerk.token(id, Dev.TOKEN_LIFE) + "\n");
  }
}
