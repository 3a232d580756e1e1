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
 * Classifies what Postgres, a pooler, pgjdbc and the pool report, by SQLSTATE, and says it in plain
 * words. No text of this class quotes a value of a row, or a password.
 *
 * @see <a href="https://www.postgresql.org/docs/current/errcodes-appendix.html">SQLSTATEs</a>
 */
public final class SqlErrors {
  static final String READ_ONLY = "25006";

  /** A prepared statement of another client has the name, or ours is on another connection. */
  private static final Set<String> PREPARED_STATEMENT_LOST = Set.of("42P05", "26000");

  /** Also of a result type that a migration has changed: "cached plan must not change". */
  private static final String STALE_PLAN = "0A000";

  /** SQLSTATEs of the moment: the same statement may work on another connection. */
  private static final Set<String> TRANSIENT =
      Set.of("57P01", "57P02", "57P03", "40001", "40P01", READ_ONLY, STALE_PLAN);

  /** PgBouncer has only this SQLSTATE for all its own errors, which are always English. */
  private static final String PROTOCOL_VIOLATION = "08P01";

  private static final Pattern PREPARED_STATEMENT =
      Pattern.compile("prepared statement|\"S_\\d+\"");
  private static final Pattern LOGIN_REFUSED =
      Pattern.compile("authentication failed|no such (user|database)|SASL|password");
  private static final Pattern UNREACHABLE =
      Pattern.compile(
          "(?i)network is (unreachable|down)|no route to host|address family|protocol family|"
              + "cannot assign requested address");

  /** Of an index's columns or expressions in "Key (lower(email))=(…) already exists". */
  private static final Pattern KEY = Pattern.compile("^[^(]*\\((.*?)\\)=\\(", Pattern.DOTALL);

  private SqlErrors() {}

  /** The first SQLException in a chain of causes, or null. */
  static SQLException sqlException(Throwable e) {
    for (Throwable cause = e; cause != null; cause = cause.getCause()) {
      if (cause instanceof SQLException found) {
        return found;
      }
    }
    return null;
  }

  /** Whether a second try, on another connection, may succeed. */
  static boolean isTransient(SQLException e) {
    String state = state(e);
    return state.startsWith("08") || TRANSIENT.contains(state) || isPreparedStatementLost(e);
  }

  /** Whether the database, rather than the statement or its data, is at fault. */
  static boolean isUnavailable(SQLException e) {
    return e != null
        && (e.getSQLState() == null
            || isTransient(e) && !state(e).equals(STALE_PLAN)
            || state(e).matches("(25|28|3D|53|57|58|XX|HY).*"));
  }

  /** Whether the transaction was undone for certain, and only by others that ran at once. */
  static boolean isRolledBack(SQLException e) {
    return Set.of("40001", "40P01").contains(state(e));
  }

  /** Whether the statement was cancelled: by us, in most cases, since it took too long. */
  static boolean isCancelled(SQLException e) {
    return state(e).equals("57014");
  }

  /** Whether a pooler in transaction mode has led a prepared statement astray. */
  static boolean isPreparedStatementLost(SQLException e) {
    return PREPARED_STATEMENT_LOST.contains(state(e))
        || state(e).equals(PROTOCOL_VIOLATION) && PREPARED_STATEMENT.matcher(message(e)).find();
  }

  /** Whether user, password, database or TLS are wrong: waiting cures none of them. */
  public static boolean isLoginRefused(SQLException e) {
    return state(e).matches("28.*|3D.*|08004")
        || state(e).equals(PROTOCOL_VIOLATION) && LOGIN_REFUSED.matcher(message(e)).find()
        || String.valueOf(connectionProblem(e)).matches(".*(certificate|offer TLS|CA file).*");
  }

  /** Whether the values of a statement are refused, which those of another row may not be. */
  public static boolean isOfData(JdbiException e) {
    return state(sqlException(e)).matches("(22|23).*|P0001");
  }

  private static String state(SQLException e) {
    return e == null || e.getSQLState() == null ? "" : e.getSQLState();
  }

  private static String message(SQLException e) {
    return String.valueOf(e.getMessage());
  }

  /** Why the database cannot be used, in one line: the cause, what to do, and the SQLSTATE. */
  public static String describe(SQLException e) {
    SQLException root = e.getCause() instanceof SQLException cause ? cause : e;
    String state = state(root).isEmpty() ? state(e) : state(root);
    return reason(root, state) + (state.isEmpty() ? "" : " (" + state + ")");
  }

