//! A client and the provider that belongs to it.

use openid_deferred::{
    Authentication, AuthorizationRequest, Client, ClientAuthentication, ClientBuilder, Error, ResponseType, SignIn,
};
use serde_json::{Value, json};
use url::Url;

use crate::browser::Browser;
use crate::provider::Provider;

pub(crate) const CLIENT_ID: &str = "the-app";
pub(crate) const CLIENT_SECRET: &str = "the app's secret: 100% +/?& and long enough for an HMAC";
pub(crate) const REDIRECT_URI: &str = "https://rp.test/callback";

/// A provider and a client that is registered there.
pub(crate) struct World {
    pub(crate) op: Provider,
    pub(crate) client: Client,
}

/// What is registered unless a test says otherwise: `client_secret_basic`, and ID Tokens by ES256.
pub(crate) fn registration() -> Value {
    json!({
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "token_endpoint_auth_method": "client_secret_basic",
        "redirect_uris": [REDIRECT_URI],
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "id_token_signed_response_alg": "ES256",
    })
}

/// The members of one JSON object, over those of another.
pub(crate) fn with(mut value: Value, members: Value) -> Value {
    let (Value::Object(all), Value::Object(members)) = (&mut value, members) else { panic!("both are objects") };
    all.extend(members);
    value
}

/// A provider with one client, and the client; `None` where the provider cannot run here.
pub(crate) async fn world(
    settings: Value,
    registered: Value,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Option<World> {
    let op = Provider::start(with(json!({ "clients": [registered] }), settings))?;
    let client = client(client_of(&op)).discover().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    Some(World { op, client })
}

/// The client of a provider, before it is built.
pub(crate) fn client_of(op: &Provider) -> ClientBuilder {
    unauthenticated_client_of(op).authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
}

/// The same without a word about how it authenticates.
pub(crate) fn unauthenticated_client_of(op: &Provider) -> ClientBuilder {
    let authority = op.authority.certificate_pem();
    let authority = reqwest::Certificate::from_pem(authority.as_bytes()).expect("the authority is a certificate");
    Client::builder(&op.issuer, CLIENT_ID)
        .redirect_uri(REDIRECT_URI)
        .response_type(ResponseType::Code)
        .configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]))
}

impl World {
    /// Signs the user in.
    pub(crate) async fn sign_in(&self) -> Authentication {
        self.try_to_sign_in(None).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Signs a user in who behaves as the hint says.
    pub(crate) async fn try_to_sign_in(&self, login_hint: Option<&str>) -> Result<Authentication, Error> {
        let request = self.client.authorize().scopes(["profile", "email"]);
        self.sign_in_by(if let Some(hint) = login_hint { request.login_hint(hint) } else { request }).await
    }

    pub(crate) async fn sign_in_by(&self, request: AuthorizationRequest<'_>) -> Result<Authentication, Error> {
        let (url, session) = request.start().await?;
        let back = self.visit(url).await;
        match self.client.authorization_response(&back, session).await? {
            SignIn::Complete(authentication) => Ok(authentication),
            other => panic!("not signed in: {other:?}"),
        }
    }

    pub(crate) async fn visit(&self, url: Url) -> String {
        Browser::new(&self.op.authority.certificate_pem()).visit(url, REDIRECT_URI).await
    }
}

/// An error with all that lies below it.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(source) = below {
        text += &format!(": {source}");
        below = source.source();
    }
    text
}
