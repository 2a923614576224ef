//! Correcting due times after a jump of the clock.

use super::*;
use crate::store::{Clamp, Clamped};

const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(900);

/// A caller that saw the correct time a moment ago. Ten seconds, because the call itself may take long.
fn noticed(limit: usize) -> Clamp {
    Clamp { noticed: Some(10 * SECOND), longest: LONGEST, limit }
}

impl Case<'_> {
    async fn clamp(&self, clamp: Clamp) -> Clamped {
        self.store().clamp_due_times(clamp).await.unwrap()
    }

    /// Asserts that the row is due in about this time.
    async fn is_due_in(&self, number: u8, expected: Duration) {
        let due_in = self.load(id(number)).await.due_in;
        assert!(due_in.abs_diff(expected) < MINUTE, "{number} is due in {due_in:?} and not in {expected:?}");
    }
}

pub(super) async fn a_clock_that_was_set_back_holds_nothing_up_for_long(case: Case<'_>) {
    // After the clock was set back, everything is due much later than intended.
    let later = 1_000 * HOUR;
    case.inserted(NewProcess { due_in: later, ping_in: Some(later), ..waiting(0x80) }).await;
    let state = State::Exchanging;
    case.inserted(NewProcess { state, due_in: later, interval: Duration::ZERO, ..waiting(1) }).await;
    let decided = case.decided(2, false).await;
    let held = case.outcomes(HOUR).await.claimed.remove(0).held;
    case.store().hold_outcomes(vec![held], later).await.unwrap();
    case.inserted(NewProcess { due_in: HOUR + MINUTE, ..waiting(3) }).await;

    assert_eq!(case.clamp(noticed(100)).await, Clamped::Done);
    case.is_due_in(0x80, LONGEST + HOUR + HOUR / 2).await;
    case.is_due_in(1, LONGEST).await;
    assert!(case.load(decided).await.due_in <= LONGEST + 2 * HOUR);
    case.is_due_in(3, HOUR + MINUTE).await;
    case.advance(LONGEST + MINUTE).await;
    assert!(!case.load(id(1)).await.leased, "the lease has ended");
    case.advance(2 * HOUR).await;
    assert_eq!(case.ping(id(0x80), 228).await, noted(id(0x80)));
    assert!(ids(&case.claim(9).await).contains(&id(0x80)), "a ping brings it forward");
}

pub(super) async fn a_clock_that_was_set_forward_makes_no_poll_early(case: Case<'_>) {
    for number in [0x40, 0x80] {
        case.inserted(NewProcess { due_in: 30 * MINUTE, ..waiting(number) }).await;
    }
    case.inserted(NewProcess { due_in: 30 * MINUTE, expires_in: Some(5 * HOUR + 30 * MINUTE), ..waiting(0x81) }).await;
    case.inserted(NewProcess { due_in: HOUR, expires_in: Some(3 * HOUR), ..waiting(0x82) }).await;
    case.inserted(NewProcess { due_in: 6 * HOUR + 30 * MINUTE, ..waiting(0x83) }).await;
    let held = 5 * HOUR + 30 * MINUTE;
    case.inserted(NewProcess { due_in: held, ping_in: Some(held), ..waiting(0x85) }).await;
    let decided = case.decided(2, false).await;
    case.inserted(waiting(1)).await;
    let answered = case.claim_one().await;
    case.settle(settlement(&answered, Next::Answered)).await;

    case.advance(5 * HOUR).await;
    assert_eq!(case.clamp(noticed(100)).await, Clamped::Done);
    case.is_due_in(0x40, HOUR + HOUR / 4).await;
    case.is_due_in(0x80, HOUR + HOUR / 2).await;
    // It expires before an interval has passed.
    case.is_due_in(0x81, 30 * MINUTE - 5 * SECOND).await;
    assert!(case.load(id(0x81)).await.due_in < 30 * MINUTE - 4 * SECOND);
    // By the clock that jumped, it seems to have expired.
    case.is_due_in(0x82, HOUR + HOUR / 2).await;
    case.is_due_in(0x83, HOUR + 30 * MINUTE).await;
    case.is_due_in(0x85, HOUR + HOUR * 0x85 / 0x100).await;
    case.ping(id(0x85), 233).await;
    case.is_due_in(0x85, HOUR + HOUR * 0x85 / 0x100).await;
    assert_eq!(ids(&case.claim(9).await), [answered.id], "a stored success is due at once");
    assert_eq!(case.outcomes(HOUR).await.claimed[0].held.id, decided);
    assert_eq!(case.clamp(noticed(100)).await, Clamped::Done);
    case.is_due_in(0x40, HOUR + HOUR / 4).await;
}

