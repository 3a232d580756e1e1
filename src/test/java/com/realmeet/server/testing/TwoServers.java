package com.realmeet.server.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Instant;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/** Two servers that share a Clerk and a database, and nothing else. */
public final class TwoServers implements AutoCloseable {
  public final String database = TestPostgres.newDatabase();
  public final StandInClerk clerk = new StandInClerk();
  public final TestServer one = start();
  private final AtomicInteger turn = new AtomicInteger();
  private final AtomicInteger addresses = new AtomicInteger();
  private TestServer two;

  private TestServer start() {
    return TestServer.start(clerk, database, "CLERK_WEBHOOK_SIGNING_SECRET", Fleet.SECRET);
  }

  /** The other one, which is started when it is first used: many tests do with one. */
  public synchronized TestServer two() {
    if (two == null) {
      two = start();
    }
    return two;
  }

  public String newAddress() {
    return "a" + addresses.incrementAndGet() + "@example.com";
  }

  /** Gives a user at Clerk an address, or none. */
  public void put(String id, String email) {
    clerk.putUser(id, email, "John", "Doe");
  }

  /** Makes a row for a user who has that address at Clerk. */
  public void putRow(String id, String email) {
    put(id, email);
    assertEquals(200, sync(id).statusCode());
  }

  /** The two servers in turn. */
  public TestServer either() {
    return turn.getAndIncrement() % 2 == 0 ? one : two();
  }

  public HttpResponse<String> sync(String id) {
    return one.sync(clerk.token(id));
  }

  public HttpResponse<String> refresh(TestServer server, String id) {
    return server.send(
        HttpRequest.newBuilder(server.uri("/api/user/refresh"))
            .header("Authorization", "Bearer " + clerk.token(id))
            .POST(HttpRequest.BodyPublishers.noBody()));
  }

  /** Tells a server of a change at Clerk. */
  public HttpResponse<String> webhook(TestServer server, String type, String id) {
    return server.send(
        StandInClerk.webhook(
            server.uri("/api/webhooks/clerk"), Fleet.SECRET, Instant.now(), clerk.event(type, id)));
  }

  public List<String> query(String sql) {
    return TestPostgres.query(database, sql);
  }

  public String emailOf(String id) {
    return String.join(" ", query("SELECT email FROM users WHERE id = '" + id + "'"));
  }

  public List<String> table() {
    return query("SELECT * FROM users ORDER BY id");
  }

  @Override
  public synchronized void close() {
    one.close();
    if (two != null) {
      two.close();
    }
    clerk.close();
  }
}
