-- Version 2 only adds: releases that know version 1 continue to work beside those that know this one.

-- The oldest version that a release must know to use the file.
CREATE TABLE compatibility (
    oldest INTEGER NOT NULL
) STRICT;
INSERT INTO compatibility VALUES (1);

ALTER TABLE process ADD COLUMN expires_at INTEGER;
ALTER TABLE process ADD COLUMN spread INTEGER NOT NULL DEFAULT 0;
ALTER TABLE process ADD COLUMN decided_at INTEGER;

-- Verifications do not wait behind polls, nor one partition's outcomes behind another's.
CREATE INDEX process_verification ON process (partition, due_at) WHERE state IN (0, 2);
CREATE INDEX process_outcome_of ON process (partition, due_at) WHERE state = 3;
CREATE INDEX lease_due ON lease (partition, due_at);

-- The progress of the last run that corrects due times; see `Store::correct_due_times`. There is one row.
CREATE TABLE clamp_run (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    under_way INTEGER NOT NULL DEFAULT 0,
    up_to     BLOB    NOT NULL DEFAULT x'',
    -- The jump of the store's clock that the run is for, and the sum of those of all runs.
    jump      INTEGER NOT NULL DEFAULT 0,
    corrected INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO clamp_run (one) VALUES (1);
