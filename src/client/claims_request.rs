//! The `claims` parameter in typed form (OpenID Connect Core 1.0 §5.5; OpenID Connect for Identity Assurance 1.0
//! §Requesting verified claims).

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::setting::setting;
use crate::error::Error;

/// The claims to request, and where the OP is to return them. Pass it to
/// [`AuthorizationRequest::claims`](super::AuthorizationRequest::claims).
///
/// It can start from JSON in the form of the specification (`ClaimsRequest::from(json)`), such as for members that have
/// no method. What the methods add to it takes the place of what it requests for the same claim.
///
/// ```
/// use std::time::Duration;
/// use openid_deferred::claims::{ClaimRequest, ClaimsRequest};
/// use openid_deferred::identity_assurance::{EvidenceRequest, VerifiedClaimsRequest};
///
/// let request = ClaimsRequest::new()
///     .id_token("email", ClaimRequest::essential())
///     .verified_in_id_token(
///         VerifiedClaimsRequest::under("de_aml")
///             .verified_within(Duration::from_secs(63_113_852))
///             .evidence(EvidenceRequest::document().document_types(["idcard", "passport"]))
///             .claim("family_name", ClaimRequest::essential())
///             .claim("birthdate", ClaimRequest::voluntary().purpose("Only adults may have an account")),
///     );
/// ```
#[derive(Clone, Default)]
#[must_use = "a request has no effect until it is part of an authorization request"]
pub struct ClaimsRequest {
    /// The JSON that it started from.
    json: Option<Value>,
    id_token: Section,
    userinfo: Section,
}

#[derive(Clone, Default)]
struct Section {
    claims: Map<String, Value>,
    verified: Vec<Value>,
    problem: Option<&'static str>,
}

/// How one claim, or one member of a verification, is requested.
#[derive(Clone, Default)]
#[must_use = "a request has no effect until it is part of a `ClaimsRequest`"]
pub struct ClaimRequest {
    members: Map<String, Value>,
    problem: Option<&'static str>,
}

/// Which claims are to be verified, and how.
///
/// The OP applies these conditions: it omits a claim that it cannot deliver verified, and omits all of them if no
/// verification matches.
#[derive(Clone)]
#[must_use = "a request has no effect until it is part of a `ClaimsRequest`"]
pub struct VerifiedClaimsRequest {
    verification: Map<String, Value>,
    evidence: Vec<Value>,
    claims: Map<String, Value>,
    problem: Option<&'static str>,
}

/// Which evidence is requested.
#[derive(Clone)]
#[must_use = "a request has no effect until it is part of a `VerifiedClaimsRequest`"]
pub struct EvidenceRequest(Map<String, Value>);

impl ClaimsRequest {
    /// Creates an empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests a claim in the ID Token. [`AuthorizationRequest::claims`](super::AuthorizationRequest::claims)
    /// describes the checks of an essential `acr` or `auth_time`.
    pub fn id_token(mut self, name: impl Into<String>, claim: ClaimRequest) -> Self {
        self.id_token.claim(name.into(), claim);
        self
    }

    /// Requests a claim in the UserInfo response.
    pub fn userinfo(mut self, name: impl Into<String>, claim: ClaimRequest) -> Self {
        self.userinfo.claim(name.into(), claim);
        self
    }

    /// Requests verified claims in the ID Token, in addition to earlier ones.
    pub fn verified_in_id_token(mut self, request: VerifiedClaimsRequest) -> Self {
        self.id_token.verified(request);
        self
    }

    /// Requests verified claims in the UserInfo response, in addition to earlier ones.
    pub fn verified_in_userinfo(mut self, request: VerifiedClaimsRequest) -> Self {
        self.userinfo.verified(request);
        self
    }

