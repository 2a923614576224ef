//! The durable poller: pending sign-ins that survive restarts, outages and the loss of machines.
//!
//! A [`Poller`] uses a [`Store`](crate::store::Store) and has one [`Client`](crate::Client) or many:
//!
//! | | |
//! |---|---|
//! | a user returns | [`Poller::authorization_response`](crate::Poller::authorization_response) stores the sign-in, exchanges the code, stores the answer |
//! | tokens without a user | [`Poller::request_tokens`](crate::Poller::request_tokens) stores the request, sends it, stores the answer |
//! | a pending sign-in from elsewhere | [`Poller::track`](crate::Poller::track) |
//! | a Ping Callback | [`ping::Receiver`](crate::ping::Receiver), which brings the next poll forward |
//! | the outcome | [`Poller::outcomes`](crate::Poller::outcomes), a [`Delivery`](crate::Delivery) until it is [acknowledged](crate::Delivery::acknowledge) |
//! | a status page for the user | [`Poller::status`](crate::Poller::status) |
//! | logs, metrics, alerts | [`Poller::events`](crate::Poller::events), [`Poller::stats`](crate::Poller::stats) |
//! | cancellation, erasure | [`Poller::cancel`](crate::Poller::cancel), [`Poller::forget`](crate::Poller::forget) |
//! | a new sealing key | [`Poller::rotate`](crate::Poller::rotate), or [`rotate`] without a poller |
//! | a check of the rows and their keys | [`check`] |
//!
//! Start with [`Poller::builder`](crate::Poller::builder).
//!
//! Any number of replicas share a store; they claim rows and exchange no messages. A replica that only
//! [connects](PollerBuilder::connect) handles users and pings and leaves polling to the others. [`Limits`] bound the
//! load of each replica on an OP.
//!
//! # Alerts
//!
//! Alert an operator on these [events](Event), each of which is also logged as an error or a warning:
//!
//! | event | what to do |
//! |---|---|
//! | [`ClientRefused`](Event::ClientRefused) | correct the client's credentials or registration, then call [`resume`](crate::Poller::resume); its sign-ins stay pending |
//! | [`Panicked`](Event::Panicked) | fix what the panic message names; nothing is lost |
//! | [`StoreFailed`](Event::StoreFailed) | restore the database; nothing is lost |
//! | [`DeliveryOverdue`](Event::DeliveryOverdue) | check the consumer of outcomes: it hangs, or takes very long |
//! | [`OutcomeExpired`](Event::OutcomeExpired) | check the consumer of outcomes; this user has to sign in again |
//! | [`ClockJumped`](Event::ClockJumped) | check the clock of the store's machine |
//! | [`OpUnreachable`](Event::OpUnreachable) | ask the OP why it does not answer; the sign-ins stay pending |
//! | [`UnknownClient`](Event::UnknownClient) | add the clients whose sign-ins are in the store |
//! | [`MissingKey`](Event::MissingKey) | add the key that sealed the rows to the keyring |
//! | [`NewerFormat`](Event::NewerFormat) | deploy the release that wrote the rows, unless it is being rolled out |
//! | [`Unreadable`](Event::Unreadable) | add the key that sealed the row to the keyring, or deploy the release that wrote it |
//! | [`UnknownError`](Event::UnknownError) | ask the OP what it means |
//! | [`Stale`](Event::Stale) | ask the OP about the sign-in, or [forget](crate::Poller::forget) it |
//!
//! [`Paused`](Event::Paused) is logged as a warning too, but needs no action unless it lasts: the OP requested the pause
//! with `Retry-After`.
//!
//! [`Poller::stats`](crate::Poller::stats) shows with two numbers whether the work is done in time. The age of a
//! client's oldest overdue row shows whether polling keeps up. The age of its oldest unacknowledged outcome shows
//! whether the application keeps up.

mod accept;
mod acceptance;
mod bounded;
mod builder;
mod cancel;
mod cancellations;
mod check;
mod circuit_breaker;
pub(crate) mod delivery;
mod engine;
mod event;
mod events;
pub(crate) mod handle;
mod handling;
mod holdings;
mod in_flight;
mod job;
mod limits;
mod measure;
mod notes;
mod outcomes;
mod pause;
mod ping;
mod reachability;
mod record;
mod reminders;
mod rotate;
mod shared;
mod status;
mod store_clock;
mod tenant;
mod tenants;
mod watch;
mod watch_memory;

pub use accept::{AcceptedSignIn, AcceptedTokenRequest};
pub use builder::PollerBuilder;
pub use check::check;
pub use event::{Event, ProgressText};
pub use events::Events;
pub use handle::ClientStats;
pub use limits::{LimitedClient, Limits};
pub use outcomes::Outcomes;
pub use rotate::{KeyUse, Rotation, RotationProgress, rotate};
pub use status::{CancellationStatus, Status};

pub(crate) use handle::Poller;

/// Opens what is sealed for a row and seals it again, for the fuzzer.
#[cfg(any(fuzzing, test))]
pub(crate) fn reopened(
    keyring: &crate::keyring::Keyring,
    random: &dyn crate::random::Random,
    id: crate::store::ProcessId,
    body: &crate::store::SealedBody,
) -> Result<crate::store::SealedBody, crate::error::Error> {
    record::Record::open(keyring, id, body)?.seal(keyring, random, id)
}
