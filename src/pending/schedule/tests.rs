//! The rules of polling, one by one and over random histories.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::super::answer::SuccessBody;
use super::*;
use crate::clock::from_unix_seconds;
use crate::error::ErrorResponse;

mod deadline;
mod histories;

const NO_JITTER: Pace = steady(0);

const fn steady(jitter: u16) -> Pace {
    Pace { jitter: Jitter(jitter), longest_wait: None, give_up_after: None }
}

fn moment(seconds: f64) -> Moment {
    let since = Duration::from_secs_f64(seconds);
    Moment { wall: from_unix_seconds(1_800_000_000) + since, monotonic: since }
}

fn schedule(interval: Option<u64>, expires_in: Option<u64>) -> Schedule {
    let times = Times { interval: interval.map(Duration::from_secs), expires_in: expires_in.map(Duration::from_secs) };
    Schedule::new(times, moment(0.0).wall, moment(0.0), Some(FINAL_POLL_MARGIN), NO_JITTER)
}

fn error(code: &str) -> Answer {
    Answer::Error {
        response: ErrorResponse::new(code, None, Some(400)),
        retry_after: None,
        interaction: crate::dialect::Interaction::Unmentioned,
    }
}

fn pending() -> Answer {
    error("authorization_pending")
}

fn success() -> Answer {
    Answer::Success(SuccessBody(Zeroizing::new(b"{}".to_vec())))
}

fn lost() -> Answer {
    Answer::Unusable { unanswered: true, retry_after: None }
}

fn unavailable(retry_after: Option<u64>) -> Answer {
    Answer::Unusable { unanswered: false, retry_after: retry_after.map(Duration::from_secs) }
}

/// Waits until a request is due, sends it, and answers it at once. Returns the time and the result.
fn ask(schedule: &mut Schedule, from: f64, answer: &Answer) -> (f64, Standing) {
    let mut now = from;
    loop {
        match schedule.step(moment(now)) {
            Step::Wait(wait) => now += wait.as_secs_f64(),
            Step::Ask => break,
            Step::End(end) => return (now, Standing::Ended(end)),
        }
    }
    schedule.sending(moment(now));
    (now, schedule.answered(answer, moment(now), NO_JITTER))
}

#[test]
fn the_first_poll_comes_one_interval_after_the_exchange_response() {
    assert_eq!(schedule(Some(60), None).step(moment(0.0)), Step::Wait(Duration::from_secs(60)));
}

#[test]
fn the_interval_counts_from_the_response() {
    let mut schedule = schedule(Some(10), None);
    schedule.sending(moment(10.0));
    schedule.answered(&pending(), moment(100.0), NO_JITTER);
    assert_eq!(schedule.step(moment(100.0)), Step::Wait(Duration::from_secs(10)));
}

#[test]
fn an_interval_under_a_second_becomes_a_second() {
    let times = Times { interval: Some(Duration::ZERO), expires_in: None };
    let mut schedule = Schedule::new(times, moment(0.0).wall, moment(0.0), None, NO_JITTER);
    assert_eq!(schedule.step(moment(0.0)), Step::Wait(Duration::from_secs(1)));
}

#[test]
fn a_stored_interval_of_zero_becomes_a_second() {
    let mut stored = serde_json::to_value(schedule(Some(60), None)).unwrap();
    stored["int"] = 0.into();
    let mut schedule: Schedule = serde_json::from_value(stored).unwrap();
    schedule.sending(moment(60.0));
    schedule.answered(&pending(), moment(60.0), NO_JITTER);
    assert_eq!(schedule.step(moment(60.0)), Step::Wait(Duration::from_secs(1)));
}

#[test]
fn without_an_interval_the_wait_grows_with_age_from_five_seconds_to_five_minutes() {
    let mut schedule = schedule(None, None);
    assert_eq!(schedule.interval(moment(0.0)), Duration::from_secs(5));
    assert_eq!(schedule.interval(moment(3_600.0)), Duration::from_secs(36));
    assert_eq!(schedule.interval(moment(1e6)), Duration::from_secs(300));
    assert_eq!(ask(&mut schedule, 0.0, &pending()).0, 5.0);
}

