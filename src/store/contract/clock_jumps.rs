//! Correcting due times after a jump of the clock.

use super::*;
use crate::store::{ClockJump, CorrectionProgress, CorrectionStep, Noticed};

const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(900);

impl Case<'_> {
    /// Executes a step as a caller that has just noticed a jump of the clock.
    async fn jumped(&self, jump: ClockJump, limit: usize) -> CorrectionProgress {
        let corrected = self.corrected().await;
        self.correct(CorrectionStep { noticed: Some(Noticed { jump, corrected }), ..go_on(limit) }).await
    }

    async fn corrected(&self) -> ClockJump {
        self.store().settle_and_claim(vec![], None).await.unwrap().corrected
    }

    async fn correct(&self, step: CorrectionStep) -> CorrectionProgress {
        self.store().correct_due_times(step).await.unwrap()
    }

    /// That the row is due in about this time.
    async fn is_due_in(&self, number: u8, expected: Duration) {
        let due_in = self.load(id(number)).await.due_in;
        assert!(due_in.abs_diff(expected) < MINUTE, "{number} is due in {due_in:?} and not in {expected:?}");
    }
}

/// The step of a caller that noticed nothing.
fn go_on(limit: usize) -> CorrectionStep {
    CorrectionStep { noticed: None, longest: LONGEST, limit }
}

fn forward(by: Duration) -> ClockJump {
    ClockJump(i64::try_from(by.as_micros()).unwrap())
}

fn back(by: Duration) -> ClockJump {
    ClockJump(-forward(by).0)
}

pub(super) async fn a_clock_that_is_set_back_delays_no_row_for_long(case: Case<'_>) {
    // After a clock was set back, everything is due much too late.
    let later = 1_000 * HOUR;
    case.inserted(NewProcess { due_in: later, ping_in: Some(later), ..waiting(0x80) }).await;
    let state = State::Exchanging;
    case.inserted(NewProcess { state, due_in: later, interval: Duration::ZERO, ..waiting(1) }).await;
    let decided = case.decided(2).await;
    let held = case.outcomes(HOUR).await.claimed.remove(0).held;
    case.store().extend_outcomes(vec![held], later).await.unwrap();
    case.inserted(NewProcess { due_in: HOUR + MINUTE, ..waiting(3) }).await;
    case.inserted(NewProcess { due_in: MINUTE / 2, ..waiting(4) }).await;

    assert_eq!(case.jumped(back(later), 100).await, CorrectionProgress::Done);
    case.is_due_in(0x80, LONGEST + HOUR + HOUR / 2).await;
    case.is_due_in(1, LONGEST).await;
    assert!(case.load(decided).await.due_in <= LONGEST + 2 * HOUR);
    case.is_due_in(3, HOUR + MINUTE).await;
    assert!(case.load(id(4)).await.due_in <= MINUTE / 2, "it may have been settled by the new time");
    case.advance(LONGEST + MINUTE).await;
    assert!(!case.load(id(1)).await.leased, "a lease ends like any other");
    case.advance(2 * HOUR).await;
    assert_eq!(case.ping(id(0x80), 228).await, noted(id(0x80)));
    assert!(ids(&case.claim(9).await).contains(&id(0x80)), "a ping does not wait longer either");
}

pub(super) async fn a_clock_that_is_set_forward_advances_no_poll(case: Case<'_>) {
    for number in [0x40, 0x80] {
        case.inserted(NewProcess { due_in: 30 * MINUTE, ..waiting(number) }).await;
    }
    case.inserted(NewProcess { due_in: 30 * MINUTE, expires_in: Some(5 * HOUR + 30 * MINUTE), ..waiting(0x81) }).await;
    case.inserted(NewProcess { due_in: HOUR, expires_in: Some(3 * HOUR), ..waiting(0x82) }).await;
    case.inserted(NewProcess { due_in: 6 * HOUR + 30 * MINUTE, ..waiting(0x83) }).await;
    let held = 5 * HOUR + 30 * MINUTE;
    case.inserted(NewProcess { due_in: held, ping_in: Some(held), ..waiting(0x85) }).await;
    case.inserted(NewProcess { due_in: 20 * MINUTE, ping_in: Some(10 * MINUTE), ..waiting(0x86) }).await;
    let decided = case.decided(2).await;
    case.inserted(waiting(1)).await;
    let answered = case.claim_one().await;
    case.settle(settlement(&answered, Next::Answered)).await;

    case.advance(5 * HOUR).await;
    // A replica that has not noticed the jump settles by the new time.
    case.inserted(NewProcess { due_in: 30 * MINUTE, ..waiting(0xc0) }).await;
    assert_eq!(case.jumped(forward(5 * HOUR), 100).await, CorrectionProgress::Done);
    case.is_due_in(0x40, 30 * MINUTE).await;
    case.is_due_in(0x80, 30 * MINUTE).await;
    // No row moves by more than an interval.
    case.is_due_in(0xc0, HOUR + HOUR * 3 / 4).await;
    // It expires before an interval has passed.
    case.is_due_in(0x81, 30 * MINUTE - 5 * SECOND).await;
    assert!(case.load(id(0x81)).await.due_in < 30 * MINUTE - 4 * SECOND);
    // By the clock that jumped, it seems to have expired.
    case.is_due_in(0x82, HOUR).await;
    case.is_due_in(0x83, HOUR + 30 * MINUTE).await;
    case.is_due_in(0x85, HOUR + HOUR * 0x85 / 0x100).await;
    case.ping(id(0x85), 233).await;
    case.is_due_in(0x85, HOUR + HOUR * 0x85 / 0x100).await;
    case.is_due_in(0x86, 20 * MINUTE).await;
    case.ping(id(0x86), 234).await;
    case.is_due_in(0x86, 10 * MINUTE).await;
    assert_eq!(ids(&case.claim(9).await), [answered.id], "a stored success is due at once");
    assert_eq!(case.outcomes(HOUR).await.claimed[0].held.id, decided);
}

