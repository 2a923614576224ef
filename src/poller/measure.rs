//! The metrics, for a recorder of the `metrics` facade (feature `metrics`). Without the feature nothing is recorded.

use std::time::Duration;

use crate::client::{Client, Outcome};
use crate::error::Verdict;
use crate::pending::Answer;
use crate::store::{Partition, PartitionStats};

/// Polls, by answer.
#[cfg(feature = "metrics")]
const POLLS: &str = "openid_deferred_polls_total";
/// The duration of polls.
#[cfg(feature = "metrics")]
const POLL_SECONDS: &str = "openid_deferred_poll_seconds";
/// How much later than due polls were sent.
#[cfg(feature = "metrics")]
const LATENESS_SECONDS: &str = "openid_deferred_lateness_seconds";
/// Polls in flight.
#[cfg(feature = "metrics")]
const POLLS_IN_FLIGHT: &str = "openid_deferred_polls_in_flight";
/// Exchanged codes and other requests that the OP may defer, by result.
#[cfg(feature = "metrics")]
const EXCHANGES: &str = "openid_deferred_exchanges_total";
/// Ended sign-ins, by outcome.
#[cfg(feature = "metrics")]
const OUTCOMES: &str = "openid_deferred_outcomes_total";
/// Acknowledged outcomes.
#[cfg(feature = "metrics")]
const ACKNOWLEDGED: &str = "openid_deferred_acknowledged_total";
/// Whether the OP refuses the client.
#[cfg(feature = "metrics")]
const CLIENT_REFUSED: &str = "openid_deferred_client_refused";
/// Ping Callbacks, by the status of the response.
#[cfg(feature = "metrics")]
const PINGS: &str = "openid_deferred_pings_total";
/// Events that operators should be alerted to, by kind.
#[cfg(feature = "metrics")]
const ALERTS: &str = "openid_deferred_alerts_total";
/// Whether the OP gives no usable answers to polls.
#[cfg(feature = "metrics")]
const OP_UNREACHABLE: &str = "openid_deferred_op_unreachable";
/// Sign-ins in the store, by state.
#[cfg(feature = "metrics")]
const SIGN_INS: &str = "openid_deferred_sign_ins";
/// How long the oldest sign-in has been due.
#[cfg(feature = "metrics")]
const OVERDUE_SECONDS: &str = "openid_deferred_overdue_seconds";
/// How long ago the oldest unacknowledged outcome was decided.
#[cfg(feature = "metrics")]
const UNDELIVERED_SECONDS: &str = "openid_deferred_undelivered_seconds";
/// Rows that were set aside, because their sealed bodies are missing.
#[cfg(feature = "metrics")]
const SET_ASIDE_ROWS: &str = "openid_deferred_set_aside_rows";
/// Rows that this replica cannot open, by reason.
#[cfg(feature = "metrics")]
const UNREADABLE_ROWS: &str = "openid_deferred_unreadable_rows";
/// Rows of clients that the poller does not have.
#[cfg(feature = "metrics")]
const UNKNOWN_CLIENT_ROWS: &str = "openid_deferred_unknown_client_rows";
/// Failed calls to the store.
#[cfg(feature = "metrics")]
const STORE_ERRORS: &str = "openid_deferred_store_errors_total";
/// Panics that the poller caught.
#[cfg(feature = "metrics")]
const PANICS: &str = "openid_deferred_panics_total";
/// Whether the client pauses because of `Retry-After`.
#[cfg(feature = "metrics")]
const PAUSED: &str = "openid_deferred_paused";

/// The metrics of one client.
pub(super) struct Measure {
    #[cfg(feature = "metrics")]
    labels: [metrics::Label; 2],
}

