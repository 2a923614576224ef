//! The DPoP keys of sign-ins and requests.

use super::Client;
use super::options::DpopMode;
use super::signing_algorithms::names;
use crate::dpop::DpopKey;
use crate::error::{ConfigurationProblem, Error, ErrorKind};
use crate::jose::SigningAlgorithm;
use crate::provider::ProviderMetadata;

impl Client {
    /// Makes the DPoP key of a new sign-in.
    pub(super) async fn new_dpop_key(&self, metadata: &ProviderMetadata) -> Result<Option<DpopKey>, Error> {
        match (self.0.options.dpop(), self.dpop_algorithm(metadata)?) {
            (DpopMode::Shared(key), _) => Ok(Some(key.clone())),
            // Finding the primes of an RSA key takes a tenth of a second, which would delay other tasks.
            (_, Some(algorithm @ SigningAlgorithm::Ps256)) => {
                let generated = tokio::task::spawn_blocking(move || DpopKey::generate(algorithm)).await;
                generated.map_err(|error| Error::new(ErrorKind::Cryptography).with_source(error))?.map(Some)
            }
            (_, Some(algorithm)) => DpopKey::generate(algorithm).map(Some),
            (_, None) => Ok(None),
        }
    }

    /// The algorithm of a shared key, or our first algorithm that the OP lists. If the OP lists none, ES256 is used,
    /// which every OP with DPoP supports.
    pub(super) fn dpop_algorithm(&self, metadata: &ProviderMetadata) -> Result<Option<SigningAlgorithm>, Error> {
        const PREFERRED: [SigningAlgorithm; 4] =
            [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Ed25519, SigningAlgorithm::Ps256];
        let shared;
        let usable: &[SigningAlgorithm] = match self.0.options.dpop() {
            DpopMode::Off => return Ok(None),
            DpopMode::PerProcess => &PREFERRED,
            DpopMode::Shared(key) => {
                shared = [key.algorithm()];
                &shared
            }
        };
        const MEMBER: &str = "dpop_signing_alg_values_supported";
        let listed = metadata.dpop_signing_alg_values_supported();
        let is_listed = |ours: &SigningAlgorithm| listed.is_empty() || listed.iter().any(|name| name == ours.as_str());
        let first = usable.first().filter(|_| self.0.options.allow_unadvertised);
        usable
            .iter()
            .copied()
            .find(is_listed)
            .or(first.copied())
            .map(Some)
            .ok_or_else(|| ConfigurationProblem::NotAdvertised { member: MEMBER, value: names(usable) }.into())
    }
}
