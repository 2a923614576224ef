//! Answers of the token endpoint: to the exchange of a code, and to polls.

use std::time::Duration;

use http::StatusCode;

use super::world::{
    CODE, PLANT, STATE, Site, World, answers, check_debug, check_error, check_time, fixed, keyring, pending_ciba_json,
    pending_ietf_json, pending_json, run, sealed, session_json,
};
use crate::client::{
    AuthorizationSession, Backoff, Client, DpopMode, Grant, IssuedTokens, Outcome, Poll, SignIn, TokenAnswer, UserHint,
};
use crate::dialect::Dialect;
use crate::error::{ErrorKind, Misuse};
use crate::keyring::Purpose;
use crate::pending::PendingAuthentication;
use crate::sealed::to_json;

/// Whatever the OP answers, one request is sent for the code, one more for a nonce and one more for its clock.
const MOST_REQUESTS: usize = 3;
/// `Retry-After` is limited to a day, and our own pauses are much shorter.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400 + 3_600);

/// The first byte selects the client's settings. The rest are the answers of the OP.
pub fn exchange(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    match choice & 65 {
        65 if choice & 16 == 0 => authentication_request(*choice, rest),
        65 => token_request(*choice, rest),
        64 => exchange_in(Dialect::Ietf, *choice, rest),
        _ => exchange_in(Dialect::OpenId, *choice, rest),
    }
}

/// A request without a user, whose answer may be deferred.
fn token_request(choice: u8, rest: &[u8]) {
    let world = World::new(Site::new(answers(rest)));
    let mut builder = world.with_secret();
    if choice & 8 != 0 {
        builder = builder.drop_unbound_tokens();
    }
    let client = World::client(builder);
    match run(client.token_request(Grant::client_credentials()).send()) {
        Ok(TokenAnswer::Deferred(pending)) => check_pending(&pending, &world),
        Ok(TokenAnswer::Complete(tokens)) => check_tokens(&tokens),
        Err(error) => check_error(&error),
    }
    let seen = world.site.seen.lock().unwrap();
    let sent = seen.iter().filter(|request| request.url.path() == "/token").count();
    assert!(sent <= 3 * MOST_REQUESTS, "{sent} requests for one grant");
}

/// A request for a user whom the client names (CIBA).
fn authentication_request(choice: u8, rest: &[u8]) {
    let world = World::new(Site::new(answers(rest)));
    let mut builder = world.with_secret();
    if choice & 2 != 0 {
        builder = builder.strict_times();
    }
    let client = World::client(builder);
    match run(client.backchannel_authentication(UserHint::login_hint("pl4nt-user")).send()) {
        Ok(pending) => {
            assert_eq!(pending.dialect(), Dialect::Ciba);
            check_pending(&pending, &world);
            assert!(pending.due_at() >= world.now() + Duration::from_secs(1), "{pending:?}");
        }
        Err(error) => check_error(&error),
    }
    let seen = world.site.seen.lock().unwrap();
    let sent = seen.iter().filter(|request| request.url.path() == "/bc-authorize").count();
    assert!(sent <= 3 * MOST_REQUESTS, "{sent} requests for one user");
}

fn check_tokens(tokens: &IssuedTokens) {
    check_debug(tokens);
    assert!(!tokens.access_token().expose().is_empty() && tokens.extra("id_token").is_none());
    tokens.access_token_expires_at().into_iter().for_each(check_time);
    let opened = IssuedTokens::open(&keyring(), &tokens.seal(&keyring()).unwrap()).unwrap();
    assert_eq!(opened.access_token(), tokens.access_token());
}

fn session_of(dialect: Dialect) -> AuthorizationSession {
    let mut session = session_json();
    session["rt"] = "dc".into();
    if dialect == Dialect::Ietf {
        session["rt"] = "c".into();
        session["dl"] = "ietf".into();
        session["op"] = true.into();
    }
    let session = sealed(Purpose::AuthorizationSession, &[], session.to_string().as_bytes());
    let session = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, session);
    AuthorizationSession::open(&keyring(), &session).unwrap()
}

