
-- Version 4 only adds to version 3. Replicas of releases that know version 3 continue to work, so the migration needs no
-- pause. It locks `origin` for a moment, and writes no rows. To run it separately on tables of version 3, run
-- `schema_4.sql` like `schema.sql`. Then grant the application's role SELECT, INSERT, UPDATE and DELETE on `reference`.

-- When the row was inserted; null if an older release inserted it.
ALTER TABLE origin ADD COLUMN IF NOT EXISTS started_at timestamptz;

-- The fingerprints of references that applications gave. Most rows have none.
CREATE TABLE IF NOT EXISTS reference (
    id        bytea PRIMARY KEY REFERENCES origin (id) ON DELETE CASCADE,
    reference bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS reference_of ON reference (reference, id);

INSERT INTO schema_version (version, oldest) VALUES (4, 3) ON CONFLICT DO NOTHING;
