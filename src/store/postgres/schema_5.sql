
-- Version 5 only adds to version 4. Replicas of releases that know version 3 or 4 continue to work, so the migration
-- needs no pause. It writes no rows, and waits only for queries of the view. To run it separately on tables of version
-- 4, run `schema_5.sql` like `schema.sql`. Then grant the application's role SELECT, INSERT, UPDATE and DELETE on
-- `client`.

-- The names of clients, for operators. Pollers record those of their clients. A name stays when its rows are gone.
CREATE TABLE IF NOT EXISTS client (
    partition  bigint PRIMARY KEY,
    issuer     text   NOT NULL,
    client_id  text   NOT NULL,
    -- When a poller last noted that the OP refuses the client; null if none did.
    refused_at timestamptz
);

-- For operators, with readable names; see docs/operations/database.md. The program does not use it.
CREATE OR REPLACE VIEW sign_ins AS
    SELECT rtrim(translate(encode(id, 'base64'), '+/', '-_'), '=') AS id,
           sign_in.partition AS client,
           CASE state WHEN 0 THEN 'exchanging' WHEN 1 THEN 'waiting' WHEN 2 THEN 'answered' WHEN 3 THEN 'decided'
                      ELSE 'acknowledged' END AS state,
           started_at,
           expires_at,
           CASE WHEN due_at = 'infinity' THEN NULL
                WHEN lease_ends_at > due_at
                THEN GREATEST(lease_ends_at, LEAST(lease_ends_at + poll_interval, expires_at - interval '5 seconds'))
                ELSE due_at END AS due_at,
           NULLIF(lease_ends_at, '-infinity') AS leased_until,
           decided_at,
           attempts,
           CASE cancellation WHEN 0 THEN 'none' WHEN 1 THEN 'requested' ELSE 'told' END AS cancellation,
           due_at = 'infinity' AS is_set_aside,
           to_timestamp((known ->> 'hrd')::double precision) AS last_answer_at,
           COALESCE((known ->> 'trb')::integer, 0) AS troubles,
           known -> 'lt' ->> 'k' AS trouble,
           (known -> 'lt' ->> 's')::integer AS trouble_status,
           known -> 'lt' ->> 'c' AS trouble_code,
           to_timestamp((known -> 'lt' ->> 't')::double precision) AS trouble_at,
           lpad(to_hex(key), 8, '0') AS key_id,
           client.issuer,
           client.client_id,
           client.refused_at AS client_refused_at
    FROM (
        SELECT process.*, origin.started_at, CASE WHEN schedule LIKE '{%}' THEN schedule::jsonb END AS known
        FROM process LEFT JOIN origin USING (id)
    ) AS sign_in LEFT JOIN client ON client.partition = sign_in.partition;

INSERT INTO schema_version (version, oldest) VALUES (5, 3) ON CONFLICT DO NOTHING;
