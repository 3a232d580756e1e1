package com.realmeet.server.database;

import java.net.NoRouteToHostException;
import java.net.SocketTimeoutException;
import java.net.UnknownHostException;
import java.sql.SQLException;
import java.sql.SQLTransientConnectionException;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.SSLException;
import org.jdbi.v3.core.JdbiException;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/**
 * Classifies errors of Postgres, poolers, pgjdbc and HikariCP by SQLSTATE, and explains them in one
 * line. No text of this class quotes a value of a row, or a password.
 *
 * @see <a href="https://www.postgresql.org/docs/current/errcodes-appendix.html">SQLSTATEs</a>
 */
public final class SqlErrors {
  /** read_only_sql_transaction: the server is a standby, or read-only for another reason. */
  static final String READ_ONLY = "25006";

  /**
   * SQLSTATEs of a prepared statement whose name another client uses, or that is on another
   * connection.
   */
  private static final Set<String> PREPARED_STATEMENT_LOST = Set.of("42P05", "26000");

  /** feature_not_supported. */
  private static final String NOT_SUPPORTED = "0A000";

  /** SQLSTATEs of transient errors: the same statement may succeed on another connection. */
  private static final Set<String> TRANSIENT =
      Set.of("57P01", "57P02", "57P03", "25P03", "40001", "40P01", READ_ONLY);

  /** The only SQLSTATE of PgBouncer's own errors, whose messages are always English. */
  private static final String PROTOCOL_VIOLATION = "08P01";

  private static final Pattern PREPARED_STATEMENT =
      Pattern.compile("prepared statement|\"S_\\d+\"");
  private static final Pattern LOGIN_REFUSED =
      Pattern.compile("authentication failed|no such (user|database)|SASL|password");
  private static final Pattern UNREACHABLE =
      Pattern.compile(
          "(?i)network is (unreachable|down)|no route to host|address family|protocol family|"
              + "cannot assign requested address");

  /** Matches the columns or expressions of an index in "Key (lower(email))=(…) already exists". */
  private static final Pattern KEY = Pattern.compile("^[^(]*\\((.*?)\\)=\\(", Pattern.DOTALL);

  /**
   * Matches the line of an error's context that names the innermost function of the application:
   * "PL/pgSQL function audit() line 3 at SQL statement". Other lines may quote source text and
   * values. Servers with messages in other languages than English have no such line.
   */
  private static final Pattern FUNCTION =
      Pattern.compile(
          "(?m)^(?!.*real_meet_server_)(in |compilation of )?(PL/\\w+ function|SQL function) .*$");

  /** Matches such a line if the failing SQL is in the function's source, not built by it. */
  private static final Pattern STATIC_SQL =
      Pattern.compile(" at (SQL statement|PERFORM|assignment)$");

  private static final String NO_RESPONSE =
      "no response within the time limit: it is stopped, overloaded, or the network is cut";

  /** SQLSTATEs whose messages quote names and types only. */
  private static final Set<String> QUOTABLE =
      Set.of("22001", "42501", "42P01", "42703", "42883", NOT_SUPPORTED);

  /**
   * The database reports success, but a BEFORE trigger of the application has skipped the row by
   * returning NULL.
   */
  public static final class RowSuppressed extends JdbiException {
    /** For the table {@code users}. */
    public RowSuppressed() {
      super("a trigger of the application on the table users suppressed the row");
    }
  }

  private SqlErrors() {}

  /** Returns the first SQLException in a chain of causes, or null. */
  static SQLException sqlException(Throwable e) {
    for (Throwable cause = e; cause != null; cause = cause.getCause()) {
      if (cause instanceof SQLException found) {
        return found;
      }
    }
    return null;
  }

  /** Returns true if a retry on another connection may succeed. */
  static boolean isTransient(SQLException e) {
    String state = state(e);
    return state.startsWith("08")
        || TRANSIENT.contains(state)
        || isPreparedStatementLost(e)
        || isPlanStale(e);
  }

