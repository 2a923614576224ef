//! The tokens of grants without a user: their refresh and their revocation.

use std::sync::Arc;

use openid_deferred::error::{Misuse, Rule};
use openid_deferred::testing::{Endpoint, Fault, TestClock, TestProviderBuilder};
use openid_deferred::tokens::GrantedScope;
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, Clock as _, ErrorKind, Grant, IssuedTokens, Secret,
};
use serde_json::{Map, Value, json};

use super::{complete, deferred, ietf, issued, public};
use crate::steps::proven_key;
use crate::support::{HOUR, REDIRECT_URI, World, keyring, provider, seconds, world_with};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

async fn world() -> World {
    ietf(TestProviderBuilder::refresh_tokens_for_all_grants).await
}

impl World {
    /// The tokens of a request that the provider has deferred.
    async fn issued(&self) -> IssuedTokens {
        issued(self.wait(&mut self.pending_grant().await).await)
    }

    async fn is_accepted(&self, tokens: &IssuedTokens) -> bool {
        let request = http::Request::get(self.op.resource()).body(Default::default()).unwrap();
        self.client.resource(tokens, request).await.unwrap().status() == 200
    }
}

fn copy(tokens: &IssuedTokens) -> IssuedTokens {
    let keyring = keyring();
    IssuedTokens::open(&keyring, &tokens.seal(&keyring).unwrap()).unwrap()
}

fn texts(tokens: &IssuedTokens) -> (String, Option<String>) {
    let refresh_token = tokens.refresh_token().map(|token| token.expose().to_owned());
    (tokens.access_token().expose().to_owned(), refresh_token)
}

fn key_of(tokens: &IssuedTokens) -> &str {
    tokens.dpop_key().expect("the tokens are bound").thumbprint()
}

#[tokio::test]
async fn the_tokens_of_every_grant_are_refreshed_with_their_key() {
    for at_once in [true, false] {
        let world = ietf(|op| {
            let op = op.refresh_tokens_for_all_grants();
            if at_once { op.answers_at_once() } else { op }
        })
        .await;
        let details = json!([{ "type": "payment" }]);
        let grants = [
            Grant::client_credentials(),
            Grant::token_exchange(world.op.subject_token("user-1"), ACCESS_TOKEN),
            Grant::jwt_bearer(world.op.assertion("user-1")),
        ];
        for grant in grants {
            let request = world.client.token_request(grant).scopes(["read"]).authorization_details(details.clone());
            let answer = request.context("order 4711").send().await.unwrap();
            let mut tokens = match at_once {
                true => complete(answer),
                false => issued(world.wait(&mut deferred(answer)).await),
            };
            let (before, key, kind) =
                (texts(&tokens), key_of(&tokens).to_owned(), tokens.issued_token_type().map(str::to_owned));
            world.clock.sleep(seconds(60)).await;
            for _ in 0..2 {
                world.client.refresh(&mut tokens).await.unwrap();
                tokens = copy(&tokens);
            }
            let after = texts(&tokens);
            assert!(before.0 != after.0 && before.1.is_some() && before.1 != after.1, "both tokens are new");
            assert_eq!((key_of(&tokens), tokens.is_sender_constrained()), (key.as_str(), true));
            assert_eq!((tokens.granted_scope(), tokens.context()), (GrantedScope::Listed("read"), &b"order 4711"[..]));
            assert_eq!(tokens.issued_token_type(), kind.as_deref());
            assert_eq!(tokens.authorization_details(), Some(&details));
            assert_eq!(tokens.access_token_expires_at(), Some(tokens.received_at() + HOUR));
            assert!(world.is_accepted(&tokens).await);
        }
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn the_refresh_token_of_a_public_client_is_presented_with_its_key() {
    let clock = TestClock::automatic();
    let op = public(provider(&clock)).ietf().refresh_tokens_for_all_grants().start().unwrap();
    let client = Client::builder(op.issuer(), "public")
        .authentication(ClientAuthentication::none())
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()));
    let client = client.discover().await.unwrap();
    let world = World { op, clock, client };
    let grant = Grant::token_exchange(world.op.subject_token("user-1"), ACCESS_TOKEN);
    let answer = world.client.token_request(grant).send().await.unwrap();
    let mut tokens = issued(world.wait(&mut deferred(answer)).await);
    world.client.refresh(&mut tokens).await.unwrap();
    world.client.revoke(&tokens).await.unwrap();
    for endpoint in [Endpoint::Refresh, Endpoint::Revocation] {
        let requests = world.op.requests_to(endpoint);
        assert!(requests.iter().all(|request| proven_key(request).as_deref() == Some(key_of(&tokens))));
    }
    assert!(!world.is_accepted(&tokens).await);
    world.op.forgive();
}

#[tokio::test]
async fn members_that_the_answer_to_a_refresh_omits_stay() {
    let world = world().await;
    let grant = Grant::token_exchange(world.op.subject_token("user-1"), ACCESS_TOKEN);
    let details = json!([{ "type": "payment" }]);
    let request = world.client.token_request(grant).scopes(["read"]).authorization_details(details.clone());
    let mut tokens = issued(world.wait(&mut deferred(request.send().await.unwrap())).await);
    let before = texts(&tokens);
    world.op.misbehave(Fault::edit_json(Endpoint::Refresh, |members| {
        members.retain(|name, _| matches!(name.as_str(), "access_token" | "token_type"));
    }));
    world.client.refresh(&mut tokens).await.unwrap();
    let after = texts(&tokens);
    assert_ne!(after.0, before.0);
    assert_eq!(after.1, before.1);
    assert_eq!(
        (tokens.granted_scope(), tokens.issued_token_type()),
        (GrantedScope::Listed("read"), Some(ACCESS_TOKEN))
    );
    assert_eq!((tokens.authorization_details(), tokens.access_token_expires_at()), (Some(&details), None));
}