#[test]
fn slow_down_lengthens_the_interval_by_five_seconds_for_good() {
    let mut schedule = schedule(Some(5), None);
    let (at, _) = ask(&mut schedule, 0.0, &error("slow_down"));
    let (at, _) = ask(&mut schedule, at, &pending());
    assert_eq!(at, 15.0);
    let (at, _) = ask(&mut schedule, at, &error("slow_down"));
    let (at, _) = ask(&mut schedule, at, &error("slow_down"));
    let (before, _) = ask(&mut schedule, at, &pending());
    let (after, _) = ask(&mut schedule, before, &pending());
    assert_eq!(after - before, 20.0, "three times slow_down at interval 5");
}

#[test]
fn a_retry_after_beyond_the_end_does_not_cancel_the_poll_before_the_end() {
    let mut schedule = schedule(Some(60), Some(3_600));
    schedule.sending(moment(60.0));
    schedule.answered(&unavailable(Some(86_400)), moment(60.0), NO_JITTER);
    assert_eq!(schedule.step(moment(60.0)), Step::Wait(Duration::from_secs(3_535)));
    assert_eq!(ask(&mut schedule, 60.0, &pending()).0, 3_595.0);
}

#[test]
fn a_retry_after_before_the_end_is_honoured() {
    let mut schedule = schedule(Some(60), Some(3_600));
    schedule.sending(moment(60.0));
    schedule.answered(&unavailable(Some(1_000)), moment(60.0), NO_JITTER);
    assert_eq!(ask(&mut schedule, 60.0, &pending()).0, 1_060.0);
}

#[test]
fn slow_down_survives_a_restart() {
    let mut schedule = schedule(Some(5), None);
    ask(&mut schedule, 0.0, &error("slow_down"));
    let mut reopened = reopen(&schedule);
    assert_eq!(reopened.interval(moment(5.0)), Duration::from_secs(10));
    assert_eq!(reopened.step(moment(5.0)), Step::Wait(Duration::from_secs(10)));
}

#[test]
fn a_restart_during_an_interval_does_not_advance_the_poll() {
    let schedule = schedule(Some(60), None);
    assert_eq!(reopen(&schedule).step(moment(20.0)), Step::Wait(Duration::from_secs(40)));
}

#[test]
fn a_wall_clock_that_was_set_back_while_the_process_was_down_does_not_lengthen_the_wait() {
    let schedule = schedule(Some(60), None);
    let day_before = Moment { wall: moment(0.0).wall - Duration::from_secs(86_400), monotonic: Duration::ZERO };
    assert_eq!(reopen(&schedule).step(day_before), Step::Wait(Duration::from_secs(60)));
}

#[test]
fn a_jump_of_the_wall_clock_neither_advances_nor_delays_a_poll() {
    for jump in [-86_400_i64, 86_400] {
        let mut schedule = schedule(Some(60), None);
        let wall = if jump < 0 { moment(30.0).wall - Duration::from_secs(86_400) } else { moment(86_430.0).wall };
        let now = Moment { wall, monotonic: Duration::from_secs(30) };
        assert_eq!(schedule.step(now), Step::Wait(Duration::from_secs(30)), "{jump}");
    }
}

#[test]
fn transient_errors_back_off_exponentially_up_to_an_hour_and_end_no_process() {
    let mut schedule = schedule(Some(60), None);
    let mut at = 0.0;
    let mut waits = Vec::new();
    for _ in 0..9 {
        let (next, standing) = ask(&mut schedule, at, &unavailable(None));
        assert_eq!(standing, Standing::Open);
        waits.push(next - at);
        at = next;
    }
    assert_eq!(waits, [60.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]);
    let (recovered, _) = ask(&mut schedule, at, &pending());
    assert_eq!(ask(&mut schedule, recovered, &pending()).0 - recovered, 60.0, "one answer ends the backoff");
}

#[test]
fn an_interval_longer_than_an_hour_is_not_shortened_by_backoff() {
    let mut schedule = schedule(Some(7_200), None);
    let (first, _) = ask(&mut schedule, 0.0, &unavailable(None));
    assert_eq!(ask(&mut schedule, first, &unavailable(None)).0 - first, 7_200.0);
}

