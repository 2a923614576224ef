//! The certificate that a client presents in TLS (RFC 8705).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use crate::error::Error;
use crate::jose::CertifiedKey;
use crate::secret::Secret;

/// A client certificate with its private key, for `tls_client_auth`, `self_signed_tls_client_auth` and
/// certificate-bound access tokens (RFC 8705).
///
/// It is a handle: clones share the certificate. A certificate may expire while sign-ins are pending, so
/// [`replace`](Self::replace) renews it for all clients that have a clone. Their next request opens a new connection
/// with the new certificate, and requests in flight finish with the old one. The OP must accept both for that time, as
/// it does if it identifies the client by its subject (`tls_client_auth`).
///
/// Certificate-bound tokens are bound to one certificate. After a renewal the OP binds new tokens to the new
/// certificate, and resource servers refuse the old tokens.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use openid_deferred::testing::TestCertificate;
/// use openid_deferred::transport::ClientCertificate;
/// use openid_deferred::{Client, ClientAuthentication};
///
/// # fn example() -> Result<(), openid_deferred::Error> {
/// # let (files, renewed) = (TestCertificate::self_signed("client"), TestCertificate::self_signed("client"));
/// let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem())?;
/// let client = Client::builder("https://op.example", "my-client")
///     .authentication(ClientAuthentication::tls_client_auth(certificate.clone()))
///     .redirect_uri("https://rp.example/callback")
///     .build()?;
///
/// // Weeks later, while the client is in use:
/// certificate.replace(renewed.certificate_pem(), renewed.key_pem())?;
/// # Ok(())
/// # }
/// # example().unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct ClientCertificate(Arc<RwLock<PresentedCertificate>>);

impl ClientCertificate {
    /// From a certificate in PEM, followed by intermediate certificates if the OP needs them, and its unencrypted
    /// private key in PEM: PKCS#8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Certificate`](crate::error::ConfigurationProblem::Certificate) if they cannot be read or
    /// do not belong together. Expiration is not checked.
    pub fn from_pem(certificates: impl AsRef<[u8]>, private_key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let certificate = PresentedCertificate::from_pem(certificates.as_ref(), private_key.as_ref())?;
        Ok(Self(Arc::new(RwLock::new(certificate))))
    }

    /// Presents this certificate from the next connection on, in every client that shares this handle.
    ///
    /// # Errors
    ///
    /// As [`from_pem`](Self::from_pem). In that case the previous certificate stays in use.
    pub fn replace(&self, certificates: impl AsRef<[u8]>, private_key: impl AsRef<[u8]>) -> Result<(), Error> {
        let certificate = PresentedCertificate::from_pem(certificates.as_ref(), private_key.as_ref())?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
        Ok(())
    }

    /// The current certificate.
    pub fn current(&self) -> PresentedCertificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ClientCertificate").field(&self.current()).finish()
    }
}

/// The certificate that one request presents: the current one of a [`ClientCertificate`], with its key.
///
/// Values compare equal if they are the same certificate, so that an [`HttpClient`](super::HttpClient) of your own can
/// separate their connections.
#[derive(Clone)]
pub struct PresentedCertificate(Arc<CertifiedKey>);

impl PresentedCertificate {
    fn from_pem(certificates: &[u8], private_key: &[u8]) -> Result<Self, Error> {
        Ok(Self(Arc::new(CertifiedKey::from_pem(certificates, private_key)?)))
    }

    /// The certificate and its intermediate certificates, in PEM.
    pub fn certificates_pem(&self) -> &str {
        &self.0.chain_pem
    }

    /// The certificate and its intermediate certificates, in DER.
    pub fn certificates_der(&self) -> impl Iterator<Item = &[u8]> {
        self.0.chain.iter().map(Vec::as_slice)
    }

    /// The private key in PEM, as PKCS#8. Keep no copies.
    pub fn private_key_pem(&self) -> Secret {
        Secret::new(self.0.key_pem.as_str())
    }

    /// The end of the certificate's validity. Renew it before.
    pub fn expires_at(&self) -> SystemTime {
        self.0.expires_at
    }

    /// Whether the certificate is self-signed, as `self_signed_tls_client_auth` requires.
    pub fn is_self_signed(&self) -> bool {
        self.0.is_self_signed
    }
}

impl PartialEq for PresentedCertificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PresentedCertificate {}

impl fmt::Debug for PresentedCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PresentedCertificate")
            .field("expires_at", &self.expires_at())
            .field("is_self_signed", &self.is_self_signed())
            .finish_non_exhaustive()
    }
}