    /// The parameter. If the JSON and a method request a claim, the method wins; verified claims are combined.
    pub(super) fn into_json(self) -> Result<Value, Error> {
        let mut all = match self.json {
            None => Map::new(),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(setting("claims", "it must be a JSON object (OpenID Connect Core 1.0 §5.5)")),
        };
        for (name, section) in [("id_token", self.id_token), ("userinfo", self.userinfo)] {
            if let Some(problem) = section.problem {
                return Err(setting("claims", problem));
            }
            if section.claims.is_empty() && section.verified.is_empty() {
                continue;
            }
            let mut claims = match all.remove(name) {
                Some(Value::Object(claims)) => claims,
                _ => Map::new(),
            };
            claims.extend(section.claims);
            let mut verified = match claims.remove("verified_claims") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(verified)) => verified,
                Some(one) => vec![one],
            };
            verified.extend(section.verified);
            match (verified.pop(), verified.is_empty()) {
                (None, _) => None,
                (Some(one), true) => claims.insert("verified_claims".to_owned(), one),
                (Some(last), false) => {
                    verified.push(last);
                    claims.insert("verified_claims".to_owned(), Value::Array(verified))
                }
            };
            all.insert(name.to_owned(), Value::Object(claims));
        }
        Ok(Value::Object(all))
    }
}

/// The `claims` parameter as JSON. A value that is not an object is an error of
/// [`start`](super::AuthorizationRequest::start).
impl From<Value> for ClaimsRequest {
    fn from(json: Value) -> Self {
        Self { json: Some(json), ..Self::default() }
    }
}

impl Section {
    fn claim(&mut self, name: String, claim: ClaimRequest) {
        if name == "verified_claims" {
            self.problem = Some("request verified claims with a `VerifiedClaimsRequest`");
        }
        self.problem = self.problem.or(claim.problem);
        self.claims.insert(name, claim.into_json());
    }

    fn verified(&mut self, request: VerifiedClaimsRequest) {
        let problem = request.claims.is_empty().then_some("verified claims are requested by name; name at least one");
        self.problem = self.problem.or(request.problem).or(problem);
        self.verified.push(request.into_json());
    }
}

/// The permitted length of a purpose, in characters (OpenID Connect for Identity Assurance 1.0 §Requesting verified
/// claims).
const PURPOSE: std::ops::RangeInclusive<usize> = 3..=300;

impl ClaimRequest {
    /// Requests the claim if the OP has it and the user agrees.
    pub fn voluntary() -> Self {
        Self::default()
    }

    /// Requests the claim as needed for what the user wants to do. The OP may still omit it.
    pub fn essential() -> Self {
        Self::default().set("essential", true)
    }

    /// Sets the purpose, in 3 to 300 characters. The OP shows it to the user.
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        let purpose = purpose.into();
        if !PURPOSE.contains(&purpose.chars().count()) {
            self.problem = Some("a purpose has 3 to 300 characters");
        }
        self.set("purpose", purpose)
    }

    /// Requests this value.
    pub fn value(self, value: impl Into<Value>) -> Self {
        self.set("value", value)
    }

    /// Requests one of these values, the preferred one first.
    pub fn values<V: Into<Value>>(self, values: impl IntoIterator<Item = V>) -> Self {
        self.set("values", values.into_iter().map(Into::into).collect::<Vec<Value>>())
    }

    /// Limits the age of a time, in whole seconds.
    pub fn max_age(self, age: Duration) -> Self {
        self.set("max_age", age.as_secs())
    }

    fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    fn into_json(self) -> Value {
        if self.members.is_empty() { Value::Null } else { Value::Object(self.members) }
    }
}

impl VerifiedClaimsRequest {
    /// Requests claims that are verified under this trust framework.
    pub fn under(trust_framework: impl Into<String>) -> Self {
        Self::by(json!({ "value": trust_framework.into() }))
    }

    /// Requests claims that are verified under one of these trust frameworks.
    pub fn under_one_of<S: Into<String>>(trust_frameworks: impl IntoIterator<Item = S>) -> Self {
        let values: Vec<String> = trust_frameworks.into_iter().map(Into::into).collect();
        Self::by(json!({ "values": values }))
    }

    /// Requests claims that are verified under any trust framework. Check which one it was before you rely on them.
    pub fn under_any() -> Self {
        Self::by(Value::Null)
    }

    fn by(trust_framework: Value) -> Self {
        let verification = Map::from_iter([("trust_framework".to_owned(), trust_framework)]);
        Self { verification, evidence: Vec::new(), claims: Map::new(), problem: None }
    }

