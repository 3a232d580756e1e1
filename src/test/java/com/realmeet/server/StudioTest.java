package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.dev.Studio;
import com.realmeet.server.testing.TestPostgres;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** What {@code make studio} opens, as a browser sees it. */
class StudioTest {
  private static Studio studio;

  @BeforeAll
  static void start() throws Exception {
    String database = TestPostgres.newDatabase();
    TestPostgres.execute(
        database,
        "INSERT INTO users (id, email, clerk_updated_at) VALUES ('user_1', 'one@example.com', now())");
    studio = new Studio(Studio.database(Map.of("DATABASE_URL", database)));
  }

  @AfterAll
  static void stop() {
    studio.close();
  }

  private static HttpResponse<String> get(URI url) throws IOException, InterruptedException {
    return HttpClient.newHttpClient()
        .send(HttpRequest.newBuilder(url).build(), HttpResponse.BodyHandlers.ofString());
  }

  private static URI frame(String name) throws IOException, InterruptedException {
    String page = get(studio.url()).body();
    Matcher source = Pattern.compile("name=\"" + name + "\" src=\"([^\"]+)").matcher(page);
    assertTrue(source.find(), page);
    return URI.create(source.group(1).replace("&amp;", "&"));
  }

  @Test
  void opensAtTheRowsOfTheUsers() throws Exception {
    String rows = get(frame("h2result")).body();

    assertTrue(rows.contains(">user_1<"), rows);
    assertTrue(rows.contains(">one@example.com<"), rows);
    String tables = get(frame("h2menu")).body();
    assertTrue(tables.contains("'users'"), tables);
    String query = get(frame("h2query")).body();
    assertTrue(query.contains(">SELECT * FROM users ORDER BY updated_at DESC</textarea>"), query);
  }

  @Test
  void listensOnThisMachineOnlyAndHidesFromWhoDoesNotKnowItsUrl() throws Exception {
    for (URI url : new URI[] {studio.url(), frame("h2result")}) {
      assertEquals(200, get(url).statusCode());
      try (Socket socket = new Socket()) { // Linux has all of 127.0.0.0/8 as addresses of its own
        InetSocketAddress other = new InetSocketAddress("127.0.0.2", url.getPort());
        assertThrows(IOException.class, () -> socket.connect(other, 1000));
      }
    }
    assertEquals(404, get(studio.url().resolve("/?jsessionid=0")).statusCode());
    URI stranger = URI.create(frame("h2menu").toString().replaceAll("=\\w+$", "=0"));
    assertFalse(get(stranger).body().contains("'users'"), "anyone is let in");
  }

  @Test
  void migrationsHostIsTheOneToLookAt() throws Exception {
    String pooled = "postgresql://u:p@ep-a-pooler.neon.tech/db";
    String direct = "postgresql://u:p@db.internal/db";

    assertEquals(
        "ep-a.neon.tech:5432/db", Studio.database(Map.of("DATABASE_URL", pooled)).toString());
    assertEquals(
        "db.internal:5432/db",
        Studio.database(Map.of("DATABASE_URL", pooled, "DIRECT_URL", direct)).toString());
  }

  @Test
  void databaseThatRefusesIsNamedWithoutItsPassword() {
    DatabaseUrl nobody = DatabaseUrl.parse("postgresql://me:sesame@127.0.0.1:1/db");

    String message = assertThrows(StartupException.class, () -> new Studio(nobody)).getMessage();
    assertTrue(message.startsWith("The database at 127.0.0.1:1/db cannot be used: "), message);
    assertFalse(message.contains("sesame"), message);
  }
}
