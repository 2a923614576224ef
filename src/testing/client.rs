//! The clients that are registered at the provider, and the user who signs in.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use url::Url;

use super::encryption::Encryption;
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
    pub(super) jwks: Value,
    pub(super) id_token_encryption: Option<Encryption>,
    pub(super) userinfo_encryption: Option<Encryption>,
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
            jwks: Value::Null,
            id_token_encryption: None,
            userinfo_encryption: None,
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
    /// `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384` or `EdDSA`; or `HS256`, `HS384` or `HS512` with the client
    /// secret.
    ///
    /// # Panics
    ///
    /// For any other name, and for an HMAC without a client secret.
    pub fn signing_algorithm(mut self, name: &str) -> Self {
        let algorithm: Algorithm = name.parse().expect("the algorithm is one that the test provider has");
        self.id_token_algorithm = algorithm;
        let has_key = !keys::name(algorithm).starts_with("HS") || self.hmac_secret().is_some();
        assert!(has_key, "an HMAC needs a client secret");
        self
    }

    /// Signs this client's UserInfo responses (`userinfo_signed_response_alg`), with the algorithm of its ID Tokens.
    pub fn signed_userinfo(mut self) -> Self {
        self.signed_userinfo = true;
        self
    }

    /// The client's public keys (`jwks`), such as [`Client::jwks`](crate::Client::jwks) gives them. Of those, the first that
    /// fits is encrypted for. A client whose keys rotate is [registered](super::TestProvider::register) again.
    pub fn jwks(mut self, jwks: &Value) -> Self {
        self.jwks = jwks.clone();
        self
    }

    /// Encrypts this client's ID Tokens, interim and final, for a key of its [`jwks`](Self::jwks)
    /// (`id_token_encrypted_response_alg` and `_enc`).
    ///
    /// ```
    /// use openid_deferred::testing::TestClient;
    /// use openid_deferred::{DecryptionKey, KeyManagementAlgorithm};
    ///
    /// let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEsA256Kw)?;
    /// let registered = TestClient::secret_basic("my-app", "s3cret")
    ///     .jwks(&serde_json::json!({ "keys": [key.public_jwk()] }))
    ///     .encrypted_id_token("ECDH-ES+A256KW", "A256GCM");
    /// # Ok::<(), openid_deferred::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// For algorithms that the provider does not have: it has RSA-OAEP(-256) and ECDH-ES with or without a key wrap, and
    /// AES in GCM and CBC-HS. It also panics when it issues a token and the client has no key for it.
    pub fn encrypted_id_token(mut self, alg: &str, enc: &str) -> Self {
        self.id_token_encryption = Some(Encryption::new(alg, enc));
        self
    }

    /// Encrypts this client's UserInfo responses, signed or not, likewise (`userinfo_encrypted_response_alg` and `_enc`).
    ///
    /// # Panics
    ///
    /// As [`encrypted_id_token`](Self::encrypted_id_token) does.
    pub fn encrypted_userinfo(mut self, alg: &str, enc: &str) -> Self {
        self.userinfo_encryption = Some(Encryption::new(alg, enc));
        self
    }

    /// Refuses this client's token requests without a DPoP proof (`dpop_bound_access_tokens`).
    pub fn require_dpop(mut self) -> Self {
        self.requires_dpop = true;
        self
    }

    /// The client secret, where ID Tokens are authenticated with it.
    pub(super) fn hmac_secret(&self) -> Option<&str> {
        match &self.authentication {
            RegisteredAuthentication::SecretBasic(secret) | RegisteredAuthentication::SecretPost(secret) => {
                keys::name(self.id_token_algorithm).starts_with("HS").then_some(secret)
            }
            _ => None,
        }
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
}

impl TestUser {
    /// A user with this subject identifier and no further claims.
    pub fn new(sub: &str) -> Self {
        Self { sub: sub.to_owned(), claims: Map::new() }
    }

    /// Adds a claim, to ID Tokens and UserInfo alike.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }
}

impl Default for TestUser {
    /// Jane Doe, `248289761001`.
    fn default() -> Self {
        Self::new("248289761001").claim("name", "Jane Doe").claim("email", "jane@example.com")
    }
}
