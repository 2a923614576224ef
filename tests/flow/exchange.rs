//! DTR §Deferred Code Exchange Request, its response, and the code flow's token response.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_core::future::BoxFuture;
use openid_deferred::testing::{
    Endpoint, Fault, IdTokenForgery, InterimToken, NoncePolicy, RequestRule, TestClient, TestProviderBuilder,
};
use openid_deferred::{
    AssertionAudience, ClientAuthentication, ClientBuilder, Clock as _, Document, DpopMode, Error, ErrorKind,
    InterimState, Misuse, Outcome, PendingAuthentication, Rule, SignIn, Signer, SigningAlgorithm, SigningKey,
    TransportProblem,
};
use serde_json::{Map, Value, json};

use crate::steps::{RefusingNetwork, cause, claims_of};
use crate::support::{CLIENT_ID, REDIRECT_URI, World, client_of, world, world_with};

async fn op_with(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    world_with(op, |client| client).await
}

async fn client_with(client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> World {
    world_with(|op| op, client).await
}

/// What the client makes of an exchange response that was changed on its way.
async fn answered_with(
    world: &World,
    edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
) -> Result<PendingAuthentication, Error> {
    world.op.misbehave(Fault::edit_json(Endpoint::Exchange, edit));
    match world.sign_in().await? {
        SignIn::Deferred(pending) => Ok(pending),
        other => panic!("the answer was not final: {other:?}"),
    }
}

fn set(members: &mut Map<String, Value>, name: &str, value: Value) {
    members.insert(name.to_owned(), value);
}

/// The code of `fault`'s victim counts as spent, nothing is sent again, and nobody knows what became of it.
async fn lost(fault: Fault) -> (World, Error) {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.misbehave(fault);
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    assert_eq!(error.step(), Some("exchanging the code"));
    assert!(grant.is_spent() && !error.is_transient());

    let again = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*again.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
    let calls = world.op.requests().iter().filter(|request| request.endpoint >= Endpoint::Token).count();
    assert_eq!(calls, 1, "the code went out once, and nothing else did");
    world.op.assert_clean();
    (world, error)
}

mod request {
    use super::*;

    #[tokio::test]
    async fn the_exchange_has_exactly_what_the_flow_needs() {
        let world = world().await;
        let _ = world.pending().await;
        let request = &world.exchanges()[0];
        let names: Vec<_> = request.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["grant_type", "deferred_code", "redirect_uri", "code_verifier"]);
        assert_eq!(request.parameter("grant_type"), Some("urn:openid:params:grant-type:deferred"));
        assert_eq!(request.parameter("redirect_uri"), Some(REDIRECT_URI));
        assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
        assert!(request.header("dpop").is_some());
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn without_pkce_neither_request_has_its_parameters() {
        let world = world_with(|op| op.require_pkce(false), |client| client.without_pkce()).await;
        let _ = world.pending().await;
        let process = world.op.last_process();
        assert_eq!(process.authorization_parameter("code_challenge"), None);
        assert_eq!(process.authorization_parameter("code_challenge_method"), None);
        assert_eq!(world.exchanges()[0].parameter("code_verifier"), None);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn the_redirect_uri_can_be_left_out_of_the_exchange_of_a_deferred_code() {
        let world = client_with(|client| client.without_redirect_uri_in_exchange()).await;
        let _ = world.pending().await;
        assert_eq!(world.exchanges()[0].parameter("redirect_uri"), None);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn the_redirect_uri_is_never_left_out_of_the_exchange_of_an_ordinary_code() {
        let world = world_with(|op| op.answer_with_code(), |client| client.without_redirect_uri_in_exchange()).await;
        let _ = code_flow(&world).await.unwrap();
        assert_eq!(world.op.requests_to(Endpoint::Code)[0].parameter("redirect_uri"), Some(REDIRECT_URI));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_notification_token_is_sent_where_one_is_set() {
        let world = client_with(|client| client.notification_token("the OP's bearer")).await;
        let pending = world.pending().await;
        assert_eq!(world.op.last_process().notification_token().as_deref(), Some("the OP's bearer"));
        assert_eq!(pending.notification_token().map(|token| token.expose()), Some("the OP's bearer"));
    }

    #[tokio::test]
    async fn no_notification_token_is_sent_unless_one_is_set() {
        let world = world().await;
        let pending = world.pending().await;
        assert_eq!(world.exchanges()[0].parameter("deferred_notification_token"), None);
        assert!(pending.notification_token().is_none());
    }

    #[tokio::test]
    async fn without_dpop_there_is_no_thumbprint_and_no_proof() {
        let world = client_with(|client| client.dpop(DpopMode::Off)).await;
        let pending = world.pending().await;
        assert!(pending.dpop_key().is_none());
        assert_eq!(world.op.last_process().authorization_parameter("dpop_jkt"), None);
        assert_eq!(world.exchanges()[0].header("dpop"), None);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_op_that_knows_nothing_of_dpop_works() {
        let world = op_with(|op| op.without_dpop()).await;
        let Outcome::Approved(authentication) = world.outcome().await else { panic!("not approved") };
        assert!(!authentication.is_sender_constrained());
        world.op.assert_clean();
    }
}

mod client_authentication {
    use super::*;

    async fn registered(client: TestClient, authentication: ClientAuthentication) -> World {
        let client = client.redirect_uri(REDIRECT_URI);
        world_with(|op| op.client(client), |builder| builder.authentication(authentication)).await
    }

    fn jwk(key: &SigningKey) -> String {
        serde_json::to_string(&key.public_jwk()).unwrap()
    }

    #[tokio::test]
    async fn a_public_client_says_who_it_is() {
        let world = registered(TestClient::public(CLIENT_ID), ClientAuthentication::none()).await;
        let _ = world.pending().await;
        let request = &world.exchanges()[0];
        assert_eq!((request.parameter("client_id"), request.header("authorization")), (Some(CLIENT_ID), None));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_basic_identifier_and_secret_are_form_encoded_whatever_is_in_them() {
        const ID: &str = "https://rp.test/?a=1&b";
        for secret in ["a:b%c+d e", "%3A", "ünï/=&?", "+", ":"] {
            let clock = openid_deferred::testing::TestClock::automatic();
            let op = crate::support::provider(&clock)
                .client(TestClient::secret_basic(ID, secret).redirect_uri(REDIRECT_URI))
                .start()
                .unwrap();
            let client = openid_deferred::Client::builder(op.issuer(), ID)
                .authentication(ClientAuthentication::client_secret_basic(secret))
                .redirect_uri(REDIRECT_URI)
                .http_client(op.http_client())
                .clock(Arc::new(clock.clone()))
                .discover()
                .await
                .unwrap();
            let world = World { op, clock, client };
            let _ = world.pending().await;
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn with_client_secret_post_the_secret_is_in_the_body_alone() {
        let authentication = ClientAuthentication::client_secret_post("a s€cret&");
        let world = registered(TestClient::secret_post(CLIENT_ID, "a s€cret&"), authentication).await;
        let _ = world.pending().await;
        let request = &world.exchanges()[0];
        assert_eq!(request.parameter("client_secret"), Some("a s€cret&"));
        assert_eq!((request.header("authorization"), url_query(&request.url)), (None, None));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn private_key_jwt_works_with_every_kind_of_key() {
        for algorithm in
            [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Ps256, SigningAlgorithm::Rs256]
        {
            let key = SigningKey::generate(algorithm).unwrap();
            let client = TestClient::private_key_jwt(CLIENT_ID, &jwk(&key));
            let world = registered(client, ClientAuthentication::private_key_jwt(key)).await;
            let _ = world.pending().await;
            world.op.assert_clean();
        }
    }

    /// A key that is somewhere else.
    #[derive(Debug)]
    struct Remote(Option<SigningKey>);

    impl Signer for Remote {
        fn algorithm(&self) -> SigningAlgorithm {
            SigningAlgorithm::Es256
        }

        fn key_id(&self) -> Option<&str> {
            Some("in the vault")
        }

        fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
            match &self.0 {
                Some(key) => key.sign(message),
                None => Box::pin(async { Err(TransportProblem::Timeout.into()) }),
            }
        }
    }

    #[tokio::test]
    async fn private_key_jwt_works_with_a_key_outside_of_the_process() {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let client = TestClient::private_key_jwt(CLIENT_ID, &jwk(&key));
        let world = registered(client, ClientAuthentication::private_key_jwt(Remote(Some(key)))).await;
        let _ = world.pending().await;
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_key_that_does_not_sign_leaves_the_grant_usable_and_nothing_sent() {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let client = TestClient::private_key_jwt(CLIENT_ID, &jwk(&key));
        let world = registered(client, ClientAuthentication::private_key_jwt(Remote(None))).await;
        let mut grant = world.grant().await;
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Signer);
        assert!(!grant.is_spent() && error.is_transient());
        world.assert_nothing_sent();
    }

    async fn assertion_audience(client: impl FnOnce(ClientBuilder) -> ClientBuilder) -> (World, Value) {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let registered = TestClient::private_key_jwt(CLIENT_ID, &jwk(&key)).redirect_uri(REDIRECT_URI);
        let authentication = ClientAuthentication::private_key_jwt(key);
        let world =
            world_with(|op| op.client(registered), |builder| client(builder.authentication(authentication))).await;
        let _ = world.sign_in().await;
        let request = &world.exchanges()[0];
        let claims = claims_of(request.parameter("client_assertion").expect("an assertion was sent"));
        (world, claims["aud"].clone())
    }

    #[tokio::test]
    async fn a_client_assertion_is_for_the_issuer_and_nobody_else() {
        let (world, audience) = assertion_audience(|client| client).await;
        assert_eq!(audience, json!(world.op.issuer()));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_client_assertion_can_be_for_the_token_endpoint() {
        let (world, audience) =
            assertion_audience(|client| client.assertion_audience(AssertionAudience::TokenEndpoint)).await;
        assert_eq!(audience, json!(format!("{}/token", world.op.issuer())));
        // This OP is one of those that demand the issuer.
        assert_eq!(world.op.violations()[0].rule, RequestRule::AssertionInvalid);
    }

    #[tokio::test]
    async fn refused_credentials_leave_the_grant_usable() {
        let world = world().await;
        let mut grant = world.grant().await;
        for (code, status) in [("invalid_client", 401), ("unauthorized_client", 400), ("invalid_dpop_proof", 400)] {
            world.op.misbehave(Fault::error_with_status(Endpoint::Exchange, status, code));
            let error = world.client.exchange(&mut grant).await.unwrap_err();
            assert_eq!(error.error_response().map(|response| response.code()), Some(code));
            assert!(!grant.is_spent(), "{code}");
        }
        assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
        world.op.assert_clean();
    }

    fn url_query(url: &str) -> Option<String> {
        url::Url::parse(url).unwrap().query().map(str::to_owned)
    }
}

mod response {
    use super::*;

    #[tokio::test]
    async fn an_answer_without_deferred_auth_id_is_refused_and_its_tokens_given_back() {
        let world = op_with(|op| op.early_access_token()).await;
        let error = answered_with(&world, |members| {
            members.remove("deferred_auth_id");
        })
        .await
        .unwrap_err();
        assert_eq!(error.rule(), Some(Rule::NoDeferredAuthId));
        let token = world.exchanges()[0].response_json()["access_token"].clone();
        let revocations = world.op.requests_to(Endpoint::Revocation);
        assert_eq!(revocations.len(), 1);
        assert_eq!(revocations[0].parameter("token").map(Value::from), Some(token));
        assert!(world.polls().is_empty());
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_deferred_auth_id_that_is_no_text_is_refused() {
        let world = world().await;
        for value in [json!(""), json!(7), json!(["a"]), json!({}), json!(true)] {
            let error = answered_with(&world, move |members| set(members, "deferred_auth_id", value.clone())).await;
            assert_eq!(error.unwrap_err().rule(), Some(Rule::InvalidMember));
        }
        assert!(world.polls().is_empty());
    }

    #[tokio::test]
    async fn an_immediate_final_answer_can_be_accepted() {
        let world = world_with(
            |op| op.early_access_token().interim_token(InterimToken::IdToken),
            |client| client.allow_immediate_answer(),
        )
        .await;
        world.op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
            members.remove("deferred_auth_id");
        }));
        let Ok(SignIn::Complete(authentication)) = world.sign_in().await else { panic!("not complete") };
        assert_eq!(authentication.claims().subject(), "user-1");
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_immediate_final_answer_is_held_to_every_rule() {
        let world = world_with(
            |op| op.early_access_token().interim_token(InterimToken::IdToken),
            |client| client.allow_immediate_answer(),
        )
        .await;
        for (forgery, rule) in [
            (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
            (IdTokenForgery::claims(|claims| set(claims, "nonce", json!("another"))), Rule::IdTokenNonce),
        ] {
            world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
            let result = answered_with(&world, |members| {
                members.remove("deferred_auth_id");
            });
            assert_eq!(result.await.unwrap_err().rule(), Some(rule));
        }
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_answer_that_still_defers_defers_although_an_immediate_one_would_be_accepted() {
        let world = client_with(|client| client.allow_immediate_answer()).await;
        let _ = world.pending().await;
    }

    #[tokio::test]
    async fn the_interim_id_token_is_found_under_either_name() {
        for name in [InterimToken::IdToken, InterimToken::InterimIdToken, InterimToken::Both] {
            let world = op_with(|op| op.interim_token(name).interim_claim("email", "jane@example.com")).await;
            let pending = world.pending().await;
            let interim = pending.interim().verified().expect("a verified interim ID Token");
            assert_eq!((interim.claims().subject(), interim.claims().email()), ("user-1", Some("jane@example.com")));
            world.op.assert_clean();
        }
    }

    #[tokio::test]
    async fn two_different_interim_id_tokens_are_refused() {
        let world = world().await;
        let error = answered_with(&world, |members| set(members, "id_token", json!("a.b.c"))).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::TwoInterimIdTokens));
        assert!(world.polls().is_empty());
    }

    #[tokio::test]
    async fn an_answer_without_an_interim_id_token_is_fine() {
        let world = op_with(|op| op.interim_token(InterimToken::Absent)).await;
        let mut pending = world.pending().await;
        assert!(matches!(pending.interim(), InterimState::Absent));
        assert!(matches!(world.client.wait(&mut pending).await, Ok(Outcome::Approved(_))));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_interim_id_token_that_is_not_believed_ends_nothing() {
        let world = world().await;
        for (forgery, rule) in [
            (IdTokenForgery::broken_signature(), Rule::IdTokenSignature),
            (IdTokenForgery::algorithm_none(), Rule::IdTokenAlgorithm),
            (IdTokenForgery::raw("junk"), Rule::IdTokenMalformed),
            (IdTokenForgery::claims(|claims| drop(claims.remove("nonce"))), Rule::IdTokenNonce),
        ] {
            world.op.misbehave(Fault::id_token(Endpoint::Exchange, forgery));
            let mut pending = world.pending().await;
            assert!(matches!(pending.interim(), InterimState::Rejected(found) if *found == rule), "{rule:?}");
            assert!(matches!(world.client.wait(&mut pending).await, Ok(Outcome::Approved(_))));
        }
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_interim_id_token_can_be_verified_later_when_the_keys_were_out_of_reach() {
        let world = world().await;
        world.op.rotate_keys(false);
        world.op.misbehave(Fault::status(Endpoint::Keys, 503));
        let mut pending = world.pending().await;
        assert!(matches!(pending.interim(), InterimState::NotYetVerifiable));
        world.clock.advance(Duration::from_secs(120));
        world.client.verify_interim(&mut pending).await.unwrap();
        assert!(pending.interim().verified().is_some());
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_early_access_token_is_handed_over() {
        let world = op_with(|op| op.early_access_token()).await;
        let pending = world.pending().await;
        let token = world.exchanges()[0].response_json()["access_token"].clone();
        assert_eq!(pending.access_token().map(|token| json!(token.expose())), Some(token));
    }

    #[tokio::test]
    async fn unknown_members_are_ignored() {
        let world = world().await;
        let pending = answered_with(&world, |members| set(members, "surprise", json!({ "deep": [1, null] }))).await;
        assert!(pending.is_ok());
    }

    #[tokio::test]
    async fn the_media_type_may_have_parameters() {
        let world = world().await;
        world.op.misbehave(Fault::edit_headers(Endpoint::Exchange, |headers| {
            headers.insert("content-type", "Application/JSON ; charset=UTF-8".parse().unwrap());
        }));
        let _ = world.pending().await;
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_deferred_auth_id_is_opaque_and_goes_back_to_the_op_as_it_came() {
        const ID: &str = "a b&c=%41+\u{fc}\u{0}\n\"";
        let world = world().await;
        let mut pending = answered_with(&world, |members| set(members, "deferred_auth_id", json!(ID))).await.unwrap();
        assert!(matches!(world.client.wait(&mut pending).await, Ok(Outcome::Failed(_))));
        assert_eq!(world.polls()[0].parameter("deferred_auth_id"), Some(ID));
    }

    #[tokio::test]
    async fn a_json_object_nested_without_end_is_refused() {
        let world = world().await;
        let body = format!("{{\"deferred_auth_id\":\"a\",\"x\":{}", "[".repeat(500_000));
        world.op.misbehave(Fault::response(Endpoint::Exchange, 200, "application/json", body));
        let error = world.sign_in().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson));
    }
}

mod times {
    use super::*;

    /// In seconds from the answer: when the first poll is due at the earliest.
    async fn interval(value: Value) -> u64 {
        let world = op_with(|op| op.no_expiry()).await;
        let pending = answered_with(&world, move |members| set(members, "interval", value.clone())).await.unwrap();
        let wait = pending.due_at().duration_since(world.clock.now()).unwrap().as_secs_f64();
        // Up to a tenth is jitter.
        (wait / 1.1).ceil() as u64
    }

    async fn lifetime(value: Value) -> Option<u64> {
        let world = world().await;
        let pending = answered_with(&world, move |members| set(members, "expires_in", value.clone())).await.unwrap();
        pending.expires_at().map(|end| end.duration_since(world.clock.now()).unwrap().as_secs())
    }

    #[tokio::test]
    async fn an_interval_is_read_in_every_form() {
        for value in [json!(60), json!(60.0), json!("60"), json!("60.0"), json!(59.5)] {
            let interval = interval(value.clone()).await;
            assert!((55..=60).contains(&interval), "{value}: {interval}");
        }
    }

    #[tokio::test]
    async fn an_interval_that_is_no_time_is_five_seconds() {
        for value in [json!(0), json!(-5), json!("soon"), json!(""), json!([60]), json!(null), json!(true)] {
            assert_eq!(interval(value.clone()).await, 5, "{value}");
        }
    }

    #[tokio::test]
    async fn an_interval_beyond_all_calendars_saturates() {
        for value in [json!(1e30), json!(u64::MAX), json!("99999999999999999999999999")] {
            assert!(interval(value.clone()).await > 1_000_000_000, "{value}");
        }
    }

    #[tokio::test]
    async fn a_lifetime_is_read_in_every_form() {
        for value in [json!(600), json!(600.0), json!("600"), json!(600.9)] {
            assert_eq!(lifetime(value.clone()).await, Some(600), "{value}");
        }
    }

    #[tokio::test]
    async fn a_lifetime_that_is_no_time_counts_as_absent() {
        for value in [json!(0), json!(-5), json!("soon"), json!(null), json!({})] {
            assert_eq!(lifetime(value.clone()).await, None, "{value}");
        }
    }

    #[tokio::test]
    async fn a_lifetime_beyond_all_calendars_saturates() {
        assert!(lifetime(json!(1e30)).await.is_some_and(|seconds| seconds > 100_000_000_000));
    }

    #[tokio::test]
    async fn strictness_refuses_times_that_are_no_positive_integers() {
        let world = client_with(|client| client.strict_times()).await;
        for name in ["interval", "expires_in"] {
            for value in [json!("60"), json!(60.5), json!(0), json!(-1), json!("soon")] {
                let error = answered_with(&world, move |members| set(members, name, value.clone())).await.unwrap_err();
                let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
                assert_eq!((violation.rule(), violation.member()), (Rule::InvalidMember, Some(name)));
            }
        }
        assert!(answered_with(&world, |members| drop(members.remove("interval"))).await.is_ok());
    }

    #[tokio::test]
    async fn expiry_counts_from_when_the_exchange_was_sent_and_the_interval_from_its_answer() {
        let world = op_with(|op| op.expires_in(Duration::from_secs(600))).await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::delay(Endpoint::Exchange, Duration::from_secs(20)));
        let sent_at = world.clock.now();
        let Ok(SignIn::Deferred(pending)) = world.client.exchange(&mut grant).await else { panic!("not deferred") };
        assert_eq!(pending.expires_at(), Some(sent_at + Duration::from_secs(600)));
        assert!(pending.due_at() >= sent_at + Duration::from_secs(25));
    }

    #[tokio::test]
    async fn a_deferral_of_ten_years_works() {
        const DAY: Duration = Duration::from_secs(86_400);
        let world = op_with(|op| {
            op.expires_in(3_650 * DAY)
                .interval(60 * DAY)
                .decisions(openid_deferred::testing::DecisionPolicy::after(3_600 * DAY))
        })
        .await;
        assert!(matches!(world.outcome().await, Outcome::Approved(_)));
        world.op.assert_clean();
    }
}

mod trouble {
    use super::*;

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_the_code_not_sent_again() {
        for status in [301, 302, 303, 307, 308] {
            let fault = Fault::status(Endpoint::Exchange, status).header("Location", "https://op.test/resource");
            let (_, error) = lost(fault).await;
            assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedRedirect));
        }
    }

    #[tokio::test]
    async fn a_success_other_than_200_is_none() {
        for status in [201, 202, 204, 206] {
            let body = r#"{"deferred_auth_id":"abc"}"#;
            let (_, error) = lost(Fault::response(Endpoint::Exchange, status, "application/json", body)).await;
            assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedStatus));
        }
    }

    #[tokio::test]
    async fn a_page_for_humans_is_no_answer() {
        let (_, error) = lost(Fault::status(Endpoint::Exchange, 200)).await;
        let ErrorKind::Protocol(violation) = cause(&error).kind() else { panic!("{error:?}") };
        assert_eq!(violation.rule(), Rule::UnexpectedContentType);
        assert_eq!(violation.document(), Some(Document::ExchangeResponse));
        let (_, error) = lost(Fault::status(Endpoint::Exchange, 502)).await;
        assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedStatus));
    }

    #[tokio::test]
    async fn broken_json_is_no_answer() {
        let (world, error) = lost(Fault::truncated_json(Endpoint::Exchange)).await;
        assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson));
        assert!(world.op.processes()[0].deferred_auth_id().is_some(), "the OP had issued one");
        for body in ["", "[]", "null", "\"x\"", "{\"a\":1}{"] {
            let (_, error) = lost(Fault::response(Endpoint::Exchange, 200, "application/json", body)).await;
            assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson), "{body}");
        }
    }

    #[tokio::test]
    async fn an_error_that_comes_as_success_is_no_answer() {
        let body = r#"{"error":"invalid_grant"}"#;
        let (_, error) = lost(Fault::response(Endpoint::Exchange, 200, "application/json", body)).await;
        assert_eq!(cause(&error).rule(), Some(Rule::ErrorResponseWithSuccessStatus));
    }

    #[tokio::test]
    async fn an_exchange_that_times_out_is_never_repeated() {
        let (_, error) = lost(Fault::stall(Endpoint::Exchange)).await;
        assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Timeout));
        let (_, error) = lost(Fault::delay(Endpoint::Exchange, Duration::from_secs(31))).await;
        assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Timeout));
    }

    #[tokio::test]
    async fn an_exchange_whose_connection_breaks_is_never_repeated() {
        for fault in [
            Fault::reset(Endpoint::Exchange),
            Fault::reset(Endpoint::Exchange).after_processing(),
            Fault::cut_body(Endpoint::Exchange),
        ] {
            let (_, error) = lost(fault).await;
            assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Broken));
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_no_answer() {
        for fault in [
            Fault::huge_body(Endpoint::Exchange, 50_000_000),
            Fault::gzip_bomb(Endpoint::Exchange, 2_000_000),
            Fault::endless_body(Endpoint::Exchange),
        ] {
            let (_, error) = lost(fault).await;
            let too_large = TransportProblem::BodyTooLarge(Document::ExchangeResponse);
            assert_eq!(*cause(&error).kind(), ErrorKind::Transport(too_large));
        }
    }

    #[tokio::test]
    async fn an_exchange_that_is_dropped_in_the_middle_is_never_repeated() {
        let world = world().await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::delay(Endpoint::Exchange, Duration::from_secs(10)));
        tokio::select! {
            biased;
            _ = world.client.exchange(&mut grant) => panic!("the answer takes longer"),
            () = world.clock.sleep(Duration::from_secs(1)) => {}
        }
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
        assert_eq!(world.exchanges().len(), 1);
    }

    #[tokio::test]
    async fn refused_connections_are_tried_again_and_the_code_arrives_once() {
        let mut world = world().await;
        let network = RefusingNetwork::new(world.op.http_client(), 2);
        world.client = client_of(&world.op, &world.clock).http_client(network.clone()).discover().await.unwrap();
        let _ = world.pending().await;
        assert_eq!(network.connections.load(Ordering::Relaxed), 3);
        assert_eq!(world.exchanges().len(), 1);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_grant_stays_usable_where_no_connection_comes_about() {
        let mut world = world().await;
        let network = RefusingNetwork::new(world.op.http_client(), 3);
        world.client = client_of(&world.op, &world.clock).http_client(network.clone()).discover().await.unwrap();
        let mut grant = world.grant().await;
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Connect));
        assert!(!grant.is_spent() && error.is_transient());
        world.assert_nothing_sent();
        assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_instance_that_has_not_found_the_op_yet_leaves_the_grant_usable() {
        let mut world = world().await;
        let (query, session) = world.user_returns().await;
        world.client = client_of(&world.op, &world.clock).build().unwrap();
        world.op.misbehave(Fault::status(Endpoint::Metadata, 503));
        let mut grant = world.client.check_authorization_response(&query, session).unwrap();
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert!(error.is_transient() && !grant.is_spent());
        world.assert_nothing_sent();
        world.clock.advance(Duration::from_secs(60));
        assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_refused_code_is_spent() {
        let world = world().await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::error(Endpoint::Exchange, "invalid_grant"));
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        let response = error.error_response().expect("the OP's error");
        assert_eq!((response.code(), response.status()), ("invalid_grant", Some(400)));
        assert!(grant.is_spent());
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
        assert_eq!(world.exchanges().len(), 1);
    }

    #[tokio::test]
    async fn a_code_is_exchanged_once() {
        let world = world().await;
        let mut grant = world.grant().await;
        assert!(world.client.exchange(&mut grant).await.is_ok());
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
        assert_eq!(world.exchanges().len(), 1);
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn an_overloaded_op_tells_when_to_come_back() {
        let world = world().await;
        let fault = Fault::error_with_status(Endpoint::Exchange, 503, "temporarily_unavailable");
        world.op.misbehave(fault.header("Retry-After", "120"));
        let error = world.sign_in().await.unwrap_err();
        assert_eq!(error.error_response().map(|response| response.code()), Some("temporarily_unavailable"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    }
}

mod nonces {
    use super::*;

    fn proofs(world: &World) -> Vec<Value> {
        world.exchanges().iter().map(|request| claims_of(request.header("dpop").expect("a proof"))).collect()
    }

    #[tokio::test]
    async fn a_nonce_challenge_costs_one_more_request_with_the_same_code_and_everything_else_new() {
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
    async fn a_second_challenge_is_trouble_and_leaves_the_grant_usable() {
        let world = op_with(|op| op.dpop_nonces(NoncePolicy::Required)).await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::forget_nonces(Endpoint::Exchange).times(2));
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(error.rule(), Some(Rule::SecondNonceChallenge));
        assert!(!grant.is_spent() && error.is_transient());
        assert_eq!(world.exchanges().len(), 2);
        assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
        world.op.assert_clean();
    }

    #[tokio::test]
    async fn a_wrong_clock_costs_one_more_request() {
        let world = op_with(|op| op.clock_offset(3_600)).await;
        let mut grant = world.grant().await;
        assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
        assert_eq!(world.exchanges().len(), 2);
    }
}

async fn code_flow(world: &World) -> Result<SignIn, Error> {
    let request = world.client.authorize().response_type(openid_deferred::ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await?;
    world.client.authorization_response(&world.op.visit(url).query(), session).await
}

/// Token responses, as an ordinary code brings them.
mod tokens {
    use super::*;

    async fn answered_with(
        edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static,
    ) -> (World, Result<SignIn, Error>) {
        let world = op_with(|op| op.answer_with_code()).await;
        world.op.misbehave(Fault::edit_json(Endpoint::Code, edit));
        let result = code_flow(&world).await;
        (world, result)
    }

    async fn refused(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Rule {
        let (world, result) = answered_with(edit).await;
        let error = result.unwrap_err();
        assert!(!world.op.requests_to(Endpoint::Revocation).is_empty(), "what came with it is given back");
        error.rule().unwrap_or_else(|| panic!("{error:?}"))
    }

    #[tokio::test]
    async fn the_case_of_token_type_does_not_matter() {
        for name in ["dpop", "DPOP", "DpOp"] {
            let (_, result) = answered_with(move |members| set(members, "token_type", json!(name))).await;
            let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
            assert!(authentication.is_sender_constrained(), "{name}");
        }
        let (_, result) = answered_with(|members| set(members, "token_type", json!("BEARER"))).await;
        let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
        assert!(!authentication.is_sender_constrained() && authentication.access_token().is_some());
    }

    #[tokio::test]
    async fn unbound_tokens_can_be_dropped_and_the_identity_kept() {
        let world = world_with(|op| op.answer_with_code(), |client| client.drop_unbound_tokens()).await;
        world.op.misbehave(Fault::edit_json(Endpoint::Code, |members| set(members, "token_type", json!("Bearer"))));
        let Ok(SignIn::Complete(authentication)) = code_flow(&world).await else { panic!("not complete") };
        assert_eq!(authentication.claims().subject(), "user-1");
        assert!(authentication.access_token().is_none() && authentication.refresh_token().is_none());
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), 2);
    }

    #[tokio::test]
    async fn expires_in_scope_and_refresh_token_may_be_absent_or_empty() {
        let (_, result) = answered_with(|members| {
            set(members, "scope", json!(""));
            set(members, "expires_in", json!("never"));
            members.remove("refresh_token");
        })
        .await;
        let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
        assert_eq!((authentication.scope(), authentication.access_token_expires_at()), (None, None));
        assert!(authentication.refresh_token().is_none());

        let (_, result) = answered_with(|members| {
            members.remove("scope");
            members.remove("expires_in");
        })
        .await;
        let Ok(SignIn::Complete(authentication)) = result else { panic!("{result:?}") };
        assert_eq!((authentication.scope(), authentication.access_token_expires_at()), (None, None));
    }

    #[tokio::test]
    async fn an_answer_without_id_token_is_refused() {
        assert_eq!(refused(|members| drop(members.remove("id_token"))).await, Rule::NoIdToken);
        assert_eq!(refused(|members| set(members, "id_token", json!(""))).await, Rule::NoIdToken);
        assert_eq!(refused(|members| set(members, "id_token", json!({ "sub": "user-1" }))).await, Rule::NoIdToken);
    }

    #[tokio::test]
    async fn an_answer_without_access_token_is_refused() {
        assert_eq!(refused(|members| drop(members.remove("access_token"))).await, Rule::NoAccessToken);
    }

    #[tokio::test]
    async fn an_unknown_token_type_is_refused() {
        assert_eq!(refused(|members| set(members, "token_type", json!("N_A"))).await, Rule::UnknownTokenType);
        assert_eq!(refused(|members| drop(members.remove("token_type"))).await, Rule::UnknownTokenType);
    }

    #[tokio::test]
    async fn an_ordinary_code_that_may_be_spent_is_never_repeated() {
        let world = op_with(|op| op.answer_with_code()).await;
        world.op.misbehave(Fault::reset(Endpoint::Code).after_processing());
        let error = code_flow(&world).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(world.op.requests_to(Endpoint::Code).len(), 1);
    }
}
