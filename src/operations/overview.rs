//! What an operator sees of one sign-in.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::clock::unix_seconds;
use crate::pending::{Known, TroubleKind};
use crate::store::{Cancellation, Partition, ProcessId, RowOverview, State};

/// A sign-in that has been due for this long is stuck.
const OVERDUE: Duration = Duration::from_secs(600);
/// An outcome that was delivered this often is stuck.
const DELIVERIES: u32 = 5;
/// A sign-in with this number of polls or verifications in a row that failed is stuck.
const TROUBLES: u32 = 5;

/// What the store says about a sign-in, and why it waits. It contains no secret.
///
/// Times are those of the store's clock. Serialized, they are seconds since 1970.
#[non_exhaustive]
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// The sign-in.
    pub id: ProcessId,
    /// Its client at its OP, as a number. [`Filter::client`](super::Filter::client) computes it.
    pub client: Partition,
    /// Its state.
    pub state: State,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// Why it does not go on by itself, or goes on badly.
    pub stuck: Option<Stuck>,
    /// When it started; `None` if a release stored it that did not record this.
    #[serde(serialize_with = "time")]
    pub started_at: Option<SystemTime>,
    /// When it expires at the OP, if the OP set a limit.
    #[serde(serialize_with = "time")]
    pub expires_at: Option<SystemTime>,
    /// When the next poll, verification or delivery is due, or a tombstone is erased; `None` if it was set aside.
    #[serde(serialize_with = "time")]
    pub due_at: Option<SystemTime>,
    /// Until when a replica has claimed it for a poll or a verification. It may be past: then the replica has died.
    #[serde(serialize_with = "time")]
    pub leased_until: Option<SystemTime>,
    /// When its outcome was decided.
    #[serde(serialize_with = "time")]
    pub decided_at: Option<SystemTime>,
    /// The number of polls, verifications or deliveries in its state.
    pub attempts: u32,
    /// When the OP last answered that it has not decided.
    #[serde(serialize_with = "time")]
    pub last_answer_at: Option<SystemTime>,
    /// The number of polls or verifications in a row that failed.
    pub troubles: u32,
    /// The last of them.
    pub trouble: Option<Trouble>,
    /// How often the OP asked for slower polls.
    pub slow_downs: u32,
    /// Whether the answer to an earlier poll was lost, which may have been the success.
    pub is_answer_lost: bool,
    /// Whether the application has cancelled it.
    pub cancellation: Cancellation,
    /// Whether a success that arrives later replaces its outcome.
    pub is_provisional: bool,
    /// The identifier of the key that sealed it, as the `Debug` output of a [`SealingKey`](crate::SealingKey) shows it.
    pub key_id: String,
    /// The format of its body. A release does not process newer formats than it knows.
    pub format: u8,
}

/// What a sign-in waits for.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// The OP's answer to the code or the request. Without one, the outcome is unknown when the lease ends.
    Exchange,
    /// The OP's decision: the next poll is not due yet.
    NextPoll,
    /// The answer to a poll or the end of a verification: a replica is working on it.
    Replica,
    /// A replica that polls or verifies: it is due, and no replica has claimed it.
    Claim,
    /// The next attempt to verify the OP's answer, such as when the OP's keys are unavailable.
    NextVerification,
    /// A consumer of outcomes: none has claimed it.
    Delivery,
    /// The acknowledgement of its outcome, or the next delivery.
    Acknowledgement,
    /// An operator: its body is missing.
    Operator,
    /// Nothing. The tombstone is erased when its time has come.
    Nothing,
}

/// Why a sign-in does not go on by itself, or goes on badly.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stuck {
    /// Its body is missing, so replicas have set it aside. Restore it, or forget the sign-in.
    SetAside,
    /// It has been due for ten minutes, and no replica claims it. No replica polls its client: the client is unknown or
    /// refused by the OP, the key or the format of the row is unknown, or no consumer of outcomes runs.
    Overdue,
    /// Its outcome was delivered five times, and never acknowledged.
    Undelivered,
    /// Five polls or verifications in a row have failed. See [`Overview::trouble`].
    Troubled,
}

/// The last trouble of a sign-in.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What kind of trouble it was.
    pub kind: TroubleKind,
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// The OP's error code, the code of the broken rule, or what failed; see [`TroubleKind`].
    pub code: Option<String>,
    /// When it was.
    #[serde(serialize_with = "one_time")]
    pub at: SystemTime,
}

impl Overview {
    pub(super) fn of(row: RowOverview, now: SystemTime) -> Self {
        let known = Known::read(&row.schedule);
        let troubles = match row.state {
            // Attempts to verify are counted by the row.
            State::Answered if known.trouble.is_some() => row.attempts,
            _ => known.troubles,
        };
        let trouble = known.trouble.map(|trouble| Trouble {
            kind: trouble.kind,
            status: trouble.status,
            code: trouble.code,
            at: trouble.at,
        });
        Self {
            id: row.id,
            client: row.partition,
            state: row.state,
            waits_for: waits_for(&row, now),
            stuck: stuck(&row, troubles, now),
            started_at: row.started_at.or(known.pending_since),
            expires_at: row.expires_at,
            due_at: row.due_at,
            leased_until: row.leased_until,
            decided_at: row.decided_at,
            attempts: row.attempts,
            last_answer_at: known.heard_at,
            troubles,
            trouble,
            slow_downs: known.slow_downs,
            is_answer_lost: known.answer_lost,
            cancellation: row.cancellation,
            is_provisional: row.provisional,
            key_id: format!("{:08x}", u32::from_be_bytes(row.key)),
            format: row.format,
        }
    }
}