#[test]
fn retry_after_lengthens_the_wait_and_never_shortens_it() {
    let mut schedule = schedule(Some(60), None);
    let (first, _) = ask(&mut schedule, 0.0, &unavailable(Some(600)));
    let (second, _) = ask(&mut schedule, first, &unavailable(Some(1)));
    assert_eq!(second - first, 600.0);
    assert_eq!(ask(&mut schedule, second, &pending()).0 - second, 120.0);
}

#[test]
fn retry_after_beside_authorization_pending_is_honoured() {
    let mut schedule = schedule(Some(5), None);
    let answer = Answer::Error {
        response: ErrorResponse::new("authorization_pending", None, Some(400)),
        retry_after: Some(Duration::from_secs(100)),
        interaction: crate::dialect::Interaction::Unmentioned,
    };
    let (first, _) = ask(&mut schedule, 0.0, &answer);
    assert_eq!(ask(&mut schedule, first, &pending()).0 - first, 100.0);
}

#[test]
fn one_poll_is_sent_five_seconds_before_the_end() {
    let mut schedule = schedule(Some(60), Some(100));
    let (first, _) = ask(&mut schedule, 0.0, &pending());
    let (second, _) = ask(&mut schedule, first, &pending());
    assert_eq!((first, second), (60.0, 95.0));
    let (third, standing) = ask(&mut schedule, second, &pending());
    assert_eq!((third, standing), (155.0, Standing::Open), "the OP answered that it has not decided");
}

#[test]
fn a_clock_that_is_set_back_causes_no_second_poll_before_the_end() {
    let mut schedule = schedule(Some(20), Some(21));
    assert_eq!(schedule.step(moment(0.0)), Step::Wait(Duration::from_secs(16)));
    let set_back = Moment { wall: moment(8.0).wall, ..moment(16.0) };
    assert_eq!(schedule.step(set_back), Step::Ask);
    schedule.sending(set_back);
    schedule.answered(&pending(), set_back, NO_JITTER);
    assert!(schedule.until_due(set_back) >= Duration::from_secs(20), "{schedule:?}");
}

#[test]
fn one_poll_is_sent_after_the_deadline_if_the_op_does_not_answer() {
    let mut schedule = schedule(Some(10), Some(100));
    let mut polls = Vec::new();
    let mut at = 0.0;
    loop {
        let (next, standing) = ask(&mut schedule, at, &unavailable(None));
        at = next;
        match standing {
            Standing::Open => polls.push(at),
            Standing::Ended(end) => {
                assert_eq!(end, End::Expired { confirmed: false });
                break;
            }
            Standing::Succeeded => unreachable!(),
        }
    }
    assert_eq!(at, 160.0);
    assert_eq!(polls.iter().filter(|&&poll| poll >= 100.0).count(), 1, "{polls:?}");
    assert!(polls.contains(&95.0), "{polls:?}");
}

#[test]
fn a_retry_after_beyond_the_end_is_honoured_after_the_end() {
    let held = Answer::Error {
        response: ErrorResponse::new("slow_down", None, Some(400)),
        retry_after: Some(Duration::from_secs(86_400)),
        interaction: crate::dialect::Interaction::Unmentioned,
    };
    for last in [95.0, 120.0, 200.0] {
        let mut schedule = schedule(Some(10), Some(100));
        schedule.sending(moment(last));
        schedule.answered(&held, moment(last), NO_JITTER);
        assert_eq!(schedule.acts_at(), moment(last + 86_400.0).wall);
        assert!(matches!(schedule.step(moment(last + 86_399.0)), Step::Wait(_)));
        assert_eq!(schedule.step(moment(last + 86_400.0)), Step::Ask);
    }
}

#[test]
fn backoff_does_not_move_the_poll_before_the_end() {
    let mut schedule = schedule(Some(10), Some(1_000));
    let mut at = 0.0;
    let mut polls = Vec::new();
    while at < 990.0 {
        at = ask(&mut schedule, at, &unavailable(None)).0;
        polls.push(at);
    }
    assert_eq!(polls.last(), Some(&995.0), "{polls:?}");
}

