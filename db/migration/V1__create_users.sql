-- The table users. A table that Prisma made for the Node server is adopted with its rows and foreign keys.
-- Can run again over what it made: the history table may be lost, and on a database of 1.0.0 it does.

SELECT set_config('search_path', quote_ident(current_schema()), true); -- no table of another schema is meant
SET LOCAL TimeZone = 'UTC';      -- what Prisma's timestamps without a zone mean
SET LOCAL statement_timeout = 0; -- of the role; also behind a pooler
SET LOCAL lock_timeout = '10s';  -- rather fail than hold up every reader of the Node server's table

DO $$
DECLARE
  found record;
  has_rows boolean;
BEGIN
  -- Tables that may be those of Prisma's model User, with or without @map, even if they lack columns.
  FOR found IN
    SELECT c.oid::regclass AS name, c.relname = 'users' AS is_users,
      bool_or(a.attname = 'id' AND a.atttypid IN ('text'::regtype, 'varchar'::regtype)) AND c.relkind = 'r' AS has_id,
      bool_or(a.attname = 'id' AND t.typcategory = 'S') AND bool_or(lower(a.attname) = 'email') AND c.relkind IN ('r', 'p') AS is_similar,
      6 = count(*) FILTER (
        WHERE a.attname IN ('id', 'email', 'name', 'image_url', 'created_at', 'updated_at')) AS is_mapped,
      (SELECT string_agg(name, ', ')
       FROM unnest(ARRAY['id', 'email', 'name', 'image_url', 'created_at', 'updated_at']) AS name
       WHERE replace(name, '_', '') <> ALL (array_agg(lower(replace(a.attname, '_', ''))))) AS missing
    FROM pg_class c
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND lower(c.relname) IN ('user', 'users')
      AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    GROUP BY c.oid
    ORDER BY is_users DESC
  LOOP
    IF found.is_users AND found.has_id AND found.is_mapped THEN
      EXECUTE 'SELECT EXISTS (SELECT FROM users)' INTO has_rows;
      EXIT WHEN has_rows;
    ELSIF found.is_users AND found.has_id AND found.missing IS NULL THEN
      RAISE EXCEPTION 'the columns of the table "users" have the names of Prisma''s model: rename them first, see the chapter "Moving from the Node server" of the README';
    ELSIF found.is_users THEN
      RAISE EXCEPTION 'there is a table "users" that is not the Node server''s%', concat(
        CASE WHEN found.is_similar AND found.missing IS NOT NULL THEN ', or lacks its columns ' || found.missing || ': add them,' ELSE ':' END,
        ' rename it, or name another schema in DATABASE_URL');
    ELSIF found.is_similar AND has_table_privilege(found.name, 'SELECT') THEN
      -- A table that lacks columns may be another library's for signing in, whose ids are not Clerk's.
      EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %L OR id::text COLLATE "C" LIKE %L)',
        found.name, found.missing IS NULL, 'user\_%') INTO has_rows;
      IF has_rows THEN
        RAISE EXCEPTION 'the Node server''s users are in the table %, and an empty table "users" beside it would hide them: rename it first%, see the chapter "Moving from the Node server" of the README, or, to keep it as it is, name another schema in DATABASE_URL',
          found.name, coalesce(', and add the columns ' || found.missing, '');
      END IF;
    END IF;
  END LOOP;
END $$;

CREATE TABLE IF NOT EXISTS users (
  id               text        PRIMARY KEY,                 -- Clerk's user id
  email            text        NOT NULL,                    -- unique, see below; a tombstone holds <id>@deleted.invalid
  name             text,
  image_url        text,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),      -- kept by the trigger below
  clerk_updated_at timestamptz NOT NULL DEFAULT 'epoch',    -- Clerk's clock; epoch: not yet compared with Clerk
  deleted_at       timestamptz                              -- set: a tombstone
);

-- Only if the type differs: even a change to the same type fails where a view uses the column.
DO $$
DECLARE
  changes text;
  message text;
  detail text;
BEGIN
  SELECT string_agg(format('ALTER COLUMN %I TYPE timestamptz', attname), ', ') INTO changes
  FROM pg_attribute
  WHERE attrelid = 'users'::regclass
    AND attname IN ('created_at', 'updated_at')
    AND atttypid <> 'timestamptz'::regtype;
  IF changes IS NOT NULL THEN
    EXECUTE 'ALTER TABLE users ' || changes;
  END IF;
