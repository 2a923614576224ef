//! The algorithms that the OP's signatures may have.

use super::Client;
use crate::error::{ConfigurationProblem, Document, Error, Rule, Violation};
use crate::jose::SigningAlgorithm;
use crate::provider::{ProviderMetadata, SignedJwt};

/// The metadata member in which the OP lists the algorithms of its ID Tokens.
const ID_TOKEN_ALGORITHMS: &str = "id_token_signing_alg_values_supported";

/// The algorithms of which the OP must list one, in the form of an error text.
pub(super) const SIGNATURES: &str = "RS256` or `PS256` or `ES256` or `EdDSA";

/// Joins several algorithms in the form of an error text.
pub(super) fn names(algorithms: &[SigningAlgorithm]) -> String {
    let names: Vec<_> = algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
    names.join("` or `")
}

impl Client {
    /// The algorithms that an ID Token may be signed with: the configured one, or the asymmetric ones that the OP
    /// lists.
    pub(super) async fn id_token_algorithms(&self) -> Result<Vec<SigningAlgorithm>, Error> {
        if let Some(chosen) = self.0.options.algorithms.id_token_signature {
            return Ok(vec![chosen]);
        }
        Ok(self.listed_id_token_algorithms(&self.0.provider.metadata().await?))
    }

    /// The algorithms that an ID Token may be signed with, if the algorithm of `jwt` is one of them. If it is not, the
    /// metadata may be fetched again, because the OP may have started to use an algorithm after its metadata was
    /// fetched. An algorithm that was configured is final, and an HMAC algorithm is never accepted because an OP lists
    /// it.
    ///
    /// The outer error is transient, the inner one is not.
    pub(super) async fn id_token_algorithms_for(
        &self,
        jwt: &SignedJwt,
    ) -> Result<Result<Vec<SigningAlgorithm>, Violation>, Error> {
        let refused = Violation::new(Rule::IdTokenAlgorithm).in_document(Document::IdToken);
        if let Some(chosen) = self.0.options.algorithms.id_token_signature {
            return Ok(Some(vec![chosen]).filter(|_| chosen == jwt.algorithm).ok_or(refused));
        }
        if !self.may_be_listed(jwt.algorithm) {
            return Ok(Err(refused));
        }
        let fit = |metadata: &ProviderMetadata| self.listed_id_token_algorithms(metadata).contains(&jwt.algorithm);
        let fitting = self.0.provider.metadata_fitting(jwt, refused, fit).await?;
        Ok(fitting.map(|metadata| self.listed_id_token_algorithms(&metadata)))
    }

    pub(super) fn listed_id_token_algorithms(&self, metadata: &ProviderMetadata) -> Vec<SigningAlgorithm> {
        self.asymmetric(metadata, ID_TOKEN_ALGORITHMS, metadata.id_token_signing_alg_values_supported())
    }

    /// Checks that the OP lists an algorithm that its ID Tokens may be signed with here. Otherwise all of them would be
    /// refused, after users have waited for them.
    pub(super) fn check_id_token_algorithms(&self, metadata: &ProviderMetadata) -> Result<(), ConfigurationProblem> {
        let listed = metadata.id_token_signing_alg_values_supported();
        let value = match self.0.options.algorithms.id_token_signature {
            _ if self.0.options.allow_unadvertised => return Ok(()),
            Some(_) if metadata.is_silent_about(ID_TOKEN_ALGORITHMS) => return Ok(()),
            Some(chosen) if listed.iter().any(|name| name == chosen.as_str()) => return Ok(()),
            Some(chosen) => names(&[chosen]),
            None if !self.listed_id_token_algorithms(metadata).is_empty() => return Ok(()),
            None => SIGNATURES.into(),
        };
        Err(ConfigurationProblem::NotAdvertised { member: ID_TOKEN_ALGORITHMS, value })
    }

    /// Refuses to start a sign-in whose ID Token could not be accepted. If the configured algorithm is no longer
    /// listed, that is only a warning at this point.
    pub(super) fn check_id_token_support(&self, metadata: &ProviderMetadata) -> Result<(), ConfigurationProblem> {
        if self.0.options.algorithms.id_token_signature.is_some() {
            return Ok(());
        }
        self.check_id_token_algorithms(metadata)
    }

    /// The asymmetric algorithms among those that the OP lists in a member. If there are none, it is RS256, the default
    /// of every such list, provided that the member is missing or `allow_unadvertised` is set.
    pub(super) fn asymmetric(
        &self,
        metadata: &ProviderMetadata,
        member: &str,
        listed: &[String],
    ) -> Vec<SigningAlgorithm> {
        let usable = |algorithm: &SigningAlgorithm| self.may_be_listed(*algorithm);
        let known = listed.iter().filter_map(|name| SigningAlgorithm::from_name(name)).filter(usable);
        let mut algorithms: Vec<_> = known.collect();
        if algorithms.is_empty() && (self.0.options.allow_unadvertised || metadata.is_silent_about(member)) {
            algorithms.extend([SigningAlgorithm::Rs256].into_iter().filter(usable));
        }
        algorithms
    }

    /// Whether a signature with this algorithm is accepted because the OP lists the algorithm.
    pub(super) fn may_be_listed(&self, algorithm: SigningAlgorithm) -> bool {
        !algorithm.is_symmetric() && self.0.options.allows(algorithm)
    }
}
