//! A queue that behaves like a store: pings move due times, monotonic clocks are forgotten, and holders die.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::super::super::answer::SuccessBody;
use super::*;
use crate::clock::from_unix_seconds;
use crate::error::ErrorResponse;

const STEADY: Pace = Pace { jitter: Jitter(0), longest_wait: None, give_up_after: None };

fn moment(milliseconds: u64) -> Moment {
    let since = Duration::from_millis(milliseconds);
    Moment { wall: from_unix_seconds(1_800_000_000) + since, monotonic: since }
}

fn schedule(interval: u64, expires_in: Option<u64>) -> Schedule {
    let times =
        Times { interval: Some(Duration::from_secs(interval)), expires_in: expires_in.map(Duration::from_secs) };
    Schedule::new(times, moment(0).wall, moment(0), Some(FINAL_POLL_MARGIN), STEADY)
}

/// The schedule as a store returns it.
fn stored(schedule: &Schedule) -> Schedule {
    serde_json::from_str(&serde_json::to_string(schedule).unwrap()).unwrap()
}

fn error(code: &str, retry_after: Option<u64>) -> Answer {
    let response = ErrorResponse::new(code, None, Some(400));
    Answer::Error {
        response,
        retry_after: retry_after.map(Duration::from_secs),
        interaction: crate::dialect::Interaction::Unmentioned,
    }
}

fn answered(schedule: &mut Schedule, answer: &Answer, now: Moment) -> Standing {
    schedule.sending(now);
    schedule.answered(answer, now, STEADY)
}

/// Takes the sign-in from the queue, after a ping if that is before its due time.
fn claimed(schedule: &mut Schedule, milliseconds: u64) -> Step {
    schedule.claimed(moment(milliseconds), Taken { at: moment(milliseconds).wall, pinged: true, orphaned: false })
}

#[test]
fn an_early_poll_uses_up_the_ping_of_its_interval() {
    let mut schedule = schedule(60, None);
    assert_eq!(schedule.ping_in(moment(0)), Some(Duration::from_secs(1)));
    assert_eq!(claimed(&mut schedule, 20_000), Step::Ask);
    answered(&mut schedule, &error("authorization_pending", None), moment(20_000));
    assert_eq!(schedule.ping_in(moment(20_000)), None);
    let mut schedule = stored(&schedule);
    assert_eq!(schedule.due_in(moment(20_000)), Duration::from_secs(60));
    assert_eq!(claimed(&mut schedule, 80_000), Step::Ask);
    answered(&mut schedule, &error("authorization_pending", None), moment(80_000));
    assert_eq!(schedule.ping_in(moment(80_000)), Some(Duration::from_secs(1)));
}

