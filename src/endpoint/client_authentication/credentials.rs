//! The credentials of one request.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Serialize;
use serde_json::Map;
use zeroize::Zeroizing;

use super::super::{EndpointRequest, Endpoints, sensitive};
use super::Method;
use crate::clock::unix_seconds;
use crate::error::{Error, ErrorKind};
use crate::jose::{HmacSigner, Signer, SigningAlgorithm, sign_compact};
use crate::random;
use crate::secret::Secret;

/// The timeout of a signer, unless the request has a shorter one.
pub(crate) const SIGNER_TIMEOUT: Duration = Duration::from_secs(30);

/// Header and parameters. A certificate is presented in TLS.
pub(in super::super) struct Credentials {
    pub(in super::super) header: Option<HeaderValue>,
    pub(in super::super) form: Vec<(&'static str, Secret)>,
}

impl Endpoints {
    pub(in super::super) async fn credentials(
        &self,
        request: &EndpointRequest<'_>,
        now: SystemTime,
    ) -> Result<Credentials, Error> {
        let client = request.client;
        let client_id = || ("client_id", Secret::from(client.client_id.as_str()));
        let in_form = |form| Credentials { header: None, form };
        let signer: &dyn Signer = match &client.authentication.0 {
            // RFC 8705 §2: "the client MUST include the `client_id` parameter".
            Method::None | Method::TlsClientAuth(_) | Method::SelfSignedTlsClientAuth(_) => {
                return Ok(in_form(vec![client_id()]));
            }
            Method::ClientSecretBasic(secret) => {
                // Created for each request, because it is erased with the request.
                return Ok(Credentials {
                    header: Some(basic(&client.client_id, &secret.current())?),
                    form: Vec::new(),
                });
            }
            Method::ClientSecretPost(secret) => {
                return Ok(in_form(vec![client_id(), ("client_secret", Secret::clone(&secret.current()))]));
            }
            Method::PrivateKeyJwt(signer) => signer.as_ref(),
            Method::ClientSecretJwt(secret, algorithm) => {
                &HmacSigner::new(algorithm.unwrap_or(SigningAlgorithm::Hs256), &secret.current()).ok_or_else(|| {
                    Error::new(ErrorKind::Signer).with_source("the client secret is too short for the HMAC algorithm")
                })?
            }
        };
        let assertion = tokio::select! {
            biased;
            assertion = self.assertion(request, signer, now) => assertion?,
            // A key management service that never answers must not delay the request for ever.
            () = self.clock.sleep(request.timeout.min(SIGNER_TIMEOUT)) => {
                return Err(Error::new(ErrorKind::Signer).with_source("the signer timed out"));
            }
        };
        let assertion_type = Secret::from("urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        Ok(in_form(vec![client_id(), ("client_assertion_type", assertion_type), ("client_assertion", assertion)]))
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
            aud: request.assertion_audience.unwrap_or(request.url.as_str()),
            jti: random::base64url::<16>(&*self.random)?,
            iat: issued_at,
            exp: issued_at + ASSERTION_LIFETIME,
        };
        sign_compact(signer, Map::new(), &claims).await
    }
}

/// In seconds. Each request has its own assertion, which is used at once.
const ASSERTION_LIFETIME: u64 = 60;

#[derive(Serialize)]
struct AssertionClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    /// One string, because with several audiences one of them could use the assertion at the others.
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
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    sensitive(["Basic ", &encoded].concat())
}
