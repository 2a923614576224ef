//! Values that the application and the store keep: sealed values, their plaintext, and schedules.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::world::{
    Chance, DEFERRED_AUTH_ID, NOW, Served, Site, World, authentication_json, check_debug, check_time, keyring,
    pending_json, run, sealed, session_json,
};
use crate::client::{Authentication, AuthorizationSession};
use crate::clock::{Moment, from_unix_seconds};
use crate::error::ErrorResponse;
use crate::keyring::{NotificationToken, Purpose};
use crate::pending::{Answer, Jitter, Pace, PendingAuthentication, Schedule, Standing, SuccessBody, Taken};
use crate::poller;
use crate::sealed::{from_json, to_json};
use crate::store::{ProcessId, SealedBody};

pub(super) const ROW: [u8; 16] = *b"a row of a store";

pub(super) fn record_json() -> serde_json::Value {
    json!({ "ctx": "b3JkZXIgNDcxMQ", "is": { "p": pending_json() } })
}

/// The first byte selects the type that the rest is opened as. Only bytes that were sealed here can be opened.
pub fn sealed_value(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let keyring = keyring();
    match choice % 5 {
        0 => {
            let genuine = sealed(Purpose::PendingAuthentication, &[], pending_json().to_string().as_bytes());
            let opened = PendingAuthentication::open(&keyring, bytes);
            assert_eq!(opened.is_ok(), bytes == genuine);
        }
        1 => {
            let genuine = sealed(Purpose::Authentication, &[], authentication_json().to_string().as_bytes());
            assert_eq!(Authentication::open(&keyring, bytes).is_ok(), bytes == genuine);
        }
        2 => {
            let genuine = sealed(Purpose::AuthorizationSession, &[], session_json().to_string().as_bytes());
            let text = String::from_utf8_lossy(bytes);
            let opened = AuthorizationSession::open(&keyring, &text);
            assert_eq!(opened.is_ok(), text == URL_SAFE_NO_PAD.encode(genuine));
        }
        3 => {
            let genuine = sealed(Purpose::Process, &ROW, record_json().to_string().as_bytes());
            let body = SealedBody { format: 1, key: keyring.primary_id(), bytes: bytes.to_vec() };
            let opened = |row| poller::reopened(&keyring, &Chance::default(), ProcessId::from_bytes(row), &body);
            assert_eq!(opened(ROW).is_ok(), bytes == genuine);
            assert!(opened([0; 16]).is_err(), "a body opens in another row");
        }
        _ => {
            let token = keyring.notification_token(&Chance::default(), 7, ROW, "issuer", "client").unwrap();
            let text = String::from_utf8_lossy(bytes);
            let parsed = NotificationToken::parse(&text);
            let verifies = parsed.is_some_and(|parsed| keyring.verifies(&parsed, "issuer", "client"));
            assert_eq!(verifies, text == token.expose());
        }
    }
}

