//! Users and callbacks in the IETF draft.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use openid_deferred::Clock;
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, Ping, PingForgery, RequestRule, TestClient, TestClock, TestProvider,
    TestProviderBuilder,
};
use serde_json::{Value, json};

use crate::rp::{IETF, Rp, ietf};

const DEFERRED: (&str, &str) = ("completion_mode", "deferred");

#[tokio::test]
async fn the_user_is_required_then_pending_then_decides() {
    for approves in [true, false] {
        let mut rp = ietf(TestProviderBuilder::requires_interaction);
        let code = rp.code(&[]);
        let (_, first) = rp.redeem(&code, &[DEFERRED]).await;
        let (id, uri) = (first["deferral_code"].as_str().unwrap(), first["interaction_uri"].as_str().unwrap());
        let expected = json!({
            "error": "interaction_required",
            "deferral_code": id,
            "expires_in": 1_814_400,
            "interval": 5,
            "interaction_uri": uri,
        });
        assert_eq!(first, expected);
        assert!(uri.starts_with("https://op.test/interact/") && !uri.contains('#'), "{uri}");
        let required = json!({ "error": "interaction_required", "interaction_uri": uri });
        assert_eq!(rp.poll_code_in_time(id).await, (400, required));
        let process = rp.op.open_interaction(uri);
        assert_eq!(rp.poll_code_in_time(id).await, (400, json!({ "error": "interaction_pending" })));
        if approves {
            process.approve()
        } else {
            process.deny()
        }
        let (status, answer) = rp.poll_code_in_time(id).await;
        let expected = if approves { (200, None) } else { (400, Some(&json!("access_denied"))) };
        assert_eq!((status, answer.get("error")), expected);
        rp.op.assert_clean();
        assert_eq!(rp.op.requests_to(Endpoint::Interaction).len(), 1);
    }
}

#[tokio::test]
async fn the_user_can_be_required_in_the_middle_and_again() {
    let mut rp = ietf(|op| op.decisions(DecisionPolicy::after_polls(4)));
    let id = rp.deferred().await;
    let process = rp.op.process(&id);
    assert_eq!((rp.poll_code_in_time(&id).await.1, process.interaction_uri()), (pending(), None));
    process.require_interaction();
    let first = process.interaction_uri().unwrap();
    assert_eq!(rp.poll_code_in_time(&id).await.1["interaction_uri"], first);
    rp.op.open_interaction(&first);
    process.resume();
    assert_eq!(rp.poll_code_in_time(&id).await.1, pending());
    process.require_interaction();
    let second = process.interaction_uri().unwrap();
    assert_ne!(first, second);
    assert_eq!(page(&mut rp, &first).await, 410, "it has been replaced");
    for _ in 0..3 {
        assert_eq!(rp.poll_code_in_time(&id).await.1["interaction_uri"], second, "the policy waits for the user");
    }
    process.resume();
    assert_eq!(rp.poll_code_in_time(&id).await.0, 200);
    rp.op.assert_clean();
}

fn pending() -> Value {
    json!({ "error": "authorization_pending" })
}

/// The status of the page at a URI.
async fn page(rp: &mut Rp, uri: &str) -> u16 {
    rp.send(Method::GET, uri, &[], String::new()).await.status.as_u16()
}

#[tokio::test]
async fn a_timed_policy_waits_for_the_user_and_then_decides() {
    let hour = Duration::from_secs(3_600);
    let mut rp = ietf(|op| op.requires_interaction().decisions(DecisionPolicy::after(hour)).on_ping(|_| 204));
    let id = rp.deferred().await;
    rp.clock.advance(hour);
    assert_eq!(rp.poll_code_in_time(&id).await.1["error"], "interaction_required");
    rp.op.process(&id).resume();
    assert_eq!(rp.poll_code_in_time(&id).await.0, 200);
    assert_eq!(rp.op.pings().len(), 1);
}

