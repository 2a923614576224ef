//! The cost of a DPoP proof and of verifying an ID Token, compared with the bare signature in each and with
//! `openidconnect`: `scripts/bench small`.
//!
//! Criterion measures CPU time of this thread, so that other load on the machine has less effect. Then a table shows
//! the ratios. Tokens are parsed, and their signatures and claims checked, as a client does with the token of a final
//! response. The bare signature is measured with each library that could do it, with its key parsed beforehand, and the
//! fastest one counts. RustCrypto's RSA and P-256, which `openidconnect`'s verifier uses, are several times slower.

use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{self as aws, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use openid_deferred::measured::{TokenCheck, brought_back, proof, stored};
use openid_deferred::{Clock as _, DpopKey, Signer as _, SigningAlgorithm, SigningKey, SystemClock};
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{ClientId, IssuerUrl, Nonce};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sha::sha256;
use openssl::sign::{RsaPssSaltlen, Verifier};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

type Failed = Box<dyn Error + Send + Sync>;

const ISSUER: &str = "https://op.example";
const CLIENT_ID: &str = "the-client";
const NONCE: &str = "n-0S6_WzA2Mj9dVbxRzrHNnPbWJ0y5W2mVVcA3VJ6jM";
const ACCESS_TOKEN: &str = "SlAV32hkKG-mF_9B.5zqM-1JcZpXoGtJFjcZbdRVWjCB0.41htVEr8n_zvDyWjN";

fn main() -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small");
    let began = SystemClock.now();
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .output_directory(&folder)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    proofs(&mut criterion)?;
    for algorithm in
        [SigningAlgorithm::Rs256, SigningAlgorithm::Ps256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa]
    {
        id_tokens(&mut criterion, algorithm)?;
    }
    criterion.final_summary();
    Results { folder, began }.show();
    Ok(())
}

const BARE_SIGNATURE: &str = "OpenSSL, bare signature";
const LIVE_KEY: &str = "this crate, live key";
const STORED_KEY: &str = "this crate, key from storage";

/// Proofs as polls carry them, compared with an ECDSA signature over the hash of the same bytes.
fn proofs(criterion: &mut Criterion<CpuTime>) -> Result<(), Failed> {
    let (url, now) = ("https://op.example/token".parse()?, SystemClock.now());
    let key = DpopKey::generate(SigningAlgorithm::Es256)?;
    let kept = stored(&key)?;
    let bare = EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?;
    let one = proof(&key, &url, now)?;
    let hash = sha256(one.rsplit_once('.').ok_or("no signature")?.0.as_bytes());
    let mut group = criterion.benchmark_group("proof");
    group.bench_function(BARE_SIGNATURE, |bench| bench.iter(|| EcdsaSig::sign(black_box(&hash), &bare).unwrap()));
    group.bench_function(LIVE_KEY, |bench| bench.iter(|| proof(black_box(&key), &url, now).unwrap()));
    group.bench_function(STORED_KEY, |bench| {
        bench.iter(|| proof(&brought_back(black_box(&kept)).unwrap(), &url, now).unwrap());
    });
    group.finish();
    Ok(())
}

const CRATE: &str = "this crate";
const OPENIDCONNECT: &str = "openidconnect";
const OPENSSL: &str = "OpenSSL";
const AWS_LC: &str = "AWS-LC";
const DALEK: &str = "ed25519-dalek";

