//! OpenID Connect Client-Initiated Backchannel Authentication Flow Core 1.0, cited as "CIBA". Its names for the wait are
//! in this file; those of the authentication request are in `client/backchannel`.

use serde_json::{Map, Value};

use super::{
    CODE_GRANT, Cancellation, Deferral, InitialEndpoint, Interaction, InterimMembers, InvalidTimes, Protocol,
    ResponseType, Times, take_identifier,
};
use crate::error::{Document, Rule, Violation};
use crate::json::{self, Object};

/// CIBA §10.1.
const GRANT: &str = "urn:openid:params:grant-type:ciba";
/// CIBA §7.3.
const IDENTIFIER: &str = "auth_req_id";

/// CIBA.
pub(super) struct Ciba;

impl Protocol for Ciba {
    fn grant_type(&self) -> &'static str {
        GRANT
    }

    fn identifier(&self) -> &'static str {
        IDENTIFIER
    }

    fn notification_token(&self) -> &'static str {
        "client_notification_token"
    }

    fn initial_endpoint(&self) -> InitialEndpoint {
        InitialEndpoint::BackchannelAuthentication
    }

    /// It is not chosen by metadata: a sign-in that begins in a browser never has this dialect.
    fn is_advertised(&self, _: &Map<String, Value>) -> bool {
        false
    }

    fn response_type(&self, _: ResponseType) -> &'static str {
        "code"
    }

    /// Beside CIBA, an OP has the ordinary code flow.
    fn codes(&self, _: ResponseType) -> ResponseType {
        ResponseType::Code
    }

    fn required_grant_type(&self, _: ResponseType) -> &'static str {
        CODE_GRANT
    }

    fn grant_types(&self, kind: ResponseType) -> &'static [&'static str] {
        if kind.may_defer() { &[GRANT] } else { &[CODE_GRANT] }
    }

    /// Every answer to an authentication request is a deferral.
    fn defers(&self, error: Option<&str>) -> bool {
        error.is_none()
    }

    /// CIBA §7.3. Without `interval` the minimum is 5 s, where the default of the schedule begins.
    fn deferral(&self, body: &[u8], invalid_times: InvalidTimes) -> Result<Deferral, Violation> {
        const DOCUMENT: Document = Document::BackchannelAuthenticationResponse;
        let object = Object::document(body, DOCUMENT)?;
        let mut members = object.needing(&[IDENTIFIER]).map_err(|flaw| json::flawed(DOCUMENT, flaw))?;
        let identifier = take_identifier(&mut members, IDENTIFIER, Rule::NoAuthReqId, DOCUMENT)?;
        let times = Times::read(&members, invalid_times, DOCUMENT)?;
        Ok(Deferral {
            identifier,
            times,
            interim: InterimMembers::default(),
            access_token: None,
            interaction: Interaction::Unmentioned,
        })
    }

    fn cancellation(&self) -> Cancellation {
        Cancellation::Undefined
    }

    fn stored_version(&self) -> u8 {
        2
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(json: &str) -> Result<Deferral, Violation> {
        Ciba.deferral(json.as_bytes(), InvalidTimes::Tolerated)
    }

    /// The example of CIBA §7.3.
    #[test]
    fn an_acknowledgement_is_read() {
        let json = r#"{"auth_req_id":"1c266114-a1be-4252-8ad1-04986c5b9ac1","expires_in":120,"interval":2}"#;
        let deferral = parse(json).unwrap();
        assert_eq!(deferral.identifier.expose(), "1c266114-a1be-4252-8ad1-04986c5b9ac1");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((deferral.times.expires_in, deferral.times.interval), (seconds(120), seconds(2)));
    }

    #[test]
    fn an_acknowledgement_without_auth_req_id_is_refused() {
        for json in [r#"{"expires_in": 120}"#, r#"{"auth_req_id": null}"#, r#"{"deferred_auth_id": "a"}"#] {
            assert_eq!(parse(json).err().unwrap().rule(), Rule::NoAuthReqId, "{json}");
        }
        for value in ["7", "\"\"", "{}", "[\"a\"]"] {
            let error = parse(&format!(r#"{{"auth_req_id": {value}}}"#)).err().unwrap();
            assert_eq!((error.rule(), error.member()), (Rule::InvalidMember, Some("auth_req_id")), "{value}");
        }
        let error = parse(r#"{"auth_req_id": "a", "auth_req_id": "b"}"#).err().unwrap();
        assert_eq!((error.rule(), error.member()), (Rule::RepeatedMember, Some("auth_req_id")));
    }

    #[test]
    fn malformed_times_count_as_absent_unless_the_client_is_strict() {
        let json = r#"{"auth_req_id": "a", "expires_in": -1, "interval": 0}"#;
        assert_eq!(parse(json).unwrap().times, Times::default());
        assert_eq!(Ciba.deferral(json.as_bytes(), InvalidTimes::Refused).err().unwrap().member(), Some("interval"));
    }
}