#[tokio::test]
async fn an_interaction_uri_opens_once_and_only_as_it_was_issued() {
    let mut rp = ietf(TestProviderBuilder::requires_interaction);
    let id = rp.deferred().await;
    let uri = rp.op.process(&id).interaction_uri().unwrap();
    assert_eq!(page(&mut rp, &format!("{uri}x")).await, 404);
    assert_eq!(rp.broken_rules(), [RequestRule::UnknownInteraction]);
    rp.op.forgive();
    let form = rp.send(Method::POST, &uri, &[], "decision=approve".into()).await;
    assert_eq!(form.status, 410, "nobody has read the page");
    assert_eq!((page(&mut rp, &uri).await, page(&mut rp, &uri).await), (200, 410));
    assert_eq!(rp.send(Method::POST, &uri, &[], "decision=maybe".into()).await.status, 400);
    rp.op.assert_clean();
    rp.send(Method::GET, &uri, &[("authorization", "Bearer x".into())], String::new()).await;
    assert_eq!(rp.broken_rules(), [RequestRule::UnneededCredential]);
    rp.op.process(&id).expire();
    assert_eq!(rp.send(Method::POST, &uri, &[], "decision=approve".into()).await.status, 410);
}

#[test]
#[should_panic(expected = "error page with status 410")]
fn a_second_use_of_an_interaction_uri_is_visible_to_a_test() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut rp = ietf(TestProviderBuilder::requires_interaction);
    let id = runtime.block_on(rp.deferred());
    let uri = rp.op.process(&id).interaction_uri().unwrap();
    rp.op.open_interaction(&uri);
    rp.op.open_interaction(&uri);
}

