//! The client, used as an application uses it, up to the point at which a file is served.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::testing::{SeededRandom, TestClock};
use openid_deferred::{
    Authentication, AuthorizationGrant, AuthorizationSession, Client, ClientBuilder, Clock as _, DpopMode, Error,
    Outcome, PendingAuthentication, Poll, ResponseType, SignIn, SigningAlgorithm, SigningKey,
};
use serde_json::{Map, Value, json};
use url::Url;

use crate::answer::{Answer, Values};
use crate::op::Op;
use crate::signing;
use crate::table::{Kind, Row, Sign};
use crate::verdict;

pub const ISSUER: &str = "https://op.example";
pub const CLIENT_ID: &str = "the-app";
/// As long as HMAC with SHA-256 requires.
pub const CLIENT_SECRET: &str = "the secret of the app, which has more than 32 bytes";
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The times in the files are around this one, at which every test clock starts.
pub const START: u64 = 1_767_225_600;

/// A client with its OP, and the values of the placeholders.
pub struct World {
    pub op: Arc<Op>,
    pub clock: TestClock,
    pub client: Client,
    pub values: Values,
    pub sign: Sign,
    id_token: Map<String, Value>,
}

/// The discovery document of an OP without oddities.
pub fn usual_metadata(row: &Row) -> Value {
    let mut metadata = json!({
        "issuer": ISSUER,
        "authorization_endpoint": format!("{ISSUER}/authorize"),
        "token_endpoint": format!("{ISSUER}/token"),
        "userinfo_endpoint": format!("{ISSUER}/userinfo"),
        "revocation_endpoint": format!("{ISSUER}/revoke"),
        "pushed_authorization_request_endpoint": format!("{ISSUER}/par"),
        "jwks_uri": format!("{ISSUER}/jwks"),
        "response_types_supported": ["deferred_code"],
        "grant_types_supported": ["urn:openid:params:grant-type:deferred", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "dpop_signing_alg_values_supported": ["ES256"],
    });
    for (name, value) in &row.metadata {
        metadata[name] = value.clone();
    }
    metadata
}

/// The tokens of an OP without oddities.
pub fn usual_tokens(values: &Values) -> Value {
    json!({
        "access_token": "the-access-token",
        "token_type": "DPoP",
        "expires_in": 3600,
        "refresh_token": "the-refresh-token",
        "id_token": values.id_token,
    })
}

/// The exchange response of an OP without oddities.
pub fn usual_exchange(lifetime: u64) -> Value {
    json!({ "deferred_auth_id": "the-id", "expires_in": lifetime, "interval": 5 })
}

impl World {
    /// A client of an OP whose deferred flow has no oddities yet.
    pub async fn of(row: &Row) -> Self {
        Self::set_up(row, |client| client).await
    }

    /// The same with more settings.
    pub async fn set_up(row: &Row, settings: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let op = Arc::new(Op::default());
        op.script().documents.push((DISCOVERY.to_owned(), Answer::json(&usual_metadata(row))));
        op.script().keys = Some(Answer::json(&signing::usual_keys()));
        let ec = Sign { key: "ec".to_owned(), alg: "ES256".to_owned(), header: json!({"alg": "ES256", "kid": "ec-1"}) };
        Self::with(row, op, ISSUER, ec, settings).await.unwrap_or_else(|error| panic!("{}: {error:?}", row.file))
    }

    /// A client of this OP.
    pub async fn with(
        row: &Row,
        op: Arc<Op>,
        issuer: &str,
        usual_sign: Sign,
        settings: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, Error> {
        let clock = TestClock::automatic();
        assert_eq!(verdict::seconds(clock.now()), START, "the times in the files are around the start of the clock");
        let builder = Client::builder(issuer, CLIENT_ID)
            .redirect_uri("https://rp.example/callback")
            .http_client(op.clone())
            .clock(Arc::new(clock.clone()))
            .random(Arc::new(SeededRandom::new(1)));
        let client = settings(with_settings(row, builder)).discover().await?;
        let id_token = json!({
            "iss": issuer,
            "sub": "user-1",
            "aud": CLIENT_ID,
            "iat": START + 4,
            "exp": START + 3604,
            "auth_time": START,
        });
        let Value::Object(id_token) = id_token else { unreachable!("it is an object") };
        // In a row about UserInfo, `sign` applies to UserInfo and not to the ID Token.
        let sign = row.sign.clone().filter(|_| row.kind() != Kind::UserInfo).unwrap_or(usual_sign);
        Ok(Self { op, clock, client, values: Values::default(), sign, id_token })
    }

    /// Sends the user to the OP, and makes the tokens for this request.
    pub async fn user_leaves(&mut self, row: &Row) -> AuthorizationSession {
        let mut request = self.client.authorize();
        if let Some(seconds) = row.settings.max_age {
            request = request.max_age(Duration::from_secs(seconds));
        }
        if let Some(acr) = &row.settings.essential_acr {
            request = request.claims(json!({"id_token": {"acr": {"essential": true, "values": [acr]}}}));
        }
        let (url, session) = request.start().await.expect("the request can be made");
        self.check_endpoint(&url).await;
        self.values.state = parameter(&url, "state");
        self.values.nonce = parameter(&url, "nonce");
        self.values.id_token = self.id_token(&Map::new(), &[], true);
        session
    }

    /// Sends the user to the OP and back with a code.
    pub async fn grant(&mut self, row: &Row, code: &str) -> AuthorizationGrant {
        let mut session = self.user_leaves(row).await;
        let mut query = format!("{code}=the-code&state={}", self.values.state);
        if self.metadata().await.authorization_response_iss_parameter_supported() {
            query += &format!("&iss={}", self.client.issuer());
        }
        self.client.check_authorization_response(&query, &mut session).await.expect("the response is genuine")
    }

    /// An ID Token of the OP: the usual claims with additions and without some.
    pub fn id_token(&self, other: &Map<String, Value>, without: &[String], with_nonce: bool) -> String {
        let mut claims = self.id_token.clone();
        if with_nonce {
            claims.insert("nonce".into(), json!("@nonce@"));
        }
        claims.extend(other.clone());
        claims.retain(|name, _| !without.contains(name));
        self.jwt(&Value::Object(claims).to_string())
    }

    /// A JWT of the OP with this payload, in which `@nonce@` is replaced.
    pub fn jwt(&self, payload: &str) -> String {
        signing::jwt(&self.sign, &self.values.fill(payload))
    }

    /// The user has come back, and the OP defers.
    pub async fn pending(&mut self, row: &Row, lifetime: u64) -> PendingAuthentication {
        let mut grant = self.grant(row, "deferred_code").await;
        self.op.script().exchange.push_back(Answer::json(&usual_exchange(lifetime)));
        match self.client.exchange(&mut grant).await {
            Ok(SignIn::Deferred(pending)) => pending,
            other => panic!("expected a deferral, got {other:?}"),
        }
    }

    /// Polls once, as soon as a poll is due.
    pub async fn poll(&self, pending: &mut PendingAuthentication) -> Result<Poll, Error> {
        loop {
            match self.client.poll(pending).await {
                Ok(Poll::NotDue { due_in }) => self.clock.sleep(due_in).await,
                polled => return polled,
            }
        }
    }

    /// Waits for the outcome. Problems that the application would have to correct are corrected at once.
    pub async fn outcome(&self, pending: &mut PendingAuthentication) -> Outcome {
        for _ in 0..100 {
            if let Ok(outcome) = self.client.wait(pending).await {
                return outcome;
            }
        }
        panic!("waiting never ends with an outcome");
    }

    /// A sign-in without oddities.
    pub async fn authentication(&mut self, row: &Row) -> Authentication {
        let mut pending = self.pending(row, 864_000).await;
        self.op.script().poll.push_back(Answer::json(&usual_tokens(&self.values)));
        match self.outcome(&mut pending).await {
            Outcome::Approved(authentication) => authentication,
            other => panic!("not approved: {other:?}"),
        }
    }

    async fn metadata(&self) -> openid_deferred::ProviderMetadata {
        self.client.provider_metadata().await.expect("the metadata are known")
    }

    /// Asserts that the browser is sent to the endpoint of the document, with the query in its URL.
    async fn check_endpoint(&self, url: &Url) {
        let metadata = self.metadata().await;
        let endpoint = metadata.authorization_endpoint().unwrap().as_str();
        assert!(url.as_str().starts_with(endpoint), "{url} does not begin with {endpoint}");
    }
}

fn with_settings(row: &Row, mut builder: ClientBuilder) -> ClientBuilder {
    let settings = &row.settings;
    builder = match settings.credential.as_deref() {
        None => builder.client_secret(CLIENT_SECRET),
        Some("key") => builder.signing_key(SigningKey::generate(SigningAlgorithm::Es256).expect("a key is generated")),
        Some(other) => panic!("{}: no credential is called {other}", row.file),
    };
    if settings.allow_unadvertised {
        builder = builder.allow_unadvertised();
    }
    if settings.dpop == Some(false) {
        builder = builder.dpop(DpopMode::Off);
    }
    if let Some(name) = &settings.id_token_signed_response_alg {
        assert_eq!(name, "HS256", "{}: the only one that has to be named", row.file);
        builder = builder.algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Hs256));
    }
    if !settings.trusted_audiences.is_empty() {
        builder = builder.trusted_audiences(&settings.trusted_audiences);
    }
    builder
}

/// The settings of a client at an OP without the deferred flow.
pub fn with_code(builder: ClientBuilder) -> ClientBuilder {
    builder.response_type(ResponseType::Code)
}

/// One parameter of a URL.
pub fn parameter(url: &Url, name: &str) -> String {
    let value = url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    value.unwrap_or_else(|| panic!("the request has no `{name}`"))
}