#[test]
fn the_last_poll_does_not_follow_another_within_a_second() {
    let mut schedule = schedule(Some(47), Some(100));
    // 47 and 94; the final poll at 95 is a second later.
    let (first, _) = ask(&mut schedule, 0.0, &pending());
    let (second, _) = ask(&mut schedule, first, &pending());
    let (third, _) = ask(&mut schedule, second, &pending());
    assert_eq!((first, second, third), (47.0, 94.0, 95.0));
}

#[test]
fn a_wall_clock_set_before_the_sign_in_was_queued_does_not_advance_a_poll() {
    let (mut schedule, set) = (schedule(Some(600), None), Duration::from_secs(300));
    let now = moment(100.0);
    let queue = from_unix_seconds(1_000);
    schedule.move_to_clock(Moment { wall: now.wall + set, ..now }, queue);
    assert_eq!(schedule.due_in(Moment { wall: queue, monotonic: Duration::ZERO }), Duration::from_secs(500));
}

#[test]
fn the_final_poll_is_not_repeated_if_it_was_sent_slightly_early() {
    let mut schedule = reopen(&schedule(Some(3_600), Some(100)));
    schedule.sending(moment(94.9));
    schedule.answered(&pending(), moment(94.9), NO_JITTER);
    assert!(matches!(schedule.step(moment(96.0)), Step::Wait(_)));
}

#[test]
fn a_failing_process_is_not_polled_twice_within_a_second_at_its_end() {
    let mut schedule = schedule(Some(10), Some(100));
    schedule.sending(moment(95.0));
    schedule.answered(&lost(), moment(159.8), NO_JITTER);
    let Step::Wait(wait) = schedule.step(moment(159.8)) else { panic!("it is too early") };
    assert!(wait <= Duration::from_secs(1));
    assert!(matches!(schedule.step(moment(160.5)), Step::Wait(_)));
    assert_eq!(schedule.step(moment(160.8)), Step::Ask);
}

#[test]
fn a_process_opened_past_its_deadline_is_polled_once_and_expires_unconfirmed() {
    let schedule = schedule(Some(10), Some(100));
    let mut found = reopen(&schedule);
    assert_eq!(found.step(moment(5_000.0)), Step::Ask);
    found.sending(moment(5_000.0));
    found.answered(&unavailable(None), moment(5_000.0), NO_JITTER);
    assert_eq!(found.step(moment(5_000.0)), Step::End(End::Expired { confirmed: false }));
}

#[test]
fn a_process_opened_past_its_deadline_whose_answer_is_lost_is_unknown() {
    let mut found = reopen(&schedule(Some(10), Some(100)));
    assert_eq!(found.step(moment(5_000.0)), Step::Ask);
    found.sending(moment(5_000.0));
    found.answered(&lost(), moment(5_090.0), NO_JITTER);
    assert_eq!(found.step(moment(5_090.0)), Step::End(End::Unknown));
}

#[test]
fn a_client_error_after_the_deadline_does_not_end_the_process() {
    let mut found = reopen(&schedule(Some(10), Some(100)));
    found.step(moment(5_000.0));
    found.sending(moment(5_000.0));
    found.answered(&error("invalid_client"), moment(5_000.0), NO_JITTER);
    assert!(matches!(found.step(moment(5_000.0)), Step::Wait(_)));
}

/// Takes the sign-in from the queue, after a ping if that is before its due time.
fn claimed(schedule: &mut Schedule, now: Moment) -> Step {
    schedule.claimed(now, Taken { at: now.wall, pinged: true, orphaned: false })
}

