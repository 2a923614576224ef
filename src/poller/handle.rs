//! The poller as the application holds it: its clients, statuses and statistics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;

use super::events::Events;
use super::limits::LimitedClient;
use super::record::{Record, Stage};
use super::shared::Shared;
use super::status::Status;
use super::tenant::Tenant;
use crate::client::Client;
use crate::error::Error;
use crate::operations::{Filter, Operations, SignIns};
use crate::pending::{InterimState, PendingAuthentication};
use crate::store::{Cancellation, Partition, PartitionStats, ProcessId, State, whole_seconds};

/// Waits for the outcomes of many sign-ins of several clients, through restarts, outages and deployments.
///
/// Pending sign-ins are stored in a [`Store`](crate::store::Store), sealed by the [`Keyring`](crate::Keyring). Any
/// number of replicas share them. Each outcome is delivered until it is
/// [acknowledged](crate::Delivery::acknowledge): at least once, and not again after that.
///
/// ```no_run
/// # async fn example(client: openid_deferred::Client, query: &str)
/// # -> Result<(), openid_deferred::Error> {
/// use openid_deferred::store::MemoryStore;
/// use openid_deferred::{Keyring, Outcome, Poller};
///
/// let poller = Poller::builder(MemoryStore::new(), Keyring::ephemeral()?).client(client.clone()).start().await?;
///
/// // When the user is redirected, and when they return:
/// let (url, session) = client.authorize().context("order 4711").start().await?;
/// let accepted = poller.authorization_response(query, session).await?;
///
/// // In another task, for as long as the application runs:
/// let mut outcomes = poller.outcomes();
/// while let Some(delivery) = outcomes.next().await {
///     if let Outcome::Approved(authentication) = delivery.outcome() {
///         println!("{:?} is for {}", delivery.context(), authentication.claims().subject());
///     }
///     // If this fails, the outcome is delivered again.
///     let _ = delivery.acknowledge().await;
/// }
/// # Ok(())
/// # }
/// ```
///
/// All clones share one poller. It stops when the last of them and of its streams of [outcomes](Self::outcomes) is
/// dropped. [`shutdown`](Self::shutdown) lets running requests finish.
#[derive(Clone)]
pub struct Poller(pub(super) Arc<Handle>);

pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Poller {
    /// Adds a client while the poller runs, or a [`LimitedClient`] with limits of its own.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if the poller already has a client with this issuer and
    /// client identifier, or a client of another OP with the same redirect URI while one of the two OPs is known not to
    /// name itself in its responses ([`SharedRedirectUri`](crate::error::ConfigurationProblem::SharedRedirectUri)).
    pub fn add_client(&self, client: impl Into<LimitedClient>) -> Result<(), Error> {
        let partition = self.shared().add(client.into())?;
        self.shared().wake(partition, Duration::ZERO);
        Ok(())
    }

    /// Replaces the client with the same issuer and client identifier while the poller runs: with new secrets, keys,
    /// certificates or other settings. Polls and exchanges in flight finish with the old client; later ones use the new
    /// one. If polling had stopped because the OP refused the client ([`Event::ClientRefused`](super::Event::ClientRefused)), it
    /// resumes. The limits of the client do not change.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::error::Misuse::UnknownClient) if there is none to replace, and
    /// [`SharedRedirectUri`](crate::error::ConfigurationProblem::SharedRedirectUri) as for
    /// [`add_client`](Self::add_client). In that case the old client stays.
    pub fn replace_client(&self, client: Client) -> Result<(), Error> {
        let shared = self.shared();
        shared.allow_for(&client);
        let former = shared.tenants().replace(client)?;
        let breaker_change = former.replaced();
        shared.emit_breaker(&former, breaker_change, "");
        shared.wake(former.partition, Duration::ZERO);
        Ok(())
    }

    /// Removes a client while the poller runs. Polls and exchanges in flight finish, and decided outcomes are
    /// delivered. Its other sign-ins stay in the store and are not polled.
    /// [`Event::UnknownClient`](super::Event::UnknownClient) reports their number within a minute, and then once an
    /// hour. They continue when the client is added again, here or in another replica; [`forget`](Self::forget) erases
    /// one.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::error::Misuse::UnknownClient).
    pub fn remove_client(&self, issuer: &str, client_id: &str) -> Result<(), Error> {
        let shared = self.shared();
        let partition = shared.tenant_of(issuer, client_id)?.partition;
        if let Some(tenant) = shared.tenants().remove(partition) {
            tenant.removed();
        }
        Ok(())
    }

    /// Returns the status of a sign-in; `None` if the store does not have it (any more).
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store); [`Sealed`](crate::ErrorKind::Sealed) for a row that another key sealed.
    pub async fn status(&self, id: ProcessId) -> Result<Option<Status>, Error> {
        let shared = self.shared();
        let Some(row) = shared.store.load(id).await? else { return Ok(None) };
        let record = row.body.as_ref().map(|body| Record::open(&shared.keyring, id, body)).transpose()?;
        let context = record.as_ref().map_or_else(Vec::new, |record| record.context.to_vec());
        let pending = record.and_then(|record| match record.stage {
            Stage::Process(pending) => Some(pending),
            Stage::Exchanging | Stage::Outcome(_) => None,
        });
        Ok(Some(Status {
            id,
            state: row.state,
            context,
            progress: pending.as_ref().and_then(PendingAuthentication::progress).map(str::to_owned),
            interaction_uri: pending.as_ref().and_then(PendingAuthentication::interaction_uri).cloned(),
            due_in: (row.state == State::Waiting).then_some(row.due_in),
            interim: pending.as_ref().map_or(InterimState::Absent, |pending| pending.interim().clone()),
            is_cancelled: row.cancellation != Cancellation::None,
            cancellation: shared.cancellation_of(&row, pending.as_ref()),
        }))
    }

    /// Erases a sign-in in any state: it is no longer polled, and nothing is delivered. Returns `false` if there was
    /// none.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn forget(&self, id: ProcessId) -> Result<bool, Error> {
        Ok(self.shared().store.forget(id).await?)
    }

    /// Returns what operators do with the store of this poller: list sign-ins, show why they wait, and repair them.
    /// Sign-ins that need a key that the keyring of this poller lacks are stuck as
    /// [`KeyMissing`](crate::operations::Stuck::KeyMissing).
    pub fn operations(&self) -> Operations {
        Operations::new(self.shared().store.clone()).with_keyring(&self.shared().keyring)
    }

    /// Returns a page of the sign-ins and requests that have this reference of the application
    /// ([`AuthorizationRequest::reference`](crate::AuthorizationRequest::reference)) and meet the conditions of the filter,
    /// whatever their client and state. They are found only while the keyring has the key
    /// that was the primary one when they started.
    ///
    /// To erase everything about a person, call [`Operations::forget`] for each of them:
    ///
    /// ```
    /// # async fn example(poller: &openid_deferred::Poller) -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::operations::Filter;
    ///
    /// loop {
    ///     let found = poller.find("account 12345678", Filter::new()).await?;
    ///     for sign_in in &found.sign_ins {
    ///         assert!(poller.operations().forget(sign_in.id).await?.is_complete());
    ///     }
    ///     if found.next.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn find(&self, reference: &str, filter: Filter) -> Result<SignIns, Error> {
        self.operations().list_referenced(self.shared().references(reference), filter).await
    }

    /// Returns a stream of the events of this replica from now on. A slow stream misses events and says how many
    /// ([`Event::Missed`](super::Event::Missed)). The stream does not keep the poller running, and ends when
    /// the poller stops.
    pub fn events(&self) -> Events {
        Events::new(self.shared().listen(), self.shared().has_stopped.subscribe())
    }

    /// Returns the number of sign-ins in each state, and the age of the oldest ones that are due.
    ///
    /// # Errors
    ///
    /// [`Store`](crate::ErrorKind::Store).
    pub async fn stats(&self) -> Result<Vec<ClientStats>, Error> {
        let shared = self.shared();
        let rows = shared.store.stats().await?;
        let now = shared.clock.monotonic();
        let of = |rows: PartitionStats| {
            let tenant = shared.tenant(rows.partition);
            let client = tenant.as_ref().map(|tenant| &tenant.client);
            ClientStats {
                issuer: client.map(|client| client.issuer().to_owned()),
                client_id: client.map(|client| client.client_id().to_owned()),
                in_flight: tenant.as_ref().map_or(0, |tenant| tenant.in_flight()),
                is_refused: tenant.as_ref().is_some_and(|tenant| tenant.breaker().is_tripped()),
                paused_for: tenant.as_ref().and_then(|tenant| tenant.pause().probe_in(now)),
                unreachable_for: tenant.as_ref().and_then(|tenant| tenant.reachability().unreachable_for(now)),
                rows,
            }
        };
        Ok(rows.into_iter().map(of).collect())
    }

    /// Polls again for a client that the OP had refused, and ends a pause because of `Retry-After`, without waiting
    /// for the next probe. A sign-in whose own poll was refused with `Retry-After` still waits.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnknownClient`](crate::error::Misuse::UnknownClient).
    pub fn resume(&self, issuer: &str, client_id: &str) -> Result<(), Error> {
        let shared = self.shared();
        let tenant = shared.tenant_of(issuer, client_id)?;
        let breaker_change = tenant.breaker().reset();
        shared.emit_breaker(&tenant, breaker_change, "");
        let change = tenant.pause().end();
        shared.emit_pause(&tenant, change);
        Ok(())
    }

    /// Stops the poller: it claims nothing new, lets running requests finish for up to `grace`, and returns when
    /// nothing runs any more. Outcome streams end, and the outcomes in their buffers are released, so that another
    /// replica can deliver them at once. Interrupted polls are taken over by another replica, or repeated after the
    /// next start.
    ///
    /// It returns after the grace period however slow the store is. Answers of the OP that are not stored by then get
    /// one more second. An answer that the store does not accept in that time is lost: a pending sign-in is polled
    /// again, and after a lost success its outcome is [`Unknown`](crate::Outcome::Unknown).
    pub async fn shutdown(&self, grace: Duration) {
        self.shared().stop.send_if_modified(|stop| stop.replace(grace).is_none());
        if let Some(task) = self.0.task.lock().await.take() {
            // The task has no result. If it panicked, that was reported.
            let _ = task.await;
        }
        self.shared().has_stopped.send_replace(true);
    }

    /// Returns when a shutdown begins.
    #[cfg(feature = "axum")]
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as this handle.
        let _ = self.shared().stop.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Shared {
    pub(super) fn add(&self, LimitedClient { client, limits }: LimitedClient) -> Result<Partition, Error> {
        let tenant = Tenant::new(client, limits.unwrap_or(self.settings.limits));
        self.allow_for(&tenant.client);
        let partition = tenant.partition;
        self.tenants().insert(tenant)?;
        Ok(partition)
    }

    /// Records how long one poll of this client can take.
    fn allow_for(&self, client: &Client) {
        let longest = u64::try_from(client.longest_poll().as_millis()).unwrap_or(u64::MAX);
        self.longest_attempt.fetch_max(longest, Ordering::Relaxed);
    }
}

