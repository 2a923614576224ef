//! Private keys that sign: in memory, or behind the application's own [`Signer`].

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_core::future::BoxFuture;
use josekit::jwk::KeyPair;
use josekit::jwk::alg::{ec::EcKeyPair, ed::EdKeyPair, rsa::RsaKeyPair};
use josekit::jws::{ES256, ES256K, ES384, ES512, EdDSA, JwsSigner, PS256, PS384, PS512, RS256, RS384, RS512};
use openssl::pkey::{Id, PKey, Private};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::algorithm::SigningAlgorithm;
use super::key_kind::KeyKind;
use super::key_use::KeyUse;
use super::private_jwk::PrivateJwk;
use crate::error::{ConfigurationProblem, Error, ErrorKind};
use crate::secret::Secret;

/// The size of RSA keys that [`SigningKey::generate`] makes, and the minimum of any RSA key, in bits.
const RSA_BITS: u32 = 2048;

/// A private key that can sign, such as the one of `private_key_jwt` or of signed authorization requests (RFC 9101).
///
/// [`SigningKey`] implements it with a key in memory. Implement this trait for a key that stays in a key management
/// service or a hardware module. An `Arc` of a signer is a signer too. So several clients can share one, and an
/// `Arc<dyn Signer>` can be chosen at run time.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The algorithm of its signatures.
    fn algorithm(&self) -> SigningAlgorithm;

    /// The `kid` under which the OP knows the public key, if it has one.
    fn key_id(&self) -> Option<&str>;

    /// The public key as a JWK (RFC 7517), for [`Client::jwks`](crate::Client::jwks). With `None`, the default, the key
    /// is not included there.
    fn verification_jwk(&self) -> Option<Map<String, Value>> {
        None
    }

    /// Signs `message` and returns the signature in the form that JWS uses (RFC 7518 §3). For ECDSA that is the
    /// concatenation of the two integers at full length, not the DER structure that most services return.
    ///
    /// # Errors
    ///
    /// Any error that prevents the signature. Callers receive [`ErrorKind::Signer`] and treat it as transient.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>>;
}

impl<S: Signer + ?Sized> Signer for Arc<S> {
    fn algorithm(&self) -> SigningAlgorithm {
        (**self).algorithm()
    }

    fn key_id(&self) -> Option<&str> {
        (**self).key_id()
    }

    fn verification_jwk(&self) -> Option<Map<String, Value>> {
        (**self).verification_jwk()
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        (**self).sign(message)
    }
}

/// A private key in memory.
///
/// `Debug` shows only its algorithm and its `kid`, and it cannot be serialized. Give the result of
/// [`public_jwk`](Self::public_jwk) to the OP.
pub struct SigningKey {
    algorithm: SigningAlgorithm,
    key_id: Option<String>,
    public_jwk: Map<String, Value>,
    signer: Box<dyn JwsSigner>,
}

impl SigningKey {
    /// Reads a private key from PEM: PKCS#8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`),
    /// not encrypted. `key_id` becomes the `kid` of its signatures.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Key`] if the PEM cannot be read, the key does not fit the algorithm, or an RSA key has
    /// fewer than 2048 bits.
    pub fn from_pem(algorithm: SigningAlgorithm, pem: &str, key_id: Option<String>) -> Result<Self, Error> {
        // Without the callback OpenSSL asks for the passphrase of an encrypted key on the terminal.
        let key = PKey::private_key_from_pem_callback(pem.as_bytes(), |_| Ok(0))
            .map_err(|_| problem("it is not an unencrypted private key in PEM"))?;
        Self::new(algorithm, &key, key_id)
    }

