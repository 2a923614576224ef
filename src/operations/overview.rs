//! What an operator sees of one sign-in.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::clock::unix_seconds;
use crate::pending::{Known, Plan, TroubleKind};
use crate::store::{Cancellation, KnownClient, Partition, ProcessId, RowOverview, State, whole_seconds};

use super::clients::is_refused;

/// A sign-in that has been due for this long is stuck.
const OVERDUE: Duration = Duration::from_secs(600);
/// An outcome that was delivered this often is stuck.
const DELIVERIES: u32 = 5;
/// A sign-in that the OP's `Retry-After` holds for longer than this is stuck.
const RETRY_AFTER: Duration = Duration::from_secs(600);
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
    /// The issuer of its OP; `None` if no poller has recorded it in this store.
    pub issuer: Option<String>,
    /// Its client identifier; `None` in the same case.
    pub client_id: Option<String>,
    /// Its state.
    pub state: State,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// Why it makes no progress, or fails again and again.
    pub stuck: Option<Stuck>,
    /// When it started; `None` if a release stored it that did not record this.
    #[serde(serialize_with = "time")]
    pub started_at: Option<SystemTime>,
    /// When it expires at the OP, if the OP set a limit.
    #[serde(serialize_with = "time")]
    pub expires_at: Option<SystemTime>,
    /// When the next poll, verification or delivery is due, or a tombstone is erased; `None` if it was set aside. While
    /// a consumer has its outcome in hand: when the claim of the consumer ends, unless it is extended.
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
    /// How often its outcome was handed to a consumer.
    pub deliveries: u32,
    /// The interval between two polls, while it waits for the OP's decision: the OP's, or the crate's own if the OP
    /// gave none, and five seconds more for each `slow_down`. Serialized, it is in seconds.
    #[serde(serialize_with = "whole_seconds")]
    pub interval: Option<Duration>,
    /// The planned time from the last poll or verification to the next one: the interval, or more, because of backoff
    /// after failures, because the OP has not decided for long, or because of `Retry-After`. Before the end of the
    /// sign-in it can be less. Serialized, it is in seconds.
    #[serde(serialize_with = "whole_seconds")]
    pub wait: Option<Duration>,
    /// Until when the OP's `Retry-After` forbids polls.
    #[serde(serialize_with = "time")]
    pub retry_at: Option<SystemTime>,
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
    /// The first consumer of its outcome.
    Delivery,
    /// The acknowledgement of its outcome, which a consumer has claimed. The claim of the consumer ends at
    /// [`due_at`](Overview::due_at), unless it is extended.
    Acknowledgement,
    /// The next consumer of its outcome: the last one gave it back or lost its claim. It is delivered again at
    /// [`due_at`](Overview::due_at).
    Redelivery,
    /// An operator: its body is missing.
    Operator,
    /// Nothing. The tombstone is erased when its retention ends.
    Nothing,
}

/// Why a sign-in makes no progress, or fails again and again.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stuck {
    /// Its body is missing, so replicas have set it aside. Restore it, or forget the sign-in.
    SetAside,
    /// It was sealed with a key that the given keyring lacks; see
    /// [`Operations::with_keyring`](super::Operations::with_keyring). Replicas with this keyring neither poll nor
    /// deliver it.
    KeyMissing,
    /// It waits for the OP, and the OP refuses its client: at its last poll, or as a poller has noted in the last three
    /// minutes. Only probes are sent. See [`Event::ClientRefused`](crate::poller::Event::ClientRefused).
    ClientRefused,
    /// It waits for the OP, whose `Retry-After` forbids its polls for more than ten minutes from now; see
    /// [`Overview::retry_at`]. It goes on by itself then.
    RetryAfter,
    /// It has been due for ten minutes, and no replica claims it. No replica polls its client: the client is unknown,
    /// the key or the format of the row is unknown, or no consumer of outcomes runs.
    Overdue,
    /// Its outcome was delivered five times, and never acknowledged.
    Undelivered,
    /// Five polls or verifications in a row have failed. See [`Overview::trouble`].
    Troubled,
}

