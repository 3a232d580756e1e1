package com.realmeet.server.database;

import static com.realmeet.server.core.CheckLine.fail;
import static com.realmeet.server.core.CheckLine.ok;
import static com.realmeet.server.core.CheckLine.warn;

import com.realmeet.server.core.CheckLine;
import com.realmeet.server.core.Threads;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.flywaydb.core.api.FlywayException;
import org.flywaydb.core.api.MigrationInfo;
import org.jdbi.v3.core.ConnectionException;
import org.jdbi.v3.core.Handle;

/**
 * Checks Postgres for the command {@code check}: connections, rights, migrations and row security.
 */
public final class DatabaseCheck implements AutoCloseable {
  /** Oldest major version of Postgres on which the migrations are tested. */
  private static final int MIN_VERSION = 14;

  private static final String SERVER =
      """
      SELECT current_setting('server_version') AS version,
        current_setting('server_version_num')::int / 10000 AS major,
        current_setting('server_encoding') AS encoding,
        pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool AS is_read_only
      """;

  /** Identifies a database: start time of its server, and object id. */
  private static final String IDENTITY =
      """
      SELECT concat_ws(' ', pg_postmaster_start_time(), oid)
      FROM pg_database
      WHERE datname = current_database()
      """;

  /**
   * Generates GRANT statements for the rights that the role lacks. Rights on all columns are
   * equivalent to rights on the table.
   */
  private static final String MISSING_RIGHTS =
      """
      SELECT format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.oid = to_regclass('users') AND NOT has_schema_privilege(n.oid, 'USAGE')
      UNION ALL
      SELECT format('GRANT %s ON %s TO %I', string_agg(privilege, ', '), to_regclass('users'), current_user)
      FROM (VALUES
        ('SELECT', ARRAY['id', 'email', 'name', 'image_url', 'created_at', 'updated_at', 'clerk_updated_at', 'deleted_at', 'clerk_fields']),
        ('INSERT', ARRAY['id', 'email', 'name', 'image_url', 'clerk_updated_at', 'deleted_at', 'clerk_fields']),
        ('UPDATE', ARRAY['id', 'email', 'name', 'image_url', 'clerk_updated_at', 'deleted_at', 'clerk_fields'])
      ) AS needed (privilege, columns)
      WHERE EXISTS (
        SELECT
        FROM pg_attribute
        WHERE attrelid = to_regclass('users') AND attname = ANY (columns)
          AND NOT has_column_privilege(attrelid, attnum, privilege))
      HAVING count(*) > 0
      """;

  /** True for a role {@code r} of Supabase's public API that may use the relation {@code c}. */
  private static final String HAS_RIGHTS =
      """
      r.rolname IN ('anon', 'authenticated')
        AND (has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')
          OR has_table_privilege(r.oid, c.oid, 'DELETE, TRUNCATE'))\
      """;

  /**
   * Finds rights of the roles of Supabase's public API on the server's tables, with their policies.
   */
  private static final String API_RIGHTS =
      """
      SELECT c.oid::regclass AS name, r.rolname AS role, c.relrowsecurity AS is_secured,
        (SELECT string_agg(quote_ident(p.polname), ', ' ORDER BY p.polname)
         FROM pg_policy p
         WHERE p.polrelid = c.oid
           AND EXISTS (
             SELECT
             FROM unnest(p.polroles) role
             WHERE CASE role WHEN 0 THEN true ELSE pg_has_role(r.oid, role, 'MEMBER') END)) AS policies
      FROM pg_class c CROSS JOIN pg_roles r
      WHERE c.oid IN (to_regclass('users'), to_regclass('@HISTORY@'))
        AND @HAS_RIGHTS@
      ORDER BY 3, 1, 2
      """
          .replace("@HAS_RIGHTS@", HAS_RIGHTS)
          .replace("@HISTORY@", Migrations.HISTORY);