// Without the feature the arguments are unused.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables, clippy::unused_self))]
impl Measure {
    pub(super) fn of(client: &Client) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            labels: [
                metrics::Label::new("issuer", client.issuer().to_owned()),
                metrics::Label::new("client_id", client.client_id().to_owned()),
            ],
        }
    }

    /// A poll is sent, `late` after it was due.
    pub(super) fn poll_sent(&self, late: Duration) {
        #[cfg(feature = "metrics")]
        metrics::histogram!(LATENESS_SECONDS, self.labels.iter()).record(late);
    }

    /// A poll was answered or failed.
    pub(super) fn polled(&self, answer: &Answer, took: Duration) {
        #[cfg(feature = "metrics")]
        {
            metrics::histogram!(POLL_SECONDS, self.labels.iter()).record(took);
            self.count(POLLS, "answer", answer_name(answer));
        }
    }

    pub(super) fn in_flight(&self, polls: usize) {
        #[cfg(feature = "metrics")]
        metrics::gauge!(POLLS_IN_FLIGHT, self.labels.iter()).set(u32::try_from(polls).unwrap_or(u32::MAX));
    }

    /// A code was exchanged: `deferred`, `complete`, `kept`, `refused`, `unknown`, or `unsent`.
    pub(super) fn exchanged(&self, result: &'static str) {
        #[cfg(feature = "metrics")]
        self.count(EXCHANGES, "result", result);
    }

    pub(super) fn decided(&self, outcome: &Outcome) {
        #[cfg(feature = "metrics")]
        self.count(OUTCOMES, "outcome", outcome.name());
    }

    pub(super) fn set_refused(&self, is_refused: bool) {
        #[cfg(feature = "metrics")]
        metrics::gauge!(CLIENT_REFUSED, self.labels.iter()).set(u32::from(is_refused));
    }

    pub(super) fn set_paused(&self, is_paused: bool) {
        #[cfg(feature = "metrics")]
        metrics::gauge!(PAUSED, self.labels.iter()).set(u32::from(is_paused));
    }

    /// Whether the OP gives no usable answers.
    pub(super) fn set_unreachable(&self, is_unreachable: bool) {
        #[cfg(feature = "metrics")]
        metrics::gauge!(OP_UNREACHABLE, self.labels.iter()).set(u32::from(is_unreachable));
    }

    /// The client's rows in the store.
    pub(super) fn counted(&self, rows: &PartitionStats) {
        #[cfg(feature = "metrics")]
        {
            let states = [
                ("exchanging", rows.exchanging),
                ("waiting", rows.waiting),
                ("answered", rows.answered),
                ("decided", rows.decided),
            ];
            for (state, rows) in states {
                metrics::gauge!(SIGN_INS, self.with("state", state).iter()).set(gauge_of(rows));
            }
            metrics::gauge!(SET_ASIDE_ROWS, self.labels.iter()).set(gauge_of(rows.set_aside));
            metrics::gauge!(OVERDUE_SECONDS, self.labels.iter()).set(rows.overdue.unwrap_or_default());
            metrics::gauge!(UNDELIVERED_SECONDS, self.labels.iter()).set(rows.undelivered.unwrap_or_default());
        }
    }

    /// Resets the gauges of a client that was just added or removed.
    pub(super) fn reset(&self, partition: Partition) {
        self.set_refused(false);
        self.set_paused(false);
        self.set_unreachable(false);
        self.counted(&PartitionStats::empty(partition));
    }

    #[cfg(feature = "metrics")]
    fn count(&self, name: &'static str, label: &'static str, value: &'static str) {
        metrics::counter!(name, self.with(label, value).iter()).increment(1);
    }

    /// The labels of the client and one more.
    #[cfg(feature = "metrics")]
    fn with(&self, label: &'static str, value: &'static str) -> [metrics::Label; 3] {
        let [issuer, client_id] = self.labels.clone();
        [issuer, client_id, metrics::Label::from_static_parts(label, value)]
    }
}