fn exchange_in(dialect: Dialect, choice: u8, rest: &[u8]) {
    let is_ietf = dialect == Dialect::Ietf;
    // Whether the code in the response is a deferred one.
    let is_deferred = choice & 1 == 0 && !is_ietf;
    let world = World::new(Site::new(answers(rest)));
    let mut builder = world.with_secret();
    if choice & 2 != 0 {
        builder = builder.strict_times();
    }
    if choice & 4 != 0 {
        builder = builder.allow_immediate_answer();
    }
    if choice & 8 != 0 {
        builder = builder.drop_unbound_tokens();
    }
    let client = World::client(builder);
    let mut session = session_of(dialect);
    let code = if is_deferred { "deferred_code" } else { "code" };
    let response = format!("{code}={CODE}&state={STATE}");
    let mut grant = run(client.check_authorization_response(&response, &mut session)).unwrap();

    let exchanged = run(client.exchange(&mut grant));
    check_debug(&grant);
    match &exchanged {
        Ok(signed_in) => {
            check_debug(signed_in);
            match signed_in {
                SignIn::Deferred(pending) => {
                    assert!((is_deferred || is_ietf) && grant.is_spent());
                    assert_eq!(pending.dialect(), dialect);
                    check_pending(pending, &world);
                    assert!(pending.due_at() >= world.now() + Duration::from_secs(1), "{pending:?}");
                }
                SignIn::Complete(authentication) => {
                    assert!(!is_deferred || choice & 4 != 0);
                    assert_eq!(authentication.id_token().token().expose(), fixed("/tokens/hs256"));
                    let opened =
                        crate::client::Authentication::open(&keyring(), &authentication.seal(&keyring()).unwrap());
                    assert_eq!(opened.unwrap().access_token(), authentication.access_token());
                    if let Some(time) = authentication.access_token_expires_at() {
                        check_time(time);
                    }
                }
            }
        }
        Err(error) => {
            check_error(error);
            // A code whose result is unknown is never sent again.
            assert!(*error.kind() != ErrorKind::OutcomeUnknown || grant.is_spent(), "{error:?}");
        }
    }
    let seen = world.site.seen.lock().unwrap();
    let sent = seen.iter().filter(|request| request.url.path() == "/token").count();
    drop(seen);
    // Three attempts if no request was sent. Each may have been challenged before.
    assert!(sent <= 3 * MOST_REQUESTS, "{sent} requests for one code");
    if grant.is_spent() {
        // Apart from revocations of refused tokens, no further request is sent for it.
        let again = run(client.exchange(&mut grant));
        let seen = world.site.seen.lock().unwrap();
        assert_eq!(seen.iter().filter(|request| request.url.path() == "/token").count(), sent, "a code was sent twice");
        drop(seen);
        assert!(again.is_err(), "one code brought two answers");
    }
}

/// The first byte selects the client's settings. The rest are the OP's answers to successive polls.
pub fn poll(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let world = World::new(Site::new(answers(rest)));
    let mut builder = world.with_secret();
    if choice & 1 != 0 {
        builder = builder.backoff(Backoff::Growing { up_to: Duration::from_secs(3_600) });
    }
    if choice & 2 != 0 {
        builder = builder.drop_unbound_tokens();
    }
    let mut process = match choice & 48 {
        0 | 32 => pending_ietf_json(),
        16 => pending_ciba_json(),
        _ => pending_json(),
    };
    if choice & 64 == 0 {
        // Signing proofs takes longer than everything else. The target `exchange` includes them.
        builder = builder.dpop(DpopMode::Off);
        process.as_object_mut().unwrap().remove("key");
    }
    let client = World::client(builder);
    let process = sealed(Purpose::PendingAuthentication, &[], process.to_string().as_bytes());
    let mut pending = PendingAuthentication::open(&keyring(), &process).unwrap();
    // One more than the maximum number of answers.
    for _ in 0..17 {
        if world.site.is_spent() {
            break;
        }
        nothing_is_sent_early(&client, &mut pending, &world);
        world.clock.advance(pending.due_at().duration_since(world.now()).unwrap_or_default());
        if choice & 4 != 0 {
            pending.announce_poll();
        }
        if choice & 8 != 0 {
            // The program restarts.
            pending = PendingAuthentication::open(&keyring(), &pending.seal(&keyring()).unwrap()).unwrap();
        }
        let before = world.site.requests();
        let polled = run(client.poll(&mut pending));
        let sent = world.site.requests() - before;
        check_pending(&pending, &world);
        match polled {
            Ok(Poll::Finished(outcome)) => {
                finished(&outcome, &world);
                let before = world.site.requests();
                let again = run(client.poll(&mut pending)).unwrap_err();
                assert_eq!(*again.kind(), ErrorKind::Misuse(Misuse::NothingToPoll));
                assert_eq!(world.site.requests(), before, "a sign-in was polled after its end");
                return;
            }
            Ok(Poll::NotDue { due_in }) => {
                // Times are kept in milliseconds, and a restarted program has another monotonic clock.
                assert!(due_in <= LONGEST_WAIT && sent == 0);
            }
            Ok(Poll::Pending | Poll::SlowDown) => assert!((1..=MOST_REQUESTS).contains(&sent), "{sent}"),
            Err(error) => {
                check_error(&error);
                assert!(sent <= MOST_REQUESTS, "{sent}");
                assert!(!pending.has_ended());
            }
        }
        let wait = pending.due_at().duration_since(world.now()).unwrap_or_default();
        assert!(wait <= LONGEST_WAIT, "the OP put the next poll off by {wait:?}");
    }
}

