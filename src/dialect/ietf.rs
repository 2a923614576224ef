//! The IETF dialect: OAuth 2.0 Deferred Token Response (draft-ietf-oauth-deferred-token-response-01, cited as "IETF
//! DTR"). Every name of the draft is in this file.
//!
//! The working group discusses the following, which this file will have to learn if it is adopted:
//!
//! - Deferral at the authorization endpoint: the redirect carries `deferral_code`, `expires_in` and `interval`, and
//!   `code_verifier` goes with the first poll. That is the shape of the OpenID dialect: [`Protocol::response_type`] and
//!   the parameters of the authorization response would differ.
//! - Callbacks without the code, with tokens that the authorization server makes: [`Protocol::identifier`] would no
//!   longer be the member of callbacks.
//! - Further pending codes: [`PENDING`].

use serde_json::{Map, Value};

use super::{
    Binding, CODE_GRANT, Cancellation, Deferral, Interaction, InterimMembers, InvalidTimes, Protocol, ResponseType,
    Times, take_identifier,
};
use crate::error::{Document, Rule, Violation};
use crate::json::{self, Object};
use crate::secret::Secret;

/// IETF DTR §Token Endpoint — Polling.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:deferred";
/// IETF DTR §Token Endpoint — Deferred Response.
const IDENTIFIER: &str = "deferral_code";
/// IETF DTR §Client Opt-In Signaling.
const OPT_IN: (&str, &str) = ("completion_mode", "deferred");
/// IETF DTR §Cancellation.
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:deferral-code";
/// The error codes that defer the tokens, and that mean "pending" in the answer to a poll. The last one is not in the
/// text yet; the working group has approved it, and servers send it after the user has opened the URI.
const PENDING: [&str; 3] = ["authorization_pending", "interaction_required", INTERACTION_PENDING];
const INTERACTION_PENDING: &str = "interaction_pending";
const INTERACTION_URI: &str = "interaction_uri";
/// The longest URI that is kept. Browsers and servers support about as much.
const LONGEST_URI: usize = 2_048;

/// The IETF dialect.
pub(super) struct Ietf;

impl Protocol for Ietf {
    fn grant_type(&self) -> &'static str {
        GRANT
    }

    fn identifier(&self) -> &'static str {
        IDENTIFIER
    }

    fn notification_token(&self) -> &'static str {
        "client_notification_token"
    }

    fn is_advertised(&self, metadata: &Map<String, Value>) -> bool {
        metadata.get("deferred_token_response_supported") == Some(&Value::Bool(true))
    }

    fn response_type(&self, _: ResponseType) -> &'static str {
        "code"
    }

    /// The OP defers its answer to an ordinary code.
    fn codes(&self, _: ResponseType) -> ResponseType {
        ResponseType::Code
    }

    /// The draft does not say that the metadata lists its own grant type.
    fn required_grant_type(&self, _: ResponseType) -> &'static str {
        CODE_GRANT
    }

    fn grant_types(&self, kind: ResponseType) -> &'static [&'static str] {
        if kind.may_defer() { &[CODE_GRANT, GRANT] } else { &[CODE_GRANT] }
    }

    fn opt_in(&self) -> Option<(&'static str, &'static str)> {
        Some(OPT_IN)
    }

    fn defers(&self, error: Option<&str>) -> bool {
        error.is_some_and(|code| PENDING.contains(&code))
    }

    fn deferral(&self, body: &[u8], invalid_times: InvalidTimes) -> Result<Deferral, Violation> {
        const DOCUMENT: Document = Document::TokenResponse;
        let object = Object::document(body, DOCUMENT)?;
        let interaction = interaction(object.members());
        let mut members = object.needing(&[IDENTIFIER]).map_err(|flaw| json::flawed(DOCUMENT, flaw))?;
        let identifier = take_identifier(&mut members, IDENTIFIER, Rule::NoDeferralCode, DOCUMENT)?;
        let times = Times::read(&members, invalid_times, DOCUMENT)?;
        Ok(Deferral { identifier, times, interim: InterimMembers::default(), access_token: None, interaction })
    }

    fn is_pending(&self, code: &str) -> bool {
        PENDING.contains(&code)
    }

    fn interaction(&self, code: &str, body: &[u8]) -> Interaction {
        if !self.is_pending(code) {
            return Interaction::Unmentioned;
        }
        match Object::document(body, Document::TokenResponse) {
            Ok(object) => match interaction(object.members()) {
                Interaction::Unmentioned if code == INTERACTION_PENDING => Interaction::Begun,
                mentioned => mentioned,
            },
            Err(_) => Interaction::Unmentioned,
        }
    }

    /// IETF DTR §Client Opt-In Signaling.
    fn needs_fresh_notification_tokens(&self) -> bool {
        true
    }

    /// IETF DTR §Sender-Constraint Requirements.
    fn binding(&self, method: &str) -> Binding {
        match method {
            "none" => Binding::Required,
            "client_secret_basic" | "client_secret_post" => Binding::Recommended,
            _ => Binding::Optional,
        }
    }

    fn cancellation(&self) -> Cancellation {
        Cancellation::ByRevocation { token_type: TOKEN_TYPE }
    }

    fn stored_version(&self) -> u8 {
        2
    }
}

