//! Client authentication at endpoints (OpenID Connect Core 1.0 §9; RFC 8705 §2).

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::ConfigurationProblem;
use crate::jose::{Signer, SigningAlgorithm};
use crate::secret::{Secret, SharedSecret};
use crate::transport::ClientCertificate;

mod choice;
mod credentials;

pub(crate) use choice::{GivenCredentials, Offer};
pub(crate) use credentials::SIGNER_TIMEOUT;

/// How the client authenticates at the OP's endpoints, as registered there under `token_endpoint_auth_method`.
///
/// `Debug` shows the method and never a secret. Clones share the secret, and so do clients that are built from them:
/// [`Client::replace_client_secret`](crate::Client::replace_client_secret) replaces it in all of them.
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
    ClientSecretBasic(SharedSecret),
    ClientSecretPost(SharedSecret),
    /// The algorithm is not chosen until the OP's metadata is known.
    ClientSecretJwt(SharedSecret, Option<SigningAlgorithm>),
    PrivateKeyJwt(Arc<dyn Signer>),
    TlsClientAuth(ClientCertificate),
    SelfSignedTlsClientAuth(ClientCertificate),
}

impl ClientAuthentication {
    /// A public client, which sends only `client_id`.
    pub fn none() -> Self {
        Self(Method::None)
    }

    /// The secret in the `Authorization` header (RFC 6749 §2.3.1).
    pub fn client_secret_basic(secret: impl Into<Secret>) -> Self {
        Self(Method::ClientSecretBasic(secret.into().into()))
    }

    /// The secret in the body (RFC 6749 §2.3.1). Prefer [`client_secret_basic`](Self::client_secret_basic) if the OP
    /// supports both.
    pub fn client_secret_post(secret: impl Into<Secret>) -> Self {
        Self(Method::ClientSecretPost(secret.into().into()))
    }

    /// An assertion with an HMAC by the secret, new for each request (OpenID Connect Core 1.0 §9). The secret itself is
    /// not sent. The algorithm is the first of HS256, HS384 and HS512 that the OP lists in
    /// `token_endpoint_auth_signing_alg_values_supported` and for which the secret is long enough: 32, 48 or 64 bytes.
    pub fn client_secret_jwt(secret: impl Into<Secret>) -> Self {
        Self(Method::ClientSecretJwt(secret.into().into(), None))
    }

    /// The same with the algorithm that was registered as `token_endpoint_auth_signing_alg`.
    pub fn client_secret_jwt_with(secret: impl Into<Secret>, algorithm: SigningAlgorithm) -> Self {
        Self(Method::ClientSecretJwt(secret.into().into(), Some(algorithm)))
    }

    /// An assertion signed with a private key, new for each request (RFC 7523 §2.2). The key is a
    /// [`SigningKey`](crate::SigningKey) in memory, or any [`Signer`]. The example `external_signer` has the key in another
    /// process.
    pub fn private_key_jwt(signer: impl Signer + 'static) -> Self {
        Self(Method::PrivateKeyJwt(Arc::new(signer)))
    }

    /// The certificate that the client presents in TLS, issued by an authority that the OP trusts (RFC 8705 §2.1).
    pub fn tls_client_auth(certificate: ClientCertificate) -> Self {
        Self(Method::TlsClientAuth(certificate))
    }

    /// The self-signed certificate that the client presents in TLS, as registered (RFC 8705 §2.2).
    pub fn self_signed_tls_client_auth(certificate: ClientCertificate) -> Self {
        Self(Method::SelfSignedTlsClientAuth(certificate))
    }

    /// Whether its credentials are parameters in the body of requests.
    pub(crate) fn is_in_body(&self) -> bool {
        match &self.0 {
            Method::ClientSecretPost(_) | Method::ClientSecretJwt(..) | Method::PrivateKeyJwt(_) => true,
            Method::None
            | Method::ClientSecretBasic(_)
            | Method::TlsClientAuth(_)
            | Method::SelfSignedTlsClientAuth(_) => false,
        }
    }

    /// The public key with which the OP verifies this client, if there is one and the signer knows it.
    pub(crate) fn public_jwk(&self) -> Option<Map<String, Value>> {
        match &self.0 {
            Method::PrivateKeyJwt(signer) => signer.verification_jwk(),
            _ => None,
        }
    }

    /// The private key of client assertions, if there is one.
    pub(crate) fn signer(&self) -> Option<&Arc<dyn Signer>> {
        match &self.0 {
            Method::PrivateKeyJwt(signer) => Some(signer),
            _ => None,
        }
    }

    /// The registered name of the method, such as `private_key_jwt`.
    pub fn method(&self) -> &'static str {
        match &self.0 {
            Method::None => "none",
            Method::ClientSecretBasic(_) => "client_secret_basic",
            Method::ClientSecretPost(_) => "client_secret_post",
            Method::ClientSecretJwt(..) => "client_secret_jwt",
            Method::PrivateKeyJwt(_) => "private_key_jwt",
            Method::TlsClientAuth(_) => "tls_client_auth",
            Method::SelfSignedTlsClientAuth(_) => "self_signed_tls_client_auth",
        }
    }

    /// The client secret, if there is one. It is the key of ID Tokens that are signed with an HMAC.
    pub(crate) fn secret(&self) -> Option<&SharedSecret> {
        match &self.0 {
            Method::ClientSecretBasic(secret)
            | Method::ClientSecretPost(secret)
            | Method::ClientSecretJwt(secret, _) => Some(secret),
            Method::None | Method::PrivateKeyJwt(_) | Method::TlsClientAuth(_) | Method::SelfSignedTlsClientAuth(_) => {
                None
            }
        }
    }

    /// Refuses a new client secret that this method cannot use.
    pub(crate) fn check_new_secret(&self, secret: &Secret) -> Result<(), ConfigurationProblem> {
        match &self.0 {
            Method::ClientSecretJwt(_, algorithm) => {
                Self(Method::ClientSecretJwt(secret.clone().into(), *algorithm)).check()
            }
            _ => Ok(()),
        }
    }

    /// The certificate that authenticates the client, if there is one.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        match &self.0 {
            Method::TlsClientAuth(certificate) | Method::SelfSignedTlsClientAuth(certificate) => Some(certificate),
            _ => None,
        }
    }
}