  /**
   * Finds tables of the application that roles of the public API may use without row level
   * security, such as those of a dump of another host.
   */
  private static final String OPEN_TABLES =
      """
      SELECT c.oid::regclass
      FROM pg_class c
      WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
        AND c.relname NOT IN ('users', '@HISTORY@')
        AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND pg_has_role(c.relowner, 'USAGE')
        AND EXISTS (
          SELECT
          FROM pg_roles r
          WHERE @HAS_RIGHTS@)
      ORDER BY 1
      """
          .replace("@HAS_RIGHTS@", HAS_RIGHTS)
          .replace("@HISTORY@", Migrations.HISTORY);

  /**
   * Finds views that access {@code users}, directly or through other views, by the rights of their
   * owner, although roles of the public API or all roles may use them; with the statement that ends
   * that. A view with {@code security_invoker} (Postgres 15), and one that reads only such views,
   * has the rights of its user; a materialized view always shows what its owner sees.
   */
  private static final String OPEN_VIEWS =
      """
      WITH RECURSIVE source AS (
        SELECT DISTINCT r.ev_class AS oid, d.refobjid AS source
        FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
          AND r.ev_class != d.refobjid
      ), view AS (
        SELECT oid, relnamespace, oid::regclass AS name, relkind = 'v' AS is_plain,
          coalesce((SELECT bool_or(CASE option_name WHEN 'security_invoker' THEN option_value::bool END)
            FROM pg_options_to_table(reloptions)), false) AS is_invoker
        FROM pg_class
        WHERE relkind IN ('v', 'm')
      ), path AS (
        SELECT oid, is_invoker
        FROM view JOIN source USING (oid)
        WHERE source = to_regclass('users')
        UNION
        SELECT v.oid, v.is_plain AND (v.is_invoker OR path.is_invoker)
        FROM path JOIN source s ON s.source = path.oid JOIN view v ON v.oid = s.oid
      )
      SELECT format('%s on %s', roles, name),
        CASE WHEN is_plain AND current_setting('server_version_num')::int >= 150000
          THEN format('ALTER VIEW %s SET (security_invoker = true)', name)
          ELSE format('REVOKE ALL ON %s FROM %s', name, roles)
        END
      FROM view CROSS JOIN LATERAL (
        SELECT string_agg(role, ', ' ORDER BY role) AS roles
        FROM (SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') UNION SELECT 'public') AS r (role)
        WHERE has_schema_privilege(role, relnamespace, 'USAGE')
          AND (has_any_column_privilege(role, view.oid, 'SELECT, INSERT, UPDATE')
            OR has_table_privilege(role, view.oid, 'DELETE'))) AS users
      WHERE oid IN (SELECT oid FROM path WHERE NOT is_invoker) AND roles IS NOT NULL
      ORDER BY name::text
      """;

  private static final String HAS_API_ROLES =
      "EXISTS (SELECT FROM pg_roles WHERE rolname IN ('anon', 'authenticated'))";

  /**
   * Condition that the role may run a migration that changes {@code users}, also on an empty
   * database.
   */
  private static final String MAY_MIGRATE =
      """
      coalesce(has_schema_privilege(to_regnamespace(quote_ident(current_schema())), 'CREATE'),
          has_database_privilege(current_database(), 'CREATE'))
        AND NOT EXISTS (
          SELECT
          FROM pg_class
          WHERE oid IN (to_regclass('users'), to_regclass('@HISTORY@'))
            AND NOT pg_has_role(relowner, 'USAGE'))
      """
          .replace("@HISTORY@", Migrations.HISTORY);

  private static final String MIGRATIONS_TO_REPEAT =
      "SELECT version FROM " + Migrations.HISTORY + " WHERE " + Migrations.TO_REPEAT;

  private record Server(String version, int major, String encoding, boolean isReadOnly) {}

  private final DatabaseUrl url;
  private final DatabaseUrl directUrl;
  private final Consumer<CheckLine> lines;
  private final ReadOnlyDatabase serving;

  /** Database of DIRECT_URL; the same object as {@link #serving} if the URLs are the same. */
  private final ReadOnlyDatabase direct;