fn interaction(members: &Map<String, Value>) -> Interaction {
    match members.get(INTERACTION_URI) {
        Some(Value::String(uri)) if (1..=LONGEST_URI).contains(&uri.len()) => {
            Interaction::At(Secret::new(uri.as_str()))
        }
        None | Some(Value::Null) => Interaction::Unmentioned,
        Some(_) => {
            tracing::warn!(
                "the OP's `interaction_uri` is not a text of at most {LONGEST_URI} characters; it is ignored"
            );
            Interaction::Unmentioned
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn deferral(json: &str) -> Result<Deferral, Violation> {
        Ietf.deferral(json.as_bytes(), InvalidTimes::Tolerated)
    }

    #[test]
    fn a_deferred_response_is_read() {
        let read = deferral(
            r#"{"error":"interaction_required","deferral_code":"c","expires_in":600,"interval":4,
                "interaction_uri":"https://op.example/i"}"#,
        );
        let read = read.ok().unwrap();
        assert_eq!(read.identifier.expose(), "c");
        assert_eq!(read.times.interval, Some(Duration::from_secs(4)));
        assert_eq!(read.times.expires_in, Some(Duration::from_secs(600)));
        assert_eq!(read.interaction, Interaction::At(Secret::new("https://op.example/i")));
        assert!(read.access_token.is_none() && read.interim.fingerprint().is_none());
    }

    #[test]
    fn a_deferred_response_without_a_usable_code_is_refused() {
        for (json, rule) in [
            (r#"{"error":"authorization_pending","expires_in":600,"interval":4}"#, Rule::NoDeferralCode),
            (r#"{"error":"authorization_pending","deferral_code":null}"#, Rule::NoDeferralCode),
            (r#"{"error":"authorization_pending","deferral_code":""}"#, Rule::InvalidMember),
            (r#"{"error":"authorization_pending","deferral_code":7}"#, Rule::InvalidMember),
            (r#"{"error":"authorization_pending","deferral_code":"a","deferral_code":"b"}"#, Rule::RepeatedMember),
        ] {
            assert_eq!(deferral(json).err().unwrap().rule(), rule, "{json}");
        }
        assert!(deferral(r#"{"error":"x","deferral_code":"a","deferral_code":"a"}"#).is_ok());
    }

    #[test]
    fn missing_or_malformed_times_do_not_lose_the_code() {
        let read = deferral(r#"{"error":"authorization_pending","deferral_code":"c","interval":"4.2"}"#).ok().unwrap();
        assert_eq!(read.times, Times { interval: Some(Duration::from_secs(5)), expires_in: None });
        let strict = Ietf.deferral(br#"{"deferral_code":"c","interval":"4"}"#, InvalidTimes::Refused).err().unwrap();
        assert_eq!((strict.rule(), strict.member()), (Rule::InvalidMember, Some("interval")));
    }

    #[test]
    fn pending_answers_may_name_a_new_uri_or_say_that_it_was_opened() {
        let said =
            |code: &str, members: &str| Ietf.interaction(code, format!(r#"{{"error":"{code}"{members}}}"#).as_bytes());
        let uri = r#","interaction_uri":"https://op.example/2""#;
        let at = Interaction::At(Secret::new("https://op.example/2"));
        assert_eq!(said("interaction_required", uri), at);
        assert_eq!(said("authorization_pending", uri), at);
        assert_eq!(said("interaction_pending", uri), at);
        assert_eq!(said("interaction_pending", ""), Interaction::Begun);
        assert_eq!(said("authorization_pending", ""), Interaction::Unmentioned);
        assert_eq!(said("interaction_required", r#","interaction_uri":7"#), Interaction::Unmentioned);
        let long = format!(r#","interaction_uri":"https://op.example/{}""#, "x".repeat(LONGEST_URI));
        assert_eq!(said("interaction_required", &long), Interaction::Unmentioned);
        assert_eq!(said("slow_down", uri), Interaction::Unmentioned);
        assert_eq!(said("access_denied", uri), Interaction::Unmentioned);
    }

    #[test]
    fn only_true_in_the_metadata_advertises_the_dialect() {
        let advertised = |value: Value| {
            let members = Map::from_iter([("deferred_token_response_supported".to_owned(), value)]);
            Ietf.is_advertised(&members)
        };
        assert!(advertised(Value::Bool(true)));
        assert!(!advertised(Value::Bool(false)) && !advertised("true".into()) && !Ietf.is_advertised(&Map::new()));
    }
}