EXCEPTION WHEN feature_not_supported OR invalid_object_definition OR invalid_table_definition OR syntax_error THEN -- the last before Postgres 15
  GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
  RAISE EXCEPTION 'created_at and updated_at of the table "users" cannot become timestamptz: %. Drop what depends on them, migrate, and create it again, see the chapter "Moving from the Node server" of the README',
    concat_ws(', ', message, nullif(detail, ''));
END $$;

-- A column of the application is not adopted: rows of its own soft delete, for example, would become tombstones.
DO $$
DECLARE
  others text := (
    SELECT string_agg(quote_ident(attname), ', ')
    FROM pg_attribute
    WHERE attrelid = 'users'::regclass AND NOT attisdropped
      AND (attname = 'clerk_updated_at' AND atttypid <> 'timestamptz'::regtype
        OR attname = 'clerk_fields' AND atttypid <> 'jsonb'::regtype
        OR attname = 'deleted_at' AND NOT EXISTS (
          SELECT FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'clerk_updated_at' AND NOT attisdropped)));
BEGIN
  IF others IS NOT NULL THEN
    RAISE EXCEPTION 'the table "users" has columns of its own with names of the server''s: rename %', others;
  END IF;
END $$;

ALTER TABLE users
  ADD COLUMN IF NOT EXISTS clerk_updated_at timestamptz NOT NULL DEFAULT 'epoch',
  ADD COLUMN IF NOT EXISTS deleted_at timestamptz,
  ALTER COLUMN created_at SET DEFAULT now(),
  ALTER COLUMN updated_at SET DEFAULT now(),
  ALTER COLUMN clerk_updated_at SET DEFAULT 'epoch';

-- An adopted table may lack them: Prisma makes an index for the address, and a copy of a table has none at all.
DO $$
DECLARE
  missing name;
BEGIN
  FOR missing IN
    SELECT attname
    FROM pg_attribute
    WHERE attrelid = 'users'::regclass AND attname IN ('id', 'email')
      AND NOT EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = attrelid AND indnkeyatts = 1 AND indkey[0] = attnum
          AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL)
  LOOP
    IF missing = 'id' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = 'users'::regclass AND indisprimary) THEN
      ALTER TABLE users ADD PRIMARY KEY (id);
    ELSE
      EXECUTE format('ALTER TABLE users ADD UNIQUE (%I)', missing);
    END IF;
  END LOOP;
EXCEPTION WHEN unique_violation THEN
  RAISE EXCEPTION 'rows of the table "users" have the same %: change or delete those that SELECT %, count(*) FROM users GROUP BY 1 HAVING count(*) > 1 names', missing, missing;
END $$;

-- A function of ours is replaced; another one of that name cannot be.
DO $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_proc
    WHERE oid = to_regprocedure('real_meet_server_users_updated_at()') AND prorettype <> 'trigger'::regtype) THEN
    RAISE EXCEPTION 'there is a function real_meet_server_users_updated_at() that is not the server''s: rename it by ALTER ROUTINE real_meet_server_users_updated_at() RENAME TO a name of yours, or name another schema in DATABASE_URL';
  END IF;
END $$;

-- updated_at moves when a column that clients see changes, and only then.
CREATE OR REPLACE FUNCTION real_meet_server_users_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.email, NEW.name, NEW.image_url, NEW.created_at)
     IS DISTINCT FROM (OLD.id, OLD.email, OLD.name, OLD.image_url, OLD.created_at) THEN
    NEW.updated_at := now();
  ELSE
    NEW.updated_at := OLD.updated_at;
  END IF;
  RETURN NEW;
END $$;

DROP TRIGGER IF EXISTS real_meet_server_updated_at ON users;

-- A copy of a table has nullable columns. Done without the trigger, which would move updated_at, and only if needed,
-- since it reads the whole table.
DO $$
DECLARE
  nullable name;
BEGIN
  FOR nullable IN
    SELECT attname
    FROM pg_attribute
    WHERE attrelid = 'users'::regclass AND attname IN ('created_at', 'updated_at', 'clerk_updated_at') AND NOT attnotnull
  LOOP
    EXECUTE format('UPDATE users SET %1$I = DEFAULT WHERE %1$I IS NULL', nullable);
    EXECUTE format('ALTER TABLE users ALTER COLUMN %I SET NOT NULL', nullable);
  END LOOP;
END $$;

CREATE TRIGGER real_meet_server_updated_at BEFORE UPDATE ON users
  FOR EACH ROW EXECUTE FUNCTION real_meet_server_users_updated_at();