/// A number of rows as the value of a gauge.
#[cfg(feature = "metrics")]
fn gauge_of(rows: u64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

/// An outcome was acknowledged.
pub(super) fn acknowledged() {
    #[cfg(feature = "metrics")]
    metrics::counter!(ACKNOWLEDGED).increment(1);
}

/// A Ping Callback was answered with this status.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
pub(super) fn pinged(status: u16) {
    #[cfg(feature = "metrics")]
    metrics::counter!(PINGS, "status" => status.to_string()).increment(1);
}

/// Something happened that operators should be alerted to.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
pub(super) fn alerted(alert: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(ALERTS, "alert" => alert).increment(1);
}

/// The numbers of rows that this replica cannot open, because their key is missing or their format is too new.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
pub(super) fn unreadable_rows(missing_key: u64, newer_format: u64) {
    #[cfg(feature = "metrics")]
    for (reason, rows) in [("missing_key", missing_key), ("newer_format", newer_format)] {
        metrics::gauge!(UNREADABLE_ROWS, "reason" => reason).set(gauge_of(rows));
    }
}

/// The number of rows of clients that the poller does not have.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
pub(super) fn unknown_client_rows(rows: u64) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(UNKNOWN_CLIENT_ROWS).set(gauge_of(rows));
}

/// A store operation failed.
pub(super) fn store_failed() {
    #[cfg(feature = "metrics")]
    metrics::counter!(STORE_ERRORS).increment(1);
}

/// Code panicked while it worked for the poller.
pub(super) fn panicked() {
    #[cfg(feature = "metrics")]
    metrics::counter!(PANICS).increment(1);
}

/// Describes the metrics to the recorder. Call it when a recorder may be installed.
pub(super) fn describe() {
    #[cfg(feature = "metrics")]
    {
        use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
        describe_counter!(POLLS, Unit::Count, "Polls, by answer");
        describe_histogram!(POLL_SECONDS, Unit::Seconds, "Duration of polls");
        describe_histogram!(LATENESS_SECONDS, Unit::Seconds, "How much later than due polls were sent");
        describe_gauge!(POLLS_IN_FLIGHT, Unit::Count, "Polls in flight in this replica");
        describe_counter!(
            EXCHANGES,
            Unit::Count,
            "Exchanged codes and other requests that the OP may defer, by result"
        );
        describe_counter!(OUTCOMES, Unit::Count, "Ended sign-ins, by outcome");
        describe_counter!(ACKNOWLEDGED, Unit::Count, "Acknowledged outcomes");
        describe_gauge!(CLIENT_REFUSED, Unit::Count, "1 while the OP refuses the client, as far as this replica knows");
        describe_counter!(PINGS, Unit::Count, "Ping Callbacks, by the status of the response");
        describe_counter!(ALERTS, Unit::Count, "Events that operators should be alerted to, by kind");
        describe_gauge!(OP_UNREACHABLE, Unit::Count, "1 while the OP gives this replica no usable answers to polls");
        describe_gauge!(SIGN_INS, Unit::Count, "Sign-ins in the store, by state");
        describe_gauge!(OVERDUE_SECONDS, Unit::Seconds, "How long the oldest sign-in has been due");
        describe_gauge!(UNDELIVERED_SECONDS, Unit::Seconds, "Age of the oldest unacknowledged outcome");
        describe_gauge!(
            SET_ASIDE_ROWS,
            Unit::Count,
            "Rows that were set aside, because their sealed bodies are missing"
        );
        describe_gauge!(UNREADABLE_ROWS, Unit::Count, "Rows that this replica cannot open, by reason");
        describe_gauge!(UNKNOWN_CLIENT_ROWS, Unit::Count, "Rows of clients that the poller does not have");
        describe_counter!(STORE_ERRORS, Unit::Count, "Failed calls to the store");
        describe_counter!(PANICS, Unit::Count, "Panics of the store, a signer or other code that the poller caught");
        describe_gauge!(PAUSED, Unit::Count, "1 while the client pauses because of Retry-After");
    }
}

/// The name of an answer to a poll in logs and metrics.
pub(super) fn answer_name(answer: &Answer) -> &'static str {
    match answer.verdict() {
        None => "success",
        Some(Verdict::Pending) => "pending",
        Some(Verdict::SlowDown) => "slow_down",
        Some(Verdict::Denied) => "denied",
        Some(Verdict::Expired) => "expired",
        Some(Verdict::GrantRefused) => "failed",
        Some(Verdict::ClientRefused | Verdict::ScopeRefused) => "refused",
        Some(Verdict::OtherwiseRefused | Verdict::NotProcessed | Verdict::MayBeLost) => "transient_error",
    }
}