/// Statistics of one client.
///
/// Serialized, durations are whole seconds, and the members of [`rows`](Self::rows) are members of the object itself.
#[non_exhaustive]
#[derive(Debug, Clone, Serialize)]
pub struct ClientStats {
    /// The OP; `None` for sign-ins of a client that this poller does not have. They are not polled: add the client.
    pub issuer: Option<String>,
    /// The client identifier; `None` in the same case.
    pub client_id: Option<String>,
    /// Polls in flight in this replica.
    pub in_flight: usize,
    /// Whether the OP refuses the client, as far as this replica knows.
    pub is_refused: bool,
    /// The time until the next probe, while the client pauses because of `Retry-After`.
    #[serde(serialize_with = "whole_seconds")]
    pub paused_for: Option<Duration>,
    /// How long the OP has given this replica no usable answer to a poll, once that was reported as
    /// [`Event::OpUnreachable`](super::Event::OpUnreachable).
    #[serde(serialize_with = "whole_seconds")]
    pub unreachable_for: Option<Duration>,
    /// The numbers from the store.
    #[serde(flatten)]
    pub rows: PartitionStats,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.send_if_modified(|stop| stop.replace(Duration::ZERO).is_none());
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Poller")
            .field("store", &self.shared().store)
            .field("keyring", &self.shared().keyring)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statistics_are_serialized_as_one_object_with_whole_seconds() {
        let rows = PartitionStats {
            waiting: 3,
            overdue: Some(Duration::from_millis(2_500)),
            ..PartitionStats::empty(Partition(7))
        };
        let stats = ClientStats {
            issuer: Some("https://op.test".to_owned()),
            client_id: Some("the-app".to_owned()),
            in_flight: 1,
            is_refused: false,
            paused_for: Some(Duration::from_secs(60)),
            unreachable_for: None,
            rows,
        };
        let expected = json!({
            "issuer": "https://op.test", "client_id": "the-app", "in_flight": 1, "is_refused": false,
            "paused_for": 60, "unreachable_for": null, "partition": "7", "exchanging": 0, "waiting": 3, "answered": 0,
            "decided": 0, "acknowledged": 0, "set_aside": 0, "overdue": 2, "undelivered": null,
        });
        assert_eq!(serde_json::to_value(&stats).unwrap(), expected);
    }
}