  /** Returns true for "cached plan must not change result type", which a migration causes. */
  private static boolean isPlanStale(SQLException e) {
    return e instanceof PSQLException postgres
        && state(e).equals(NOT_SUPPORTED)
        && postgres.getServerErrorMessage() != null
        && "RevalidateCachedQuery".equals(postgres.getServerErrorMessage().getRoutine());
  }

  /** Returns true if the database, rather than the statement or its data, is at fault. */
  static boolean isUnavailable(SQLException e) {
    return e != null
        && (e.getSQLState() == null
            || isTransient(e) && !isPlanStale(e)
            || state(e).matches("(28|3D|53|57|58|XX|HY).*"));
  }

  /**
   * Returns true if the transaction was certainly rolled back because of concurrent ones
   * (serialization failure or deadlock).
   */
  static boolean isRolledBack(SQLException e) {
    return Set.of("40001", "40P01").contains(state(e));
  }

  /**
   * Returns true if the statement was cancelled, usually by {@link StatementCanceller} after a
   * timeout.
   */
  public static boolean isCancelled(Throwable e) {
    return state(sqlException(e)).equals("57014");
  }

  /**
   * Returns true if a pooler in transaction mode has sent a prepared statement to a connection that
   * does not have it.
   */
  static boolean isPreparedStatementLost(SQLException e) {
    return PREPARED_STATEMENT_LOST.contains(state(e))
        || state(e).equals(PROTOCOL_VIOLATION) && PREPARED_STATEMENT.matcher(message(e)).find();
  }

  /** Returns true if user, password, database or TLS are wrong, so that a retry cannot succeed. */
  public static boolean isLoginRefused(SQLException e) {
    return state(e).matches("28.*|3D.*|08004")
        || state(e).equals(PROTOCOL_VIOLATION) && LOGIN_REFUSED.matcher(message(e)).find()
        || String.valueOf(connectionProblem(e)).matches(".*(certificate|offer TLS|CA file).*");
  }

  /**
   * Returns true if the database has no connection, memory or disk left (insufficient resources).
   */
  static boolean isFull(SQLException e) {
    return state(e).startsWith("53");
  }

  /**
   * Returns true if the database rejects the values of a statement; other rows may still be
   * accepted.
   */
  public static boolean isOfData(JdbiException e) {
    SQLException cause = sqlException(e);
    return e instanceof RowSuppressed
        || state(cause).matches("(22|23|54|P0).*")
        || cause instanceof PSQLException postgres && isRaised(postgres);
  }

  private static String state(SQLException e) {
    return e == null || e.getSQLState() == null ? "" : e.getSQLState();
  }

  private static String message(SQLException e) {
    return String.valueOf(e.getMessage());
  }

  /**
   * Returns why the database cannot be used, in one line: the cause, what to do, and the SQLSTATE.
   */
  public static String whyUnavailable(SQLException e) {
    SQLException root = e.getCause() instanceof SQLException cause ? cause : e;
    String state = state(root).isEmpty() ? state(e) : state(root);
    return reason(root, state) + (state.isEmpty() ? "" : " (" + state + ")");
  }

  private static String reason(SQLException e, String state) {
    if (e instanceof SQLTransientConnectionException) { // thrown by the pool, without another cause
      return message(e).contains("total=0,")
          ? "no connection could be opened within the time limit"
          : "all connections of the pool (DATABASE_POOL_SIZE) are busy with slow statements";
    }
    String connection = connectionProblem(e);
    if (connection != null) {
      return connection;
    }
    if (isLoginRefused(e) && state.matches("28P01|08P01")) {
      return "user or password is wrong, or the pooler does not know them: " + text(e);
    }
    return switch (state) {
      case "28000" -> "the server refuses this user, database or lack of TLS: " + text(e);
      case "3D000" -> "the database does not exist: " + text(e);
      case "53300", "53400" ->
          "it has no connection left: use a pooler, or lower DATABASE_POOL_SIZE: " + text(e);
      case "53100" -> "its disk is full: " + text(e);
      case "55P03" -> "another session holds the table, see pg_stat_activity: " + text(e);
      case READ_ONLY ->
          "it is read-only, a standby for example: name the primary in DATABASE_URL, or add "
              + "target_session_attrs=read-write";
      case "3F000" -> "the role finds no schema, add schema=public or another: " + text(e);
      case "57014" ->
          "a statement was cancelled, since it took too long: look for locks and "
              + "slow queries in pg_stat_activity";
      default -> text(e);
    };
  }

