//! JARM: the authorization response as a JWT that the OP signed, and encrypted if that was registered.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Client;
use super::response_mode::ResponseMode;
use super::response_parameters::{Parameters, broken};
use super::session::{self, AuthorizationSession};
use super::signing_algorithms::SIGNATURES;
use crate::clock::unix_seconds;
use crate::error::{ConfigurationProblem, Document, Error, Rule, Violation};
use crate::jose::{CompactJws, NotVerified, SigningAlgorithm, Unreadable};
use crate::json::Object;
use crate::provider::{Channel, ProviderMetadata};
use crate::secret::{Secret, constant_time_eq};

/// JARM §2.1: "A maximum JWT lifetime of 10 minutes is RECOMMENDED." That is only a recommendation, and some OPs use
/// the lifetime of another token. A short life limits replay, which the `state` of a session already prevents: it is
/// used once, and the session has its own lifetime.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The claims that are checked, including the response parameters.
const CHECKED: [&str; 12] = [
    "state",
    "iss",
    "aud",
    "exp",
    "nbf",
    "iat",
    "code",
    "deferred_code",
    "error",
    "error_description",
    "id_token",
    "access_token",
];

/// The metadata member in which the OP lists the algorithms of its responses.
const ALGORITHMS: &str = "authorization_signing_alg_values_supported";

impl Client {
    /// The name of the cookie that belongs to an authorization response. It works like
    /// [`AuthorizationSession::cookie_name_for`], and also for encrypted responses, which only the client can decrypt.
    pub fn cookie_name_for(&self, response: &str) -> Option<String> {
        AuthorizationSession::cookie_name_for(response).or_else(|| {
            let token = session::parameter(response, "response")?;
            session::cookie_name_of_jwt(self.decrypted_response(&token).ok()?.expose())
        })
    }

    /// The checks of discovery: whether the OP supports the response mode of this client.
    pub(super) fn check_response_mode(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        const MODES: &str = "response_modes_supported";
        let options = &self.0.options;
        let codes = self.dialect_at(metadata).protocol().codes(options.response_type);
        let mode = options.response_mode.unwrap_or(ResponseMode::Query).at(metadata, codes)?;
        if mode == ResponseMode::Query || options.allow_unadvertised {
            return Ok(());
        }
        let not_advertised = |member, value: &str| {
            let value = value.to_owned();
            Err(ConfigurationProblem::NotAdvertised { member, value }.into())
        };
        if !metadata.response_modes_supported().iter().any(|listed| listed == mode.as_str()) {
            return not_advertised(MODES, mode.as_str());
        }
        if !mode.is_jwt() {
            return Ok(());
        }
        let listed = metadata.authorization_signing_alg_values_supported();
        match options.algorithms.authorization_signature {
            Some(_) if metadata.is_silent_about(ALGORITHMS) => Ok(()),
            Some(chosen) if !listed.iter().any(|listed| listed == chosen.as_str()) => {
                not_advertised(ALGORITHMS, chosen.as_str())
            }
            None if self.response_algorithms(metadata).is_empty() => not_advertised(ALGORITHMS, SIGNATURES),
            _ => Ok(()),
        }
    }

    /// Returns the parameters of the response after verifying that the OP made it for this client and this session
    /// (JARM §2.4). Checks without a key come first, so that only the OP can make us fetch its keys.
    pub(super) async fn opened_response(&self, token: &str, session: &session::Body) -> Result<Parameters, Error> {
        let token = self.decrypted_response(token)?;
        let jws = CompactJws::parse(token.expose()).map_err(|problem| match problem {
            Unreadable::Malformed => broken(Rule::JwtResponseMalformed, "response"),
            Unreadable::Critical => broken(Rule::JwtResponseHeader, "response"),
            Unreadable::Repeated(parameter) => broken(Rule::RepeatedMember, parameter),
        })?;
        let object = Object::parse(jws.payload()).map_err(|_| broken(Rule::JwtResponseMalformed, "response"))?;
        let claims = object.needing(&CHECKED).map_err(|flaw| flaw.rule(Rule::JwtResponseMalformed));
        let claims = claims.map_err(|(rule, claim)| broken(rule, claim))?;
        let mut parameters = Parameters::of_claims(&claims)?;
        // "The client obtains the state parameter from the JWT and checks its binding to the user agent."
        let state = parameters.state.as_deref().ok_or_else(|| broken(Rule::StateMissing, "state"))?;
        if !constant_time_eq(state.as_bytes(), session.state.expose().as_bytes()) {
            return Err(broken(Rule::StateMismatch, "state"));
        }
        if parameters.iss.as_deref() != Some(self.issuer()) {
            return Err(broken(Rule::JwtResponseIssuer, "iss"));
        }
        if !is_for(&claims, self.client_id()) {
            return Err(broken(Rule::JwtResponseAudience, "aud"));
        }
        self.verify_response(&jws).await?;
        parameters.late = self.is_late(&claims)?;
        Ok(parameters)
    }

