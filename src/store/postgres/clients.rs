//! The names of clients, and when their OPs last refused them.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::row::partition_in;
use super::session::{Session, value};
use crate::store::{Acceptance, ClientNote, KnownClient, Partition, StoreError};

/// Adds those that are not known; others cause no write. The order prevents deadlocks of replicas that start together.
const ADD: &str = "
INSERT INTO @.client (partition, issuer, client_id)
SELECT DISTINCT ON (partition) partition, issuer, client_id
FROM UNNEST($1::bigint[], $2::text[], $3::text[]) AS noted (partition, issuer, client_id)
WHERE NOT EXISTS (SELECT 1 FROM @.client AS known WHERE known.partition = noted.partition)
ORDER BY partition
ON CONFLICT DO NOTHING";

const MARK: &str = "
WITH clock AS MATERIALIZED (SELECT @.clock() AS now),
locked AS MATERIALIZED (
    SELECT partition FROM @.client WHERE partition = ANY($1::bigint[] || $2::bigint[]) ORDER BY partition FOR UPDATE
)
UPDATE @.client AS client SET refused_at = CASE WHEN client.partition = ANY($1::bigint[]) THEN now END
FROM clock, locked WHERE client.partition = locked.partition";

pub(super) async fn note(session: &Session<'_>, clients: &[ClientNote]) -> Result<(), StoreError> {
    let partitions: Vec<_> = clients.iter().map(|client| client.partition.0).collect();
    let issuers: Vec<_> = clients.iter().map(|client| client.issuer.as_str()).collect();
    let client_ids: Vec<_> = clients.iter().map(|client| client.client_id.as_str()).collect();
    let parameters =
        [(&partitions as _, Type::INT8_ARRAY), (&issuers as _, Type::TEXT_ARRAY), (&client_ids as _, Type::TEXT_ARRAY)];
    session.query(ADD, &parameters).await?;
    let those = |acceptance| {
        let clients = clients.iter().filter(move |client| client.acceptance == acceptance);
        clients.map(|client| client.partition.0).collect::<Vec<_>>()
    };
    let (refused, accepted) = (those(Acceptance::Refused), those(Acceptance::Accepted));
    if !refused.is_empty() || !accepted.is_empty() {
        session.query(MARK, &[(&refused, Type::INT8_ARRAY), (&accepted, Type::INT8_ARRAY)]).await?;
    }
    Ok(())
}

const KNOWN: &str = "
SELECT partition, issuer, client_id, refused_at, clock.now
FROM @.client AS client, (SELECT @.clock() AS now OFFSET 0) AS clock
WHERE partition = ANY($1::bigint[])";

pub(super) async fn known(session: &Session<'_>, partitions: &[Partition]) -> Result<Vec<KnownClient>, StoreError> {
    let partitions: Vec<_> = partitions.iter().map(|partition| partition.0).collect();
    session.query(KNOWN, &[(&partitions, Type::INT8_ARRAY)]).await?.iter().map(known_in).collect()
}

fn known_in(row: &Row) -> Result<KnownClient, StoreError> {
    let (now, refused_at): (SystemTime, Option<SystemTime>) = (value(row, "now")?, value(row, "refused_at")?);
    Ok(KnownClient {
        partition: partition_in(row)?,
        issuer: value(row, "issuer")?,
        client_id: value(row, "client_id")?,
        refused_ago: refused_at.map(|at| now.duration_since(at).unwrap_or_default()),
    })
}
