package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.realmeet.server.database.DatabaseUrl;
import com.realmeet.server.database.Migrations;
import com.realmeet.server.testing.StandInClerk;
import com.realmeet.server.testing.TestPostgres;
import com.realmeet.server.testing.TestServer;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Roles, schemas and databases with names that must be quoted in SQL, or mean something else. */
class MigrationNamesTest {
  private static StandInClerk clerk;

  @BeforeAll
  static void start() {
    clerk = new StandInClerk();
    clerk.putUser("user_new", "new@example.com", "New", null);
  }

  @AfterAll
  static void stop() {
    clerk.close();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "Ünïcode, public o'brien ${flyway:user} \"two words\"",
        "$$ü ö 😀$1 back\\slash'; DROP TABLE users --",
        "50%s?:name"
      })
  void anyNameMigratesAndServes(String name) {
    String admin = TestPostgres.emptyDatabase();
    String unique = name + ProcessHandle.current().pid();
    String quoted = '"' + unique.replace("\"", "\"\"") + '"';
    TestPostgres.execute(admin, "CREATE ROLE " + quoted + " LOGIN PASSWORD 'p'");
    TestPostgres.execute(admin, "CREATE DATABASE " + quoted + " OWNER " + quoted);
    String encoded = URLEncoder.encode(unique, StandardCharsets.UTF_8).replace("+", "%20");
    String[] host = TestPostgres.hostAndPort(admin);
    String url = "postgresql://%s:p@%s:%s/%s".formatted(encoded, host[0], host[1], encoded);
    boolean hasSchema = !name.contains("%"); // Flyway 13.12.0 takes that for a format
    if (hasSchema) {
      TestPostgres.execute(url, "CREATE SCHEMA AUTHORIZATION CURRENT_USER"); // in the search path
    }

    try (TestServer server = TestServer.start(clerk, url)) {
      assertEquals(200, server.sync(clerk.token("user_new")).statusCode());
    }
    assertEquals(
        List.of(hasSchema + "|true"),
        TestPostgres.query(
            url,
            "SELECT (schemaname = current_user)::text, (tableowner = current_user)::text"
                + " FROM pg_tables WHERE tablename = 'users'"));
    Migrations.migrate(DatabaseUrl.parse(url));
    TestPostgres.execute(
        url, "CREATE TABLE other (id int); DROP TABLE real_meet_server_migrations"); // a baseline
    Migrations.migrate(DatabaseUrl.parse(url));
  }
}
