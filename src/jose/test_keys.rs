//! One key pair per algorithm for the tests of this crate, generated once per run.

use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::{Signer, SigningAlgorithm, SigningKey};

pub(crate) const ASYMMETRIC: [SigningAlgorithm; 12] = [
    SigningAlgorithm::Rs256,
    SigningAlgorithm::Rs384,
    SigningAlgorithm::Rs512,
    SigningAlgorithm::Ps256,
    SigningAlgorithm::Ps384,
    SigningAlgorithm::Ps512,
    SigningAlgorithm::Es256,
    SigningAlgorithm::Es384,
    SigningAlgorithm::Es512,
    SigningAlgorithm::Es256k,
    SigningAlgorithm::EdDsa,
    SigningAlgorithm::Ed25519,
];

static KEYS: Mutex<Vec<(SigningAlgorithm, Arc<SigningKey>)>> = Mutex::new(Vec::new());

pub(crate) fn signing_key(algorithm: SigningAlgorithm) -> Arc<SigningKey> {
    let mut keys = KEYS.lock().unwrap();
    if let Some((_, key)) = keys.iter().find(|(known, _)| *known == algorithm) {
        return Arc::clone(key);
    }
    let key = Arc::new(SigningKey::generate(algorithm).unwrap());
    keys.push((algorithm, Arc::clone(&key)));
    key
}

pub(crate) fn public_jwk(algorithm: SigningAlgorithm) -> Map<String, Value> {
    signing_key(algorithm).public_jwk()
}

pub(crate) fn sign(algorithm: SigningAlgorithm, message: &[u8]) -> Vec<u8> {
    let key = signing_key(algorithm);
    let mut signature = key.sign(message);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match signature.as_mut().poll(&mut context) {
        std::task::Poll::Ready(signature) => signature.unwrap(),
        std::task::Poll::Pending => unreachable!("a key in memory signs at once"),
    }
}
