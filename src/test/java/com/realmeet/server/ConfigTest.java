package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.realmeet.server.dev.StandInClerk;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Settings: what they may be, and what is said of those that they may not be. */
class ConfigTest {
  private static final String ORIGINS =
      " must be a comma-separated list of origins, each a scheme and a host without a path, such as"
          + " https://app.example.com; * and null are not origins";

  private static Map<String, String> good(String... changes) {
    Map<String, String> variables = new HashMap<>();
    variables.put("DATABASE_URL", "postgresql://app:hidden-pass@db.internal/app");
    variables.put("CLERK_SECRET_KEY", "sk_test_hidden");
    for (int i = 0; i < changes.length; i += 2) {
      variables.put(changes[i], changes[i + 1]);
    }
    return variables;
  }

  private static List<String> problems(Map<String, String> variables) {
    return assertThrows(Config.Invalid.class, () -> Config.from(variables)).problems;
  }

  @Test
  void defaultsAreThoseOfTheNodeServer() {
    Config config = Config.from(good());

    assertEquals(3001, config.port());
    assertEquals(Config.Environment.DEVELOPMENT, config.environment());
    assertEquals(Set.of("http://localhost:3000"), config.origins());
    assertEquals("0.0.0.0", config.host());
    assertEquals(10, config.poolSize());
    assertEquals(config.origins(), config.authorizedParties());
    assertEquals("https://api.clerk.com", config.clerkApiUrl());
    assertEquals(List.of(), config.warnings());
  }

  @Test
  void allProblemsAreNamedAtOnce() {
    Map<String, String> variables = new HashMap<>();
    variables.put("PORT", "hidden");
    variables.put("NODE_ENV", "hidden");
    variables.put("CLIENT_URL", "hidden");
    variables.put("DATABASE_POOL_SIZE", "hidden");
    variables.put("DIRECT_URL", "hidden");
    variables.put("CLERK_AUTHORIZED_PARTIES", "hidden");
    variables.put("CLERK_API_URL", "hidden");
    variables.put("CLERK_JWT_KEY", "hidden");
    variables.put("METRICS_PORT", "hidden");

    assertEquals(
        List.of(
            "CLERK_API_URL must be a URL such as https://api.clerk.com",
            "CLERK_AUTHORIZED_PARTIES" + ORIGINS,
            "CLERK_JWT_KEY must be the instance's public key in PEM, RSA of 2048 bits or more,"
                + " -----BEGIN PUBLIC KEY-----...",
            "CLERK_SECRET_KEY is required: sk_test_... or sk_live_...",
            "CLIENT_URL" + ORIGINS,
            "DATABASE_POOL_SIZE must be a number between 1 and 1000",
            "DATABASE_URL is required: postgresql://user:password@host/database?sslmode=require",
            "DIRECT_URL must look like postgresql://user:password@host/database?sslmode=require",
            "METRICS_PORT must be a number between 0 and 65535",
            "NODE_ENV must be development, production or test",
            "PORT must be a number between 0 and 65535"),
        problems(variables).stream().sorted().toList());
  }

  @ParameterizedTest(name = "{index}")
  @CsvSource({
    "PORT, -1",
    "PORT, 65536",
    "PORT, 3001.5",
    "PORT, 0x10",
    "PORT, 99999999999",
    "PORT, ٣٠٠١",
    "NODE_ENV, Production",
    "NODE_ENV, prod",
    "DATABASE_POOL_SIZE, 0",
    "DATABASE_POOL_SIZE, 1001",
    "DATABASE_URL, jdbc:postgresql://hidden/db",
    "DATABASE_URL, mysql://hidden/db",
    "CLERK_SECRET_KEY, hidden",
    "CLERK_SECRET_KEY, 'sk_test_hid den'",
    "CLERK_SECRET_KEY, sk_test_",
    "CLERK_SECRET_KEY, pk_test_hidden",
    "CLERK_API_URL, ftp://hidden",
    "CLERK_API_URL, https://user:hidden@host",
    "CLERK_API_URL, 'https://hidden/?a=b'",
    "CLERK_API_URL, https://hidden:65536",
    "CLERK_JWT_KEY, -----BEGIN PUBLIC KEY-----hidden-----END PUBLIC KEY-----",
    "CLERK_AUTHORIZED_PARTIES, '*'",
    "METRICS_PORT, 65536",
    "METRICS_PORT, 3001"
  })
  void valueIsRefusedAndNotShown(String name, String value) {
    List<String> problems = problems(good(name, value));

    assertEquals(1, problems.size(), problems::toString);
    assertEquals(name, problems.get(0).split(" ")[0]);
    assertFalse(problems.get(0).contains("hid"), problems.get(0));
    assertFalse(problems.get(0).contains("\n"), problems.get(0));
  }