fn id_tokens(criterion: &mut Criterion<CpuTime>, algorithm: SigningAlgorithm) -> Result<(), Failed> {
    let signed = Signed::new(algorithm)?;
    let mut group = criterion.benchmark_group(algorithm.as_str());

    let openssl = signed.openssl()?;
    assert!(openssl.verify(&signed.message, &signed.signature)?);
    group.bench_function(OPENSSL, |bench| {
        bench.iter(|| openssl.verify(black_box(&signed.message), &signed.signature).unwrap());
    });
    let aws_lc = signed.aws_lc()?;
    assert!(aws_lc.verify_sig(&signed.message, &signed.signature).is_ok());
    group.bench_function(AWS_LC, |bench| {
        bench.iter(|| aws_lc.verify_sig(black_box(&signed.message), &signed.signature).unwrap());
    });
    if algorithm == SigningAlgorithm::EdDsa {
        let key = ed25519_dalek::VerifyingKey::try_from(signed.octets("x")?.as_slice())?;
        let verify = |message: &[u8], signature: &[u8]| {
            ed25519_dalek::Verifier::verify(&key, message, &ed25519_dalek::Signature::from_slice(signature).unwrap())
                .unwrap();
        };
        group.bench_function(DALEK, |bench| bench.iter(|| verify(black_box(&signed.message), &signed.signature)));
    }

    let facts = [ISSUER, CLIENT_ID, NONCE, ACCESS_TOKEN];
    let check = TokenCheck::new(signed.keys.to_string().as_bytes(), algorithm, facts, SystemClock.now())?;
    assert!(check.verify(&signed.token).is_ok());
    group.bench_function(CRATE, |bench| bench.iter(|| check.verify(black_box(&signed.token)).unwrap()));

    let keys: CoreJsonWebKeySet = serde_json::from_value(signed.keys.clone())?;
    let (client_id, issuer) = (ClientId::new(CLIENT_ID.to_owned()), IssuerUrl::new(ISSUER.to_owned())?);
    let verifier =
        CoreIdTokenVerifier::new_public_client(client_id, issuer, keys).set_allowed_algs([match algorithm {
            SigningAlgorithm::Rs256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
            SigningAlgorithm::Ps256 => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
            SigningAlgorithm::Es256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
            _ => CoreJwsSigningAlgorithm::EdDsa,
        }]);
    let nonce = Nonce::new(NONCE.to_owned());
    let verify = |token: &str| {
        let token: CoreIdToken = token.parse().unwrap();
        token.into_claims(&verifier, &nonce).unwrap()
    };
    group.bench_function(OPENIDCONNECT, |bench| bench.iter(|| verify(black_box(&signed.token))));
    group.finish();
    Ok(())
}

/// An ID Token of a usual size with the key that verifies it.
struct Signed {
    algorithm: SigningAlgorithm,
    jwk: Map<String, Value>,
    keys: Value,
    token: String,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    fn new(algorithm: SigningAlgorithm) -> Result<Self, Failed> {
        let key = SigningKey::generate(algorithm)?;
        let mut jwk = key.public_jwk();
        jwk.insert("kid".to_owned(), "2026-11".into());
        let now = SystemClock.now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let hash = match algorithm {
            SigningAlgorithm::EdDsa => openssl::sha::sha512(ACCESS_TOKEN.as_bytes()).to_vec(),
            _ => sha256(ACCESS_TOKEN.as_bytes()).to_vec(),
        };
        let claims = json!({
            "iss": ISSUER, "sub": "248289761001", "aud": CLIENT_ID, "iat": now, "exp": now + 86_400, "nonce": NONCE,
            "auth_time": now - 30, "acr": "urn:example:loa:substantial", "amr": ["pwd", "otp"],
            "at_hash": URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]),
            "name": "Jane Doe", "given_name": "Jane", "family_name": "Doe", "email": "jane.doe@example.com",
            "email_verified": true,
        });
        let header = json!({"alg": algorithm.as_str(), "typ": "JWT", "kid": "2026-11"});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature =
            tokio::runtime::Builder::new_current_thread().build()?.block_on(key.sign(message.as_bytes()))?;
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&signature));
        let keys = json!({"keys": [jwk.clone()]});
        Ok(Self { algorithm, jwk, keys, token, message: message.into_bytes(), signature })
    }

    fn octets(&self, name: &str) -> Result<Vec<u8>, Failed> {
        Ok(URL_SAFE_NO_PAD.decode(self.jwk.get(name).and_then(Value::as_str).ok_or("no such parameter")?)?)
    }

    fn openssl(&self) -> Result<OpenSsl, Failed> {
        let number = |name| -> Result<BigNum, Failed> { Ok(BigNum::from_slice(&self.octets(name)?)?) };
        Ok(match self.algorithm {
            SigningAlgorithm::Es256 => {
                let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
                let key = EcKey::from_public_key_affine_coordinates(&group, &*number("x")?, &*number("y")?)?;
                OpenSsl::Ecdsa(key)
            }
            SigningAlgorithm::EdDsa => {
                OpenSsl::Ed25519(PKey::public_key_from_raw_bytes(&self.octets("x")?, Id::ED25519)?)
            }
            _ => {
                let key = PKey::from_rsa(Rsa::from_public_components(number("n")?, number("e")?)?)?;
                OpenSsl::Rsa { key, pss: self.algorithm == SigningAlgorithm::Ps256 }
            }
        })
    }

    fn aws_lc(&self) -> Result<ParsedPublicKey, Failed> {
        let key = match self.algorithm {
            SigningAlgorithm::Es256 => {
                let point = [vec![4], self.octets("x")?, self.octets("y")?].concat();
                ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point)
            }
            SigningAlgorithm::EdDsa => ParsedPublicKey::new(&aws::ED25519, self.octets("x")?),
            _ => {
                let number = |name| -> Result<BigNum, Failed> { Ok(BigNum::from_slice(&self.octets(name)?)?) };
                let pss = self.algorithm == SigningAlgorithm::Ps256;
                let scheme = if pss { &aws::RSA_PSS_2048_8192_SHA256 } else { &aws::RSA_PKCS1_2048_8192_SHA256 };
                let key = Rsa::from_public_components(number("n")?, number("e")?)?;
                ParsedPublicKey::new(scheme, key.public_key_to_der_pkcs1()?)
            }
        };
        key.map_err(|_| "AWS-LC refuses the key".into())
    }
}

