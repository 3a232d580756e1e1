-- What a database of 1.0.0 lacks. Can run again over what it made.

SELECT set_config('search_path', quote_ident(current_schema()), true);
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = '10s';

-- For max(clerk_updated_at), from which the poll goes on after a start.
CREATE INDEX IF NOT EXISTS real_meet_server_users_clerk_updated_at ON users (clerk_updated_at);

-- 1.0.0's trigger and function have a name that an application may have chosen too: only its very text is dropped.
DO $$
DECLARE
  old regprocedure := (
    SELECT oid FROM pg_proc
    WHERE oid = to_regprocedure('users_updated_at()')
      AND md5(regexp_replace(prosrc, '\s+', '', 'g')) = 'fa79daa1803a055ac6de880307580eba');
BEGIN
  IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'users'::regclass AND tgname = 'users_updated_at' AND tgfoid = old) THEN
    DROP TRIGGER users_updated_at ON users;
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = old) THEN
      DROP FUNCTION users_updated_at();
    END IF;
  END IF;
END $$;

-- Supabase serves every table to the roles of its public API, unless they have no rights. RowSecurity does the rest.
-- A users table that has clerk_fields was closed by an earlier run: rights that were granted after that stay.
DO $$
DECLARE
  api_roles text := (SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE rolname IN ('anon', 'authenticated'));
BEGIN
  IF api_roles IS NOT NULL THEN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'clerk_fields') THEN
      EXECUTE 'REVOKE ALL ON users FROM PUBLIC, ' || api_roles;
    END IF;
    EXECUTE 'REVOKE ALL ON real_meet_server_migrations FROM PUBLIC, ' || api_roles;
    EXECUTE 'REVOKE ALL ON FUNCTION real_meet_server_users_updated_at() FROM PUBLIC, ' || api_roles;
  END IF;
END $$;

ALTER TABLE users ADD COLUMN IF NOT EXISTS clerk_fields jsonb; -- what CLERK_FIELDS names; null: unset