  /**
   * Connects to both databases concurrently, within 5 s.
   *
   * @param url DATABASE_URL
   * @param directUrl DIRECT_URL
   * @param lines receives the results
   */
  public DatabaseCheck(DatabaseUrl url, DatabaseUrl directUrl, Consumer<CheckLine> lines) {
    this.url = url;
    this.directUrl = directUrl;
    this.lines = lines;
    boolean same =
        url.hosts().equals(directUrl.hosts())
            && url.database().equals(directUrl.database())
            && url.user().equals(directUrl.user())
            && url.password().equals(directUrl.password())
            && url.properties().equals(directUrl.properties())
            && Objects.equals(url.schema(), directUrl.schema());
    CompletableFuture<ReadOnlyDatabase> other =
        same ? null : Threads.supply(() -> connect("direct", "DIRECT_URL", directUrl));
    serving = connect("database", "DATABASE_URL", url);
    direct = same ? serving : Threads.join(other);
  }

  private ReadOnlyDatabase connect(String subject, String variable, DatabaseUrl url) {
    try {
      return new ReadOnlyDatabase(url);
    } catch (SQLException e) {
      String problem = SqlErrors.isLoginRefused(e) ? " refuses the login" : " cannot be reached";
      lines.accept(
          fail(
              subject,
              "the database at "
                  + url
                  + problem
                  + ", see "
                  + variable
                  + ": "
                  + SqlErrors.whyUnavailable(e)));
      return null;
    }
  }

  /** Returns the database of DATABASE_URL, or null if it cannot be reached. */
  public ReadOnlyDatabase serving() {
    return serving;
  }

  /** Checks the databases that could be reached. */
  public void run() {
    if (serving != null) {
      serving.check("database", lines, this::server);
      serving.check("pooler", lines, handle -> pooler());
    }
    if (direct != null && direct != serving) {
      direct.check("direct", lines, this::direct);
    }
    if (direct != null) {
      direct.check("migrations", lines, this::migrations);
    }
    if (serving != null) {
      serving.check("rights", lines, DatabaseCheck::rights);
      serving.check("row security", lines, this::rowSecurity);
      serving.check("time zone", lines, DatabaseCheck::timeZone);
    }
  }

  private CheckLine server(Handle handle) {
    Server server =
        handle
            .createQuery(SERVER)
            .map(
                (row, ctx) ->
                    new Server(
                        row.getString(1), row.getInt(2), row.getString(3), row.getBoolean(4)))
            .one();
    String sentence = "%s responds, Postgres %s".formatted(url, server.version);
    if (server.isReadOnly) {
      return fail(
          "database",
          sentence
              + ", but it is read-only, a standby for example: name the primary in DATABASE_URL, or"
              + " add target_session_attrs=read-write");
    }
    if (server.major < MIN_VERSION) {
      return warn(
          "database",
          sentence + ", on which this server is not tested: use " + MIN_VERSION + " or later");
    }
    if (!server.encoding.equals("UTF8")) {
      return warn(
          "database",
          sentence
              + ", but has the encoding "
              + server.encoding
              + ": users whose names have other letters are not stored, make a database with UTF8");
    }
    return ok("database", sentence);
  }

  private CheckLine pooler() {
    if (url.isPooled()) {
      return ok(
          "pooler",
          "DATABASE_URL is known to lead through a pooler: no statements are prepared in Postgres");
    }
    if (!url.isPoolingKnown() && serving.isBehindPooler()) {
      return warn(
          "pooler",
          "DATABASE_URL leads through a pooler, which its host and port do not tell: add"
              + " pgbouncer=true to it, and set DIRECT_URL to the direct host");
    }
    return ok("pooler", "DATABASE_URL leads straight to Postgres");
  }

  private static CheckLine rights(Handle handle) {
    if (!isTrue(handle, "to_regclass('users') IS NOT NULL")) {
      return null; // UsersCheck adds a line about that
    }
    List<String> missing = handle.createQuery(MISSING_RIGHTS).mapTo(String.class).list();
    return missing.isEmpty()
        ? ok("rights", "the role of DATABASE_URL may read and write users")
        : fail(
            "rights",
            "the role of DATABASE_URL lacks rights: as the owner of the table, run "
                + String.join("; ", missing));
  }

  private record ApiRight(String table, String role, boolean isSecured, String policies) {
    @Override
    public String toString() {
      return role + " on " + table + (policies == null ? "" : " by the policy " + policies);
    }
  }