#[test]
fn a_queued_process_is_not_polled_before_its_time_at_its_end() {
    let mut answered = schedule(Some(3_600), Some(100));
    assert_eq!(answered.due_in(moment(0.0)), Duration::from_secs(95));
    let mut answered = reopen(&answered);
    assert_eq!(claimed(&mut answered, moment(95.0)), Step::Ask);
    answered.sending(moment(95.0));
    answered.answered(&pending(), moment(95.0), NO_JITTER);
    assert_eq!(answered.due_in(moment(95.0)), Duration::from_secs(3_600), "the OP has not decided");

    let mut silent = schedule(Some(10), Some(100));
    silent.sending(moment(160.0));
    silent.answered(&unavailable(None), moment(160.0), NO_JITTER);
    assert_eq!(silent.due_in(moment(160.0)), Duration::ZERO);
    let expired = Step::End(End::Expired { confirmed: false });
    assert_eq!(claimed(&mut reopen(&silent), moment(160.0)), expired, "the last poll was not answered");

    let mut held = reopen(&schedule(Some(10), Some(100)));
    assert_eq!(claimed(&mut held, moment(95.0)), Step::Ask);
    held.sending(moment(95.0));
    held.answered(&unavailable(Some(1_000)), moment(95.0), NO_JITTER);
    assert_eq!(claimed(&mut reopen(&held), moment(160.0)), Step::Wait(Duration::from_secs(935)), "`Retry-After` holds");
    assert_eq!(claimed(&mut reopen(&held), moment(1_095.0)), Step::Ask);
}

#[test]
fn an_interval_longer_than_the_lifetime_still_gets_its_last_poll() {
    let mut schedule = schedule(Some(3_600), Some(100));
    assert_eq!(ask(&mut schedule, 0.0, &pending()).0, 95.0);
    assert_eq!(ask(&mut schedule, 95.0, &pending()), (3_695.0, Standing::Open));
}

#[test]
fn a_deferral_of_ten_years_without_a_deadline_works() {
    let mut schedule = schedule(Some(86_400 * 365), Some(86_400 * 3_650));
    assert_eq!(ask(&mut schedule, 0.0, &pending()).0, 86_400.0 * 365.0);
}

#[test]
fn huge_times_saturate_in_a_schedule() {
    let times = Times { interval: Some(Duration::MAX), expires_in: Some(Duration::MAX) };
    let mut schedule = Schedule::new(times, moment(0.0).wall, moment(0.0), Some(FINAL_POLL_MARGIN), steady(u16::MAX));
    assert!(matches!(schedule.step(moment(0.0)), Step::Wait(_)));
    schedule.sending(moment(1.0));
    schedule.answered(&error("slow_down"), moment(1.0), steady(u16::MAX));
    assert!(matches!(reopen(&schedule).step(moment(2.0)), Step::Wait(_)));
}

#[test]
fn invalid_grant_after_a_lost_answer_is_unknown_and_otherwise_failed() {
    for code in ["invalid_grant", "expired_token", "invalid_request"] {
        let mut schedule = schedule(Some(5), None);
        let (at, _) = ask(&mut schedule, 0.0, &lost());
        assert_eq!(ask(&mut schedule, at, &error(code)).1, Standing::Ended(End::Unknown), "{code}");
    }
    let mut schedule = schedule(Some(5), None);
    assert_eq!(ask(&mut schedule, 0.0, &error("invalid_grant")).1, Standing::Ended(End::Failed));
}

#[test]
fn a_denial_after_a_lost_answer_is_a_denial() {
    let mut schedule = schedule(Some(5), None);
    let (at, _) = ask(&mut schedule, 0.0, &lost());
    assert_eq!(ask(&mut schedule, at, &error("access_denied")).1, Standing::Ended(End::Denied));
}

#[test]
fn only_a_pending_answer_rules_out_that_the_success_was_lost() {
    let mut schedule = schedule(Some(5), None);
    let (at, _) = ask(&mut schedule, 0.0, &lost());
    let (at, _) = ask(&mut schedule, at + 300.0, &error("server_error"));
    assert!(schedule.answer_lost());
    let (at, _) = ask(&mut schedule, at, &pending());
    assert!(!schedule.answer_lost());
    assert_eq!(ask(&mut schedule, at, &error("invalid_grant")).1, Standing::Ended(End::Failed));
}