#[test]
fn the_backoff_of_cancellations_survives_a_restart() {
    let mut schedule = schedule(60, None);
    let (mut now, mut waits) = (0, Vec::new());
    assert!(schedule.may_cancel(moment(0)));
    for _ in 0..9 {
        schedule.cancellation_sent(moment(now));
        schedule = stored(&schedule);
        let before = now;
        while !schedule.may_cancel(moment(now)) {
            now += 60_000;
        }
        waits.push((now - before) / 60_000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn a_cancellation_recorded_late_does_not_advance_the_next_one() {
    let mut schedule = schedule(60, None);
    schedule.cancellation_sent(moment(200_000));
    schedule.cancellation_sent(moment(30_000));
    assert!(!schedule.may_cancel(moment(259_000)));
    assert!(schedule.may_cancel(moment(260_000)));
}

#[test]
fn a_poll_after_a_ping_uses_up_the_ping_even_if_it_is_sent_after_the_due_time() {
    let mut schedule = schedule(60, None);
    assert_eq!(
        schedule.claimed(moment(60_500), Taken { at: moment(59_500).wall, pinged: true, orphaned: false }),
        Step::Ask
    );
    answered(&mut schedule, &error("authorization_pending", None), moment(60_500));
    assert_eq!(schedule.ping_in(moment(60_500)), None);
}

#[test]
fn a_poll_after_a_ping_and_an_expired_lease_uses_up_the_ping_of_its_interval() {
    let mut schedule = schedule(60, None);
    // A poll was sent after a minute, and a ping has brought the next one forward.
    assert_eq!(
        schedule.claimed(moment(80_000), Taken { at: moment(80_000).wall, pinged: true, orphaned: true }),
        Step::Ask
    );
    answered(&mut schedule, &error("authorization_pending", None), moment(80_000));
    assert_eq!(schedule.ping_in(moment(80_000)), None);
}

#[test]
fn a_poll_that_is_early_by_clock_error_does_not_use_up_the_ping() {
    let mut schedule = schedule(60, None);
    assert_eq!(
        schedule.claimed(moment(60_500), Taken { at: moment(59_500).wall, pinged: false, orphaned: false }),
        Step::Ask
    );
    answered(&mut schedule, &error("authorization_pending", None), moment(60_500));
    assert_eq!(schedule.ping_in(moment(60_500)), Some(Duration::from_secs(1)));
}

#[test]
fn an_unanswered_poll_after_the_end_is_the_last_one() {
    let unusable = Answer::Unusable { unanswered: false, retry_after: None };
    let mut schedule = schedule(65, Some(90));
    assert_eq!(claimed(&mut schedule, 85_300), Step::Ask);
    answered(&mut schedule, &unusable, moment(85_300));
    assert_eq!(schedule.due_in(moment(85_300)), Duration::from_millis(64_700), "it expires before its next poll");
    let mut schedule = stored(&schedule);
    assert_eq!(
        schedule.claimed(moment(152_500), Taken { at: moment(150_000).wall, pinged: false, orphaned: false }),
        Step::Ask
    );
    answered(&mut schedule, &unusable, moment(152_500));
    assert_eq!(schedule.due_in(moment(152_500)), Duration::ZERO);
    let end = End::Expired { confirmed: false };
    assert_eq!(
        stored(&schedule).claimed(moment(152_600), Taken { at: moment(152_500).wall, pinged: false, orphaned: false }),
        Step::End(end)
    );
}

#[test]
fn a_ping_before_retry_after_does_not_end_a_process_past_its_deadline() {
    let mut held = schedule(10, Some(100));
    assert_eq!(claimed(&mut held, 95_000), Step::Ask);
    let busy = Answer::Unusable { unanswered: false, retry_after: Some(Duration::from_secs(1_000)) };
    answered(&mut held, &busy, moment(95_000));
    let step =
        stored(&held).claimed(moment(202_000), Taken { at: moment(200_000).wall, pinged: true, orphaned: false });
    assert_eq!(step, Step::Wait(Duration::from_secs(895)), "by the queue's clock");
}

#[test]
fn after_a_request_beyond_the_expiration_the_next_one_keeps_the_interval() {
    let mut schedule = schedule(1_500, Some(3_800));
    assert_eq!(claimed(&mut schedule, 1_500_000), Step::Ask);
    answered(&mut schedule, &error("authorization_pending", None), moment(1_500_000));
    assert_eq!(claimed(&mut schedule, 3_000_000), Step::Ask);
    answered(&mut schedule, &error("invalid_client", None), moment(3_000_000));
    assert_eq!(schedule.due_in(moment(3_000_000)), Duration::from_secs(795), "the request before the expiration");
    // The holder sends it, and dies. The next one sends it again.
    let again = moment(4_070_000);
    assert_eq!(schedule.claimed(again, Taken { at: again.wall, pinged: false, orphaned: true }), Step::Ask);
    answered(&mut schedule, &error("invalid_client", None), again);
    assert_eq!(schedule.due_in(again), Duration::from_secs(1_500));
}

#[test]
fn a_ping_after_the_deadline_overrides_the_backoff_of_an_open_sign_in() {
    let pace = Pace { longest_wait: Some(Duration::from_secs(86_400)), ..STEADY };
    let mut schedule = schedule(10, Some(100));
    let mut now = 0;
    while schedule.due_in(moment(now)) < Duration::from_secs(3_600) {
        now += schedule.due_in(moment(now)).as_millis() as u64;
        assert_eq!(claimed(&mut schedule, now), Step::Ask);
        schedule.sending(moment(now));
        assert_eq!(schedule.answered(&error("authorization_pending", None), moment(now), pace), Standing::Open);
        schedule = stored(&schedule);
    }
    let soon = now + 200_000;
    assert!(schedule.until_deadline(moment(soon)).is_some_and(|left| left.is_zero()));
    assert_eq!(schedule.ping_in(moment(now)), Some(Duration::from_secs(1)));
    assert_eq!(
        stored(&schedule).claimed(moment(soon), Taken { at: moment(soon).wall, pinged: true, orphaned: false }),
        Step::Ask
    );
    // The correction of due times after a jump of the clock also brings it forward.
    assert_eq!(
        stored(&schedule).claimed(moment(soon), Taken { at: moment(soon).wall, pinged: false, orphaned: false }),
        Step::Ask
    );
    // `Retry-After` still holds.
    schedule.not_before = Some(Due::after(Duration::from_secs(300), moment(now)));
    let step = stored(&schedule).claimed(moment(soon), Taken { at: moment(soon).wall, pinged: true, orphaned: false });
    assert_eq!(step, Step::Wait(Duration::from_secs(100)));
}

#[test]
fn a_poll_that_was_given_back_unsent_still_uses_up_the_ping_of_its_interval() {
    let mut schedule = schedule(60, None);
    let before = schedule.clone();
    assert_eq!(claimed(&mut schedule, 20_000), Step::Ask);
    let mut schedule = stored(&schedule.given_back(before));
    assert_eq!(schedule.due_at(), moment(60_000).wall);
    assert_eq!(
        schedule.claimed(moment(21_000), Taken { at: moment(21_000).wall, pinged: false, orphaned: false }),
        Step::Ask
    );
    answered(&mut schedule, &error("authorization_pending", None), moment(21_000));
    assert_eq!(schedule.ping_in(moment(21_000)), None);
}

#[test]
fn a_ping_is_used_up_by_a_sign_in_that_is_given_back_before_a_request_is_made() {
    let taken = |at, pinged| Taken { at: moment(at).wall, pinged, orphaned: false };
    let schedule = schedule(60, None);
    let given_back = schedule.taken_and_given_back(moment(20_000), taken(20_000, true));
    assert_eq!(given_back.due_at(), moment(60_000).wall);
    // The queue has it again after the pause, which is before its own due time.
    let mut schedule = stored(&given_back);
    assert_eq!(schedule.claimed(moment(30_000), taken(30_000, false)), Step::Ask);
    answered(&mut schedule, &error("authorization_pending", None), moment(30_000));
    assert_eq!(schedule.ping_in(moment(30_000)), None);
}

#[test]
fn retry_after_delays_pings_and_slow_down_disables_them() {
    let mut schedule = schedule(60, None);
    answered(&mut schedule, &error("authorization_pending", Some(300)), moment(60_000));
    assert_eq!(schedule.ping_in(moment(60_000)), Some(Duration::from_secs(300)));
    answered(&mut schedule, &error("slow_down", None), moment(400_000));
    assert_eq!(stored(&schedule).ping_in(moment(400_000)), None);
}

#[test]
fn a_process_whose_replica_died_may_have_lost_its_success() {
    for code in ["invalid_grant", "expired_token", "invalid_request"] {
        let mut schedule = schedule(60, None);
        schedule.orphaned(moment(90_000));
        let mut schedule = stored(&schedule);
        assert_eq!(claimed(&mut schedule, 90_000), Step::Ask);
        let standing = answered(&mut schedule, &error(code, None), moment(90_000));
        assert_eq!(standing, Standing::Ended(End::Unknown), "{code}");
    }
    let mut schedule = schedule(60, None);
    schedule.orphaned(moment(90_000));
    answered(&mut schedule, &error("authorization_pending", None), moment(390_000));
    let standing = answered(&mut stored(&schedule), &error("invalid_grant", None), moment(450_000));
    assert_eq!(standing, Standing::Ended(End::Failed), "a pending answer shows that nothing was lost");
}

#[test]
fn moving_a_schedule_to_another_clock_keeps_every_wait() {
    let mut schedule = schedule(60, Some(3_600));
    let (here, there) = (moment(0).wall, moment(0).wall + Duration::from_secs(86_400));
    for (from, to) in [(here, there), (there, here)] {
        let before = schedule.due_at().duration_since(from).unwrap();
        schedule.move_to_clock(Moment { wall: from, ..moment(0) }, to);
        assert_eq!(schedule.due_at().duration_since(to).unwrap(), before);
        assert_eq!(schedule.expires_at().unwrap().duration_since(to).unwrap(), Duration::from_secs(3_600));
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Ping(u64),
    Answer(&'static str, Option<u64>),
    Lost,
    Crash,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let answers = ["authorization_pending", "slow_down", "temporarily_unavailable", "invalid_client"];
    proptest::collection::vec(
        prop_oneof![
            (0..200_000_u64).prop_map(Happening::Ping),
            (proptest::sample::select(answers.to_vec()), proptest::option::of(0..500_u64))
                .prop_map(|(code, retry_after)| Happening::Answer(code, retry_after)),
            Just(Happening::Lost),
            Just(Happening::Crash),
        ],
        1..40,
    )
}

proptest! {
    /// `due` and `not_before` represent the store, by its contract.
    #[test]
    fn requests_keep_the_interval_but_for_one_ping_between_two_scheduled_ones(
        interval in 1..120_u64,
        happenings in happenings(),
    ) {
        let mut schedule = schedule(interval, None);
        let mut now = 0_u64;
        let mut due = interval * 1_000;
        let mut not_before = schedule.ping_in(moment(0)).map(|wait| wait.as_millis() as u64);
        let (mut last, mut slow_downs, mut held_until, mut early_before) = (0_u64, 0_u64, 0_u64, false);
        let mut pinged = false;
        for happening in happenings {
            if let Happening::Ping(after) = happening {
                (now, pinged) = ((now + after).min(due), true);
                if let Some(not_before) = not_before {
                    due = due.min(now.max(not_before));
                }
                continue;
            }
            now = now.max(due);
            schedule = stored(&schedule);
            prop_assert_eq!(schedule.claimed(moment(now), Taken { at: moment(now).wall, pinged: std::mem::take(&mut pinged), orphaned: false }), Step::Ask);
            let in_force = (interval + 5 * slow_downs) * 1_000;
            let early = now < last + in_force;
            prop_assert!(now >= held_until, "before the time that Retry-After named");
            prop_assert!(!early || (now >= last + 1_000 && !early_before && slow_downs == 0), "too early");
            early_before = early;
            schedule.sending(moment(now));
            match happening {
                Happening::Answer(code, retry_after) => {
                    let answer = error(code, retry_after);
                    prop_assert_eq!(schedule.answered(&answer, moment(now), STEADY), Standing::Open);
                    slow_downs += u64::from(code == "slow_down");
                    held_until = now + retry_after.unwrap_or(0) * 1_000;
                }
                Happening::Lost => {
                    let lost = Answer::Unusable { unanswered: true, retry_after: None };
                    prop_assert_eq!(schedule.answered(&lost, moment(now), STEADY), Standing::Open);
                }
                // The result of this claim is lost; the row is due again after its lease and an interval.
                Happening::Crash => {
                    schedule.orphaned(moment(now));
                    last = now;
                    (due, not_before) = (now + 300_000 + in_force, None);
                    continue;
                }
                Happening::Ping(_) => unreachable!(),
            }
            last = now;
            due = now + schedule.due_in(moment(now)).as_millis() as u64;
            not_before = schedule.ping_in(moment(now)).map(|wait| now + wait.as_millis() as u64);
        }
        let success = Answer::Success(SuccessBody(Zeroizing::new(b"{}".to_vec())));
        prop_assert_eq!(answered(&mut schedule, &success, moment(now.max(due))), Standing::Succeeded);
    }
}

#[test]
fn a_ping_resets_a_grown_wait_to_the_interval() {
    let pace = Pace { longest_wait: Some(Duration::from_secs(3600)), ..STEADY };
    let mut schedule = schedule(5, None);
    let mut now = 0;
    for expected in [5, 10, 20, 40] {
        let due_in = schedule.due_in(moment(now));
        assert_eq!(due_in, Duration::from_secs(expected));
        now += due_in.as_millis() as u64;
        assert_eq!(claimed(&mut schedule, now), Step::Ask);
        schedule.sending(moment(now));
        assert_eq!(schedule.answered(&error("authorization_pending", None), moment(now), pace), Standing::Open);
    }
    assert_eq!(schedule.due_in(moment(now)), Duration::from_secs(80));
    assert_eq!(schedule.ping_in(moment(now)), Some(Duration::from_secs(1)));
    now += 1_000;
    assert_eq!(claimed(&mut schedule, now), Step::Ask);
    schedule.sending(moment(now));
    schedule.answered(&error("authorization_pending", None), moment(now), pace);
    assert_eq!(schedule.due_in(moment(now)), Duration::from_secs(5), "a ping resets the backoff");
    assert_eq!(schedule.ping_in(moment(now)), None, "one ping for each interval");
    now += 5_000;
    assert_eq!(claimed(&mut schedule, now), Step::Ask);
    schedule.sending(moment(now));
    schedule.answered(&error("authorization_pending", None), moment(now), pace);
    assert_eq!(schedule.due_in(moment(now)), Duration::from_secs(10));
    assert_eq!(schedule.ping_in(moment(now)), Some(Duration::from_secs(1)));
}
