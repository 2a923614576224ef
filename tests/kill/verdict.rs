//! Judges the outcomes by the provider's records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use openid_deferred::testing::{Endpoint, RecordedRequest, RequestRule};
use serde_json::Value;

use crate::faults::{DELAY, breaks_connections, is_delayed, is_spoilt};
use crate::flow::{Flow, identifier, key};
use crate::service::{Service, Visit};

/// The decision of the reviewer of a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Deny,
    Expire,
}

impl Decision {
    pub fn for_user(user: u32) -> Self {
        match user % 10 {
            3 => Self::Deny,
            7 => Self::Expire,
            _ => Self::Approve,
        }
    }
}

/// When workers were interrupted.
#[derive(Debug, Default)]
pub struct Interruptions {
    /// A suspension counts as a death: other workers take over the rows that the worker held.
    pub deaths: Vec<Duration>,
    /// The time at which each suspended worker stopped, and the time at which it continued.
    pub suspensions: Vec<(Duration, Duration)>,
}

impl Interruptions {
    /// Whether a worker may have sent this poll when it continued after a suspension during which another worker sent
    /// the poll before it.
    fn explain(&self, before: Duration, poll: Duration) -> bool {
        self.suspensions
            .iter()
            .any(|(stopped, continued)| *stopped < before && (*continued..*continued + CONTINUING).contains(&poll))
    }
}

/// The counts of a trial without errors.
#[derive(Debug, Default)]
pub struct Verdict {
    outcomes: BTreeMap<String, usize>,
    repeated: usize,
    polls: usize,
    asked_after_the_end: usize,
}

impl Verdict {
    /// # Panics
    ///
    /// If an outcome was lost, invented or contradictory, or if a poll was early.
    pub fn of(service: &Service, decisions: &BTreeMap<u32, Decision>, interruptions: &Interruptions) -> Self {
        let mut verdict = Self::default();
        let requests = service.op.requests();
        let breaks: Vec<_> = requests.iter().filter(|one| breaks_connections(one)).map(|one| one.arrived).collect();
        let mut exchanges: BTreeMap<String, Vec<RecordedRequest>> = BTreeMap::new();
        let mut polls: BTreeMap<String, Vec<RecordedRequest>> = BTreeMap::new();
        for request in requests {
            if request.endpoint == Endpoint::Poll {
                polls.entry(identifier(&request).to_owned()).or_default().push(request);
            } else if let Some(key) = key(&request) {
                exchanges.entry(key).or_default().push(request);
            }
        }
        verdict.polls = polls.values().map(Vec::len).sum();
        let outcomes = verdict.delivered(&service.lines());
        let mut histories = Vec::new();
        for (user, visit) in service.visits().iter() {
            let exchanges = exchanges.remove(&visit.key).unwrap_or_default();
            let polls = visit.identifier().and_then(|id| polls.remove(&id)).unwrap_or_default();
            let history = History { exchanges, polls, interruptions, breaks: &breaks };
            let outcome = outcomes.get(user).map_or("none", |line| line["outcome"].as_str().expect("it is text"));
            let detail = outcomes.get(user).map_or(&Value::Null, |line| &line["detail"]);
            let success = Flow::of_user(*user).success(*user);
            let is_success = (outcome, detail) == (success.0, &success.1);
            let outcome = if is_success { "success" } else { outcome };
            let is_right = is_right(decisions[user], outcome, visit, &history);
            let decision = decisions[user];
            assert!(is_right, "user {user}, {}: {outcome} ({detail}) for {decision:?} after {history:?}", visit.status);
            *verdict.outcomes.entry(outcome.to_owned()).or_default() += 1;
            histories.push(history);
        }
        assert_eq!(polls.len() + exchanges.len(), 0, "there are requests for unknown sign-ins");
        assert!(outcomes.keys().all(|user| decisions.contains_key(user)), "an outcome belongs to no user");
        verdict.look_at_violations(service, &histories, interruptions);
        verdict
    }

    /// Returns one outcome for each user. A line may occur twice, because a worker may die between writing it and
    /// acknowledging it; both must agree. A success that a suspended worker held may replace an unknown outcome.
    fn delivered(&mut self, lines: &[Value]) -> BTreeMap<u32, Value> {
        let mut outcomes: BTreeMap<u32, Value> = BTreeMap::new();
        for line in lines {
            let user = line["context"].as_str().and_then(|user| user.parse().ok()).expect("it is a number");
            let Some(earlier) = outcomes.insert(user, line.clone()) else { continue };
            self.repeated += 1;
            if earlier["outcome"] == "unknown" && (line["outcome"] == "approved" || line["outcome"] == "issued") {
                continue;
            }
            for name in ["id", "outcome", "detail"] {
                assert_eq!(earlier[name], line[name], "user {user} was told two things");
            }
        }
        outcomes
    }

