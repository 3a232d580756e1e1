package com.realmeet.server.testing;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Answers for Clerk byte by byte, and so in ways that no HTTP server would. Each user can have a
 * fault of his own; without one he is answered for by the stand-in's rules.
 */
public final class FaultyClerk implements AutoCloseable {
  private static final String OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

  /** What is done with a connection once the request is read; it is closed afterwards. */
  public interface Fault {
    void answer(Socket connection) throws IOException, InterruptedException;
  }

  private final ServerSocket listener;
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final Map<String, Fault> faults = new ConcurrentHashMap<>();
  private final Set<Socket> open = ConcurrentHashMap.newKeySet();
  private final List<String> requests = new CopyOnWriteArrayList<>();

  public FaultyClerk() {
    try {
      listener = new ServerSocket(0, 200, InetAddress.getByName("127.0.0.1"));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    threads.execute(this::accept);
  }

  /** A server that takes its users from here, and verifies the tokens of the stand-in. */
  public TestServer server(StandInClerk keys, String database) {
    return TestServer.start(keys, database, "CLERK_API_URL", url(), "CLERK_JWT_KEY", pem(keys));
  }

  public static String pem(StandInClerk keys) {
    byte[] key = keys.key().pair().getPublic().getEncoded();
    return "-----BEGIN PUBLIC KEY-----\n"
        + Base64.getEncoder().encodeToString(key)
        + "\n-----END PUBLIC KEY-----";
  }

  public String url() {
    return "http://127.0.0.1:" + listener.getLocalPort();
  }

  public void put(String userId, Fault fault) {
    faults.put(userId, fault);
  }

  public void heal() {
    faults.clear();
  }

  /** The requests for a user, headers included. */
  public List<String> requests(String userId) {
    return requests.stream()
        .filter(request -> request.startsWith("GET /v1/users/" + userId + " "))
        .toList();
  }

  /** All requests that have come. */
  public int requests() {
    return requests.size();
  }

  /** The connections that the other side has not closed, nor have we. */
  public int open() {
    return open.size();
  }

  // Answers

  public static Fault answer(int status, String body, String... headers) {
    return raw(
        "HTTP/1.1 " + status + " Status\r\nContent-Type: application/json\r\n",
        String.join("", List.of(headers).stream().map(header -> header + "\r\n").toList()),
        "Content-Length: " + body.getBytes(StandardCharsets.UTF_8).length + "\r\n\r\n" + body);
  }

  public static Fault raw(String... parts) {
    byte[] bytes = String.join("", parts).getBytes(StandardCharsets.UTF_8);
    return connection -> connection.getOutputStream().write(bytes);
  }

  /** A user as Clerk sends him. */
  public static String user(String id) {
    return """
        {"id":"%s","first_name":"John","last_name":"Doe","image_url":null,"updated_at":1760000000000,
         "primary_email_address_id":"idn_1","email_addresses":[{"id":"idn_1","email_address":"%s@example.com"}]}
        """
        .formatted(id, id);
  }

  /** The users whom a request asks for by their ids. */
  private static String users(String request) {
    return Pattern.compile("user_id=([^& ]*)")
        .matcher(request)
        .results()
        .map(id -> user(id.group(1)))
        .collect(Collectors.joining(",", "[", "]"));
  }

  /** Says something, then nothing more, but does not hang up. */
  public static Fault stall(String beginning) {
    return connection -> {
      connection.getOutputStream().write(beginning.getBytes(StandardCharsets.UTF_8));
      awaitHangUp(connection);
    };
  }

  public static Fault stalledBody() {
    return stall(OK + "Content-Length: 1000\r\n\r\n{\"id\":");
  }

  /** Says something, then one more byte again and again. */
  public static Fault drip(String beginning) {
    return connection -> {
      OutputStream out = connection.getOutputStream();
      out.write(beginning.getBytes(StandardCharsets.UTF_8));
      while (true) {
        out.write(' ');
        Thread.sleep(50);
      }
    };
  }

  public static Fault drippingBody() {
    return drip(OK + "Content-Length: 1000000\r\n\r\n");
  }

  /** Says something, then another thing as fast as it is read. */
  public static Fault endless(String beginning, String more) {
    return connection -> {
      OutputStream out = connection.getOutputStream();
      out.write(beginning.getBytes(StandardCharsets.UTF_8));
      while (true) {
        out.write(more.getBytes(StandardCharsets.UTF_8));
      }
    };
  }

  public static Fault endlessBody() {
    return endless(OK + "\r\n\"", "x".repeat(10_000));
  }

  public static Fault truncated() {
    return raw(OK + "Content-Length: 1000\r\n\r\n{\"id\":");
  }

  public static Fault reset() {
    return connection -> connection.setSoLinger(true, 0);
  }

  private static void awaitHangUp(Socket connection) throws IOException {
    while (connection.getInputStream().read() >= 0) {}
  }

  // Connections

  private void accept() {
    while (!listener.isClosed()) {
      try {
        Socket connection = listener.accept();
        open.add(connection);
        threads.execute(() -> serve(connection));
      } catch (IOException closed) {
        return;
      }
    }
  }

  private void serve(Socket connection) {
    try (connection) {
      String request = head(connection.getInputStream());
      if (request.startsWith("GET /v1/users?")) { // the check of the instance, at the start
        answer(200, users(request)).answer(connection);
      } else if (!request.isEmpty()) {
        requests.add(request);
        String id = request.replaceFirst("(?s)^GET /v1/(?:users/)?([^ ]*) .*", "$1"); // or "jwks"
        Fault fault = faults.get(id);
        (fault == null ? answer(200, user(id)) : fault).answer(connection);
      }
    } catch (IOException | InterruptedException hungUp) {
      // That is how the server ends what takes too long.
    } finally {
      open.remove(connection);
    }
  }

  private static String head(InputStream in) throws IOException {
    StringBuilder head = new StringBuilder();
    for (int b = in.read(); b >= 0; b = in.read()) {
      head.append((char) b);
      if (head.length() > 4 && head.substring(head.length() - 4).equals("\r\n\r\n")) {
        return head.toString();
      }
    }
    return "";
  }

  @Override
  public void close() {
    try {
      listener.close();
      for (Socket connection : open) {
        connection.close();
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    threads.shutdownNow();
  }
}
