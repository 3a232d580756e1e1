package com.realmeet.server.users;

import com.realmeet.server.clerk.ClerkUser;
import com.realmeet.server.core.Deadline;
import com.realmeet.server.core.Failure;
import com.realmeet.server.core.Failure.Kind;
import com.realmeet.server.core.StartupException;
import com.realmeet.server.database.Database;
import com.realmeet.server.database.SqlErrors;
import com.realmeet.server.database.SqlErrors.RowSuppressed;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Collection;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.jdbi.v3.core.Handle;
import org.jdbi.v3.core.HandleCallback;
import org.jdbi.v3.core.JdbiException;
import org.jdbi.v3.core.mapper.RowMapper;
import org.jdbi.v3.core.statement.Query;
import org.jdbi.v3.core.statement.SqlStatement;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Data access object of the table {@code users}, with its SQL. Methods without a deadline are those
 * of the poll and the backfill, whose statements have 4.5 s.
 */
public final class UserDao {
  private static final Logger log = LoggerFactory.getLogger(UserDao.class);

  private static final String FIND =
      """
      SELECT id, email, name, image_url, created_at, updated_at, deleted_at
      FROM <schema>users
      WHERE id = ANY (:ids)
      """;

  private static final String FIND_ID_BY_EMAIL =
      """
      SELECT id
      FROM <schema>users
      WHERE email = :email
        AND id != ALL (:except)
      LIMIT 1
      """;

  /**
   * Finds the row if the application has a case-insensitive index or a citext column. Scans the
   * whole table.
   */
  private static final String FIND_ID_BY_EMAIL_IN_ANY_CASE =
      """
      SELECT id
      FROM <schema>users
      WHERE lower(email) = lower(:email)
        AND id != ALL (:except)
      LIMIT 1
      """;

  /**
   * Samples rows, half of them the latest to change, the others at random from the first 10,000 of
   * a scan: so it takes milliseconds for any table size, and neither old nor new users alone are
   * sampled. Leaves out rows with a placeholder address, since their users may be missing at Clerk.
   */
  private static final String SAMPLE =
      """
      WITH latest AS (
        SELECT id
        FROM <schema>users
        WHERE %1$s
        ORDER BY clerk_updated_at DESC
        LIMIT :size / 2
      ), others AS (
        SELECT id
        FROM <schema>users
        WHERE %1$s
          AND id NOT IN (SELECT id FROM latest)
        LIMIT 10000
      )
      SELECT id FROM latest
      UNION ALL
      (SELECT id FROM others ORDER BY random() LIMIT :size - :size / 2)
      """
          .formatted(
              """
              deleted_at IS NULL
                  AND email != id || '@moved.invalid'
                  AND id COLLATE "C" ~ '^user_[A-Za-z0-9_-]{1,64}$'
                  AND created_at < :before\
              """);

  /**
   * Upserts a version of a user. Returns no row if the stored version is newer by Clerk's clock, if
   * the row is a tombstone, or if another row has the address. The unique index would detect the
   * latter too, but only after the row is locked: two users who swap addresses concurrently would
   * deadlock.
   */
  private static final String UPSERT =
      """
      INSERT INTO <schema>users AS old (id, email, name, image_url, clerk_updated_at, clerk_fields)
      SELECT :id, :email, :name, :imageUrl, :clerkUpdatedAt, CAST(:clerkFields AS jsonb)
      WHERE NOT EXISTS (SELECT FROM <schema>users WHERE email = :email AND id != :id)
      ON CONFLICT (id) DO UPDATE SET
        email = excluded.email,
        name = excluded.name,
        image_url = excluded.image_url,
        clerk_updated_at = excluded.clerk_updated_at,
        clerk_fields = excluded.clerk_fields
      WHERE old.clerk_updated_at <= excluded.clerk_updated_at
        AND old.deleted_at IS NULL
      RETURNING id, email, name, image_url, created_at, updated_at, deleted_at
      """;

