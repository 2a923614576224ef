//! The clients that are registered at the provider, and the user who signs in.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use tokio_rustls::rustls::pki_types::CertificateDer;
use url::Url;

use super::certificate::TestCertificate;
use super::encryption::Encryption;
use super::keys;

/// A client in the form in which the provider has registered it.
///
/// ```
/// use openid_deferred::testing::TestClient;
///
/// let public = TestClient::public("my-app").redirect_uri("https://rp.test/callback");
/// let confidential = TestClient::secret_basic("my-server", "s3cret: with % and +").signing_algorithm("ES256");
/// ```
#[derive(Debug, Clone)]
#[must_use = "a client does nothing until it is given to a provider"]
pub struct TestClient {
    pub(super) id: String,
    pub(super) authentication: RegisteredAuthentication,
    pub(super) redirect_uris: Vec<String>,
    pub(super) notification_endpoint: Option<Url>,
    pub(super) post_logout_redirect_uris: Vec<String>,
    pub(super) backchannel_logout_uri: Option<Url>,
    pub(super) id_token_algorithm: Algorithm,
    pub(super) signed_userinfo: bool,
    pub(super) jwks: Value,
    pub(super) id_token_encryption: Option<Encryption>,
    pub(super) userinfo_encryption: Option<Encryption>,
    pub(super) requires_dpop: bool,
    pub(super) certificate_bound: bool,
    pub(super) requires_pushed: bool,
    pub(super) authorization_response_algorithm: Option<Algorithm>,
    pub(super) authorization_response_encryption: Option<Encryption>,
    pub(super) requires_signed: bool,
    pub(super) request_object_encryption: Option<Encryption>,
    pub(super) is_pinged: bool,
    pub(super) signs_backchannel_requests: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum RegisteredAuthentication {
    None,
    SecretBasic(String),
    SecretPost(String),
    SecretJwt(String),
    PrivateKeyJwt(Value),
    /// The DNS name in the certificate.
    TlsClientAuth(String),
    SelfSignedTlsClientAuth(Vec<CertificateDer<'static>>),
}

impl RegisteredAuthentication {
    pub(super) fn has_secret(&self) -> bool {
        matches!(self, Self::SecretBasic(_) | Self::SecretPost(_) | Self::SecretJwt(_))
    }
}

impl TestClient {
    /// A public client, which does not authenticate.
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

    /// A client with `client_secret_jwt`. The secret has at least 32 bytes for HS256, 48 for HS384 and 64 for HS512.
    pub fn secret_jwt(id: &str, secret: &str) -> Self {
        Self::new(id, RegisteredAuthentication::SecretJwt(secret.to_owned()))
    }

    /// A client with `tls_client_auth` that is identified by this DNS name in its certificate
    /// (`tls_client_auth_san_dns`, RFC 8705 §2.1.2).
    ///
    /// The provider needs [`mutual_tls`](super::TestProviderBuilder::mutual_tls).
    /// [`TestProvider::client_certificate`](super::TestProvider::client_certificate) issues such certificates.
    pub fn tls_client_auth(id: &str, dns_name: &str) -> Self {
        Self::new(id, RegisteredAuthentication::TlsClientAuth(dns_name.to_owned()))
    }

    /// A client with `self_signed_tls_client_auth` and this certificate (RFC 8705 §2.2). The provider needs
    /// [`mutual_tls`](super::TestProviderBuilder::mutual_tls).
    pub fn self_signed_tls_client_auth(id: &str, certificate: &TestCertificate) -> Self {
        Self::new(id, RegisteredAuthentication::SelfSignedTlsClientAuth(vec![certificate.der.clone()]))
    }

    /// Registers another certificate for `self_signed_tls_client_auth`, as for a renewal.
    ///
    /// # Panics
    ///
    /// If the client is registered with another method.
    pub fn further_certificate(mut self, certificate: &TestCertificate) -> Self {
        let RegisteredAuthentication::SelfSignedTlsClientAuth(certificates) = &mut self.authentication else {
            panic!("the client is not registered with self_signed_tls_client_auth")
        };
        certificates.push(certificate.der.clone());
        self
    }

    /// Binds this client's access tokens to its certificate (`tls_client_certificate_bound_access_tokens`, RFC 8705
    /// §3.4). Every request to the token endpoint then needs one, and none may have a DPoP proof.
    pub fn certificate_bound_access_tokens(mut self) -> Self {
        self.certificate_bound = true;
        self
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
            post_logout_redirect_uris: Vec::new(),
            backchannel_logout_uri: None,
            id_token_algorithm: Algorithm::RS256,
            signed_userinfo: false,
            jwks: Value::Null,
            id_token_encryption: None,
            userinfo_encryption: None,
            requires_dpop: false,
            certificate_bound: false,
            requires_pushed: false,
            authorization_response_algorithm: None,
            authorization_response_encryption: None,
            requires_signed: false,
            request_object_encryption: None,
            is_pinged: false,
            signs_backchannel_requests: false,
        }
    }

    /// Registers a redirect URI. Without any, every redirect URI is accepted.
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self
    }

