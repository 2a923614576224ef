//! Every row of the table in the documentation of `ProblemType`.

use serde_json::Value;

use super::*;
use crate::error::{ConfigurationProblem, Rule, TransportProblem};

/// An error that came through the browser.
fn from_browser(code: &str) -> Error {
    ErrorResponse::new(code, Some("<script>"), None).into()
}

/// An error of an endpoint. The status does not matter for these codes.
fn from_endpoint(code: &str) -> Error {
    ErrorResponse::new(code, Some("<script>"), Some(400)).into()
}

fn broken(rule: Rule, document: Document) -> Error {
    Violation::new(rule).in_document(document).into()
}

/// An error for each row, its problem, and whether the cookie stays.
fn rows() -> Vec<(Error, ProblemType, bool)> {
    use ProblemType as P;
    let transient = |kind: ErrorKind| Error::new(kind);
    vec![
        (from_browser("access_denied"), P::Declined, false),
        (from_browser("login_required"), P::Declined, false),
        (from_browser("consent_required"), P::Declined, false),
        (from_browser("interaction_required"), P::Declined, false),
        (from_browser("account_selection_required"), P::Declined, false),
        (from_browser("invalid_scope"), P::ProviderRefused, false),
        (from_browser("temporarily_unavailable"), P::ProviderUnavailable, false),
        (from_browser("server_error"), P::ProviderUnavailable, false),
        (from_endpoint("invalid_client"), P::ProviderRefused, false),
        (from_endpoint("invalid_grant"), P::AlreadyUsed, false),
        (from_endpoint("server_error"), P::ProviderUnavailable, true),
        (ErrorResponse::new("rate_limit", None, Some(429)).into(), P::ProviderUnavailable, true),
        (Error::from(ErrorResponse::new("rate_limit", None, Some(503))).permanent(), P::ProviderRefused, false),
        (TransportProblem::Connect.into(), P::ProviderUnavailable, true),
        (TransportProblem::Refused.into(), P::InvalidAnswer, false),
        (Rule::KeysUnavailable.into(), P::ProviderUnavailable, true),
        (broken(Rule::UnexpectedStatus, Document::ExchangeResponse), P::ProviderUnavailable, true),
        (broken(Rule::MissingMember, Document::ExchangeResponse), P::InvalidAnswer, false),
        (broken(Rule::IdTokenNonce, Document::IdToken), P::InvalidAnswer, false),
        (broken(Rule::StateMismatch, Document::AuthorizationResponse), P::ResponseRefused, false),
        (broken(Rule::RepeatedParameter, Document::AuthorizationResponse), P::ResponseRefused, false),
        (broken(Rule::OversizedResponse, Document::LogoutResponse), P::ResponseRefused, false),
        (Rule::JwtResponseSignature.into(), P::ResponseRefused, false),
        (SessionProblem::Expired.into(), P::SessionExpired, false),
        (SessionProblem::Missing.into(), P::SessionLost, false),
        (SessionProblem::Unreadable.into(), P::SessionLost, false),
        (SessionProblem::Foreign.into(), P::SessionLost, false),
        (Misuse::SessionAlreadyUsed.into(), P::AlreadyUsed, false),
        (Misuse::GrantAlreadyUsed.into(), P::AlreadyUsed, false),
        (transient(ErrorKind::OutcomeUnknown), P::OutcomeUnknown, false),
        (transient(ErrorKind::Busy), P::Busy, true),
        (transient(ErrorKind::Store), P::Unavailable, true),
        (transient(ErrorKind::Signer), P::Unavailable, true),
        (transient(ErrorKind::Randomness), P::Unavailable, true),
        (Misuse::ShutDown.into(), P::Unavailable, true),
        (Misuse::UnknownClient.into(), P::Internal, false),
        (transient(ErrorKind::Sealed), P::Internal, false),
        (transient(ErrorKind::Cryptography), P::Internal, false),
        (ConfigurationProblem::NoEndpoint("token_endpoint").into(), P::Internal, false),
    ]
}

#[test]
fn every_error_has_its_row() {
    for (error, kind, keeps_session) in rows() {
        assert_eq!(error.problem().kind(), kind, "{error}");
        assert_eq!(error.keeps_session(), keeps_session, "{error}");
    }
    // The last four are problems without an error.
    let (tested, all) = (rows().into_iter().map(|(_, kind, _)| kind), ProblemType::ALL);
    let tested: std::collections::HashSet<_> = tested.collect();
    assert_eq!(all.iter().filter(|kind| !tested.contains(kind)).count(), 4);
}

#[test]
fn the_table_in_the_documentation_has_a_row_for_each_type_with_its_status() {
    let source = include_str!("../problem_details.rs");
    let rows: Vec<_> = source.lines().filter_map(|line| line.trim().strip_prefix("/// | [`")).collect();
    let shown: Vec<_> = rows.iter().map(|row| row.split_once("`](Self::").map(|(name, _)| name.to_owned())).collect();
    let names: Vec<_> = ProblemType::ALL.iter().map(|kind| Some(kind.name().to_owned())).collect();
    assert_eq!(shown, names);
    for (row, kind) in rows.iter().zip(ProblemType::ALL) {
        let status = row.split(" | ").nth(1).unwrap();
        assert_eq!(status, kind.status().as_str(), "{row}");
        let reloads = row.contains("| reloads |") || row.contains("| tries again |");
        assert_eq!(reloads, kind.status() == StatusCode::SERVICE_UNAVAILABLE, "{row}");
    }
}

#[test]
fn problem_details_repeat_nothing_of_the_error_and_need_no_escaping() {
    for (error, kind, _) in rows() {
        let response = error.problem().to_response();
        assert_eq!(response.status(), kind.status());
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let body: Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!(body["status"], kind.status().as_u16());
        assert_eq!(body["code"], kind.code());
        assert_eq!(body["type"], format!("{DOCUMENTATION}#variant.{kind:?}"));
        assert!(!response.body().contains(['<', '&']), "{}", response.body());
        for text in [kind.title(), kind.detail()] {
            assert!(!text.contains(['<', '>', '&', '"']) && !text.contains("  "), "{text}");
        }
        assert!(kind.detail().ends_with('.') && !kind.title().ends_with('.'));
    }
}

#[test]
fn only_transient_problems_have_retry_after_and_within_bounds() {
    let after = |seconds| Error::new(ErrorKind::Busy).with_retry_after(Some(Duration::from_millis(seconds)));
    let shown = |error: Error| error.problem().to_response().headers().get(RETRY_AFTER).cloned();
    assert_eq!(shown(Error::new(ErrorKind::Busy)).unwrap(), "5");
    assert_eq!(shown(after(1_001)).unwrap(), "2");
    assert_eq!(shown(after(86_400_000)).unwrap(), "3600");
    let ended = Error::new(ErrorKind::OutcomeUnknown).with_retry_after(Some(Duration::from_secs(7)));
    assert_eq!(shown(ended), None);
}
