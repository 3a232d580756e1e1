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
import java.util.Optional;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends the requests of clients to a server like ours, so that the JVM has compiled what they need
 * before the clients themselves come: cold code is ten times slower. That server listens on a port
 * of its own on this machine, and knows nobody's tokens but ours. Nothing is written, and Clerk is
 * not asked.
 */
final class Rehearsal {
  private static final Logger log = LoggerFactory.getLogger(Rehearsal.class);

  /**
   * The JVM's optimising compiler takes up a method after 5,000 to 15,000 calls, and is busy for
   * some time then.
   */
  static final int REQUESTS = 30_000;

  private static final Duration LIMIT = Duration.ofSeconds(20);

  /** After so many requests it looks whether clients have sent more meanwhile. */
  private static final int LOOK_AROUND = 100;

  private final URL url;
  private final LongSupplier clients;
  private final String goodToken;
  private final String badToken;

  private Rehearsal(URL url, String token, LongSupplier clients) {
    this.url = url;
    this.clients = clients;
    goodToken = token;
    badToken = token.substring(0, token.length() - 20) + "A".repeat(20);
  }

  /**
   * Rehearses for 20 s at most, as one of the users; not at all if there is none.
   *
   * @param clients how many requests clients have sent so far: many of them end the rehearsal
   */
  static void run(Config config, UserDao rows, int requests, LongSupplier clients) {
    try {
      Optional<String> user = rows.anyId();
      if (user.isEmpty()) {
        log.info("There is no user yet to rehearse with");
        return;
      }
      KeyPair keys = keys();
      Main server = Main.unannounced(config.local((RSAPublicKey) keys.getPublic()));
      try {
        URL sync = new URL("http://127.0.0.1:" + server.port() + "/api/user/sync");
        new Rehearsal(sync, token(user.get(), keys), clients).run(requests);
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
      rsa.initialize(KeySet.MIN_RSA_BITS);
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
    long clientsBefore = clients.getAsLong();
    int sent = 0;
    for (; sent < requests && !end.left().isZero(); sent++) {
      if (sent % LOOK_AROUND == 0) {
        long clientsNow = clients.getAsLong();
        if (clientsNow - clientsBefore > LOOK_AROUND) {
          break; // they warm the code up themselves, and want the processors
        }
        clientsBefore = clientsNow;
      }
      if (sent % 10 == 0) {
        send(badToken);
      } else if (send(goodToken) != 200) {
        break; // the row has just changed, and Clerk would be asked each time; or there is a fault
      }
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
}
