//! The names of clients, and when their OPs last refused them.

use std::time::Duration;

use super::Table;
use crate::store::{Acceptance, ClientNote, KnownClient, Partition};

/// A recorded client.
pub(super) struct Noted {
    issuer: String,
    client_id: String,
    refused_at: Option<Duration>,
}

impl Table {
    pub(in crate::store::memory) fn note_clients(&mut self, clients: Vec<ClientNote>, now: Duration) {
        for ClientNote { partition, issuer, client_id, acceptance } in clients {
            let noted = self.clients.entry(partition).or_insert(Noted { issuer, client_id, refused_at: None });
            match acceptance {
                Acceptance::Unchanged => {}
                Acceptance::Refused => noted.refused_at = Some(now),
                Acceptance::Accepted => noted.refused_at = None,
            }
        }
    }

    pub(in crate::store::memory) fn known_clients(&self, partitions: &[Partition], now: Duration) -> Vec<KnownClient> {
        let known = |partition: &Partition| {
            let noted = self.clients.get(partition)?;
            Some(KnownClient {
                partition: *partition,
                issuer: noted.issuer.clone(),
                client_id: noted.client_id.clone(),
                refused_ago: noted.refused_at.map(|at| now.saturating_sub(at)),
            })
        };
        partitions.iter().filter_map(known).collect()
    }
}
