//! The store as a replica reaches it: over a network that fails, from a machine that dies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::store::{
    Acknowledged, Acknowledgement, Cancellation, Changed, Claim, CorrectionProgress, CorrectionStep, HeldOutcome,
    Insertion, KeyStats, NewProcess, OutcomeBatch, OutcomeClaim, Partition, PartitionStats, Ping, Pinged, Process,
    ProcessId, Reseal, Settled, Settlement, State, Store, StoreError, StoreProblem, Work,
};

use crate::PlannedPanic;
use crate::faults::Part;
use crate::life::{Life, mortal};
use crate::oracle::Settling;
use crate::world::{World, suspend};

/// The client's timeout of a call.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The probability that a machine is suspended before it learns which rows it has claimed, in worlds with suspensions.
const SUSPENDS_WITH_ROWS: f64 = 0.02;

pub struct SimulatedStore {
    pub world: Arc<World>,
    pub life: Arc<Life>,
}

impl SimulatedStore {
    /// One call: `carry_out` is executed by the store when the call arrives.
    fn call<'a, T: Send + 'a>(
        &'a self,
        carry_out: impl FnOnce(&'a World) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
        seen: impl FnOnce(&World, &T) + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        self.call_on_rows(|_| 0, carry_out, seen)
    }

    /// A call that reads every row, which a huge store cannot complete.
    fn call_on_all<'a, T: Send + 'a>(
        &'a self,
        carry_out: impl FnOnce(&'a World) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if !self.world.faults.rare.is_huge {
            return self.call(carry_out, |_, _| ());
        }
        Box::pin(mortal(self.life.clone(), async move {
            self.world.called();
            self.world.sleep(TIMEOUT).await;
            Err(StoreError::new(StoreProblem::Unavailable))
        }))
    }

    /// A call that takes longer the more rows it touches.
    fn call_on_rows<'a, T: Send + 'a>(
        &'a self,
        rows: impl FnOnce(&T) -> usize + Send + 'a,
        carry_out: impl FnOnce(&'a World) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
        seen: impl FnOnce(&World, &T) + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let (world, life) = (&*self.world, &self.life);
        let failed = move || {
            life.note_store_fault();
            world.oracle().quiet.met_trouble(world.now());
            Err(StoreError::new(StoreProblem::Unavailable))
        };
        Box::pin(mortal(life.clone(), async move {
            world.called();
            world.may_crash(life).await;
            world.sleep_a_little(world.faults.store_latency).await;
            let is_cut_off = life.number % 2 == 0 && world.is_out(Part::Line);
            if is_cut_off || world.is_out(Part::Store) || world.strikes(world.faults.store_fault / 2.0) {
                return failed();
            }
            let hangs = world.is_out(Part::HangingStore);
            if hangs {
                world.oracle().quiet.met_trouble(world.now());
                if world.chance.odds(0.5) {
                    // The call never arrived.
                    world.sleep(TIMEOUT).await;
                    return failed();
                }
            }
            let answer = carry_out(world).await?;
            seen(world, &answer);
            if hangs {
                world.sleep(TIMEOUT).await;
                return failed();
            }
            let rows = u32::try_from(rows(&answer)).unwrap_or(u32::MAX);
            if rows > 0 && world.faults.rare.suspends_every.is_some() && world.strikes(SUSPENDS_WITH_ROWS) {
                suspend(&self.world, life);
                tokio::task::yield_now().await;
            }
            let work = world.faults.rare.row_cost * rows;
            if work >= TIMEOUT {
                world.sleep(TIMEOUT).await;
                return failed();
            }
            if !work.is_zero() && world.now() < world.faults.calm_at {
                world.sleep(work).await;
            }
            if world.strikes(world.faults.store_fault / 2.0) {
                return failed();
            }
            world.may_crash(life).await;
            world.sleep_a_little(world.faults.store_latency).await;
            Ok(answer)
        }))
    }
}

impl World {
    /// Panics now and then, because an application's own implementation may have mistakes.
    pub fn may_panic(&self, life: &Life, part: &str) {
        if !self.strikes(self.faults.rare.panics) {
            return;
        }
        let (mut oracle, now) = (self.oracle(), self.now());
        oracle.say(now, || format!("the {part} of replica {} panics", life.number));
        oracle.quiet.met_trouble(now);
        drop(oracle);
        life.note_store_fault();
        std::panic::panic_any(PlannedPanic);
    }

    pub async fn sleep_a_little(&self, longest: Duration) {
        if !longest.is_zero() && self.now() < self.faults.calm_at {
            self.sleep(self.chance.up_to(longest)).await;
        }
    }
}

impl Store for SimulatedStore {
    fn insert(&self, process: NewProcess) -> BoxFuture<'_, Result<Insertion, StoreError>> {
        let (id, is_tracked) = (process.id, process.state == State::Waiting);
        let settling = Settling::inserted(&process);
        let number = self.life.number;
        self.call(
            move |world| world.memory.insert(process),
            move |world, insertion| {
                world.changes.send();
                if let (true, Insertion::Inserted { .. }, Some(label)) = (is_tracked, insertion, world.tracking(number))
                {
                    world.oracle().tracked(world.now(), id, label, &settling);
                }
            },
        )
    }

    fn settle_and_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<Claim>,
    ) -> BoxFuture<'_, Result<Work, StoreError>> {
        if claim.is_some() {
            self.world.may_panic(&self.life, "store");
        }
        let settled: Vec<_> = settlements.iter().map(Settling::of).collect();
        let lease = claim.as_ref().map_or(Duration::ZERO, |claim| claim.lease);
        self.call_on_rows(
            |work: &Work| work.settled.len() + work.claimed.len(),
            move |world| world.memory.settle_and_claim(settlements, claim),
            move |world, work| {
                if !settled.is_empty() {
                    world.changes.send();
                }
                let (mut oracle, now) = (world.oracle(), world.now());
                oracle.heard(now, &self.life);
                for (settling, applied) in settled.into_iter().zip(&work.settled) {
                    if *applied == Settled::Done {
                        oracle.settled(now, &self.life, &settling);
                    }
                }
                for claimed in &work.claimed {
                    oracle.claimed(now, &self.life, claimed.id, claimed.orphaned, lease);
                }
            },
        )
    }

    fn load(&self, id: ProcessId) -> BoxFuture<'_, Result<Option<Process>, StoreError>> {
        self.call(move |world| world.memory.load(id), |_, _| ())
    }

    fn ping(&self, ping: Ping) -> BoxFuture<'_, Result<Pinged, StoreError>> {
        self.call(
            move |world| world.memory.ping(ping),
            |world, pinged| {
                world.changes.send();
                world.oracle().pinged(world.now(), *pinged);
            },
        )
    }

    fn cancel(&self, id: ProcessId, to: Cancellation) -> BoxFuture<'_, Result<Option<Cancellation>, StoreError>> {
        self.call(move |world| world.memory.cancel(id, to), |_, _| ())
    }

    fn claim_outcomes(&self, claim: OutcomeClaim) -> BoxFuture<'_, Result<OutcomeBatch, StoreError>> {
        Box::pin(async move {
            let mut executed = Duration::ZERO;
            let claimed = self
                .call(
                    move |world| world.memory.claim_outcomes(claim),
                    |world, claimed: &OutcomeBatch| {
                        executed = world.now();
                        let ids = claimed.claimed.iter().map(|outcome| outcome.held.id);
                        world.oracle().outcomes_claimed(world.now(), &self.life, ids);
                    },
                )
                .await?;
            for outcome in &claimed.claimed {
                self.world.oracle().held(&self.life, outcome.held.id, executed, self.world.now());
            }
            Ok(claimed)
        })
    }

    fn extend_outcomes(
        &self,
        held: Vec<HeldOutcome>,
        due_in: Duration,
    ) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(async move {
            let (mut executed, ids) = (Duration::ZERO, held.clone());
            let seen = |world: &World, _: &Vec<bool>| {
                world.changes.send();
                executed = world.now();
            };
            let holds = self.call(move |world| world.memory.extend_outcomes(held, due_in), seen).await?;
            for (outcome, _) in ids.iter().zip(&holds).filter(|(_, holds)| **holds) {
                self.world.oracle().held(&self.life, outcome.id, executed, self.world.now());
            }
            Ok(holds)
        })
    }

    fn acknowledge(
        &self,
        acknowledgements: Vec<Acknowledgement>,
    ) -> BoxFuture<'_, Result<Vec<Acknowledged>, StoreError>> {
        let ids: Vec<_> = acknowledgements.iter().map(|acknowledgement| acknowledgement.id).collect();
        self.call(
            move |world| world.memory.acknowledge(acknowledgements),
            move |world, acknowledged| {
                for (id, acknowledged) in ids.into_iter().zip(acknowledged) {
                    world.oracle().acknowledgement(world.now(), id, *acknowledged);
                }
            },
        )
    }

    fn forget(&self, id: ProcessId) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.call(move |world| world.memory.forget(id), move |world, _| world.oracle().erased(world.now(), id))
    }

    fn purge(&self, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.call(move |world| world.memory.purge(limit), |_, _| ())
    }

    fn expire_outcomes(
        &self,
        decided_for: Duration,
        keep: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ProcessId>, StoreError>> {
        self.call(move |world| world.memory.expire_outcomes(decided_for, keep, limit), |_, _| ())
    }

    fn spread(
        &self,
        partition: Partition,
        overdue_for: Duration,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.call(move |world| world.memory.spread(partition, overdue_for, limit), |_, _| ())
    }

    fn correct_due_times(&self, mut step: CorrectionStep) -> BoxFuture<'_, Result<CorrectionProgress, StoreError>> {
        let rare = &self.world.faults.rare;
        step.limit = rare.correction_step.map_or(step.limit, |most| most.min(step.limit));
        let answer = self.call(
            move |world| world.memory.correct_due_times(step),
            move |world, progress| {
                if *progress == CorrectionProgress::Done {
                    world.changes.send();
                }
                world.oracle().corrected(world.now(), &self.life, *progress);
            },
        );
        Box::pin(mortal(self.life.clone(), async move {
            let progress = answer.await;
            if matches!(progress, Ok(CorrectionProgress::More)) && self.world.strikes(rare.dies_correcting) {
                self.world.kill(&self.life);
            }
            progress
        }))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyStats>, StoreError>> {
        self.call_on_all(|world| world.memory.keys())
    }

    fn not_sealed_with(
        &self,
        key: [u8; 4],
        after: Option<ProcessId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Process>, StoreError>> {
        self.call(move |world| world.memory.not_sealed_with(key, after, limit), |_, _| ())
    }

    fn reseal(&self, reseals: Vec<Reseal>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        self.call(move |world| world.memory.reseal(reseals), |_, _| ())
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<PartitionStats>, StoreError>> {
        self.call_on_all(|world| world.memory.stats())
    }

    fn changed(&self) -> BoxFuture<'static, Changed> {
        let changed = self.world.changes.next();
        let tells = self.world.faults.store_tells;
        Box::pin(mortal(self.life.clone(), async move {
            changed.await;
            if !tells {
                std::future::pending::<()>().await;
            }
            Changed::ALL
        }))
    }

    fn check_interval(&self) -> Duration {
        if self.world.faults.store_tells && !self.world.faults.rare.store_clock.is_empty() {
            // As with SQLite, because no notification says that its clock was set.
            Duration::from_secs(5)
        } else if self.world.faults.store_tells {
            self.world.memory.check_interval()
        } else {
            self.world.faults.check_interval
        }
    }
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimulatedStore").finish_non_exhaustive()
    }
}
