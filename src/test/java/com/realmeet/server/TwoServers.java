package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.dev.StandInClerk;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Instant;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/** Two servers that share a Clerk and a database, and nothing else. */
final class TwoServers implements AutoCloseable {
  final String database = TestPostgres.newDatabase();
  final StandInClerk clerk = new StandInClerk();
  final TestServer one = start();
  final TestServer two = start();
  private final AtomicInteger turn = new AtomicInteger();
  private final AtomicInteger addresses = new AtomicInteger();

  private TestServer start() {
    return TestServer.start(clerk, database, "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET);
  }

  String newAddress() {
    return "a" + addresses.incrementAndGet() + "@example.com";
  }

  /** Gives a user at Clerk an address, or none. */
  void put(String id, String email) {
    clerk.putUser(id, email, "John", "Doe");
  }

  /** Makes a row for a user who has that address at Clerk. */
  void putRow(String id, String email) {
    put(id, email);
    assertEquals(200, sync(id).statusCode());
  }

  /** The two servers in turn. */
  TestServer either() {
    return turn.getAndIncrement() % 2 == 0 ? one : two;
  }

  HttpResponse<String> sync(String id) {
    return one.sync(clerk.token(id));
  }

  HttpResponse<String> refresh(TestServer server, String id) {
    return server.send(
        HttpRequest.newBuilder(server.uri("/api/user/refresh"))
            .header("Authorization", "Bearer " + clerk.token(id))
            .POST(HttpRequest.BodyPublishers.noBody()));
  }

  /** Tells a server of a change at Clerk. */
  HttpResponse<String> webhook(TestServer server, String type, String id) {
    return server.send(
        StandInClerk.webhook(
            server.uri("/api/webhooks/clerk"), Fleet.SECRET, Instant.now(), clerk.event(type, id)));
  }

  List<String> query(String sql) {
    return TestPostgres.query(database, sql);
  }

  String emailOf(String id) {
    return String.join(" ", query("SELECT email FROM users WHERE id = '" + id + "'"));
  }

  List<String> table() {
    return query("SELECT * FROM users ORDER BY id");
  }

  @Override
  public void close() {
    one.close();
    two.close();
    clerk.close();
  }
}
