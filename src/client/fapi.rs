//! The requirements of the FAPI 2.0 Security Profile and FAPI 2.0 Message Signing for clients, applied to this flow, and
//! those of FAPI-CIBA.

use url::Url;

use super::identity::Credentials;
use super::options::{AssertionAudience, DpopMode, FapiProfile, Options};
use super::response_mode::ResponseMode;
use super::{Client, Inner};
use crate::endpoint::ClientAuthentication;
use crate::error::{ConfigurationProblem, Error};
use crate::jose::{Signer, SigningAlgorithm};
use crate::provider::ProviderMetadata;

/// FAPI 2.0 Security Profile §5.4: "use PS256, ES256, or EdDSA (using the Ed25519 variant) algorithms".
const ALGORITHMS: [SigningAlgorithm; 4] =
    [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Ed25519, SigningAlgorithm::Ps256];
const METHODS: [&str; 3] = ["private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"];
/// The algorithms in the form of an error text.
const NAMES: &str = "PS256` or `ES256` or `EdDSA";

/// The settings that the rules concern.
pub(super) struct Settings<'a> {
    pub(super) options: &'a Options,
    pub(super) credentials: &'a Credentials,
    pub(super) assertion_audience: AssertionAudience,
    pub(super) allow_insecure_loopback: bool,
    pub(super) redirect_uri: Option<&'a str>,
}

impl Options {
    /// Turns on the settings that the profile requires, so that the application need not set them.
    pub(super) fn apply_fapi(&mut self) {
        if self.fapi_ciba {
            // FAPI-CIBA §5.2.3: "shall only send Backchannel Authentication Endpoint signed authentication requests".
            self.signed_backchannel_requests = true;
            self.drop_unbound_tokens = true;
        }
        let Some(profile) = self.fapi else { return };
        self.pushed_authorization_requests = true;
        // Access tokens are sender-constrained (§5.3), so other tokens are dropped.
        self.drop_unbound_tokens = true;
        if profile == FapiProfile::MessageSigning {
            self.require_signed_request_object = true;
            self.response_mode.get_or_insert(ResponseMode::QueryJwt);
        }
    }

    /// Whether signatures with this algorithm are made and accepted.
    pub(super) fn allows(&self, algorithm: SigningAlgorithm) -> bool {
        !self.follows_fapi() || ALGORITHMS.contains(&algorithm)
    }

    fn follows_fapi(&self) -> bool {
        self.fapi.is_some() || self.fapi_ciba
    }

    /// Whether the profile permits this response mode.
    pub(super) fn check_fapi_response_mode(&self, mode: Option<ResponseMode>) -> Result<(), Error> {
        if self.fapi == Some(FapiProfile::MessageSigning) && !mode.is_some_and(ResponseMode::is_jwt) {
            return forbidden(
                "response_mode",
                "authorization responses are JWTs: `query.jwt`, `form_post.jwt` or `jwt`",
            );
        }
        Ok(())
    }

    /// Whether the profile permits this redirect URI.
    pub(super) fn check_fapi_redirect_uri(&self, redirect_uri: &str) -> Result<(), Error> {
        let is_plain = Url::parse(redirect_uri).is_ok_and(|url| url.scheme() == "http");
        match self.fapi {
            Some(_) if is_plain => forbidden("redirect_uri", "FAPI 2.0 requires an `https:` redirect URI"),
            _ => Ok(()),
        }
    }
}

