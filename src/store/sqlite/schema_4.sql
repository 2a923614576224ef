-- Version 4 only adds: releases that know version 1, 2 or 3 continue to work beside those that know this one.

-- The names of clients, for operators. Pollers record those of their clients. A name stays when its rows are gone.
CREATE TABLE client (
    partition  INTEGER PRIMARY KEY,
    issuer     TEXT    NOT NULL,
    client_id  TEXT    NOT NULL,
    -- When a poller last noted that the OP refuses the client; null if none did.
    refused_at INTEGER
) STRICT;

-- For operators, with readable names; see docs/operations/database.md. The program does not use it.
DROP VIEW sign_ins;
CREATE VIEW sign_ins AS
    SELECT lower(hex(id)) AS id,
           sign_in.partition AS client,
           CASE state WHEN 0 THEN 'exchanging' WHEN 1 THEN 'waiting' WHEN 2 THEN 'answered' WHEN 3 THEN 'decided'
                      ELSE 'acknowledged' END AS state,
           datetime(started_at / 1000000, 'unixepoch') AS started_at,
           datetime(expires_at / 1000000, 'unixepoch') AS expires_at,
           CASE WHEN due < 9223372036854775807 THEN datetime(due / 1000000, 'unixepoch') END AS due_at,
           datetime(leased_until / 1000000, 'unixepoch') AS leased_until,
           datetime(decided_at / 1000000, 'unixepoch') AS decided_at,
           attempts,
           CASE cancellation WHEN 0 THEN 'none' WHEN 1 THEN 'requested' ELSE 'told' END AS cancellation,
           due = 9223372036854775807 AS is_set_aside,
           datetime(json_extract(known, '$.hrd'), 'unixepoch') AS last_answer_at,
           coalesce(json_extract(known, '$.trb'), 0) AS troubles,
           json_extract(known, '$.lt.k') AS trouble,
           json_extract(known, '$.lt.s') AS trouble_status,
           json_extract(known, '$.lt.c') AS trouble_code,
           datetime(json_extract(known, '$.lt.t'), 'unixepoch') AS trouble_at,
           printf('%08x', key) AS key_id,
           client.issuer AS issuer,
           client.client_id AS client_id,
           datetime(client.refused_at / 1000000, 'unixepoch') AS client_refused_at
    FROM (
        SELECT id, process.partition AS partition, state, started_at, expires_at, leased_until, decided_at, cancellation,
               coalesce(lease.due_at, process.due_at) AS due, coalesce(lease.attempts, process.attempts) AS attempts,
               CASE WHEN json_valid(schedule) THEN schedule END AS known, key
        FROM process LEFT JOIN lease USING (slot)
    ) AS sign_in LEFT JOIN client ON client.partition = sign_in.partition;
