-- Times are microseconds since 1970, durations are microseconds.

-- The scheduling data of a sign-in. Most answers of an OP change nothing else, so these rows are narrow.
CREATE TABLE process (
    slot         INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    partition    INTEGER NOT NULL,
    state        INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4),
    session      BLOB    UNIQUE,
    lookup       BLOB,
    due_at       INTEGER NOT NULL,
    not_before   INTEGER,
    pinged_at    INTEGER,
    interval     INTEGER NOT NULL,
    epoch        INTEGER NOT NULL DEFAULT 0,
    attempts     INTEGER NOT NULL DEFAULT 0,
    provisional  INTEGER NOT NULL DEFAULT 0,
    cancellation INTEGER NOT NULL DEFAULT 0,
    schedule     TEXT    NOT NULL,
    format       INTEGER NOT NULL,
    key          INTEGER NOT NULL,
    first_key    INTEGER NOT NULL,
    revision     INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX process_lookup ON process (lookup) WHERE lookup IS NOT NULL;
CREATE INDEX process_work ON process (partition, due_at) WHERE state <= 2;
CREATE INDEX process_outcome ON process (due_at) WHERE state = 3;
CREATE INDEX process_tombstone ON process (due_at) WHERE state = 4;

-- The current claims. A claim writes only here, into a few pages. So a poll rewrites its row in `process`, and moves it
-- in the index, once instead of twice. The columns of a row here replace those of the row in `process`.
CREATE TABLE lease (
    slot         INTEGER PRIMARY KEY,
    partition    INTEGER NOT NULL,
    leased_until INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL
) STRICT;

-- A foreign key would look up the row in `process` at every claim, although the claim has just read it.
CREATE TRIGGER process_forgotten AFTER DELETE ON process BEGIN
    DELETE FROM lease WHERE slot = OLD.slot;
END;

-- The effective columns.
CREATE VIEW current AS
    SELECT slot, id, process.partition AS partition, state, coalesce(lease.due_at, process.due_at) AS due_at, leased_until,
           coalesce(lease.epoch, process.epoch) AS epoch, provisional, cancellation, schedule, format, key, revision
    FROM process LEFT JOIN lease USING (slot);

-- The sealed data of the application and the OP. Tombstones have none.
CREATE TABLE sealed (
    slot INTEGER PRIMARY KEY REFERENCES process (slot) ON DELETE CASCADE,
    body BLOB    NOT NULL
) STRICT;
