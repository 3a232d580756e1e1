CREATE TABLE IF NOT EXISTS meetings (
  id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  host_id   text        NOT NULL REFERENCES users (id),
  title     text        NOT NULL,
  starts_at timestamptz NOT NULL
);

CREATE INDEX IF NOT EXISTS meetings_host_id ON meetings (host_id);

CREATE TABLE IF NOT EXISTS participants (
  meeting_id bigint NOT NULL REFERENCES meetings (id),
  user_id    text   NOT NULL REFERENCES users (id),
  PRIMARY KEY (meeting_id, user_id)
);

CREATE INDEX IF NOT EXISTS participants_user_id ON participants (user_id);
