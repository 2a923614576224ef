//! The rules over random histories.

use super::*;

fn answer_of(kind: u8, retry_after: Option<Duration>) -> Answer {
    match kind {
        0 => success(),
        1 => error("invalid_grant"),
        2 => error("slow_down"),
        3 => lost(),
        4 => Answer::Unusable { unanswered: false, retry_after },
        5 => error("invalid_client"),
        6 => error("access_denied"),
        _ => Answer::Error {
            response: ErrorResponse::new("authorization_pending", None, Some(400)),
            retry_after,
            interaction: crate::dialect::Interaction::Unmentioned,
        },
    }
}

/// Waits until the next request is due, or the sign-in ends.
fn end_or_request(schedule: &mut Schedule, now: &mut Moment) -> Option<End> {
    for _ in 0..5 {
        match schedule.step(*now) {
            Step::Wait(wait) => *now = now.plus(wait),
            Step::Ask => return None,
            Step::End(end) => return Some(end),
        }
    }
    panic!("waits do not add up to a due time");
}

proptest! {
    /// In any history, the time between two requests for one id is never shorter than the current interval, except for
    /// the request before the expiration and the one after it. Nothing is sent after a terminal answer. An end after a
    /// lost answer is never a denial or a plain failure.
    #[test]
    fn random_histories_keep_the_interval_and_report_possibly_lost_answers(
        interval in proptest::option::of(0_u64..4_000),
        expires_in in proptest::option::of(1_u64..100_000),
        jitter in any::<u16>(),
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let times = Times { interval: interval.map(Duration::from_secs), expires_in: expires_in.map(Duration::from_secs) };
        let mut now = moment(0.0);
        let mut schedule = Schedule::new(times, now.wall, now, Some(FINAL_POLL_MARGIN), steady(jitter));
        let mut last: Option<(Duration, Duration)> = None;
        let mut exceptions = 0;
        // A jump of the wall clock while the program is down cannot be distinguished from time that has passed.
        let (mut jumped, mut restarted) = (false, false);
        let mut ever_jumped = false;
        let (mut may_be_lost, mut dropped, mut held_until) = (false, false, Duration::ZERO);
        for event in events {
            match event {
                Event::Restart => {
                    restarted = true;
                    schedule = reopen(&schedule);
                }
                Event::LateCheck(seconds) => now = now.plus(Duration::from_secs(seconds.into())),
                Event::WallJump(by) => {
                    (jumped, ever_jumped) = (true, true);
                    let by_duration = Duration::from_secs(by.unsigned_abs().into());
                    now.wall = if by < 0 { now.wall - by_duration } else { now.wall + by_duration };
                }
                Event::Answer(..) | Event::Dropped => {
                    if let Some(end) = end_or_request(&mut schedule, &mut now) {
                        prop_assert_eq!(end, if may_be_lost { End::Unknown } else { End::Expired { confirmed: false } });
                        return Ok(());
                    }
                    let blind = jumped && restarted;
                    (jumped, restarted) = (false, false);
                    if let Some((at, interval)) = last.filter(|_| !blind) {
                        let gap = now.monotonic - at;
                        prop_assert!(gap >= Duration::from_millis(999), "{gap:?}");
                        if gap + Duration::from_millis(1) < interval {
                            exceptions += 1;
                            prop_assert!(expires_in.is_some());
                            prop_assert!(ever_jumped || exceptions <= 2, "one before the end, one after it");
                        }
                    }
                    schedule.sending(now);
                    if std::mem::take(&mut dropped) {
                        held_until = now.monotonic + LONGEST_HELD;
                    }
                    let Event::Answer(kind, retry_after) = event else {
                        (may_be_lost, dropped) = (true, true);
                        last = Some((now.monotonic, schedule.interval(now)));
                        continue;
                    };
                    let retry_after = retry_after.map(Duration::from_secs);
                    let standing = schedule.answered(&answer_of(kind, retry_after), now, steady(jitter));
                    let expected = match kind {
                        0 => Standing::Succeeded,
                        1 => Standing::Ended(if may_be_lost { End::Unknown } else { End::Failed }),
                        6 => Standing::Ended(End::Denied),
                        _ => Standing::Open,
                    };
                    prop_assert_eq!(standing, expected);
                    if standing != Standing::Open {
                        return Ok(());
                    }
                    match kind {
                        3 => (may_be_lost, held_until) = (true, now.monotonic + LONGEST_HELD),
                        // A program that was down during a jump of the clock cannot know how much time has passed.
                        2 | 7 if ever_jumped => may_be_lost = schedule.answer_lost(),
                        2 | 7 => may_be_lost &= now.monotonic < held_until,
                        _ => {}
                    }
                    last = Some((now.monotonic, schedule.interval(now)));
                }
            }
        }
    }
}
