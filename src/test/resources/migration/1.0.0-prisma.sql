-- pg_dump of a database that 1.0.0 has made of a table of Prisma's.
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET client_min_messages = warning;
CREATE FUNCTION public.users_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  IF (NEW.id, NEW.email, NEW.name, NEW.image_url, NEW.created_at)
     IS DISTINCT FROM (OLD.id, OLD.email, OLD.name, OLD.image_url, OLD.created_at) THEN
    NEW.updated_at := now();
  ELSE
    NEW.updated_at := OLD.updated_at;
  END IF;
  RETURN NEW;
END $$;
CREATE TABLE public.real_meet_server_migrations (
    installed_rank integer NOT NULL,
    version character varying(50),
    description character varying(200) NOT NULL,
    type character varying(20) NOT NULL,
    script character varying(1000) NOT NULL,
    checksum integer,
    installed_by character varying(100) NOT NULL,
    installed_on timestamp without time zone DEFAULT now() NOT NULL,
    execution_time integer NOT NULL,
    success boolean NOT NULL
);
CREATE TABLE public.users (
    id text NOT NULL,
    email text NOT NULL,
    name text,
    image_url text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    clerk_updated_at timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone
);
INSERT INTO public.real_meet_server_migrations VALUES (1, '0', '<< Flyway Baseline >>', 'BASELINE', '<< Flyway Baseline >>', NULL, 'postgres', '2026-11-29 19:52:29.035562', 0, true);
INSERT INTO public.real_meet_server_migrations VALUES (2, '1', 'create users', 'SQL', 'V1__create_users.sql', 1412849516, 'postgres', '2026-11-29 19:52:30.437689', 225, true);
INSERT INTO public.users VALUES ('user_old', 'old@example.com', 'Old User', NULL, '2025-01-02 03:04:05.678+00', '2025-02-03 04:05:06.789+00', '1970-01-01 00:00:00+00', NULL);
INSERT INTO public.users VALUES ('user_ada', 'ada@example.com', 'Ada Lovelace', 'https://img.example.com/ada', '2026-11-01 00:00:00+00', '2026-11-02 00:00:00+00', '2026-11-02 00:00:00+00', NULL);
INSERT INTO public.users VALUES ('user_moved', 'user_moved@moved.invalid', NULL, NULL, '2026-11-01 00:00:00+00', '2026-11-02 00:00:00+00', '2026-11-02 00:00:00+00', NULL);
INSERT INTO public.users VALUES ('user_gone', 'user_gone@deleted.invalid', NULL, NULL, '2026-11-01 00:00:00+00', '2026-11-02 00:00:00+00', '1970-01-01 00:00:00+00', '2026-11-03 00:00:00+00');
ALTER TABLE ONLY public.real_meet_server_migrations
    ADD CONSTRAINT real_meet_server_migrations_pk PRIMARY KEY (installed_rank);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
CREATE INDEX real_meet_server_migrations_s_idx ON public.real_meet_server_migrations USING btree (success);
CREATE UNIQUE INDEX users_email_key ON public.users USING btree (email);
CREATE TRIGGER users_updated_at BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.users_updated_at();