    /// Checks the provider's violations. A poll whose answer did not arrive must be repeated, and a pause that was
    /// requested in an answer that did not arrive is not kept. A suspended worker keeps its connection, and its lease runs
    /// out; if it was stopped between its last look at the clock and the first byte of the poll, it sends this poll when it
    /// continues. Nothing else is allowed: no poll was early except for a ping, and no two polls of workers that run were
    /// in flight at the same time.
    fn look_at_violations(&mut self, service: &Service, histories: &[History<'_>], interruptions: &Interruptions) {
        let mut forgiven = BTreeSet::new();
        for history in histories {
            for poll in 1..history.polls.len() {
                let number = history.polls[poll].number;
                if history.was_told_nothing_before(poll) {
                    forgiven.insert((RequestRule::PolledAfterEnd, number));
                }
                if history.is_held_by_a_suspended_worker(poll - 1) {
                    forgiven.insert((RequestRule::PolledInParallel, number));
                }
                if history.was_cut_off(poll - 1) {
                    forgiven.insert((RequestRule::RetryAfterIgnored, number));
                }
                if interruptions.explain(history.polls[poll - 1].arrived, history.polls[poll].arrived) {
                    for rule in
                        [RequestRule::PolledAfterEnd, RequestRule::PolledInParallel, RequestRule::PolledTooEarly]
                    {
                        forgiven.insert((rule, number));
                    }
                }
            }
        }
        let pinged: BTreeSet<_> = service.op.pings().into_iter().map(|sent| sent.ping.deferred_auth_id).collect();
        let mut hastened = BTreeSet::new();
        for violation in service.op.violations() {
            let is_hastened = violation.rule == RequestRule::PolledTooEarly
                && histories.iter().any(|history| {
                    history.may_be_advanced(violation.request, &pinged) && hastened.insert(history.polls[0].number)
                });
            let is_forgiven = is_hastened || forgiven.contains(&(violation.rule, violation.request));
            let asked = |history: &&History<'_>| history.polls.iter().any(|poll| poll.number == violation.request);
            assert!(is_forgiven, "{violation}: {:?}", histories.iter().find(asked));
            self.asked_after_the_end += usize::from(violation.rule == RequestRule::PolledAfterEnd);
        }
    }
}

/// The longest transit of an answer whose connection breaks.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// The time after a request that is to break a connection within which the connection breaks.
const BREAKING: Duration = Duration::from_millis(100);
/// The longest time that a worker which runs waits for an answer. Its timeout is 3 s.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The time within which a worker that continues sends what it was about to send.
const CONTINUING: Duration = Duration::from_secs(1);
/// The least time between two polls, whatever brings the second one forward.
const SHORTEST_GAP: Duration = Duration::from_secs(1);
/// The time within which an abandoned request may still reach the provider. An answer during this time proves nothing.
const LONGEST_HELD: Duration = Duration::from_secs(300);

/// The provider's view of one sign-in, and the times at which workers died and connections broke.
struct History<'a> {
    exchanges: Vec<RecordedRequest>,
    polls: Vec<RecordedRequest>,
    interruptions: &'a Interruptions,
    breaks: &'a [Duration],
}

