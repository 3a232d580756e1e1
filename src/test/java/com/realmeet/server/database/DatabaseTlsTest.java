package com.realmeet.server.database;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.Config;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.testing.TestPostgres;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The TLS that a URL asks for, at a Postgres behind a TLS server whose certificate is of {@code
 * tls/ca.pem}, for {@code localhost} and {@code ::1}. In a URL, a name of a file stands for a copy
 * of the file in {@code tls/}.
 */
class DatabaseTlsTest {
  @TempDir private static Path files;

  private static String url;
  private static TlsServer tls;
  private static TlsServer tlsWithClientCertificate;

  @BeforeAll
  static void start() throws Exception {
    for (String file :
        List.of(
            "ca.pem",
            "other-ca.pem",
            "expired-ca.pem",
            "intermediate.pem",
            "chain-ca.pem",
            "client.pem")) {
      Files.copy(Path.of("src/test/resources/tls", file), files.resolve(file));
    }
    Files.writeString(
        files.resolve("mixed-ca.pem"),
        Files.readString(files.resolve("ca.pem"))
            + Files.readString(files.resolve("expired-ca.pem")));
    for (String key :
        List.of(
            "client.key",
            "client-sec1.key",
            "server.p12",
            "expired-server.p12",
            "chained-server.p12")) {
      Files.copy(Path.of("src/test/resources/tls", key), files.resolve(key));
      Files.setPosixFilePermissions(
          files.resolve(key), PosixFilePermissions.fromString("rw-------"));
    }
    Files.copy(files.resolve("client.key"), files.resolve("readable.key"));
    Files.setPosixFilePermissions(
        files.resolve("readable.key"), PosixFilePermissions.fromString("rw-r--r--"));
    url = TestPostgres.newDatabase();
    tls = new TlsServer(url, "127.0.0.1", false);
    tlsWithClientCertificate = new TlsServer(url, "127.0.0.1", true);
  }

