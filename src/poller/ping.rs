//! How a poller processes a ping that the receiver has authenticated.

use std::time::Duration;

use super::event::Event;
use super::handle::Poller;
use super::measure;
use crate::client::Client;
use crate::clock::Clock;
use crate::error::Error;
use crate::keyring::Keyring;
use crate::store::{Partition, Ping, Pinged, ProcessId};

impl Poller {
    pub(crate) fn keyring(&self) -> &Keyring {
        &self.shared().keyring
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.shared().clock
    }

    /// Counts an answer of the receiver.
    pub(crate) fn count_ping(&self, status: u16) {
        measure::pinged(status);
    }

    /// The client that a notification token names.
    pub(crate) fn client_of_partition(&self, number: i64) -> Option<Client> {
        self.shared().tenant(Partition(number)).map(|tenant| tenant.client.clone())
    }

    /// The client of this issuer and client identifier.
    pub(crate) fn client_named(&self, issuer: &str, client_id: &str) -> Result<Client, Error> {
        Ok(self.shared().tenant_of(issuer, client_id)?.client.clone())
    }

    /// Records a ping for the sign-in that the token names or, without one, for the sign-in with this
    /// identifier. Returns `false` if the two do not belong together. It does not wait for the poll.
    pub(crate) async fn pinged(
        &self,
        client: &Client,
        process: Option<[u8; 16]>,
        identifier: &str,
    ) -> Result<bool, Error> {
        let shared = self.shared();
        let tenant = shared.tenant_of(client.issuer(), client.client_id())?;
        let ping = Ping { id: process.map(ProcessId::from_bytes), lookups: shared.lookups(&tenant, identifier)? };
        match shared.store.ping(ping).await? {
            Pinged::Recorded { id, .. } => {
                shared.emit(Event::Pinged { id });
                shared.wake(tenant.partition, Duration::ZERO);
                Ok(true)
            }
            // There is no poll to bring forward, which is not a mistake of the OP.
            Pinged::Ended(_) | Pinged::NotFound => Ok(true),
            Pinged::Mismatch => Ok(false),
        }
    }
}
