//! The clients that are registered at the provider, and the user who signs in.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use url::Url;

use super::keys;

/// A client as the provider has registered it.
///
/// ```
/// use openid_deferred::testing::TestClient;
///
/// let public = TestClient::public("my-app").redirect_uri("https://rp.test/callback");
/// let confidential = TestClient::secret_basic("my-server", "s3cret: with % and +").signing_algorithm("ES256");
/// ```
#[derive(Debug, Clone)]
pub struct TestClient {
    pub(super) id: String,
    pub(super) authentication: RegisteredAuthentication,
    pub(super) redirect_uris: Vec<String>,
    pub(super) notification_endpoint: Option<Url>,
    pub(super) id_token_algorithm: Algorithm,
    pub(super) signed_userinfo: bool,
    pub(super) requires_dpop: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum RegisteredAuthentication {
    None,
    SecretBasic(String),
    SecretPost(String),
    PrivateKeyJwt(Value),
}

impl TestClient {
    /// A public client: it does not authenticate.
    pub fn public(id: &str) -> Self {
        Self::new(id, RegisteredAuthentication::None)
    }

    /// A client with `client_secret_basic`.
    pub fn secret_basic(id: &str, secret: &str) -> Self {
        Self::new(id, RegisteredAuthentication::SecretBasic(secret.to_owned()))
    }

    /// A client with `client_secret_post`.
    pub fn secret_post(id: &str, secret: &str) -> Self {
        Self::new(id, RegisteredAuthentication::SecretPost(secret.to_owned()))
    }

    /// A client with `private_key_jwt` and this public key, a JWK in JSON.
    ///
    /// # Panics
    ///
    /// If `public_jwk` is not JSON.
    pub fn private_key_jwt(id: &str, public_jwk: &str) -> Self {
        let jwk = serde_json::from_str(public_jwk).expect("the public key is a JWK");
        Self::new(id, RegisteredAuthentication::PrivateKeyJwt(jwk))
    }

    fn new(id: &str, authentication: RegisteredAuthentication) -> Self {
        Self {
            id: id.to_owned(),
            authentication,
            redirect_uris: Vec::new(),
            notification_endpoint: None,
            id_token_algorithm: Algorithm::RS256,
            signed_userinfo: false,
            requires_dpop: false,
        }
    }

    /// Registers a redirect URI. Without any, every redirect URI is accepted.
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self
    }

    /// The Deferred Client Notification Endpoint, to which Ping Callbacks go. Plain HTTP is fine here.
    ///
    /// # Panics
    ///
    /// If `url` is not a URL.
    pub fn notification_endpoint(mut self, url: &str) -> Self {
        self.notification_endpoint = Some(url.parse().expect("the notification endpoint is a URL"));
        self
    }

    /// The algorithm of this client's ID Tokens (`id_token_signed_response_alg`): `RS256` (the default), `RS384`,
    /// `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384` or `EdDSA`.
    ///
    /// # Panics
    ///
    /// For any other name.
    pub fn signing_algorithm(mut self, name: &str) -> Self {
        let algorithm: Algorithm = name.parse().expect("the algorithm is one that the test provider has");
        assert!(!keys::name(algorithm).starts_with("HS"), "the test provider signs with private keys only");
        self.id_token_algorithm = algorithm;
        self
    }

    /// Signs this client's UserInfo responses (`userinfo_signed_response_alg`), with the algorithm of its ID Tokens.
    pub fn signed_userinfo(mut self) -> Self {
        self.signed_userinfo = true;
        self
    }

    /// Refuses this client's token requests without a DPoP proof (`dpop_bound_access_tokens`).
    pub fn require_dpop(mut self) -> Self {
        self.requires_dpop = true;
        self
    }

    pub(super) fn accepts_redirect_uri(&self, uri: &str) -> bool {
        match self.redirect_uris.is_empty() {
            true => Url::parse(uri).is_ok_and(|url| url.fragment().is_none()),
            false => self.redirect_uris.iter().any(|registered| registered == uri),
        }
    }
}

/// The user who signs in, and the claims about them.
///
/// ```
/// use openid_deferred::testing::TestUser;
///
/// let user = TestUser::new("24400320").claim("name", "Jane Doe").claim("email_verified", true);
/// ```
#[derive(Debug, Clone)]
pub struct TestUser {
    pub(super) sub: String,
    pub(super) claims: Map<String, Value>,
    pub(super) interim_claims: Map<String, Value>,
}

impl TestUser {
    /// A user with this subject identifier and no further claims.
    pub fn new(sub: &str) -> Self {
        Self { sub: sub.to_owned(), claims: Map::new(), interim_claims: Map::new() }
    }

    /// Adds a claim, to ID Tokens and UserInfo alike.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a claim to this user's interim ID Tokens, where it goes before one of
    /// [`TestProviderBuilder::interim_claim`](super::TestProviderBuilder::interim_claim).
    pub fn interim_claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.interim_claims.insert(name.to_owned(), value.into());
        self
    }
}

impl Default for TestUser {
    /// Jane Doe, `248289761001`.
    fn default() -> Self {
        Self::new("248289761001").claim("name", "Jane Doe").claim("email", "jane@example.com")
    }
}
