//! Many sign-ins, few workers, and SIGKILL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::store::PartitionStats;
use openid_deferred::testing::TestProcess;
use openid_deferred::{Clock as _, SystemClock};
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::faults::Faults;
use crate::service::{MOMENT, Service, Setting, Worker};
use crate::verdict::{Decision, Interruptions, Verdict};

/// The number of users who sign in at a time.
const CROWD: u32 = 8;
/// The longest suspension of a worker. Its claims expire meanwhile, and other workers take them over.
const LONGEST_SUSPEND: Duration = Duration::from_secs(30);

pub struct Trial {
    pub name: &'static str,
    pub setting: Setting,
    pub workers: usize,
    pub processes: u32,
    pub kills: usize,
    /// Whether every third kill is a suspension instead, after which the worker continues without noticing. There must
    /// be other workers to take its place.
    pub suspends: bool,
    /// Whether a snapshot of the database is held open during the whole trial.
    pub snapshot: bool,
    /// Whether the replica that takes users is killed as well. The other replicas give up its exchanges after more than
    /// ten minutes, so the trial takes at least as long.
    pub kills_front: bool,
    /// How often another fault occurs, if at all.
    pub trouble_every: Option<Duration>,
    pub seed: u64,
    /// The longest time that a reviewer takes. Workers are killed for the same time.
    pub review: Duration,
    pub deadline: Duration,
}

impl Trial {
    /// Runs the trial, and judges the outcomes by the provider's records.
    pub async fn run(self) {
        let began = SystemClock.monotonic();
        let service = Service::start(self.setting).await;
        let chance = Chance::new(self.seed);
        let workers: Vec<_> = (0..self.workers).map(|_| service.worker()).collect();
        let mut killer = Killer {
            workers,
            front: self.kills_front,
            suspends: self.suspends,
            left: self.kills,
            pause: self.review / self.kills as u32,
            next: None,
            down: BTreeSet::new(),
            asleep: BTreeSet::new(),
            stopped: BTreeMap::new(),
            interruptions: Interruptions::default(),
        };
        let mut faults = self.trouble_every.map(|pause| Faults::every(pause, self.review));
        let mut reviewers = Reviewers { longest: self.review, decisions: BTreeMap::new(), plans: BTreeSet::new() };
        let is_calm = faults.is_none();
        let mut users = crowd(&service, self.processes, is_calm);
        let store = service.open_store().await;
        let _snapshot = match self.snapshot {
            true => Some(service.hold_snapshot().await),
            false => None,
        };
        let mut looked = Duration::ZERO;
        loop {
            let now = SystemClock.monotonic();
            while let Some(user) = users.try_join_next() {
                user.expect("every user is taken back");
            }
            reviewers.work(&service, &chance, now);
            killer.work(&service, &chance, now);
            if killer.left == 0 {
                // Towards the end there are too few polls for all faults to occur.
                faults = None;
                service.op.behave();
            }
            if let Some(faults) = &mut faults {
                faults.work(&service.op, &chance, now);
            }
            if now - looked > Duration::from_millis(250) {
                looked = now;
                let states = store.stats().await.unwrap_or_default();
                // During the faults some exchanges fail, and some of these leave no row.
                let is_over = is_all_done(&states, is_calm.then_some(self.processes));
                if killer.is_done() && users.is_empty() && reviewers.are_done() && is_over {
                    break;
                }
                assert!(now - began < self.deadline, "{}: {states:?} after {:?}", self.name, self.deadline);
            }
            SystemClock.sleep(MOMENT).await;
        }
        let verdict = Verdict::of(&service, &reviewers.decisions, &killer.interruptions);
        let took = SystemClock.monotonic() - began;
        eprintln!("| {} | {} | {} | {verdict} | {} s |", self.name, self.processes, self.kills, took.as_secs());
    }
}

/// Whether nothing is open in the rows of any client, and this many outcomes are acknowledged, if that is known.
fn is_all_done(states: &[PartitionStats], acknowledged: Option<u32>) -> bool {
    let sum = |count: fn(&PartitionStats) -> u64| -> u64 { states.iter().map(count).sum() };
    let is_right = acknowledged.is_none_or(|all| sum(|rows| rows.acknowledged) == u64::from(all));
    !states.is_empty() && sum(|rows| rows.open() + rows.decided) == 0 && is_right
}