    /// Requests one of these levels of assurance, in the terms of the trust framework.
    pub fn assurance_levels<S: Into<String>>(self, levels: impl IntoIterator<Item = S>) -> Self {
        let levels = levels.into_iter().map(Into::into);
        self.verification("assurance_level", ClaimRequest::voluntary().values::<String>(levels))
    }

    /// Limits the age of the verification, in whole seconds. Check the result with
    /// [`Verification::is_within`](crate::identity_assurance::Verification::is_within).
    pub fn verified_within(self, age: Duration) -> Self {
        self.verification("time", ClaimRequest::voluntary().max_age(age))
    }

    /// Requests a member of the verification, such as `time`, `verification_process` or `assurance_process`. OPs return
    /// only the members that were requested.
    pub fn verification(mut self, name: impl Into<String>, member: ClaimRequest) -> Self {
        self.problem = self.problem.or(member.problem);
        self.verification.insert(name.into(), member.into_json());
        self
    }

    /// Requests this evidence; several calls add alternatives.
    pub fn evidence(mut self, evidence: EvidenceRequest) -> Self {
        self.evidence.push(Value::Object(evidence.0));
        self
    }

    /// Requests a claim. At least one is required.
    pub fn claim(mut self, name: impl Into<String>, claim: ClaimRequest) -> Self {
        self.problem = self.problem.or(claim.problem);
        self.claims.insert(name.into(), claim.into_json());
        self
    }

    fn into_json(mut self) -> Value {
        if !self.evidence.is_empty() {
            self.verification.insert("evidence".to_owned(), Value::Array(self.evidence));
        }
        json!({ "verification": self.verification, "claims": self.claims })
    }
}

impl EvidenceRequest {
    /// Requests a document.
    pub fn document() -> Self {
        Self::of_type("document")
    }

    /// Requests an entry in an electronic record.
    pub fn electronic_record() -> Self {
        Self::of_type("electronic_record")
    }

    /// Requests a vouch: the statement of a person.
    pub fn vouch() -> Self {
        Self::of_type("vouch")
    }

    /// Requests an electronic signature.
    pub fn electronic_signature() -> Self {
        Self::of_type("electronic_signature")
    }

    /// Requests evidence of another type.
    pub fn of_type(evidence_type: impl Into<String>) -> Self {
        Self(Map::from_iter([("type".to_owned(), json!({ "value": evidence_type.into() }))]))
    }

    /// Requests one of these types of document, such as `passport`.
    pub fn document_types<S: Into<String>>(self, types: impl IntoIterator<Item = S>) -> Self {
        let types: Vec<String> = types.into_iter().map(Into::into).collect();
        self.member("document_details", json!({ "type": { "values": types } }))
    }

    /// Requests one of these check methods, such as `vpip`.
    pub fn check_methods<S: Into<String>>(self, methods: impl IntoIterator<Item = S>) -> Self {
        let methods: Vec<String> = methods.into_iter().map(Into::into).collect();
        self.member("check_details", json!([{ "check_method": { "values": methods } }]))
    }

    /// Sets any other member, in the form of the specification.
    pub fn member(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }
}

macro_rules! debug_names {
    ($($name:ident: $fields:expr;)*) => {$(
        // Values may be about a user, such as a name that is to be confirmed.
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names: fn(&Self) -> Vec<&String> = $fields;
                formatter.write_str(concat!(stringify!($name), " "))?;
                formatter.debug_set().entries(names(self)).finish()
            }
        }
    )*};
}

