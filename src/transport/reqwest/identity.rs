//! A client certificate in the form that reqwest's TLS library accepts.

use ::reqwest::{Client, ClientBuilder};
#[cfg(any(feature = "rustls", feature = "native-tls"))]
use ::reqwest::{Error as ReqwestError, Identity};

use super::super::PresentedCertificate;
use crate::error::{ConfigurationProblem, Error};

const REFUSED: &str = "the TLS library of the HTTP client refused it";

/// Builds a client that presents the certificate. If both TLS libraries are compiled in, the caller's choice is not
/// visible here. Each refuses the other's form, so both are tried.
pub(super) fn build(certificate: &PresentedCertificate, builder: impl Fn() -> ClientBuilder) -> Result<Client, Error> {
    let mut refusal = Error::new(ConfigurationProblem::Certificate(REFUSED));
    #[cfg(feature = "rustls")]
    match for_rustls(certificate).and_then(|identity| builder().identity(identity).build()) {
        Ok(client) => return Ok(client),
        Err(error) => refusal = refusal.with_source(error.without_url()),
    }
    #[cfg(feature = "native-tls")]
    match for_native_tls(certificate).and_then(|identity| builder().identity(identity).build()) {
        Ok(client) => return Ok(client),
        Err(error) => refusal = refusal.with_source(error.without_url()),
    }
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    {
        let _ = (certificate, builder);
        refusal = refusal.with_source("this build has neither of the features `rustls` and `native-tls`");
    }
    Err(refusal)
}

#[cfg(feature = "rustls")]
fn for_rustls(certificate: &PresentedCertificate) -> Result<Identity, ReqwestError> {
    let (chain, key) = (certificate.certificates_pem(), certificate.private_key_pem());
    let pem = zeroize::Zeroizing::new([key.expose().as_bytes(), chain.as_bytes()].concat());
    Identity::from_pem(&pem)
}

#[cfg(feature = "native-tls")]
fn for_native_tls(certificate: &PresentedCertificate) -> Result<Identity, ReqwestError> {
    let (chain, key) = (certificate.certificates_pem(), certificate.private_key_pem());
    Identity::from_pkcs8_pem(chain.as_bytes(), key.expose().as_bytes())
}
