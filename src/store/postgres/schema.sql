-- The tables of `PostgresStore`, for PostgreSQL 12 and newer: schema version 3, to which `schema_4.sql` and
-- `schema_5.sql` add. `PostgresStore::SCHEMA` consists of the three files.
--
-- `PostgresStore::migrate` runs them. To run them separately, put the schema in the search path:
--
--     psql --single-transaction -v ON_ERROR_STOP=1 -c 'CREATE SCHEMA IF NOT EXISTS openid_deferred' \
--          -c 'SET LOCAL search_path TO openid_deferred' -f schema.sql -f schema_4.sql -f schema_5.sql
--
-- The application's role then needs USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on its tables. Running
-- the files again changes nothing.
--
-- Tables of version 1 or 2 are migrated to version 3. First stop all replicas of releases that know only an older
-- version. Their statements fail afterwards, and the answer to a poll in flight could not be stored. The migration is
-- refused while rows are leased. It writes every row, and locks the tables meanwhile.

CREATE TABLE IF NOT EXISTS schema_version (
    version integer PRIMARY KEY
);

-- The oldest version that a release must know to use these tables.
ALTER TABLE schema_version ADD COLUMN IF NOT EXISTS oldest integer;

-- The scheduling data of a sign-in, which changes with each poll. These rows are narrow. A claim writes
-- `lease_ends_at`, `epoch` and `attempts`, which are not indexed, and there is free space for that in the page of the
-- row (a HOT update). So a claim adds no entry to any index. The settlement of an answer updates two indexes. Vacuum
-- must keep up, so it starts when a fiftieth of the table has changed. Columns that change often are adjacent, because
-- the log of an update omits the unchanged bytes at the beginning and the end of a row.
--
-- The table is not partitioned by `id`, because a claim searches by `due_at` and would have to search every partition.
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
    -- Whether `origin.lookup` is set.
    has_lookup    boolean     NOT NULL DEFAULT false,
    due_at        timestamptz NOT NULL,
    -- The row is claimed if this is later than `due_at`. If the holder of the claim dies, the row is due one interval
    -- after this, or five seconds before `expires_at` if that is earlier, but not before this.
    lease_ends_at timestamptz,
    epoch         bigint      NOT NULL DEFAULT 0,
    attempts      bigint      NOT NULL DEFAULT 0,
    not_before    timestamptz,
    expires_at    timestamptz,
    pinged_at     timestamptz,
    decided_at    timestamptz,
    schedule      text        NOT NULL
);

-- Columns that never change, except that `lookup` is set once.
CREATE TABLE IF NOT EXISTS origin (
    id        bytea  PRIMARY KEY REFERENCES process (id) ON DELETE CASCADE,
    session   bytea  UNIQUE,
    lookup    bytea,
    first_key bigint NOT NULL
);

-- The sealed data of the application and the OP. Tombstones have none.
CREATE TABLE IF NOT EXISTS sealed (
    id   bytea PRIMARY KEY REFERENCES process (id) ON DELETE CASCADE,
    body bytea NOT NULL
);

-- The progress of the last run that corrects due times after a jump of the clock. There is one row.
CREATE TABLE IF NOT EXISTS clamp_run (
    one       integer PRIMARY KEY CHECK (one = 1),
    under_way boolean NOT NULL DEFAULT false,
    up_to     bytea   NOT NULL DEFAULT '',
    -- The jump of the database's clock that the run is for, in microseconds, and the sum of those of all runs.
    jump      bigint  NOT NULL DEFAULT 0,
    corrected bigint  NOT NULL DEFAULT 0
);

-- The migration from versions 1 and 2. It renames `leased_until`, so that an older release that still runs fails
-- instead of claiming rows that are in use.
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
            RAISE EXCEPTION 'replicas of an older release have leased % rows, which prevents the migration to version 3: '
                'stop all of them, and migrate again after the last lease has expired, at %', leases, last_end_at
                USING ERRCODE = 'object_in_use';
        END IF;
        ALTER TABLE process ADD COLUMN IF NOT EXISTS expires_at timestamptz;
        ALTER TABLE process ADD COLUMN IF NOT EXISTS spread boolean NOT NULL DEFAULT false;
        ALTER TABLE process ADD COLUMN IF NOT EXISTS decided_at timestamptz;
        -- Nearly all rows have a lookup, and adding a column with a default rewrites no row.
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
-- Verifications do not wait behind polls, nor one partition's outcomes behind another's.
CREATE INDEX IF NOT EXISTS process_poll ON process (partition, due_at) WHERE state = 1;
CREATE INDEX IF NOT EXISTS process_verification ON process (partition, due_at) WHERE state IN (0, 2);
CREATE INDEX IF NOT EXISTS process_outcome ON process (due_at) WHERE state = 3;
CREATE INDEX IF NOT EXISTS process_outcome_of ON process (partition, due_at) WHERE state = 3;
CREATE INDEX IF NOT EXISTS process_tombstone ON process (due_at) WHERE state = 4;

-- Encrypted bytes cannot be compressed.
ALTER TABLE sealed ALTER COLUMN body SET STORAGE EXTERNAL;

-- The time that all replicas use. Tests may replace the function to simulate time.
CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz
    LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp()';

INSERT INTO clamp_run (one) VALUES (1) ON CONFLICT DO NOTHING;

INSERT INTO schema_version (version, oldest) VALUES (3, 3) ON CONFLICT DO NOTHING;
