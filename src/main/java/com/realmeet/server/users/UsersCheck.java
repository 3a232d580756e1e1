package com.realmeet.server.users;

import static com.realmeet.server.core.CheckLine.fail;
import static com.realmeet.server.core.CheckLine.ok;
import static com.realmeet.server.core.CheckLine.warn;

import com.realmeet.server.clerk.ClerkApi;
import com.realmeet.server.core.CheckLine;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.database.ReadOnlyDatabase;
import com.realmeet.server.database.SqlErrors;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.jdbi.v3.core.Handle;
import org.jdbi.v3.core.JdbiException;

/** Checks the rows, and compares them with Clerk's users, for the command {@code check}. */
public final class UsersCheck {
  /** Time for a call to Clerk, of the 9 s of the whole check. */
  private static final Duration TIMEOUT = Duration.ofSeconds(3);

  /**
   * Tolerated difference between the numbers of users, as a fraction: users without an address have
   * no row, for example.
   */
  private static final double TOLERANCE = 0.05;

  /**
   * Difference that is tolerated in any case: users who sign up or are deleted during the check.
   */
  private static final int MIN_TOLERANCE = 5;

  /**
   * Reads whether there is a table {@code users}, and whether it has the columns that V1 adds to
   * Prisma's.
   */
  private static final String TABLE =
      """
      SELECT to_regclass('users') IS NOT NULL AS is_there,
        EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('users') AND attname = 'deleted_at') AS is_migrated
      """;

  private static final String COUNT =
      """
      SELECT count(*) FILTER (WHERE deleted_at IS NULL) AS users,
        count(deleted_at) AS tombstones,
        count(*) FILTER (WHERE deleted_at IS NULL AND (email IS NULL OR email = id || '@moved.invalid')) AS placeholders,
        min(id) FILTER (WHERE deleted_at IS NULL AND (email IS NULL OR email = id || '@moved.invalid')) AS placeholder
      FROM <schema>users
      """;

  private static final String SAME_IN_ANY_CASE =
      """
      SELECT string_agg(id, ' and ' ORDER BY id) AS ids
      FROM <schema>users
      WHERE deleted_at IS NULL AND email IS NOT NULL
      GROUP BY lower(email)
      HAVING count(*) > 1
      ORDER BY min(id)
      """;

  /** Finds tables other than {@code users} that may be of Prisma's model User, as V1 does. */
  private static final String PRISMAS_TABLES =
      """
      SELECT format('SELECT %L WHERE EXISTS (SELECT FROM %s WHERE %L OR id::text COLLATE "C" LIKE %L)',
        c.oid::regclass,
        c.oid::regclass,
        6 = count(DISTINCT lower(replace(a.attname, '_', ''))) FILTER (
          WHERE lower(replace(a.attname, '_', '')) IN ('id', 'email', 'name', 'imageurl', 'createdat', 'updatedat')),
        'user\\_%')
      FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid
      WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
        AND lower(c.relname) IN ('user', 'users') AND c.relname != 'users' AND c.relkind IN ('r', 'p')
        AND has_table_privilege(c.oid, 'SELECT')
      GROUP BY c.oid
      HAVING bool_or(a.attname = 'id' AND t.typcategory = 'S') AND bool_or(lower(a.attname) = 'email')
      """;

  private record Table(boolean isThere, boolean isMigrated) {}

  private record Counts(int users, int tombstones, int placeholders, String placeholder) {}

  private final ReadOnlyDatabase database;
  private Table table = new Table(false, false);
  private Optional<Counts> counts = Optional.empty();

  /** Checks the rows of this database. */
  public UsersCheck(ReadOnlyDatabase database) {
    this.database = database;
  }

  /**
   * Checks the table and its rows.
   *
   * @param lines receives the results
   */
  public void checkRows(Consumer<CheckLine> lines) {
    database.check("table", lines, this::table);
    if (table.isMigrated) {
      database.check("rows", lines, this::rows);
    }
    if (counts.isPresent()) {
      lines.accept(placeholders(counts.get()));
      database.check("addresses", lines, UsersCheck::addresses);
    }
  }