    /// Sets the Deferred Client Notification Endpoint, to which Ping Callbacks are sent. Plain HTTP is permitted.
    ///
    /// # Panics
    ///
    /// If `url` is not a URL.
    pub fn notification_endpoint(mut self, url: &str) -> Self {
        self.notification_endpoint = Some(url.parse().expect("the notification endpoint is a URL"));
        self
    }

    /// Registers a URI to return to after a logout (OpenID Connect RP-Initiated Logout 1.0 §3.1). Without any, users end on
    /// a page of the provider.
    pub fn post_logout_redirect_uri(mut self, uri: &str) -> Self {
        self.post_logout_redirect_uris.push(uri.to_owned());
        self
    }

    /// Sets the URL to which logout tokens are sent (OpenID Connect Back-Channel Logout 1.0 §2.2). Plain HTTP is required.
    /// The client's ID Tokens then carry a `sid`.
    ///
    /// # Panics
    ///
    /// If `url` is not a URL.
    pub fn backchannel_logout_uri(mut self, url: &str) -> Self {
        self.backchannel_logout_uri = Some(url.parse().expect("the `backchannel_logout_uri` is a URL"));
        self
    }

    /// Sets the algorithm of this client's ID Tokens (`id_token_signed_response_alg`).
    ///
    /// It is `RS256` (the default), `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384` or `EdDSA`. With a
    /// client secret it can be `HS256`, `HS384` or `HS512`.
    ///
    /// # Panics
    ///
    /// Panics for any other name, and for an HMAC without a client secret.
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

    /// Sets the client's public keys (`jwks`), such as those of [`Client::jwks`](crate::Client::jwks). The first
    /// suitable key is used for encryption. After a key rotation, [register](super::TestProvider::register) the client
    /// again.
    pub fn jwks(mut self, jwks: &Value) -> Self {
        self.jwks = jwks.clone();
        self
    }

    /// Encrypts this client's ID Tokens, interim and final, for a key of its [`jwks`](Self::jwks)
    /// (`id_token_encrypted_response_alg` and `_enc`).
    ///
    /// ```
    /// use openid_deferred::encryption::{DecryptionKey, KeyManagementAlgorithm};
    /// use openid_deferred::testing::TestClient;
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
    /// Panics for unsupported algorithms. Supported are RSA-OAEP(-256), ECDH-ES with or without a key wrap, and AES in
    /// GCM and CBC-HS. The provider also panics when it issues a token and the client has no key for it.
    pub fn encrypted_id_token(mut self, alg: &str, enc: &str) -> Self {
        self.id_token_encryption = Some(Encryption::new(alg, enc));
        self
    }

    /// Encrypts this client's UserInfo responses, signed or not (`userinfo_encrypted_response_alg` and `_enc`).
    ///
    /// # Panics
    ///
    /// The panics of [`encrypted_id_token`](Self::encrypted_id_token).
    pub fn encrypted_userinfo(mut self, alg: &str, enc: &str) -> Self {
        self.userinfo_encryption = Some(Encryption::new(alg, enc));
        self
    }

    /// Sets how this client's JWT authorization responses are signed (`authorization_signed_response_alg`): `RS256`,
    /// `ES256`, `ES384`, `EdDSA` or `PS256`. The default is the algorithm of its ID Tokens.
    ///
    /// # Panics
    ///
    /// Panics for any other name.
    pub fn authorization_signed_response_alg(mut self, name: &str) -> Self {
        assert!(!name.starts_with("HS"), "responses are not signed with a secret here");
        let algorithm = name.parse().expect("the algorithm is one that the test provider has");
        self.authorization_response_algorithm = Some(algorithm);
        self
    }

