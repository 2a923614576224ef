//! Client certificates and the authority that issues them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

/// A client certificate with its key, as two texts in PEM, the form that applications use.
///
/// [`self_signed`](Self::self_signed) makes a self-signed one.
/// [`TestProvider::client_certificate`](super::TestProvider::client_certificate) issues one from an authority that the
/// provider trusts.
///
/// ```
/// use openid_deferred::testing::{TestCertificate, TestClient};
/// use openid_deferred::transport::ClientCertificate;
///
/// # fn example() -> Result<(), openid_deferred::Error> {
/// let files = TestCertificate::self_signed("my-client");
/// let registered = TestClient::self_signed_tls_client_auth("my-client", &files);
/// let certificate = ClientCertificate::from_pem(files.certificate_pem(), files.key_pem())?;
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone)]
pub struct TestCertificate {
    pub(super) der: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl TestCertificate {
    /// Makes a self-signed certificate with this name, and a new key on P-256.
    pub fn self_signed(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("aws-lc generates keys");
        let certificate = parameters(name).self_signed(&key).expect("the key signs");
        Self::new(&certificate, &key)
    }

    fn new(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        Self { der: certificate.der().clone(), certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key in PEM, as PKCS#8.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

impl fmt::Debug for TestCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TestCertificate")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

fn parameters(name: &str) -> rcgen::CertificateParams {
    let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("the name can be a DNS name");
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    parameters
}

/// The authority for client certificates that a provider trusts.
pub(super) struct ClientAuthority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientAuthority {
    pub(super) fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("an empty list has no invalid name");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "openid-deferred test CA for clients");
        let key = rcgen::KeyPair::generate().expect("aws-lc generates keys");
        let mut roots = RootCertStore::empty();
        roots.add(parameters.self_signed(&key).expect("the key signs").der().clone()).expect("it is an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.expect("there is an authority");
        Self { issuer: rcgen::Issuer::new(parameters, key), verifier }
    }

    /// Issues a certificate for a client.
    pub(super) fn issue(&self, name: &str) -> TestCertificate {
        self.sign(parameters(name))
    }

    /// Issues a certificate that expired long ago.
    pub(super) fn issue_expired(&self, name: &str) -> TestCertificate {
        let mut parameters = parameters(name);
        parameters.not_after = rcgen::date_time_ymd(1990, 1, 1);
        self.sign(parameters)
    }

    fn sign(&self, parameters: rcgen::CertificateParams) -> TestCertificate {
        let key = rcgen::KeyPair::generate().expect("aws-lc generates keys");
        TestCertificate::new(&parameters.signed_by(&key, &self.issuer).expect("the key signs"), &key)
    }

    /// Whether the chain leads to this authority and the first certificate has this DNS name.
    pub(super) fn vouches_for(&self, chain: &[CertificateDer<'_>], name: &str, now: SystemTime) -> bool {
        let Some((own, others)) = chain.split_first() else { return false };
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let Ok(name) = ServerName::try_from(name) else { return false };
        self.verifier.verify_client_cert(own, others, now).is_ok()
            && ParsedCertificate::try_from(own)
                .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
    }

    /// The verifier of a listener that requires a certificate of this authority in the handshake.
    pub(super) fn own_certificates(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// The verifier of a listener that requests a certificate but does not require one. The endpoints identify the
    /// client.
    pub(super) fn any_certificate(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate(Arc::clone(&self.verifier)))
    }
}

/// Accepts every certificate if the client proves that it has the private key.
#[derive(Debug)]
struct AnyCertificate(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The certificates of a chain in PEM.
pub(super) fn from_pem(chain: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(chain.as_bytes()).filter_map(Result::ok).collect()
}
