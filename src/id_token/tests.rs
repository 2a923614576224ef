mod claims;
mod header;
mod hostile;
mod interim;
mod output;
mod signature;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::*;
use crate::clock::from_unix_seconds;
use crate::error::{Document, Violation};
use crate::jose::{KeySet, test_keys};

const ISSUER: &str = "https://op.example";
const CLIENT: &str = "the-client";
const NONCE: &str = "the-nonce";
const ACCESS_TOKEN: &str = "the-access-token";
const HMAC_SECRET: &str = "a client secret of more than sixty-four characters, which all of the HMACs accept";
/// When the request was sent and when the response came, a day later.
const SENT: u64 = 1_800_000_000;
const RECEIVED: u64 = SENT + 86_400;
const LEEWAY: u64 = 60;

/// One token under test: what is signed, and what it is held against.
struct Case {
    algorithm: SigningAlgorithm,
    header: Value,
    claims: Value,
    algorithms: Vec<SigningAlgorithm>,
    trusted: Vec<String>,
    hmac_secret: Option<Secret>,
    nonce: Option<&'static str>,
    max_age: Option<Duration>,
    require_auth_time: bool,
    require_acr: bool,
    essential_acr: Vec<String>,
    access_token: Option<Secret>,
    code: Option<Secret>,
    interim_fingerprint: Option<InterimFingerprint>,
    interim_claims: Option<Claims>,
    interim_subject: Option<&'static str>,
    hinted_subject: Option<&'static str>,
    received_at: u64,
}

impl Case {
    /// A token that everything is right with.
    fn good() -> Self {
        Self {
            algorithm: SigningAlgorithm::Es256,
            header: json!({"alg": "ES256"}),
            claims: json!({
                "iss": ISSUER, "sub": "user-1", "aud": CLIENT, "iat": RECEIVED - 10, "exp": RECEIVED + 300,
                "nonce": NONCE,
            }),
            algorithms: test_keys::ASYMMETRIC.to_vec(),
            trusted: Vec::new(),
            hmac_secret: None,
            nonce: Some(NONCE),
            max_age: None,
            require_auth_time: false,
            require_acr: false,
            essential_acr: Vec::new(),
            access_token: Some(Secret::new(ACCESS_TOKEN)),
            code: None,
            interim_fingerprint: None,
            interim_claims: None,
            interim_subject: None,
            hinted_subject: None,
            received_at: RECEIVED,
        }
    }

    fn with(name: &str, value: impl Into<Value>) -> Self {
        let mut case = Self::good();
        case.claims[name] = value.into();
        case
    }

    fn without(name: &str) -> Self {
        let mut case = Self::good();
        case.claims.as_object_mut().unwrap().remove(name);
        case
    }

    fn signed_with(algorithm: SigningAlgorithm) -> Self {
        Self { algorithm, header: json!({"alg": algorithm.as_str()}), ..Self::good() }
    }

    fn with_header(header: Value) -> Self {
        Self { header, ..Self::good() }
    }

    fn token(&self) -> String {
        self.token_of(&self.claims.to_string())
    }

    fn token_of(&self, claims: &str) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let message = format!("{}.{}", encode(self.header.to_string().as_bytes()), encode(claims.as_bytes()));
        format!("{message}.{}", encode(&test_keys::sign(self.algorithm, message.as_bytes())))
    }

    fn expecting<T>(&self, judge: impl FnOnce(&Expectations<'_>) -> T) -> T {
        judge(&Expectations {
            issuer: ISSUER,
            client_id: CLIENT,
            trusted_audiences: &self.trusted,
            algorithms: &self.algorithms,
            hmac_secret: self.hmac_secret.clone().map(Arc::new),
            nonce: self.nonce,
            max_age: self.max_age.map(|max_age| (max_age, from_unix_seconds(SENT))),
            require_auth_time: self.require_auth_time,
            require_acr: self.require_acr,
            essential_acr: &self.essential_acr,
            access_token: self.access_token.as_ref(),
            code: self.code.as_ref(),
            leeway: Duration::from_secs(LEEWAY),
            received_at: from_unix_seconds(self.received_at),
            interim_fingerprint: self.interim_fingerprint.as_ref(),
            interim_claims: self.interim_claims.as_ref(),
            interim_subject: self.interim_subject,
            hinted_subject: self.hinted_subject,
        })
    }

    fn verify(&self) -> Result<IdToken, Violation> {
        self.verify_token(&self.token())
    }

    fn verify_token(&self, token: &str) -> Result<IdToken, Violation> {
        self.expecting(|e| verify_final(token, keys(), e))
    }

    fn verify_interim(&self) -> Result<InterimIdToken, Violation> {
        self.expecting(|e| verify_interim(&self.token(), InterimMember::InterimIdToken, keys(), e))
    }

    fn is_accepted(&self) {
        self.verify().unwrap();
        self.verify_interim().unwrap();
    }

    /// As final and as interim.
    fn breaks(&self, rule: Rule) {
        assert_eq!(self.verify().unwrap_err().rule(), rule);
        assert_eq!(self.verify_interim().unwrap_err().rule(), rule);
    }

    fn breaks_as_final_only(&self, rule: Rule) {
        assert_eq!(self.verify().unwrap_err().rule(), rule);
        self.verify_interim().unwrap();
    }
}

fn keys() -> &'static KeySet {
    static KEYS: OnceLock<KeySet> = OnceLock::new();
    KEYS.get_or_init(|| {
        KeySet::parse(json!({"keys": test_keys::ASYMMETRIC.map(test_keys::public_jwk)}).to_string().as_bytes()).unwrap()
    })
}

fn hmac_token(secret: &[u8], claims: &Value) -> String {
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(json!({"alg": "HS256"}).to_string()), encode(claims.to_string()));
    let signature = crate::jose::hmac_sha256(secret, &[message.as_bytes()]);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn half_hash(algorithm: SigningAlgorithm, text: &str) -> String {
    let hash = crate::jose::hash(algorithm.hash(), text.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2])
}
