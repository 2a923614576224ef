//! How claims were verified.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::evidence::Evidence;
use super::{LIMIT, VerifiedClaimsProblem};
use crate::id_token::rfc_3339;

/// How, when and by which rules claims were verified. `Debug` shows names and no values.
#[derive(Clone, Copy)]
pub struct Verification<'a> {
    members: &'a Map<String, Value>,
    trust_framework: &'a str,
    time: Option<SystemTime>,
}

/// The policy and procedure of the OP's level of assurance (`assurance_process`). `Debug` shows names and no values.
#[derive(Clone, Copy)]
pub struct AssuranceProcess<'a>(&'a Map<String, Value>);

impl<'a> Verification<'a> {
    pub(super) fn of(members: &'a Map<String, Value>) -> Result<Self, VerifiedClaimsProblem> {
        let trust_framework = members.get("trust_framework").and_then(Value::as_str).filter(|name| !name.is_empty());
        let trust_framework = trust_framework.ok_or(VerifiedClaimsProblem::NoTrustFramework)?;
        let fits = |name: &'static str, is_right: fn(&Value) -> bool| match members.get(name) {
            Some(value) if !is_right(value) => Err(VerifiedClaimsProblem::InvalidMember(name)),
            _ => Ok(()),
        };
        fits("assurance_level", Value::is_string)?;
        fits("assurance_process", Value::is_object)?;
        fits("verification_process", Value::is_string)?;
        // An application that limits the age of a verification must not mistake a malformed time for a missing one.
        fits("time", |value| value.as_str().and_then(rfc_3339::parse).is_some())?;
        fits("evidence", |value| value.as_array().is_some_and(|all| are_evidence(all)))?;
        let time = members.get("time").and_then(Value::as_str).and_then(rfc_3339::parse);
        Ok(Self { members, trust_framework, time })
    }

    /// `trust_framework`: the rules under which the OP verified the claims, such as `de_aml` or `eidas`. The
    /// application must know the rules and decide whether they are sufficient.
    pub fn trust_framework(&self) -> &'a str {
        self.trust_framework
    }

    /// `assurance_level`: the level of assurance, in the terms of the trust framework.
    pub fn assurance_level(&self) -> Option<&'a str> {
        self.get("assurance_level")?.as_str()
    }

    /// `assurance_process`: how the OP reached that level.
    pub fn assurance_process(&self) -> Option<AssuranceProcess<'a>> {
        self.get("assurance_process")?.as_object().map(AssuranceProcess)
    }

    /// `time`: when the claims were verified.
    pub fn time(&self) -> Option<SystemTime> {
        self.time
    }

    /// Whether they were verified at most this long before `now`; `false` if the OP does not state the time. Use it to
    /// check that the OP kept the limit of the
    /// [request](crate::identity_assurance::VerifiedClaimsRequest::verified_within).
    pub fn is_within(&self, max_age: Duration, now: SystemTime) -> bool {
        self.time.is_some_and(|time| now.duration_since(time).is_ok_and(|age| age <= max_age))
    }

    /// `verification_process`: the OP's reference to the verification, for disputes and audits.
    pub fn verification_process(&self) -> Option<&'a str> {
        self.get("verification_process")?.as_str()
    }

    /// `evidence`: what the OP has checked.
    pub fn evidence(&self) -> Vec<Evidence<'a>> {
        let evidence = self.get("evidence").and_then(Value::as_array);
        evidence.into_iter().flatten().filter_map(|value| value.as_object().map(Evidence::of)).collect()
    }

    /// Any member by its name.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name)
    }

    /// All members.
    pub fn as_json(&self) -> &'a Map<String, Value> {
        self.members
    }
}

impl<'a> AssuranceProcess<'a> {
    /// `policy`: the standard or policy that was followed.
    pub fn policy(&self) -> Option<&'a str> {
        self.0.get("policy")?.as_str()
    }

    /// `procedure`: which of its procedures.
    pub fn procedure(&self) -> Option<&'a str> {
        self.0.get("procedure")?.as_str()
    }

    /// `assurance_details`: what was done for which part of it, unchanged.
    pub fn assurance_details(&self) -> &'a [Value] {
        self.0.get("assurance_details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// All members.
    pub fn as_json(&self) -> &'a Map<String, Value> {
        self.0
    }
}

/// Types may be unknown, but each piece of evidence has one.
fn are_evidence(values: &[Value]) -> bool {
    let has_type = |value: &Value| value.get("type").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    (1..=LIMIT).contains(&values.len()) && values.iter().all(has_type)
}

impl fmt::Debug for Verification<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Verification ")?;
        formatter.debug_set().entries(self.members.keys()).finish()
    }
}

impl fmt::Debug for AssuranceProcess<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AssuranceProcess ")?;
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