  /**
   * Repeats {@link #UPSERT}. Returns true if a trigger suppressed it: it stored nothing although no
   * other row has the address. All of a statement sees the same rows, so that no concurrent change
   * can look like that.
   */
  private static final String UPSERT_AGAIN =
      """
      WITH stored AS (
      %s)
      SELECT NOT EXISTS (SELECT FROM stored)
        AND NOT EXISTS (SELECT FROM <schema>users WHERE email = :email AND id != :id)
      """
          .formatted(UPSERT);

  /**
   * Finds the row that {@link #UPSERT} keeps as it is: it is newer, a tombstone, or already equal,
   * so that Postgres's {@code suppress_redundant_updates_trigger()} skips it.
   */
  private static final String FIND_KEPT =
      """
      SELECT id, email, name, image_url, created_at, updated_at, deleted_at
      FROM <schema>users
      WHERE id = :id
        AND (clerk_updated_at > :clerkUpdatedAt
          OR deleted_at IS NOT NULL
          OR (email, name, image_url, clerk_updated_at, clerk_fields) IS NOT DISTINCT FROM
            (:email, :name, :imageUrl, :clerkUpdatedAt, CAST(:clerkFields AS jsonb)))
      """;

  /** Locks a row without changing it; for a user without a row, inserts one first. */
  private static final String LOCK =
      """
      INSERT INTO <schema>users (id, email)
      VALUES (:id, :id || '@moved.invalid')
      ON CONFLICT (id) DO UPDATE SET id = excluded.id
      WHERE false
      """;

  /**
   * Replaces the address of a locked row by a placeholder. Returns true if a trigger suppressed
   * that.
   */
  private static final String RELEASE =
      """
      WITH due AS (
        SELECT id
        FROM <schema>users
        WHERE id = :id
          AND deleted_at IS NULL
          AND email != id || '@moved.invalid'
          AND %s
      ), released AS (
        UPDATE <schema>users
        SET email = id || '@moved.invalid'
        WHERE id IN (SELECT id FROM due)
        RETURNING id
      )
      SELECT EXISTS (SELECT FROM due) AND NOT EXISTS (SELECT FROM released)
      """;

  /** For a row of which {@link #UPSERT} writes the new address afterwards. */
  private static final String RELEASE_EMAIL =
      RELEASE.formatted("email IS DISTINCT FROM :email AND clerk_updated_at <= :clerkUpdatedAt");

  /** For a row whose user Clerk does not have. */
  private static final String RELEASE_EMAIL_OF_MISSING_USER =
      RELEASE.formatted("lower(email) = lower(:email)");

  private static final String MARK_DELETED =
      """
      INSERT INTO <schema>users AS old (id, email, deleted_at)
      VALUES (:id, :id || '@deleted.invalid', now())
      ON CONFLICT (id) DO UPDATE SET
        email = excluded.email,
        name = NULL,
        image_url = NULL,
        clerk_fields = NULL,
        deleted_at = excluded.deleted_at
      WHERE old.deleted_at IS NULL
      """;

  private static final String FIND_TOMBSTONES =
      """
      SELECT id
      FROM <schema>users
      WHERE id = ANY (:ids)
        AND deleted_at IS NOT NULL
      """;

  /**
   * Makes a live row of a tombstone, with a placeholder: another row may have the address by now.
   * The row becomes no newer than Clerk's version, so that {@link #UPSERT} accepts that.
   */
  private static final String REVIVE =
      """
      UPDATE <schema>users
      SET email = id || '@moved.invalid',
        deleted_at = NULL,
        clerk_updated_at = least(clerk_updated_at, :clerkUpdatedAt)
      WHERE id = :id
        AND deleted_at IS NOT NULL
      """;

  /** Reads a batch from one array per column, so that one statement stores many users. */
  private static final String BATCH =
      """
      SELECT id, email, name, image_url,
        'epoch'::timestamptz + ms * interval '1 ms' AS clerk_updated_at,
        fields::jsonb AS clerk_fields
      FROM unnest(:ids, :emails, :names, :imageUrls, :ms, :clerkFields)
        AS batch (id, email, name, image_url, ms, fields)
      """;

