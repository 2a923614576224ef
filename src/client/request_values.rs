//! Checks of the values that applications give to their requests.

use serde_json::Value;

use super::setting::setting;
use crate::error::{Error, Misuse};
use crate::secret::Secret;

/// The longest context of the application in bytes. A session with one still fits into a cookie.
const LONGEST_CONTEXT: usize = 256;

/// The longest reference of the application in bytes, for the same reason.
const LONGEST_REFERENCE: usize = 128;

/// The longest data of the application in a session in bytes. Together with the longest context it fits into a cookie.
const LONGEST_SESSION_DATA: usize = 256;

/// Refuses extra parameters that the crate sets itself.
pub(super) fn check_extra(extra: &[(String, String)], reserved: &[&str]) -> Result<(), Error> {
    match extra.iter().find(|(name, _)| reserved.contains(&name.as_str())) {
        Some((name, _)) => Err(Misuse::ReservedParameter(name.clone()).into()),
        None => Ok(()),
    }
}

pub(super) fn check_context(context: &[u8]) -> Result<(), Error> {
    match context.len() {
        actual if actual > LONGEST_CONTEXT => Err(Misuse::ContextTooLong { actual, limit: LONGEST_CONTEXT }.into()),
        _ => Ok(()),
    }
}

/// The reference of the application to a person or an order.
pub(super) fn check_reference(reference: Option<&Secret>) -> Result<(), Error> {
    match reference.map(|reference| reference.expose().len()) {
        Some(0) => Err(setting("reference", "it is empty; leave it out")),
        Some(length) if length > LONGEST_REFERENCE => {
            Err(setting("reference", "it is longer than 128 bytes; use a shorter one, such as an account number"))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_session_data(data: &[u8]) -> Result<(), Error> {
    match data.len() {
        actual if actual > LONGEST_SESSION_DATA => {
            Err(Misuse::SessionDataTooLong { actual, limit: LONGEST_SESSION_DATA }.into())
        }
        _ => Ok(()),
    }
}

/// RFC 9396 §2: "an array of JSON objects", of which each has a "type" that is a string.
pub(super) fn check_details(details: Option<&Value>) -> Result<(), Error> {
    let has_type = |detail: &Value| detail.get("type").is_some_and(Value::is_string);
    let is_valid =
        |details: &Value| details.as_array().is_some_and(|details| !details.is_empty() && details.iter().all(has_type));
    match details.is_none_or(is_valid) {
        true => Ok(()),
        false => {
            let problem = "it must be a JSON array of objects that each have a `type` (RFC 9396 §2)";
            Err(setting("authorization_details", problem))
        }
    }
}
