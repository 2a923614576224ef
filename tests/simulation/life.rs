//! Machines that can lose their power at any await point of the simulation.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_core::future::BoxFuture;
use openid_deferred::Clock;
use openid_deferred::testing::TestClock;

/// One run of one replica, from its start to its death. A dead replica has no effect on the store, the network or the
/// application.
#[derive(Debug)]
pub struct Life {
    pub number: u32,
    alive: AtomicBool,
    end: Signal,
    /// How often the store has failed it or it was suspended: its knowledge may be stale.
    store_faults: AtomicU32,
    sleep: Mutex<Sleep>,
}

/// How long a machine, whose timers then stand still, has been suspended, and the tasks that wait for it to go on.
#[derive(Debug, Default)]
struct Sleep {
    suspended: Option<Suspend>,
    /// The start of the present suspension.
    since: Duration,
    /// The sum of the earlier suspensions.
    before: Duration,
    times: u32,
    waiting: Vec<Waker>,
}

/// The state of the timers of a replica when it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspend {
    /// The whole machine was suspended: its timers stood still.
    Machine,
    /// The operating-system process was stopped: its timers have expired.
    Process,
}

impl Life {
    pub fn new(number: u32) -> Arc<Self> {
        Arc::new(Self {
            number,
            alive: AtomicBool::new(true),
            end: Signal::default(),
            store_faults: AtomicU32::new(0),
            sleep: Mutex::default(),
        })
    }

    /// Whether it is alive and not suspended.
    pub fn is_running(&self) -> bool {
        self.is_alive() && self.sleep.lock().unwrap().suspended.is_none()
    }

    /// Stops everything that it does until [`Life::go_on`].
    pub fn suspend(&self, how: Suspend, now: Duration) {
        self.note_store_fault();
        let mut sleep = self.sleep.lock().unwrap();
        (sleep.suspended, sleep.since) = (Some(how), now);
        sleep.times += 1;
    }

    /// The number of suspensions.
    pub fn suspends(&self) -> u32 {
        self.sleep.lock().unwrap().times
    }

    /// Whether it has been suspended since then.
    pub fn has_slept_since(&self, at: Duration) -> bool {
        let sleep = self.sleep.lock().unwrap();
        sleep.times > 0 && sleep.since >= at
    }

    pub fn go_on(&self, now: Duration) {
        let waiting = {
            let mut sleep = self.sleep.lock().unwrap();
            sleep.before = sleep.until(now);
            sleep.suspended = None;
            std::mem::take(&mut sleep.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The time for which the machine has been suspended until now.
    fn slept(&self, now: Duration) -> Duration {
        self.sleep.lock().unwrap().until(now)
    }

    /// Whether it is suspended. If so, the task is woken when it goes on.
    fn waits(&self, waker: &Waker) -> bool {
        let mut sleep = self.sleep.lock().unwrap();
        if sleep.suspended.is_some() && !sleep.waiting.iter().any(|known| known.will_wake(waker)) {
            sleep.waiting.push(waker.clone());
        }
        sleep.suspended.is_some()
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Ends the power. `World::kill` informs the observers too.
    pub fn stop(&self) {
        self.alive.store(false, Ordering::Relaxed);
        self.end.send();
        std::mem::take(&mut self.sleep.lock().unwrap().waiting).into_iter().for_each(Waker::wake);
    }

    pub async fn ended(&self) {
        let end = self.end.next();
        if self.is_alive() {
            end.await;
        }
    }

    pub fn note_store_fault(&self) {
        self.store_faults.fetch_add(1, Ordering::Relaxed);
    }

    pub fn store_faults(&self) -> u32 {
        self.store_faults.load(Ordering::Relaxed)
    }
}

impl Sleep {
    fn until(&self, now: Duration) -> Duration {
        match self.suspended {
            Some(Suspend::Machine) => self.before + now.saturating_sub(self.since),
            Some(Suspend::Process) | None => self.before,
        }
    }
}

/// Runs the future while its machine is alive and not suspended. After the machine's death the future is dropped, and
/// this never completes.
pub async fn mortal<T>(life: Arc<Life>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(Some(future));
    poll_fn(|context| {
        if life.is_alive() && life.waits(context.waker()) {
            return Poll::Pending;
        }
        let polled = match future.as_mut().as_pin_mut() {
            Some(future) if life.is_alive() => future.poll(context),
            _ => Poll::Pending,
        };
        if polled.is_pending() && life.is_alive() {
            return Poll::Pending;
        }
        // Otherwise the clock would wait for a sleeper that is never polled again.
        future.set(None);
        if life.is_alive() { polled } else { Poll::Pending }
    })
    .await
}

/// Wakes the waiting tasks in a reproducible order, unlike tokio's `watch`.
#[derive(Debug, Default, Clone)]
pub struct Signal(Arc<Mutex<(u64, Vec<Waker>)>>);

impl Signal {
    pub fn send(&self) {
        let waiting = {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            std::mem::take(&mut state.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Completes at the first `send` after this call.
    pub fn next(&self) -> impl Future<Output = ()> + Send + 'static {
        let signal = self.clone();
        let seen = signal.0.lock().unwrap().0;
        poll_fn(move |context| {
            let mut state = signal.0.lock().unwrap();
            if state.0 != seen {
                return Poll::Ready(());
            }
            if !state.1.iter().any(|waker| waker.will_wake(context.waker())) {
                state.1.push(context.waker().clone());
            }
            Poll::Pending
        })
    }
}

/// The clock of one replica, which may be wrong and may be set.
pub struct ReplicaClock {
    base: TestClock,
    life: Arc<Life>,
    /// The monotonic time at which the machine started.
    origin: Duration,
    /// The time by which the wall clock is ahead, in milliseconds.
    ahead: Mutex<i64>,
}

impl ReplicaClock {
    pub fn new(base: TestClock, life: Arc<Life>, origin: Duration, ahead: i64) -> Self {
        Self { base, life, origin, ahead: Mutex::new(ahead) }
    }

    pub fn set_ahead(&self, milliseconds: i64) {
        *self.ahead.lock().unwrap() = milliseconds;
    }
}

impl Clock for ReplicaClock {
    fn now(&self) -> SystemTime {
        let (now, ahead) = (self.base.now(), *self.ahead.lock().unwrap());
        let offset = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { now - offset } else { now + offset }
    }

    fn monotonic(&self) -> Duration {
        // The clock goes on while the machine is suspended; timers do not.
        self.base.monotonic() + self.origin
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (base, life) = (self.base.clone(), self.life.clone());
        let awake = move |base: &TestClock, life: &Life| base.monotonic() - life.slept(base.monotonic());
        let end = awake(&base, &life).saturating_add(duration);
        let first = base.sleep(duration);
        Box::pin(mortal(self.life.clone(), async move {
            first.await;
            loop {
                let left = end.saturating_sub(awake(&base, &life));
                if left.is_zero() {
                    return;
                }
                base.sleep(left).await;
            }
        }))
    }
}

impl fmt::Debug for ReplicaClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReplicaClock").field("replica", &self.life.number).finish_non_exhaustive()
    }
}