  /** Explains pgjdbc's "The connection attempt failed"; null if the error is another. */
  private static String connectionProblem(SQLException e) {
    for (Throwable cause = e; cause != null; cause = cause.getCause()) {
      String message = String.valueOf(cause.getMessage());
      if (cause instanceof UnknownHostException) {
        return message.contains("No address associated")
            ? ipv6Only("the host has no IPv4 address")
            : "no such host: DNS does not know its name";
      }
      if (cause instanceof NoRouteToHostException || UNREACHABLE.matcher(message).find()) {
        return ipv6Only("this machine has no route to the host's address");
      }
      if (message.contains("hostnameverifier") || message.contains("hostname verification")) {
        return "the server's TLS certificate is for another host name: name the host that is in "
            + "the certificate";
      }
      if (message.contains("PKIX") || cause instanceof java.security.cert.CertificateException) {
        return "the server's TLS certificate is not signed by an authority that is trusted here: "
            + "name the provider's CA file in sslrootcert";
      }
      if (message.contains("does not support SSL")) {
        return "the server does not offer TLS, which sslmode demands";
      }
      if (message.contains("root certificate file")) {
        return "sslmode asks for a CA file that cannot be read: name the provider's in "
            + "sslrootcert, or sslrootcert=system";
      }
      if (message.contains("SSL required")) { // PgBouncer's
        return "the server demands TLS: add sslmode=require";
      }
      if (message.contains("setting up the SSL connection")
          || message.contains("Session setup failed")) {
        return "what listens there is not Postgres";
      }
      if (message.contains("Socket closed")) { // by StatementCanceller
        return NO_RESPONSE;
      }
      if (cause instanceof SSLException) {
        return "TLS failed: " + oneLine(message);
      }
      if (cause instanceof SocketTimeoutException) {
        return message.toLowerCase().contains("connect")
            ? "no connection within the time limit: a firewall, a wrong host or port, or it is "
                + "still starting"
            : NO_RESPONSE;
      }
      if (cause instanceof java.net.ConnectException && message.contains("refused")) {
        return "nothing listens on that host and port (connection refused)";
      }
    }
    return null;
  }

  private static String ipv6Only(String fact) {
    return fact
        + ": if the host has an IPv6 address only, as Supabase's direct hosts have, and this "
        + "machine has IPv4 only, use the provider's pooler or a network with IPv6";
  }

  /**
   * Returns the message of the server or pgjdbc; for these problems it quotes no row and no
   * password.
   */
  private static String text(SQLException e) {
    return oneLine(message(e));
  }

  /** Returns a message with its line breaks replaced by spaces. */
  static String oneLine(String message) {
    return message.replaceAll("\\s*\\R\\s*", " ");
  }

