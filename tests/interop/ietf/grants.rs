//! Grants without a user.

use openid_deferred::{
    Cancelled, Client, DpopKey, DpopMode, Grant, IssuedTokens, Keyring, Outcome, PendingAuthentication, Poll,
    SealingKey, SigningAlgorithm, SystemRandom, TokenAnswer, WaitEvent,
};
use serde_json::{Value, json};

use super::{ACCESS_TOKEN, Strict, methods};
use crate::browser::http;
use crate::support::chain;

/// What each grant asks for.
fn grants(server: &Strict) -> [(&'static str, Grant); 3] {
    let said = |command: &str, name: &str| {
        let said = server.tell(&json!({ "do": command }));
        said[name].as_str().expect("it is text").to_owned()
    };
    [
        ("client credentials", Grant::client_credentials()),
        ("token exchange", Grant::token_exchange(said("mint_subject_token", "subject_token").as_str(), ACCESS_TOKEN)),
        ("JWT bearer", Grant::jwt_bearer(said("mint_assertion", "assertion").as_str())),
    ]
}

async fn answer(client: &Client, grant: Grant, details: Option<Value>) -> TokenAnswer {
    let request = client.token_request(grant).scopes(["a", "b"]).resource("https://api.test/");
    let request = match details {
        Some(details) => request.authorization_details(details),
        None => request,
    };
    request.send().await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

async fn deferred(client: &Client, grant: Grant) -> PendingAuthentication {
    match answer(client, grant, None).await {
        TokenAnswer::Deferred(pending) => pending,
        other => panic!("not deferred: {other:?}"),
    }
}

async fn issued(client: &Client, pending: &mut PendingAuthentication) -> IssuedTokens {
    match client.wait(pending).await.unwrap_or_else(|error| panic!("{}", chain(&error))) {
        Outcome::Issued(tokens) => tokens,
        other => panic!("no tokens: {other:?}"),
    }
}

/// Presents the token at the resource, which knows what it was issued for.
async fn is_accepted(server: &Strict, client: &Client, tokens: &IssuedTokens, grant: &str) {
    let request = ::http::Request::get(&server.resource).body(Default::default()).unwrap();
    let answer = client.resource(tokens, request).await.unwrap_or_else(|error| panic!("{grant}: {}", chain(&error)));
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(answer.status(), 200, "{grant}: {body}");
    assert_eq!((&body["scope"], &body["resources"]), (&json!("a b"), &json!(["https://api.test/"])), "{grant}");
}

fn payment(amount: &str) -> Value {
    json!([{ "type": "payment_initiation", "instructedAmount": { "currency": "EUR", "amount": amount } }])
}

/// A server without anything for sign-ins in its metadata.
#[tokio::test]
async fn every_grant_is_deferred() {
    let settings = json!({ "only_rfc8414": true, "script": ["authorization_pending", "approve"] });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let client = server.machine().await;
    for (name, grant) in grants(&server) {
        let mut pending = deferred(&client, grant).await;
        let tokens = issued(&client, &mut pending).await;
        assert_eq!(tokens.token_type(), Some("DPoP"), "{name}");
        assert_eq!(tokens.issued_token_type(), (name == "token exchange").then_some(ACCESS_TOKEN), "{name}");
        is_accepted(&server, &client, &tokens, name).await;
    }
    server.is_satisfied();
}

#[tokio::test]
async fn every_grant_is_answered_at_once() {
    for settings in [json!({ "at_once": true }), json!({ "supported": false, "only_rfc8414": true })] {
        let Some(server) = Strict::start(settings, json!({})) else { return };
        let client = server.machine().await;
        for (name, grant) in grants(&server) {
            let answer = answer(&client, grant, None).await;
            let TokenAnswer::Complete(tokens) = answer else { panic!("{name}: {answer:?}") };
            is_accepted(&server, &client, &tokens, name).await;
        }
        server.is_satisfied();
    }
}

#[tokio::test]
async fn a_request_that_does_not_allow_deferral_is_answered_at_once() {
    let Some(server) = Strict::start(json!({}), json!({})) else { return };
    let client = server.machine().await;
    let answer = client.token_request(Grant::client_credentials()).without_deferral().send().await.unwrap();
    assert!(matches!(answer, TokenAnswer::Complete(_)), "{answer:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn every_authentication_method_may_exchange_tokens() {
    for (registered, authentication) in methods() {
        let Some(server) = Strict::start(json!({ "script": ["approve"] }), registered) else { return };
        let client = server.bare_client().without_redirect_uri().authentication(authentication);
        let client = server.discovered(client).await;
        let exchange = || grants(&server).into_iter().nth(1).unwrap();
        let (name, grant) = exchange();
        let mut pending = deferred(&client, grant).await;
        let tokens = issued(&client, &mut pending).await;
        is_accepted(&server, &client, &tokens, name).await;
        let mut pending = deferred(&client, exchange().1).await;
        assert_eq!(client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
        server.is_satisfied();
    }
}

/// Clients that are not public may omit proofs, in the whole exchange.
#[tokio::test]
async fn tokens_are_not_bound_without_dpop() {
    for (registered, authentication) in methods().into_iter().skip(1) {
        let Some(server) = Strict::start(json!({ "script": ["authorization_pending", "approve"] }), registered) else {
            return;
        };
        let client = server.bare_client().without_redirect_uri().authentication(authentication).dpop(DpopMode::Off);
        let client = server.discovered(client).await;
        let mut pending = deferred(&client, Grant::client_credentials()).await;
        let tokens = issued(&client, &mut pending).await;
        assert_eq!(tokens.token_type(), Some("Bearer"));
        is_accepted(&server, &client, &tokens, "client credentials").await;
        let mut pending = deferred(&client, Grant::client_credentials()).await;
        assert_eq!(client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
        server.is_satisfied();
    }
}

#[tokio::test]
async fn large_amounts_are_deferred_and_small_ones_are_not() {
    let settings = json!({ "defer_above": 100, "script": ["approve"] });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let client = server.machine().await;
    let small = answer(&client, Grant::client_credentials(), Some(payment("99.90"))).await;
    let TokenAnswer::Complete(tokens) = small else { panic!("{small:?}") };
    assert_eq!(tokens.authorization_details(), Some(&payment("99.90")));
    let large = answer(&client, Grant::client_credentials(), Some(payment("100.10"))).await;
    let TokenAnswer::Deferred(mut pending) = large else { panic!("{large:?}") };
    assert_eq!(issued(&client, &mut pending).await.authorization_details(), Some(&payment("100.10")));
    server.is_satisfied();
}

/// As the authors' demo does: the first answer of the JWT bearer grant asks for the user.
#[tokio::test]
async fn a_jwt_bearer_grant_asks_for_the_user() {
    let Some(server) = Strict::start(json!({ "first": "interaction_required" }), json!({})) else { return };
    let client = server.machine().await;
    let (_, grant) = grants(&server).into_iter().nth(2).unwrap();
    let mut pending = deferred(&client, grant).await;
    let (sender, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let waiting = client.wait(&mut pending).on_event(move |_, event| {
        if let WaitEvent::InteractionRequired { uri } = event {
            sender.send(uri.expose().to_owned()).unwrap();
        }
    });
    let user = async {
        let uri = shown.recv().await.unwrap();
        server.open(&uri).await;
        server.answers_with("interaction_pending").await;
        server.decide("approve");
        assert!(shown.recv().await.is_none(), "a URI is shown once");
    };
    let (outcome, ()) = tokio::join!(waiting.into_future(), user);
    let outcome = outcome.unwrap();
    assert!(matches!(outcome, Outcome::Issued(_)), "{outcome:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn grants_end_with_denial_and_expiry() {
    for (last, is_expected) in [
        ("deny", (|outcome| matches!(outcome, Outcome::Denied(_))) as fn(&Outcome) -> bool),
        ("expire", |outcome| matches!(outcome, Outcome::Expired(_))),
    ] {
        let settings = json!({ "script": ["authorization_pending", last] });
        let Some(server) = Strict::start(settings, json!({})) else { return };
        let client = server.machine().await;
        let mut pending = deferred(&client, Grant::client_credentials()).await;
        let outcome = client.wait(&mut pending).await.unwrap();
        assert!(is_expected(&outcome), "{last}: {outcome:?}");
        server.is_satisfied();
    }
}

#[tokio::test]
async fn a_cancelled_grant_ends() {
    let Some(server) = Strict::start(json!({ "only_rfc8414": true, "nonce_lifetime": 1 }), json!({})) else { return };
    let client = server.machine().await;
    let mut pending = deferred(&client, Grant::client_credentials()).await;
    assert_eq!(client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Cancelled), "{outcome:?}");
    server.is_satisfied();
}

/// The requests of a client may all be bound to one key.
#[tokio::test]
async fn a_key_may_be_shared() {
    let settings = json!({ "script": ["authorization_pending", "approve"], "nonce_lifetime": 60 });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let key = DpopKey::generate(SigningAlgorithm::Es256).unwrap();
    let client = super::with_secret(server.bare_client()).without_redirect_uri().dpop(DpopMode::Shared(key.clone()));
    let client = server.discovered(client).await;
    for _ in 0..2 {
        let mut pending = deferred(&client, Grant::client_credentials()).await;
        let tokens = issued(&client, &mut pending).await;
        assert_eq!(tokens.dpop_key().unwrap().thumbprint(), key.thumbprint());
        is_accepted(&server, &client, &tokens, "client credentials").await;
    }
    server.is_satisfied();
}

/// Otherwise the tests would show nothing.
#[tokio::test]
async fn a_violation_of_the_draft_is_detected() {
    let Some(server) = Strict::start(json!({}), json!({})) else { return };
    let answer = http(&server.authority.certificate_pem()).get(format!("{}/token?deferral_code=1", server.issuer));
    assert_eq!(answer.send().await.unwrap().status(), 400);
    let said = server.tell(&json!({ "do": "violations" }));
    assert_eq!(said["violations"][0]["rule"], "secret-in-url");
}

/// After each poll the program ends, and another one goes on with the same key and interval.
#[tokio::test]
async fn a_pending_request_is_sealed_and_opened() {
    let settings = json!({ "script": ["slow_down", "authorization_pending", "approve"] });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom).unwrap());
    let mut sealed = deferred(&server.machine().await, Grant::client_credentials()).await.seal(&keyring).unwrap();
    let outcome = loop {
        let client = server.machine().await;
        let mut pending = PendingAuthentication::open(&keyring, &sealed).unwrap();
        match client.poll(&mut pending).await.unwrap() {
            Poll::Finished(outcome) => break outcome,
            Poll::NotDue { due_in } => tokio::time::sleep(due_in).await,
            _ => sealed = pending.seal(&keyring).unwrap(),
        }
    };
    assert!(matches!(outcome, Outcome::Issued(_)), "{outcome:?}");
    assert_eq!(server.answers(), ["slow_down", "authorization_pending", "success"]);
    server.is_satisfied();
}