/// The fastest verification that the crate `openssl` has for each algorithm, without keeping a context.
enum OpenSsl {
    Rsa { key: PKey<Public>, pss: bool },
    Ecdsa(EcKey<Public>),
    Ed25519(PKey<Public>),
}

impl OpenSsl {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        match self {
            Self::Rsa { key, pss } => {
                let mut verifier = Verifier::new(MessageDigest::sha256(), key)?;
                if *pss {
                    verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                    verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                }
                verifier.verify_oneshot(signature, message)
            }
            Self::Ecdsa(key) => {
                let (r, s) = signature.split_at(signature.len() / 2);
                let signature = EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
                signature.verify(&sha256(message), key)
            }
            Self::Ed25519(key) => Verifier::new_without_digest(key)?.verify_oneshot(signature, message),
        }
    }
}

/// The results that Criterion has written in this run, in microseconds.
struct Results {
    folder: PathBuf,
    began: SystemTime,
}

impl Results {
    fn show(&self) {
        println!("{:<8} {:<30} {:>8} {:>10}", "", "", "µs", "of bare");
        let bare = self.median("proof", BARE_SIGNATURE);
        for name in [BARE_SIGNATURE, LIVE_KEY, STORED_KEY] {
            self.row("proof", name, bare);
        }
        for group in ["RS256", "PS256", "ES256", "EdDSA"] {
            let libraries = [OPENSSL, AWS_LC, DALEK];
            let bare = libraries.into_iter().filter_map(|name| self.median(group, name)).min_by(f64::total_cmp);
            for name in [OPENSSL, AWS_LC, DALEK, CRATE, OPENIDCONNECT] {
                self.row(group, name, bare);
            }
            if let (Some(ours), Some(theirs)) = (self.median(group, CRATE), self.median(group, OPENIDCONNECT)) {
                println!("{group:<8} {CRATE:<30} {:>8} {:>10.2} of {OPENIDCONNECT}", "", theirs / ours);
            }
        }
    }

    fn row(&self, group: &str, name: &str, bare: Option<f64>) {
        if let Some(micros) = self.median(group, name) {
            let of = bare.map_or_else(String::new, |bare| format!("{:.2}", bare / micros));
            println!("{group:<8} {name:<30} {micros:>8.2} {of:>10}");
        }
    }

    /// Returns `None` for a benchmark that a filter on the command line left out, even if an earlier run measured it.
    fn median(&self, group: &str, name: &str) -> Option<f64> {
        let file = self.folder.join(group).join(name).join("new").join("estimates.json");
        if std::fs::metadata(&file).ok()?.modified().ok()? < self.began {
            return None;
        }
        let estimates: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        Some(estimates["median"]["point_estimate"].as_f64()? / 1e3)
    }
}

/// CPU time of this thread instead of elapsed time.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    fn end(&self, began: Duration) -> Duration {
        self.start() - began
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}