  /** Returns the tables whose rows the role cannot see, each with the statement to run. */
  private static List<String> hidden(Handle handle, String tables) {
    try {
      return RowSecurity.hiddenTables(handle.getConnection(), tables);
    } catch (SQLException e) {
      throw new ConnectionException(e);
    }
  }

  /** Adds a line for each problem; returns a line only if there is none. */
  private CheckLine rowSecurity(Handle handle) {
    List<ApiRight> rights =
        handle
            .createQuery(API_RIGHTS)
            .map(
                (row, ctx) ->
                    new ApiRight(
                        row.getString(1), row.getString(2), row.getBoolean(3), row.getString(4)))
            .list();
    List<ApiRight> granted = select(rights, right -> right.isSecured && right.policies != null);
    List<CheckLine> problems =
        Stream.of(
                hiddenRows(handle),
                openOwnTables(select(rights, right -> !right.isSecured)),
                anonymousRights(select(granted, right -> right.role.equals("anon"))),
                openTables(handle),
                openViews(handle))
            .filter(Objects::nonNull)
            .toList();
    problems.forEach(lines);
    if (!problems.isEmpty()) {
      return null;
    }
    if (!granted.isEmpty()) {
      return ok("row security", "rights that somebody gave the public API: " + join(granted));
    }
    return ok(
        "row security",
        isTrue(handle, HAS_API_ROLES)
            ? "the public API's roles anon and authenticated cannot see tables of this server"
            : "there are no roles anon and authenticated of a public API");
  }

  private static CheckLine hiddenRows(Handle handle) {
    // only the role of DIRECT_URL needs the history, see migrations()
    List<String> hidden = hidden(handle, RowSecurity.USERS);
    return hidden.isEmpty() ? null : fail("row security", String.join("; ", hidden));
  }

  private static CheckLine openOwnTables(List<ApiRight> open) {
    return open.isEmpty()
        ? null
        : fail(
            "row security",
            "whoever has the public key of the project can use tables of this server ("
                + join(open)
                + "): make migrate, as their owner, closes them");
  }

  private static CheckLine anonymousRights(List<ApiRight> anonymous) {
    return anonymous.isEmpty()
        ? null
        : warn(
            "row security",
            "people who are not signed in have rights that somebody gave them ("
                + join(anonymous)
                + "): drop the policy unless its rows are for everybody");
  }

  private static CheckLine openTables(Handle handle) {
    List<String> tables = handle.createQuery(OPEN_TABLES).mapTo(String.class).list();
    return tables.isEmpty()
        ? null
        : warn(
            "row security",
            "whoever has the public key of the project can use tables without row level security ("
                + join(tables)
                + "): unless they are for everybody, run ALTER TABLE ... ENABLE ROW LEVEL SECURITY");
  }

  private static CheckLine openViews(Handle handle) {
    Map<String, String> views = new LinkedHashMap<>();
    handle
        .createQuery(OPEN_VIEWS)
        .map((row, ctx) -> views.put(row.getString(1), row.getString(2)))
        .list();
    return views.isEmpty()
        ? null
        : warn(
            "row security",
            "views lead past the row level security of users ("
                + String.join("; ", views.keySet())
                + "): unless all that they show is for everybody, run "
                + String.join("; ", views.values()));
  }

  private static List<ApiRight> select(List<ApiRight> rights, Predicate<ApiRight> condition) {
    return rights.stream().filter(condition).toList();
  }

  private static String join(List<?> list) {
    return list.stream().map(String::valueOf).collect(Collectors.joining(", "));
  }

  private static CheckLine timeZone(Handle handle) {
    String problem;
    try {
      problem = Migrations.timeZoneProblem(handle.getConnection());
    } catch (SQLException e) {
      throw new ConnectionException(e);
    }
    return problem.isEmpty()
        ? ok("time zone", "sessions have UTC")
        : warn(
            "time zone",
            problem + "; this server does not mind, but a Prisma client that still runs does");
  }