  private static String reason(SQLException e, String state) {
    if (e instanceof SQLTransientConnectionException) { // the pool's, which has no other cause
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
      case READ_ONLY ->
          "it is read-only, a standby for example: name the primary in DATABASE_URL, or add "
              + "target_session_attrs=read-write";
      case "57014" ->
          "a statement was cancelled, since nobody waits for it any longer: look for locks and "
              + "slow queries in pg_stat_activity";
      default -> text(e);
    };
  }

  /** In plain words, what pgjdbc calls "The connection attempt failed"; null if it is not that. */
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
      if (cause instanceof SSLException) {
        return "TLS failed: " + oneLine(message);
      }
      if (cause instanceof SocketTimeoutException) {
        return message.toLowerCase().contains("connect")
            ? "no connection within the time limit: a firewall, a wrong host or port, or it is "
                + "still starting"
            : "no response within the time limit: it is stopped, overloaded, or the network is cut";
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

  /** What the server or pgjdbc says: of these problems, no message quotes a row or a password. */
  private static String text(SQLException e) {
    return oneLine(message(e));
  }

  static String oneLine(String message) {
    return message.replaceAll("\\s*\\R\\s*", " ");
  }

  /**
   * Why the database refuses a statement that is right by itself: by a constraint or a trigger of
   * the application, or for lack of rights. One line with what to do; empty for anything else, such
   * as a missing table or column, which is a bug whose place in the code matters.
   */
  public static Optional<String> explain(Throwable e) {
    if (!(sqlException(e) instanceof PSQLException cause)
        || cause.getServerErrorMessage() == null) {
      return Optional.empty();
    }
    ServerErrorMessage error = cause.getServerErrorMessage();
    String state = state(cause);
    String advice =
        switch (state) {
          case "23502" -> "give the column a DEFAULT or drop its NOT NULL";
          case "23503" -> "the row that it references must be there first, or must stay";
          case "23505", "23P01" -> "another row has that value";
          case "23514" -> "the CHECK must allow what Clerk's users have";
          case "22001" -> "a column is too short: make it text";
          case "P0001" -> "a trigger or function of the application raised it";
          case "42501" -> "GRANT the server's role what it lacks; README lists the rights";
          default -> state.startsWith("23") ? "a constraint of the application" : null;
        };
    return Optional.ofNullable(advice)
        .map(
            text ->
                "The database refuses a statement: %s; %s (%s)"
                    .formatted(what(error), text, state));
  }

  /** The names in a refusal. Its message is Postgres' own, except for P0001, which may quote. */
  private static String what(ServerErrorMessage error) {
    String state = error.getSQLState();
    if (state.equals("P0001")) {
      String where = oneLine(String.valueOf(error.getWhere()).split("\\R", 2)[0]);
      return "an exception was raised" + (error.getWhere() == null ? "" : " in " + where);
    }
    if (!state.startsWith("23")) {
      return error.getMessage(); // of names and types only
    }
    StringBuilder names = new StringBuilder();
    append(names, "constraint ", error.getConstraint());
    append(names, "column ", error.getColumn());
    append(names, "table ", error.getTable());
    return names.toString();
  }

  private static void append(StringBuilder names, String kind, String name) {
    if (name != null) {
      names.append(names.isEmpty() ? "" : " of ").append(kind).append(name);
    }
  }

  /**
   * Whether a constraint, or a unique index, of that name refused the statement: for a handler that
   * has an answer of its own to it.
   */
  public static boolean violates(JdbiException e, String constraint) {
    return sqlException(e) instanceof PSQLException cause
        && state(cause).startsWith("23")
        && cause.getServerErrorMessage() != null
        && constraint.equals(cause.getServerErrorMessage().getConstraint());
  }

  /**
   * Whether another row has the value of a column that must be unique: whatever the index is called
   * and whether it is partial or of an expression of the column.
   */
  public static boolean isTaken(JdbiException e, String table, String column) {
    if (!(sqlException(e) instanceof PSQLException cause)
        || !Set.of("23505", "23P01").contains(state(cause))
        || cause.getServerErrorMessage() == null
        || !table.equals(cause.getServerErrorMessage().getTable())) {
      return false;
    }
    // Under row level security, Postgres gives no detail, which names the columns.
    String detail = cause.getServerErrorMessage().getDetail();
    Matcher key = KEY.matcher(detail == null ? "" : detail);
    String names = key.find() ? key.group(1) : cause.getServerErrorMessage().getConstraint();
    return Pattern.compile("(?<![a-zA-Z0-9])" + column + "(?![a-zA-Z0-9])").matcher(names).find();
  }
}