  /** Upserts a batch like {@link #UPSERT}; unchanged rows are not written. */
  private static final String UPSERT_BATCH =
      """
      INSERT INTO <schema>users AS old (id, email, name, image_url, clerk_updated_at, clerk_fields)
      %s
      ORDER BY id COLLATE "C" -- all lock rows in the same order, as Java sorts ids
      ON CONFLICT (id) DO UPDATE SET
        email = excluded.email,
        name = excluded.name,
        image_url = excluded.image_url,
        clerk_updated_at = excluded.clerk_updated_at,
        clerk_fields = excluded.clerk_fields
      WHERE old.clerk_updated_at <= excluded.clerk_updated_at
        AND old.deleted_at IS NULL
        AND (old.email, old.name, old.image_url, old.clerk_updated_at, old.clerk_fields)
          IS DISTINCT FROM (excluded.email, excluded.name, excluded.image_url,
            excluded.clerk_updated_at, excluded.clerk_fields)
      RETURNING CASE
        WHEN xmax = 0 THEN 'INSERT' -- no earlier version of the row
        WHEN updated_at = now() THEN 'UPDATE'
        -- Not a visible column, so that updated_at stays; a subquery sees the row as it was before.
        WHEN clerk_fields IS DISTINCT FROM (SELECT clerk_fields FROM <schema>users WHERE id = old.id) THEN 'UPDATE'
        ELSE 'UNCHANGED'
      END
      """
          .formatted(BATCH);

  /**
   * Tells whether {@link #UPSERT_BATCH} left out a row, other than because of {@code WHERE}: a
   * trigger of the application suppressed it.
   */
  private static final String BATCH_IS_SUPPRESSED =
      """
      SELECT EXISTS (
        SELECT
        FROM (%s) AS new LEFT JOIN <schema>users AS old USING (id)
        WHERE old.id IS NULL
          OR old.clerk_updated_at < new.clerk_updated_at AND old.deleted_at IS NULL)
      """
          .formatted(BATCH);

  private static final String COMPARE_BATCH =
      """
      SELECT id, CASE WHEN old.id IS NULL THEN 'INSERT' ELSE 'UPDATE' END AS change
      FROM (%s) AS new LEFT JOIN <schema>users AS old USING (id)
      WHERE old.id IS NULL
        OR old.clerk_updated_at <= new.clerk_updated_at
        AND old.deleted_at IS NULL
        AND (old.email, old.name, old.image_url, old.clerk_fields)
          IS DISTINCT FROM (new.email, new.name, new.image_url, new.clerk_fields)
      """
          .formatted(BATCH);

  private static final String LIST_IDS =
      """
      SELECT id
      FROM <schema>users
      WHERE id > :after
        AND created_at < :before
        AND deleted_at IS NULL
      ORDER BY id
      LIMIT :limit
      """;

  private static final String NEWEST_CLERK_UPDATE =
      """
      SELECT max(clerk_updated_at)
      FROM <schema>users
      """;

  /** Kind of change of a row. */
  enum Change {
    INSERT,
    UPDATE,
    UNCHANGED,
    DELETE,
    REVIVE
  }

  private static final RowMapper<User> USER = (row, ctx) -> user(row);

  private final Database database;

  /** Uses the connections that are reserved for the server's own work. */
  public UserDao(Database database) {
    this.database = database.reserved();
  }

  /**
   * Queries the table once, so that a wrong configuration ends the start and the first request need
   * not connect.
   *
   * @throws StartupException if the table cannot be used; if the database has become unavailable,
   *     the server starts nevertheless
   */
  public void requireTable() {
    try {
      find("", Deadline.in(Deadline.REQUEST_TIMEOUT));
    } catch (Failure e) {
      log.warn("Starting without the database: {}", e.reason());
    } catch (JdbiException e) {
      throw new StartupException(
          "The table users cannot be used through DATABASE_URL, has DIRECT_URL the same database and"
              + " schema? "
              + SqlErrors.whyRejected(e).orElse(e.getMessage()));
    }
  }