  private CheckLine direct(Handle handle) {
    if (serving != null && !identity(handle).equals(serving.read(DatabaseCheck::identity))) {
      return warn(
          "direct",
          "DIRECT_URL leads to another database, or another server of it, than DATABASE_URL:"
              + " migrations must change the table that requests use");
    }
    String schema = schema(handle);
    String servingSchema = serving == null ? null : serving.read(DatabaseCheck::schema);
    if (schema != null && servingSchema != null && !schema.equals(servingSchema)) {
      return warn(
          "direct",
          "DIRECT_URL leads to the schema %s, DATABASE_URL to %s: add ?schema=%2$s to DIRECT_URL"
              .formatted(schema, servingSchema));
    }
    if (directUrl.isPooled() || !directUrl.isPoolingKnown() && direct.isBehindPooler()) {
      return warn(
          "direct",
          "DIRECT_URL leads through a pooler, which does no harm in session mode only: name the"
              + " direct host");
    }
    return ok("direct", "migrations go straight to " + directUrl);
  }

  /** Returns the current schema; null if there is none, or the role may not use it. */
  private static String schema(Handle handle) {
    return handle
        .createQuery("SELECT current_schema()")
        .mapTo(String.class)
        .findFirst()
        .orElse(null);
  }

  private static String identity(Handle handle) {
    return handle.createQuery(IDENTITY).mapTo(String.class).one();
  }

  private CheckLine migrations(Handle handle) {
    List<String> hidden = hidden(handle, RowSecurity.OWN_TABLES);
    if (!hidden.isEmpty()) {
      return fail("migrations", String.join("; ", hidden));
    }
    Set<String> repeated = toRepeat(handle);
    boolean mayMigrate = isTrue(handle, MAY_MIGRATE);
    MigrationInfo[] all;
    try {
      all = Migrations.compare(direct.asDataSource(), directUrl);
    } catch (FlywayException e) {
      SQLException cause = SqlErrors.sqlException(e);
      return fail(
          "migrations",
          cause == null ? SqlErrors.oneLine(e.getMessage()) : SqlErrors.whyUnavailable(cause));
    }
    List<String> pending = new ArrayList<>();
    List<String> newer = new ArrayList<>();
    String version = "0";
    for (MigrationInfo each : all) {
      String name = Migrations.name(each);
      Optional<String> problem = Migrations.problem(each, directUrl);
      if (repeated.contains(name) || !each.isApplied() && each.getState().isResolved()) {
        pending.add(name);
      } else if (problem.isPresent()) {
        return fail("migrations", problem.get());
      } else if (!each.getState().isResolved() && each.isVersioned()) {
        newer.add(name);
      }
      version = each.isApplied() && each.isVersioned() ? name : version;
    }
    return verdict(mayMigrate, version, pending, newer);
  }

  private static CheckLine verdict(
      boolean mayMigrate, String version, List<String> pending, List<String> newer) {
    String state = version.equals("0") ? "none has run yet" : "the table is at version " + version;
    if (!pending.isEmpty() && !mayMigrate) {
      return fail(
          "migrations",
          state
              + ", "
              + String.join(", ", pending)
              + " must run and the role of DIRECT_URL may not: set DIRECT_URL to the role that owns"
              + " the tables and may CREATE in their schema");
    }
    if (!pending.isEmpty()) {
      return warn(
          "migrations",
          state
              + ", "
              + String.join(", ", pending)
              + " must run: the next start does so, or make migrate");
    }
    if (!newer.isEmpty()) {
      return warn(
          "migrations",
          state
              + ", this server does not have "
              + String.join(", ", newer)
              + ": a newer release has run here, use that");
    }
    return ok("migrations", state + ", which is this server's");
  }

  private static Set<String> toRepeat(Handle handle) {
    return isTrue(handle, "to_regclass('" + Migrations.HISTORY + "') IS NOT NULL")
        ? Set.copyOf(handle.createQuery(MIGRATIONS_TO_REPEAT).mapTo(String.class).list())
        : Set.of();
  }

  private static boolean isTrue(Handle handle, String condition) {
    return handle.createQuery("SELECT " + condition).mapTo(boolean.class).one();
  }

  @Override
  public void close() {
    if (serving != null) {
      serving.close();
    }
    if (direct != null) {
      direct.close();
    }
  }
}
