//! Entry points for `benches/small.rs`: a DPoP proof and the verification of an ID Token. Applications reach them only
//! as parts of a request. They are not part of the public interface.

use std::time::{Duration, SystemTime};

use http::Method;
use url::Url;

use crate::clock::unix_seconds;
use crate::dpop::{DpopKey, ProofParts};
use crate::error::Error;
use crate::id_token::{Expectations, IdToken, header, verify_final};
use crate::jose::{KeySet, SigningAlgorithm};
use crate::random::{self, SystemRandom};
use crate::secret::Secret;

/// Makes the proof for one `POST` without a nonce, with a new `jti`, as for a poll.
pub fn proof(key: &DpopKey, url: &Url, now: SystemTime) -> Result<String, Error> {
    let id = random::base64url::<16>(&SystemRandom)?;
    let (method, issued_at) = (&Method::POST, unix_seconds(now));
    key.proof(&ProofParts { method, url, issued_at, id: &id, nonce: None, access_token: None })
}

/// The key in the form that sealed values contain.
pub fn stored(key: &DpopKey) -> Result<Vec<u8>, Error> {
    Ok(key.to_bytes()?.to_vec())
}

/// Restores a stored key.
pub fn brought_back(stored: &[u8]) -> Result<DpopKey, Error> {
    DpopKey::from_bytes(stored)
}

/// The values that a client checks an ID Token against.
pub struct TokenCheck {
    keys: KeySet,
    issuer: String,
    client_id: String,
    nonce: String,
    access_token: Secret,
    algorithms: Vec<SigningAlgorithm>,
    received_at: SystemTime,
}

impl TokenCheck {
    /// Uses the OP's keys, given as a JWK Set.
    pub fn new(
        keys: &[u8],
        algorithm: SigningAlgorithm,
        [issuer, client_id, nonce, access_token]: [&str; 4],
        received_at: SystemTime,
    ) -> Result<Self, Error> {
        Ok(Self {
            keys: KeySet::parse(keys)?,
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            nonce: nonce.to_owned(),
            access_token: Secret::new(access_token),
            algorithms: vec![algorithm],
            received_at,
        })
    }

    /// Makes all checks of the ID Token of a final response, once the keys are available.
    pub fn verify(&self, token: &str) -> Result<IdToken, Error> {
        // A client reads the header first, to find out whether it has the key.
        let (algorithm, kid) = header(token)?;
        debug_assert!(self.keys.has(kid.as_deref(), algorithm));
        let expectations = Expectations {
            issuer: &self.issuer,
            client_id: &self.client_id,
            trusted_audiences: &[],
            algorithms: &self.algorithms,
            hmac_secret: None,
            nonce: Some(&self.nonce),
            max_age: None,
            require_auth_time: false,
            require_acr: false,
            essential_acr: &[],
            access_token: Some(&self.access_token),
            code: None,
            leeway: Duration::from_secs(60),
            received_at: self.received_at,
            interim_fingerprint: None,
            interim_claims: None,
            interim_subject: None,
            hinted_subject: None,
        };
        Ok(verify_final(token, &self.keys, &expectations)?)
    }
}
