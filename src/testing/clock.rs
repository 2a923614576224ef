//! A clock that the test controls.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_core::future::BoxFuture;

use crate::clock::Clock;

/// 2026-01-01T00:00:00Z, the initial time of every test clock.
const START: Duration = Duration::from_secs(1_767_225_600);

/// The number of times that a sleeper lets all other tasks run before an [automatic](TestClock::automatic) clock
/// advances.
const YIELDS: u32 = 16;

/// A clock for tests: time passes when the test advances it, or as soon as all tasks sleep.
///
/// It starts at 2026-01-01T00:00:00Z. Clones share one time, so pass the same clock to the client and to the
/// [`TestProvider`](super::TestProvider).
///
/// A clock from [`new`](Self::new) stands still until [`advance`](Self::advance):
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use openid_deferred::{Clock, testing::TestClock};
///
/// let clock = TestClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3 * 7 * 24 * 3600));
/// assert_eq!(clock.now().duration_since(before).unwrap().as_secs(), 1_814_400);
/// ```
///
/// A clock from [`automatic`](Self::automatic) advances to the next deadline whenever all tasks wait. Code that sleeps
/// for weeks then finishes in a moment:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use openid_deferred::{Clock, testing::TestClock};
///
/// let clock = TestClock::automatic();
/// let before = clock.monotonic();
/// clock.sleep(Duration::from_secs(86_400)).await;
/// assert_eq!(clock.monotonic() - before, Duration::from_secs(86_400));
/// # });
/// ```
#[derive(Clone)]
pub struct TestClock(Arc<Mutex<State>>);

struct State {
    wall: SystemTime,
    /// The time that the machine was running. Sleeps count it.
    running: Duration,
    /// The time that the machine was suspended.
    suspended: Duration,
    automatic: bool,
    holds: usize,
    timers: BTreeMap<(Duration, u64), Option<Waker>>,
    next_timer: u64,
}

impl TestClock {
    /// A clock that stands still until it is [advanced](Self::advance).
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            wall: UNIX_EPOCH + START,
            running: Duration::ZERO,
            suspended: Duration::ZERO,
            automatic: false,
            holds: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
        })))
    }

    /// A clock that advances automatically: when the task with the earliest deadline has been polled a few times and
    /// nothing else has woken it, the clock advances to that deadline.
    ///
    /// This is deterministic on a single-threaded runtime with everything in process. The clock does not see work on
    /// other threads, such as a socket or a database. For these, stop it with [`hold`](Self::hold), or use a clock from
    /// [`new`](Self::new).
    pub fn automatic() -> Self {
        let clock = Self::new();
        clock.state().automatic = true;
        clock
    }

    /// Advances both clocks by `duration`, and wakes all tasks whose sleep has ended.
    pub fn advance(&self, duration: Duration) {
        let woken = self.state().advance(duration);
        wake(woken);
    }

    /// Advances to the earliest deadline. Returns `false` if no task sleeps.
    pub fn advance_to_next_timer(&self) -> bool {
        let mut state = self.state();
        let Some(&(deadline, _)) = state.timers.keys().next() else { return false };
        let left = deadline.saturating_sub(state.running);
        let woken = state.advance(left);
        drop(state);
        wake(woken);
        true
    }

    /// Suspends the machine for `duration`: both clocks advance, but no task wakes, and each sleep lasts longer by that
    /// time.
    pub fn suspend(&self, duration: Duration) {
        let mut state = self.state();
        state.suspended += duration;
        state.wall += duration;
    }

    /// Sets the wall clock forward by `duration`, as an administrator or a time server does. No task wakes.
    pub fn jump_wall_forward(&self, duration: Duration) {
        self.state().wall += duration;
    }

    /// Sets the wall clock back by `duration`. Sleeps and the monotonic clock are not affected.
    pub fn jump_wall_back(&self, duration: Duration) {
        self.state().wall -= duration;
    }

    /// The number of sleeps that are waiting. A test can use it to wait until a task sleeps.
    pub fn sleepers(&self) -> usize {
        self.state().timers.len()
    }

    /// The time until the earliest deadline, if a task sleeps.
    pub fn next_timer(&self) -> Option<Duration> {
        let state = self.state();
        state.timers.keys().next().map(|(deadline, _)| deadline.saturating_sub(state.running))
    }

    /// Stops an [automatic](Self::automatic) clock until the guard is dropped, for work on other threads.
    pub fn hold(&self) -> ClockHold {
        self.state().holds += 1;
        ClockHold(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops an automatic [`TestClock`] while it exists.
#[derive(Debug)]
#[must_use = "the clock moves on as soon as this is dropped"]
pub struct ClockHold(TestClock);

impl Drop for ClockHold {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.holds -= 1;
        let woken = state.earliest_waker();
        drop(state);
        wake(woken);
    }
}

impl State {
    fn monotonic(&self) -> Duration {
        self.running + self.suspended
    }

    fn advance(&mut self, duration: Duration) -> Vec<Waker> {
        self.running += duration;
        self.wall += duration;
        let pending = self.timers.split_off(&(self.running, u64::MAX));
        let due = std::mem::replace(&mut self.timers, pending);
        let mut woken: Vec<Waker> = due.into_values().flatten().collect();
        woken.extend(self.earliest_waker());
        woken
    }

    /// Wakes the new earliest sleeper, so that it starts to count its polls.
    fn earliest_waker(&self) -> Vec<Waker> {
        let earliest = self.timers.values().next().cloned().flatten();
        earliest.filter(|_| self.automatic && self.holds == 0).into_iter().collect()
    }
}

/// Wakes outside of the lock, because a waker may poll, drop or sleep at once.
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        formatter
            .debug_struct("TestClock")
            .field("elapsed", &state.monotonic())
            .field("automatic", &state.automatic)
            .field("sleepers", &state.timers.len())
            .finish_non_exhaustive()
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        self.state().wall
    }

    fn monotonic(&self) -> Duration {
        self.state().monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut state = self.state();
        let timer = (state.running.saturating_add(duration), state.next_timer);
        state.next_timer += 1;
        Box::pin(Sleep { clock: self.clone(), timer, turns: 0 })
    }
}

