//! Results in one line each, in the words of the table.

use std::error::Error as _;
use std::time::{SystemTime, UNIX_EPOCH};

use openid_deferred::error::{ConfigurationProblem, Rule, Violation};
use openid_deferred::{Claims, Error, ErrorKind, InterimState, Outcome, Poll, ProviderMetadata, SignIn};
use serde_json::{Value, json};

/// An error: the code of a rule with the affected member, the code of an OAuth error, or the kind.
pub fn of_error(error: &Error) -> String {
    match error.kind() {
        // The source of the error says why the keys are unavailable.
        ErrorKind::Protocol(violation) if violation.rule() == Rule::KeysUnavailable => {
            let reason = error.source().and_then(|source| source.downcast_ref()).map(of_error);
            format!("{}: {}", of_violation(violation), reason.unwrap_or_default())
        }
        ErrorKind::Protocol(violation) => of_violation(violation),
        ErrorKind::ErrorResponse(response) => response.code().to_owned(),
        ErrorKind::OutcomeUnknown => "outcome_unknown".to_owned(),
        ErrorKind::Configuration(problem) => of_problem(problem),
        other => format!("{other:?}"),
    }
}

fn of_problem(problem: &ConfigurationProblem) -> String {
    match problem {
        ConfigurationProblem::NotAdvertised { member, .. } => format!("not_advertised {member}"),
        ConfigurationProblem::InsecureUrl { name } => format!("insecure_url {name}"),
        ConfigurationProblem::NoEndpoint(name) => format!("no_endpoint {name}"),
        other => format!("{other:?}"),
    }
}

fn of_violation(violation: &Violation) -> String {
    match violation.member() {
        Some(member) => format!("{} {member}", violation.rule().code()),
        None => violation.rule().code().to_owned(),
    }
}

pub fn of_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Approved(_) => "approved".to_owned(),
        Outcome::Denied(_) => "denied".to_owned(),
        Outcome::Expired(_) => "expired".to_owned(),
        Outcome::Failed(response) => format!("failed: {}", response.code()),
        Outcome::Invalid(violation) => format!("invalid: {}", of_violation(violation)),
        Outcome::Unknown => "unknown".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The result of one poll. A transient error is `trouble`.
pub fn of_poll(polled: &Result<Poll, Error>) -> String {
    match polled {
        Ok(Poll::Pending) => "pending".to_owned(),
        Ok(Poll::SlowDown) => "slow_down".to_owned(),
        Ok(Poll::Finished(outcome)) => of_outcome(outcome),
        Ok(other) => format!("{other:?}"),
        Err(error) => of_call(error),
    }
}

/// The error of a call that can be repeated.
pub fn of_call(error: &Error) -> String {
    let word = if error.is_transient() { "trouble" } else { "error" };
    format!("{word}: {}", of_error(error))
}

pub fn of_exchange(exchanged: &Result<SignIn, Error>) -> String {
    match exchanged {
        Ok(SignIn::Deferred(_)) => "deferred".to_owned(),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("error: {}", of_error(error)),
    }
}

pub fn of_interim(interim: &InterimState) -> String {
    match interim {
        InterimState::Absent => "absent".to_owned(),
        InterimState::Verified(_) => "verified".to_owned(),
        InterimState::Rejected(rule) => format!("rejected: {}", rule.code()),
        InterimState::NotYetVerifiable => "not yet verifiable".to_owned(),
    }
}

/// The result of an accessor of the claims. `null` is `None`.
pub fn of_accessor(claims: &Claims, name: &str) -> Value {
    match name {
        "acr" => json!(claims.acr()),
        "address" => json!(claims.address().map(|_| "present")),
        "address.formatted" => json!(claims.address().and_then(|address| address.formatted())),
        "address.locality" => json!(claims.address().and_then(|address| address.locality())),
        "amr" => json!(claims.amr()),
        "auth_time" => json!(claims.auth_time().map(seconds)),
        "azp" => json!(claims.azp()),
        "birthdate" => json!(claims.birthdate()),
        "email" => json!(claims.email()),
        "email_verified" => json!(claims.email_verified()),
        "family_name" => json!(claims.family_name()),
        "gender" => json!(claims.gender()),
        "given_name" => json!(claims.given_name()),
        "locale" => json!(claims.locale()),
        "name" => json!(claims.name()),
        "nickname" => json!(claims.nickname()),
        "phone_number" => json!(claims.phone_number()),
        "phone_number_verified" => json!(claims.phone_number_verified()),
        "picture" => json!(claims.picture()),
        "preferred_username" => json!(claims.preferred_username()),
        "profile" => json!(claims.profile()),
        "updated_at" => json!(claims.updated_at().map(seconds)),
        "website" => json!(claims.website()),
        "zoneinfo" => json!(claims.zoneinfo()),
        other => panic!("no accessor is called {other}"),
    }
}

pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The text of a member of the OP's metadata as it came.
pub fn member<'a>(metadata: &'a ProviderMetadata, name: &str) -> Option<&'a str> {
    metadata.extra(name).and_then(Value::as_str)
}