pub(super) async fn small_jumps_delay_a_row_by_no_more_than_their_sum(case: Case<'_>) {
    case.inserted(NewProcess { due_in: 50 * MINUTE, ..waiting(0x80) }).await;
    for _ in 0..4 {
        case.advance(5 * MINUTE).await;
        assert_eq!(case.jumped(forward(2 * MINUTE), 100).await, CorrectionProgress::Done);
    }
    case.is_due_in(0x80, 38 * MINUTE).await;
    for _ in 0..4 {
        assert_eq!(case.jumped(back(2 * MINUTE), 100).await, CorrectionProgress::Done);
    }
    case.is_due_in(0x80, 38 * MINUTE).await;
    assert_eq!(case.corrected().await, ClockJump::default(), "their sum is zero");
}

pub(super) async fn a_lease_moves_with_the_clock(case: Case<'_>) {
    case.inserted(waiting(0x80)).await;
    let claimed = case.claim_one().await;
    case.advance(5 * HOUR).await;
    assert!(!case.load(id(0x80)).await.leased, "by the clock, the lease has expired");
    assert_eq!(case.jumped(forward(5 * HOUR), 100).await, CorrectionProgress::Done);
    assert!(case.load(id(0x80)).await.leased);
    case.is_due_in(0x80, 5 * MINUTE + HOUR).await;
    case.ping(id(0x80), 228).await;
    assert!(case.claim(9).await.is_empty(), "its holder may be polling");
    assert_eq!(case.settle(settlement(&claimed, Next::Waiting)).await, Settled::Done);
    // A lease that began by the new time becomes longer, up to the maximum of leases.
    assert!(!case.claim(9).await.is_empty());
    assert_eq!(case.jumped(forward(5 * HOUR), 100).await, CorrectionProgress::Done);
    case.is_due_in(0x80, LONGEST + HOUR + HOUR / 2).await;
    case.advance(LONGEST - MINUTE).await;
    assert!(case.load(id(0x80)).await.leased);
    case.advance(2 * MINUTE).await;
    assert!(!case.load(id(0x80)).await.leased);
}

pub(super) async fn nothing_is_claimed_while_due_times_are_corrected(case: Case<'_>) {
    for number in 1..=5 {
        case.inserted(waiting(number)).await;
    }
    let claimed = case.claim(1).await.remove(0);
    assert_eq!(case.jumped(forward(HOUR), 2).await, CorrectionProgress::More);
    let work = case.settle_and_claim(vec![settlement(&claimed, Next::Answered)], 10).await;
    assert_eq!(work.settled, [Settled::Done]);
    assert!(work.claimed.is_empty() && work.correcting);
    assert_eq!(case.load(id(4)).await.due_in, Duration::ZERO, "the run has not reached it");
    // The replica that started the run has died, and this one noticed no jump.
    assert_eq!(case.correct(go_on(2)).await, CorrectionProgress::More);
    assert!(case.load(id(4)).await.due_in > 50 * MINUTE);
    assert_eq!(case.load(id(5)).await.due_in, Duration::ZERO);
    assert_eq!(case.correct(go_on(2)).await, CorrectionProgress::Done);
    assert!(case.load(id(5)).await.due_in > 50 * MINUTE);
    let work = case.settle_and_claim(vec![], 10).await;
    assert!(!work.correcting);
    assert_eq!(ids(&work.claimed), [claimed.id], "a stored success is not postponed");
    assert_eq!(case.correct(go_on(2)).await, CorrectionProgress::Done, "there is nothing to continue");
}

pub(super) async fn one_jump_causes_one_run_for_all_callers_that_notice_it(case: Case<'_>) {
    for number in 1..=2 {
        case.inserted(NewProcess { due_in: 5 * MINUTE, ..waiting(number) }).await;
    }
    let of = |jump, corrected| CorrectionStep { noticed: Some(Noticed { jump, corrected }), ..go_on(1) };
    let (before, first) = (case.corrected().await, forward(10 * MINUTE));
    assert_eq!(case.correct(of(first, before)).await, CorrectionProgress::More);
    assert_eq!(case.corrected().await, before.plus(first));
    case.is_due_in(1, 15 * MINUTE).await;
    // Another replica noticed the same jump, and continues the run.
    assert_eq!(case.correct(of(first, before)).await, CorrectionProgress::More);
    case.is_due_in(2, 15 * MINUTE).await;
    // Another jump during that run: its own run starts with the first row when this one has ended.
    let (between, second) = (case.corrected().await, forward(7 * MINUTE));
    assert_eq!(case.correct(of(second, between)).await, CorrectionProgress::More);
    assert_eq!(case.corrected().await, between, "the run for the first jump has ended");
    for _ in 0..2 {
        assert_eq!(case.correct(of(second, between)).await, CorrectionProgress::More);
    }
    assert_eq!(case.correct(of(second, between)).await, CorrectionProgress::Done);
    for number in 1..=2 {
        case.is_due_in(number, 22 * MINUTE).await;
    }
    // Other callers that noticed one of the jumps, or both together, are too late.
    for late in [of(first, before), of(second, between), of(first.plus(second), before)] {
        assert_eq!(case.correct(late).await, CorrectionProgress::Done);
    }
    case.is_due_in(1, 22 * MINUTE).await;
    assert_eq!(case.corrected().await, between.plus(second));
}
