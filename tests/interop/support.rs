//! A client and the OP at which it is registered.

use openid_deferred::{
    Authentication, AuthorizationRequest, Client, ClientAuthentication, ClientBuilder, Error, ResponseType, SignIn,
};
use serde_json::{Value, json};
use url::Url;

use crate::browser::{Browser, Decision, certificate};
use crate::node::Provider;
use crate::op::{Op, Registered, Site};
use crate::process::Process;

pub(crate) const CLIENT_ID: &str = "the-app";
pub(crate) const CLIENT_SECRET: &str = "the app's secret: 100% +/?& and long enough for an HMAC";
pub(crate) const REDIRECT_URI: &str = "https://rp.test/callback";

/// An OP and a client that is registered at it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) client_id: String,
    pub(crate) site: Site,
    /// The OP's program, if it runs only for this client.
    pub(crate) process: Option<Process>,
}

/// The registration unless a test changes it: `client_secret_basic`, and ID Tokens signed with ES256.
pub(crate) fn members() -> Value {
    json!({
        "token_endpoint_auth_method": "client_secret_basic",
        "redirect_uris": [REDIRECT_URI],
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "id_token_signed_response_alg": "ES256",
    })
}

/// The same for an OP that is started with its clients.
pub(crate) fn registration() -> Value {
    with(json!({ "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET }), members())
}

/// A client's key as it is registered: some OPs require that a key states its use.
pub(crate) fn key_set(key: serde_json::Map<String, Value>) -> Value {
    let key = Value::Object(key);
    json!({ "keys": [with(json!({ "use": "sig" }), key)] })
}

/// The members of one JSON object, added to those of another.
pub(crate) fn with(mut value: Value, members: Value) -> Value {
    let (Value::Object(all), Value::Object(members)) = (&mut value, members) else { panic!("both are objects") };
    all.extend(members);
    value
}

/// A client that is registered at an OP with these additional members, or `None` if the OP cannot run here.
pub(crate) async fn world_at<O: Op>(
    op: &O,
    more: Value,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Option<World> {
    world_with_secret(op, more, |builder, _| client(builder)).await
}

/// The same for a client whose settings need its secret.
pub(crate) async fn world_with_secret<O: Op>(
    op: &O,
    more: Value,
    client: impl FnOnce(ClientBuilder, &str) -> ClientBuilder,
) -> Option<World> {
    let Registered { site, client_id, client_secret, process } = op.register(with(members(), more)).await?;
    let builder = O::configure(builder(&site, &client_id));
    let builder = builder.authentication(ClientAuthentication::client_secret_basic(client_secret.as_str()));
    let client = discovered(client(builder, &client_secret)).await;
    Some(World { client, client_id, site, process })
}

/// The same with the Node.js provider, which is started with these settings.
pub(crate) async fn world(
    settings: Value,
    registered: Value,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Option<World> {
    let op = Provider::start(with(json!({ "clients": [registered] }), settings))?;
    let client = client(client_of(&op.site));
    Some(World::new(op, client).await)
}

/// The client of the Node.js provider, before it is built.
pub(crate) fn client_of(site: &Site) -> ClientBuilder {
    builder(site, CLIENT_ID).authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
}

/// A client without an authentication method.
pub(crate) fn builder(site: &Site, client_id: &str) -> ClientBuilder {
    let authority = certificate(&site.authority.certificate_pem());
    Client::builder(&site.issuer, client_id)
        .redirect_uri(REDIRECT_URI)
        .response_type(ResponseType::Code)
        .configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]))
}

async fn discovered(client: ClientBuilder) -> Client {
    client.discover().await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

impl World {
    pub(crate) async fn new(op: Provider, client: ClientBuilder) -> Self {
        let client = discovered(client).await;
        Self { client, client_id: CLIENT_ID.to_owned(), site: op.site, process: Some(op.process) }
    }

    /// A client at an OP that runs independently.
    pub(crate) async fn of(site: &Site, client: ClientBuilder) -> Self {
        Self { client: discovered(client).await, client_id: String::new(), site: site.clone(), process: None }
    }

    /// Signs the user in.
    pub(crate) async fn sign_in(&self) -> Authentication {
        let signed_in = self.sign_in_by(self.request()).await;
        signed_in.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Sends a user to the OP who declines.
    pub(crate) async fn decline(&self) -> Error {
        self.decline_by(self.request()).await
    }

    pub(crate) async fn decline_by(&self, request: AuthorizationRequest<'_>) -> Error {
        // Asks a user again who has consented before.
        let request = request.login_hint("declines").prompt(["consent"]);
        match self.complete(request, Decision::Declines).await {
            Err(error) => error,
            Ok(_) => panic!("the user has declined and is signed in"),
        }
    }

    pub(crate) async fn sign_in_by(&self, request: AuthorizationRequest<'_>) -> Result<Authentication, Error> {
        self.complete(request, Decision::SignsIn).await
    }

    fn request(&self) -> AuthorizationRequest<'_> {
        self.client.authorize().scopes(self.site.scopes.iter().copied())
    }

    async fn complete(&self, request: AuthorizationRequest<'_>, decision: Decision) -> Result<Authentication, Error> {
        let (url, session) = request.start().await?;
        let back = self.visit_and(url, decision).await;
        match self.client.authorization_response(&back, session).await? {
            SignIn::Complete(authentication) => Ok(authentication),
            other => panic!("not signed in: {other:?}"),
        }
    }

    pub(crate) async fn visit(&self, url: Url) -> String {
        self.visit_and(url, Decision::SignsIn).await
    }

    async fn visit_and(&self, url: Url, decision: Decision) -> String {
        let mut browser = Browser::new(&self.site.authority.certificate_pem(), self.site.cookie.as_deref());
        browser.visit(url, REDIRECT_URI, self.site.answer, decision).await
    }
}

/// An error with all its sources.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(source) = below {
        text += &format!(": {source}");
        below = source.source();
    }
    text
}