    /// "The client obtains the key needed to check the signature [...] and checks its signature." `none` is not an
    /// accepted algorithm.
    async fn verify_response(&self, jws: &CompactJws<'_>) -> Result<(), Error> {
        let refused = Violation::new(Rule::JwtResponseAlgorithm)
            .in_document(Document::AuthorizationResponse)
            .at_member("response");
        let algorithm = SigningAlgorithm::from_name(&jws.header().alg).ok_or(refused)?;
        let jwt = self.arrived_jwt(algorithm, Channel::Front);
        match self.0.options.algorithms.authorization_signature {
            Some(chosen) if chosen == algorithm => {}
            // The OP may have started to use an algorithm after its metadata was fetched.
            None if self.may_be_listed(algorithm) => {
                let fit = |metadata: &ProviderMetadata| self.response_algorithms(metadata).contains(&algorithm);
                self.0.provider.metadata_fitting(&jwt, refused, fit).await??;
            }
            _ => return Err(refused.into()),
        }
        let verified = self.0.provider.verify(&jwt, |keys| {
            keys.verify(jws, algorithm).map_err(|problem| {
                let rule = match problem {
                    NotVerified::NoKey => Rule::JwtResponseNoKey,
                    NotVerified::Signature => Rule::JwtResponseSignature,
                };
                Violation::new(rule).in_document(Document::AuthorizationResponse).at_member("response")
            })
        });
        Ok(verified.await??)
    }

    /// Whether the response has expired. An error if its times are not valid.
    fn is_late(&self, claims: &Map<String, Value>) -> Result<bool, Error> {
        let (now, leeway) = (unix_seconds(self.0.clock.now()), self.0.options.leeway.as_secs());
        let (earliest, latest) = (now.saturating_sub(leeway), now.saturating_add(leeway));
        // A `null` claim is absent. Of the three only `exp` is required, and is refused if absent.
        let present = |name: &str| claims.get(name).filter(|time| !time.is_null());
        let time = |name: &str| present(name).map(Value::as_f64);
        let end = match time("exp") {
            Some(Some(end)) if end <= latest.saturating_add(LONGEST_LIFE.as_secs()) as f64 => end,
            _ => return Err(broken(Rule::JwtResponseExpired, "exp")),
        };
        for name in ["nbf", "iat"] {
            if time(name).is_some_and(|time| time.is_none_or(|time| time > latest as f64)) {
                return Err(broken(Rule::JwtResponseClaims, name));
            }
        }
        Ok(end <= earliest as f64)
    }

    /// The signed response inside an encrypted one, or the response itself if it is not encrypted.
    fn decrypted_response(&self, token: &str) -> Result<Secret, Violation> {
        self.decrypted(token, Document::AuthorizationResponse, self.0.options.algorithms.authorization_encryption)
    }

    /// The registered algorithm, or the asymmetric algorithms that the OP lists.
    fn response_algorithms(&self, metadata: &ProviderMetadata) -> Vec<SigningAlgorithm> {
        if let Some(chosen) = self.0.options.algorithms.authorization_signature {
            return vec![chosen];
        }
        // RS256 is also the default of `authorization_signed_response_alg` (JARM §3).
        self.asymmetric(metadata, ALGORITHMS, metadata.authorization_signing_alg_values_supported())
    }
}

impl Parameters {
    /// The parameters among the claims. Each must be a string, and no other source is read. Some serializers write
    /// every member that they know, so one that is `null` or empty is absent, as in a query string. A check that needs
    /// it then reports it as missing.
    fn of_claims(claims: &Map<String, Value>) -> Result<Self, Error> {
        let mut parameters = Self::default();
        for (name, value) in claims {
            let Some((slot, name)) = parameters.slot(name) else { continue };
            *slot = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
                _ => return Err(broken(Rule::JwtResponseClaims, name)),
            };
        }
        Ok(parameters)
    }
}

/// RFC 7519 §4.1.3: one string, or an array of strings. No other audience may be named, because no other party needs
/// the response.
fn is_for(claims: &Map<String, Value>, client_id: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(audience)) => audience == client_id,
        Some(Value::Array(audiences)) => !audiences.is_empty() && audiences.iter().all(|one| one == client_id),
        _ => false,
    }
}
