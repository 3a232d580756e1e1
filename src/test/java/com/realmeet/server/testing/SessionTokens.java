package com.realmeet.server.testing;

import com.auth0.jwt.JWT;
import com.auth0.jwt.algorithms.Algorithm;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.util.RawValue;
import com.realmeet.server.testing.StandInClerk.SigningKey;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.interfaces.ECPrivateKey;
import java.security.interfaces.ECPublicKey;
import java.security.interfaces.RSAPrivateKey;
import java.security.interfaces.RSAPublicKey;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** Makes tokens that differ from a good one in one thing. */
public class SessionTokens {
  public static final String USER = "user_good";
  public static final String LONGEST = "user_" + "a".repeat(64);

  /** A token, made when it is needed since its times count, and what is odd about it. */
  public record Row(String name, Supplier<String> token) {
    @Override
    public String toString() {
      return name;
    }
  }

  public final StandInClerk clerk;
  public final SigningKey stranger;

  public SessionTokens(StandInClerk clerk) {
    this.clerk = clerk;
    this.stranger = SigningKey.second(clerk.key().kid());
  }

  /** A key as the value of CLERK_JWT_KEY. */
  public static String pem(RSAPublicKey key) {
    String base64 = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(key.getEncoded());
    return "-----BEGIN PUBLIC KEY-----\n" + base64 + "\n-----END PUBLIC KEY-----\n";
  }

  public Row header(String name, Consumer<ObjectNode> change) {
    return row(name, () -> sign(changed(clerk.header(), change), claims(), clerk.key()));
  }

  public Row claims(String name, Consumer<ObjectNode> change) {
    return row(name, () -> sign(clerk.header(), changed(claims(), change), clerk.key()));
  }

  /** Signed text that need not be JSON; single quotes stand for double ones. */
  public Row raw(String name, String header, String claims) {
    return row(name, () -> sign(verbatim(header), verbatim(claims), clerk.key()));
  }

  public static Row row(String name, Supplier<String> token) {
    return new Row(name.replace("\n", "\\n"), token);
  }

  public String good() {
    return clerk.token(USER, Duration.ofHours(1));
  }

  public ObjectNode claims() {
    return clerk.claims(USER, Duration.ofHours(1));
  }

  /** The good claims, as text, and one more at the end. */
  public String with(String claim) {
    return claims().toString().replaceFirst("}$", "," + claim + "}");
  }

  public String part(int index) {
    return part(index, USER);
  }

  public String part(int index, String user) {
    return clerk.token(user, Duration.ofHours(1)).split("\\.")[index];
  }

  public static long now() {
    return Instant.now().getEpochSecond();
  }

  private static ObjectNode changed(ObjectNode node, Consumer<ObjectNode> change) {
    change.accept(node);
    return node;
  }

  public static String sign(JsonNode header, JsonNode claims, SigningKey key) {
    return StandInClerk.sign(header, claims, key.pair().getPrivate());
  }

  private static JsonNode verbatim(String text) {
    return JsonNodeFactory.instance.rawValueNode(new RawValue(text.replace('\'', '"')));
  }

  public String signed(Algorithm algorithm) {
    return JWT.create()
        .withHeader("{\"kid\":\"" + clerk.key().kid() + "\"}")
        .withPayload(claims().toString())
        .sign(algorithm);
  }

  public RSAPrivateKey privateKey() {
    return (RSAPrivateKey) clerk.key().pair().getPrivate();
  }

  public static Algorithm ellipticAlgorithm() {
    try {
      KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
      generator.initialize(256);
      KeyPair pair = generator.generateKeyPair();
      return Algorithm.ECDSA256((ECPublicKey) pair.getPublic(), (ECPrivateKey) pair.getPrivate());
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }
}