impl Settings<'_> {
    /// Refuses settings that the profile forbids, as far as that is known without the OP.
    pub(super) fn check(&self) -> Result<(), Error> {
        let options = self.options;
        if !options.follows_fapi() {
            return Ok(());
        }
        if self.allow_insecure_loopback {
            return forbidden("allow_insecure_loopback", "the OP is called over TLS");
        }
        if options.without_pkce && options.fapi.is_some() {
            return forbidden("without_pkce", "every request has a PKCE challenge");
        }
        if matches!(options.dpop(), DpopMode::Off) && !options.certificate_bound_access_tokens {
            return forbidden("dpop", "access tokens are bound to a DPoP key or to the client certificate");
        }
        if self.assertion_audience != AssertionAudience::Issuer {
            return forbidden("assertion_audience", "client assertions are for the issuer");
        }
        if let Some(redirect_uri) = self.redirect_uri {
            options.check_fapi_redirect_uri(redirect_uri)?;
        }
        if options.response_mode.is_some() {
            options.check_fapi_response_mode(options.response_mode)?;
        }
        self.check_authentication()?;
        self.check_algorithms()
    }

    /// Mutual TLS or `private_key_jwt` (§5.3).
    fn check_authentication(&self) -> Result<(), Error> {
        const RULE: &str = "clients authenticate with `private_key_jwt` or a certificate";
        let Credentials { named, given, .. } = self.credentials;
        match named.as_ref().map(ClientAuthentication::method) {
            Some(method) if !METHODS.contains(&method) => forbidden("authentication", RULE),
            None if given.secret.is_some() => forbidden("client_secret", RULE),
            None if given.signer.is_none() && given.certificate.is_none() => forbidden("authentication", RULE),
            _ => Ok(()),
        }
    }

    fn check_algorithms(&self) -> Result<(), Error> {
        let Credentials { named, given, request_object_signer, .. } = self.credentials;
        let named = named.as_ref().and_then(ClientAuthentication::signer);
        let algorithms = [
            ("authentication", named.map(|signer| signer.algorithm())),
            ("signing_key", given.signer.as_ref().map(|signer| signer.algorithm())),
            ("request_object_signing_key", request_object_signer.as_ref().map(|signer| signer.algorithm())),
        ];
        let named = algorithms.into_iter().filter_map(|(name, algorithm)| Some((name, algorithm?)));
        for (name, algorithm) in named.chain(self.options.algorithms.signatures()) {
            if !self.options.allows(algorithm) {
                return forbidden(name, "signatures are by PS256, ES256 or Ed25519 (`EdDSA`)");
            }
        }
        Ok(())
    }
}

impl Client {
    /// Refuses an OP that does not support what the profile requires. This runs before every request, because a client
    /// can be built while the OP is down.
    pub(super) fn check_fapi(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        let Inner { options, .. } = &*self.0;
        if options.fapi.is_none() {
            return Ok(());
        }
        self.check_fapi_tokens(metadata)?;
        let lists = |listed: &[String], value: &str| listed.iter().any(|listed| listed == value);
        // A JWT always names its issuer.
        let names_issuer = metadata.authorization_response_iss_parameter_supported()
            || options.response_mode.is_some_and(ResponseMode::is_jwt);
        for (is_listed, member, value) in [
            (names_issuer, "authorization_response_iss_parameter_supported", "true"),
            (lists(metadata.code_challenge_methods_supported(), "S256"), "code_challenge_methods_supported", "S256"),
        ] {
            if !is_listed {
                return Err(ConfigurationProblem::FapiNotAdvertised { member, value }.into());
            }
        }
        self.push_endpoint(metadata).map(drop)
    }

    /// The same for FAPI-CIBA, before every backchannel authentication request.
    pub(super) fn check_fapi_ciba(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        if self.0.options.fapi_ciba { self.check_fapi_tokens(metadata) } else { Ok(()) }
    }

    /// Tokens must be bound, and signed with an algorithm of the profile.
    fn check_fapi_tokens(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        let Inner { options, .. } = &*self.0;
        let dpop = metadata.dpop_signing_alg_values_supported();
        let id_token =
            options.algorithms.id_token_signature.is_some() || !self.listed_id_token_algorithms(metadata).is_empty();
        for (is_listed, member, value) in [
            (options.certificate_bound_access_tokens || !dpop.is_empty(), "dpop_signing_alg_values_supported", "ES256"),
            (id_token, "id_token_signing_alg_values_supported", NAMES),
        ] {
            if !is_listed {
                return Err(ConfigurationProblem::FapiNotAdvertised { member, value }.into());
            }
        }
        Ok(())
    }
}

fn forbidden(setting: &'static str, rule: &'static str) -> Result<(), Error> {
    Err(ConfigurationProblem::Fapi { setting, rule }.into())
}
