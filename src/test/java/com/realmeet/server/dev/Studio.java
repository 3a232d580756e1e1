package com.realmeet.server.dev;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.realmeet.server.Config;
import com.realmeet.server.DotEnv;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.awt.GraphicsEnvironment;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.sql.SQLException;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import java.util.logging.LogManager;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import javax.sql.DataSource;
import org.h2.tools.Server;
import org.postgresql.Driver;
import org.postgresql.ds.PGSimpleDataSource;

/**
 * What {@code make studio} runs: H2's Console, a database GUI in the browser, logged in and opened
 * at the users. Only this machine can reach it, and there only who knows its random URL.
 */
public final class Studio implements AutoCloseable {
  /** H2's own page, but with a query that has run. The frames find each other by these names. */
  private static final String PAGE =
      """
      <!DOCTYPE html>
      <html lang="en">
      <head><title>%1$s</title></head>
      <frameset rows="36,*">
        <frame name="header" src="%2$s/header.jsp?%3$s" scrolling="no" frameborder="0">
        <frameset cols="240,*">
          <frame name="h2menu" src="%2$s/tables.do?%3$s">
          <frameset rows="120,*">
            <frame name="h2query" src="%2$s/getHistory.do?%3$s&amp;id=0">
            <frame name="h2result" src="%2$s/query.do?%3$s&amp;sql=%4$s">
          </frameset>
        </frameset>
      </frameset>
      </html>
      """;

  private final Server console;
  private final HttpServer front;
  private final URI url;

  public static void main(String[] args) throws Exception {
    LogManager.getLogManager().reset(); // pgjdbc's own log
    try {
      Map<String, String> variables = new HashMap<>(DotEnv.read(Path.of(".env")).values());
      variables.putAll(System.getenv());
      DatabaseUrl database = database(variables);
      URI url = new Studio(database).url();
      System.out.printf("%nDatabase  %s%nStudio    %s%n%nCtrl-C stops it.%n", database, url);
      if (!GraphicsEnvironment.isHeadless()) {
        Server.openBrowser(url.toString());
      }
    } catch (StartupException e) {
      System.err.println(e.getMessage());
      System.exit(1);
    }
  }

  /**
   * The database that the settings name, past its pooler, or else the one of {@code make dev}.
   *
   * @throws StartupException if a setting is wrong
   * @throws StartupException if there is no database
   */
  public static DatabaseUrl database(Map<String, String> variables) throws IOException {
    Map<String, String> settings = new HashMap<>(variables);
    settings.put("CLERK_SECRET_KEY", "sk_test_not_needed");
    if (settings.getOrDefault("DATABASE_URL", "").isBlank()) {
      settings.remove("DIRECT_URL");
      settings.put("DATABASE_URL", Dev.databaseUrl(Path.of("")).orElseThrow(Studio::noDatabase));
    }
    return Config.from(settings).directUrl();
  }

  private static StartupException noDatabase() {
    return new StartupException(
        "There is no database to look at: start make dev in another terminal, or set DATABASE_URL"
            + " in .env");
  }

  /**
   * Opens the GUI on two free ports: H2's own, and one for the page that holds its frames.
   *
   * @throws StartupException if the database cannot be used
   */
  public Studio(DatabaseUrl database) throws IOException, InterruptedException, SQLException {
    System.setProperty("h2.bindAddress", "127.0.0.1"); // by default, all addresses of the machine
    System.setProperty("h2.consoleTimeout", String.valueOf(Integer.MAX_VALUE)); // ms, not 30 min
    PGSimpleDataSource source = database.dataSource(0);
    requireLogin(database, source);
    console = Server.createWebServer("-webPort", "0", "-webDaemon", "-properties", "null").start();
    String h2 = "http://127.0.0.1:" + console.getPort();
    String session = logIn(h2, source);
    String sql = "SELECT * FROM " + database.qualified("users") + " ORDER BY updated_at DESC";
    post(h2 + "/query.do?" + session, Map.of("sql", sql)); // the page asks for it by the history

    String page = PAGE.formatted(database, h2, session, encode(sql));
    front = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    front.createContext(
        "/", exchange -> send(exchange, session.equals(exchange.getRequestURI().getQuery()), page));
    front.start();
    url = URI.create("http://127.0.0.1:" + front.getAddress().getPort() + "/?" + session);
  }

  private static void requireLogin(DatabaseUrl database, DataSource source) {
    try {
      source.getConnection().close();
    } catch (SQLException e) {
      throw new StartupException(
          "The database at " + database + " cannot be used: " + e.getMessage());
    }
  }

  /** As H2's form does it; the part of an address that names the session. */
  private static String logIn(String h2, PGSimpleDataSource source)
      throws IOException, InterruptedException {
    Matcher session = Pattern.compile("jsessionid=\\w+").matcher(post(h2 + "/index.do", Map.of()));
    if (!session.find()) {
      throw new IllegalStateException("H2's form is not what it was");
    }
    post(
        h2 + "/login.do?" + session.group(),
        Map.of(
            "driver", Driver.class.getName(),
            "url", source.getURL(),
            "user", Objects.requireNonNullElse(source.getUser(), ""),
            "password", Objects.requireNonNullElse(source.getPassword(), "")));
    return session.group();
  }

  /** On a connection of its own: H2 closes each without a word. */
  private static String post(String url, Map<String, String> form)
      throws IOException, InterruptedException {
    String body =
        form.entrySet().stream()
            .map(field -> field.getKey() + "=" + encode(field.getValue()))
            .collect(Collectors.joining("&"));
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(url))
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
    return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
  }

  private static String encode(String text) {
    return URLEncoder.encode(text, UTF_8);
  }

  private static void send(HttpExchange exchange, boolean known, String page) throws IOException {
    byte[] body = (known ? page : "Not found").getBytes(UTF_8);
    exchange.getResponseHeaders().set("Content-Type", "text/html; charset=utf-8");
    exchange.sendResponseHeaders(known ? 200 : 404, body.length);
    try (OutputStream out = exchange.getResponseBody()) {
      out.write(body);
    }
  }

  /** Where the browser finds it; whoever knows it may do everything with the database. */
  public URI url() {
    return url;
  }

  @Override
  public void close() {
    front.stop(0);
    console.stop();
  }
}
