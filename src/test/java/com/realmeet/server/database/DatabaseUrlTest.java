package com.realmeet.server.database;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.realmeet.server.testing.TestPostgres;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
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
      quoteCharacter = '~',
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
          ada:QQ?QQ@h/app                         | h              | 5432      | app      | ada   | QQ?QQ
          ada:QQ@%68%6Fst:%36543/app              | host           | 6543      | app      | ada   | QQ
          ada:QQ@h/                               | h              | 5432      | ada      | ada   | QQ
          ada:QQ@h                                | h              | 5432      | ada      | ada   | QQ
          ada:QQ@h?sslmode=require                | h              | 5432      | ada      | ada   | QQ
          ada:QQ@h/a/b#c                          | h              | 5432      | a/b#c    | ada   | QQ
          ada:QQ@h/%2Fa%3Fb%40%25%22'             | h              | 5432      | /a?b@%"'      | ada   | QQ
          ada%2F%3A%3F%25%20'"%C3%B6:QQ@h/app     | h              | 5432      | app      | ada/:?% '"ö | QQ
          ada@corp:QQ@h/app                       | h              | 5432      | app      | ada@corp | QQ
          ada:QQ@[fe80::1%25eth0]/app             | [fe80::1%eth0] | 5432      | app      | ada   | QQ
          h/app?user=ada&password=QQ              | h              | 5432      | app      | ada   | QQ
          h/app?user=ada@corp&password=QQ@QQ      | h              | 5432      | app      | ada@corp | QQ@QQ
          eve:no@h:1/x?user=ada&password=QQ&host=o&port=2&dbname=app | o | 2    | app      | ada   | QQ
          h/app?user=eve&password=no&user=ada&password=QQ | h      | 5432      | app      | ada   | QQ
          ada:QQ@h1:1,h2:2/app?host=o,p           | o,p            | 1,2       | app      | ada   | QQ
          ada:QQ@h1,h2/app?port=7                 | h1,h2          | 7,7       | app      | ada   | QQ
          ada:QQ@/app?host=::1                    | [::1]          | 5432      | app      | ada   | QQ
          ada:QQ@h/app?u%73er=bob                 | h              | 5432      | app      | bob   | QQ
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
  void withoutAUserItIsTheUserOfTheOperatingSystem() {
    PGSimpleDataSource source = DatabaseUrl.parse("postgresql://h").dataSource(2);

    assertNull(source.getUser(), "pgjdbc takes user.name");
    assertNull(source.getPassword());
    assertEquals(System.getProperty("user.name"), source.getDatabaseName());
    assertEquals("h:5432/", DatabaseUrl.parse("postgresql://ada@h").toString());
  }

  /**
   * The cases of PostgreSQL's own test of connection URIs, src/interfaces/libpq/t/001_uri.pl. What
   * libpq makes of each stands behind it, or why it is refused here.
   */
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '~',
      textBlock =
          """
          postgresql://uri-user:secret@host:12345/db                 | host:12345 db uri-user secret
          postgresql://uri-user@host:12345/db                        | host:12345 db uri-user
          postgresql://uri-user@host/db                              | host:5432 db uri-user
          postgresql://host:12345/db                                 | host:12345 db
          postgresql://host/db                                       | host:5432 db
          postgresql://uri-user@host:12345/                          | host:12345 uri-user uri-user
          postgresql://uri-user@host/                                | host:5432 uri-user uri-user
          postgresql://uri-user@                                     | ! names no host
          postgresql://host:12345/                                   | host:12345
          postgresql://host:12345                                    | host:12345
          postgresql://host/                                         | host:5432
          postgresql://host                                          | host:5432
          postgresql://                                              | ! names no host
          postgresql://?hostaddr=127.0.0.1                           | ! names no host
          postgresql://example.com?hostaddr=63.1.2.4                 | ! parameter hostaddr, which cannot be used
          postgresql://%68ost/                                       | host:5432
          postgresql://host/db?user=uri-user                         | host:5432 db uri-user
          postgresql://host/db?user=uri-user&port=12345              | host:12345 db uri-user
          postgresql://host/db?u%73er=someotheruser&port=12345       | host:12345 db someotheruser
          postgresql://host/db?u%7aer=someotheruser&port=12345       | ! unknown parameter uzer: write user
          postgresql://host:12345?user=uri-user                      | host:12345 uri-user uri-user
          postgresql://host?user=uri-user                            | host:5432 uri-user uri-user
          postgresql://host?                                         | host:5432
          postgresql://[::1]:12345/db                                | [::1]:12345 db
          postgresql://[::1]/db                                      | [::1]:5432 db
          postgresql://[2001:db8::1234]/                             | [2001:db8::1234]:5432
          postgresql://[200z:db8::1234]/                             | ! no valid host
          postgresql://[::1]                                         | [::1]:5432
          postgres://                                                | ! names no host
          postgres:///                                               | ! names no host
          postgres:///db                                             | ! names no host
          postgres://uri-user@/db                                    | ! names no host
          postgres://?host=/path/to/socket/dir                       | ! names a Unix socket
          postgresql://host?uzer=                                    | ! unknown parameter uzer: write user
          postgre://                                                 | ! must look like
          postgres://[::1                                            | ! no valid host
          postgres://[]                                              | ! names no host
          postgres://[::1]z                                          | ! no valid host
          postgresql://host?zzz                                      | ! not name=value
          postgresql://host?value1&value2                            | ! not name=value
          postgresql://host?key=key=value                            | ! not name=value
          postgres://host?dbname=%XXfoo                              | ! has a % that
          postgresql://a%00b                                         | ! has a % that
          postgresql://%zz                                           | ! has a % that
          postgresql://%1                                            | ! has a % that
          postgresql://%                                             | ! has a % that
          postgres://@host                                           | host:5432
          postgres://host:/                                          | host:5432
          postgres://:12345/                                         | ! names no host
          postgres://otheruser@?host=/no/such/directory              | ! names a Unix socket
          postgres://otheruser@/?host=/no/such/directory             | ! names a Unix socket
          postgres://otheruser@:12345?host=/no/such/socket/path      | ! names a Unix socket
          postgres://otheruser@:12345/db?host=/path/to/socket        | ! names a Unix socket
          postgres://:12345/db?host=/path/to/socket                  | ! names a Unix socket
          postgres://:12345?host=/path/to/socket                     | ! names a Unix socket
          postgres://%2Fvar%2Flib%2Fpostgresql/dbname                | ! names a Unix socket
          postgresql://host?sslmode=disable                          | host:5432
          postgresql://host?sslmode=prefer                           | host:5432
          """)
  void urlOfPostgresOwnTestIsReadLikeThereOrRefused(String url, String expected) {
    if (expected.startsWith("!")) {
      IllegalArgumentException refusal =
          assertThrows(IllegalArgumentException.class, () -> DatabaseUrl.parse(url));
      assertTrue(refusal.getMessage().contains(expected.substring(2)), refusal.getMessage());
    } else {
      DatabaseUrl read = DatabaseUrl.parse(url);
      String database = read.dataSource(2).getDatabaseName();
      assertEquals(
          expected,
          String.join(
                  " ",
                  read.hosts().get(0).toString(),
                  database.equals(System.getProperty("user.name")) ? "" : database,
                  read.user(),
                  read.password())
              .strip());
      assertEquals(List.of(), read.warnings());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"\"näme\"/?@:%#&=+\\; ", "o'dd "})
  void userAndDatabaseMayHaveAnyName(String chars) {
    String name = chars + ProcessHandle.current().pid();
    String identifier = '"' + name.replace("\"", "\"\"") + '"';
    String admin = TestPostgres.emptyDatabase();
    TestPostgres.execute(admin, "DROP DATABASE IF EXISTS " + identifier);
    TestPostgres.execute(admin, "DROP ROLE IF EXISTS " + identifier);
    TestPostgres.execute(
        admin, "CREATE ROLE " + identifier + " LOGIN SUPERUSER PASSWORD 'p@/ss?: %'");
    TestPostgres.execute(admin, "CREATE DATABASE " + identifier + " OWNER " + identifier);
    String encoded = URLEncoder.encode(name, StandardCharsets.UTF_8).replace("+", "%20");
    String[] server = TestPostgres.hostAndPort(admin);
    String url =
        "postgresql://%s:p%%40%%2Fss%%3F%%3A%%20%%25@%s:%s/%s"
            .formatted(encoded, server[0], server[1], encoded);

    Migrations.migrate(DatabaseUrl.parse(url));

    assertEquals(
        List.of(name + "|" + name),
        TestPostgres.query(url, "SELECT current_user, current_database()"));
    TestPostgres.execute(admin, "DROP DATABASE " + identifier + " WITH (FORCE)");
    TestPostgres.execute(admin, "DROP ROLE " + identifier);
  }

  @ParameterizedTest
  @CsvSource(
      textBlock =
          """
          sslmode=require,                       sslmode,          require
          channel_binding=require,               channelBinding,   require
          sslmode=require&sslnegotiation=direct, sslNegotiation,   direct
          connect_timeout=3,                     connectTimeout,   3
          'host=h,i',                            connectTimeout,   1
          'host=h,i&connect_timeout=3',          connectTimeout,   3
          application_name=my%20QQ+app,          ApplicationName,  my QQ+app
          target_session_attrs=read-write,       targetServerType, primary
          target_session_attrs=primary,          targetServerType, primary
          target_session_attrs=any,              targetServerType, any
          target_session_attrs=prefer-standby,   targetServerType, preferSecondary
          pgbouncer=true,                        prepareThreshold, 0
          pgbouncer=false,                       prepareThreshold, 5
          fallback_application_name=my,          ApplicationName,  my
          application_name=a&fallback_application_name=b, ApplicationName, a
          load_balance_hosts=random,             loadBalanceHosts, true
          'require_auth=scram-sha-256,md5',      requireAuth,      'scram-sha-256,md5'
          require_auth=!none,                    requireAuth,      !none
          options=-c%20search_path%3DQQ,         options,          -c search_path=QQ
          options=--cluster%3DQQ-1,              options,          --cluster=QQ-1
          options=endpoint%3Dep-QQ-1,            options,
          options=endpoint%3Dep-QQ-1%20-c%20a%3Db, options,        -c a=b
          gssencmode=prefer,                     gssEncMode,       allow
          ssl_min_protocol_version=TLSv1.2,      prepareThreshold, 5
          uselibpqcompat=true,                   prepareThreshold, 5
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
    assertEquals(1000, url.poolTimeoutMillis());
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
    assertEquals(3000, url.poolTimeoutMillis());
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
  }

  /** As the providers' documentation prints them; the direct address, where it is certain. */
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          ep-a-1-pooler.eu-central-1.aws.neon.tech/db              | ep-a-1.eu-central-1.aws.neon.tech:5432
          ep-a-1-pooler.c-2.us-east-2.aws.neon.tech:5432/db        | ep-a-1.c-2.us-east-2.aws.neon.tech:5432
          aws-0-eu-central-1.pooler.supabase.com:6543/postgres     | aws-0-eu-central-1.pooler.supabase.com:5432
          AWS-1-us-east-1.pooler.Supabase.com:6543/postgres        | AWS-1-us-east-1.pooler.Supabase.com:5432
          db.ref.supabase.co:6543/postgres                         | db.ref.supabase.co:5432
          aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true | aws-0-eu-central-1.pooler.supabase.com:5432
          localhost:6543/postgres                                  | unknown
          pgbouncer.x1y2.flympg.net/fly-db                         | direct.x1y2.flympg.net:5432
          pooled.db.prisma.io:5432/                                | db.prisma.io:5432
          p.abc.db.postgresbridge.com:5431/db                      | p.abc.db.postgresbridge.com:5432
          a.postgres.database.azure.com:6432/db                    | a.postgres.database.azure.com:5432
          a.postgres.database.usgovcloudapi.net:6432/db            | a.postgres.database.usgovcloudapi.net:5432
          db-do-user-1-0.b.db.ondigitalocean.com:25061/pool        | unknown
          private-db-do-user-1-0.b.db.ondigitalocean.com:25061/pool | unknown
          x.horizon.psdb.cloud:6432/postgres                       | unknown
          10.1.2.3:6432/app                                        | unknown
          h/app?pgbouncer=true                                     | unknown
          aws-0-eu.pooler.supabase.com:5432/postgres?pgbouncer=true | unknown
          one,two:6432/app                                         | unknown
          h/app?host=ep-a-1-pooler.aws.neon.tech&port=5432         | ep-a-1.aws.neon.tech:5432
          """)
  void poolerIsKnownByItsAddress(String rest, String direct) {
    DatabaseUrl url = DatabaseUrl.parse("postgresql://ada:QQ@" + rest);

    assertTrue(url.isPooled());
    assertEquals(0, url.dataSource(2).getPrepareThreshold());
    assertEquals(List.of(), url.warnings());
    if (direct.equals("unknown")) {
      assertTrue(url.direct().isPooled());
      assertEquals(url.hosts(), url.direct().hosts());
    } else {
      assertFalse(url.direct().isPooled());
      assertEquals(direct, url.direct().hosts().get(0).toString());
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "ep-a-1.eu-central-1.aws.neon.tech/db",
        "db.ref.supabase.co:5432/postgres",
        "aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        "direct.x1y2.flympg.net/fly-db",
        "db.prisma.io:5432/",
        "a.postgres.database.azure.com/db",
        "db-do-user-1-0.b.db.ondigitalocean.com:25060/defaultdb",
        "h:6432/app?pgbouncer=false"
      })
  void databaseItselfIsNoPooler(String rest) {
    DatabaseUrl url = DatabaseUrl.parse("postgresql://ada:QQ@" + rest);

    assertFalse(url.isPooled());
    assertTrue(url.isPoolingKnown()); // the process ids of a provider's proxy prove nothing
    assertEquals(url.hosts(), url.direct().hosts());
  }

  @ParameterizedTest
  @ValueSource(strings = {"h/my-pooler", "h.my-pooler.org/app", "neon.tech.example.com/app"})
  void unknownHostMayBeAPooler(String rest) {
    DatabaseUrl url = DatabaseUrl.parse("postgresql://ada:QQ@" + rest);

    assertFalse(url.isPooled());
    assertFalse(url.isPoolingKnown());
  }

  @ParameterizedTest
  @CsvSource(
      textBlock =
          """
          socketFactory=evil.QQ,     the unknown parameter socketFactory is ignored
          loggerFile=/tmp/QQ,        the unknown parameter loggerFile is ignored
          od%0Ad%1B=QQ,              the unknown parameter od?d? is ignored
          supa=base-pooler.QQ,       the unknown parameter supa is ignored
          statement_cache_size=0,    the unknown parameter statement_cache_size is ignored
          keepalives_idle=30,        the parameter keepalives_idle is ignored
          sslsni=1,                  the parameter sslsni is ignored
          client_encoding=UTF8,      the parameter client_encoding is ignored
          connect_timeout=10,        'connect_timeout is taken as 5 s, the longest that a request waits'
          connect_timeout=0,         'connect_timeout is taken as 5 s, the longest that a request waits'
          pool_timeout=30,           'pool_timeout is taken as 3 s, the longest that a request waits'
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
          postgresql:///app                           | names no host
          postgresql://ada:QQ@/app                    | names no host
          postgresql://ada:QQ@:5432/app               | names no host
          postgresql://ada:QQ@one,,two/app            | names no host
          postgresql://ada:QQ@2001:db8::7/app         | port that is not a number between
          postgresql://ada:QQ@h:QQ/app                | port that is not a number between
          postgresql://ada:QQ@h:0/app                 | port that is not a number between 1 and 65535
          postgresql://ada:QQ@h:65536/app             | port that is not a number between 1 and 65535
          postgresql://ada:QQ@h:99999999999/app       | port that is not a number between
          postgresql://ada:QQ/QQ@h/app                | percent-encode
          postgresql://ada:QQ@h,ada:QQ@g/app          | percent-encode
          postgresql://ada:QQ@010.0.0.1/app           | no valid host
          postgresql://ada:QQ@1.0.0.01/app            | no valid host
          postgresql://ada:12/QQ@h/app                | percent-encode
          postgresql://ada:12/34?QQ@h/app             | percent-encode
          postgresql://ada:QQ@QQ/QQ@h/app             | percent-encode
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
          postgresql://ada:QQ@h/app?pgbouncer=QQ      | unknown value for pgbouncer
          postgresql://ada:QQ@h/app?load_balance_hosts=QQ | unknown value for load_balance_hosts
          postgresql://ada:QQ@h/app?require_auth=QQ   | unknown value for require_auth
          postgresql://ada:QQ@h/app?require_auth=md5,!none | unknown value for require_auth
          POSTGRES://ada:QQ@h/app                     | must look like postgresql://
          postgresql://ada:QQ@h QQ/app                | has no valid host
          postgresql://h?user=a@b&password=QQ         | has no valid host
          postgresql://ada:QQ@one,two:1,three/app?port=1,2 | one port for all hosts
          postgresql://ada:QQ@h/QQ@h                  | percent-encode
          postgresql://ada:12/34?x=QQ@h/app           | percent-encode
          postgresql://ada:QQ@h/app?password=QQ&QQ    | %26 for &
          postgresql://ada:QQ@h/app?password=QQ=      | %3D for =
          postgresql://ada:QQ@localhost/app?host=/cloudsql/p:r:i | names a Unix socket
          postgresql://ada:QQ@%2Fcloudsql%2Fp%3Ar%3Ai/app | names a Unix socket
          postgresql://ada:QQ@h/app?host=@abstract    | names a Unix socket
          postgresql://ada:QQ@h/app?host=             | names no host
          postgresql://ada:QQ@h/app?hostaddr=6.6.6.6QQ | hostaddr, which cannot be used: write the address
          postgresql://ada:QQ@h/app?service=QQ        | service, which cannot be used: write what
          postgresql://ada:QQ@h/app?passfile=QQ       | passfile, which cannot be used
          postgresql://ada:QQ@h/app?replication=database | replication, which cannot be used
          postgresql://ada:QQ@h/app?gssencmode=require | gssencmode, which cannot be used: use sslmode
          postgresql://ada:QQ@h/app?ssl_min_protocol_version=TLSv1.3 | -Djdk.tls.client.protocols
          postgresql://ada:QQ@h/app?sslcrl=QQ         | sslcrl, which cannot be used
          postgresql://ada:QQ@h/app?sslpassword=QQ    | sslpassword, which cannot be used
          postgresql://ada:QQ@h/app?sslidentity=QQ    | sslidentity, which cannot be used
          postgresql://ada:QQ@h/app?search_path=QQ    | search_path, which cannot be used: write schema
          postgresql://ada:QQ@h/app?SSLMODE=QQ        | unknown parameter SSLMODE: write sslmode
          postgresql://ada:QQ@h/app?ssl-ca=QQ         | unknown parameter ssl-ca: write sslmode
          postgresql://ada:QQ@h/app?requiressl=1      | unknown parameter requiressl: write sslmode
          postgresql://ada:QQ@h/app?tlsMode=QQ        | unknown parameter tlsMode: write sslmode
          postgresql://ada:QQ@h/app?applicationName=QQ | applicationName: write application_name
          postgresql://ada:QQ@h/app?pasword=QQ        | unknown parameter pasword: write password
          postgresql://ada:QQ@h/app?servce=QQ         | unknown parameter servce: write what the service file
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