  /** Returns the row of a user, which may be a tombstone. */
  Optional<User> find(String id, Deadline deadline) {
    return database.read(deadline, handle -> find(handle, id));
  }

  /** Returns the existing rows by id, tombstones included. */
  Map<String, User> findAll(List<String> ids, Deadline deadline) {
    return database.read(deadline, handle -> findAll(handle, ids));
  }

  /**
   * Finds the row that has an email address; compares case-insensitively if there is no exact
   * match.
   *
   * @param except ids of rows to leave out
   * @return its id
   */
  Optional<String> findIdByEmail(String email, Collection<String> except, Deadline deadline) {
    return database.read(
        deadline,
        handle ->
            findIdByEmail(handle, FIND_ID_BY_EMAIL, email, except)
                .or(() -> findIdByEmail(handle, FIND_ID_BY_EMAIL_IN_ANY_CASE, email, except)));
  }

  private static Optional<String> findIdByEmail(
      Handle handle, String query, String email, Collection<String> except) {
    return handle
        .createQuery(query)
        .bind("email", email)
        .bind("except", except.toArray(String[]::new))
        .mapTo(String.class)
        .findFirst();
  }

  /**
   * Samples users, some of whom Clerk should have.
   *
   * @param size maximum number of them
   * @param before rows that are younger are left out
   * @return ids of live rows, each of the form of Clerk's ids
   */
  List<String> sample(int size, Instant before, Deadline deadline) {
    return database.read(deadline, handle -> sample(handle, size, before));
  }

  /** Samples like {@link #sample(int, Instant, Deadline)}, on an open connection. */
  static List<String> sample(Handle handle, int size, Instant before) {
    return handle
        .createQuery(SAMPLE)
        .bind("size", size)
        .bind("before", before.atOffset(ZoneOffset.UTC))
        .mapTo(String.class)
        .list();
  }

  /** Returns those of the given ids whose rows are tombstones. */
  List<String> findTombstones(List<String> ids) {
    return database.read(handle -> findTombstones(handle, ids));
  }

  private static List<String> findTombstones(Handle handle, List<String> ids) {
    return handle
        .createQuery(FIND_TOMBSTONES)
        .bind("ids", ids.toArray(String[]::new))
        .mapTo(String.class)
        .list();
  }

  /**
   * Makes a live row of a tombstone, with a placeholder for the address and without name and image.
   *
   * @param user current version at Clerk
   * @return true if the row was a tombstone
   */
  boolean revive(ClerkUser user) {
    return database.writeIdempotent(handle -> revive(handle, user));
  }

  private static boolean revive(Handle handle, ClerkUser user) {
    boolean revived = bind(handle.createUpdate(REVIVE), user).execute() == 1;
    if (!revived && !findTombstones(handle, List.of(user.id())).isEmpty()) {
      throw new RowSuppressed();
    }
    return revived;
  }

  /**
   * Inserts a user, or updates the row unless it is newer.
   *
   * @return the resulting row, which may be newer than this version, or a tombstone; empty if
   *     another row has the email address, or had it until now
   * @throws RowSuppressed if a trigger of the application skips the row; the same holds for all
   *     that writes a single user
   */
  Optional<User> upsert(ClerkUser user, Deadline deadline) {
    return unlessEmailTaken(
        () -> database.writeIdempotent(deadline, handle -> upsert(handle, user)));
  }

