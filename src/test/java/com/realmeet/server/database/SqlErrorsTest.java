package com.realmeet.server.database;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.TestPostgres;
import java.io.IOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.NoRouteToHostException;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.net.UnknownHostException;
import java.sql.SQLException;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.postgresql.util.PSQLException;
import org.postgresql.util.PSQLState;
import org.postgresql.util.ServerErrorMessage;

/** Tests that the log names in plain words why no connection can be made. */
class SqlErrorsTest {
  private static final String PASSWORD = "wr0ng-pass";

  private static String reason(String url) {
    SQLException e =
        assertThrows(
            SQLException.class, () -> DatabaseUrl.parse(url).dataSource(2).getConnection());
    String reason = SqlErrors.whyUnavailable(e);
    assertFalse(reason.contains(PASSWORD), reason);
    assertFalse(reason.contains("\n"), reason);
    return reason;
  }

  @Test
  void hostThatDoesNotExistIsSaidToBeUnknown() {
    assertEquals(
        "no such host: DNS does not know its name (08001)",
        reason("postgresql://app:" + PASSWORD + "@db.nowhere.invalid/app"));
  }

  static Stream<IOException> unreachable() {
    return Stream.of(
        new ConnectException("Network is unreachable"),
        new SocketException("Network is unreachable (connect failed)"),
        new SocketException("Protocol family unavailable"),
        new SocketException("Address family not supported by protocol"),
        new ConnectException("Cannot assign requested address"),
        new NoRouteToHostException("No route to host"),
        new UnknownHostException("db.ref.supabase.co: No address associated with hostname"));
  }

  /** As pgjdbc wraps them; which of them comes depends on the machine's network. */
  @ParameterizedTest
  @MethodSource("unreachable")
  void hostThatIsOutOfReachIsSaidToBePossiblyIpv6Only(IOException cause) {
    String reason =
        SqlErrors.whyUnavailable(
            new PSQLException(
                "The connection attempt failed.", PSQLState.CONNECTION_UNABLE_TO_CONNECT, cause));

    assertTrue(reason.contains("IPv6"), reason);
    assertTrue(reason.endsWith("(08001)"), reason);
    assertFalse(reason.contains("The connection attempt failed"), reason);
  }

  @Test
  void refusedConnectionIsSaidToBeRefused() throws IOException {
    int port;
    try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"))) {
      port = free.getLocalPort();
    }
    assertEquals(
        "nothing listens on that host and port (connection refused) (08001)",
        reason("postgresql://app:" + PASSWORD + "@127.0.0.1:" + port + "/app"));
  }

  @Test
  void serverThatSaysNothingIsSaidToBeSilent() throws IOException {
    try (ServerSocket silent = new ServerSocket(0, 10, InetAddress.getByName("127.0.0.1"))) {
      String reason =
          reason("postgresql://app:" + PASSWORD + "@127.0.0.1:" + silent.getLocalPort() + "/app");

      assertTrue(reason.contains("within the time limit"), reason);
    }
  }

  @Test
  void serverThatSpeaksAnotherLanguageIsSaidNotToBePostgres() throws IOException {
    try (ServerSocket web = new ServerSocket(0, 10, InetAddress.getByName("127.0.0.1"))) {
      Thread answers =
          new Thread(
              () -> {
                try {
                  while (true) {
                    try (Socket client = web.accept()) {
                      client.getOutputStream().write("HTTP/1.1 400 Bad Request\r\n\r\n".getBytes());
                      client.getInputStream().readNBytes(8);
                    }
                  }
                } catch (IOException closed) {
                  // the test is over
                }
              });
      answers.setDaemon(true);
      answers.start();
      String reason =
          reason("postgresql://app:" + PASSWORD + "@127.0.0.1:" + web.getLocalPort() + "/app");

      assertEquals("what listens there is not Postgres (08P01)", reason);
    }
  }

  static Stream<Arguments> messages() {
    return Stream.of(
        Arguments.of("Could not open SSL root certificate file /x/root.crt.", "sslrootcert"),
        Arguments.of("SSL error: PKIX path building failed: sun.security.…", "not signed by"),
        Arguments.of(
            "The hostname db.x could not be verified by hostnameverifier PgjdbcHostnameVerifier.",
            "another host name"),
        Arguments.of("FATAL: SSL required", "add sslmode=require"));
  }

  /** In pgjdbc's or PgBouncer's own words. */
  @ParameterizedTest
  @MethodSource("messages")
  void faultOfTlsSaysWhatToDo(String message, String advice) {
    String reason =
        SqlErrors.whyUnavailable(new PSQLException(message, PSQLState.CONNECTION_FAILURE));

    assertTrue(reason.contains(advice), reason);
  }

  static Stream<Arguments> contexts() {
    return Stream.of(
        Arguments.of(
            "PLy_elog",
            "Traceback (most recent call last):\n  PL/Python function \"f\", line 2, in <module>\n"
                + "    plpy.error('a@b', sqlstate='42501')\nPL/Python function \"f\"",
            "an exception was raised in PL/Python function \"f\"; GRANT"),
        Arguments.of(
            "exec_stmt_raise",
            "PL/pgSQL-Funktion f() Zeile 3 bei RAISE",
            "an exception was raised in a function; a trigger or function of the application raised it"),
        Arguments.of(
            "aclcheck_error",
            "PL/pgSQL-Funktion f() Zeile 3 bei EXECUTE",
            "an exception was raised in a function; GRANT"),
        Arguments.of(
            "aclcheck_error",
            "unnamed portal with parameters: $1 = 'not a SQL function a@b'",
            "permission denied; GRANT"));
  }

  /** Builds the errors, since the tests' Postgres lacks these languages and settings. */
  @ParameterizedTest
  @MethodSource("contexts")
  void contextOfAnErrorIsNotQuoted(String routine, String where, String explanation) {
    String message = routine.equals("aclcheck_error") ? "permission denied" : "a@b is refused";
    String fields =
        String.join("\0", "SERROR", "C42501", "M" + message, "W" + where, "R" + routine);

    String line =
        SqlErrors.whyRejected(new PSQLException(new ServerErrorMessage(fields))).orElseThrow();

    assertTrue(line.startsWith("The database refuses a statement: " + explanation), () -> line);
    assertFalse(line.contains("a@b"), line);
  }

  @Test
  void missingDatabaseAndMissingTlsAreNamed() {
    String url = TestPostgres.newDatabase();

    assertTrue(
        reason(TestPostgres.withDatabase(url, "nowhere"))
            .startsWith("the database does not exist"));
    String tls = url.contains("?") ? url + "&sslmode=require" : url + "?sslmode=require";
    assertEquals("the server does not offer TLS, which sslmode demands (08004)", reason(tls));
    assertTrue(
        reason(tls.replace("require", "verify-full&sslrootcert=system"))
            .startsWith("the server does not offer TLS"));
  }
}