fn nothing_is_sent_early(client: &Client, pending: &mut PendingAuthentication, world: &World) {
    if pending.due_at() <= world.now() {
        return;
    }
    let before = (world.site.requests(), to_json(&pending.0).unwrap());
    let polled = run(client.poll(pending));
    assert!(matches!(polled, Ok(Poll::NotDue { .. })), "{polled:?}");
    assert_eq!((world.site.requests(), to_json(&pending.0).unwrap()), before);
}

fn finished(outcome: &Outcome, world: &World) {
    check_debug(outcome);
    match outcome {
        Outcome::Issued(tokens) => check_tokens(tokens),
        Outcome::Approved(authentication) => {
            assert_eq!(authentication.id_token().token().expose(), fixed("/tokens/hs256"));
        }
        // Only the OP itself ends a sign-in, in an answer that says so.
        Outcome::Denied(_) | Outcome::Failed(_) => {
            let status = world.site.last_status().unwrap();
            assert!(
                status.is_client_error() && status != StatusCode::NOT_FOUND && status != StatusCode::TOO_MANY_REQUESTS
            );
        }
        Outcome::Invalid(_) => {
            let answers = world.site.seen.lock().unwrap();
            assert!(!answers.is_empty());
        }
        _ => {}
    }
}

/// It can be sealed and opened without a change, and all of its times are valid.
fn check_pending(pending: &PendingAuthentication, world: &World) {
    check_debug(pending);
    let written = to_json(&pending.0).unwrap();
    let opened = PendingAuthentication::open(&keyring(), &pending.seal(&keyring()).unwrap()).unwrap();
    assert_eq!(to_json(&opened.0).unwrap(), written, "{:?}", world.now());
    check_time(pending.due_at());
    if let Some(time) = pending.expires_at() {
        check_time(time);
    }
    if let Some(progress) = pending.progress() {
        assert!(progress.chars().count() <= 1_000 && !progress.chars().any(char::is_control));
    }
    if let Some(uri) = pending.interaction_uri() {
        let uri = uri.expose();
        assert!(uri.len() <= 2_048 && uri.trim().to_ascii_lowercase().starts_with("https:"), "{uri}");
        assert!(!uri.contains('#'), "{uri}");
    }
    if let Some(interim) = pending.interim().verified() {
        assert_eq!(interim.claims().subject(), "user-1");
        assert!(!format!("{interim:?}").contains(PLANT));
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::Served;
    use super::*;

    #[test]
    fn the_answers_in_an_input_are_read() {
        let read = answers(b"400 application/json\nRetry-After: 5\n\n{}\n%%\n!\n%%\n?\n%%\n200 a/b\n\n%T");
        assert_eq!(read.len(), 4);
        let Served::Response { status, headers, body } = &read[0] else { panic!("{read:?}") };
        assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap(), &body[..]), (400, "5", &b"{}"[..]));
        assert!(matches!((&read[1], &read[2]), (Served::NotSent, Served::Lost)));
        let Served::Response { body, .. } = &read[3] else { panic!("{read:?}") };
        assert_eq!(body, fixed("/tokens/hs256").as_bytes());
    }
}
