//! Chooses the authentication method: the configured one, or the best one that the OP lists and the credentials allow.

use std::sync::Arc;

use super::{ClientAuthentication, Method};
use crate::error::ConfigurationProblem;
use crate::jose::{HmacSigner, Signer, SigningAlgorithm};
use crate::secret::{Secret, SharedSecret};
use crate::transport::ClientCertificate;

/// The OP's metadata about client authentication (RFC 8414 §2).
#[derive(Clone, Copy)]
pub(crate) struct Offer<'a> {
    /// `token_endpoint_auth_methods_supported`.
    pub(crate) methods: &'a [String],
    /// `token_endpoint_auth_signing_alg_values_supported`; empty if the OP lists none.
    pub(crate) algorithms: &'a [String],
}

/// Credentials without a configured method.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenCredentials {
    pub(crate) secret: Option<SharedSecret>,
    pub(crate) signer: Option<Arc<dyn Signer>>,
    pub(crate) certificate: Option<ClientCertificate>,
}

const METHODS: &str = "token_endpoint_auth_methods_supported";
const ALGORITHMS: &str = "token_endpoint_auth_signing_alg_values_supported";
const HMACS: [SigningAlgorithm; 3] = [SigningAlgorithm::Hs256, SigningAlgorithm::Hs384, SigningAlgorithm::Hs512];

impl GivenCredentials {
    /// The strongest method that these credentials allow and the OP lists. Without credentials the client is public.
    ///
    /// # Errors
    ///
    /// If the OP lists none of the methods that the credentials allow.
    pub(crate) fn best(&self, offer: Offer<'_>) -> Result<ClientAuthentication, ConfigurationProblem> {
        let candidates = self.candidates();
        let mut refusals = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            match candidate.settled(offer) {
                Ok(settled) => return Ok(settled),
                Err(refusal) => refusals.push(refusal),
            }
        }
        let is_unlisted = |refusal: &ConfigurationProblem| {
            matches!(refusal, ConfigurationProblem::NotAdvertised { member: METHODS, .. })
        };
        // The error of a listed method that cannot be used is more useful than that of an unlisted one.
        if let Some(telling) = refusals.into_iter().find(|refusal| !is_unlisted(refusal)) {
            return Err(telling);
        }
        let names: Vec<_> = candidates.iter().map(ClientAuthentication::method).collect();
        Err(ConfigurationProblem::NotAdvertised { member: METHODS, value: names.join("` or `") })
    }

    /// The strongest method, whatever the OP lists.
    pub(crate) fn first(&self) -> ClientAuthentication {
        self.candidates().into_iter().next().unwrap_or_else(ClientAuthentication::none)
    }

    /// The methods that the credentials allow, the strongest first: private keys before shared secrets, and secrets
    /// that are not sent before those that are.
    fn candidates(&self) -> Vec<ClientAuthentication> {
        let certificate = self.certificate.iter().map(|certificate| {
            let method = match certificate.current().is_self_signed() {
                true => Method::SelfSignedTlsClientAuth,
                false => Method::TlsClientAuth,
            };
            method(certificate.clone())
        });
        let signer = self.signer.iter().map(|signer| Method::PrivateKeyJwt(signer.clone()));
        let secret = self.secret.iter().flat_map(|secret| {
            let jwt = long_enough(&secret.current(), &HMACS).then(|| Method::ClientSecretJwt(secret.clone(), None));
            let sent = [Method::ClientSecretBasic(secret.clone()), Method::ClientSecretPost(secret.clone())];
            jwt.into_iter().chain(sent)
        });
        let mut candidates: Vec<_> = certificate.chain(signer).chain(secret).map(ClientAuthentication).collect();
        if candidates.is_empty() {
            candidates.push(ClientAuthentication::none());
        }
        candidates
    }
}