#[tokio::test]
async fn an_answer_to_a_refresh_without_a_usable_token_is_refused_and_its_tokens_are_revoked() {
    type Edit = fn(&mut Map<String, Value>);
    let without_token: Edit = |members| drop(members.shift_remove("access_token"));
    let unknown: Edit = |members| drop(members.insert("token_type".into(), json!("mac")));
    let unbound: Edit = |members| drop(members.insert("token_type".into(), json!("Bearer")));
    for (edit, rule, revoked) in [
        (without_token, Rule::NoAccessToken, 1),
        (unknown, Rule::UnknownTokenType, 2),
        (unbound, Rule::UnknownTokenType, 2),
    ] {
        let world =
            world_with(|op| op.ietf().refresh_tokens_for_all_grants(), ClientBuilder::drop_unbound_tokens).await;
        let mut tokens = world.issued().await;
        let before = texts(&tokens);
        world.op.misbehave(Fault::edit_json(Endpoint::Refresh, edit));
        let error = world.client.refresh(&mut tokens).await.unwrap_err();
        assert_eq!((error.rule(), error.is_transient()), (Some(rule), false));
        assert_eq!(texts(&tokens), before, "the tokens are the old ones");
        let requests = world.op.requests_to(Endpoint::Revocation);
        assert_eq!(requests.len(), revoked, "the new tokens are revoked");
        assert!(requests.iter().all(|request| request.parameter("token") != before.1.as_deref()));
    }
}

#[tokio::test]
async fn an_id_token_in_the_answer_to_a_refresh_is_ignored() {
    let world = world().await;
    let mut tokens = world.issued().await;
    world.op.misbehave(Fault::edit_json(Endpoint::Refresh, |members| {
        members.insert("id_token".into(), json!("not a JWT"));
    }));
    world.client.refresh(&mut tokens).await.unwrap();
    assert!(world.is_accepted(&tokens).await && tokens.extra("id_token").is_none());
}

#[tokio::test]
async fn concurrent_refreshes_of_copies_of_the_tokens_share_one_request() {
    let world = world().await;
    let mut first = world.issued().await;
    let mut second = copy(&first);
    world.op.misbehave(Fault::delay(Endpoint::Refresh, seconds(3)));
    let (one, two) = tokio::join!(world.client.refresh(&mut first), world.client.refresh(&mut second));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(texts(&first), texts(&second));
    assert_eq!(world.op.requests_to(Endpoint::Refresh).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_confidential_client_refreshes_with_a_new_key() {
    let world = world().await;
    let mut tokens = world.issued().await;
    let old = key_of(&tokens).to_owned();
    world.client.refresh_with_new_key(&mut tokens).await.unwrap();
    assert_ne!(key_of(&tokens), old);
    assert!(world.is_accepted(&tokens).await && tokens.is_sender_constrained());
    world.op.assert_clean();
}

#[tokio::test]
async fn without_a_refresh_token_nothing_is_sent() {
    let world = ietf(|op| op).await;
    let mut tokens = world.issued().await;
    assert!(tokens.refresh_token().is_none(), "client credentials come without one");
    let error = world.client.refresh(&mut tokens).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NoRefreshToken));
    assert!(world.op.requests_to(Endpoint::Refresh).is_empty());
}

#[tokio::test]
async fn tokens_are_revoked_with_their_key_the_refresh_token_first() {
    for at_once in [true, false] {
        let world = ietf(|op| {
            let op = op.refresh_tokens_for_all_grants();
            if at_once { op.answers_at_once() } else { op }
        })
        .await;
        let mut tokens = match at_once {
            true => complete(world.client.token_request(Grant::client_credentials()).send().await.unwrap()),
            false => world.issued().await,
        };
        world.client.revoke(&tokens).await.unwrap();
        let requests = world.op.requests_to(Endpoint::Revocation);
        let sent: Vec<_> =
            requests.iter().map(|request| (request.parameter("token_type_hint"), request.parameter("token"))).collect();
        assert_eq!(
            sent,
            [
                (Some("refresh_token"), tokens.refresh_token().map(Secret::expose)),
                (Some("access_token"), Some(tokens.access_token().expose())),
            ]
        );
        assert!(requests.iter().all(|request| proven_key(request).as_deref() == Some(key_of(&tokens))));
        world.op.assert_clean();

        assert!(!world.is_accepted(&tokens).await);
        let error = world.client.refresh(&mut tokens).await.unwrap_err();
        assert_eq!(error.error_response().unwrap().code(), "invalid_grant");
    }
}

#[tokio::test]
async fn the_tokens_of_another_client_are_neither_refreshed_nor_revoked() {
    let (mine, other) = (world().await, ietf(|op| op.refresh_tokens_for_all_grants().path("/other")).await);
    let mut tokens = other.issued().await;
    let foreign = ErrorKind::Misuse(Misuse::WrongClient);
    assert_eq!(*mine.client.refresh(&mut tokens).await.unwrap_err().kind(), foreign);
    assert_eq!(*mine.client.revoke(&tokens).await.unwrap_err().kind(), foreign);
    assert!(mine.token_requests().is_empty() && mine.op.requests_to(Endpoint::Revocation).is_empty());
}
