//! Many processes, few workers, and somebody with SIGKILL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::testing::{SeededRandom, TestProcess};
use openid_deferred::{Clock as _, Random as _, SystemClock};
use tokio::task::JoinSet;

use crate::service::{MOMENT, Service, StoreOf, Worker};
use crate::verdict::{Decision, Verdict};

/// So many users are on their way at a time.
const CROWD: u32 = 8;

pub struct Trial {
    pub name: &'static str,
    pub store: StoreOf,
    pub workers: usize,
    pub processes: u32,
    pub kills: usize,
    /// Whether the replica that takes users dies as well. Exchanges that die with it are given up by the others after
    /// more than ten minutes, so it takes at least as long.
    pub kills_front: bool,
    pub seed: u64,
    /// How long a reviewer takes at the longest; for as long workers are killed.
    pub review: Duration,
    pub deadline: Duration,
}

impl Trial {
    /// Runs it, and judges what has come out by what the provider knows.
    pub async fn run(self) {
        let began = SystemClock.monotonic();
        let service = Service::start(self.store).await;
        let random = SeededRandom::new(self.seed);
        let workers: Vec<_> = (0..self.workers).map(|_| service.worker()).collect();
        let pause = self.review / self.kills as u32;
        let mut killer =
            Killer { workers, front: self.kills_front, left: self.kills, pause, next: None, deaths: Vec::new() };
        let mut reviewers = Reviewers { longest: self.review, plans: BTreeMap::new() };
        let mut users = crowd(&service, self.processes);
        let store = service.open_store().await;
        let mut looked = Duration::ZERO;
        loop {
            let now = SystemClock.monotonic();
            while let Some(user) = users.try_join_next() {
                user.expect("every user is taken back");
            }
            reviewers.work(&service, &random, now);
            killer.work(&service, &random, now);
            if now - looked > Duration::from_millis(250) {
                looked = now;
                let states: Vec<_> =
                    store.stats().await.map(|all| all.into_iter().map(|one| one.states).collect()).unwrap_or_default();
                if killer.left == 0 && states == [[0, 0, 0, 0, u64::from(self.processes)]] {
                    break;
                }
                assert!(now - began < self.deadline, "{}: {states:?} after {:?}", self.name, self.deadline);
            }
            SystemClock.sleep(MOMENT).await;
        }
        let decisions = reviewers.plans.into_iter().map(|(user, plan)| (user, plan.decision)).collect();
        let verdict = Verdict::of(&service, &decisions, &killer.deaths);
        let took = SystemClock.monotonic() - began;
        eprintln!("| {} | {} | {} | {verdict} | {} s |", self.name, self.processes, self.kills, took.as_secs());
    }
}

/// All users, a few of them at a time.
fn crowd(service: &Arc<Service>, users: u32) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for first in 0..CROWD {
        let service = service.clone();
        crowd.spawn(async move {
            for user in (first..users).step_by(CROWD as usize) {
                service.sign_in(user).await;
            }
        });
    }
    crowd
}

/// Decides over each process some time after it began.
struct Reviewers {
    longest: Duration,
    plans: BTreeMap<u32, Plan>,
}

struct Plan {
    at: Option<Duration>,
    decision: Decision,
}

impl Reviewers {
    fn work(&mut self, service: &Service, random: &SeededRandom, now: Duration) {
        for (user, process) in service.processes() {
            let plan = self.plans.entry(user).or_insert_with(|| Plan {
                at: Some(now + share(random, self.longest)),
                decision: Decision::for_user(user),
            });
            if plan.at.take_if(|at| now >= *at).is_some() {
                carry_out(plan.decision, &process);
            }
        }
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
    left: usize,
    pause: Duration,
    next: Option<Duration>,
    deaths: Vec<Duration>,
}

impl Killer {
    /// Kills one of the workers, at a random moment of each of as many equal stretches of time as there are kills.
    fn work(&mut self, service: &Service, random: &SeededRandom, now: Duration) {
        let next = *self.next.get_or_insert_with(|| now + share(random, self.pause * 2));
        if self.left == 0 || now < next {
            return;
        }
        let victims = self.workers.len() + usize::from(self.front);
        let which = share(random, Duration::from_secs(victims as u64)).as_secs() as usize;
        match self.workers.get_mut(which) {
            Some(worker) => worker.kill_and_start_again(),
            None => service.kill_front(),
        }
        self.deaths.push(SystemClock.monotonic());
        self.left -= 1;
        self.next = None;
    }
}

/// A random part of it.
fn share(random: &SeededRandom, of: Duration) -> Duration {
    let mut bytes = [0; 2];
    random.fill(&mut bytes).expect("it is seeded");
    of.mul_f64(f64::from(u16::from_be_bytes(bytes)) / 65_536.0)
}
