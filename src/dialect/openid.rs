//! The OpenID dialect: OpenID Connect Deferred Token Response, cited as "DTR". Every name of its two texts is in this
//! file.

use serde_json::{Map, Value};

use super::{
    CODE_GRANT, Cancellation, Deferral, Interaction, InterimMembers, InvalidTimes, Protocol, ResponseType, Times,
    take_identifier,
};
use crate::error::{Document, Rule, Violation};
use crate::json::{self, Object};
use crate::secret::Secret;

/// DTR §Deferred Code Exchange Request.
const GRANT: &str = "urn:openid:params:grant-type:deferred";
/// DTR §Successful Deferred Code Exchange Response.
const IDENTIFIER: &str = "deferred_auth_id";

/// The OpenID dialect.
pub(super) struct OpenId;

impl Protocol for OpenId {
    fn grant_type(&self) -> &'static str {
        GRANT
    }

    fn identifier(&self) -> &'static str {
        IDENTIFIER
    }

    fn notification_token(&self) -> &'static str {
        "deferred_notification_token"
    }

    /// DTR §Authorization Server Metadata.
    fn is_advertised(&self, metadata: &Map<String, Value>) -> bool {
        let is_deferred = |listed: &Value| {
            listed.as_str().is_some_and(|listed| listed.split_ascii_whitespace().any(|value| value == "deferred_code"))
        };
        let listed = metadata.get("response_types_supported").and_then(Value::as_array);
        listed.is_some_and(|listed| listed.iter().any(is_deferred))
    }

    fn response_type(&self, kind: ResponseType) -> &'static str {
        match kind {
            ResponseType::DeferredCode => "deferred_code",
            ResponseType::DeferredCodeOrCode => "deferred_code code",
            ResponseType::Code => "code",
        }
    }

    fn codes(&self, kind: ResponseType) -> ResponseType {
        kind
    }

    fn required_grant_type(&self, kind: ResponseType) -> &'static str {
        if kind.may_defer() { GRANT } else { CODE_GRANT }
    }

    /// DTR §Deferred Code Response Type.
    fn grant_types(&self, kind: ResponseType) -> &'static [&'static str] {
        match kind {
            ResponseType::DeferredCode => &[GRANT],
            ResponseType::DeferredCodeOrCode => &[GRANT, CODE_GRANT],
            ResponseType::Code => &[CODE_GRANT],
        }
    }

    fn defers(&self, error: Option<&str>) -> bool {
        error.is_none()
    }

    fn deferral(&self, body: &[u8], invalid_times: InvalidTimes) -> Result<Deferral, Violation> {
        const DOCUMENT: Document = Document::ExchangeResponse;
        let object = Object::document(body, DOCUMENT)?;
        let interim = InterimMembers::read(&object);
        // "Clients MUST ignore unrecognized response parameters."
        let mut members = object.needing(&[IDENTIFIER]).map_err(|flaw| json::flawed(DOCUMENT, flaw))?;
        // DTR §Deferred Code Exchange Response Validation: "Ensure that the `deferred_auth_id` parameter is present."
        let identifier = take_identifier(&mut members, IDENTIFIER, Rule::NoDeferredAuthId, DOCUMENT)?;
        let access_token = match members.shift_remove("access_token") {
            Some(Value::String(token)) if !token.is_empty() => Some(Secret::new(token)),
            _ => None,
        };
        let times = Times::read(&members, invalid_times, DOCUMENT)?;
        Ok(Deferral { identifier, times, interim, access_token, interaction: Interaction::Unmentioned })
    }

    fn has_early_access_token(&self) -> bool {
        true
    }

    /// DTR §Authentication Cancellation Request.
    fn cancellation(&self) -> Cancellation {
        Cancellation::AtEndpoint
    }

    fn stored_version(&self) -> u8 {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Deferral, Violation> {
        OpenId.deferral(json.as_bytes(), InvalidTimes::Tolerated)
    }

    #[test]
    fn an_exchange_response_without_deferred_auth_id_is_refused() {
        let violation = parse(r#"{"id_token": "a.b.c"}"#).err().unwrap();
        assert_eq!(violation.rule(), Rule::NoDeferredAuthId);
    }

    #[test]
    fn a_deferred_auth_id_that_is_not_a_string_is_refused() {
        for value in ["7", "\"\"", "{}", "[\"a\"]"] {
            let error = parse(&format!(r#"{{"deferred_auth_id": {value}}}"#)).err().unwrap();
            assert_eq!(error.rule(), Rule::InvalidMember, "{value}");
        }
    }

    #[test]
    fn a_member_repeated_with_different_values_is_refused() {
        let error = parse(r#"{"deferred_auth_id": "a", "deferred_auth_id": "b"}"#).err().unwrap();
        assert_eq!((error.rule(), error.member()), (Rule::RepeatedMember, Some("deferred_auth_id")));
        assert!(parse(r#"{"deferred_auth_id": "a", "deferred_auth_id": "a"}"#).is_ok());
    }
}