/// The last failure of a sign-in.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What kind of failure it was.
    pub kind: TroubleKind,
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// The OP's error code, the code of the broken rule, or what failed; see [`TroubleKind`].
    pub code: Option<String>,
    /// When it was.
    #[serde(serialize_with = "one_time")]
    pub at: SystemTime,
}

/// What is known besides the row.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The store's time.
    pub(super) now: SystemTime,
    pub(super) client: Option<&'a KnownClient>,
    /// The keys that replicas have, if they are given.
    pub(super) keys: Option<&'a [[u8; 4]]>,
}

impl Overview {
    pub(super) fn of(row: RowOverview, context: Context<'_>) -> Self {
        let now = context.now;
        let known = Known::read(&row.schedule);
        let plan = Plan::read(&row.schedule, now).filter(|_| [State::Waiting, State::Answered].contains(&row.state));
        let troubles = match row.state {
            // Attempts to verify are counted by the row.
            State::Answered if known.trouble.is_some() => row.attempts,
            _ => known.troubles,
        };
        let stuck = stuck(&row, &known, troubles, context);
        let trouble = known.trouble.map(|trouble| Trouble {
            kind: trouble.kind,
            status: trouble.status,
            code: trouble.code,
            at: trouble.at,
        });
        Self {
            id: row.id,
            client: row.partition,
            issuer: context.client.map(|client| client.issuer.clone()),
            client_id: context.client.map(|client| client.client_id.clone()),
            state: row.state,
            waits_for: waits_for(&row, now),
            stuck,
            started_at: row.started_at.or(known.pending_since),
            expires_at: row.expires_at,
            due_at: row.due_at,
            leased_until: row.leased_until,
            decided_at: row.decided_at,
            attempts: row.attempts,
            deliveries: if row.state >= State::Decided { row.attempts } else { 0 },
            interval: plan.filter(|_| row.state == State::Waiting).map(|plan| plan.interval),
            wait: plan.map(|plan| plan.wait),
            retry_at: plan.and_then(|plan| plan.retry_at),
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

/// Whether replicas skip the row, because its body is missing. Not for tombstones, which have none.
pub(super) fn is_set_aside(row: &RowOverview) -> bool {
    row.due_at.is_none() || !row.has_body
}

/// The time for which the OP's `Retry-After` still forbids polls, if that is so long that the sign-in is stuck.
pub(crate) fn held_by_retry_after(row: &RowOverview, now: SystemTime) -> Option<Duration> {
    let plan = Plan::read(&row.schedule, now).filter(|_| row.state == State::Waiting)?;
    plan.retry_at?.duration_since(now).ok().filter(|left| *left > RETRY_AFTER)
}

fn waits_for(row: &RowOverview, now: SystemTime) -> WaitsFor {
    let is_due = row.overdue_for(now).is_some();
    match row.state {
        State::Acknowledged => WaitsFor::Nothing,
        _ if is_set_aside(row) => WaitsFor::Operator,
        State::Exchanging if row.is_leased(now) => WaitsFor::Exchange,
        State::Decided if row.attempts == 0 => WaitsFor::Delivery,
        State::Decided if is_due || row.not_before == row.due_at => WaitsFor::Redelivery,
        State::Decided => WaitsFor::Acknowledgement,
        _ if row.is_leased(now) => WaitsFor::Replica,
        _ if is_due => WaitsFor::Claim,
        State::Answered => WaitsFor::NextVerification,
        State::Exchanging | State::Waiting => WaitsFor::NextPoll,
    }
}

/// Whether the OP refuses the client, as the row and the client's note say.
fn refuses(known: &Known, context: Context<'_>) -> bool {
    let refused_at = known.trouble.as_ref().filter(|trouble| trouble.is_refusal_of_client()).map(|trouble| trouble.at);
    // A newer note that no poller repeats means that the OP does not refuse the client any more.
    let noted_ago = context.client.and_then(|client| client.refused_ago);
    let is_newer = |at| noted_ago.is_none_or(|ago| context.now.duration_since(at).unwrap_or_default() < ago);
    context.client.is_some_and(is_refused) || refused_at.is_some_and(is_newer)
}

/// `troubles` is the number of failures in a row.
fn stuck(row: &RowOverview, known: &Known, troubles: u32, context: Context<'_>) -> Option<Stuck> {
    match row.state {
        State::Acknowledged => None,
        _ if is_set_aside(row) => Some(Stuck::SetAside),
        _ if context.keys.is_some_and(|keys| !keys.contains(&row.key)) => Some(Stuck::KeyMissing),
        State::Waiting if refuses(known, context) => Some(Stuck::ClientRefused),
        _ if held_by_retry_after(row, context.now).is_some() => Some(Stuck::RetryAfter),
        _ if row.overdue_for(context.now).is_some_and(|overdue| overdue >= OVERDUE) => Some(Stuck::Overdue),
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

    fn context() -> Context<'static> {
        Context { now: now(), client: None, keys: None }
    }

    fn judged(row: RowOverview) -> (WaitsFor, Option<Stuck>) {
        let overview = Overview::of(row, context());
        (overview.waits_for, overview.stuck)
    }

    #[test]
    fn the_reason_for_a_wait_is_derived_from_the_row() {
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
    fn a_held_outcome_differs_from_one_that_waits_for_its_next_delivery() {
        let later = Some(now() + MINUTE);
        let decided = |due_at, not_before, attempts| {
            let row = row(State::Decided, |row| {
                (row.due_at, row.not_before, row.attempts) = (due_at, not_before, attempts);
            });
            let overview = Overview::of(row, context());
            (overview.waits_for, overview.deliveries)
        };
        assert_eq!(decided(Some(now()), None, 0), (WaitsFor::Delivery, 0));
        assert_eq!(decided(later, None, 1), (WaitsFor::Acknowledgement, 1));
        assert_eq!(decided(later, later, 2), (WaitsFor::Redelivery, 2), "its consumer gave it back");
        assert_eq!(decided(later, Some(now()), 3), (WaitsFor::Acknowledgement, 3), "it was delivered again since");
        assert_eq!(decided(Some(now()), None, 3), (WaitsFor::Redelivery, 3), "the claim of its consumer ran out");
    }

    #[test]
    fn a_refused_client_makes_its_waiting_sign_ins_stuck_at_once() {
        let ago = |seconds| Some(Duration::from_secs(seconds));
        let stuck_of = |schedule: &str, state, refused_ago| {
            let client = KnownClient { refused_ago, ..KnownClient::new(Partition(7), "https://op.test", "the-app") };
            let row = row(state, |row| row.schedule = schedule.to_owned());
            Overview::of(row, Context { client: Some(&client), ..context() }).stuck
        };
        let refused =
            |at: u64| format!(r#"{{"trb":1,"lt":{{"k":"error_response","s":401,"c":"invalid_client","t":{at}}}}}"#);
        let (now, stuck) = (60_000, Some(Stuck::ClientRefused));
        assert_eq!(stuck_of("{}", State::Waiting, None), None);
        assert_eq!(stuck_of("{}", State::Waiting, ago(100)), stuck, "another sign-in was refused");
        assert_eq!(stuck_of("{}", State::Waiting, ago(180)), None, "no poller repeats it");
        assert_eq!(stuck_of(&refused(now - 10), State::Waiting, None), stuck, "the note is missing");
        assert_eq!(stuck_of(&refused(now - 10), State::Waiting, ago(400)), stuck, "the note is older");
        assert_eq!(stuck_of(&refused(now - 900), State::Waiting, ago(400)), None, "it was polled before the last note");
        assert_eq!(stuck_of("{}", State::Answered, ago(1)), None, "it does not wait for the OP");
        let network = r#"{"trb":1,"lt":{"k":"network","c":"connect","t":60000}}"#;
        assert_eq!(stuck_of(network, State::Waiting, None), None);
    }

    #[test]
    fn a_missing_key_is_seen_if_keys_are_given() {
        let stuck_of = |state, keys| {
            let row = row(state, |row| row.key = [0, 0, 0, 7]);
            Overview::of(row, Context { keys, ..context() }).stuck
        };
        let (its, other): ([[u8; 4]; 1], [[u8; 4]; 1]) = ([[0, 0, 0, 7]], [[0, 0, 0, 8]]);
        assert_eq!(stuck_of(State::Waiting, None), None);
        assert_eq!(stuck_of(State::Waiting, Some(&its[..])), None);
        for state in [State::Exchanging, State::Waiting, State::Answered, State::Decided] {
            assert_eq!(stuck_of(state, Some(&other[..])), Some(Stuck::KeyMissing), "{state:?}");
        }
        assert_eq!(stuck_of(State::Acknowledged, Some(&other[..])), None);
    }

    #[test]
    fn the_interval_and_the_wait_are_those_of_the_schedule() {
        let schedule = r#"{"int":60000,"slow":2,"sent":0,"recv":0,"trb":3,
            "due":{"at":60240000,"of":240000},"nb":{"at":60300000,"of":300000}}"#;
        let of = |state| Overview::of(row(state, |row| row.schedule = schedule.to_owned()), context());
        let waiting = of(State::Waiting);
        assert_eq!((waiting.interval, waiting.wait), (Some(Duration::from_secs(70)), Some(4 * MINUTE)));
        assert_eq!(waiting.retry_at, Some(now() + 5 * MINUTE));
        assert_eq!((of(State::Answered).interval, of(State::Answered).wait), (None, Some(4 * MINUTE)));
        assert_eq!(of(State::Decided).wait, None);
    }

    #[test]
    fn a_sign_in_that_retry_after_holds_for_long_is_stuck_until_shortly_before_its_end() {
        let stuck_of = |state, held: Duration, change: fn(&mut RowOverview)| {
            let (at, of) = (60_000_000 + held.as_millis(), held.as_millis());
            let schedule = format!(
                r#"{{"int":60000,"sent":0,"recv":0,"trb":9,"due":{{"at":{at},"of":{of}}},"nb":{{"at":{at},"of":{of}}}}}"#
            );
            let row = row(state, |row| {
                (row.due_at, row.schedule, row.attempts) = (Some(now() + held), schedule, 9);
                change(row);
            });
            Overview::of(row, Context { keys: Some(&[[0; 4]]), ..context() }).stuck
        };
        let day = 1_440 * MINUTE;
        assert_eq!(stuck_of(State::Waiting, day, |_| {}), Some(Stuck::RetryAfter));
        assert_eq!(stuck_of(State::Waiting, 10 * MINUTE, |_| {}), Some(Stuck::Troubled));
        assert_eq!(stuck_of(State::Answered, day, |_| {}), Some(Stuck::Troubled), "it does not wait for the OP");
        assert_eq!(stuck_of(State::Waiting, day, |row| row.key = [9; 4]), Some(Stuck::KeyMissing));
        assert_eq!(stuck_of(State::Waiting, day, |row| row.has_body = false), Some(Stuck::SetAside));
    }

    #[test]
    fn polls_or_verifications_that_keep_failing_make_a_sign_in_stuck() {
        let later = now() + MINUTE;
        let troubled = |state, text: &str, attempts| {
            let row = row(state, |row| {
                (row.due_at, row.schedule, row.attempts) = (Some(later), text.to_owned(), attempts);
            });
            Overview::of(row, context())
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
            "id": "AAAAAAAAAAAAAAAAAAAAAA", "client": "7", "issuer": null, "client_id": null, "state": "waiting",
            "waits_for": "claim", "stuck": null, "deliveries": 0, "interval": null, "wait": null, "retry_at": null,
            "started_at": 60_000, "expires_at": null, "due_at": 60_000, "leased_until": null, "decided_at": null,
            "attempts": 0, "last_answer_at": 120, "troubles": 0, "trouble": null, "slow_downs": 1,
            "is_answer_lost": false, "cancellation": "none", "is_provisional": false, "key_id": "00000000", "format": 1,
        });
        assert_eq!(serde_json::to_value(Overview::of(row, context())).unwrap(), expected);
    }
}