impl History<'_> {
    /// Whether the answer to this poll certainly reached a worker that lived to store it.
    fn has_answered(&self, poll: usize) -> bool {
        !is_spoilt(&self.polls[poll]) && !self.was_cut_off(poll)
    }

    /// Whether the answer to this poll may have been lost in transit, or with the worker that received it.
    fn was_cut_off(&self, poll: usize) -> bool {
        let next = self.polls.get(poll + 1).map_or(Duration::MAX, |next| next.arrived);
        self.is_cut_off(&self.polls[poll], next)
    }

    /// Whether this poll was not answered until the next one came, although a worker that runs would have given it up.
    fn is_held_by_a_suspended_worker(&self, poll: usize) -> bool {
        let next = self.polls.get(poll + 1).map_or(Duration::ZERO, |next| next.arrived);
        self.polls[poll].status.is_none() && next.saturating_sub(self.polls[poll].arrived) > LONGEST_WAIT
    }

    fn is_cut_off(&self, request: &RecordedRequest, next: Duration) -> bool {
        let sent = request.arrived + if is_delayed(request) { DELAY } else { Duration::ZERO };
        happened(&self.interruptions.deaths, request.arrived, next)
            || happened(self.breaks, request.arrived.saturating_sub(BREAKING), sent + ON_ITS_WAY)
    }

    /// Whether the answer before this poll was lost. A challenge for a nonce in between does not count.
    fn was_told_nothing_before(&self, poll: usize) -> bool {
        let is_challenge = |poll: &RecordedRequest| poll.error().as_deref() == Some("use_dpop_nonce");
        let before = (0..poll).rev().find(|before| !self.has_answered(*before) || !is_challenge(&self.polls[*before]));
        before.is_some_and(|before| !self.has_answered(before))
    }

    /// Whether a ping may have brought this poll forward a second time. The provider takes a poll that is in flight
    /// when it sends a ping for the poll that the ping brings forward. But a proxy may have swallowed that poll, and
    /// the ping reaches the worker after that.
    fn may_be_advanced(&self, number: usize, pinged: &BTreeSet<String>) -> bool {
        let pair = self.polls.windows(2).find(|pair| pair[1].number == number);
        let is_pinged = || pinged.contains(identifier(&self.polls[0]));
        pair.is_some_and(|pair| is_spoilt(&pair[0]) && pair[1].arrived - pair[0].arrived >= SHORTEST_GAP) && is_pinged()
    }

    /// Whether a lost answer may have been the success: no later answer certainly showed, long enough after it, that
    /// the sign-in goes on.
    fn may_have_lost_an_answer(&self) -> bool {
        const GOES_ON: [&str; 4] =
            ["authorization_pending", "slow_down", "interaction_required", "interaction_pending"];
        let goes_on = |poll: &RecordedRequest| poll.error().is_some_and(|error| GOES_ON.contains(&&*error));
        let certain = |poll: &usize| self.has_answered(*poll);
        let last = (0..self.polls.len()).rev().find(|poll| certain(poll) && goes_on(&self.polls[*poll]));
        let cleared = last.and_then(|last| self.polls[last].arrived.checked_sub(LONGEST_HELD)).unwrap_or_default();
        (0..self.polls.len()).any(|poll| self.polls[poll].arrived >= cleared && !certain(&poll))
    }

    /// Whether a poll may have died with its worker, or with its connection, before the provider saw it.
    fn may_have_lost_a_request(&self) -> bool {
        let times: Vec<_> = self.exchanges.iter().chain(&self.polls).map(|request| request.arrived).collect();
        let is_broken = |pair: &[Duration]| {
            [&self.interruptions.deaths, self.breaks].iter().any(|all| happened(all, pair[0], pair[1]))
        };
        times.windows(2).any(is_broken)
    }

    /// Whether the success was sent and certainly did not arrive.
    fn may_have_lost_the_success(&self, visit: &Visit) -> bool {
        let arrived = (0..self.polls.len()).any(|poll| self.polls[poll].status == Some(200) && self.has_answered(poll));
        visit.is_redeemed() && !arrived && self.may_have_lost_an_answer()
    }

    /// Whether the exchange died with its replica or was spoilt, before or after it reached the provider.
    fn may_have_lost_the_exchange(&self) -> bool {
        let is_lost = |last: &RecordedRequest| is_spoilt(last) || self.is_cut_off(last, Duration::MAX);
        self.polls.is_empty() && self.exchanges.last().is_none_or(is_lost)
    }
}

/// Whether one of these times, which are sorted, is between the two.
fn happened(times: &[Duration], after: Duration, before: Duration) -> bool {
    times.get(times.partition_point(|time| *time < after)).is_some_and(|time| *time < before)
}

impl fmt::Debug for History<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |requests: &[RecordedRequest]| -> Vec<_> {
            requests.iter().map(|one| (one.arrived, one.status, one.error(), one.fault.clone())).collect()
        };
        let (exchanges, polls) = (list(&self.exchanges), list(&self.polls));
        write!(formatter, "exchanges {exchanges:?}, polls {polls:?}, deaths at {:?}", self.interruptions.deaths)?;
        write!(formatter, " and broken connections at {:?}", self.breaks)
    }
}

fn is_right(decision: Decision, outcome: &str, visit: &Visit, history: &History<'_>) -> bool {
    match (decision, outcome) {
        (Decision::Approve, "success") => visit.is_redeemed(),
        (Decision::Deny, "denied") | (Decision::Expire, "expired") => !visit.is_redeemed(),
        // The user was told that there is no result, because the exchange had failed.
        (_, "none") => visit.status != 202 && history.may_have_lost_the_exchange(),
        (_, "unknown") if history.polls.is_empty() => history.may_have_lost_the_exchange(),
        // The provider sent the success, no worker lived to store it, and the provider sends it only once.
        (Decision::Approve, "unknown") => history.may_have_lost_the_success(visit),
        // The sign-in expired, and the answer to an earlier poll was lost: it may have been the success.
        (Decision::Expire, "unknown") => history.may_have_lost_an_answer() || history.may_have_lost_a_request(),
        _ => false,
    }
}

/// Writes the cells of the table in `docs/reliability.md`.
impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |name: &str| self.outcomes.get(name).copied().unwrap_or_default();
        for name in ["success", "denied", "expired", "unknown", "none"] {
            write!(formatter, "{} | ", count(name))?;
        }
        write!(formatter, "{} | {} | {}", self.repeated, self.asked_after_the_end, self.polls)
    }
}

#[test]
fn only_a_suspension_during_the_previous_poll_excuses_an_early_poll() {
    let seconds = Duration::from_secs_f64;
    let interruptions = Interruptions { suspensions: vec![(seconds(32.3), seconds(58.7))], ..Interruptions::default() };
    assert!(interruptions.explain(seconds(47.28), seconds(58.73)));
    assert!(!interruptions.explain(seconds(32.2), seconds(58.73)), "the worker was not suspended yet");
    assert!(!interruptions.explain(seconds(47.28), seconds(58.6)), "the worker had not continued yet");
    assert!(!interruptions.explain(seconds(47.28), seconds(59.8)), "the worker had continued long ago");
}