fn waits_for(row: &RowOverview, now: SystemTime) -> WaitsFor {
    let is_due = row.overdue_for(now).is_some();
    match row.state {
        State::Acknowledged => WaitsFor::Nothing,
        _ if row.due_at.is_none() || !row.has_body => WaitsFor::Operator,
        State::Exchanging if row.is_leased(now) => WaitsFor::Exchange,
        State::Decided if is_due => WaitsFor::Delivery,
        State::Decided => WaitsFor::Acknowledgement,
        _ if row.is_leased(now) => WaitsFor::Replica,
        _ if is_due => WaitsFor::Claim,
        State::Answered => WaitsFor::NextVerification,
        State::Exchanging | State::Waiting => WaitsFor::NextPoll,
    }
}

fn stuck(row: &RowOverview, troubles: u32, now: SystemTime) -> Option<Stuck> {
    match row.state {
        State::Acknowledged => None,
        _ if row.due_at.is_none() || !row.has_body => Some(Stuck::SetAside),
        _ if row.overdue_for(now).is_some_and(|overdue| overdue >= OVERDUE) => Some(Stuck::Overdue),
        State::Decided => (row.attempts >= DELIVERIES).then_some(Stuck::Undelivered),
        _ => (troubles >= TROUBLES).then_some(Stuck::Troubled),
    }
}

fn time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(unix_seconds).serialize(serializer)
}

fn one_time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(unix_seconds(*time))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> SystemTime {
        NOW + 1_000 * MINUTE
    }

    fn row(state: State, change: impl FnOnce(&mut RowOverview)) -> RowOverview {
        let mut row = RowOverview::new(ProcessId::from_bytes([0; 16]), Partition(7), state, now());
        change(&mut row);
        row
    }

    fn judged(row: RowOverview) -> (WaitsFor, Option<Stuck>) {
        let overview = Overview::of(row, now());
        (overview.waits_for, overview.stuck)
    }

    #[test]
    fn the_reason_for_a_wait_follows_from_the_row() {
        let later = Some(now() + MINUTE);
        let waiting = |change: fn(&mut RowOverview)| judged(row(State::Waiting, change));
        assert_eq!(waiting(|row| row.due_at = row.due_at.map(|at| at + MINUTE)), (WaitsFor::NextPoll, None));
        assert_eq!(waiting(|_| {}), (WaitsFor::Claim, None));
        assert_eq!(waiting(|row| row.due_at = Some(NOW)), (WaitsFor::Claim, Some(Stuck::Overdue)));
        assert_eq!(waiting(|row| row.due_at = None), (WaitsFor::Operator, Some(Stuck::SetAside)));
        let leased = row(State::Waiting, |row| (row.due_at, row.leased_until) = (Some(NOW), later));
        assert_eq!(judged(leased), (WaitsFor::Replica, None));
        assert_eq!(judged(row(State::Exchanging, |row| row.leased_until = later)), (WaitsFor::Exchange, None));
        assert_eq!(judged(row(State::Decided, |_| {})), (WaitsFor::Delivery, None));
        let claimed = row(State::Decided, |row| (row.due_at, row.attempts) = (later, DELIVERIES));
        assert_eq!(judged(claimed), (WaitsFor::Acknowledgement, Some(Stuck::Undelivered)));
        assert_eq!(judged(row(State::Acknowledged, |row| row.due_at = Some(NOW))), (WaitsFor::Nothing, None));
    }

    #[test]
    fn polls_or_verifications_that_keep_failing_make_a_sign_in_stuck() {
        let later = now() + MINUTE;
        let troubled = |state, text: &str, attempts| {
            let row = row(state, |row| {
                (row.due_at, row.schedule, row.attempts) = (Some(later), text.to_owned(), attempts);
            });
            Overview::of(row, now())
        };
        let failing = troubled(State::Waiting, r#"{"trb":5,"lt":{"k":"network","c":"connect","t":60}}"#, 9);
        assert_eq!((failing.stuck, failing.troubles), (Some(Stuck::Troubled), 5));
        let trouble = json!({"kind": "network", "status": null, "code": "connect", "at": 60});
        assert_eq!(serde_json::to_value(failing.trouble).unwrap(), trouble);
        assert_eq!(troubled(State::Waiting, r#"{"trb":4}"#, 9).stuck, None);
        let unverified = troubled(State::Answered, r#"{"lt":{"k":"rule","c":"keys_unavailable","t":60}}"#, 5);
        assert_eq!((unverified.stuck, unverified.waits_for), (Some(Stuck::Troubled), WaitsFor::NextVerification));
    }

    #[test]
    fn an_overview_is_serialized_with_names_and_whole_seconds() {
        let row = row(State::Waiting, |row| row.schedule = r#"{"hrd":120,"slow":1}"#.to_owned());
        let expected = json!({
            "id": "AAAAAAAAAAAAAAAAAAAAAA", "client": "7", "state": "waiting", "waits_for": "claim", "stuck": null,
            "started_at": 60_000, "expires_at": null, "due_at": 60_000, "leased_until": null, "decided_at": null,
            "attempts": 0, "last_answer_at": 120, "troubles": 0, "trouble": null, "slow_downs": 1,
            "is_answer_lost": false, "cancellation": "none", "is_provisional": false, "key_id": "00000000", "format": 1,
        });
        assert_eq!(serde_json::to_value(Overview::of(row, now())).unwrap(), expected);
    }
}
