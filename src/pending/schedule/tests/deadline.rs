//! The local deadline, with the OP's answers and with clocks that are set.

use super::*;

#[test]
fn polling_continues_at_the_interval_if_the_op_has_not_decided_after_the_deadline() {
    let mut schedule = schedule(Some(10), Some(100));
    let mut polls = vec![0.0];
    while *polls.last().unwrap() < 1_000.0 {
        let (at, standing) = ask(&mut schedule, *polls.last().unwrap(), &pending());
        assert_eq!(standing, Standing::Open, "{at}");
        polls.push(at);
    }
    let gaps: Vec<f64> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps.iter().filter(|gap| **gap < 10.0).count(), 1, "the one before the end: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 10.0), "{gaps:?}");
    // After the OP stops answering, it is polled twice more.
    let heard = *polls.last().unwrap();
    let (first, standing) = ask(&mut schedule, heard, &unavailable(None));
    assert_eq!((first - heard, standing), (10.0, Standing::Open));
    let (second, standing) = ask(&mut schedule, first, &unavailable(None));
    assert_eq!((second - heard, standing), (80.0, Standing::Open));
    let (end, standing) = ask(&mut schedule, second, &pending());
    assert_eq!((end, standing), (second, Standing::Ended(End::Expired { confirmed: false })));
}

#[test]
fn polling_continues_for_an_undecided_process_opened_past_its_deadline() {
    let mut found = reopen(&schedule(Some(10), Some(100)));
    let (at, standing) = ask(&mut found, 5_000.0, &pending());
    assert_eq!((at, standing), (5_000.0, Standing::Open));
    let mut found = reopen(&found);
    assert_eq!(ask(&mut found, 5_000.0, &pending()), (5_010.0, Standing::Open));
}

#[test]
fn polling_continues_after_the_last_poll_of_an_earlier_release_if_it_was_answered() {
    let mut schedule = schedule(Some(10), Some(100));
    schedule.sending(moment(120.0));
    let in_flight = serde_json::to_value(&schedule).unwrap();
    schedule.answered(&pending(), moment(120.0), NO_JITTER);
    for (mut stored, expected) in
        [(serde_json::to_value(&schedule).unwrap(), Step::Ask), (in_flight, Step::End(End::Unknown))]
    {
        stored["ldone"] = true.into();
        let mut schedule: Schedule = serde_json::from_value(stored).unwrap();
        assert_eq!(schedule.step(moment(1_000.0)), expected);
    }
}

/// Both clocks after the wall clock was set by a number of seconds while the program runs.
fn set(at: f64, by: i64) -> Moment {
    let wall =
        if by < 0 { moment(at).wall - Duration::from_secs(by.unsigned_abs()) } else { moment(at + by as f64).wall };
    Moment { wall, ..moment(at) }
}

#[test]
fn a_wall_clock_that_is_set_while_the_program_runs_does_not_move_the_end() {
    for jump in [-3_600, 3_600] {
        let mut schedule = schedule(Some(10), Some(1_000));
        ask(&mut schedule, 0.0, &unavailable(None));
        let mut at = 30.0;
        let mut polls = Vec::new();
        let end = loop {
            match schedule.step(set(at, jump)) {
                Step::Wait(wait) => at += wait.as_secs_f64(),
                Step::Ask => {
                    polls.push(at);
                    schedule.sending(set(at, jump));
                    schedule.answered(&unavailable(None), set(at, jump), NO_JITTER);
                }
                Step::End(end) => break end,
            }
        };
        assert_eq!((at, end), (1_060.0, End::Expired { confirmed: false }), "{jump}");
        assert!(polls.contains(&995.0), "{polls:?}");
        assert_eq!(schedule.expires_at(), Some(set(1_000.0, jump).wall), "stored times follow the new time");
    }
}

#[test]
fn times_do_not_drift_however_often_a_schedule_is_stored() {
    let mut schedule = schedule(Some(10), Some(1_000_000));
    for second in 0..1_000 {
        let noise = Duration::from_millis(900 * (second % 2));
        let now = moment(second as f64 * 0.01);
        schedule.until_due(Moment { wall: now.wall - noise, ..now });
        schedule = reopen(&schedule);
    }
    assert_eq!(schedule.expires_at(), Some(moment(1_000_000.0).wall));
}
