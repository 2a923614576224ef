//! The names of clients, as pollers have recorded them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::store::{KnownClient, Partition, PartitionStats, Store};

/// How long a note that the OP refuses a client holds. While the OP refuses it, pollers repeat the note every minute.
const REFUSAL: Duration = Duration::from_secs(180);
/// The number of clients that one call of the store looks up.
const CLIENTS: usize = 1_000;

/// The sign-ins of one client.
///
/// Serialized, the members of [`rows`](Self::rows) stand beside the others.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientRows {
    /// The issuer of its OP; `None` if no poller has recorded it.
    pub issuer: Option<String>,
    /// Its client identifier; `None` in the same case.
    pub client_id: Option<String>,
    /// Whether a poller has noted in the last three minutes that the OP refuses the client.
    pub is_refused: bool,
    /// The numbers, with that of the client.
    #[serde(flatten)]
    pub rows: PartitionStats,
}

impl ClientRows {
    fn of(rows: PartitionStats, client: Option<&KnownClient>) -> Self {
        Self {
            issuer: client.map(|client| client.issuer.clone()),
            client_id: client.map(|client| client.client_id.clone()),
            is_refused: client.is_some_and(is_refused),
            rows,
        }
    }
}

/// Whether the OP refuses the client, as pollers have noted.
pub(super) fn is_refused(client: &KnownClient) -> bool {
    client.refused_ago.is_some_and(|ago| ago < REFUSAL)
}

/// The clients that were looked up.
pub(crate) struct Clients<'a> {
    store: &'a dyn Store,
    known: BTreeMap<Partition, KnownClient>,
    asked: BTreeSet<Partition>,
}

impl<'a> Clients<'a> {
    pub(crate) fn of(store: &'a dyn Store) -> Self {
        Self { store, known: BTreeMap::new(), asked: BTreeSet::new() }
    }

    /// Looks up clients. Their names are a convenience, so a failure is only logged: without privileges on their table,
    /// or on tables of an older release, everything else works.
    pub(crate) async fn look_up(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        let new: Vec<_> = partitions.into_iter().filter(|partition| self.asked.insert(*partition)).collect();
        for partitions in new.chunks(CLIENTS) {
            match self.store.known_clients(partitions.to_vec()).await {
                Ok(known) => self.known.extend(known.into_iter().map(|client| (client.partition, client))),
                Err(error) => {
                    let error = Error::from(error);
                    tracing::warn!(error = %error, "the names of clients could not be read; their numbers are shown");
                    return;
                }
            }
        }
    }

    pub(crate) fn get(&self, partition: Partition) -> Option<&KnownClient> {
        self.known.get(&partition)
    }

    /// Issuer, client identifier and number of a client, for a sentence.
    pub(crate) fn name(&self, partition: Partition) -> String {
        match self.get(partition) {
            Some(client) => format!("{} at {} (number {})", client.client_id, client.issuer, partition.0),
            None => format!("number {}", partition.0),
        }
    }

    pub(super) fn with_names(&self, stats: Vec<PartitionStats>) -> Vec<ClientRows> {
        stats.into_iter().map(|rows| ClientRows::of(rows, self.get(rows.partition))).collect()
    }
}