    /// Encrypts this client's JWT authorization responses (`authorization_encrypted_response_alg` and `_enc`).
    ///
    /// # Panics
    ///
    /// The panics of [`encrypted_id_token`](Self::encrypted_id_token).
    pub fn encrypted_authorization_response(mut self, alg: &str, enc: &str) -> Self {
        self.authorization_response_encryption = Some(Encryption::new(alg, enc));
        self
    }

    /// Refuses this client's token requests without a DPoP proof (`dpop_bound_access_tokens`).
    pub fn require_dpop(mut self) -> Self {
        self.requires_dpop = true;
        self
    }

    /// Refuses this client's authorization requests unless they were pushed (`require_pushed_authorization_requests`,
    /// RFC 9126 §6).
    pub fn require_pushed_authorization_requests(mut self) -> Self {
        self.requires_pushed = true;
        self
    }

    /// Refuses this client's authorization requests unless they are signed with a key of its `private_key_jwt` or its
    /// [`jwks`](Self::jwks) (`require_signed_request_object`, RFC 9101 §10.5).
    pub fn require_signed_request_object(mut self) -> Self {
        self.requires_signed = true;
        self
    }

    /// Refuses this client's authorization requests unless they are signed, and then encrypted with these algorithms
    /// for the provider's keys (`request_object_encryption_alg` and `_enc`). The provider then publishes such keys.
    ///
    /// # Panics
    ///
    /// Panics for unsupported algorithms.
    pub fn encrypted_request_object(mut self, alg: &str, enc: &str) -> Self {
        self.request_object_encryption = Some(Encryption::new(alg, enc));
        self
    }

    /// Registers the client for the ping mode of CIBA (`backchannel_token_delivery_mode`), instead of poll mode. Pings go
    /// to its [`notification_endpoint`](Self::notification_endpoint).
    pub fn ping_mode(mut self) -> Self {
        self.is_pinged = true;
        self
    }

    /// Refuses this client's backchannel authentication requests unless they are signed with a key of its
    /// `private_key_jwt` or its [`jwks`](Self::jwks) (`backchannel_authentication_request_signing_alg`, CIBA §4).
    pub fn require_signed_backchannel_requests(mut self) -> Self {
        self.signs_backchannel_requests = true;
        self
    }

    /// Whether it does not authenticate.
    pub(super) fn is_public(&self) -> bool {
        self.authentication == RegisteredAuthentication::None
    }

    /// The client secret, if it authenticates ID Tokens.
    pub(super) fn hmac_secret(&self) -> Option<&str> {
        match &self.authentication {
            RegisteredAuthentication::SecretBasic(secret) | RegisteredAuthentication::SecretPost(secret) => {
                keys::name(self.id_token_algorithm).starts_with("HS").then_some(secret)
            }
            _ => None,
        }
    }

    pub(super) fn authorization_response_algorithm(&self) -> Algorithm {
        match (self.authorization_response_algorithm, self.hmac_secret()) {
            (Some(algorithm), _) => algorithm,
            (None, None) => self.id_token_algorithm,
            (None, Some(_)) => Algorithm::RS256,
        }
    }

    /// The first suitable registered key, which an OP would choose too.
    pub(super) fn encryption_key(&self, alg: &str) -> Value {
        let keys = self.jwks["keys"].as_array();
        let kty = if alg.starts_with("RSA") { &["RSA"][..] } else { &["EC", "OKP"] };
        let fits = |key: &&Value| {
            let member = |name: &str| key[name].as_str();
            member("use").is_none_or(|purpose| purpose == "enc")
                && member("alg").is_none_or(|algorithm| algorithm == alg)
                && member("kty").is_some_and(|found| kty.contains(&found))
                && member("crv").is_none_or(|curve| curve != "Ed25519")
        };
        keys.into_iter().flatten().find(fits).cloned().expect("the client's `jwks` has a key for its encryption")
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
#[must_use = "a user does nothing until it is given to a provider"]
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

    /// Adds a claim to ID Tokens and UserInfo responses.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a claim to this user's interim ID Tokens. It overrides
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
