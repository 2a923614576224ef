//! The names of clients, and when their OPs last refused them.

use rusqlite::{Connection, OptionalExtension as _, named_params};

use super::partition_in;
use crate::store::sqlite::moment::Moment;
use crate::store::{Acceptance, ClientNote, KnownClient, Partition};

pub(in crate::store::sqlite) fn note_clients(
    connection: &Connection,
    now: Moment,
    clients: &[ClientNote],
) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO client (partition, issuer, client_id) VALUES (:partition, :issuer, :client_id) ON CONFLICT DO NOTHING",
    )?;
    let mut mark =
        connection.prepare_cached("UPDATE client SET refused_at = :refused_at WHERE partition = :partition")?;
    for client in clients {
        let partition = client.partition.0;
        add.execute(named_params! {
            ":partition": partition,
            ":issuer": client.issuer,
            ":client_id": client.client_id,
        })?;
        let refused_at = match client.acceptance {
            Acceptance::Unchanged => continue,
            Acceptance::Refused => Some(now.0),
            Acceptance::Accepted => None,
        };
        mark.execute(named_params! { ":refused_at": refused_at, ":partition": partition })?;
    }
    Ok(())
}

pub(in crate::store::sqlite) fn known_clients(
    connection: &Connection,
    now: Moment,
    partitions: &[Partition],
) -> rusqlite::Result<Vec<KnownClient>> {
    let mut find = connection.prepare_cached("SELECT * FROM client WHERE partition = ?")?;
    let mut known = Vec::new();
    for partition in partitions {
        let found = find.query_row([partition.0], |row| {
            let refused_at: Option<i64> = row.get("refused_at")?;
            Ok(KnownClient {
                partition: partition_in(row)?,
                issuer: row.get("issuer")?,
                client_id: row.get("client_id")?,
                refused_ago: refused_at.map(|at| now.since(at).unwrap_or_default()),
            })
        });
        known.extend(found.optional()?);
    }
    Ok(known)
}
