package com.realmeet.server.database;

import java.sql.Array;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;

/**
 * Enables row level security on tables of migrations if the roles {@code anon} or {@code
 * authenticated} exist. Supabase's public API uses these roles, and Supabase's default privileges
 * let them read and change every new table. If a migration does not enable row level security on a
 * table itself, their privileges on it are revoked.
 *
 * <p>Privileges on a table that already has row level security are not changed, so that later
 * grants and policies of an application persist.
 */
final class RowSecurity {
  /**
   * Selects relations of the current schema, and the current role's own ones in all schemas, since
   * a migration may name another one; those of extensions are left out.
   */
  private static final String RELATIONS =
      """
      SELECT c.oid
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname !~ '^(pg_|information_schema$)'
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND (n.nspname = current_schema() OR pg_get_userbyid(c.relowner) = current_user)
        AND NOT EXISTS (
          SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
      """;

  private static final String TABLES =
      """
      SELECT oid
      FROM pg_class
      WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
      """;

  private static final String HAS_API_ROLES =
      "SELECT to_regrole('anon') IS NOT NULL OR to_regrole('authenticated') IS NOT NULL";

  /** Selects the table of users. */
  static final String USERS = TABLES + "AND relname = 'users'";

  /** Selects the server's own tables. */
  static final String OWN_TABLES =
      TABLES + "AND relname IN ('users', '" + Migrations.HISTORY + "')";

  /**
   * Generates the statement that lets the roles of a row {@code policy} (oid, name, roles) see all
   * rows of its table: roles that our policy already has stay in it.
   */
  private static final String POLICY =
      """
      (SELECT format('%s POLICY real_meet_server ON %s TO %s USING (true)',
          CASE count(*) WHEN 0 THEN 'CREATE' ELSE 'ALTER' END, policy.name,
          concat_ws(', ', string_agg(quote_ident(pg_get_userbyid(role)), ', '), policy.roles))
        FROM pg_policy p, unnest(p.polroles) role
        WHERE p.polrelid = policy.oid AND p.polname = 'real_meet_server')\
      """;

  /**
   * Generates statements that revoke the privileges of the API's roles on relations, and policies
   * that let other privileged roles, such as a server's role that is not the owner, see the rows as
   * before. Policies of the application do not count where row level security was off: they had no
   * effect until now. Views need a REVOKE, too: they run with their owner's rights and so bypass
   * row level security; a sequence is handled like its table.
   */
  private static final String STATEMENTS =
      """
      WITH api AS (
        SELECT oid, rolname
        FROM pg_roles
        WHERE rolname IN ('anon', 'authenticated')
      ), relation AS (
        SELECT c.*, c.oid::regclass AS name,
          CASE WHEN c.relkind IN ('r', 'p') THEN NOT c.relrowsecurity
            WHEN c.relkind = 'v' THEN NOT coalesce(
              c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false)
            WHEN c.relkind = 'S' THEN NOT EXISTS (
              SELECT
              FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
              WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND t.relrowsecurity)
            ELSE true
          END AS is_open
        FROM pg_class c
        WHERE c.oid = ANY (?) AND pg_has_role(c.relowner, 'USAGE')
      ), acl AS (
        SELECT oid, relacl AS items FROM relation
        UNION ALL
        SELECT attrelid, attacl FROM pg_attribute WHERE attrelid IN (SELECT oid FROM relation)
      ), reader AS ( -- roles with privileges whom row level security stops, or would stop
        SELECT DISTINCT r.oid, r.name, g.rolname
        FROM relation r
          JOIN acl USING (oid)
          CROSS JOIN aclexplode(acl.items) a
          JOIN pg_roles g ON g.oid = a.grantee
        WHERE r.relkind IN ('r', 'p')
          AND (r.is_open OR r.relname = '@HISTORY@' OR a.privilege_type = 'INSERT')
          AND g.oid != r.relowner
          AND NOT g.rolsuper
          AND NOT g.rolbypassrls
          AND NOT EXISTS (SELECT FROM api WHERE pg_has_role(api.oid, g.oid, 'MEMBER'))
          AND NOT EXISTS (
            SELECT
            FROM pg_policy p
            WHERE p.polrelid = r.oid AND p.polroles && ARRAY[0::oid, g.oid]
              AND (NOT r.is_open OR p.polname = 'real_meet_server'))
      ), policy AS (
        SELECT oid, name, string_agg(quote_ident(rolname), ', ' ORDER BY rolname) AS roles
        FROM reader
        GROUP BY 1, 2
      )
      SELECT format('REVOKE ALL ON %s%s FROM PUBLIC, %s', CASE relkind WHEN 'S' THEN 'SEQUENCE ' END, name,
        (SELECT string_agg(quote_ident(rolname), ', ') FROM api))
      FROM relation
      WHERE is_open
      UNION ALL
      SELECT format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name)
      FROM relation
      WHERE is_open AND relkind IN ('r', 'p')
      UNION ALL
      SELECT @POLICY@
      FROM policy
      """
          .replace("@POLICY@", POLICY)
          .replace("@HISTORY@", Migrations.HISTORY);

