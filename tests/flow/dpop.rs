//! RFC 9449, over a whole sign-in.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openid_deferred::compatibility::PollCredential;
use openid_deferred::error::Misuse;
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, InterimToken, NoncePolicy, RecordedRequest, TestClient, TestProviderBuilder,
    jwk_thumbprint,
};
use openid_deferred::{
    ClientAuthentication, ClientBuilder, Clock as _, DpopMode, ErrorKind, Outcome, Poll, SignIn, SigningKey,
};
use serde_json::{Value, json};

use crate::support::{
    CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, client_of, keyring, reopened, seconds, world, world_with,
};

/// A decoded DPoP proof.
struct Proof {
    header: Value,
    claims: Value,
}

impl Proof {
    fn of(request: &RecordedRequest) -> Option<Self> {
        let mut parts = request.header("dpop")?.split('.');
        let mut part = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
        Some(Self { header: part()?, claims: part()? })
    }

    fn thumbprint(&self) -> String {
        jwk_thumbprint(&self.header["jwk"].to_string()).expect("the proof has a public key")
    }
}

fn proofs(requests: &[RecordedRequest]) -> Vec<Proof> {
    requests.iter().filter_map(Proof::of).collect()
}

async fn with_nonces(policy: NoncePolicy) -> World {
    world_with(|op| op.dpop_nonces(policy).decisions(DecisionPolicy::after_polls(3)), |client| client).await
}

// The key.

#[tokio::test]
async fn dpop_jkt_exchange_polls_and_resource_requests_use_the_same_key() {
    let world = world().await;
    let mut pending = world.pending().await;
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    world.client.userinfo(&authentication).await.unwrap();
    let thumbprint = authentication.dpop_key().unwrap().thumbprint();
    assert_eq!(pending.dpop_key().unwrap().thumbprint(), thumbprint);
    assert_eq!(world.op.last_process().authorization_parameter("dpop_jkt").as_deref(), Some(thumbprint));
    let proofs = proofs(&world.op.requests());
    assert_eq!(proofs.len(), 4, "exchange, two polls, UserInfo");
    assert!(proofs.iter().all(|proof| proof.thumbprint() == thumbprint));
    world.op.assert_clean();
}

