-- The one table. A Prisma table of the Node server is adopted as it is, with its rows and its foreign keys.
-- On a new database everything after CREATE TABLE changes nothing but adds the trigger.

SET LOCAL search_path = "${flyway:defaultSchema}"; -- Prisma's "schema" parameter, or the role's own
SET LOCAL TimeZone = 'UTC';                        -- what Prisma's timestamps without a zone mean
SET LOCAL lock_timeout = '10s';                    -- rather fail than hold up every reader of the Node server's table

DO $$
BEGIN
  IF to_regclass('users') IS NOT NULL AND 6 <> (
    SELECT count(*) FROM pg_attribute
    WHERE attrelid = to_regclass('users') AND NOT attisdropped
      AND (attname = 'id' AND atttypid IN ('text'::regtype, 'varchar'::regtype)
        OR attname IN ('email', 'name', 'image_url', 'created_at', 'updated_at'))
  ) THEN
    RAISE EXCEPTION 'there is a table "users" that is not the Node server''s: rename it, or name another schema in DATABASE_URL';
  END IF;
END $$;

CREATE TABLE IF NOT EXISTS users (
  id               text        PRIMARY KEY,                 -- Clerk's user id
  email            text        NOT NULL CONSTRAINT users_email_key UNIQUE, -- a tombstone holds <id>@deleted.invalid
  name             text,
  image_url        text,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),      -- kept by the trigger below
  clerk_updated_at timestamptz NOT NULL DEFAULT 'epoch',    -- Clerk's clock; epoch: not yet compared with Clerk
  deleted_at       timestamptz                              -- set: a tombstone
);

ALTER TABLE users
  ADD COLUMN IF NOT EXISTS clerk_updated_at timestamptz NOT NULL DEFAULT 'epoch',
  ADD COLUMN IF NOT EXISTS deleted_at timestamptz,
  ALTER COLUMN created_at TYPE timestamptz,
  ALTER COLUMN created_at SET DEFAULT now(),
  ALTER COLUMN updated_at TYPE timestamptz,
  ALTER COLUMN updated_at SET DEFAULT now();

CREATE UNIQUE INDEX IF NOT EXISTS users_email_key ON users (email); -- Prisma made it, or the constraint did

-- updated_at moves when a column that clients see changes, and only then.
CREATE FUNCTION users_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.email, NEW.name, NEW.image_url, NEW.created_at)
     IS DISTINCT FROM (OLD.id, OLD.email, OLD.name, OLD.image_url, OLD.created_at) THEN
    NEW.updated_at := now();
  ELSE
    NEW.updated_at := OLD.updated_at;
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER users_updated_at BEFORE UPDATE ON users
  FOR EACH ROW EXECUTE FUNCTION users_updated_at();