/// The first byte selects the type that the rest is the plaintext of. Every value that can be opened is usable, and is
/// written in the same form as it is read.
pub fn stored(input: &[u8]) {
    let Some((choice, plaintext)) = input.split_first() else { return };
    match choice % 5 {
        0 => process(plaintext, choice & 8 != 0),
        1 => authentication(plaintext),
        2 => session(plaintext),
        3 => record(plaintext),
        _ => {
            let mut parts = plaintext.splitn(2, |&byte| byte == b'\n');
            schedule(parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        }
    }
}

fn process(plaintext: &[u8], is_answered: bool) {
    let open = |plaintext: &[u8]| {
        PendingAuthentication::open(&keyring(), &sealed(Purpose::PendingAuthentication, &[], plaintext))
    };
    let Ok(mut pending) = open(plaintext) else { return };
    let written = to_json(&pending.0).unwrap();
    assert_eq!(to_json(&open(&written).unwrap().0).unwrap(), written);
    check_time(pending.due_at());
    pending.expires_at().into_iter().for_each(check_time);
    let _ = format!("{pending:?}");
    let _ = (pending.progress(), pending.interim().verified().map(|token| token.claims().issued_at()));

    let answer = match is_answered {
        true => Served::json(r#"{"access_token":"a","token_type":"DPoP","id_token":"%T"}"#),
        false => Served::json("{}"),
    };
    let world = World::new(Site::new([answer].into()));
    let client = World::client(world.with_secret().cancellation_endpoint("https://op.example/cancel"));
    pending.announce_poll();
    let _ = run(client.poll(&mut pending));
    let _ = run(client.poll(&mut pending));
    let _ = run(client.cancel(&mut pending));
    let written = to_json(&pending.0).unwrap();
    assert_eq!(to_json(&open(&written).unwrap().0).unwrap(), written);
}

fn authentication(plaintext: &[u8]) {
    let open = |sealed: &[u8]| Authentication::open(&keyring(), sealed);
    let Ok(mut authentication) = open(&sealed(Purpose::Authentication, &[], plaintext)) else { return };
    let again = open(&authentication.seal(&keyring()).unwrap()).unwrap();
    assert_eq!(to_json(authentication.body_for_fuzzing()).unwrap(), to_json(again.body_for_fuzzing()).unwrap());
    authentication.access_token_expires_at().into_iter().for_each(check_time);
    check_time(authentication.claims().expires_at());
    let _ = format!("{authentication:?}");
    let world = World::new(Site::new([Served::json("{}"), Served::json("{}"), Served::json("{}")].into()));
    let client = World::client(world.with_secret());
    let _ = run(client.userinfo(&authentication));
    let _ = run(client.refresh(&mut authentication));
    let _ = run(client.revoke(&authentication));
}

fn session(plaintext: &[u8]) {
    let open = |text: &str| AuthorizationSession::open(&keyring(), text);
    let bytes = sealed(Purpose::AuthorizationSession, &[], plaintext);
    let Ok(mut session) = open(&URL_SAFE_NO_PAD.encode(bytes)) else { return };
    let state = session.state().clone();
    check_time(session.started_at());
    session.url_expires_at().into_iter().for_each(check_time);
    assert!(session.cookie_name().is_ascii());
    if let Ok(again) = session.seal(&keyring()) {
        assert_eq!(open(&again).unwrap().state(), &state);
    }
    let world = World::new(Site::new([Served::json(format!(r#"{{"deferred_auth_id":"{DEFERRED_AUTH_ID}"}}"#))].into()));
    let client = World::client(world.with_secret());
    let mut response = form_urlencoded::Serializer::new(String::new());
    let response = response.append_pair("deferred_code", "c").append_pair("state", state.expose()).finish();
    if let Ok(mut grant) = run(client.check_authorization_response(&response, &mut session)) {
        check_debug(&run(client.exchange(&mut grant)).map(|_| ()));
    }
}

fn record(plaintext: &[u8]) {
    let id = ProcessId::from_bytes(ROW);
    let reopened = |bytes: Vec<u8>| {
        let body = SealedBody { format: 1, key: keyring().primary_id(), bytes };
        poller::reopened(&keyring(), &Chance::default(), id, &body).map(|body| body.bytes)
    };
    let Ok(again) = reopened(sealed(Purpose::Process, &ROW, plaintext)) else { return };
    assert_eq!(reopened(again.clone()).unwrap(), again);
}

fn answer(event: u8, argument: u8, retry_after: Option<Duration>) -> Answer {
    let error = |code| Answer::Error {
        response: ErrorResponse::new(code, None, Some(400)),
        retry_after,
        interaction: crate::dialect::Interaction::Unmentioned,
    };
    let ends = ["access_denied", "expired_token", "invalid_grant", "invalid_client"];
    match event {
        5 => error("authorization_pending"),
        6 => error("slow_down"),
        7 => error(ends[usize::from(argument % 4)]),
        8 => Answer::Unusable { unanswered: argument & 8 != 0, retry_after },
        _ => Answer::Success(SuccessBody(zeroize::Zeroizing::new(b"{}".to_vec()))),
    }
}

/// Applies events to a schedule, two bytes for each.
fn schedule(plaintext: &[u8], events: &[u8]) {
    let Ok(mut schedule) = from_json::<Schedule>(plaintext) else { return };
    let mut now = Moment { wall: from_unix_seconds(NOW), monotonic: Duration::from_secs(1_000) };
    let pace = |argument: u8| Pace {
        jitter: Jitter(u16::from(argument) << 8),
        longest_wait: (argument & 1 != 0).then_some(Duration::from_secs(3_600)),
        give_up_after: (argument & 2 != 0).then_some(Duration::from_secs(86_400)),
    };
    for event in events.chunks_exact(2).take(64) {
        let [event, argument] = *event else { return };
        // From a second to a century.
        let span = Duration::from_secs(1 << (argument % 32));
        match event % 16 {
            0 => now = now.plus(span),
            1 => now = Moment { wall: now.wall.checked_sub(span).unwrap_or(now.wall), ..now },
            2 => now = Moment { wall: now.plus(span).wall, ..now },
            3 => drop(schedule.step(now)),
            4 => {
                schedule.sending(now);
                assert!(schedule.until_due(now) >= schedule.interval(now));
            }
            5..=9 => {
                let retry_after = (argument & 4 != 0).then(|| span.min(Duration::from_secs(86_400)));
                let answer = answer(event % 16, argument, retry_after);
                if schedule.answered(&answer, now, pace(argument)) == Standing::Open {
                    let wait = schedule.until_due(now);
                    // One poll goes out shortly before the end, whatever the OP asks for.
                    let is_before_the_end = schedule.expires_at().is_some_and(|end| now.plus(wait).wall <= end);
                    let is_late_enough = wait >= retry_after.unwrap_or_default() || is_before_the_end;
                    assert!(wait >= Duration::from_secs(1) && is_late_enough, "{wait:?}");
                }
            }
            10 => {
                let (pinged, orphaned) = (argument & 64 != 0, argument & 32 != 0);
                let _ = schedule.claimed(now, Taken { at: now.plus(span).wall, pinged, orphaned });
            }
            11 => {
                let before = schedule.until_due(now);
                schedule.move_to_clock(now, now.plus(span).wall);
                now.wall = now.plus(span).wall;
                // Rounded to what is stored, and no later than a calendar goes.
                assert!(schedule.until_due(now) <= before);
            }
            12 => schedule.orphaned(now),
            13 => schedule.announce(),
            14 => schedule.postpone(span, now),
            _ => schedule = from_json(&to_json(&schedule).unwrap()).unwrap(),
        }
        let written = to_json(&schedule).unwrap();
        assert_eq!(to_json(&from_json::<Schedule>(&written).unwrap()).unwrap(), written);
        check_time(schedule.due_at());
        schedule.expires_at().into_iter().for_each(check_time);
        let _ = (schedule.ping_in(now), schedule.due_in(now), schedule.newly_stale(now));
        assert!(schedule.interval(now) >= Duration::from_secs(1), "{:?}", schedule.interval(now));
    }
}
