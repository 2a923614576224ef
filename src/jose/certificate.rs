//! X.509 certificates with their private keys, for the TLS authentication of clients.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Ref};
use zeroize::Zeroizing;

use crate::error::{ConfigurationProblem, Error};

/// A certificate and its private key, after a check that they match.
pub(crate) struct CertifiedKey {
    /// The certificate itself, followed by those of its issuers, in DER.
    pub(crate) chain: Vec<Vec<u8>>,
    /// Only the chain, in PEM, without other content of the file.
    pub(crate) chain_pem: String,
    /// The key in PEM, always as PKCS#8.
    pub(crate) key_pem: Zeroizing<String>,
    /// The end of the certificate's validity.
    pub(crate) expires_at: SystemTime,
    /// Whether the certificate is self-signed.
    pub(crate) is_self_signed: bool,
}

impl CertifiedKey {
    /// Reads a chain, which begins with the client's own certificate, and the unencrypted key of that certificate.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Certificate`] if they cannot be read or do not match.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let problem = |what| Error::from(ConfigurationProblem::Certificate(what));
        let unreadable = "it is not a certificate in PEM";
        let chain = X509::stack_from_pem(chain).map_err(|_| problem(unreadable))?;
        let own = chain.first().ok_or_else(|| problem(unreadable))?;
        // Without the callback OpenSSL asks for the passphrase of an encrypted key on the terminal.
        let key = PKey::private_key_from_pem_callback(key, |_| Ok(0))
            .map_err(|_| problem("its key is not an unencrypted private key in PEM"))?;
        let public = own.public_key().map_err(|_| problem("its public key type is not supported"))?;
        if !public.public_eq(&key) {
            return Err(problem("the private key does not belong to the first certificate"));
        }
        let failed = |_| problem("the cryptographic library cannot use it");
        let mut chain_pem = Vec::new();
        let mut der = Vec::with_capacity(chain.len());
        for certificate in &chain {
            chain_pem.extend(certificate.to_pem().map_err(failed)?);
            der.push(certificate.to_der().map_err(failed)?);
        }
        let key_pem = Zeroizing::new(key.private_key_to_pem_pkcs8().map_err(failed)?);
        Ok(Self {
            expires_at: time(own.not_after()).ok_or_else(|| problem("its expiry time cannot be read"))?,
            is_self_signed: is_self_signed(own),
            chain: der,
            chain_pem: String::from_utf8(chain_pem).map_err(|_| problem(unreadable))?,
            key_pem: Zeroizing::new(std::str::from_utf8(&key_pem).map_err(|_| problem(unreadable))?.to_owned()),
        })
    }
}

fn is_self_signed(certificate: &X509Ref) -> bool {
    let same_name = certificate.subject_name().try_cmp(certificate.issuer_name()).is_ok_and(|order| order.is_eq());
    same_name && certificate.public_key().is_ok_and(|key| certificate.verify(&key).is_ok_and(|verifies| verifies))
}

fn time(moment: &Asn1TimeRef) -> Option<SystemTime> {
    let since = Asn1Time::from_unix(0).ok()?.diff(moment).ok()?;
    // A time before 1970 becomes 1970, which has passed too.
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Integer;
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::Private;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;
    use openssl::x509::X509Name;

    use super::*;
    use crate::error::ErrorKind;

    const EXPIRY: u64 = 2_000_000_000;

    fn key() -> PKey<Private> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    fn certificate(subject: &str, key: &PKey<Private>, issuer: &str, issuer_key: &PKey<Private>) -> Vec<u8> {
        let name = |name: &str| {
            let mut builder = X509Name::builder().unwrap();
            builder.append_entry_by_text("CN", name).unwrap();
            builder.build()
        };
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let serial = Asn1Integer::from_bn(&BigNum::from_u32(1).unwrap()).unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_subject_name(&name(subject)).unwrap();
        builder.set_issuer_name(&name(issuer)).unwrap();
        builder.set_pubkey(key).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(EXPIRY as i64).unwrap()).unwrap();
        builder.sign(issuer_key, MessageDigest::sha256()).unwrap();
        builder.build().to_pem().unwrap()
    }

    fn problem(chain: &[u8], key: &[u8]) -> &'static str {
        match CertifiedKey::from_pem(chain, key).map(|_| ()).unwrap_err().kind() {
            ErrorKind::Configuration(ConfigurationProblem::Certificate(problem)) => problem,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_is_read_with_its_chain_and_its_expiry() {
        let (own, authority) = (key(), key());
        let mut chain = b"Subject: client\n".to_vec();
        chain.extend(certificate("client", &own, "authority", &authority));
        chain.extend(certificate("authority", &authority, "authority", &authority));
        let read = CertifiedKey::from_pem(&chain, &own.private_key_to_pem_pkcs8().unwrap()).unwrap();
        assert_eq!(read.chain.len(), 2);
        assert_eq!(read.chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!read.chain_pem.contains("Subject"));
        assert_eq!(read.expires_at, UNIX_EPOCH + Duration::from_secs(EXPIRY));
        assert!(!read.is_self_signed);
    }

    #[test]
    fn only_a_certificate_that_its_own_key_signed_is_self_signed() {
        let (own, other) = (key(), key());
        let pem = own.private_key_to_pem_pkcs8().unwrap();
        let is_self_signed = |chain: Vec<u8>| CertifiedKey::from_pem(&chain, &pem).unwrap().is_self_signed;
        assert!(is_self_signed(certificate("client", &own, "client", &own)));
        assert!(!is_self_signed(certificate("client", &own, "client", &other)));
        assert!(!is_self_signed(certificate("client", &own, "authority", &own)));
    }

    #[test]
    fn a_key_in_any_form_is_converted_to_pkcs8() {
        let rsa = Rsa::generate(2048).unwrap();
        let own = PKey::from_rsa(rsa.clone()).unwrap();
        let chain = certificate("client", &own, "client", &own);
        for pem in [rsa.private_key_to_pem().unwrap(), own.private_key_to_pem_pkcs8().unwrap()] {
            let read = CertifiedKey::from_pem(&chain, &pem).unwrap();
            assert!(read.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
        }
    }

    #[test]
    fn mismatched_or_unreadable_certificates_and_keys_are_refused() {
        let (own, other) = (key(), key());
        let chain = certificate("client", &own, "client", &own);
        let pem = own.private_key_to_pem_pkcs8().unwrap();
        assert!(problem(&chain, &other.private_key_to_pem_pkcs8().unwrap()).contains("does not belong"));
        assert!(problem(&pem, &pem).contains("not a certificate"));
        assert!(problem(b"", &pem).contains("not a certificate"));
        assert!(problem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &pem).contains("not a"));
        assert!(problem(&chain, &chain).contains("private key"));
        let encrypted = own.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"passphrase").unwrap();
        assert!(problem(&chain, &encrypted).contains("unencrypted"));
    }
}
