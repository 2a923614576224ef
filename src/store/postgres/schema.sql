-- The tables of `PostgresStore`, schema version 3, for PostgreSQL 12 and newer.
--
-- `PostgresStore::migrate` runs this file. To run it apart, name the schema in the search path:
--
--     psql --single-transaction -v ON_ERROR_STOP=1 -c 'CREATE SCHEMA IF NOT EXISTS openid_deferred' \
--          -c 'SET LOCAL search_path TO openid_deferred' -f schema.sql
--
-- The role of the application then needs USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables. Running
-- the file again changes nothing.
--
-- Tables of version 1 or 2 are changed to version 3. Stop all replicas of releases that know an older version first: their
-- statements fail afterwards, and the answer to a poll that is under way could not be stored. The change is refused while
-- rows are leased. It writes every row, and locks the tables meanwhile.

CREATE TABLE IF NOT EXISTS schema_version (
    version integer PRIMARY KEY
);

-- The oldest version that a release has to know to use these tables.
ALTER TABLE schema_version ADD COLUMN IF NOT EXISTS oldest integer;

-- What schedules a process and changes with each poll: these rows are narrow. A claim writes `lease_ends_at`, `epoch` and
-- `attempts`, which no index knows, and finds room for that in the page of the row, so that it leaves no trace in any
-- index. What an answer changes enters two of them. Vacuuming has to keep up: a fiftieth of the table is enough to begin.
-- What changes often stands together, for the log of an update leaves out what is the same before and behind.
--
-- The table is not partitioned by `id`: a claim goes by `due_at` and would have to ask every part.
CREATE TABLE IF NOT EXISTS process (
    id            bytea       PRIMARY KEY,
    partition     bigint      NOT NULL,
    poll_interval interval    NOT NULL,
    key           bigint      NOT NULL,
    revision      bigint      NOT NULL DEFAULT 0,
    state         smallint    NOT NULL CHECK (state BETWEEN 0 AND 4),
    format        smallint    NOT NULL,
    cancellation  smallint    NOT NULL DEFAULT 0,
    provisional   boolean     NOT NULL DEFAULT false,
    spread        boolean     NOT NULL DEFAULT false,
    -- Whether `origin` has one.
    has_lookup    boolean     NOT NULL DEFAULT false,
    due_at        timestamptz NOT NULL,
    -- While this is later than `due_at`, a claim is being worked on. If its holder dies, the row is due an interval after
    -- this instead, or five seconds before `expires_at` if that is earlier, but not before this.
    lease_ends_at timestamptz,
    epoch         bigint      NOT NULL DEFAULT 0,
    attempts      bigint      NOT NULL DEFAULT 0,
    not_before    timestamptz,
    expires_at    timestamptz,
    pinged_at     timestamptz,
    decided_at    timestamptz,
    schedule      text        NOT NULL
);

-- What never changes, but for `lookup`, which becomes known once.
CREATE TABLE IF NOT EXISTS origin (
    id        bytea  PRIMARY KEY REFERENCES process (id) ON DELETE CASCADE,
    session   bytea  UNIQUE,
    lookup    bytea,
    first_key bigint NOT NULL
);

-- What the application and the OP have put into it, sealed. Tombstones have none.
CREATE TABLE IF NOT EXISTS sealed (
    id   bytea PRIMARY KEY REFERENCES process (id) ON DELETE CASCADE,
    body bytea NOT NULL
);

-- How far the last run has come that puts due times right after a jump of the clock. There is one row.
CREATE TABLE IF NOT EXISTS clamp_run (
    one       integer PRIMARY KEY CHECK (one = 1),
    began_at  timestamptz,
    under_way boolean NOT NULL DEFAULT false,
    up_to     bytea   NOT NULL DEFAULT ''
);

-- From versions 1 and 2. The name `leased_until` goes, so that an older release that still runs fails instead of claiming
-- what others are working on.
DO $migration$
DECLARE
    leases      bigint;
    last_end_at timestamptz;
BEGIN
    IF EXISTS (SELECT 1 FROM pg_catalog.pg_attribute
               WHERE attrelid = to_regclass('process') AND attname = 'leased_until' AND NOT attisdropped) THEN
        LOCK TABLE process IN ACCESS EXCLUSIVE MODE;
        SELECT count(*), max(leased_until) INTO leases, last_end_at
        FROM process WHERE state <= 2 AND leased_until > clock();
        IF leases > 0 THEN
            RAISE EXCEPTION 'replicas of an older release have leased % rows of tables that are to get version 3: stop '
                'all of them, and migrate again when the last lease has run out, at %', leases, last_end_at
                USING ERRCODE = 'object_in_use';
        END IF;
        ALTER TABLE process ADD COLUMN IF NOT EXISTS expires_at timestamptz;
        ALTER TABLE process ADD COLUMN IF NOT EXISTS spread boolean NOT NULL DEFAULT false;
        ALTER TABLE process ADD COLUMN IF NOT EXISTS decided_at timestamptz;
        -- Nearly all rows have one, and a default rewrites no row.
        ALTER TABLE process ADD COLUMN has_lookup boolean NOT NULL DEFAULT true;
        ALTER TABLE process ALTER COLUMN has_lookup SET DEFAULT false;
        ALTER TABLE process RENAME COLUMN leased_until TO lease_ends_at;
        INSERT INTO origin (id, session, lookup, first_key) SELECT id, session, lookup, first_key FROM process;
        UPDATE process SET has_lookup = false WHERE lookup IS NULL;
        DROP INDEX IF EXISTS process_work;
        ALTER TABLE process DROP COLUMN session, DROP COLUMN lookup, DROP COLUMN first_key;
    END IF;
END
$migration$;

ALTER TABLE process SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX IF NOT EXISTS origin_lookup ON origin (lookup) WHERE lookup IS NOT NULL;
-- What is verified does not wait behind what is polled, nor one partition's outcomes behind another one's.
CREATE INDEX IF NOT EXISTS process_poll ON process (partition, due_at) WHERE state = 1;
CREATE INDEX IF NOT EXISTS process_verification ON process (partition, due_at) WHERE state IN (0, 2);
CREATE INDEX IF NOT EXISTS process_outcome ON process (due_at) WHERE state = 3;
CREATE INDEX IF NOT EXISTS process_outcome_of ON process (partition, due_at) WHERE state = 3;
CREATE INDEX IF NOT EXISTS process_tombstone ON process (due_at) WHERE state = 4;

-- Encrypted bytes do not get smaller.
ALTER TABLE sealed ALTER COLUMN body SET STORAGE EXTERNAL;

-- The time that all replicas go by. Tests may replace the function to let weeks pass.
CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz
    LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp()';

INSERT INTO clamp_run (one) VALUES (1) ON CONFLICT DO NOTHING;

INSERT INTO schema_version (version, oldest) VALUES (3, 3) ON CONFLICT DO NOTHING;