impl ClientAuthentication {
    /// Whether the OP's metadata is not needed any more.
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self.0, Method::ClientSecretJwt(_, None))
    }

    /// The same method with a chosen algorithm, if the OP lists it. A public client may continue if `none` is not
    /// listed.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::NotAdvertised`], or [`ConfigurationProblem::Setting`] for a secret that is too short for
    /// the algorithms that the OP lists.
    pub(crate) fn settled(&self, offer: Offer<'_>) -> Result<Self, ConfigurationProblem> {
        if matches!(self.0, Method::None) && !offer.methods.iter().any(|listed| listed == "none") {
            // OPs that accept public clients often do not list `none`.
            tracing::warn!("the OP does not list the authentication method `none` and may refuse this public client");
        } else if !offer.methods.iter().any(|listed| listed == self.method()) {
            return Err(ConfigurationProblem::NotAdvertised { member: METHODS, value: self.method().to_owned() });
        }
        let is_listed = |algorithm: &SigningAlgorithm| {
            offer.algorithms.is_empty() || offer.algorithms.iter().any(|listed| listed == algorithm.as_str())
        };
        let unlisted = |algorithms: &[SigningAlgorithm]| {
            let names: Vec<_> = algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            ConfigurationProblem::NotAdvertised { member: ALGORITHMS, value: names.join("` or `") }
        };
        match &self.0 {
            Method::PrivateKeyJwt(signer) if !is_listed(&signer.algorithm()) => Err(unlisted(&[signer.algorithm()])),
            Method::ClientSecretJwt(secret, chosen) => {
                let wanted = chosen.as_ref().map_or(&HMACS[..], std::slice::from_ref);
                let listed: Vec<_> = wanted.iter().copied().filter(is_listed).collect();
                let Some(_) = listed.first() else { return Err(unlisted(wanted)) };
                let algorithm = listed.into_iter().find(|&algorithm| long_enough(&secret.current(), &[algorithm]));
                let algorithm = algorithm.ok_or(TOO_SHORT)?;
                Ok(Self(Method::ClientSecretJwt(secret.clone(), Some(algorithm))))
            }
            _ => Ok(self.clone()),
        }
    }

    /// Checks that do not need the OP's metadata.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Setting`] for a secret that is too short for any HMAC, or an algorithm that is not an HMAC.
    pub(crate) fn check(&self) -> Result<(), ConfigurationProblem> {
        match &self.0 {
            Method::ClientSecretJwt(_, Some(algorithm)) if !HMACS.contains(algorithm) => {
                let problem = "`client_secret_jwt` supports only HS256, HS384 and HS512";
                Err(ConfigurationProblem::Setting { setting: "authentication", problem })
            }
            Method::ClientSecretJwt(secret, chosen) => {
                let wanted = chosen.as_ref().map_or(&HMACS[..], std::slice::from_ref);
                if long_enough(&secret.current(), wanted) { Ok(()) } else { Err(TOO_SHORT) }
            }
            _ => Ok(()),
        }
    }
}

const TOO_SHORT: ConfigurationProblem = ConfigurationProblem::Setting {
    setting: "authentication",
    problem: "`client_secret_jwt` needs a client secret that is at least as long as the hash of an HMAC that the OP \
              lists: 32 bytes for HS256, 48 for HS384, 64 for HS512",
};