    /// Reads a private key from a JWK (RFC 7517) with its `alg`. An elliptic curve key needs no `alg`, because its
    /// curve implies one. The JWK's `kid` becomes the `kid` of its signatures.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Key`] if the JWK cannot be read, has no private part, is for another purpose according
    /// to its `use` or `key_ops`, or is an RSA key of fewer than 2048 bits.
    pub fn from_jwk(json: &str) -> Result<Self, Error> {
        let malformed = || problem("it is not a private key as a JWK");
        let members = PrivateJwk::read(json).ok_or_else(malformed)?;
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let algorithm = match (text("alg"), text("crv")) {
            (Some(name), _) => SigningAlgorithm::from_name(name),
            (None, Some("P-256")) => Some(SigningAlgorithm::Es256),
            (None, Some("P-384")) => Some(SigningAlgorithm::Es384),
            (None, Some("P-521")) => Some(SigningAlgorithm::Es512),
            (None, Some("secp256k1")) => Some(SigningAlgorithm::Es256k),
            (None, Some("Ed25519")) => Some(SigningAlgorithm::EdDsa),
            _ => None,
        }
        .ok_or_else(|| problem("the JWK has no `alg` that names a signature algorithm"))?;
        if KeyUse::Sign.check(&members).is_err() {
            return Err(problem("the JWK's `use` or `key_ops` does not allow signatures"));
        }
        let key_id = text("kid").map(str::to_owned);
        let der = members.with_josekit(|jwk| match text("kty") {
            Some("RSA") => RsaKeyPair::from_jwk(jwk).map(|pair| pair.to_der_private_key()).ok(),
            Some("EC") => EcKeyPair::from_jwk(jwk).map(|pair| pair.to_der_private_key()).ok(),
            Some("OKP") => EdKeyPair::from_jwk(jwk).map(|pair| pair.to_der_private_key()).ok(),
            _ => None,
        });
        let der = Zeroizing::new(der.ok_or_else(malformed)?);
        let key = PKey::private_key_from_der(&der).map_err(|_| malformed())?;
        Self::new(algorithm, &key, key_id)
    }

    /// Generates a new key without a `kid`. RSA keys have 2048 bits.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Key`] for HS256, HS384 and HS512, which have no key pair. [`ErrorKind::Cryptography`] if
    /// OpenSSL fails.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, Error> {
        use SigningAlgorithm as A;
        let failed = |_| Error::new(ErrorKind::Cryptography);
        let der = match algorithm {
            A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512 => {
                RsaKeyPair::generate(RSA_BITS).map_err(failed)?.to_der_private_key()
            }
            A::Es256 => ES256.generate_key_pair().map_err(failed)?.to_der_private_key(),
            A::Es384 => ES384.generate_key_pair().map_err(failed)?.to_der_private_key(),
            A::Es512 => ES512.generate_key_pair().map_err(failed)?.to_der_private_key(),
            A::Es256k => ES256K.generate_key_pair().map_err(failed)?.to_der_private_key(),
            A::EdDsa | A::Ed25519 => {
                EdDSA.generate_key_pair(josekit::jwk::alg::ed::EdCurve::Ed25519).map_err(failed)?.to_der_private_key()
            }
            A::Hs256 | A::Hs384 | A::Hs512 => return Err(symmetric()),
        };
        let key = PKey::private_key_from_der(&Zeroizing::new(der))
            .map_err(|error| Error::new(ErrorKind::Cryptography).with_source(error))?;
        Self::new(algorithm, &key, None)
    }

    /// The public key as a JWK with its `alg`, and its `kid` if it has one. Register it at the OP or publish it at the
    /// client's `jwks_uri`.
    pub fn public_jwk(&self) -> Map<String, Value> {
        self.public_jwk.clone()
    }

    fn new(algorithm: SigningAlgorithm, key: &PKey<Private>, key_id: Option<String>) -> Result<Self, Error> {
        if algorithm.is_symmetric() {
            return Err(symmetric());
        }
        if !fits(algorithm, key) {
            return Err(problem(
                "it is not a valid key for this algorithm, or it is an RSA key of fewer than 2048 bits",
            ));
        }
        let (signer, mut public_jwk) =
            signer(algorithm, key).ok_or_else(|| problem("the cryptographic library cannot use it"))?;
        public_jwk.insert("alg".to_owned(), algorithm.as_str().into());
        if let Some(key_id) = &key_id {
            public_jwk.insert("kid".to_owned(), key_id.as_str().into());
        }
        Ok(Self { algorithm, key_id, public_jwk, signer })
    }
}

