//! What came out, judged by what the provider knows.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use openid_deferred::testing::{Endpoint, RecordedRequest, RequestRule, TestProcess};
use serde_json::Value;

use crate::service::Service;

/// Only after a claim of a dead worker has run out is its process asked about again; it takes at least the time in
/// which a poll may still be sent.
const AFTER_A_DEATH: Duration = Duration::from_secs(5);

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
    pub fn of(service: &Service, decisions: &BTreeMap<u32, Decision>) -> Self {
        let mut verdict = Self::default();
        let mut polls: BTreeMap<String, Vec<RecordedRequest>> = BTreeMap::new();
        for poll in service.op.requests_to(Endpoint::Poll) {
            verdict.polls += 1;
            let id = poll.parameter("deferred_auth_id").expect("a poll has one").to_owned();
            polls.entry(id).or_default().push(poll);
        }
        let outcomes = verdict.delivered(&service.lines());
        for (user, process) in service.processes() {
            let outcome = outcomes.get(&user).unwrap_or_else(|| panic!("user {user} has no outcome"));
            let polls =
                polls.get(&process.deferred_auth_id().expect("it was exchanged")).map_or(&[][..], Vec::as_slice);
            let is_right = is_right(decisions[&user], outcome, &process, polls);
            assert!(is_right, "user {user}: {outcome} for {:?} after {:?}", decisions[&user], answers(polls));
            *verdict.outcomes.entry(outcome["outcome"].to_string()).or_default() += 1;
        }
        assert_eq!(outcomes.len(), decisions.len());
        verdict.look_at_violations(service, &polls);
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
    fn look_at_violations(&mut self, service: &Service, polls: &BTreeMap<String, Vec<RecordedRequest>>) {
        for violation in service.op.violations() {
            let of = |polls: &&Vec<RecordedRequest>| polls.iter().any(|poll| poll.number == violation.request);
            let polls = polls.values().find(of).unwrap_or_else(|| panic!("{violation}"));
            let position = polls.iter().position(|poll| poll.number == violation.request).expect("it is there");
            let gap = polls[position].arrived - polls[position.checked_sub(1).expect("not the first")].arrived;
            let is_forgiven = violation.rule == RequestRule::PolledAfterEnd && gap >= AFTER_A_DEATH;
            assert!(is_forgiven, "{violation}, {gap:?} after the poll before");
            self.asked_after_the_end += 1;
        }
    }
}

fn is_right(decision: Decision, outcome: &Value, process: &TestProcess, polls: &[RecordedRequest]) -> bool {
    let user = outcome["context"].as_str().unwrap_or_default();
    match (decision, outcome["outcome"].as_str().unwrap_or_default()) {
        (Decision::Approve, "approved") => process.is_redeemed() && outcome["detail"] == format!("user-{user}"),
        (Decision::Deny, "denied") | (Decision::Expire, "expired") => !process.is_redeemed(),
        // The exchange died with the replica that made it, before or after the provider got it.
        (_, "unknown") if polls.is_empty() => !process.is_redeemed(),
        // The provider sent the success, nobody lived to take it, and the provider gives it once only.
        (Decision::Approve, "unknown") => process.is_redeemed() && last_but_one_answer_was_lost(polls),
        // Time ran out, and the answer to an earlier poll died with its worker: it may have been the success.
        (Decision::Expire, "unknown") => has_gap(polls),
        _ => false,
    }
}

fn last_but_one_answer_was_lost(polls: &[RecordedRequest]) -> bool {
    let Some(success) = polls.iter().position(|poll| poll.status == Some(200)) else { return false };
    polls[success..].len() > 1 && has_gap(&polls[success..])
}

fn has_gap(polls: &[RecordedRequest]) -> bool {
    polls.windows(2).any(|pair| pair[1].arrived - pair[0].arrived >= AFTER_A_DEATH)
}

fn answers(polls: &[RecordedRequest]) -> Vec<(Duration, Option<u16>, Option<String>)> {
    polls.iter().map(|poll| (poll.arrived, poll.status, poll.error())).collect()
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