  /**
   * Returns, in one line, why the database rejects a correct statement: a constraint, a trigger or
   * a function of the application, or missing rights. Empty for other errors such as a missing
   * table or column of the statement itself, which are bugs and need a stack trace.
   */
  public static Optional<String> whyRejected(Throwable e) {
    if (e instanceof RowSuppressed) {
      return Optional.of(
          "The database refuses a statement: "
              + e.getMessage()
              + "; let it return NEW, or raise an exception that says why not");
    }
    if (!(sqlException(e) instanceof PSQLException cause)
        || cause.getServerErrorMessage() == null) {
      return Optional.empty();
    }
    String function = function(cause);
    String state = state(cause);
    String advice =
        switch (isRaised(cause) ? "P0001" : state) {
          case "23502" -> "give the column a DEFAULT or drop its NOT NULL";
          case "23503" -> "the row that it references must be there first, or must stay";
          case "23505", "23P01" -> "another row has that value";
          case "23514" -> "the CHECK must allow what Clerk's users have";
          case "22001" -> "a column is too short: make it text";
          case "54000" -> "a value is too long for an index: make the index on md5(...) of it";
          case "P0001" -> "a trigger or function of the application raised it";
          case "42501" ->
              message(cause).contains("row-level security")
                  ? "add a policy by which the server's role may read and write all rows"
                  : "GRANT the server's role what it lacks; README lists the rights";
          case "22P05" -> "the database's encoding lacks a character: it must be UTF8";
          case NOT_SUPPORTED ->
              message(cause).contains("ON CONFLICT") ? "make the table's rules triggers" : null;
          default ->
              state.startsWith("23")
                  ? "a constraint of the application"
                  : function.isEmpty() ? null : "mend or drop this function of the application";
        };
    return Optional.ofNullable(advice)
        .map(
            text ->
                "The database refuses a statement: %s; %s (%s)"
                    .formatted(what(cause.getServerErrorMessage(), function), text, state));
  }

  /** Returns the function of the application that fails, or an empty text. */
  private static String function(PSQLException e) {
    ServerErrorMessage error = e.getServerErrorMessage();
    String where = error == null ? "" : String.valueOf(error.getWhere());
    Matcher line = FUNCTION.matcher(where);
    if (line.find()) {
      return line.group();
    }
    return where.contains("PL/") && !where.contains("real_meet_server_") ? "a function" : "";
  }

  /** Returns true if a function raised the error by RAISE, with a SQLSTATE of its choice. */
  private static boolean isRaised(PSQLException e) {
    ServerErrorMessage error = e.getServerErrorMessage();
    return error != null && "exec_stmt_raise".equals(error.getRoutine());
  }

  /**
   * Names the constraint, column and table of an error, and the function of the application. A
   * message that may quote a value is left out: of RAISE and its like in other languages, and of an
   * SQL text that a function builds.
   */
  private static String what(ServerErrorMessage error, String function) {
    String in = function.isEmpty() ? "" : " in " + function;
    boolean isStatic = function.isEmpty() || STATIC_SQL.matcher(function).find();
    if (isStatic && QUOTABLE.contains(error.getSQLState())) {
      return error.getMessage() + in;
    }
    StringBuilder names = new StringBuilder();
    append(names, "constraint ", error.getConstraint());
    append(names, "column ", error.getColumn());
    append(names, "table ", error.getTable());
    return names.isEmpty() ? "an exception was raised" + in : names.toString();
  }

  private static void append(StringBuilder names, String kind, String name) {
    if (name != null) {
      names.append(names.isEmpty() ? "" : " of ").append(kind).append(name);
    }
  }

  /**
   * Returns true if the constraint or unique index of that name rejected the statement, for a
   * handler with its own response to that.
   */
  public static boolean violates(JdbiException e, String constraint) {
    return sqlException(e) instanceof PSQLException cause
        && state(cause).startsWith("23")
        && cause.getServerErrorMessage() != null
        && constraint.equals(cause.getServerErrorMessage().getConstraint());
  }

  /**
   * Returns true if another row has the value of a unique column, independent of the index's name
   * and of whether it is partial or on an expression of the column.
   */
  public static boolean isTaken(JdbiException e, String table, String column) {
    if (!(sqlException(e) instanceof PSQLException cause)
        || !Set.of("23505", "23P01").contains(state(cause))
        || cause.getServerErrorMessage() == null
        || !table.equals(cause.getServerErrorMessage().getTable())) {
      return false;
    }
    // Under row level security, Postgres omits the detail, which names the columns.
    String detail = cause.getServerErrorMessage().getDetail();
    Matcher key = KEY.matcher(detail == null ? "" : detail);
    String names = key.find() ? key.group(1) : cause.getServerErrorMessage().getConstraint();
    return names != null // a function of the application may raise the error without names
        && Pattern.compile("(?<![a-zA-Z0-9])" + column + "(?![a-zA-Z0-9])").matcher(names).find();
  }
}
