//! Nonce challenges and a wrong clock (RFC 9449 §8): exactly one more request.

use super::*;

fn proofs(world: &World) -> Vec<Value> {
    world.exchanges().iter().map(|request| claims_of(request.header("dpop").expect("a proof"))).collect()
}

#[tokio::test]
async fn a_nonce_challenge_repeats_the_request_with_the_same_code_and_a_new_proof() {
    for as_401 in [false, true] {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let jwk = serde_json::to_string(&key.public_jwk()).unwrap();
        let registered = TestClient::private_key_jwt(CLIENT_ID, &jwk).redirect_uri(REDIRECT_URI);
        let world = world_with(
            |op| {
                let op = op.client(registered).dpop_nonces(NoncePolicy::Required);
                if as_401 { op.challenge_with_unauthorized() } else { op }
            },
            |client| client.authentication(ClientAuthentication::private_key_jwt(key)),
        )
        .await;
        let _ = world.pending().await;
        let (exchanges, proofs) = (world.exchanges(), proofs(&world));
        assert_eq!(exchanges.len(), 2);
        assert_eq!(exchanges[0].parameter("deferred_code"), exchanges[1].parameter("deferred_code"));
        assert_eq!((proofs[0].get("nonce"), proofs[1]["nonce"].is_string()), (None, true));
        assert_ne!(proofs[0]["jti"], proofs[1]["jti"]);
        let assertion = |index: usize| claims_of(exchanges[index].parameter("client_assertion").unwrap());
        assert_ne!(assertion(0)["jti"], assertion(1)["jti"]);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn endless_nonce_challenges_are_transient_and_keep_the_grant() {
    let world = op_with(|op| op.dpop_nonces(NoncePolicy::Required)).await;
    let mut grant = world.grant().await;
    world.op.misbehave(Fault::forget_nonces(Endpoint::Exchange).times(6));
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::SecondNonceChallenge));
    assert!(!grant.is_spent() && error.is_transient());
    assert_eq!((world.exchanges().len(), world.op.faults_left()), (6, 0), "three attempts");
    assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

/// A challenge with these values of `DPoP-Nonce`.
fn challenge(endpoint: Endpoint, nonces: &[&str]) -> Fault {
    let fault = Fault::error(endpoint, "use_dpop_nonce");
    nonces.iter().fold(fault, |fault, nonce| fault.header("DPoP-Nonce", nonce))
}

#[tokio::test]
async fn a_second_challenge_with_retry_after_is_not_answered_at_once() {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.misbehave(challenge(Endpoint::Exchange, &["one"]).header("retry-after", "30").times(2));
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!((error.rule(), error.retry_after()), (Some(Rule::SecondNonceChallenge), Some(Duration::from_secs(30))));
    assert_eq!(world.exchanges().len(), 2);
}

#[tokio::test]
async fn a_challenge_without_a_usable_nonce_leaves_the_code_unspent() {
    for nonces in [&[][..], &["one", "another"], &[&"n".repeat(4_097)]] {
        let world = world().await;
        let mut grant = world.grant().await;
        world.op.misbehave(challenge(Endpoint::Exchange, nonces));
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!((error.rule(), error.is_transient()), (Some(Rule::NonceMissing), true));
        assert!(!grant.is_spent());
        assert_eq!(world.exchanges().len(), 1);
        assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
    }
}

#[tokio::test]
async fn a_nonce_of_four_kilobytes_or_one_that_is_repeated_answers_the_challenge() {
    let long = "n".repeat(4_096);
    for nonces in [&[long.as_str()][..], &["twice", "twice"]] {
        let world = world().await;
        world.op.misbehave(challenge(Endpoint::Exchange, nonces));
        assert!(matches!(world.sign_in().await, Ok(SignIn::Deferred(_))));
        assert_eq!(proofs(&world)[1]["nonce"], json!(nonces[0]));
    }
}

#[tokio::test]
async fn a_wrong_clock_costs_one_more_request() {
    let world = op_with(|op| op.clock_offset(3_600)).await;
    let mut grant = world.grant().await;
    assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
    assert_eq!(world.exchanges().len(), 2);
}
