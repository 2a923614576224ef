//! The parameters of an authorization response.

use std::borrow::Cow;

use super::arrival::Arrival;
use crate::dialect::ResponseType;
use crate::error::{Document, Error, ErrorResponse, Rule, Violation};
use crate::secret::Secret;

/// The longest response in bytes. No genuine one is longer.
pub(super) const LONGEST_RESPONSE: usize = 16 * 1024;
const LONGEST_CODE: usize = 4 * 1024;

/// The code of the response. There is exactly one.
pub(super) enum Code {
    Deferred(Secret),
    Authorization(Secret),
}

/// The parameters that this crate uses. Everything else "MUST be ignored by the Client".
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) state: Option<String>,
    pub(super) iss: Option<String>,
    code: Option<String>,
    deferred_code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    id_token: Option<String>,
    access_token: Option<String>,
    /// A JWT that contains all of them.
    pub(super) response: Option<String>,
    /// They came in a JWT that has expired.
    pub(super) late: bool,
    /// The parameters that the response contains more than once.
    pub(super) repeated: Vec<&'static str>,
    pub(super) arrival: Arrival,
}

impl Parameters {
    pub(super) fn parse(response: &str) -> Result<Self, Error> {
        if response.len() > LONGEST_RESPONSE {
            return Err(Violation::new(Rule::OversizedResponse).in_document(Document::AuthorizationResponse).into());
        }
        let (arrival, response) = Arrival::of(response);
        let mut parameters = Self { arrival, ..Self::default() };
        // RFC 6749 §3.1: "Parameters sent without a value MUST be treated as if they were omitted from the request."
        // Some OPs write every parameter that they know. An empty `state`, code or `iss` is then missing, and is
        // refused if the parameter is needed.
        let has_value = |(_, value): &(_, Cow<'_, str>)| !value.is_empty();
        for (name, value) in form_urlencoded::parse(response.as_bytes()).filter(has_value) {
            let (slot, name) = match &*name {
                "response" => (&mut parameters.response, "response"),
                name => match parameters.slot(name) {
                    Some(slot) => slot,
                    None => continue,
                },
            };
            if slot.is_some() {
                parameters.repeated.push(name);
            } else {
                *slot = Some(value.into_owned());
            }
        }
        Ok(parameters)
    }

    /// The field of a parameter, if this crate uses it.
    pub(super) fn slot(&mut self, name: &str) -> Option<(&mut Option<String>, &'static str)> {
        Some(match name {
            "state" => (&mut self.state, "state"),
            "iss" => (&mut self.iss, "iss"),
            "code" => (&mut self.code, "code"),
            "deferred_code" => (&mut self.deferred_code, "deferred_code"),
            "error" => (&mut self.error, "error"),
            "error_description" => (&mut self.error_description, "error_description"),
            "id_token" => (&mut self.id_token, "id_token"),
            "access_token" => (&mut self.access_token, "access_token"),
            _ => return None,
        })
    }

    /// The code, if the response contains exactly the expected one and nothing else.
    pub(super) fn code(self, response_type: ResponseType) -> Result<Code, Error> {
        if let Some(error) = self.error {
            if self.code.is_some() || self.deferred_code.is_some() {
                return Err(broken(Rule::CodeAndError, "error"));
            }
            return Err(ErrorResponse::new(&error, self.error_description.as_deref(), None).into());
        }
        // "The Authorization Server SHOULD NOT return an OAuth 2.0 Access Token". A token that is returned anyway was
        // not requested, and is in the browser's history.
        for (token, name) in [(&self.id_token, "id_token"), (&self.access_token, "access_token")] {
            if token.is_some() {
                return Err(broken(Rule::UnrequestedToken, name));
            }
        }
        match (self.deferred_code, self.code) {
            // "Responses containing both `code` and `deferred_code` parameters MUST be considered invalid."
            (Some(_), Some(_)) => Err(broken(Rule::BothCodes, "deferred_code")),
            (Some(_), None) if response_type == ResponseType::Code => {
                Err(broken(Rule::UnrequestedCode, "deferred_code"))
            }
            (Some(code), None) => Ok(Code::Deferred(checked_code(code, "deferred_code")?)),
            // "Verify that a `code` parameter is not present."
            (None, Some(_)) if response_type == ResponseType::DeferredCode => {
                Err(broken(Rule::UnrequestedCode, "code"))
            }
            (None, Some(code)) => Ok(Code::Authorization(checked_code(code, "code")?)),
            (None, None) if response_type == ResponseType::Code => Err(broken(Rule::NoCode, "code")),
            (None, None) => Err(broken(Rule::NoCode, "deferred_code")),
        }
    }
}

/// A code is opaque, but it is not empty, has a limited length, and contains only `VSCHAR` (RFC 6749).
fn checked_code(code: String, name: &'static str) -> Result<Secret, Error> {
    let fits = (1..=LONGEST_CODE).contains(&code.len()) && code.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    let code = Secret::new(code);
    if fits { Ok(code) } else { Err(broken(Rule::InvalidCode, name)) }
}

pub(super) fn broken(rule: Rule, parameter: &'static str) -> Error {
    Violation::new(rule).in_document(Document::AuthorizationResponse).at_member(parameter).into()
}
