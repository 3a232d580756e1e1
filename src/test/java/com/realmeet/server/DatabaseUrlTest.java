package com.realmeet.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Properties;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.postgresql.Driver;
import org.postgresql.ds.PGSimpleDataSource;

/** Every value that nobody may see has QQ in it, each piece of an odd password too. */
class DatabaseUrlTest {
  private static final String NEON =
      "postgresql://neondb_owner:npg_QQ@ep-cool-1-pooler.eu-central-1.aws.neon.tech/neondb"
          + "?sslmode=require&channel_binding=require";

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      maxCharsPerColumn = 500,
      textBlock =
          """
          # URL after "://"                        | host           | port      | database | user  | password
          ada:QQ@db.example.org/app               | db.example.org | 5432      | app      | ada   | QQ
          ada:QQ@db.example.org:6543/app          | db.example.org | 6543      | app      | ada   | QQ
          ada:QQ@127.0.0.1:5432/app?              | 127.0.0.1      | 5432      | app      | ada   | QQ
          ada:QQ@[::1]/app                        | [::1]          | 5432      | app      | ada   | QQ
          ada:QQ@[2001:db8::7]:6543/app           | [2001:db8::7]  | 6543      | app      | ada   | QQ
          ada:QQ@one,two:5433,[::1]/app           | one,two,[::1]  | 5432,5433,5432 | app | ada   | QQ
          ada:QQ%40%3A%2F%3F%23%25%26%3D@h/app    | h              | 5432      | app      | ada   | QQ@:/?#%&=
          ada:QQ%2BQQ@h/app                       | h              | 5432      | app      | ada   | QQ+QQ
          ada:QQ+QQ@h/app                         | h              | 5432      | app      | ada   | QQ+QQ
          ada:QQ@QQ@h/app                         | h              | 5432      | app      | ada   | QQ@QQ
          ada:QQ:QQ@h/app                         | h              | 5432      | app      | ada   | QQ:QQ
          ada:QQ#QQ&QQ=;@h/app                    | h              | 5432      | app      | ada   | QQ#QQ&QQ=;
          ada:QQ%20%C3%B6%e2%82%ac@h/app          | h              | 5432      | app      | ada   | QQ ö€
          ada:QQö€@h/app                          | h              | 5432      | app      | ada   | QQö€
          ada%40team:QQ@h/my%20app                | h              | 5432      | my app   | ada@team | QQ
          postgres.ref:QQ@aws-0.pooler.supabase.com:6543/postgres | aws-0.pooler.supabase.com | 6543 | postgres | postgres.ref | QQ
          """)
  void partsOfTheUrlReachTheDriver(
      String rest, String host, String port, String database, String user, String password) {
    for (String scheme : List.of("postgresql", "postgres")) {
      DatabaseUrl url = DatabaseUrl.parse(scheme + "://" + rest);
      PGSimpleDataSource source = url.dataSource(2);
      Properties read = Driver.parseURL(source.getURL(), null);

      assertEquals(
          List.of(host, port, database, user, password),
          List.of(
              read.getProperty("PGHOST"),
              read.getProperty("PGPORT"),
              read.getProperty("PGDBNAME"),
              source.getUser(),
              source.getPassword()));
      assertEquals(List.of(), url.warnings());
      assertShowsNoSecret(url.toString());
    }
  }

  @Test
  void withoutAUserThereIsNoPassword() {
    PGSimpleDataSource source = DatabaseUrl.parse("postgresql://h/app").dataSource(2);

    assertNull(source.getUser());
    assertNull(source.getPassword());
  }

  @ParameterizedTest
  @CsvSource(
      textBlock =
          """
          sslmode=require,                       sslmode,          require
          sslmode=verify-full,                   sslmode,          verify-full
          channel_binding=require,               channelBinding,   require
          sslnegotiation=direct,                 sslNegotiation,   direct
          sslrootcert=/etc/ca%20certs/QQ.pem,    sslrootcert,      /etc/ca certs/QQ.pem
          sslrootcert=system,                    sslfactory,       org.postgresql.ssl.DefaultJavaSSLFactory
          sslrootcert=system,                    sslmode,          verify-full
          sslmode=require&sslrootcert=system,    sslmode,          require
          connect_timeout=3,                     connectTimeout,   3
          application_name=my%20QQ+app,          ApplicationName,  my QQ+app
          target_session_attrs=read-write,       targetServerType, primary
          target_session_attrs=primary,          targetServerType, primary
          target_session_attrs=any,              targetServerType, any
          target_session_attrs=prefer-standby,   targetServerType, preferSecondary
          pgbouncer=true,                        prepareThreshold, 0
          pgbouncer=false,                       prepareThreshold, 5
          options=endpoint%3Dep-QQ-1,            prepareThreshold, 5
          """)
  void parameterBecomesThePropertyOfTheDriver(String query, String property, String value)
      throws Exception {
    DatabaseUrl url = DatabaseUrl.parse("postgresql://ada:QQ@h/app?" + query);

    assertEquals(value, url.dataSource(2).getProperty(property));
    assertEquals(List.of(), url.warnings());
    assertShowsNoSecret(url.toString());
  }

  @Test
  void allWaitsAreBounded() {
    PGSimpleDataSource source = DatabaseUrl.parse("postgresql://ada:QQ@h/app").dataSource(2);

    assertEquals(2, source.getSocketTimeout());
    assertEquals(5, source.getConnectTimeout());
    assertEquals(5, source.getLoginTimeout());
    assertFalse(source.getLogServerErrorDetail());
  }

  @Test
  void prismaParametersSizeThePoolAndNameTheSchema() {
    DatabaseUrl url =
        DatabaseUrl.parse(
            "postgresql://ada:QQ@h/app?schema=my-app&connection_limit=7&pool_timeout=1&pgbouncer=true");

    assertEquals(7, url.poolSize(10));
    assertEquals(1000, url.poolTimeoutMillis(3000));
    assertEquals("my-app", url.schema());
    assertEquals("\"my-app\".users", url.qualified("users"));
    assertNull(url.dataSource(2).getCurrentSchema(), "PgBouncer refuses it");
    assertEquals("my-app", url.direct().schema());
    assertEquals(List.of(), url.warnings());
  }

  @Test
  void withoutThemPoolAndSchemaAreOurs() {
    DatabaseUrl url = DatabaseUrl.parse("postgresql://ada:QQ@h/app");

    assertEquals(10, url.poolSize(10));
    assertEquals(3000, url.poolTimeoutMillis(3000));
    assertNull(url.schema());
    assertEquals("users", url.qualified("users"));
  }

  @Test
  void poolerOfNeonIsSeenAndLeftOutForMigrations() {
    DatabaseUrl pooled = DatabaseUrl.parse(NEON);
    DatabaseUrl direct = pooled.direct();

    assertTrue(pooled.isPooled());
    assertEquals(0, pooled.dataSource(2).getPrepareThreshold());
    assertEquals("ep-cool-1-pooler.eu-central-1.aws.neon.tech:5432/neondb", pooled.toString());
    assertFalse(direct.isPooled());
    assertEquals("ep-cool-1.eu-central-1.aws.neon.tech:5432/neondb", direct.toString());
    assertEquals("require", direct.dataSource(2).getSslMode());
    assertEquals("npg_QQ", direct.dataSource(2).getPassword());
    assertFalse(DatabaseUrl.parse("postgresql://h/my-pooler").isPooled());
    assertFalse(DatabaseUrl.parse("postgresql://h.my-pooler.org/app").isPooled());
  }

  @Test
  void directHostOfAnotherPoolerIsUnknown() {
    assertTrue(DatabaseUrl.parse("postgresql://h/app?pgbouncer=true").direct().isPooled());
  }

  @ParameterizedTest
  @CsvSource(
      textBlock =
          """
          host=evil.QQ,              the unknown parameter host is ignored
          hostaddr=6.6.6.6QQ,        the unknown parameter hostaddr is ignored
          port=QQ,                   the unknown parameter port is ignored
          user=QQ,                   the unknown parameter user is ignored
          password=QQ,               the unknown parameter password is ignored
          socketFactory=evil.QQ,     the unknown parameter socketFactory is ignored
          loggerFile=/tmp/QQ,        the unknown parameter loggerFile is ignored
          od%0Ad%1B=QQ,              the unknown parameter od?d? is ignored
          options=-c%20role%3DQQ,    the unknown parameter options is ignored
          connect_timeout=10,        'connect_timeout is taken as 5 s, the longest that a request waits'
          connect_timeout=0,         'connect_timeout is taken as 5 s, the longest that a request waits'
          pool_timeout=30,           'pool_timeout is taken as 5 s, the longest that a request waits'
          """)
  void whatIsNotTakenIsNamedOnceAndChangesNothing(String query, String warning) {
    DatabaseUrl url = DatabaseUrl.parse("postgresql://ada:QQ@h/app?" + query + "&sslmode=require");

    assertEquals(List.of(warning), url.warnings());
    assertEquals(List.of(), url.direct().warnings());
    assertEquals(
        DatabaseUrl.parse("postgresql://ada:QQ@h/app?sslmode=require").dataSource(2).getURL(),
        url.dataSource(2).getURL());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          jdbc:postgresql://ada:QQ@h/app              | leave out "jdbc:"
          jdbc:postgresql://h/app?password=QQ         | leave out "jdbc:"
          mysql://ada:QQ@h/app                        | must look like postgresql://
          ada:QQ@h/app                                | must look like postgresql://
          postgresql:ada:QQ@h/app                     | must look like postgresql://
          QQ                                          | must look like postgresql://
          postgresql://ada:QQ@h                       | names no database
          postgresql://ada:QQ@h/                      | names no database
          postgresql://ada:QQ@h?sslmode=require       | names no database
          postgresql:///app                           | has no valid host
          postgresql://ada:QQ@/app                    | has no valid host
          postgresql://ada:QQ@:5432/app               | has no valid host
          postgresql://ada:QQ@one,,two/app            | has no valid host
          postgresql://ada:QQ@2001:db8::7/app         | has no valid host
          postgresql://ada:QQ@h:QQ/app                | has no valid host
          postgresql://ada:QQ@h:0/app                 | port that is not between 1 and 65535
          postgresql://ada:QQ@h:65536/app             | port that is not between 1 and 65535
          postgresql://ada:QQ@h:99999999999/app       | value for the port that is not a number
          postgresql://ada:QQ/QQ@h/app                | percent-encode
          postgresql://ada:12/QQ@h/app                | percent-encode
          postgresql://ada:12/34?QQ@h/app             | percent-encode
          postgresql://ada:QQ@QQ/QQ@h/app             | percent-encode
          postgresql://ada:QQ?QQ@h/app                | percent-encode
          postgresql://ada:QQ%@h/app                  | has a % that is not followed by two hex digits
          postgresql://ada:QQ%4@h/app                 | has a % that is not followed by two hex digits
          postgresql://ada:QQ%zz@h/app                | has a % that is not followed by two hex digits
          postgresql://ada:QQ%00@h/app                | has a % that is not followed by two hex digits
          postgresql://ada:QQ%ff@h/app                | bytes that are not UTF-8
          postgresql://ada:QQ@h/app?sslmode=QQ        | unknown value for sslmode: use one of disable,
          postgresql://ada:QQ@h/app?channel_binding=QQ | unknown value for channel_binding
          postgresql://ada:QQ@h/app?target_session_attrs=QQ | unknown value for target_session_attrs
          postgresql://ada:QQ@h/app?connect_timeout=QQ | value for connect_timeout that is not a number
          postgresql://ada:QQ@h/app?connect_timeout=-1 | value for connect_timeout that is not a number
          postgresql://ada:QQ@h/app?connection_limit=0 | connection_limit that is not 1 to 1000
          postgresql://ada:QQ@h/app?connection_limit=9999 | connection_limit that is not 1 to 1000
          postgresql://ada:QQ@h/app?schema=a%22;QQ    | schema that is not a plain name
          """)
  void whatCannotBeUsedIsRefusedWithAHint(String url, String hint) {
    IllegalArgumentException refusal =
        assertThrows(IllegalArgumentException.class, () -> DatabaseUrl.parse(url));

    assertTrue(refusal.getMessage().contains(hint), refusal.getMessage());
    assertShowsNoSecret(refusal.toString());
    assertNull(refusal.getCause());
  }

  @ParameterizedTest
  @ValueSource(strings = {"sslmode=require", "&sslmode=require&&", "sslmode=require&"})
  void emptyParametersAreNothing(String query) {
    assertEquals(List.of(), DatabaseUrl.parse("postgresql://h/app?" + query).warnings());
  }

  private static void assertShowsNoSecret(String text) {
    assertFalse(text.contains("QQ"), text);
  }
}
