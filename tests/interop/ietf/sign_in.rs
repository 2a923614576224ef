//! Sign-ins.

use futures_util::future::join_all;
use openid_deferred::{
    AuthorizationRequest, Cancelled, Client, ClientAuthentication, Dialect, Outcome, PendingAuthentication,
    ResponseType, SignIn, WaitEvent,
};
use serde_json::{Value, json};

use super::{Strict, methods};
use crate::support::{REDIRECT_URI, chain};

/// Sends a user to the server and back.
async fn sign_in(server: &Strict, client: &Client, request: AuthorizationRequest<'_>) -> SignIn {
    let (url, session) = request.start().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let back = server.visit(url).await;
    let signed_in = client.authorization_response(&back, session).await;
    signed_in.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// A sign-in whose answer the server defers.
async fn deferred(server: &Strict, client: &Client) -> PendingAuthentication {
    match sign_in(server, client, client.authorize()).await {
        SignIn::Deferred(pending) => pending,
        other => panic!("not deferred: {other:?}"),
    }
}

#[tokio::test]
async fn sign_ins_are_deferred_with_every_authentication_method() {
    let cases = methods().into_iter().flat_map(|method| [(method.clone(), false), (method, true)]);
    let run = async |((registered, authentication), pushes): ((Value, ClientAuthentication), bool)| {
        let settings = json!({ "require_pushed": pushes, "script": ["authorization_pending", "approve"] });
        let Some(server) = Strict::start(settings, registered) else { return };
        let client = server.bare_client().redirect_uri(REDIRECT_URI).authentication(authentication);
        let client = server.discovered(client).await;
        assert_eq!(client.dialect().await.unwrap(), Dialect::Ietf);
        let mut pending = deferred(&server, &client).await;
        assert_eq!(pending.dialect(), Dialect::Ietf);
        let outcome = client.wait(&mut pending).await.unwrap();
        let Outcome::Approved(authentication) = outcome else { panic!("{outcome:?}") };
        assert_eq!(authentication.claims().subject(), "user-1");
        assert!(authentication.is_sender_constrained());
        assert_eq!(client.userinfo(&authentication).await.unwrap().subject(), "user-1");
        client.revoke(&authentication).await.unwrap();
        let error = client.userinfo(&authentication).await.unwrap_err();
        assert_eq!(error.error_response().unwrap().code(), "invalid_token");
        assert_eq!(server.answers(), ["authorization_pending", "success"]);
        server.is_satisfied();
    };
    join_all(cases.map(run)).await;
}

#[tokio::test]
async fn a_sign_in_is_answered_at_once() {
    // A server that knows deferral and does not need it, and one that does not know it.
    for settings in [json!({ "at_once": true }), json!({ "supported": false })] {
        let Some(server) = Strict::start(settings, json!({ "id_token_signed_response_alg": "ES256" })) else { return };
        let client = super::with_secret(server.bare_client()).redirect_uri(REDIRECT_URI).dialect(Dialect::Ietf);
        let client = server.discovered(client).await;
        let signed_in = sign_in(&server, &client, client.authorize()).await;
        let SignIn::Complete(authentication) = signed_in else { panic!("{signed_in:?}") };
        assert_eq!(client.userinfo(&authentication).await.unwrap().subject(), "user-1");
        server.is_satisfied();
    }
}

/// The client is told which dialect the server speaks.
#[tokio::test]
async fn a_sign_in_is_deferred_by_a_server_whose_metadata_does_not_say_so() {
    let settings = json!({ "advertised": false, "script": ["approve"] });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let client = super::with_secret(server.bare_client()).redirect_uri(REDIRECT_URI).dialect(Dialect::Ietf);
    let client = server.discovered(client).await;
    let mut pending = deferred(&server, &client).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn a_sign_in_that_does_not_allow_deferral_is_answered_at_once() {
    let Some(server) = Strict::start(json!({}), json!({})) else { return };
    let client = server.client().await;
    let signed_in = sign_in(&server, &client, client.authorize().response_type(ResponseType::Code)).await;
    assert!(matches!(signed_in, SignIn::Complete(_)), "{signed_in:?}");
    server.is_satisfied();
}

/// The token request opts in, even if the authorization request does not tell of it.
#[tokio::test]
async fn the_hint_may_be_left_out() {
    let Some(server) = Strict::start(json!({ "script": ["approve"] }), json!({})) else { return };
    let client = super::with_secret(server.bare_client()).redirect_uri(REDIRECT_URI).without_deferral_hint();
    let client = server.discovered(client).await;
    let mut pending = deferred(&server, &client).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn a_user_who_declines_at_the_authorization_endpoint_is_not_signed_in() {
    let Some(server) = Strict::start(json!({}), json!({})) else { return };
    let client = server.client().await;
    let (url, session) = client.authorize().login_hint("declines").start().await.unwrap();
    let back = server.visit(url).await;
    let error = client.authorization_response(&back, session).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "access_denied");
    server.is_satisfied();
}

#[tokio::test]
async fn denial_ends_a_sign_in() {
    let Some(server) = Strict::start(json!({ "script": ["authorization_pending", "deny"] }), json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Denied(_)), "{outcome:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn a_deferral_code_expires() {
    let Some(server) = Strict::start(json!({ "expires_in": 3 }), json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Expired(_)), "{outcome:?}");
    server.is_satisfied();
}

/// The interval is longer than the life of the code.
#[tokio::test]
async fn one_poll_is_sent_shortly_before_the_expiration() {
    let Some(server) = Strict::start(json!({ "expires_in": 8, "interval": 60 }), json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    server.decide("approve");
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn a_code_that_the_server_expires_early_ends_the_sign_in() {
    let Some(server) = Strict::start(json!({ "script": ["authorization_pending", "expire"] }), json!({})) else {
        return;
    };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Expired(expiry) if expiry.is_confirmed()), "{outcome:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn slow_down_lengthens_the_interval_permanently() {
    let settings = json!({ "script": ["slow_down", "authorization_pending", "approve"] });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    assert_eq!(server.answers(), ["slow_down", "authorization_pending", "success"]);
    server.is_satisfied();
}

#[tokio::test]
async fn progress_is_reported_and_repeated_members_are_accepted() {
    let script = json!([
        { "to": "authorization_pending", "text": "step_1" },
        { "to": "interaction_pending", "text": "step_2" },
        "approve",
    ]);
    let Some(server) = Strict::start(json!({ "script": script, "repeat": true }), json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    let mut seen = Vec::new();
    let waiting = client.wait(&mut pending).on_event(|pending, event| {
        if matches!(event, WaitEvent::Pending) {
            seen.push(pending.progress().unwrap_or_default().to_owned());
        }
    });
    let outcome = waiting.await.unwrap();
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    assert_eq!(seen, ["step_1", "step_2"]);
    server.is_satisfied();
}

/// The user opens the first page, and later a second one.
#[tokio::test]
async fn interaction_required_and_pending_alternate() {
    let Some(server) = Strict::start(json!({ "first": "interaction_required" }), json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    let first = pending.interaction_uri().expect("the first answer has it").expose().to_owned();
    let (sender, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let waiting = client.wait(&mut pending).on_event(move |_, event| {
        if let WaitEvent::InteractionRequired { uri } = event {
            sender.send(uri.expose().to_owned()).unwrap();
        }
    });
    let user = async {
        assert_eq!(shown.recv().await.unwrap(), first);
        server.answers_with("interaction_required").await;
        server.decide("authorization_pending");
        server.answers_with("authorization_pending").await;
        server.open(&first).await;
        server.answers_with("interaction_pending").await;
        server.decide("interaction_required");
        let second = shown.recv().await.unwrap();
        assert_ne!(second, first);
        server.open(&second).await;
        server.answers_with("interaction_pending").await;
        server.decide("approve");
    };
    let (outcome, ()) = tokio::join!(waiting.into_future(), user);
    let outcome = outcome.unwrap();
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    assert!(shown.recv().await.is_none(), "each page is shown once");
    server.is_satisfied();
}

#[tokio::test]
async fn an_interaction_uri_may_come_with_authorization_pending() {
    let settings = json!({ "interaction": true, "opened": "approve" });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    server.open(pending.interaction_uri().expect("the first answer has it").expose()).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
    server.is_satisfied();
}

#[tokio::test]
async fn a_cancelled_sign_in_ends_and_a_success_is_suppressed() {
    for approved in [false, true] {
        let Some(server) = Strict::start(json!({}), json!({})) else { return };
        let client = server.client().await;
        let mut pending = deferred(&server, &client).await;
        if approved {
            server.decide("approve");
        }
        for _ in 0..2 {
            assert_eq!(client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
        }
        let outcome = client.wait(&mut pending).await.unwrap();
        assert!(matches!(outcome, Outcome::Cancelled), "{outcome:?}");
        assert_eq!(server.answers(), ["access_denied"]);
        server.is_satisfied();
    }
}

#[tokio::test]
async fn no_cancellation_is_sent_to_a_server_without_support_for_it() {
    let settings = json!({ "cancellation": false, "script": ["approve"] });
    let Some(server) = Strict::start(settings, json!({})) else { return };
    let client = server.client().await;
    let mut pending = deferred(&server, &client).await;
    assert_eq!(client.cancel(&mut pending).await.unwrap(), Cancelled::LocallyOnly);
    let outcome = client.wait(&mut pending).await.unwrap();
    let Outcome::Approved(authentication) = outcome else { panic!("{outcome:?}") };
    assert!(authentication.is_after_cancellation());
    server.is_satisfied();
}

/// With the first lifetime every poll needs a new nonce; with the second one a nonce serves for some polls.
#[tokio::test]
async fn nonces_rotate() {
    for lifetime in [1, 5] {
        let script = ["authorization_pending", "authorization_pending", "authorization_pending", "approve"];
        let settings = json!({ "nonce_lifetime": lifetime, "script": script, "require_pushed": true });
        let Some(server) = Strict::start(settings, json!({})) else { return };
        let client = server.client().await;
        let mut pending = deferred(&server, &client).await;
        let outcome = client.wait(&mut pending).await.unwrap();
        let Outcome::Approved(authentication) = outcome else { panic!("{outcome:?}") };
        assert_eq!(client.userinfo(&authentication).await.unwrap().subject(), "user-1");
        let mut pending = deferred(&server, &client).await;
        assert_eq!(client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
        server.is_satisfied();
    }
}