  /**
   * Upserts several users who may have swapped addresses, in one transaction.
   *
   * @param released id of a row that loses the address of the last user
   * @return the row of the first user; empty, and nothing is changed, if yet another row has one of
   *     the addresses
   */
  public Optional<User> upsertMovedEmails(
      List<ClerkUser> users, Optional<String> released, Deadline deadline) {
    String email = users.get(users.size() - 1).email();
    return unlessEmailTaken(
        () ->
            inTransaction(
                deadline,
                handle -> {
                  // lock all rows first, in a fixed order: concurrent servers do not deadlock
                  Stream.concat(users.stream().map(ClerkUser::id), released.stream())
                      .sorted()
                      .forEach(id -> handle.createUpdate(LOCK).bind("id", id).execute());
                  released.ifPresent(
                      id ->
                          release(
                              handle
                                  .createQuery(RELEASE_EMAIL_OF_MISSING_USER)
                                  .bind("id", id)
                                  .bind("email", email)));
                  users.forEach(user -> release(bind(handle.createQuery(RELEASE_EMAIL), user)));
                  if (users.stream()
                      .filter(user -> user.email() != null)
                      .anyMatch(user -> upsert(handle, user).isEmpty())) {
                    handle.rollback();
                    return Optional.empty();
                  }
                  return find(handle, users.get(0).id());
                }));
  }

  /**
   * Upserts many users at once.
   *
   * @param users each user once, with an email address
   * @return number of rows by kind of change; empty, and nothing is changed, if another row has one
   *     of the addresses, or a trigger of the application skips a row
   */
  Optional<Map<Change, Integer>> upsertBatch(List<ClerkUser> users) {
    return unlessEmailTaken(
        () ->
            inTransaction(
                Deadline.in(Deadline.REQUEST_TIMEOUT),
                handle -> {
                  List<String> changes =
                      bind(handle.createQuery(UPSERT_BATCH), users).mapTo(String.class).list();
                  if (changes.size() < users.size()
                      && isTrue(bind(handle.createQuery(BATCH_IS_SUPPRESSED), users))) {
                    handle.rollback();
                    return Optional.empty();
                  }
                  Map<Change, Integer> counts = new EnumMap<>(Change.class);
                  changes.forEach(change -> counts.merge(Change.valueOf(change), 1, Integer::sum));
                  counts.merge(Change.UNCHANGED, users.size() - changes.size(), Integer::sum);
                  return Optional.of(counts);
                }));
  }

  /** Returns, by id, the change that {@link #upsertBatch} would make. */
  Map<String, Change> compare(List<ClerkUser> users) {
    Map<String, Change> changes = new LinkedHashMap<>();
    users.forEach(user -> changes.put(user.id(), Change.UNCHANGED));
    database.read(
        handle ->
            bind(handle.createQuery(COMPARE_BATCH), users)
                .map((row, ctx) -> changes.put(row.getString(1), Change.valueOf(row.getString(2))))
                .list());
    return changes;
  }

  /** Returns the latest {@code clerk_updated_at} of all rows; empty if there are none. */
  Optional<Instant> newestClerkUpdate(Deadline deadline) {
    return database
        .read(
            deadline,
            handle -> handle.createQuery(NEWEST_CLERK_UPDATE).mapTo(OffsetDateTime.class).findOne())
        .map(OffsetDateTime::toInstant);
  }

  /**
   * Returns ids of live rows in ascending order (keyset pagination).
   *
   * @param after last id of the previous page, or an empty text
   * @param before rows that are younger are left out
   */
  List<String> listIds(String after, Instant before, int limit) {
    return database.read(
        handle ->
            handle
                .createQuery(LIST_IDS)
                .bind("after", after)
                .bind("limit", limit)
                .bind("before", before.atOffset(ZoneOffset.UTC))
                .mapTo(String.class)
                .list());
  }

  /**
   * Makes a tombstone of a user; inserts one if there is no row.
   *
   * @return false if the row already was a tombstone
   */
  boolean markDeleted(String id, Deadline deadline) {
    Supplier<Optional<Boolean>> mark =
        () ->
            unlessEmailTaken(
                () ->
                    Optional.of(
                        database.writeIdempotent(deadline, handle -> markDeleted(handle, id))));
    // Two concurrent calls can collide on the address; the second try finds the first committed.
    return mark.get()
        .or(mark)
        .orElseThrow(
            () ->
                Failure.of(Kind.DATABASE_UNAVAILABLE, "another row has a tombstone's placeholder"));
  }

  private static boolean markDeleted(Handle handle, String id) {
    boolean marked = handle.createUpdate(MARK_DELETED).bind("id", id).execute() == 1;
    if (!marked && findTombstones(handle, List.of(id)).isEmpty()) {
      throw new RowSuppressed();
    }
    return marked;
  }

