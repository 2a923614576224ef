//! How a client proves to an endpoint who it is (OpenID Connect Core 1.0 §9).

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{EndpointRequest, Endpoints, sensitive};
use crate::clock::unix_seconds;
use crate::error::{Error, ErrorKind};
use crate::jose::{Signer, sign_compact};
use crate::random;
use crate::secret::Secret;

/// How the client authenticates at the OP's endpoints, as registered there under `token_endpoint_auth_method`.
///
/// `Debug` shows the method and never a secret.
///
/// ```
/// use openid_deferred::ClientAuthentication;
///
/// let authentication = ClientAuthentication::client_secret_basic("correct horse");
/// assert_eq!(authentication.method(), "client_secret_basic");
/// ```
#[derive(Debug, Clone)]
pub struct ClientAuthentication(Method);

#[derive(Debug, Clone)]
enum Method {
    None,
    ClientSecretBasic(Secret),
    ClientSecretPost(Secret),
    PrivateKeyJwt(Arc<dyn Signer>),
}

impl ClientAuthentication {
    /// A public client: `client_id` alone.
    pub fn none() -> Self {
        Self(Method::None)
    }

    /// The secret in the `Authorization` header (RFC 6749 §2.3.1).
    pub fn client_secret_basic(secret: impl Into<Secret>) -> Self {
        Self(Method::ClientSecretBasic(secret.into()))
    }

    /// The secret in the body (RFC 6749 §2.3.1). Prefer [`client_secret_basic`](Self::client_secret_basic) where the OP
    /// has both.
    pub fn client_secret_post(secret: impl Into<Secret>) -> Self {
        Self(Method::ClientSecretPost(secret.into()))
    }

    /// An assertion signed with a private key, new for each request (RFC 7523 §2.2). The key is a
    /// [`SigningKey`](crate::SigningKey) in memory, or any [`Signer`].
    pub fn private_key_jwt(signer: impl Signer + 'static) -> Self {
        Self(Method::PrivateKeyJwt(Arc::new(signer)))
    }

    /// The client secret, where there is one: it is the key of ID Tokens that are signed with an HMAC.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        match &self.0 {
            Method::ClientSecretBasic(secret) | Method::ClientSecretPost(secret) => Some(secret),
            Method::None | Method::PrivateKeyJwt(_) => None,
        }
    }

    /// The public key that the OP verifies this client with, where there is one and its signer knows it.
    pub(crate) fn public_jwk(&self) -> Option<Map<String, Value>> {
        match &self.0 {
            Method::PrivateKeyJwt(signer) => signer.verification_jwk(),
            _ => None,
        }
    }

    /// Whether its proof stands in the body of requests, as a parameter.
    pub(crate) fn is_in_body(&self) -> bool {
        match &self.0 {
            Method::ClientSecretPost(_) | Method::PrivateKeyJwt(_) => true,
            Method::None | Method::ClientSecretBasic(_) => false,
        }
    }

    /// The registered name of the method, such as `private_key_jwt`.
    pub fn method(&self) -> &'static str {
        match &self.0 {
            Method::None => "none",
            Method::ClientSecretBasic(_) => "client_secret_basic",
            Method::ClientSecretPost(_) => "client_secret_post",
            Method::PrivateKeyJwt(_) => "private_key_jwt",
        }
    }
}

/// What one request carries to authenticate the client.
pub(super) struct Credentials {
    pub(super) header: Option<HeaderValue>,
    pub(super) form: Vec<(&'static str, Secret)>,
}

impl Endpoints {
    pub(super) async fn credentials(
        &self,
        request: &EndpointRequest<'_>,
        now: SystemTime,
    ) -> Result<Credentials, Error> {
        let client = request.client;
        let client_id = || ("client_id", Secret::from(client.client_id.as_str()));
        let in_form = |form| Credentials { header: None, form };
        Ok(match &client.authentication.0 {
            Method::None => in_form(vec![client_id()]),
            Method::ClientSecretBasic(secret) => {
                Credentials { header: Some(basic(&client.client_id, secret)?), form: Vec::new() }
            }
            Method::ClientSecretPost(secret) => in_form(vec![client_id(), ("client_secret", secret.clone())]),
            Method::PrivateKeyJwt(signer) => {
                let assertion = tokio::select! {
                    biased;
                    assertion = self.assertion(request, signer.as_ref(), now) => assertion?,
                    // A key management service that never answers must not hold the request for ever.
                    () = self.clock.sleep(request.timeout) => {
                        return Err(Error::new(ErrorKind::Signer).with_source("the signer took too long"));
                    }
                };
                let assertion_type = Secret::from("urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                in_form(vec![client_id(), ("client_assertion_type", assertion_type), ("client_assertion", assertion)])
            }
        })
    }

    /// A client assertion (RFC 7523 §3; OpenID Connect Core 1.0 §9).
    async fn assertion(
        &self,
        request: &EndpointRequest<'_>,
        signer: &dyn Signer,
        now: SystemTime,
    ) -> Result<Secret, Error> {
        let client = request.client;
        let issued_at = unix_seconds(now);
        let claims = AssertionClaims {
            iss: &client.client_id,
            sub: &client.client_id,
            aud: client.assertion_audience.as_deref().unwrap_or(request.url.as_str()),
            jti: random::base64url::<16>(&*self.random)?,
            iat: issued_at,
            exp: issued_at + ASSERTION_LIFETIME,
        };
        sign_compact(signer, Map::new(), &claims).await
    }
}

/// In seconds. It is used at once, and each request has its own.
const ASSERTION_LIFETIME: u64 = 60;

#[derive(Serialize)]
struct AssertionClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    /// One string: several audiences would let one of them use the assertion at the others.
    aud: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
}

/// RFC 6749 §2.3.1: "The client identifier is encoded using the "application/x-www-form-urlencoded" encoding algorithm
/// [...], and the encoded value is used as the username; the client password is encoded using the same algorithm".
fn basic(client_id: &str, secret: &Secret) -> Result<HeaderValue, Error> {
    let mut pair = Zeroizing::new(String::with_capacity(3 * (client_id.len() + secret.expose().len()) + 1));
    pair.extend(form_urlencoded::byte_serialize(client_id.as_bytes()));
    pair.push(':');
    pair.extend(form_urlencoded::byte_serialize(secret.expose().as_bytes()));
    sensitive(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}
