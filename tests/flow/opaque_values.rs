//! Codes, identifiers and tokens are opaque: they arrive with every character that their specifications allow.

use openid_deferred::testing::{DecisionPolicy, Endpoint, NoncePolicy};
use openid_deferred::tokens::TokenTypeHint;
use openid_deferred::{Authentication, Cancelled, ClientBuilder, Outcome, Poll, ResponseMode, ResponseType, SignIn};

use crate::support::{World, client_of, keyring, provider, reopened, world_with};

async fn opaque_world(client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    world_with(|op| op.opaque_values().dpop_nonces(NoncePolicy::RotateEveryRequest).answer_with_code(), client).await
}

/// Refreshes, introspects, uses and revokes the tokens.
async fn use_up(world: &World, authentication: &mut Authentication) {
    for _ in 0..2 {
        world.client.refresh(authentication).await.unwrap();
        let keyring = keyring();
        *authentication = Authentication::open(&keyring, &authentication.seal(&keyring).unwrap()).unwrap();
    }
    assert_eq!(world.client.userinfo(authentication).await.unwrap().subject(), "user-1");
    let token = authentication.access_token().unwrap();
    let described = world.client.introspect(token, TokenTypeHint::AccessToken).await.unwrap();
    assert!(described.is_active());
    world.client.revoke(authentication).await.unwrap();
    world.op.assert_clean();
    assert!(world.client.refresh(authentication).await.is_err(), "it was revoked");
}

#[tokio::test]
async fn opaque_values_are_kept_through_plain_and_pushed_sign_ins_with_and_without_a_response_jwt() {
    for mode in [None, Some(ResponseMode::FormPost), Some(ResponseMode::QueryJwt)] {
        for pushed in [false, true] {
            let world = world_with(
                |op| op.opaque_values().dpop_nonces(NoncePolicy::RotateEveryRequest),
                |client| mode.into_iter().fold(client, ClientBuilder::response_mode),
            )
            .await;
            let request = world.client.authorize();
            let request = if pushed { request.pushed() } else { request };
            let (url, session) = request.start().await.unwrap();
            let query = world.op.visit(url).query();
            let SignIn::Deferred(pending) = world.client.authorization_response(&query, session).await.unwrap() else {
                panic!("a deferral was expected")
            };
            let mut pending = reopened(pending, &keyring());
            assert!(pending.identifier().expose().contains('"'), "the values are opaque");
            assert!(matches!(world.poll_when_due(&mut pending).await, Ok(Poll::Pending)));
            let Outcome::Approved(mut authentication) = world.wait(&mut pending).await else { panic!("not approved") };
            use_up(&world, &mut authentication).await;
        }
    }
}

#[tokio::test]
async fn an_ordinary_code_is_opaque() {
    let world = opaque_world(|client| client).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await.unwrap();
    let query = world.op.visit(url).query();
    let SignIn::Complete(mut authentication) = world.client.authorization_response(&query, session).await.unwrap()
    else {
        panic!("it is answered at once")
    };
    assert!(!world.op.requests_to(Endpoint::Code).is_empty());
    use_up(&world, &mut authentication).await;
}

#[tokio::test]
async fn a_cancellation_names_an_opaque_process_in_a_form_and_in_json() {
    for in_json in [false, true] {
        let clock = openid_deferred::testing::TestClock::automatic();
        let op = provider(&clock).opaque_values().decisions(DecisionPolicy::scripted());
        let op = if in_json { op.cancellation_in_json() } else { op }.start().unwrap();
        let client = client_of(&op, &clock).cancellation_endpoint(op.cancellation_endpoint());
        let world = World { client: client.discover().await.unwrap(), op, clock };
        let mut pending = world.pending().await;
        assert!(matches!(world.client.cancel(&mut pending).await, Ok(Cancelled::Accepted)));
        assert!(matches!(world.wait(&mut pending).await, Outcome::Cancelled));
        world.op.assert_clean();
    }
}