  @AfterAll
  static void stop() throws IOException {
    tls.close();
    tlsWithClientCertificate.close();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "localhost?sslmode=require",
        "localhost?ssl=true",
        "localhost?ssl=1",
        "localhost?ssl=require",
        "localhost?sslmode=no-verify",
        "localhost?sslmode=require&sslrootcert=ca.pem",
        "localhost?sslmode=verify-full&sslrootcert=mixed-ca.pem",
        "localhost?sslrootcert=ca.pem",
        "localhost?ssl=true&sslrootcert=ca.pem",
        "localhost?sslmode=verify-ca&sslrootcert=ca.pem",
        "localhost?sslmode=verify-full&sslrootcert=ca.pem",
        "localhost?sslmode=require&sslcert=ca.pem&sslaccept=strict",
        "localhost?sslmode=require&sslcert=ca.pem",
        "localhost?sslmode=require&sslcert=other-ca.pem&sslaccept=accept_invalid_certs",
        "127.0.0.1?sslmode=require",
        "127.0.0.1?sslmode=require&sslrootcert=ca.pem",
        "127.0.0.1?sslmode=verify-ca&sslrootcert=ca.pem"
      })
  void serverThatTheUrlAsksForIsUsed(String url) throws SQLException {
    assertTrue(isConnectedByTls(tls, url));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "localhost?sslmode=require&sslrootcert=other-ca.pem",
        "localhost?sslrootcert=other-ca.pem",
        "localhost?sslmode=prefer&sslrootcert=other-ca.pem",
        "localhost?ssl=true&sslrootcert=other-ca.pem",
        "localhost?sslmode=verify-ca&sslrootcert=other-ca.pem",
        "localhost?sslmode=verify-full&sslrootcert=other-ca.pem",
        "localhost?sslmode=verify-full&ssl=true&sslrootcert=other-ca.pem",
        "localhost?sslmode=require&sslcert=other-ca.pem&sslaccept=strict",
        "localhost?sslmode=require&sslcert=other-ca.pem",
        "localhost?sslaccept=strict",
        "localhost?sslrootcert=system",
        "localhost?sslmode=verify-full&sslrootcert=system",
        "127.0.0.1?sslmode=verify-full&sslrootcert=ca.pem",
        "127.0.0.1?sslmode=require&sslcert=ca.pem&sslaccept=strict",
        "127.0.0.1?sslmode=prefer&sslcert=ca.pem&sslaccept=strict",
        "127.0.0.1?ssl=verify-full&sslrootcert=ca.pem"
      })
  void otherServerIsRefused(String url) {
    assertThrows(SQLException.class, () -> isConnectedByTls(tls, url));
  }

  @ParameterizedTest
  @ValueSource(strings = {"[::1]", "[0:0::1]"})
  void addressOfIpVersion6IsComparedWithTheCertificate(String host) throws Exception {
    Assumptions.assumeTrue(hasIpVersion6(), "This machine has no IPv6");
    try (TlsServer own = new TlsServer(url, "::1", false)) {
      assertTrue(isConnectedByTls(own, host + "?sslmode=verify-full&sslrootcert=ca.pem"));
    }
  }

  private static boolean hasIpVersion6() {
    try (ServerSocket probe = new ServerSocket(0, 1, InetAddress.getByName("::1"))) {
      return probe.isBound();
    } catch (IOException e) {
      return false;
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "&sslcert=client.pem&sslkey=client.key"})
  void expiredAuthorityOfABundleIsNotTrusted(String client) throws Exception {
    try (TlsServer own = new TlsServer(url, "127.0.0.1", false, "expired-server.p12")) {
      assertTrue(isConnectedByTls(own, "localhost?sslmode=require"));
      SQLException refused =
          assertThrows(
              SQLException.class,
              () ->
                  isConnectedByTls(
                      own, "localhost?sslmode=verify-full&sslrootcert=mixed-ca.pem" + client));
      assertTrue(refused.getMessage().contains("PKIX"), refused::getMessage);
    }
  }

  @Test
  void certificateBetweenServerAndRootIsTakenFromTheFile() throws Exception {
    try (TlsServer own = new TlsServer(url, "127.0.0.1", false, "chained-server.p12")) {
      assertTrue(isConnectedByTls(own, "localhost?sslmode=verify-full&sslrootcert=chain-ca.pem"));
      assertThrows(
          SQLException.class,
          () -> isConnectedByTls(own, "localhost?sslmode=verify-full&sslrootcert=ca.pem"));
    }
  }

  @Test
  void certificateBetweenServerAndRootIsNotTrustedByItself() throws Exception {
    Files.writeString(
        files.resolve("intermediate-ca.pem"),
        Files.readString(files.resolve("ca.pem"))
            + Files.readString(files.resolve("intermediate.pem")));
    try (TlsServer own = new TlsServer(url, "127.0.0.1", false, "chained-server.p12")) {
      assertThrows(
          SQLException.class,
          () -> isConnectedByTls(own, "localhost?sslrootcert=intermediate-ca.pem"));
    }
  }

  @Test
  void clientShowsItsCertificate() throws SQLException {
    assertTrue(
        isConnectedByTls(
            tlsWithClientCertificate,
            "localhost?sslmode=require&sslcert=client.pem&sslkey=client.key"));
    assertTrue(
        isConnectedByTls(
            tlsWithClientCertificate,
            "localhost?sslrootcert=ca.pem&sslcert=client.pem&sslkey=client.key"));
    assertThrows(
        SQLException.class,
        () -> isConnectedByTls(tlsWithClientCertificate, "localhost?sslmode=require"));
    assertThrows(
        SQLException.class,
        () ->
            isConnectedByTls(
                tlsWithClientCertificate,
                "localhost?sslmode=require&sslcert=client.pem&sslkey=client.key&sslcertmode=disable"));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          sslmode=QQ                                   | unknown value for sslmode: use one of disable,
          sslmode=                                     | unknown value for sslmode: use one of disable,
          sslmode=Require                              | unknown value for sslmode: use one of disable,
          ssl=QQ                                       | unknown value for ssl: write sslmode=
          ssl={"rejectUnauthorized":true}              | unknown value for ssl: write sslmode=
          sslaccept=QQ                                 | unknown value for sslaccept: use one of strict,
          sslmode=verify-full                          | names no CA file: add sslrootcert=system
          sslmode=verify-ca                            | names no CA file: add sslrootcert=system
          sslmode=require&sslrootcert=system           | too weak for sslrootcert=system: use verify-full
          sslmode=verify-ca&sslrootcert=system         | too weak for sslrootcert=system: use verify-full
          sslmode=disable&sslrootcert=system           | too weak for sslrootcert=system: use verify-full
          sslmode=require&sslrootcert=QQ.pem           | CA file (sslrootcert) that cannot be read
          sslrootcert=/QQ/ca.pem                       | CA file (sslrootcert) that cannot be read
          sslrootcert=/                                | CA file (sslrootcert) that cannot be read
          sslrootcert=client.key                       | CA file (sslrootcert) that has no certificate
          sslrootcert=expired-ca.pem                   | CA file (sslrootcert) that has expired
          sslrootcert=intermediate.pem                 | CA file (sslrootcert) without a valid root certificate
          sslcert=expired-ca.pem&sslaccept=strict      | CA file (sslcert) that has expired
          sslcert=QQ.pem&sslaccept=strict              | CA file (sslcert) that cannot be read
          sslcert=client.pem                           | sslcert without sslkey
          sslcert=client.pem&sslrootcert=ca.pem        | sslcert without sslkey
          sslkey=client.key                            | sslkey without sslcert
          sslcert=client.pem&sslkey=QQ.key             | client key (sslkey) that cannot be read
          sslcert=QQ.pem&sslkey=client.key             | client certificate (sslcert) that cannot be read
          sslcert=client.key&sslkey=client.key         | client certificate (sslcert) that has no certificate
          sslcert=client.pem&sslkey=client-sec1.key    | openssl pkcs8 -topk8 -nocrypt
          sslcert=client.pem&sslkey=readable.key       | client key (sslkey) that others may read
          sslcert=client.pem&sslkey=server.p12         | openssl pkcs8 -topk8 -nocrypt
          sslnegotiation=direct                        | sslnegotiation=direct, which needs sslmode=require
          sslmode=prefer&sslnegotiation=direct         | sslnegotiation=direct, which needs sslmode=require
          """)
  void settingThatCannotHoldIsAProblemAtOnce(String query, String hint) {
    Map<String, String> settings = new HashMap<>();
    settings.put("CLERK_SECRET_KEY", "sk_test_x");
    settings.put("DATABASE_URL", "postgresql://ada:QQ@h/app?" + withFiles(query));

    StartupException invalid =
        assertThrows(StartupException.class, () -> Config.from(settings), "exit code 2");

    assertEquals(1, invalid.lines().size());
    String problem = invalid.lines().get(0);
    assertTrue(problem.startsWith("DATABASE_URL ") && problem.contains(hint), problem);
    assertFalse(problem.matches(".*(QQ|\\.pem\\.|\\.key|\\.p12).*"), problem);
  }

  @ParameterizedTest
  @CsvSource(
      textBlock =
          """
          sslmode=disable,                        disable
          sslmode=disable&ssl=true,               require
          ssl=true&sslmode=prefer,                require
          sslmode=verify-full&ssl=true&sslrootcert=ca.pem, verify-full
          ssl=false,
          ssl=0&sslmode=allow,                    allow
          sslmode=disable&sslrootcert=ca.pem,     disable
          sslmode=disable&sslaccept=strict,       verify-full
          sslmode=verify-full&sslcert=ca.pem&sslaccept=accept_invalid_certs, verify-full
          sslmode=require&sslmode=disable,        disable
          """)
  void strictestDemandCounts(String query, String sslmode) {
    assertEquals(
        sslmode,
        DatabaseUrl.parse("postgresql://h/app?" + withFiles(query)).properties().get("sslmode"));
  }

  private static boolean isConnectedByTls(TlsServer server, String url) throws SQLException {
    int before = server.handshakes;
    String rest =
        withFiles(url).replaceFirst("\\?", ":" + server.port() + "/" + server.database + "?");
    try (Connection connection =
        DatabaseUrl.parse("postgresql://" + server.credentials + "@" + rest)
            .dataSource(5)
            .getConnection()) {
      return connection.isValid(5) && server.handshakes > before;
    }
  }

  private static String withFiles(String query) {
    return Arrays.stream(query.split("(?<=[=&])"))
        .map(
            word ->
                word.matches(
                        "(ca|other-ca|expired-ca|mixed-ca|chain-ca|intermediate-ca|intermediate|client|client-sec1|readable|server)\\.\\w+&?")
                    ? tls(word)
                    : word)
        .reduce("", String::concat);
  }

  private static String tls(String file) {
    return files.resolve(file).toString();
  }

  /** Speaks TLS in front of a Postgres that may have none, as Postgres itself would. */
  private static final class TlsServer implements AutoCloseable {
    private static final byte[] SSL_REQUEST = {0, 0, 0, 8, 4, (byte) 210, 22, 47};

    final String credentials;
    final String database;
    volatile int handshakes;
    private final String[] target;
    private final boolean wantsClientCertificate;
    private final SSLContext context = SSLContext.getInstance("TLS");
    private final ServerSocket listener;

    TlsServer(String url, String address, boolean wantsClientCertificate)
        throws IOException, GeneralSecurityException {
      this(url, address, wantsClientCertificate, "server.p12");
    }

    TlsServer(String url, String address, boolean wantsClientCertificate, String keyStore)
        throws IOException, GeneralSecurityException {
      listener = new ServerSocket(0, 50, InetAddress.getByName(address));
      String[] parts = url.split("://|@|/|\\?");
      credentials = parts[1];
      database = parts[3];
      target = TestPostgres.hostAndPort(url);
      this.wantsClientCertificate = wantsClientCertificate;

      char[] password = "server".toCharArray();
      KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
      keys.init(KeyStore.getInstance(Path.of(tls(keyStore)).toFile(), password), password);
      KeyStore authorities = KeyStore.getInstance(KeyStore.getDefaultType());
      authorities.load(null, null);
      try (InputStream ca = DatabaseTlsTest.class.getResourceAsStream("/tls/ca.pem")) {
        authorities.setCertificateEntry(
            "ca", CertificateFactory.getInstance("X.509").generateCertificate(ca));
      }
      TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
      trust.init(authorities);
      context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
      new Thread(this::accept).start();
    }

    int port() {
      return listener.getLocalPort();
    }

    private void accept() {
      try {
        while (true) {
          Socket client = listener.accept();
          CompletableFuture.runAsync(() -> serve(client), task -> new Thread(task).start());
        }
      } catch (IOException e) {
        // closed
      }
    }

    private void serve(Socket client) {
      try (client;
          Socket postgres = new Socket(target[0], Integer.parseInt(target[1]))) {
        byte[] request = client.getInputStream().readNBytes(SSL_REQUEST.length);
        if (!Arrays.equals(SSL_REQUEST, request)) {
          return; // like hostssl in pg_hba.conf: nobody is let in without TLS
        }
        client.getOutputStream().write('S');
        SSLSocket socket =
            (SSLSocket) context.getSocketFactory().createSocket(client, null, port(), true);
        socket.setUseClientMode(false);
        socket.setNeedClientAuth(wantsClientCertificate);
        socket.startHandshake();
        handshakes++;
        CompletableFuture<Void> answers =
            CompletableFuture.runAsync(
                () -> pass(postgres, socket), task -> new Thread(task).start());
        pass(socket, postgres);
        answers.join();
      } catch (IOException e) {
        // the client has seen a certificate that it does not accept, or shown none
      }
    }

    private static void pass(Socket from, Socket to) {
      try {
        from.getInputStream().transferTo(to.getOutputStream());
        to.close();
      } catch (IOException e) {
        // the other direction has ended
      }
    }

    @Override
    public void close() throws IOException {
      listener.close();
    }
  }
}