impl Signer for SigningKey {
    fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    fn verification_jwk(&self) -> Option<Map<String, Value>> {
        Some(self.public_jwk())
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        let signature = self.signer.sign(message).map_err(|_| Error::new(ErrorKind::Cryptography));
        Box::pin(std::future::ready(signature))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("SigningKey");
        shown.field("algorithm", &self.algorithm).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Signs `claims` as a compact JWS. `alg` and `kid` of the signer are added to `header`.
///
/// # Errors
///
/// [`ErrorKind::Signer`] if the signer fails, or if the length of its signature is wrong for its algorithm.
pub(crate) async fn sign_compact(
    signer: &dyn Signer,
    mut header: Map<String, Value>,
    claims: &impl Serialize,
) -> Result<Secret, Error> {
    header.insert("alg".to_owned(), signer.algorithm().as_str().into());
    if let Some(key_id) = signer.key_id() {
        header.insert("kid".to_owned(), key_id.into());
    }
    let claims = serde_json::to_vec(claims).map_err(|_| Error::new(ErrorKind::Cryptography))?;
    let header = URL_SAFE_NO_PAD.encode(Value::Object(header).to_string());
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = match signer.sign(message.as_bytes()).await {
        Ok(signature) => signature,
        Err(error) if *error.kind() == ErrorKind::Signer => return Err(error),
        Err(error) => return Err(Error::new(ErrorKind::Signer).with_source(error)),
    };
    let length_fits = match signer.algorithm().signature_length() {
        Some(length) => signature.len() == length,
        None => signature.len() >= RSA_BITS as usize / 8,
    };
    if !length_fits {
        return Err(Error::new(ErrorKind::Signer).with_source(
            "the signature has the wrong length for its algorithm; convert an ECDSA signature from DER (RFC 7518 §3.4)",
        ));
    }
    Ok(Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

/// Whether the key has the algorithm's kind, is large enough, and is consistent: josekit panics on a point at infinity.
fn fits(algorithm: SigningAlgorithm, key: &PKey<Private>) -> bool {
    match KeyKind::of(algorithm) {
        KeyKind::Rsa => {
            key.bits() >= RSA_BITS && key.rsa().is_ok_and(|rsa| rsa.check_key().is_ok_and(|consistent| consistent))
        }
        KeyKind::Ed25519 => key.id() == Id::ED25519,
        // josekit checks the curve.
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Secp256k1 => {
            key.ec_key().is_ok_and(|key| key.check_key().is_ok())
        }
        KeyKind::Secret => false,
    }
}

/// josekit's signer and the public JWK. `None` if josekit refuses the key, such as one on another curve.
fn signer(algorithm: SigningAlgorithm, key: &PKey<Private>) -> Option<(Box<dyn JwsSigner>, Map<String, Value>)> {
    use SigningAlgorithm as A;
    let der = Zeroizing::new(key.private_key_to_pkcs8().ok()?);
    macro_rules! of {
        ($algorithm:expr) => {{
            let pair = $algorithm.key_pair_from_der(&*der).ok()?;
            (Box::new($algorithm.signer_from_der(&*der).ok()?) as Box<dyn JwsSigner>, pair.to_jwk_public_key())
        }};
    }
    let (signer, jwk) = match algorithm {
        A::Rs256 => of!(RS256),
        A::Rs384 => of!(RS384),
        A::Rs512 => of!(RS512),
        A::Ps256 => of!(PS256),
        A::Ps384 => of!(PS384),
        A::Ps512 => of!(PS512),
        A::Es256 => of!(ES256),
        A::Es384 => of!(ES384),
        A::Es512 => of!(ES512),
        A::Es256k => of!(ES256K),
        A::EdDsa | A::Ed25519 => of!(EdDSA),
        A::Hs256 | A::Hs384 | A::Hs512 => return None,
    };
    Some((signer, jwk.into()))
}

fn problem(what: &'static str) -> Error {
    ConfigurationProblem::Key(what).into()
}

fn symmetric() -> Error {
    problem("HS256, HS384 and HS512 have no private key")
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::jose::verification_key::VerificationKey;
    use crate::jose::{CompactJws, test_keys};

    fn pem(key: PKey<Private>) -> String {
        String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }

    fn ec_key(curve: Nid) -> EcKey<Private> {
        EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()
    }

    fn refusal(result: Result<SigningKey, Error>) -> String {
        let error = result.map(|_| ()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration(ConfigurationProblem::Key(_))), "{error}");
        error.to_string()
    }

    async fn signs_verifiably(key: &SigningKey) {
        let token = sign_compact(key, Map::new(), &json!({"iss": "me"})).await.unwrap();
        let jws = CompactJws::parse(token.expose()).unwrap();
        assert_eq!(jws.header().alg, key.algorithm().as_str());
        assert_eq!(jws.header().kid.as_deref(), key.key_id());
        assert_eq!(jws.payload(), br#"{"iss":"me"}"#);
        let public = VerificationKey::from_jwk(&key.public_jwk()).unwrap();
        assert!(public.verify(key.algorithm(), jws.signing_input(), jws.signature()));
    }

    #[tokio::test]
    async fn a_generated_key_of_every_algorithm_signs_what_its_public_jwk_verifies() {
        for algorithm in test_keys::ASYMMETRIC {
            signs_verifiably(&test_keys::signing_key(algorithm)).await;
        }
    }

    #[tokio::test]
    async fn pem_is_read_in_each_of_its_three_forms() {
        let ec = ec_key(Nid::X9_62_PRIME256V1);
        let sec1 = String::from_utf8(ec.private_key_to_pem().unwrap()).unwrap();
        signs_verifiably(&SigningKey::from_pem(SigningAlgorithm::Es256, &sec1, Some("1".into())).unwrap()).await;
        let pkcs8 = pem(PKey::from_ec_key(ec).unwrap());
        signs_verifiably(&SigningKey::from_pem(SigningAlgorithm::Es256, &pkcs8, None).unwrap()).await;
        let rsa = Rsa::generate(2048).unwrap();
        let pkcs1 = String::from_utf8(rsa.private_key_to_pem().unwrap()).unwrap();
        signs_verifiably(&SigningKey::from_pem(SigningAlgorithm::Rs256, &pkcs1, None).unwrap()).await;
        let pkcs8 = pem(PKey::from_rsa(rsa).unwrap());
        signs_verifiably(&SigningKey::from_pem(SigningAlgorithm::Ps384, &pkcs8, None).unwrap()).await;
        let ed25519 = pem(PKey::generate_ed25519().unwrap());
        signs_verifiably(&SigningKey::from_pem(SigningAlgorithm::EdDsa, &ed25519, None).unwrap()).await;
    }

    #[tokio::test]
    async fn a_jwk_is_read_with_its_kid() {
        let curves = [
            (ES256.generate_key_pair().unwrap(), SigningAlgorithm::Es256),
            (ES512.generate_key_pair().unwrap(), SigningAlgorithm::Es512),
        ];
        for (mut pair, algorithm) in curves {
            pair.set_algorithm(None);
            pair.set_key_id(Some("key-1"));
            let key = SigningKey::from_jwk(&pair.to_jwk_private_key().to_string()).unwrap();
            assert_eq!((key.algorithm(), key.key_id()), (algorithm, Some("key-1")));
            assert_eq!(key.public_jwk()["kid"], "key-1");
            signs_verifiably(&key).await;
        }
        let pair = PS256.generate_key_pair(2048).unwrap();
        signs_verifiably(&SigningKey::from_jwk(&pair.to_jwk_private_key().to_string()).unwrap()).await;
        let pair = EdDSA.generate_key_pair(josekit::jwk::alg::ed::EdCurve::Ed25519).unwrap();
        signs_verifiably(&SigningKey::from_jwk(&pair.to_jwk_private_key().to_string()).unwrap()).await;
    }

    #[tokio::test]
    async fn a_shared_signer_chosen_at_run_time_is_the_signer_itself() {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let public = VerificationKey::from_jwk(&key.public_jwk()).unwrap();
        let shared: Arc<dyn Signer> = Arc::new(SigningKey { key_id: Some("key-1".into()), ..key });
        for signer in [&shared as &dyn Signer, &Arc::new(shared.clone())] {
            let token = sign_compact(signer, Map::new(), &json!({})).await.unwrap();
            let jws = CompactJws::parse(token.expose()).unwrap();
            assert_eq!((jws.header().alg.as_str(), jws.header().kid.as_deref()), ("ES256", Some("key-1")));
            assert!(public.verify(SigningAlgorithm::Es256, jws.signing_input(), jws.signature()));
        }
        let authentication = crate::ClientAuthentication::private_key_jwt(shared);
        assert_eq!(authentication.method(), "private_key_jwt");
    }

    #[test]
    fn a_private_jwk_for_another_use_is_refused() {
        let good = r#"{"alg":"EdDSA","kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        for (members, fits) in [
            (r#""use":"sig","key_ops":["sign","verify"],"#, true),
            (r#""use":"enc","#, false),
            (r#""use":7,"#, false),
            (r#""key_ops":["decrypt"],"#, false),
            (r#""key_ops":["verify"],"#, false),
            (r#""key_ops":"sign","#, false),
            (r#""use":"sig","key_ops":[],"#, true),
            (r#""use":null,"key_ops":null,"#, true),
            (r#""use":"","#, true),
        ] {
            let jwk = good.replacen(r#""alg""#, &format!(r#"{members}"alg""#), 1);
            match fits {
                true => assert!(SigningKey::from_jwk(&jwk).is_ok(), "{members}"),
                false => assert!(refusal(SigningKey::from_jwk(&jwk)).contains("`use`"), "{members}"),
            }
        }
    }

    #[test]
    fn a_malformed_private_jwk_is_refused() {
        let public = test_keys::public_jwk(SigningAlgorithm::Es256);
        let texts = [
            Value::Object(public).to_string(),
            String::new(),
            "[]".into(),
            "{}".into(),
            r#"{"kid":5}"#.into(),
            r#"{"alg":"ES256","kty":5}"#.into(),
            r#"{"alg":"ES256","kty":"EC","crv":"P-256","d":"","x":"","y":""}"#.into(),
            r#"{"alg":"ES256","kty":"EC","crv":"P-256","d":"AA"}"#.into(),
            r#"{"alg":"RS256","kty":"RSA","n":"","e":"","d":"","p":"","q":"","dp":"","dq":"","qi":""}"#.into(),
            r#"{"alg":"EdDSA","kty":"OKP","crv":"Ed25519","d":"AA"}"#.into(),
            r#"{"alg":"HS256","kty":"oct","k":"c2VjcmV0"}"#.into(),
        ];
        for text in texts {
            refusal(SigningKey::from_jwk(&text));
        }
    }

    #[test]
    fn a_private_jwk_whose_public_part_belongs_to_another_key_is_refused() {
        let mut jwk: Value = ES256.generate_key_pair().unwrap().to_jwk_private_key().to_string().parse().unwrap();
        let other = ES256.generate_key_pair().unwrap().to_jwk_public_key();
        jwk["x"] = other.parameter("x").unwrap().clone();
        jwk["y"] = other.parameter("y").unwrap().clone();
        refusal(SigningKey::from_jwk(&jwk.to_string()));
    }

    proptest! {
        #[test]
        fn a_jwk_of_arbitrary_parameters_never_panics(
            kty in "(RSA|EC|OKP)", alg in "(RS256|PS256|ES256|EdDSA)", crv in "(P-256|Ed25519|Ed448|)",
            d in "[A-Za-z0-9_-]{0,44}", x in "[A-Za-z0-9_-]{0,44}", n in "[A-Za-z0-9_-]{0,350}", e in "[A-Za-z0-9_-]{0,6}",
        ) {
            let jwk = json!({
                "kty": kty, "alg": alg, "crv": crv, "d": d, "x": x, "y": x, "n": n, "e": e,
                "p": x, "q": d, "dp": x, "dq": d, "qi": e,
            });
            let _ = SigningKey::from_jwk(&jwk.to_string());
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let p256 = pem(PKey::from_ec_key(ec_key(Nid::X9_62_PRIME256V1)).unwrap());
        for algorithm in test_keys::ASYMMETRIC.into_iter().filter(|&algorithm| algorithm != SigningAlgorithm::Es256) {
            refusal(SigningKey::from_pem(algorithm, &p256, None));
        }
        refusal(SigningKey::from_pem(SigningAlgorithm::EdDsa, &pem(PKey::generate_ed448().unwrap()), None));
        refusal(SigningKey::from_pem(SigningAlgorithm::Hs256, &p256, None));
        refusal(SigningKey::generate(SigningAlgorithm::Hs256));
    }

    #[test]
    fn an_rsa_key_below_2048_bits_is_refused() {
        for bits in [1024, 2047] {
            let weak = pem(PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap());
            refusal(SigningKey::from_pem(SigningAlgorithm::Rs256, &weak, None));
        }
    }

    #[test]
    fn an_encrypted_key_is_refused_without_asking_for_its_passphrase() {
        let key = PKey::from_ec_key(ec_key(Nid::X9_62_PRIME256V1)).unwrap();
        let pem = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"passphrase").unwrap();
        let shown = refusal(SigningKey::from_pem(SigningAlgorithm::Es256, std::str::from_utf8(&pem).unwrap(), None));
        assert!(shown.contains("unencrypted"));
    }

    #[test]
    fn debug_output_shows_no_key_material() {
        let key = test_keys::signing_key(SigningAlgorithm::Es256);
        assert_eq!(format!("{key:?}"), "SigningKey { algorithm: Es256, key_id: None, .. }");
        assert!(!key.public_jwk().contains_key("d"));
    }

    /// Returns the same bytes as every signature.
    #[derive(Debug)]
    struct Constant(SigningAlgorithm, Vec<u8>);

    impl Signer for Constant {
        fn algorithm(&self) -> SigningAlgorithm {
            self.0
        }

        fn key_id(&self) -> Option<&str> {
            None
        }

        fn sign<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
            Box::pin(std::future::ready(Ok(self.1.clone())))
        }
    }

    #[tokio::test]
    async fn a_der_signature_of_a_signer_is_reported() {
        let signer = Constant(SigningAlgorithm::Es256, vec![0x30; 71]);
        let error = sign_compact(&signer, Map::new(), &json!({})).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Signer);
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("DER"));
    }

    #[tokio::test]
    async fn an_empty_or_short_signature_leaves_no_unsigned_assertion() {
        for algorithm in test_keys::ASYMMETRIC {
            for length in [0, 1, 31] {
                let error = sign_compact(&Constant(algorithm, vec![1; length]), Map::new(), &json!({})).await;
                assert_eq!(*error.unwrap_err().kind(), ErrorKind::Signer, "{algorithm:?} {length}");
            }
        }
    }
}