/// Whether the secret can be the key of one of them.
fn long_enough(secret: &Secret, algorithms: &[SigningAlgorithm]) -> bool {
    algorithms.iter().any(|&algorithm| HmacSigner::new(algorithm, secret).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::SigningKey;

    const LONG: &str = "0123456789abcdef0123456789abcdef";

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn settled(
        authentication: ClientAuthentication,
        methods: &[&str],
        algorithms: &[&str],
    ) -> Result<ClientAuthentication, ConfigurationProblem> {
        authentication.settled(Offer { methods: &texts(methods), algorithms: &texts(algorithms) })
    }

    fn best(given: &GivenCredentials, methods: &[&str], algorithms: &[&str]) -> Result<&'static str, String> {
        let best = given.best(Offer { methods: &texts(methods), algorithms: &texts(algorithms) });
        best.map(|best| best.method()).map_err(|problem| problem.to_string())
    }

    fn secret(secret: &str) -> GivenCredentials {
        GivenCredentials { secret: Some(Secret::new(secret).into()), ..GivenCredentials::default() }
    }

    fn with_key() -> GivenCredentials {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        GivenCredentials { signer: Some(Arc::new(key)), ..secret(LONG) }
    }

    #[test]
    fn the_strongest_listed_method_is_chosen() {
        let all = ["client_secret_post", "client_secret_basic", "client_secret_jwt", "private_key_jwt", "none"];
        let given = with_key();
        assert_eq!(best(&given, &all, &[]).unwrap(), "private_key_jwt");
        assert_eq!(best(&given, &all, &["HS256"]).unwrap(), "client_secret_jwt");
        assert_eq!(best(&given, &all, &["RS256"]).unwrap(), "client_secret_basic");
        assert_eq!(best(&given, &all[..3], &[]).unwrap(), "client_secret_jwt");
        assert_eq!(best(&given, &all[..2], &[]).unwrap(), "client_secret_basic");
        assert_eq!(best(&given, &all[..1], &[]).unwrap(), "client_secret_post");
    }

    #[test]
    fn a_secret_too_short_for_an_hmac_is_used_with_another_method() {
        let methods = ["client_secret_jwt", "client_secret_basic"];
        assert_eq!(best(&secret("short"), &methods, &[]).unwrap(), "client_secret_basic");
        assert_eq!(best(&secret(LONG), &methods, &["HS512"]).unwrap(), "client_secret_basic");
        assert_eq!(best(&secret(LONG), &methods, &["HS256"]).unwrap(), "client_secret_jwt");
    }

    #[test]
    fn without_credentials_the_client_is_a_public_one() {
        assert_eq!(best(&GivenCredentials::default(), &["none"], &[]).unwrap(), "none");
        assert_eq!(best(&GivenCredentials::default(), &["client_secret_basic"], &[]).unwrap(), "none");
    }

    #[test]
    fn the_error_for_no_usable_method_names_the_possible_ones() {
        let problem = best(&secret("short"), &["private_key_jwt"], &[]).unwrap_err();
        assert!(problem.contains("`client_secret_basic` or `client_secret_post`"), "{problem}");
        let problem = best(&secret(LONG), &["client_secret_jwt"], &["RS256"]).unwrap_err();
        assert!(problem.contains("`HS256` or `HS384` or `HS512`"), "{problem}");
    }

    #[test]
    fn the_first_listed_hmac_with_a_long_enough_secret_is_used() {
        let algorithm = |secret: &str, algorithms: &[&str]| {
            let settled = settled(ClientAuthentication::client_secret_jwt(secret), &["client_secret_jwt"], algorithms);
            match settled.unwrap().0 {
                Method::ClientSecretJwt(_, algorithm) => algorithm.unwrap().as_str(),
                other => unreachable!("{other:?}"),
            }
        };
        let long = LONG.repeat(2);
        assert_eq!(algorithm(&long, &[]), "HS256");
        assert_eq!(algorithm(&long, &["HS512", "HS384", "RS256"]), "HS384");
        assert_eq!(algorithm(&long, &["HS512"]), "HS512");
        assert_eq!(algorithm(LONG, &["HS256", "HS512"]), "HS256");
    }

    #[test]
    fn a_named_method_that_the_op_does_not_list_is_refused() {
        let problem =
            settled(ClientAuthentication::client_secret_post("x"), &["client_secret_basic"], &[]).unwrap_err();
        let not_advertised =
            ConfigurationProblem::NotAdvertised { member: METHODS, value: "client_secret_post".to_owned() };
        assert_eq!(problem, not_advertised);
        let named = ClientAuthentication::client_secret_jwt_with(LONG.repeat(2), SigningAlgorithm::Hs512);
        let problem = settled(named, &["client_secret_jwt"], &["HS256"]).unwrap_err();
        assert_eq!(problem, ConfigurationProblem::NotAdvertised { member: ALGORITHMS, value: "HS512".to_owned() });
    }

    #[test]
    fn a_secret_too_short_for_every_hmac_is_refused_without_metadata() {
        assert_eq!(ClientAuthentication::client_secret_jwt("short").check(), Err(TOO_SHORT));
        assert!(ClientAuthentication::client_secret_jwt(LONG).check().is_ok());
        assert!(ClientAuthentication::client_secret_jwt_with(LONG, SigningAlgorithm::Hs384).check().is_err());
        assert!(ClientAuthentication::client_secret_jwt_with(LONG, SigningAlgorithm::Es256).check().is_err());
    }
}