  @Test
  void publishableKeyIsCalledByItsName() {
    assertEquals(
        List.of(
            "CLERK_SECRET_KEY is a publishable key (pk_...): use the secret key,"
                + " sk_test_... or sk_live_..."),
        problems(good("CLERK_SECRET_KEY", "pk_live_hidden")));
  }

  @Test
  void frontEndMustBeNamedInProduction() {
    String problem = "CLIENT_URL is required: https://app.example.com";

    assertEquals(List.of(problem), problems(good("NODE_ENV", "production")));
    assertEquals(List.of(problem), problems(good("NODE_ENV", "production", "CLIENT_URL", " ")));
  }

  @ParameterizedTest
  @CsvSource({
    "http://localhost:3000, http://localhost:3000",
    "https://app.example.com/, https://app.example.com",
    "' https://a.example.com , http://b.example.com:81/ ', 'https://a.example.com,http://b.example.com:81'",
    "https://App.Example.COM, https://app.example.com",
    "https://app.example.com:443, https://app.example.com",
    "http://app.example.com:80, http://app.example.com",
    "http://app.example.com:443, http://app.example.com:443",
    "http://[::1]:3000, http://[::1]:3000",
    "capacitor://localhost, capacitor://localhost"
  })
  void originIsReadAsBrowsersWriteIt(String value, String origins) {
    assertEquals(
        List.of(origins.split(",")), List.copyOf(Config.from(good("CLIENT_URL", value)).origins()));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "*",
        "null",
        "https://*.example.com",
        "app.example.com",
        "localhost:3000",
        "http://localhost:65536",
        "https://",
        "https://app.example.com/path",
        "https://app.example.com//",
        "https://app.example.com?q",
        "https://app.example.com#f",
        "https://user@app.example.com",
        "//app.example.com",
        ",",
        "https://app.example.com,",
        "https://a.example.com,,https://b.example.com",
        "https://a.example.com https://b.example.com",
        "https://a.example.com,*"
      })
  void whatIsNoOriginIsRefused(String value) {
    assertEquals(List.of("CLIENT_URL" + ORIGINS), problems(good("CLIENT_URL", value)));
  }

  @Test
  void emptyListOfOriginsIsRefused() {
    assertEquals(
        List.of("CLIENT_URL is empty: name an origin such as http://localhost:3000"),
        problems(good("CLIENT_URL", "")));
  }

  @Test
  void emptyListOfAuthorizedPartiesTurnsTheCheckOff() {
    Config config = Config.from(good("CLERK_AUTHORIZED_PARTIES", ""));

    assertEquals(Set.of(), config.authorizedParties());
    assertEquals(Set.of("http://localhost:3000"), config.origins());
  }

  @ParameterizedTest(name = "{index}")
  @ValueSource(
      strings = {"sk_test_hidden\n", "\"sk_test_hidden\"", "'sk_test_hidden'", " sk_test_hidden "})
  void quotesAndNewlinesAroundAValueAreNoPartOfIt(String value) {
    assertEquals("sk_test_hidden", Config.from(good("CLERK_SECRET_KEY", value)).clerkSecretKey());
  }

  @ParameterizedTest
  @ValueSource(strings = {"\n", "\\n", "", "\r\n"})
  void publicKeyIsReadHoweverItsLinesEnd(String newline) {
    byte[] key = StandInClerk.SigningKey.usual().pair().getPublic().getEncoded();
    String base64 = Base64.getMimeEncoder(64, "\n".getBytes()).encodeToString(key);
    String pem = "-----BEGIN PUBLIC KEY-----\n" + base64 + "\n-----END PUBLIC KEY-----\n";

    assertNotNull(Config.from(good("CLERK_JWT_KEY", pem.replace("\n", newline))).clerkJwtKey());
  }

  @Test
  void secretsAreNotShown() {
    Config config =
        Config.from(good("DIRECT_URL", "postgresql://app:hidden-pass@db.internal/app?hidden=x"));

    for (Object shown :
        List.of(config, config.databaseUrl(), config.directUrl(), config.warnings())) {
      assertFalse(shown.toString().contains("hidden-pass"), shown::toString);
      assertFalse(shown.toString().contains("sk_test"), shown::toString);
    }
  }
}
