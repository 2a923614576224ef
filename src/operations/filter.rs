//! Which sign-ins to list.

use std::time::Duration;

use serde::Serialize;

use super::overview::Overview;
use crate::client::Client;
use crate::keyring::key_of_name;
use crate::store::{Partition, Place, State};

/// The number of sign-ins of a page, unless the filter says otherwise.
const PAGE: usize = 50;
/// The maximum number of sign-ins of a page.
const LARGEST_PAGE: usize = 1_000;

/// Which sign-ins to list; all conditions have to hold. Without conditions, all sign-ins are listed, tombstones
/// included.
///
/// ```
/// use std::time::Duration;
/// use openid_deferred::operations::Filter;
/// use openid_deferred::store::State;
///
/// // The sign-ins of a client that have been due for an hour, the longest first.
/// let late = Filter::new().client("https://op.example", "my-client").overdue_for(Duration::from_secs(3600));
/// // Pending for more than a week.
/// let old = Filter::new().state(State::Waiting).older_than(Duration::from_secs(7 * 86_400));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Filter {
    pub(super) states: Vec<State>,
    pub(super) older_than: Option<Duration>,
    pub(super) overdue_for: Option<Duration>,
    pub(super) partition: Option<Partition>,
    pub(super) keys: Option<Vec<[u8; 4]>>,
    pub(super) is_stuck: bool,
    pub(super) after: Option<Place>,
    pub(super) limit: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter {
    /// Creates a filter without conditions, for pages of 50 sign-ins.
    pub fn new() -> Self {
        Self {
            states: Vec::new(),
            older_than: None,
            overdue_for: None,
            partition: None,
            keys: None,
            is_stuck: false,
            after: None,
            limit: PAGE,
        }
    }

    /// Only sign-ins in this state. Several calls allow several states.
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Only sign-ins that started at least this long ago, or before the store recorded that.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Only sign-ins that have been due for at least this long, for a poll, a verification or a delivery, and that no
    /// replica has claimed. They are listed in the order in which they became due.
    pub fn overdue_for(mut self, time: Duration) -> Self {
        self.overdue_for = Some(time);
        self
    }

    /// Only sign-ins of the client with this issuer and client identifier.
    pub fn client(self, issuer: &str, client_id: &str) -> Self {
        self.partition(Partition(Client::partition_of(issuer, client_id)))
    }

    /// Only sign-ins of the client with this number, which [`Overview::client`] and
    /// [`Operations::stats`](super::Operations::stats) show.
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Only sign-ins that were sealed with the key of this identifier, as
    /// [`SealingKey::key_id`](crate::SealingKey::key_id) and [`Overview::key_id`] show it. Several calls allow several
    /// keys. A text that is not such an identifier finds nothing.
    pub fn key_id(mut self, key_id: &str) -> Self {
        self.keys.get_or_insert_default().extend(key_of_name(key_id));
        self
    }

    /// Only sign-ins that do not go on by themselves, or whose polls keep failing; see [`Stuck`](super::Stuck).
    pub fn stuck(mut self) -> Self {
        self.is_stuck = true;
        self
    }

    /// Continues after another page, at its [`next`](SignIns::next).
    pub fn after(mut self, place: Place) -> Self {
        self.after = Some(place);
        self
    }

    /// Sets the maximum number of sign-ins of the page: 1 to 1,000, by default 50.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, LARGEST_PAGE);
        self
    }
}

/// A page of sign-ins.
#[non_exhaustive]
#[derive(Debug, Clone, Serialize)]
pub struct SignIns {
    /// The sign-ins, in the order of their identifiers, or of their due times with [`Filter::overdue_for`].
    pub sign_ins: Vec<Overview>,
    /// Where the next page begins, for [`Filter::after`]; `None` if this is the last one. A page that is not full, or
    /// even empty, can have a next one.
    pub next: Option<Place>,
}
