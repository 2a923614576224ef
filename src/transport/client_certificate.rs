//! The certificate that a client shows in TLS (RFC 8705).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use crate::error::Error;
use crate::jose::CertifiedKey;
use crate::secret::Secret;

/// A client certificate with its private key, for `tls_client_auth`, `self_signed_tls_client_auth` and certificate-bound
/// access tokens (RFC 8705).
///
/// It is a handle: clones share what is inside. Certificates expire sooner than processes wait, so
/// [`replace`](Self::replace) renews it while clients that were given a clone go on; their next request opens a new
/// connection with the new certificate, and requests under way end with the old one. The OP has to accept both for
/// that long, which it does by itself where it knows the client by its subject (`tls_client_auth`).
///
/// Tokens that are bound to a certificate are bound to that one: after a renewal the OP binds new ones to the new one,
/// and a resource server refuses those of before.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use openid_deferred::testing::TestCertificate;
/// use openid_deferred::{Client, ClientAuthentication, ClientCertificate};
///
/// # fn example() -> Result<(), openid_deferred::Error> {
/// # let (files, renewed) = (TestCertificate::self_signed("client"), TestCertificate::self_signed("client"));
/// let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem())?;
/// let client = Client::builder("https://op.example", "my-client")
///     .authentication(ClientAuthentication::tls_client_auth(certificate.clone()))
///     .redirect_uri("https://rp.example/callback")
///     .build()?;
///
/// // Weeks later, with the client in the middle of its work:
/// certificate.replace(renewed.certificate_pem(), renewed.key_pem())?;
/// # Ok(())
/// # }
/// # example().unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct ClientCertificate(Arc<RwLock<PresentedCertificate>>);

impl ClientCertificate {
    /// Takes a certificate in PEM, followed by those that vouch for it where the OP needs them, and its private key in
    /// PEM, not encrypted: PKCS#8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Certificate`](crate::ConfigurationProblem::Certificate) where they cannot be read or do
    /// not belong together. Whether the certificate has expired is for the OP to say.
    pub fn from_pem(certificates: impl AsRef<[u8]>, private_key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let certificate = PresentedCertificate::from_pem(certificates.as_ref(), private_key.as_ref())?;
        Ok(Self(Arc::new(RwLock::new(certificate))))
    }

    /// Presents this certificate from the next connection on, in every client that shares this handle.
    ///
    /// # Errors
    ///
    /// As [`from_pem`](Self::from_pem); then the certificate of before stays.
    pub fn replace(&self, certificates: impl AsRef<[u8]>, private_key: impl AsRef<[u8]>) -> Result<(), Error> {
        let certificate = PresentedCertificate::from_pem(certificates.as_ref(), private_key.as_ref())?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
        Ok(())
    }

    /// The certificate of now.
    pub fn current(&self) -> PresentedCertificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ClientCertificate").field(&self.current()).finish()
    }
}

/// What one request presents: the certificate of a [`ClientCertificate`] as it is at that moment, with its key.
///
/// Two of them are equal if they are the same one, so that an [`HttpClient`](super::HttpClient) of your own can keep
/// the connections of each apart.
#[derive(Clone)]
pub struct PresentedCertificate(Arc<CertifiedKey>);

impl PresentedCertificate {
    fn from_pem(certificates: &[u8], private_key: &[u8]) -> Result<Self, Error> {
        Ok(Self(Arc::new(CertifiedKey::from_pem(certificates, private_key)?)))
    }

    /// The certificate and those that vouch for it, in PEM.
    pub fn certificates_pem(&self) -> &str {
        &self.0.chain_pem
    }

    /// The certificate and those that vouch for it, in DER.
    pub fn certificates_der(&self) -> impl Iterator<Item = &[u8]> {
        self.0.chain.iter().map(Vec::as_slice)
    }

    /// The private key in PEM, as PKCS#8. Keep no copies.
    pub fn private_key_pem(&self) -> Secret {
        Secret::new(self.0.key_pem.as_str())
    }

    /// Until when the certificate is valid: renew it before that.
    pub fn expires_at(&self) -> SystemTime {
        self.0.expires_at
    }

    /// Whether the certificate vouches for itself, as `self_signed_tls_client_auth` has it.
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
