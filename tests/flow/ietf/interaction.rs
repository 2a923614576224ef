//! The interaction of the user while a request is pending.

use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Clock as _, Outcome, Poll, WaitEvent};

use super::{deferred, demo, ietf, issued, undecided};
use crate::support::{HOUR, keyring, reopened, seconds, world_with};
use openid_deferred::Grant;

#[tokio::test]
async fn the_interaction_uri_of_the_first_answer_is_reported_and_polling_continues() {
    let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
    let mut pending = world.pending_grant().await;
    let uri = pending.interaction_uri().expect("the user is needed").expose().to_owned();
    assert_eq!(Some(&uri), world.op.last_process().interaction_uri().as_ref());
    for _ in 0..3 {
        world.clock.sleep(seconds(6)).await;
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
        assert_eq!(pending.interaction_uri().map(|uri| uri.expose()), Some(&*uri));
    }
    world.op.open_interaction(&uri);
    world.clock.sleep(seconds(6)).await;
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    assert!(pending.interaction_uri().is_none(), "the URI works once");
    world.op.last_process().approve();
    issued(world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_interaction_uri_may_change_and_the_states_may_alternate() {
    let world = undecided().await;
    let mut pending = world.pending_grant().await;
    assert!(pending.interaction_uri().is_none());
    let process = world.op.last_process();
    let mut seen = Vec::new();
    for _ in 0..2 {
        process.require_interaction();
        world.clock.sleep(seconds(6)).await;
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
        seen.push(pending.interaction_uri().unwrap().expose().to_owned());
        process.resume();
        world.clock.sleep(seconds(6)).await;
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    }
    assert_ne!(seen[0], seen[1]);
    process.approve();
    issued(world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_wait_reports_each_interaction_uri_once() {
    let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
    let mut pending = world.pending_grant().await;
    let mut shown = Vec::new();
    let (op, mut polls, mut begun) = (world.op.clone(), 0, 0);
    let waited = world.client.wait(&mut pending).on_event(|_, event| match event {
        WaitEvent::InteractionRequired { uri } => shown.push(uri.expose().to_owned()),
        WaitEvent::InteractionBegun => begun += 1,
        WaitEvent::Pending => {
            polls += 1;
            match polls {
                2 => op.last_process().require_interaction(),
                3 => drop(op.open_interaction(op.last_process().interaction_uri().unwrap())),
                5 => op.last_process().approve(),
                _ => {}
            }
        }
        _ => {}
    });
    issued(waited.await.unwrap());
    assert_eq!((shown.len(), begun), (2, 1), "{shown:?}");
    assert_ne!(shown[0], shown[1]);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_interaction_uri_survives_a_restart_and_is_not_in_debug_output() {
    let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
    let pending = reopened(world.pending_grant().await, &keyring());
    let uri = pending.interaction_uri().unwrap();
    assert!(!format!("{pending:?} {uri:?}").contains("interact"));
}

#[tokio::test]
async fn an_unsafe_interaction_uri_is_ignored_and_the_wait_continues() {
    for uri in
        ["http://op.example/i", "javascript:alert(1)", "https://op.example/i#x", "https://u:p@op.example/i", "", "i"]
    {
        let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
        world.op.misbehave(Fault::edit_any_json(Endpoint::ClientCredentials, move |body| {
            body.insert("interaction_uri".into(), uri.into());
        }));
        let mut pending = world.pending_grant().await;
        assert!(pending.interaction_uri().is_none(), "{uri}");
        world.op.last_process().approve();
        issued(world.wait(&mut pending).await);
    }
}

#[tokio::test]
async fn interaction_codes_cause_no_backoff() {
    for code in ["interaction_required", "interaction_pending"] {
        let world = undecided().await;
        let mut pending = world.pending_grant().await;
        world.op.misbehave(Fault::error(Endpoint::Poll, code));
        world.clock.sleep(seconds(6)).await;
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)), "{code}");
        assert!(pending.due_at() < world.clock.now() + seconds(6), "{code} must not back off");
    }
}

#[tokio::test]
async fn interaction_codes_are_unknown_in_the_openid_dialect() {
    let world = world_with(|op| op.decisions(DecisionPolicy::scripted()), |client| client).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::error(Endpoint::Poll, "interaction_required"));
    world.clock.sleep(seconds(6)).await;
    let error = world.client.poll(&mut pending).await.unwrap_err();
    assert!(error.is_transient() && error.rule().is_some(), "{error}");
}

#[tokio::test]
async fn the_demo_of_the_drafts_authors_is_supported() {
    let world = demo(|op| op.decisions(DecisionPolicy::scripted())).await;
    let assertion = world.op.assertion("user-1");
    let request = world.client.token_request(Grant::jwt_bearer(assertion)).send().await.unwrap();
    let mut pending = deferred(request);
    let uri = pending.interaction_uri().expect("it begins with the user").expose().to_owned();
    assert!(pending.expires_at().unwrap() <= world.clock.now() + HOUR);
    world.clock.sleep(seconds(5)).await;
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    world.op.open_interaction(uri).approve();
    issued(world.wait(&mut pending).await);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_interaction_uri_is_normalized_and_has_no_control_characters() {
    for (uri, shown) in [
        (" https://op.example/i\r\nSet-Cookie: a=b ", "https://op.example/iSet-Cookie:%20a=b"),
        ("https://op.example/\u{1b}]0;owned\u{7}", "https://op.example/%1B]0;owned"),
        ("https://op.example/i?a=\u{202e}gpj.exe", "https://op.example/i?a=%E2%80%AEgpj.exe"),
        ("https://b\u{430}nk.example/i", "https://xn--bnk-6cd.example/i"),
        ("HTTPS:\\\\op.example\\i\"<script>", "https://op.example/i%22%3Cscript%3E"),
    ] {
        let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
        world.op.misbehave(Fault::edit_any_json(Endpoint::ClientCredentials, move |body| {
            body.insert("interaction_uri".into(), uri.into());
        }));
        let pending = world.pending_grant().await;
        assert_eq!(pending.interaction_uri().map(|uri| uri.expose()), Some(shown), "{uri:?}");
    }
}

#[tokio::test]
async fn the_interaction_uri_is_removed_when_the_op_ends_the_request() {
    for approved in [true, false] {
        let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
        let mut pending = world.pending_grant().await;
        assert!(pending.interaction_uri().is_some());
        match approved {
            true => world.op.last_process().approve(),
            false => world.op.last_process().deny(),
        }
        let _ = world.wait(&mut pending).await;
        assert!(pending.interaction_uri().is_none());
    }
}

#[tokio::test]
async fn waiting_for_keys_is_not_reported_as_an_interaction_of_the_user() {
    let world = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::scripted())).await;
    let mut pending = world.pending().await;
    assert!(pending.interaction_uri().is_some());
    world.op.replace_keys();
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).times(3));
    world.op.last_process().approve();
    let (mut begun, mut troubles) = (0, 0);
    let waited = world.client.wait(&mut pending).on_event(|_, event| match event {
        WaitEvent::InteractionBegun => begun += 1,
        WaitEvent::TransientError { .. } => troubles += 1,
        _ => {}
    });
    assert!(matches!(waited.await, Ok(Outcome::Approved(_))));
    assert!(troubles > 0, "the keys were to be missing");
    assert_eq!(begun, 0);
}