pub(super) async fn a_lease_is_renewed(case: Case<'_>) {
    case.inserted(waiting(0x80)).await;
    let claimed = case.claim_one().await;
    case.advance(5 * HOUR).await;
    assert!(!case.load(id(0x80)).await.leased, "by the clock, the lease has expired");
    assert_eq!(case.clamp(noticed(100)).await, Clamped::Done);
    assert!(case.load(id(0x80)).await.leased);
    case.is_due_in(0x80, LONGEST + HOUR + HOUR / 2).await;
    case.ping(id(0x80), 228).await;
    assert!(case.claim(9).await.is_empty(), "its holder may be polling");
    assert_eq!(case.settle(settlement(&claimed, Next::Waiting)).await, Settled::Done);
}

pub(super) async fn nothing_is_claimed_while_due_times_are_put_right_step_by_step(case: Case<'_>) {
    for number in 1..=5 {
        case.inserted(waiting(number)).await;
    }
    let claimed = case.claim(1).await.remove(0);
    assert_eq!(case.clamp(noticed(2)).await, Clamped::More);
    let work = case.work(vec![settlement(&claimed, Next::Answered)], 10).await;
    assert_eq!(work.settled, [Settled::Done]);
    assert!(work.claimed.is_empty() && work.clamping);
    assert_eq!(case.load(id(4)).await.due_in, Duration::ZERO, "the run has not reached it");
    // The replica that started the run has died, and this one noticed no jump.
    let go_on = Clamp { noticed: None, ..noticed(2) };
    assert_eq!(case.clamp(go_on).await, Clamped::More);
    assert!(case.load(id(4)).await.due_in > 50 * MINUTE);
    assert_eq!(case.load(id(5)).await.due_in, Duration::ZERO);
    assert_eq!(case.clamp(go_on).await, Clamped::Done);
    assert!(case.load(id(5)).await.due_in > 50 * MINUTE);
    let work = case.work(vec![], 10).await;
    assert!(!work.clamping);
    assert_eq!(ids(&work.claimed), [claimed.id], "a stored success is not postponed");
    assert_eq!(case.clamp(go_on).await, Clamped::Done, "there is nothing to continue");
}

pub(super) async fn one_jump_causes_one_run_however_many_notice_it(case: Case<'_>) {
    case.inserted(waiting(1)).await;
    assert_eq!(case.clamp(noticed(100)).await, Clamped::Done);
    case.inserted(waiting(2)).await;
    let late = Clamp { noticed: Some(3 * MINUTE), ..noticed(100) };
    case.advance(2 * MINUTE).await;
    assert_eq!(case.clamp(late).await, Clamped::Done);
    assert_eq!(case.load(id(2)).await.due_in, Duration::ZERO, "the previous run was for the same jump");
    assert_eq!(case.clamp(Clamp { noticed: Some(MINUTE), ..noticed(1) }).await, Clamped::More, "this is another jump");
    case.advance(2 * MINUTE).await;
    // Another jump during that run: the run starts again with the first row.
    case.settle(settlement(&case.claimed_as(1), Next::Waiting)).await;
    assert_eq!(case.load(id(1)).await.due_in, Duration::ZERO);
    assert_eq!(case.clamp(Clamp { noticed: Some(MINUTE), ..noticed(1) }).await, Clamped::More);
    assert!(case.load(id(1)).await.due_in > 50 * MINUTE);
    assert_eq!(case.clamp(Clamp { noticed: Some(MINUTE), ..noticed(1) }).await, Clamped::More);
    assert_eq!(case.clamp(Clamp { noticed: Some(MINUTE), ..noticed(1) }).await, Clamped::Done);
    assert!(case.load(id(2)).await.due_in > 50 * MINUTE);
}

impl Case<'_> {
    /// The claim of a row that was never claimed.
    fn claimed_as(&self, number: u8) -> Claimed {
        Claimed {
            id: id(number),
            partition: PARTITION,
            state: State::Waiting,
            epoch: 0,
            orphaned: false,
            pinged: false,
            attempts: 0,
            cancellation: crate::store::Cancellation::None,
            schedule: String::new(),
            body: body(""),
        }
    }
}
