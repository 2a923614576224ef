-- The tables of `PostgresStore`, schema version 1, for PostgreSQL 12 and newer.
--
-- `PostgresStore::migrate` runs this file. To run it apart, name the schema in the search path:
--
--     psql --single-transaction -v ON_ERROR_STOP=1 -c 'CREATE SCHEMA IF NOT EXISTS openid_deferred' \
--          -c 'SET LOCAL search_path TO openid_deferred' -f schema.sql
--
-- The role of the application then needs USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables. Running
-- the file again changes nothing. Later versions only add to it, so that older releases go on working beside newer ones.

CREATE TABLE IF NOT EXISTS schema_version (
    version integer PRIMARY KEY
);

-- What schedules a process. Most answers of an OP change nothing else, so these rows are narrow. An update always
-- touches an index, so vacuuming has to keep up: a fiftieth of the table is enough to begin.
CREATE TABLE IF NOT EXISTS process (
    id            bytea       PRIMARY KEY,
    partition     bigint      NOT NULL,
    state         smallint    NOT NULL CHECK (state BETWEEN 0 AND 4),
    session       bytea       UNIQUE,
    lookup        bytea,
    due_at        timestamptz NOT NULL,
    leased_until  timestamptz,
    not_before    timestamptz,
    pinged_at     timestamptz,
    poll_interval interval    NOT NULL,
    epoch         bigint      NOT NULL DEFAULT 0,
    attempts      bigint      NOT NULL DEFAULT 0,
    provisional   boolean     NOT NULL DEFAULT false,
    cancellation  smallint    NOT NULL DEFAULT 0,
    schedule      text        NOT NULL,
    format        smallint    NOT NULL,
    key           bigint      NOT NULL,
    first_key     bigint      NOT NULL,
    revision      bigint      NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX IF NOT EXISTS process_lookup ON process (lookup) WHERE lookup IS NOT NULL;
CREATE INDEX IF NOT EXISTS process_work ON process (partition, due_at) WHERE state <= 2;
CREATE INDEX IF NOT EXISTS process_outcome ON process (due_at) WHERE state = 3;
CREATE INDEX IF NOT EXISTS process_tombstone ON process (due_at) WHERE state = 4;

-- What the application and the OP have put into it, sealed. Tombstones have none.
CREATE TABLE IF NOT EXISTS sealed (
    id   bytea PRIMARY KEY REFERENCES process (id) ON DELETE CASCADE,
    body bytea NOT NULL
);

-- Encrypted bytes do not get smaller.
ALTER TABLE sealed ALTER COLUMN body SET STORAGE EXTERNAL;

-- The time that all replicas go by. Tests may replace the function to let weeks pass.
CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz
    LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp()';

INSERT INTO schema_version VALUES (1) ON CONFLICT DO NOTHING;
