package com.realmeet.server.testing;

import java.net.URI;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Servers on one database and one stand-in Clerk, which sends them webhooks. */
public final class Fleet implements AutoCloseable {
  public static final String SECRET = "whsec_" + "c3RhbmQtaW4tc2VjcmV0LW9mLXRlc3Rz";

  /** Signs too: a secret that is being replaced. */
  public static final String OLD_SECRET = "whsec_" + "b2xkLXNlY3JldC10aGF0LWlzLXJlcGxhY2Vk";

  private static final String ROWS =
      """
      SELECT id, CASE
        WHEN deleted_at IS NULL THEN concat_ws('|', email, name, image_url)
        WHEN email = id || '@deleted.invalid' AND name IS NULL AND image_url IS NULL
          THEN 'tombstone'
        END
      FROM users
      """;

  private final StandInClerk clerk = new StandInClerk();
  private final String database = TestPostgres.newDatabase();
  private final List<TestServer> servers;

  public Fleet(int size) {
    servers = new ArrayList<>(Stream.generate(this::start).limit(size).toList());
  }

  private TestServer start() {
    return TestServer.start(
        clerk, database, "CLERK_WEBHOOK_SIGNING_SECRET", SECRET + "," + OLD_SECRET);
  }

  /** Puts a new server in the place of one: what that knew is lost. */
  public void restart(int number) {
    server(number).close();
    servers.set(Math.floorMod(number, servers.size()), start());
  }

  public StandInClerk clerk() {
    return clerk;
  }

  public String database() {
    return database;
  }

  /** One of the servers: any number names one. */
  public TestServer server(int number) {
    return servers.get(Math.floorMod(number, servers.size()));
  }

  public URI webhookUrl() {
    return server(0).uri("/api/webhooks/clerk");
  }

  /** Sends an event about a user as it is now to the first server. */
  public HttpResponse<String> webhook(String type, String userId) {
    return webhook(0, clerk.event(type, userId));
  }

  public HttpResponse<String> webhook(int server, String event) {
    URI url = server(server).uri("/api/webhooks/clerk");
    return server(server).send(StandInClerk.webhook(url, SECRET, Instant.now(), event));
  }

  public HttpResponse<String> sync(int server, String userId) {
    return server(server).sync(clerk.token(userId));
  }

  public HttpResponse<String> refresh(int server, String userId) {
    return server(server)
        .send(
            HttpRequest.newBuilder(server(server).uri("/api/user/refresh"))
                .header("Authorization", "Bearer " + clerk.token(userId))
                .POST(HttpRequest.BodyPublishers.noBody()));
  }

  /** A user's row as "email|name|image_url", "tombstone", or "none". */
  public String row(String userId) {
    return rows().getOrDefault(userId, "none");
  }

  /** All rows by user id, as {@link #row} shows them. */
  public Map<String, String> rows() {
    return TestPostgres.query(database, ROWS).stream()
        .map(row -> row.split("\\|", 2))
        .collect(Collectors.toMap(row -> row[0], row -> row[1]));
  }

  /** What {@link #row} shows of a user with this address and name, as the stand-in makes them. */
  public static String row(String userId, String email, String name) {
    return email + "|" + name + "|https://img.clerk.com/" + userId;
  }

  @Override
  public void close() {
    servers.forEach(TestServer::close);
    clerk.close();
  }
}