#[tokio::test]
async fn the_page_can_be_read_and_its_buttons_decide_over_a_socket() {
    for (decision, error) in [("approve", None), ("deny", Some("access_denied"))] {
        let clock = TestClock::new();
        let client = TestClient::secret_post("<app>", "s3cret");
        let op = TestProvider::builder().client(client).ietf().requires_interaction();
        let op = op.clock(Arc::new(clock.clone())).path("/tenant").start().unwrap();
        let http = reqwest::Client::new();
        let post = async |url: &str, pairs: &[(&str, &str)]| {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            let request = http.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        };
        let url = format!("{}/token", op.issuer());
        let me = [("client_id", "<app>"), ("client_secret", "s3cret")];
        let form = [&me[..], &[("grant_type", "client_credentials"), DEFERRED]].concat();
        let deferred: Value = serde_json::from_str(&post(&url, &form).await.1).unwrap();
        let uri = deferred["interaction_uri"].as_str().unwrap();
        assert!(uri.starts_with(&format!("{}/interact/", op.issuer())), "{uri}");

        let page = http.get(uri).send().await.unwrap();
        assert_eq!((page.status().as_u16(), &page.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        let page = page.text().await.unwrap();
        assert!(page.contains("&lt;app&gt;") && page.contains("<form method=\"post\">"), "{page}");
        assert!(page.contains("<link rel=\"icon\" href=\"data:,\">"), "browsers ask for no icon: {page}");
        for button in ["approve", "deny"] {
            assert!(page.contains(&format!("<button name=\"decision\" value=\"{button}\">")), "{page}");
        }
        assert_eq!(post(uri, &[("decision", decision)]).await.0, 200);
        clock.advance(Duration::from_secs(5));
        let code = deferred["deferral_code"].as_str().unwrap();
        let poll = [&me[..], &[("grant_type", IETF), ("deferral_code", code)]].concat();
        let answer: Value = serde_json::from_str(&post(&url, &poll).await.1).unwrap();
        assert_eq!(answer.get("error").and_then(Value::as_str), error, "{answer}");
        op.assert_clean();
    }
}

#[tokio::test]
async fn a_held_poll_is_answered_when_the_user_is_needed() {
    let hour = Duration::from_secs(3_600);
    let mut rp = ietf(|op| op.decisions(DecisionPolicy::scripted()).long_polling(hour));
    let id = rp.deferred().await;
    let process = rp.op.process(&id);
    let start = rp.clock.monotonic();
    let requires = async {
        tokio::task::yield_now().await;
        process.require_interaction();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    };
    let clock = rp.clock.clone();
    clock.advance(Duration::from_secs(5));
    tokio::select! {
        biased;
        (_, answer) = rp.poll_code(&id) => assert_eq!(answer["error"], "interaction_required"),
        () = requires => panic!("the poll is still held"),
    }
    assert_eq!(clock.monotonic() - start, Duration::from_secs(5));
}

/// A provider whose callbacks are collected.
fn pinged(configure: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> (Rp, Arc<Mutex<Vec<Ping>>>) {
    let pings = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&pings);
    let rp = ietf(|op| {
        configure(op.decisions(DecisionPolicy::scripted()).allow_dpop_key_reuse()).on_ping(move |ping| {
            seen.lock().unwrap().push(ping.clone());
            204
        })
    });
    (rp, pings)
}

#[tokio::test]
async fn a_callback_names_the_code_and_bears_the_token_if_there_is_one() {
    let (mut rp, pings) = pinged(|op| op);
    for token in [Some("0123456789abcdefghijkl"), None] {
        let code = rp.code(&[]);
        let token_parameter = token.map(|token| ("client_notification_token", token));
        let further: Vec<_> = [DEFERRED].into_iter().chain(token_parameter).collect();
        let (_, deferred) = rp.redeem(&code, &further).await;
        let id = deferred["deferral_code"].as_str().unwrap();
        assert_eq!(rp.op.process(id).notification_token().as_deref(), token);
        rp.op.process(id).approve();
        let ping = pings.lock().unwrap().pop().unwrap();
        assert_eq!(ping.body, json!({ "deferral_code": id }).to_string());
        assert_eq!((ping.deferred_auth_id.as_str(), ping.bearer.as_deref()), (id, token));
    }
}

#[tokio::test]
async fn callbacks_are_sent_for_errors_and_cancellations_and_not_for_an_expiration() {
    let (mut rp, pings) = pinged(|op| op.expires_in(Duration::from_secs(60)));
    let id = rp.deferred().await;
    rp.op.process(&id).deny();
    assert_eq!(pings.lock().unwrap().drain(..).count(), 1);
    let id = rp.deferred().await;
    rp.revoke_code(&id, &[]).await;
    assert_eq!(pings.lock().unwrap().drain(..).count(), 1);
    let id = rp.deferred().await;
    rp.op.process(&id).expire();
    let late = rp.deferred().await;
    rp.clock.advance(Duration::from_secs(60));
    rp.op.process(&late).approve();
    assert_eq!(pings.lock().unwrap().len(), 0);
    rp.op.process(&id).send_ping(PingForgery::NoBearer);
    assert_eq!(pings.lock().unwrap().len(), 1, "the test can send one at any time");
}

#[tokio::test]
async fn a_callback_never_overtakes_the_deferred_response() {
    let (mut rp, pings) = pinged(|op| op);
    let second = Duration::from_secs(1);
    rp.op.misbehave(Fault::delay(Endpoint::Code, second).after_processing());
    let code = rp.code(&[]);
    let (clock, process) = (rp.clock.clone(), rp.op.last_process());
    let op = rp.op.clone();
    let seen = Arc::clone(&pings);
    let meanwhile = async {
        while process.deferral_code().is_none() {
            tokio::task::yield_now().await;
        }
        process.approve();
        assert_eq!(seen.lock().unwrap().len(), 0, "the response is still being written");
        clock.advance(second);
        std::future::pending::<()>().await;
    };
    let client = async {
        let (_, deferred) = rp.redeem(&code, &[DEFERRED]).await;
        assert!(deferred["deferral_code"].is_string());
        assert_eq!(pings.lock().unwrap().len(), 0, "the client is only about to read it");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pings.lock().unwrap().len(), 1);
    };
    tokio::select! {
        biased;
        () = client => {}
        () = meanwhile => unreachable!(),
        () = op.decide_on_time() => unreachable!(),
    }
}
