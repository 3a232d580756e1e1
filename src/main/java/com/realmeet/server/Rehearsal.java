package com.realmeet.server;

import com.auth0.jwt.JWT;
import com.auth0.jwt.algorithms.Algorithm;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.Proxy;
import java.net.URL;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.interfaces.RSAPrivateKey;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.function.LongSupplier;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.io.Content;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.component.LifeCycle;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends the requests of clients to a server like ours, so that the JVM has compiled what they need
 * before the clients themselves come: cold code is ten times slower. That server listens on a port
 * of its own on this machine, knows nobody's tokens but ours, and takes us for Clerk. Nothing is
 * written: the user who is new has no email address.
 */
final class Rehearsal {
  private static final Logger log = LoggerFactory.getLogger(Rehearsal.class);

  /**
   * Of three kinds. The JVM's optimising compiler takes up a method after 5,000 to 15,000 calls,
   * and is busy for some time then.
   */
  static final int REQUESTS = 30_000;

  private static final Duration LIMIT = Duration.ofSeconds(60);

  /** Requests of clients in a second, with which a rehearsal would compete for the processors. */
  private static final int MANY = 100;

  private static final String NEW_USER = "user_rehearsal";

  /** What Clerk says of a user: none of the addresses is the primary one. */
  private static final String CLERK_USER =
      """
      {"id":"%s","object":"user","username":null,"first_name":"Ada","last_name":"Lovelace",
       "image_url":"https://img.clerk.com/rehearsal","has_image":false,
       "primary_email_address_id":null,"primary_phone_number_id":"idn_2","primary_web3_wallet_id":null,
       "password_enabled":true,"two_factor_enabled":false,"totp_enabled":false,"backup_code_enabled":false,
       "email_addresses":[{"id":"idn_1","object":"email_address","email_address":"ada@example.com",
         "reserved":false,"verification":{"status":"verified","strategy":"email_code","attempts":1},
         "linked_to":[],"created_at":1767225600000,"updated_at":1767225600000}],
       "phone_numbers":[{"id":"idn_2","object":"phone_number","phone_number":"+15555550100"}],
       "web3_wallets":[],"external_accounts":[],"saml_accounts":[],
       "public_metadata":{},"private_metadata":{},"unsafe_metadata":{"theme":"dark"},
       "external_id":null,"last_sign_in_at":1767225600000,"banned":false,"locked":false,
       "created_at":1767225600000,"updated_at":1767225600000,"last_active_at":1767225600000}
      """;

  private record Part(String token, int status) {}

  private final URL url;
  private final List<Part> parts;

  private Rehearsal(URL url, List<Part> parts) {
    this.url = url;
    this.parts = parts;
  }

  /**
   * Waits as long as many clients come, and for the first of them in any case: they have waited for
   * the start.
   *
   * @param sent how many requests there were until now
   * @param second how long to look each time
   * @return whether to rehearse; false: the clients have done it themselves
   */
  static boolean awaitQuiet(LongSupplier sent, Duration second) {
    long now = sent.getAsLong();
    long before;
    do {
      before = now;
      Pause.of(second);
      now = sent.getAsLong();
    } while (now - before >= MANY && now < REQUESTS);
    return now < REQUESTS;
  }

  /** Rehearses for a minute at most: as one of the users, as one who is new, and as nobody. */
  static void run(Config config, UserDao rows, int requests) {
    try (Clerk clerk = new Clerk()) {
      KeyPair keys = keys();
      String token = token(NEW_USER, keys);
      List<Part> parts = new ArrayList<>();
      parts.add(new Part(token, 422));
      parts.add(new Part(token.substring(0, token.length() - 20) + "A".repeat(20), 401));
      rows.anyId().ifPresent(user -> parts.add(new Part(token(user, keys), 200)));
      RSAPublicKey key = (RSAPublicKey) keys.getPublic();
      Main server = Main.unannounced(config.local(key, clerk.url(), "sk_test_rehearsal"));
      try {
        URL sync = new URL("http://127.0.0.1:" + server.port() + "/api/user/sync");
        new Rehearsal(sync, parts).run(requests);
      } finally {
        server.release();
      }
    } catch (IOException | RuntimeException e) {
      log.warn("No rehearsal, so the first requests will be slower: {}", e.toString());
    }
  }

  private static KeyPair keys() {
    try {
      KeyPairGenerator rsa = KeyPairGenerator.getInstance("RSA");
      rsa.initialize(JwkSet.MIN_RSA_BITS);
      return rsa.generateKeyPair();
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  private static String token(String user, KeyPair keys) {
    return JWT.create()
        .withSubject(user)
        .withExpiresAt(Instant.now().plus(LIMIT))
        .sign(Algorithm.RSA256(null, (RSAPrivateKey) keys.getPrivate()));
  }

  private void run(int requests) throws IOException {
    Deadline end = Deadline.in(LIMIT);
    int sent = 0;
    while (sent < requests && !end.left().isZero()) {
      Part part = parts.get(sent % parts.size());
      int status = send(part.token);
      if (status != part.status) { // an outage, or the user has just changed
        log.info("The rehearsal ends: {} instead of {}", status, part.status);
        break;
      }
      sent++;
    }
    log.info("Rehearsed {} requests", sent);
  }

  private int send(String token) throws IOException {
    HttpURLConnection request = (HttpURLConnection) url.openConnection(Proxy.NO_PROXY);
    request.setRequestMethod("POST");
    request.setRequestProperty("Authorization", "Bearer " + token);
    request.setReadTimeout((int) LIMIT.toMillis());
    try (InputStream answer =
        request.getResponseCode() < 400 ? request.getInputStream() : request.getErrorStream()) {
      answer.readAllBytes(); // so that the connection is used again
    }
    return request.getResponseCode();
  }

  /** Clerk, as far as a rehearsal goes. */
  private static final class Clerk extends Handler.Abstract implements AutoCloseable {
    /** One to accept, one to select, some to answer. */
    private static final int THREADS = 4;

    private final Server server = new Server(new QueuedThreadPool(THREADS, 1));
    private final ServerConnector connector;

    Clerk() {
      connector = new HttpServer.Connector(server, new HttpConfiguration());
      connector.setHost("127.0.0.1");
      server.addConnector(connector);
      server.setHandler(this);
      LifeCycle.start(server);
    }

    String url() {
      return "http://127.0.0.1:" + connector.getLocalPort();
    }

    @Override
    public boolean handle(Request request, Response response, Callback callback) {
      String path = request.getHttpURI().getPath();
      String id = path.substring(path.lastIndexOf('/') + 1);
      response.getHeaders().put(HttpHeader.CONTENT_TYPE, "application/json");
      Content.Sink.write(response, true, CLERK_USER.formatted(id), callback);
      return true;
    }

    @Override
    public void close() {
      LifeCycle.stop(server);
    }
  }
}