struct Sleep {
    clock: TestClock,
    timer: (Duration, u64),
    turns: u32,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (clock, timer) = (self.clock.clone(), self.timer);
        let mut state = clock.state();
        if state.running >= timer.0 {
            state.timers.remove(&timer);
            return Poll::Ready(());
        }
        state.timers.insert(timer, Some(context.waker().clone()));
        let is_earliest = state.timers.keys().next() == Some(&timer);
        if !state.automatic || state.holds > 0 || !is_earliest {
            self.turns = 0;
            return Poll::Pending;
        }
        self.turns += 1;
        if self.turns <= YIELDS {
            drop(state);
            // Unlike a plain wake-up this runs after all ready tasks, including the runtime's root future.
            let _ = std::pin::pin!(tokio::task::yield_now()).poll(context);
            return Poll::Pending;
        }
        state.timers.remove(&timer);
        let left = timer.0 - state.running;
        let woken = state.advance(left);
        drop(state);
        wake(woken);
        Poll::Ready(())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let mut state = self.clock.state();
        let woken = match state.timers.remove(&self.timer) {
            Some(_) => state.earliest_waker(),
            None => Vec::new(),
        };
        drop(state);
        wake(woken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_suspend_moves_both_clocks_and_makes_a_sleep_last_longer() {
        let clock = TestClock::automatic();
        let (wall, second) = (clock.now(), Duration::from_secs(1));
        let sleep = clock.sleep(10 * second);
        clock.suspend(3_600 * second);
        assert_eq!(clock.now().duration_since(wall).unwrap(), 3_600 * second);
        assert_eq!(clock.monotonic(), 3_600 * second);
        sleep.await;
        assert_eq!(clock.monotonic(), 3_610 * second);
    }

    #[tokio::test]
    async fn an_automatic_clock_serves_sleepers_in_the_order_of_their_deadlines() {
        let clock = TestClock::automatic();
        let order = Mutex::new(Vec::new());
        let nap = async |seconds: u64| {
            clock.sleep(Duration::from_secs(seconds)).await;
            order.lock().unwrap().push((seconds, clock.monotonic().as_secs()));
        };
        tokio::join!(nap(3_000_000), nap(5), nap(60), nap(5));
        assert_eq!(*order.lock().unwrap(), [(5, 5), (5, 5), (60, 60), (3_000_000, 3_000_000)]);
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn a_dropped_sleep_does_not_affect_the_others() {
        let clock = TestClock::automatic();
        tokio::select! {
            biased;
            () = clock.sleep(Duration::from_secs(10)) => {}
            () = clock.sleep(Duration::from_secs(20)) => unreachable!(),
        }
        assert_eq!((clock.monotonic(), clock.sleepers()), (Duration::from_secs(10), 0));
        clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.monotonic(), Duration::from_secs(11));
    }

    #[tokio::test]
    async fn an_automatic_clock_waits_while_other_tasks_have_work() {
        let clock = TestClock::automatic();
        let worker = async {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            clock.monotonic()
        };
        let (seen, ()) = tokio::join!(worker, clock.sleep(Duration::from_secs(1)));
        assert_eq!(seen, Duration::ZERO);
    }

    #[tokio::test]
    async fn a_held_clock_stands_still_until_the_hold_is_dropped() {
        let clock = TestClock::automatic();
        let hold = clock.hold();
        let release = async {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(clock.monotonic(), Duration::ZERO);
            drop(hold);
        };
        tokio::join!(clock.sleep(Duration::from_secs(7)), release);
        assert_eq!(clock.monotonic(), Duration::from_secs(7));
    }

    #[tokio::test]
    async fn a_jump_of_the_wall_clock_wakes_no_task_and_does_not_change_the_monotonic_clock() {
        let clock = TestClock::new();
        let wall = clock.now();
        let jumps = async {
            clock.jump_wall_forward(Duration::from_secs(3_600));
            clock.jump_wall_back(Duration::from_secs(7_200));
            tokio::task::yield_now().await;
            assert_eq!(clock.now(), wall - Duration::from_secs(3_600));
            assert_eq!((clock.monotonic(), clock.sleepers()), (Duration::ZERO, 1));
            clock.advance(Duration::from_secs(5));
        };
        tokio::join!(clock.sleep(Duration::from_secs(5)), jumps);
    }
}
