//! What came out, judged by what the provider knows.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use openid_deferred::testing::{Endpoint, RecordedRequest, RequestRule, TestProcess};
use serde_json::Value;

use crate::service::Service;

/// What the reviewer of a process decided.
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

/// The tally of a trial in which everything was as it should be.
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
    /// If anything was lost, made up, told in two ways or asked too early.
    pub fn of(service: &Service, decisions: &BTreeMap<u32, Decision>, deaths: &[Duration]) -> Self {
        let mut verdict = Self::default();
        let mut histories: BTreeMap<String, History<'_>> = BTreeMap::new();
        for exchange in service.op.requests_to(Endpoint::Exchange) {
            let answer = exchange.response_json();
            let id = answer["deferred_auth_id"].as_str().expect("exchanges succeed").to_owned();
            histories.insert(id, History { exchanged: exchange.arrived, polls: Vec::new(), deaths });
        }
        for poll in service.op.requests_to(Endpoint::Poll) {
            verdict.polls += 1;
            let id = poll.parameter("deferred_auth_id").expect("a poll has one");
            histories.get_mut(id).expect("it was exchanged").polls.push(poll);
        }
        let outcomes = verdict.delivered(&service.lines());
        for (user, process) in service.processes() {
            let outcome = outcomes.get(&user).unwrap_or_else(|| panic!("user {user} has no outcome"));
            let history = process.deferred_auth_id().and_then(|id| histories.get(&id));
            let is_right = is_right(decisions[&user], outcome, &process, history);
            assert!(is_right, "user {user}: {outcome} for {:?} after {history:?}", decisions[&user]);
            *verdict.outcomes.entry(outcome["outcome"].to_string()).or_default() += 1;
        }
        assert_eq!(outcomes.len(), decisions.len());
        verdict.look_at_violations(service, &histories);
        verdict
    }

    /// One outcome for each user. Lines may come twice, since a worker may die between writing one and acknowledging it;
    /// they say the same.
    fn delivered(&mut self, lines: &[Value]) -> BTreeMap<u32, Value> {
        let mut outcomes: BTreeMap<u32, Value> = BTreeMap::new();
        for line in lines {
            let user = line["context"].as_str().and_then(|user| user.parse().ok()).expect("it is a number");
            let Some(earlier) = outcomes.insert(user, line.clone()) else { continue };
            self.repeated += 1;
            for name in ["id", "outcome", "detail"] {
                assert_eq!(earlier[name], line[name], "user {user} was told two things");
            }
        }
        outcomes
    }

    /// A poll whose answer died with its worker has to be made once more. Nothing else is forgiven: not one poll came
    /// early, and no two at the same time.
    fn look_at_violations(&mut self, service: &Service, histories: &BTreeMap<String, History<'_>>) {
        for violation in service.op.violations() {
            let is_forgiven = violation.rule == RequestRule::PolledAfterEnd
                && histories.values().any(|history| history.is_after_a_death(violation.request));
            assert!(is_forgiven, "{violation}");
            self.asked_after_the_end += 1;
        }
    }
}

/// What the provider saw of one process, and when workers died.
struct History<'a> {
    exchanged: Duration,
    polls: Vec<RecordedRequest>,
    deaths: &'a [Duration],
}

impl History<'_> {
    /// Whether a worker has died between the poll of this number and the one before it.
    fn is_after_a_death(&self, number: usize) -> bool {
        let pair = self.polls.windows(2).find(|pair| pair[1].number == number);
        pair.is_some_and(|pair| self.has_death(pair[0].arrived, pair[1].arrived))
    }

    /// Whether the success went out, and whoever should have taken it died.
    fn has_lost_success(&self) -> bool {
        let success = self.polls.iter().position(|poll| poll.status == Some(200));
        success.and_then(|success| self.polls.get(success + 1)).is_some_and(|next| self.is_after_a_death(next.number))
    }

    /// Whether a worker has died while this process was waiting, so that an answer may have died with it.
    fn may_have_lost_an_answer(&self) -> bool {
        self.polls.last().is_some_and(|last| self.has_death(self.exchanged, last.arrived))
    }

    fn has_death(&self, after: Duration, before: Duration) -> bool {
        self.deaths.iter().any(|death| (after..before).contains(death))
    }
}

impl fmt::Debug for History<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let polls: Vec<_> = self.polls.iter().map(|poll| (poll.arrived, poll.status, poll.error())).collect();
        write!(formatter, "the exchange at {:?}, polls {polls:?} and deaths at {:?}", self.exchanged, self.deaths)
    }
}

fn is_right(decision: Decision, outcome: &Value, process: &TestProcess, history: Option<&History<'_>>) -> bool {
    let user = outcome["context"].as_str().unwrap_or_default();
    match (decision, outcome["outcome"].as_str().unwrap_or_default()) {
        (Decision::Approve, "approved") => process.is_redeemed() && outcome["detail"] == format!("user-{user}"),
        (Decision::Deny, "denied") | (Decision::Expire, "expired") => !process.is_redeemed(),
        // The exchange died with the replica that made it, before or after the provider got it.
        (_, "unknown") if history.is_none_or(|history| history.polls.is_empty()) => !process.is_redeemed(),
        // The provider sent the success, nobody lived to take it, and the provider gives it once only.
        (Decision::Approve, "unknown") => history.is_some_and(History::has_lost_success),
        // Time ran out, and an earlier poll had died with its worker: its answer may have been the success.
        (Decision::Expire, "unknown") => history.is_some_and(History::may_have_lost_an_answer),
        _ => false,
    }
}

/// The cells of the table in `docs/reliability.md`.
impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |name: &str| self.outcomes.get(&format!("\"{name}\"")).copied().unwrap_or_default();
        for name in ["approved", "denied", "expired", "unknown"] {
            write!(formatter, "{} | ", count(name))?;
        }
        write!(formatter, "{} | {} | {}", self.repeated, self.asked_after_the_end, self.polls)
    }
}
