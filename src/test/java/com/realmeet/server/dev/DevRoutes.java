package com.realmeet.server.dev;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.realmeet.server.testing.StandInClerk;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** Routes under {@code /dev} of the stand-in for Clerk, by which a developer changes its users. */
final class DevRoutes {
  private static final JsonMapper JSON = new JsonMapper();
  private static final HttpClient HTTP = HttpClient.newHttpClient();

  private final StandInClerk clerk;
  private final Path file;
  private final Map<String, String> variables;

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
          boolean isDocs = path.equals("/dev/token/") && serverOrigins().contains(origin);
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

  /** As Svix would, but only once. */
  private void sendWebhook(HttpExchange exchange, String type, String id) {
    if ("webhook=no".equals(exchange.getRequestURI().getQuery())) {
      return;
    }
    URI url = URI.create(Dev.serverUrl(variables) + "/api/webhooks/clerk");
    String secret = variables.get("CLERK_WEBHOOK_SIGNING_SECRET").split(",")[0].strip();
    HttpRequest request =
        StandInClerk.webhook(url, secret, Instant.now(), clerk.event(type, id)).build();
    HTTP.sendAsync(request, HttpResponse.BodyHandlers.ofString())
        .whenComplete(
            (response, e) ->
                System.out.println(
                    "Webhook " + type + " " + id + ": " + (e == null ? response.statusCode() : e)));
  }

  private static String text(JsonNode body, String name) {
    return body.hasNonNull(name) ? body.get(name).asText() : null;
  }

  private void token(HttpExchange exchange) throws IOException {
    String id = exchange.getRequestURI().getPath().substring("/dev/token/".length());
    StandInClerk.send(exchange, 200, clerk.token(id, Dev.TOKEN_LIFE) + "\n");
  }
}