/// Signs all users in, a few at a time. Without faults every user is taken back; with faults some have to start again.
fn crowd(service: &Arc<Service>, users: u32, is_calm: bool) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for first in 0..CROWD {
        let service = service.clone();
        crowd.spawn(async move {
            for user in (first..users).step_by(CROWD as usize) {
                match is_calm {
                    true => drop(service.sign_in(user).await),
                    false => drop(service.visit(user).await),
                }
            }
        });
    }
    crowd
}

/// Decides each sign-in some time after it began.
struct Reviewers {
    longest: Duration,
    decisions: BTreeMap<u32, Decision>,
    plans: BTreeSet<(Duration, u32)>,
}

impl Reviewers {
    fn work(&mut self, service: &Service, chance: &Chance, now: Duration) {
        let visits = service.visits();
        if visits.len() > self.decisions.len() {
            for user in visits.keys().filter(|user| !self.decisions.contains_key(user)) {
                self.plans.insert((now + chance.share(self.longest), *user));
            }
            self.decisions.extend(visits.keys().map(|user| (*user, Decision::for_user(*user))));
        }
        let mut due = Vec::new();
        while let Some((_, user)) = self.plans.first().copied().filter(|(at, _)| *at <= now) {
            self.plans.pop_first();
            due.extend(visits[&user].process.clone().map(|process| (self.decisions[&user], process)));
        }
        drop(visits);
        due.iter().for_each(|(decision, process)| carry_out(*decision, process));
    }

    fn are_done(&self) -> bool {
        self.plans.is_empty()
    }
}

fn carry_out(decision: Decision, process: &TestProcess) {
    match decision {
        Decision::Approve => process.approve(),
        Decision::Deny => process.deny(),
        Decision::Expire => process.expire(),
    }
}

struct Killer {
    workers: Vec<Worker>,
    front: bool,
    suspends: bool,
    left: usize,
    pause: Duration,
    next: Option<Duration>,
    /// The dead workers, with the times at which each is started again.
    down: BTreeSet<(Duration, usize)>,
    /// The suspended workers, with the times at which each continues.
    asleep: BTreeSet<(Duration, usize)>,
    /// When each suspended worker stopped.
    stopped: BTreeMap<usize, Duration>,
    interruptions: Interruptions,
}

impl Killer {
    /// Kills one of the workers at a random moment in each of several equal intervals, one for each kill, and starts it
    /// again later.
    fn work(&mut self, service: &Service, chance: &Chance, now: Duration) {
        while let Some((_, which)) = self.down.first().copied().filter(|(at, _)| *at <= now) {
            self.down.pop_first();
            self.workers[which].start_again();
        }
        while let Some((_, which)) = self.asleep.first().copied().filter(|(at, _)| *at <= now) {
            self.asleep.pop_first();
            let stopped = self.stopped.remove(&which).expect("it was suspended");
            self.interruptions.suspensions.push((stopped, SystemClock.monotonic()));
            self.workers[which].go_on();
        }
        let next = *self.next.get_or_insert_with(|| now + chance.share(self.pause * 2));
        if self.left == 0 || now < next {
            return;
        }
        let which = chance.below(self.workers.len() + usize::from(self.front));
        match self.workers.get_mut(which) {
            // It is already stopped.
            Some(_) if self.down.iter().chain(&self.asleep).any(|(_, other)| *other == which) => return,
            Some(worker) if self.suspends && self.left.is_multiple_of(3) => {
                worker.suspend();
                self.stopped.insert(which, now);
                self.asleep.insert((now + chance.share(LONGEST_SUSPEND), which));
            }
            Some(worker) => {
                worker.kill();
                self.down.insert((now + chance.share(self.pause), which));
            }
            // Users reach only this replica, so it is started again at once.
            None => {
                let mut front = service.front();
                front.kill();
                front.start_again();
            }
        }
        self.interruptions.deaths.push(SystemClock.monotonic());
        self.left -= 1;
        self.next = None;
    }

    fn is_done(&self) -> bool {
        self.left == 0 && self.down.is_empty() && self.asleep.is_empty()
    }
}
