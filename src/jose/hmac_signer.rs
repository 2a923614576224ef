//! Signatures with a secret that the OP knows too, for `client_secret_jwt`.

use futures_core::future::BoxFuture;

use super::algorithm::SigningAlgorithm;
use super::digest;
use super::signer::Signer;
use crate::error::Error;
use crate::secret::Secret;

/// A client secret that signs with an HMAC.
#[derive(Debug)]
pub(crate) struct HmacSigner {
    algorithm: SigningAlgorithm,
    secret: Secret,
}

impl HmacSigner {
    /// `None` if the algorithm is not an HMAC, or the secret is shorter than its hash: "A key of the same size as the
    /// hash output [...] or larger MUST be used with this algorithm" (RFC 7518 §3.2).
    pub(crate) fn new(algorithm: SigningAlgorithm, secret: &Secret) -> Option<Self> {
        let suffices = algorithm.is_symmetric() && secret.expose().len() >= algorithm.hash().length();
        suffices.then(|| Self { algorithm, secret: secret.clone() })
    }
}

impl Signer for HmacSigner {
    fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        let mac = digest::hmac(self.algorithm.hash(), self.secret.expose().as_bytes(), &[message]);
        Box::pin(std::future::ready(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_shorter_than_the_hash_does_not_sign() {
        for (algorithm, length) in
            [(SigningAlgorithm::Hs256, 32), (SigningAlgorithm::Hs384, 48), (SigningAlgorithm::Hs512, 64)]
        {
            assert!(HmacSigner::new(algorithm, &"s".repeat(length).into()).is_some());
            assert!(HmacSigner::new(algorithm, &"s".repeat(length - 1).into()).is_none());
        }
        assert!(HmacSigner::new(SigningAlgorithm::Es256, &"s".repeat(64).into()).is_none());
    }

    #[tokio::test]
    async fn the_signature_is_the_hmac_of_the_message() {
        let signer = HmacSigner::new(SigningAlgorithm::Hs256, &"k".repeat(32).into()).unwrap();
        let mac = signer.sign(b"message").await.unwrap();
        assert_eq!(mac, digest::hmac_sha256("k".repeat(32).as_bytes(), &[b"message"]));
    }
}