#[test]
fn an_abandoned_request_may_consume_the_success_after_a_later_pending_answer() {
    let mut schedule = schedule(Some(5), None);
    let (at, _) = ask(&mut schedule, 0.0, &lost());
    let (at, _) = ask(&mut reopen(&schedule), at, &pending());
    assert!(schedule.answer_lost());
    assert_eq!(ask(&mut schedule, at, &error("invalid_grant")).1, Standing::Ended(End::Unknown));
}

#[test]
fn a_dropped_request_keeps_the_interval_and_counts_as_lost() {
    let mut schedule = schedule(Some(5), None);
    schedule.sending(moment(5.0));
    // The value is dropped here, or the program crashes after the schedule was sealed.
    let mut reopened = reopen(&schedule);
    assert_eq!(reopened.step(moment(6.0)), Step::Wait(Duration::from_secs(4)));
    assert_eq!(ask(&mut reopened, 6.0, &error("invalid_grant")).1, Standing::Ended(End::Unknown));
}

#[test]
fn an_announced_request_counts_as_sent_only_in_the_stored_copy() {
    let mut schedule = schedule(Some(5), None);
    schedule.announce();
    let mut found = reopen(&schedule);
    assert_eq!(ask(&mut found, 0.0, &error("invalid_grant")).1, Standing::Ended(End::Unknown));
    assert_eq!(ask(&mut schedule, 0.0, &error("invalid_grant")).1, Standing::Ended(End::Failed));
}

#[test]
fn announcing_a_request_keeps_an_earlier_lost_answer() {
    let mut schedule = schedule(Some(5), None);
    schedule.sending(moment(5.0));
    schedule.announce();
    assert_eq!(ask(&mut schedule, 5.0, &error("invalid_grant")).1, Standing::Ended(End::Unknown));
}

#[test]
fn a_success_counts_after_every_history() {
    let mut schedule = schedule(Some(5), Some(100));
    let (at, _) = ask(&mut schedule, 0.0, &lost());
    assert_eq!(ask(&mut schedule, at, &success()).1, Standing::Succeeded);
}

#[test]
fn jitter_only_lengthens_and_by_a_tenth_or_thirty_seconds_at_most() {
    for (interval, most) in [(10, 11.0), (300, 330.0), (100_000, 100_030.0)] {
        let times = Times { interval: Some(Duration::from_secs(interval)), expires_in: None };
        let mut schedule = Schedule::new(times, moment(0.0).wall, moment(0.0), None, steady(u16::MAX));
        let Step::Wait(wait) = schedule.step(moment(0.0)) else { panic!("due at once") };
        assert!((wait.as_secs_f64() - most).abs() < 0.001, "{wait:?}");
    }
}

fn reopen(schedule: &Schedule) -> Schedule {
    serde_json::from_slice(&serde_json::to_vec(schedule).unwrap()).unwrap()
}

/// One event in a random history.
#[derive(Debug, Clone)]
enum Event {
    Answer(u8, Option<u64>),
    Dropped,
    Restart,
    LateCheck(u32),
    WallJump(i32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_u8..8, proptest::option::of(0_u64..5_000)).prop_map(|(kind, after)| Event::Answer(kind, after)),
        1 => Just(Event::Dropped),
        1 => Just(Event::Restart),
        1 => (0_u32..10_000_000).prop_map(Event::LateCheck),
        1 => (-100_000_i32..100_000).prop_map(Event::WallJump),
    ]
}

/// Lets the OP answer once more, with waits that grow up to `longest` seconds. Returns the next wait.
fn grown(schedule: &mut Schedule, now: &mut f64, answer: &Answer, longest: u64) -> u64 {
    let pace = Pace { longest_wait: Some(Duration::from_secs(longest)), ..NO_JITTER };
    while let Step::Wait(wait) = schedule.step(moment(*now)) {
        *now += wait.as_secs_f64();
    }
    schedule.sending(moment(*now));
    schedule.answered(answer, moment(*now), pace);
    schedule.until_due(moment(*now)).as_secs()
}

