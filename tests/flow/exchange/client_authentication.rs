//! The authentication of the client: each method, and the clients that are refused.

use super::*;

async fn registered(client: TestClient, authentication: ClientAuthentication) -> World {
    let client = client.redirect_uri(REDIRECT_URI);
    world_with(|op| op.client(client), |builder| builder.authentication(authentication)).await
}

fn jwk(key: &SigningKey) -> String {
    serde_json::to_string(&key.public_jwk()).unwrap()
}

#[tokio::test]
async fn a_public_client_sends_its_client_id() {
    let world = registered(TestClient::public(CLIENT_ID), ClientAuthentication::none()).await;
    let _ = world.pending().await;
    let request = &world.exchanges()[0];
    assert_eq!((request.parameter("client_id"), request.header("authorization")), (Some(CLIENT_ID), None));
    world.op.assert_clean();
}

#[tokio::test]
async fn the_identifier_and_secret_of_client_secret_basic_are_form_encoded() {
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
async fn client_secret_post_sends_the_secret_only_in_the_body() {
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

/// A key in another system.
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
async fn private_key_jwt_works_with_an_external_signer() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let client = TestClient::private_key_jwt(CLIENT_ID, &jwk(&key));
    let world = registered(client, ClientAuthentication::private_key_jwt(Remote(Some(key)))).await;
    let _ = world.pending().await;
    world.op.assert_clean();
}

#[tokio::test]
async fn a_signer_that_fails_leaves_the_grant_usable_and_sends_nothing() {
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
    let world = world_with(|op| op.client(registered), |builder| client(builder.authentication(authentication))).await;
    let _ = world.sign_in().await;
    let request = &world.exchanges()[0];
    let claims = claims_of(request.parameter("client_assertion").expect("an assertion was sent"));
    (world, claims["aud"].clone())
}

#[tokio::test]
async fn the_issuer_is_the_only_audience_of_a_client_assertion() {
    let (world, audience) = assertion_audience(|client| client).await;
    assert_eq!(audience, json!(world.op.issuer()));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_client_assertion_can_be_for_the_token_endpoint() {
    let (world, audience) =
        assertion_audience(|client| client.assertion_audience(AssertionAudience::TokenEndpoint)).await;
    assert_eq!(audience, json!(format!("{}/token", world.op.issuer())));
    // This OP is one of those that require the issuer.
    assert_eq!(world.op.violations()[0].rule, RequestRule::AssertionInvalid);
}

#[tokio::test]
async fn a_client_assertion_can_be_for_the_endpoint_that_it_is_sent_to() {
    let (world, audience) = assertion_audience(|client| client.assertion_audience(AssertionAudience::Endpoint)).await;
    assert_eq!(audience, json!(format!("{}/token", world.op.issuer())));
    let _ = world.client.introspect(&openid_deferred::Secret::new("a token"), None).await;
    let metadata = world.client.provider_metadata().await.unwrap();
    let asked = world.op.requests().into_iter().rfind(|request| request.endpoint == Endpoint::Introspection).unwrap();
    let audience = &claims_of(asked.parameter("client_assertion").unwrap())["aud"];
    assert_eq!(*audience, json!(metadata.introspection_endpoint().unwrap().as_str()));
}

#[tokio::test]
async fn a_client_assertion_for_the_token_endpoint_is_used_at_every_endpoint() {
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let registered = TestClient::private_key_jwt(CLIENT_ID, &jwk(&key)).redirect_uri(REDIRECT_URI);
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = crate::support::provider(&clock).client(registered).assertions_for_token_endpoint();
    let op = op.require_pushed_authorization_requests().start().unwrap();
    let client = client_of(&op, &clock)
        .authentication(ClientAuthentication::private_key_jwt(key))
        .assertion_audience(AssertionAudience::TokenEndpoint)
        .cancellation_endpoint(op.cancellation_endpoint());
    let client = client.discover().await.unwrap();
    let world = World { op, clock, client };
    let mut authentication = world.approved().await;
    world.client.refresh(&mut authentication).await.unwrap();
    world.client.introspect(authentication.access_token().unwrap(), None).await.unwrap();
    world.client.revoke(&authentication).await.unwrap();
    world.client.cancel(&mut world.pending().await).await.unwrap();
    let audience = json!(format!("{}/token", world.op.issuer()));
    let mut seen = std::collections::BTreeSet::new();
    for request in world.op.requests() {
        if let Some(assertion) = request.parameter("client_assertion") {
            assert_eq!(claims_of(assertion)["aud"], audience, "{:?}", request.endpoint);
            seen.insert(request.endpoint);
        }
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
    world.op.assert_clean();
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
