//! Temporary certificates for a test.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openid_deferred::transport::ClientCertificate;
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

impl Identity {
    /// An authority that signs other certificates.
    pub(crate) fn authority() -> Self {
        Self::new("The authority of a test", None, |builder| {
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
            builder.append_extension(KeyUsage::new().critical().key_cert_sign().build().unwrap()).unwrap();
        })
    }

    /// A certificate for this host name, signed by the authority or by itself.
    pub(crate) fn host(name: &str, authority: Option<&Self>) -> Self {
        Self::new(name, authority, |builder| {
            let mut names = SubjectAlternativeName::new();
            let issuer = authority.map(|authority| &*authority.certificate);
            let names = names.dns(name).build(&builder.x509v3_context(issuer, None)).unwrap();
            builder.append_extension(names).unwrap();
        })
    }

    fn new(name: &str, authority: Option<&Self>, extend: impl FnOnce(&mut X509Builder)) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
        let subject = subject.build();
        let mut serial = BigNum::new().unwrap();
        serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(authority.map_or(&subject, |authority| authority.certificate.subject_name())).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        extend(&mut builder);
        builder.sign(authority.map_or(&key, |authority| &authority.key), MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    /// The public key as a JWK that contains the certificate, as a client registers a self-signed certificate.
    pub(crate) fn jwk(&self) -> Value {
        let key = self.key.ec_key().unwrap();
        let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
        let mut context = BigNumContext::new().unwrap();
        key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context).unwrap();
        let coordinate = |number: &BigNum| URL_SAFE_NO_PAD.encode(number.to_vec_padded(32).unwrap());
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": coordinate(&x),
            "y": coordinate(&y),
            "x5c": [STANDARD.encode(self.certificate.to_der().unwrap())],
        })
    }

    pub(crate) fn client_certificate(&self) -> ClientCertificate {
        ClientCertificate::from_pem(self.certificate_pem(), self.key_pem()).unwrap()
    }

    /// The SHA-256 thumbprint (RFC 8705 §3.1).
    pub(crate) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.certificate.digest(MessageDigest::sha256()).unwrap())
    }

    pub(crate) fn certificate_pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    pub(crate) fn key_pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }
}