#[test]
fn a_growing_wait_doubles_up_to_its_limit_and_never_falls_below_the_interval() {
    let (mut schedule, mut now) = (schedule(Some(5), None), 0.0);
    let waits: Vec<u64> = (0..5).map(|_| grown(&mut schedule, &mut now, &pending(), 60)).collect();
    assert_eq!(waits, [10, 20, 40, 60, 60]);
    assert_eq!(grown(&mut schedule, &mut now, &error("slow_down"), 60), 60);
    let (mut slow, mut now) = (self::schedule(Some(600), None), 0.0);
    assert_eq!(grown(&mut slow, &mut now, &pending(), 60), 600, "the OP's interval is longer than the limit");
    assert_eq!(grown(&mut slow, &mut now, &error("slow_down"), 60), 605);
}

#[test]
fn transient_errors_never_shorten_a_grown_wait() {
    let (mut schedule, mut now) = (schedule(Some(5), None), 0.0);
    for _ in 0..4 {
        grown(&mut schedule, &mut now, &pending(), 80);
    }
    assert_eq!(grown(&mut schedule, &mut now, &unavailable(None), 80), 80);
    for _ in 0..4 {
        grown(&mut schedule, &mut now, &unavailable(None), 80);
    }
    assert_eq!(
        grown(&mut schedule, &mut now, &unavailable(None), 80),
        160,
        "the backoff after transient errors has its own limit"
    );
}

#[test]
fn give_up_after_ends_only_failing_sign_ins_and_keeps_unknown_outcomes() {
    let pace = Pace { give_up_after: Some(Duration::from_secs(3600)), ..NO_JITTER };
    let ended = |answers: &[Answer]| {
        let (mut schedule, mut now) = (schedule(Some(60), None), 0.0);
        let mut standing = Standing::Open;
        for answer in answers {
            now += 1_900.0;
            schedule.sending(moment(now));
            standing = schedule.answered(answer, moment(now), pace);
        }
        standing
    };
    assert_eq!(ended(&[unavailable(None), unavailable(None)]), Standing::Ended(End::Expired { confirmed: false }));
    assert_eq!(ended(&[lost(), unavailable(None)]), Standing::Ended(End::Unknown));
    assert_eq!(ended(&[unavailable(None), pending(), unavailable(None)]), Standing::Open);
    assert_eq!(ended(&[pending(), pending(), pending(), pending()]), Standing::Open);
    assert_eq!(ended(&[error("invalid_client"), error("invalid_client")]), Standing::Open, "the OP answers");
}

#[test]
fn the_poll_before_the_end_is_sent_after_any_backoff() {
    let (mut schedule, mut now) = (schedule(Some(5), Some(100)), 0.0);
    let waits: Vec<u64> = (0..4).map(|_| grown(&mut schedule, &mut now, &pending(), 3600)).collect();
    assert_eq!(waits, [10, 20, 40, 20], "5 s before 100 s have passed");
}

#[test]
fn ninety_days_without_an_answer_are_reported_once_for_a_process_without_a_deadline() {
    const DAY: f64 = 86_400.0;
    let mut schedule = schedule(Some(60), None);
    ask(&mut schedule, 10.0 * DAY, &pending());
    for day in [50.0, 99.0] {
        ask(&mut schedule, day * DAY, &unavailable(None));
        assert_eq!(schedule.newly_stale(moment(day * DAY)), None, "{day}");
    }
    ask(&mut schedule, 101.0 * DAY, &unavailable(None));
    let silence = schedule.newly_stale(moment(101.0 * DAY)).unwrap();
    assert_eq!(silence.as_secs() / 86_400, 91);
    assert_eq!(schedule.newly_stale(moment(102.0 * DAY)), None, "it was reported");
    ask(&mut schedule, 103.0 * DAY, &pending());
    ask(&mut schedule, 194.0 * DAY, &unavailable(None));
    assert!(schedule.newly_stale(moment(194.0 * DAY)).is_some(), "a second silence");
    let times = Times { interval: None, expires_in: Some(Duration::from_secs(400 * 86_400)) };
    let mut limited = Schedule::new(times, moment(0.0).wall, moment(0.0), None, NO_JITTER);
    assert_eq!(limited.newly_stale(moment(200.0 * DAY)), None, "its deadline ends it");
}