  private CheckLine table(Handle handle) {
    table =
        handle
            .createQuery(TABLE)
            .map((row, ctx) -> new Table(row.getBoolean(1), row.getBoolean(2)))
            .one();
    Optional<String> prismas = prismasTable(handle);
    if (prismas.isPresent() && !table.isThere) {
      return fail(
          "table",
          "the Node server's users are in the table "
              + prismas.get()
              + ": rename it first, see the chapter \"Moving from the Node server\" of the README, or,"
              + " to keep it as it is, name another schema in DATABASE_URL");
    }
    if (prismas.isPresent()) {
      return warn(
          "table",
          "beside users there is a table "
              + prismas.get()
              + " with rows, as Prisma makes it, which this server does not read: if it is no longer"
              + " used, drop it");
    }
    if (!table.isThere) {
      return warn(
          "table",
          "there is no table users that the role of DATABASE_URL can see: the first start makes it,"
              + " or make migrate; if it is there, look whether DIRECT_URL is the same database and"
              + " the role has USAGE on the schema");
    }
    return table.isMigrated
        ? ok("table", "the table users is there")
        : warn("table", "the table users is not migrated yet: the first start does so");
  }

  private static Optional<String> prismasTable(Handle handle) {
    try {
      return handle.createQuery(PRISMAS_TABLES).mapTo(String.class).stream()
          .flatMap(
              query -> handle.createQuery(query.replace("<", "\\<")).mapTo(String.class).stream())
          .findFirst();
    } catch (JdbiException e) {
      if (!SqlErrors.isCancelled(e)) {
        throw e;
      }
      return Optional.empty(); // large, and without a user of Clerk's: of another login library
    }
  }

  private CheckLine rows(Handle handle) {
    Counts found =
        handle
            .createQuery(COUNT)
            .map(
                (row, ctx) ->
                    new Counts(row.getInt(1), row.getInt(2), row.getInt(3), row.getString(4)))
            .one();
    counts = Optional.of(found);
    return ok(
        "rows", "%d users, %d tombstones of deleted ones".formatted(found.users, found.tombstones));
  }

  private static CheckLine placeholders(Counts counts) {
    return counts.placeholders == 0
        ? ok("placeholders", "every user has an address")
        : warn(
            "placeholders",
            "users without an address, since another one has taken it over: %d, such as %s; sync answers them 422: run backfill, or let them add an address"
                .formatted(counts.placeholders, counts.placeholder));
  }

  private static CheckLine addresses(Handle handle) {
    List<String> same = handle.createQuery(SAME_IN_ANY_CASE).mapTo(String.class).list();
    return same.isEmpty()
        ? ok("addresses", "no two users have the same address in different case")
        : warn(
            "addresses",
            "users whose addresses differ only in case: %d times, such as %s; Clerk has one of them at most: run backfill --delete-missing"
                .formatted(same.size(), same.get(0)));
  }

  /**
   * Compares the rows with Clerk's users.
   *
   * @param clerk whose secret key was accepted
   * @param lines receives the results
   */
  public void compare(ClerkApi clerk, Consumer<CheckLine> lines) {
    if (counts.isEmpty()) {
      return;
    }
    try {
      List<String> sample = new ArrayList<>();
      database.check(
          "instance",
          lines,
          handle -> {
            sample.addAll(UserDao.sample(handle, InstanceCheck.SAMPLE_SIZE, Instant.now()));
            return null;
          });
      lines.accept(instance(sample, clerk)); // no transaction waits for Clerk
      lines.accept(difference(counts.get().users, clerk.userCount(Deadline.in(TIMEOUT))));
    } catch (Failure e) {
      lines.accept(warn("users", "Clerk's users cannot be compared with the rows: " + e.reason()));
    }
  }

  private static CheckLine instance(List<String> sample, ClerkApi clerk) {
    if (sample.size() < InstanceCheck.MIN_SAMPLE) {
      return ok(
          "instance",
          "too few users to tell whether CLERK_SECRET_KEY is of the instance of the rows");
    }
    return clerk.lookup(sample, Deadline.in(TIMEOUT)).isEmpty()
        ? fail(
            "instance",
            "CLERK_SECRET_KEY is of another Clerk instance than the rows, Clerk has none of %d users: set the key of the instance that they come from"
                .formatted(sample.size()))
        : ok("instance", "CLERK_SECRET_KEY is of the instance of the rows");
  }

  /**
   * Returns by how many users two counts may differ that are made while users sign up and are
   * deleted.
   */
  static double tolerance(int users) {
    return Math.max(MIN_TOLERANCE, TOLERANCE * users);
  }

  private static CheckLine difference(int rows, int users) {
    String sentence = "Clerk has %d users, the table %d".formatted(users, rows);
    double tolerated = tolerance(Math.max(rows, users));
    if (users - rows > tolerated) {
      return warn("users", sentence + ": run backfill, unless they have no email address");
    }
    if (rows - users > tolerated) {
      return warn(
          "users", sentence + ": look what backfill --delete-missing --dry-run would delete");
    }
    return ok("users", sentence);
  }
}