  /** Runs work in a transaction, and retries it like {@link Database#writeIdempotent}. */
  private <T> T inTransaction(Deadline deadline, HandleCallback<T, RuntimeException> work) {
    return database.writeIdempotent(deadline, handle -> handle.inTransaction(work));
  }

  private static Optional<User> find(Handle handle, String id) {
    return Optional.ofNullable(findAll(handle, List.of(id)).get(id));
  }

  private static Map<String, User> findAll(Handle handle, List<String> ids) {
    Map<String, User> rows = new HashMap<>();
    handle
        .createQuery(FIND)
        .bind("ids", ids.toArray(String[]::new))
        .map(USER)
        .forEach(user -> rows.put(user.id(), user));
    return rows;
  }

  private static Optional<User> upsert(Handle handle, ClerkUser user) {
    return bind(handle.createQuery(UPSERT), user)
        .map(USER)
        .findOne()
        .or(() -> findKept(handle, user))
        .or(
            () ->
                isTrue(bind(handle.createQuery(UPSERT_AGAIN), user))
                    ? Optional.of(findKept(handle, user).orElseThrow(RowSuppressed::new))
                    // The repeat may have succeeded; the caller tries again, and finds the row.
                    : Optional.empty());
  }

  private static Optional<User> findKept(Handle handle, ClerkUser user) {
    return bind(handle.createQuery(FIND_KEPT), user).map(USER).findOne();
  }

  /**
   * Runs one of the statements made from {@link #RELEASE}.
   *
   * @throws RowSuppressed if a trigger suppressed it
   */
  private static void release(Query release) {
    if (isTrue(release)) {
      throw new RowSuppressed();
    }
  }

  private static boolean isTrue(Query query) {
    return query.mapTo(boolean.class).one();
  }

  private static <S extends SqlStatement<S>> S bind(S statement, ClerkUser user) {
    return statement
        .bind("id", user.id())
        .bind("email", user.email())
        .bind("name", user.name())
        .bind("imageUrl", user.imageUrl())
        .bind("clerkUpdatedAt", user.updatedAt().atOffset(ZoneOffset.UTC))
        .bind("clerkFields", user.fields());
  }

  private static <S extends SqlStatement<S>> S bind(S statement, List<ClerkUser> users) {
    return statement
        .bind("ids", texts(users, ClerkUser::id))
        .bind("emails", texts(users, ClerkUser::email))
        .bind("names", texts(users, ClerkUser::name))
        .bind("imageUrls", texts(users, ClerkUser::imageUrl))
        .bind("ms", users.stream().mapToLong(user -> user.updatedAt().toEpochMilli()).toArray())
        .bind("clerkFields", texts(users, ClerkUser::fields));
  }

  private static String[] texts(List<ClerkUser> users, Function<ClerkUser, String> column) {
    return users.stream().map(column).toArray(String[]::new);
  }

  /**
   * Returns empty if a unique index on the address rejects a statement. {@code ON CONFLICT (id)}
   * does not cover such a conflict, not even between two upserts of one user. The application may
   * have its own index, such as {@code UNIQUE (lower(email))}.
   */
  private static <T> Optional<T> unlessEmailTaken(Supplier<Optional<T>> statement) {
    try {
      return statement.get();
    } catch (JdbiException e) {
      if (SqlErrors.isTaken(e, "users", "email")) {
        return Optional.empty();
      }
      throw e;
    }
  }

  private static User user(ResultSet row) throws SQLException {
    return new User(
        row.getString("id"),
        row.getString("email"),
        row.getString("name"),
        row.getString("image_url"),
        instant(row, "created_at"),
        instant(row, "updated_at"),
        instant(row, "deleted_at"));
  }

  private static Instant instant(ResultSet row, String column) throws SQLException {
    OffsetDateTime time = row.getObject(column, OffsetDateTime.class);
    return time == null ? null : time.toInstant();
  }
}