  /**
   * Finds the server's tables some of whose rows the current role may not see, since no policy
   * shows it all rows, with the statement that their owner must run.
   */
  private static final String HIDDEN =
      """
      SELECT format('row level security hides rows of the table %s from the role %s: as its owner, run %s',
        name, roles, @POLICY@)
      FROM (
        SELECT oid, oid::regclass AS name, quote_ident(current_user) AS roles
        FROM pg_class
        WHERE oid = ANY (?)
      ) policy
      WHERE row_security_active(oid)
        AND NOT EXISTS (
          SELECT
          FROM pg_policy p, unnest(p.polroles) role
          WHERE p.polrelid = policy.oid
            AND p.polpermissive AND p.polcmd IN ('*', 'r') AND pg_get_expr(p.polqual, p.polrelid) = 'true'
            AND CASE role WHEN 0 THEN true ELSE pg_has_role(role, 'USAGE') END)
      """
          .replace("@POLICY@", POLICY);

  /** Relations at the start, or when new ones were last secured. */
  private List<Long> before;

  /**
   * Reads which relations there are.
   *
   * @param connection with the schema of the tables as its current schema
   */
  RowSecurity(Connection connection) throws SQLException {
    before = oids(connection, RELATIONS);
  }

  /**
   * Secures what a migration has made, in its transaction, so that no other session sees unsecured
   * tables. The history table is secured later: Flyway writes to it on another connection
   * meanwhile.
   */
  void secureMigration(Connection connection) throws SQLException {
    secureNew(connection, USERS); // 1.0.0 made it
  }

  /**
   * Secures what scripts of Flyway such as {@code afterMigrate.sql} have made since the last
   * migration, and the server's own tables, which are open after a restore from another host's
   * dump, for example.
   *
   * @param connection within a transaction, with the schema of the tables as its current schema
   */
  void secureRest(Connection connection) throws SQLException {
    secureNew(connection, OWN_TABLES);
  }

  /**
   * Returns a sentence for each of the server's tables some of whose rows the current role may not
   * see, with the statement that makes them visible.
   *
   * @param tables {@link #USERS} or {@link #OWN_TABLES}
   */
  static List<String> hiddenTables(Connection connection, String tables) throws SQLException {
    return texts(connection, HIDDEN, oids(connection, tables));
  }

  /**
   * Secures new relations of the application.
   *
   * @param own selects the server's tables to secure, whether new or not
   */
  private void secureNew(Connection connection, String own) throws SQLException {
    if (Migrations.query(connection, HAS_API_ROLES).equals("f")) {
      return; // planning STATEMENTS takes Postgres twenty times as long as this check
    }
    List<Long> relations = oids(connection, RELATIONS);
    List<Long> made = new ArrayList<>(relations);
    made.removeAll(before);
    made.removeAll(oids(connection, OWN_TABLES));
    made.addAll(oids(connection, own));
    for (String sql : texts(connection, STATEMENTS, made)) {
      Migrations.execute(connection, sql);
    }
    before = relations;
  }

  private static List<Long> oids(Connection connection, String query) throws SQLException {
    List<Long> oids = new ArrayList<>();
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(query)) {
      while (rows.next()) {
        oids.add(rows.getLong(1));
      }
    }
    return oids;
  }

  private static List<String> texts(Connection connection, String query, List<Long> oids)
      throws SQLException {
    List<String> texts = new ArrayList<>();
    Array array = connection.createArrayOf("oid", oids.toArray());
    try (PreparedStatement statement = connection.prepareStatement(query)) {
      statement.setArray(1, array);
      try (ResultSet rows = statement.executeQuery()) {
        while (rows.next()) {
          texts.add(rows.getString(1));
        }
      }
    }
    return texts;
  }
}