#[tokio::test]
async fn every_process_has_a_key_of_its_own() {
    let world = world().await;
    let mut keys = BTreeSet::new();
    for _ in 0..3 {
        keys.insert(world.approved().await.dpop_key().unwrap().thumbprint().to_owned());
    }
    assert_eq!(keys.len(), 3);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_key_is_the_same_after_a_restart_and_no_proof_id_repeats() {
    let world = world_with(|op| op.decisions(DecisionPolicy::after_polls(3)), |client| client).await;
    let keyring = keyring();
    let mut pending = world.pending().await;
    world.clock.sleep(seconds(6)).await;
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    let mut pending = reopened(pending, &keyring);
    let world = world.restarted(3);
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    let proofs = proofs(&world.op.requests());
    let keys: BTreeSet<_> = proofs.iter().map(Proof::thumbprint).collect();
    let ids: BTreeSet<_> = proofs.iter().map(|proof| proof.claims["jti"].as_str().unwrap()).collect();
    assert_eq!((proofs.len(), keys.len(), ids.len()), (5, 1, 5));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_proof_shows_the_public_key_alone() {
    let world = world().await;
    world.approved().await;
    for proof in proofs(&world.op.requests()) {
        let members: Vec<_> = proof.header["jwk"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["crv", "kty", "x", "y"]);
        assert_eq!(proof.header.as_object().unwrap().len(), 3, "typ, alg and jwk");
    }
}

#[tokio::test]
async fn the_first_of_our_algorithms_that_the_op_lists_is_used() {
    for (listed, chosen) in [
        (json!(["PS256", "EdDSA", "ES256"]), "ES256"),
        (json!(["RS256", "PS256", "EdDSA"]), "EdDSA"),
        (json!(["PS256"]), "PS256"),
    ] {
        let edit = move |members: &mut serde_json::Map<String, Value>| {
            members.insert("dpop_signing_alg_values_supported".into(), listed.clone());
        };
        let world = world_with(|op| op.metadata(edit), |client| client).await;
        world.approved().await;
        assert!(proofs(&world.op.requests()).iter().all(|proof| proof.header["alg"] == chosen), "{chosen}");
        world.op.assert_clean();
    }
}

// Nonces.

#[tokio::test]
async fn a_nonce_challenge_is_answered_once_with_the_same_code_a_new_jti_and_the_nonce() {
    let world = with_nonces(NoncePolicy::Required).await;
    world.approved().await;
    let exchanges = world.op.requests_to(Endpoint::Exchange);
    assert_eq!(exchanges.len(), 2);
    assert_eq!(exchanges[0].error().as_deref(), Some("use_dpop_nonce"));
    assert_eq!(exchanges[0].parameter("deferred_code"), exchanges[1].parameter("deferred_code"));
    let (first, second) = (Proof::of(&exchanges[0]).unwrap(), Proof::of(&exchanges[1]).unwrap());
    assert_ne!(first.claims["jti"], second.claims["jti"]);
    let given = exchanges[0].response_headers["dpop-nonce"].to_str().unwrap();
    assert_eq!((&first.claims["nonce"], &second.claims["nonce"]), (&Value::Null, &json!(given)));
    assert_eq!(world.polls().len(), 4, "the polls know the nonce");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_challenge_makes_a_new_client_assertion_as_well() {
    let key = SigningKey::generate(openid_deferred::SigningAlgorithm::Es256).unwrap();
    let public = Value::Object(key.public_jwk()).to_string();
    let world = world_with(
        |op| {
            let registered = TestClient::private_key_jwt(CLIENT_ID, &public).redirect_uri(REDIRECT_URI);
            op.client(registered.signing_algorithm("ES256")).dpop_nonces(NoncePolicy::Required)
        },
        |client| client.authentication(ClientAuthentication::private_key_jwt(key)),
    )
    .await;
    world.approved().await;
    let requests: Vec<_> = world.op.requests_to(Endpoint::Token);
    let assertions: BTreeSet<_> = requests.iter().map(|request| request.parameter("client_assertion")).collect();
    assert_eq!((requests.len(), assertions.len()), (4, 4));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_challenge_with_401_and_www_authenticate_is_answered_too() {
    let world =
        world_with(|op| op.dpop_nonces(NoncePolicy::Required).challenge_with_unauthorized(), |client| client).await;
    let mut pending = world.pending().await;
    world.op.rotate_nonces();
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert_eq!(world.polls()[0].status, Some(401));
    assert_eq!((world.op.requests_to(Endpoint::Exchange).len(), world.polls().len()), (2, 3));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_nonce_that_expires_between_polls_costs_one_more_request() {
    let world = with_nonces(NoncePolicy::Required).await;
    let mut pending = world.pending().await;
    for polls in [2, 4] {
        world.op.rotate_nonces();
        world.clock.sleep(seconds(6)).await;
        assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
        assert_eq!(world.polls().len(), polls);
    }
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_nonce_that_changes_with_every_response_is_followed_without_further_challenges() {
    let world = with_nonces(NoncePolicy::RotateEveryRequest).await;
    world.approved().await;
    assert_eq!((world.op.requests_to(Endpoint::Exchange).len(), world.polls().len()), (2, 4));
    world.op.assert_clean();
}

#[tokio::test]
async fn nonces_are_taken_from_error_responses() {
    let world = with_nonces(NoncePolicy::RotateEveryRequest).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::status(Endpoint::Poll, 503).times(2));
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert_eq!(world.polls().len(), 6, "no challenge follows");
    world.op.assert_clean();
}

#[tokio::test]
async fn many_processes_share_the_nonces_of_their_op() {
    let world = with_nonces(NoncePolicy::RotateEveryRequest).await;
    let (mut one, mut other) = (world.pending().await, world.pending().await);
    let (one, other) = tokio::join!(world.wait(&mut one), world.wait(&mut other));
    assert!(matches!((one, other), (Outcome::Approved(_), Outcome::Approved(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn nonces_of_authorization_server_and_resource_server_are_kept_apart() {
    for policy in [NoncePolicy::Required, NoncePolicy::RotateEveryRequest] {
        let world = with_nonces(policy).await;
        let authentication = world.approved().await;
        for _ in 0..2 {
            world.client.userinfo(&authentication).await.unwrap();
        }
        assert_eq!(world.op.requests_to(Endpoint::UserInfo).len(), 3, "one challenge");
        let polls = world.polls().len();
        world.approved().await;
        assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 3, "the nonce for polls is still known");
        assert_eq!(world.polls().len(), 2 * polls);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn two_nonce_challenges_in_a_row_end_no_sign_in() {
    let world = with_nonces(NoncePolicy::Required).await;
    world.op.misbehave(Fault::forget_nonces(Endpoint::Exchange).times(2));
    assert!(matches!(world.sign_in().await, Ok(SignIn::Deferred(_))));
    assert_eq!((world.op.requests_to(Endpoint::Exchange).len(), world.op.faults_left()), (3, 0));
    world.op.assert_clean();
}

// Proofs.

#[tokio::test]
async fn no_proof_id_repeats_over_challenges_retries_and_resource_calls() {
    let world = with_nonces(NoncePolicy::Required).await;
    let mut pending = world.pending().await;
    world.op.misbehave(Fault::reset(Endpoint::Poll).times(2));
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    world.client.userinfo(&authentication).await.unwrap();
    let proofs = proofs(&world.op.requests());
    let ids: BTreeSet<_> = proofs.iter().map(|proof| proof.claims["jti"].as_str().unwrap()).collect();
    assert_eq!((proofs.len(), ids.len()), (10, 10));
    assert!(ids.iter().all(|id| id.len() >= 22), "128 bits");
}

#[tokio::test]
async fn a_proof_has_ath_only_if_an_access_token_is_presented() {
    let world = world().await;
    let authentication = world.approved().await;
    world.client.userinfo(&authentication).await.unwrap();
    for request in world.op.requests() {
        let Some(proof) = Proof::of(&request) else { continue };
        assert_eq!(proof.claims.get("ath").is_some(), request.endpoint == Endpoint::UserInfo, "{}", request.endpoint);
    }
    // The provider checks whether it is the hash of the token.
    world.op.assert_clean();
}

#[tokio::test]
async fn proofs_use_the_ops_clock_after_one_refusal() {
    for offset in [-300, 300] {
        let world = world_with(
            |op| op.clock_offset(offset).decisions(DecisionPolicy::after_polls(3)),
            |client| client.leeway(seconds(310)),
        )
        .await;
        world.approved().await;
        let refused = world.op.requests().iter().filter(|request| request.status == Some(400)).count();
        assert_eq!(refused, 1 + 3, "one refusal, and three pending answers");
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_sign_in_continues_after_a_jump_of_the_ops_clock_caused_one_refused_proof() {
    let world = world_with(|op| op.decisions(DecisionPolicy::after_polls(3)), |client| client).await;
    let mut pending = world.pending().await;
    // The provider's clock is the client's, so the refusal and its date are invented.
    let date = "Thu, 01 Jan 2026 00:01:00 GMT";
    world.op.misbehave(Fault::error(Endpoint::Poll, "invalid_dpop_proof").header("Date", date));
    world.clock.sleep(seconds(6)).await;
    assert!(matches!(world.client.poll(&mut pending).await, Ok(Poll::Pending)));
    let [refused, repeated] = &proofs(&world.polls())[..] else { panic!("two polls") };
    let moved = repeated.claims["iat"].as_u64().unwrap() - refused.claims["iat"].as_u64().unwrap();
    assert!((50..=54).contains(&moved), "{moved}");
    world.op.assert_clean();
}

// Servers and clients without DPoP.

#[tokio::test]
async fn an_op_without_dpop_works_and_its_tokens_are_marked_as_unbound() {
    let world = world_with(TestProviderBuilder::without_dpop, |client| client).await;
    let authentication = world.approved().await;
    assert!(!authentication.is_sender_constrained());
    assert!(authentication.access_token().is_some());
    let userinfo = world.client.userinfo(&authentication).await.unwrap();
    assert_eq!(userinfo.subject(), "user-1");
    let request = &world.op.requests_to(Endpoint::UserInfo)[0];
    assert!(request.header("authorization").unwrap().starts_with("Bearer ") && request.header("dpop").is_none());
    world.op.assert_clean();
}

#[tokio::test]
async fn unbound_tokens_are_dropped_and_revoked_if_configured() {
    let world = world_with(TestProviderBuilder::without_dpop, ClientBuilder::drop_unbound_tokens).await;
    let authentication = world.approved().await;
    assert_eq!(authentication.claims().subject(), "user-1");
    assert!(authentication.access_token().is_none() && authentication.refresh_token().is_none());
    assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NoAccessToken));
    world.op.assert_clean();
}

#[tokio::test]
async fn bound_tokens_are_kept_if_unbound_ones_are_dropped() {
    let world = world_with(|op| op, ClientBuilder::drop_unbound_tokens).await;
    assert!(world.approved().await.access_token().is_some());
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
}

#[tokio::test]
async fn with_dpop_off_requests_have_no_dpop_parameters() {
    let world = world_with(|op| op, |client| client.dpop(DpopMode::Off)).await;
    let authentication = world.approved().await;
    assert!(authentication.dpop_key().is_none() && !authentication.is_sender_constrained());
    world.client.userinfo(&authentication).await.unwrap();
    assert!(world.op.last_process().authorization_parameter("dpop_jkt").is_none());
    assert!(world.op.requests().iter().all(|request| request.header("dpop").is_none()));
    world.op.assert_clean();
}

// Polling with the access token, as the base draft literally says.

fn by_access_token(op: TestProviderBuilder) -> TestProviderBuilder {
    let registered = TestClient::secret_post(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI);
    op.client(registered.signing_algorithm("ES256")).early_access_token().interim_token(InterimToken::IdToken)
}

fn polling_by_access_token(client: ClientBuilder) -> ClientBuilder {
    client
        .authentication(ClientAuthentication::client_secret_post(CLIENT_SECRET))
        .poll_credential(PollCredential::AccessToken)
}

#[tokio::test]
async fn polls_can_present_the_access_token_of_the_exchange_with_ath() {
    let world = world_with(by_access_token, polling_by_access_token).await;
    let mut pending = world.pending().await;
    let early = pending.access_token().unwrap().expose().to_owned();
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    assert_ne!(authentication.access_token().unwrap().expose(), early);
    for poll in world.polls() {
        assert_eq!(poll.header("authorization"), Some(format!("DPoP {early}").as_str()));
        assert!(Proof::of(&poll).unwrap().claims["ath"].is_string());
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn an_access_token_of_the_exchange_is_kept_and_not_used_unless_configured() {
    let world = world_with(|op| op.early_access_token(), |client| client).await;
    let mut pending = world.pending().await;
    assert!(pending.access_token().is_some());
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    assert!(world.polls()[0].header("authorization").unwrap().starts_with("Basic "));
    world.op.assert_clean();
}

#[tokio::test]
async fn no_poll_is_sent_without_the_access_token_that_it_must_present() {
    let world = world_with(by_access_token, polling_by_access_token).await;
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
        members.remove("access_token");
    }));
    let mut pending = world.pending().await;
    let error = world.client.wait(&mut pending).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::NoAccessToken));
    assert!(world.polls().is_empty() && !pending.has_ended());
}

#[tokio::test]
async fn invalid_token_in_a_poll_is_transient() {
    let world = world_with(by_access_token, polling_by_access_token).await;
    let mut pending = world.pending().await;
    let challenge = r#"DPoP error="invalid_token""#;
    world.op.misbehave(Fault::status(Endpoint::Poll, 401).header("WWW-Authenticate", challenge));
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
}

#[tokio::test]
async fn polling_with_the_access_token_excludes_basic_and_dpop_off() {
    let world = world().await;
    for client in [
        client_of(&world.op, &world.clock).poll_credential(PollCredential::AccessToken),
        polling_by_access_token(client_of(&world.op, &world.clock)).dpop(DpopMode::Off),
    ] {
        assert!(matches!(client.build().unwrap_err().kind(), ErrorKind::Configuration(_)));
    }
}
