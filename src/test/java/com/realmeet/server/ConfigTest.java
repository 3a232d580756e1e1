package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.http.JettyServer;
import com.realmeet.server.testing.StandInClerk;
import java.security.PublicKey;
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
          + " https://app.example.com; for previews one * inside the first part of a host, as in"
          + " https://app-*.example.com; * alone or in front and null are not origins";

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
    return assertThrows(StartupException.class, () -> Config.from(variables)).lines();
  }

  @Test
  void defaultsAreThoseOfTheNodeServer() {
    Config config = Config.from(good());

    assertEquals(3001, config.port());
    assertEquals(Config.NodeEnv.DEVELOPMENT, config.nodeEnv());
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
    "CLERK_FIELDS, Username",
    "CLERK_FIELDS, 'username,'",
    "CLERK_FIELDS, ','",
    "CLERK_FIELDS, 'username public_metadata'",
    "CLERK_FIELDS, public_metadata.role",
    "CLERK_FIELDS, '\"username\",\"x\"'",
    "CLERK_FIELDS, größe",
    "CLERK_POLL_SECONDS, 9",
    "CLERK_POLL_SECONDS, -1",
    "CLERK_POLL_SECONDS, 86401",
    "CLERK_POLL_SECONDS, 5m",
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
    "CLERK_API_URL, http://hidden_name:3002",
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
    "capacitor://localhost, capacitor://localhost",
    "ionic://localhost, ionic://localhost",
    "tauri://localhost/, tauri://localhost",
    "app://-, app://-",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop, chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "https://App-*.Example.com:443/, https://app-*.example.com",
    "https://meet-*-team.vercel.app, https://meet-*-team.vercel.app",
    "http://pr*.localhost:3000, http://pr*.localhost:3000",
    "https://deploy-preview-*--meet.netlify.app, https://deploy-preview-*--meet.netlify.app"
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
        "https://a.example.com,*",
        "https://*.vercel.app",
        "https://*-x.vercel.app",
        "https://*",
        "*.vercel.app",
        "app-*.example.com",
        "https://app.*.com",
        "https://app.x*.example.com",
        "https://app-*.com",
        "https://app-*",
        "https://app-*:3000",
        "https://app-*-*.example.com",
        "https://app-**.example.com",
        "https://app-*.example.*",
        "https://app-*.example.com.",
        "https://app-*..example.com",
        "https://app-*.10.0.0.1",
        "https://app-*.example.com:*",
        "https://app-*.example.com:65536",
        "https://app-*.example.com/*",
        "https://user@app-*.example.com",
        "https://[::*]",
        "capacitor://local*",
        "chrome-extension://abc*",
        "http*://app-*.example.com",
        "https://b\u00fcro-*.example.com"
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

  @Test
  void tokensWithoutAPartyAreNamedBesideOrigins() {
    String parties = "https://App.example.com/, NONE ,https://app-*.example.com";

    assertEquals(
        List.of("https://app.example.com", "none", "https://app-*.example.com"),
        List.copyOf(Config.from(good("CLERK_AUTHORIZED_PARTIES", parties)).authorizedParties()));
    assertEquals(1, problems(good("CLIENT_URL", "none")).size());
    assertEquals(1, problems(good("CLERK_AUTHORIZED_PARTIES", "none,")).size());
  }

  private static final String SECRET = "whsec_" + "aGlkZGVuLWhpZGRlbi1oaWRkZW4=";
  private static final String OTHER_SECRET = "whsec_" + "b3RoZXItb3RoZXItb3RoZXItb3RoZXI=";

  @Test
  void olderNameOfTheWebhookSecretCountsWhereTheNewerIsNotSet() {
    Config old = Config.from(good("CLERK_WEBHOOK_SECRET", SECRET));
    Config empty =
        Config.from(good("CLERK_WEBHOOK_SECRET", SECRET, "CLERK_WEBHOOK_SIGNING_SECRET", ""));
    Config same =
        Config.from(good("CLERK_WEBHOOK_SECRET", SECRET, "CLERK_WEBHOOK_SIGNING_SECRET", SECRET));
    for (Config config : List.of(old, empty, same)) {
      assertEquals(1, config.webhookSecrets().size());
      assertEquals(List.of(), config.warnings());
    }
    Config both =
        Config.from(
            good("CLERK_WEBHOOK_SECRET", OTHER_SECRET, "CLERK_WEBHOOK_SIGNING_SECRET", SECRET));
    assertArrayEquals(old.webhookSecrets().get(0), both.webhookSecrets().get(0));
    assertEquals(
        List.of(
            "CLERK_WEBHOOK_SECRET is not read, because CLERK_WEBHOOK_SIGNING_SECRET is set, to"
                + " something else: delete one of them"),
        both.warnings());
    assertEquals(
        List.of(
            "CLERK_WEBHOOK_SECRET must be the endpoint's signing secret, whsec_...; several are"
                + " separated by commas"),
        problems(good("CLERK_WEBHOOK_SECRET", "whsec_")));
  }

  @ParameterizedTest
  @CsvSource({"1, 1", "2, 0", "3, 0"})
  void poolThatIsTooSmallForRoutesOfOnesOwnIsWarnedOf(int size, int warnings) {
    Config config = Config.from(good("DATABASE_POOL_SIZE", String.valueOf(size)));

    assertEquals(warnings, config.warnings().size(), config.warnings()::toString);
    assertTrue(config.warnings().stream().allMatch(line -> line.contains(" is 1: slow queries ")));
  }

  @ParameterizedTest(name = "{index}")
  @CsvSource({
    "sk_test_hidden, NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY, pk_live_hidden, 1",
    "sk_live_hidden, VITE_CLERK_PUBLISHABLE_KEY, pk_test_hidden, 1",
    "sk_live_hidden, CLERK_PUBLISHABLE_KEY, pk_live_hidden, 0",
    "sk_test_hidden, CLERK_PUBLISHABLE_KEY, pk_test_hidden, 0",
    "sk_test_hidden, STRIPE_PUBLISHABLE_KEY, pk_live_hidden, 0"
  })
  void keysOfTwoInstancesAreWarnedOf(String secret, String name, String key, int warnings) {
    Config config = Config.from(good("CLERK_SECRET_KEY", secret, name, key));

    assertEquals(warnings, config.warnings().size(), config.warnings()::toString);
    assertTrue(
        config.warnings().stream()
            .allMatch(line -> line.startsWith(name + " and CLERK_SECRET_KEY ")));
    assertFalse(config.warnings().toString().contains("hidden"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"PORT", "METRICS_PORT", "DATABASE_POOL_SIZE"})
  void whatKubernetesSetsForAServiceIsCalledSo(String name) {
    String problem = problems(good(name, "tcp://10.0.0.1:80")).get(0);

    assertTrue(problem.startsWith(name + " must be a number between "), problem);
    assertTrue(
        problem.endsWith(
            "; it is an address, as Kubernetes sets for a Service of that name: set"
                + " enableServiceLinks: false in the Pod, or rename the Service"),
        problem);
    assertFalse(problem.contains("10.0"), problem);
  }

  @ParameterizedTest
  @CsvSource({
    "0.0.0.0, 0.0.0.0:80",
    "localhost, localhost:80",
    "::, [::]:80",
    "::1, [::1]:80",
    "[::1], [::1]:80",
    "fe80::1%eth0, [fe80::1%eth0]:80"
  })
  void hostIsWrittenAsInAUrl(String host, String authority) {
    assertEquals(authority, JettyServer.authority(Config.from(good("HOST", host)).host(), 80));
  }

  @ParameterizedTest
  @ValueSource(strings = {"http://localhost", "tcp://10.0.0.1:80", "0.0.0.0:3001", "a b", "host/"})
  void whatIsNoAddressToListenOnIsRefused(String host) {
    assertEquals(
        List.of(
            "HOST must be an address to listen on, such as 0.0.0.0, 127.0.0.1 or ::, without a"
                + " scheme or a port"),
        problems(good("HOST", host)));
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
    PublicKey key = StandInClerk.SigningKey.usual().pair().getPublic();
    String base64 = Base64.getMimeEncoder(64, "\n".getBytes()).encodeToString(key.getEncoded());
    String pem = "-----BEGIN PUBLIC KEY-----\n" + base64 + "\n-----END PUBLIC KEY-----\n";

    assertEquals(key, Config.from(good("CLERK_JWT_KEY", pem.replace("\n", newline))).clerkJwtKey());
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

  @ParameterizedTest
  @CsvSource({"'', 300", "0, 0", "10, 10", "86400, 86400"})
  void pollsEveryFiveMinutesUnlessToldOtherwise(String set, int seconds) {
    assertEquals(seconds, Config.from(good("CLERK_POLL_SECONDS", set)).pollSeconds());
  }

  @Test
  void fieldsAreKeysOfClerksUserObjectKnownOrNot() {
    assertEquals(Set.of(), Config.from(good("CLERK_FIELDS", "")).clerkFields());
    assertEquals(
        Set.of("username", "public_metadata", "to_come_2"),
        Config.from(good("CLERK_FIELDS", " username, public_metadata ,to_come_2")).clerkFields());
    assertTrue(
        problems(good("CLERK_FIELDS", "a-b")).get(0).startsWith("CLERK_FIELDS must be keys of"));
  }
}