debug_names! {
    ClaimsRequest: |this| this.id_token.claims.keys().chain(this.userinfo.claims.keys()).collect();
    ClaimRequest: |this| this.members.keys().collect();
    VerifiedClaimsRequest: |this| this.verification.keys().chain(this.claims.keys()).collect();
    EvidenceRequest: |this| this.0.keys().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_form_of_the_specification() {
        let request = ClaimsRequest::new()
            .id_token("email", ClaimRequest::essential())
            .id_token("acr", ClaimRequest::essential().values(["high", "low"]))
            .userinfo("name", ClaimRequest::voluntary())
            .verified_in_userinfo(
                VerifiedClaimsRequest::under("de_aml")
                    .assurance_levels(["high"])
                    .verified_within(Duration::from_secs(60))
                    .verification("verification_process", ClaimRequest::voluntary())
                    .evidence(EvidenceRequest::document().document_types(["passport"]).check_methods(["vpip"]))
                    .evidence(EvidenceRequest::of_type("dna").member("strands", 2))
                    .claim("given_name", ClaimRequest::voluntary())
                    .claim("birthdate", ClaimRequest::essential().purpose("Only adults")),
            );
        let expected = json!({
            "id_token": { "email": { "essential": true }, "acr": { "essential": true, "values": ["high", "low"] } },
            "userinfo": {
                "name": null,
                "verified_claims": {
                    "verification": {
                        "trust_framework": { "value": "de_aml" },
                        "assurance_level": { "values": ["high"] },
                        "time": { "max_age": 60 },
                        "verification_process": null,
                        "evidence": [
                            {
                                "type": { "value": "document" },
                                "document_details": { "type": { "values": ["passport"] } },
                                "check_details": [{ "check_method": { "values": ["vpip"] } }],
                            },
                            { "type": { "value": "dna" }, "strands": 2 },
                        ],
                    },
                    "claims": { "given_name": null, "birthdate": { "essential": true, "purpose": "Only adults" } },
                },
            },
        });
        assert_eq!(request.into_json().unwrap(), expected);
    }

    #[test]
    fn a_claims_request_is_merged_with_json() {
        let first = json!({ "verification": { "trust_framework": null }, "claims": { "c": null } });
        let json = json!({ "id_token": { "email": null, "name": null, "verified_claims": first }, "extension": 1 });
        let request = ClaimsRequest::from(json)
            .id_token("email", ClaimRequest::essential())
            .verified_in_id_token(VerifiedClaimsRequest::under_any().claim("a", ClaimRequest::voluntary()))
            .verified_in_id_token(
                VerifiedClaimsRequest::under_one_of(["x", "y"]).claim("b", ClaimRequest::voluntary()),
            );
        let expected = json!({
            "extension": 1,
            "id_token": {
                "email": { "essential": true }, "name": null,
                "verified_claims": [
                    first,
                    { "verification": { "trust_framework": null }, "claims": { "a": null } },
                    { "verification": { "trust_framework": { "values": ["x", "y"] } }, "claims": { "b": null } },
                ],
            },
        });
        assert_eq!(request.into_json().unwrap(), expected);
        let untouched = json!({ "userinfo": { "name": null } });
        assert_eq!(ClaimsRequest::from(untouched.clone()).into_json().unwrap(), untouched);
    }

    #[test]
    fn a_claims_request_that_every_op_must_refuse_is_an_error() {
        let verified = |claim| VerifiedClaimsRequest::under_any().claim("name", claim);
        let purpose = |purpose: &str| ClaimRequest::voluntary().purpose(purpose);
        for request in [
            ClaimsRequest::new().verified_in_id_token(VerifiedClaimsRequest::under("de_aml")),
            ClaimsRequest::new().verified_in_userinfo(verified(purpose("ab"))),
            ClaimsRequest::new().verified_in_id_token(verified(purpose(&"a".repeat(301)))),
            ClaimsRequest::new()
                .verified_in_id_token(verified(ClaimRequest::voluntary()).verification("time", purpose(""))),
            ClaimsRequest::new().id_token("name", purpose("ab")),
            ClaimsRequest::new().id_token("verified_claims", ClaimRequest::essential()),
        ] {
            assert!(request.into_json().is_err());
        }
        assert!(ClaimsRequest::new().id_token("name", purpose("äöü")).into_json().is_ok());
        assert!(ClaimsRequest::from(json!([])).into_json().is_err());
    }

    #[test]
    fn debug_output_of_a_claims_request_shows_no_values() {
        let claim = ClaimRequest::essential().value("Jane");
        let verified = VerifiedClaimsRequest::under("de_aml").claim("name", claim.clone());
        let shown = format!("{claim:?} {verified:?} {:?}", ClaimsRequest::new().id_token("name", claim.clone()));
        assert!(!shown.contains("Jane") && shown.contains("name"), "{shown}");
    }
}
