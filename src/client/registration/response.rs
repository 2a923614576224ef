//! The Client Information Response (RFC 7591 §3.2.1, RFC 7592 §3).

use serde_json::{Map, Value};
use url::Url;

use super::ISSUED;
use super::metadata::ClientMetadata;
use crate::error::{Document, Rule, Violation};
use crate::json::{Members, Object};
use crate::secret::Secret;

/// The longest value. No OP needs longer ones, and they are put into headers and database rows.
const LONGEST_VALUE: usize = 8 * 1024;

/// The members that are needed to use and manage the client.
const NEEDED: [&str; 4] = ["client_id", "client_secret", "registration_access_token", "registration_client_uri"];

/// The OP's answer after parsing, before it is compared with the known registration.
pub(super) struct ClientInformation {
    pub(super) client_id: String,
    pub(super) client_secret: Option<Secret>,
    pub(super) issued_at: Option<u64>,
    pub(super) secret_expires_at: Option<u64>,
    pub(super) configuration_endpoint: Option<Result<Url, Violation>>,
    pub(super) access_token: Option<Secret>,
    pub(super) metadata: ClientMetadata,
}

impl ClientInformation {
    /// Parses the answer. It tolerates errors in members that the client does not need, because the OP sends the data
    /// of a new client only once.
    ///
    /// `judge` returns the rule that a URL of the OP breaks, if it may not be called.
    pub(super) fn parse(body: &[u8], judge: impl Fn(&Url) -> Result<(), Rule>) -> Result<Self, Violation> {
        let mut members = Object::read(body, Document::ClientInformation, &NEEDED)?;
        members.retain(|_, value| !value.is_null());
        let client_id = match members.get("client_id") {
            None => return Err(violation(Rule::MissingMember).at_member("client_id")),
            Some(value) => text(value).ok_or_else(|| violation(Rule::InvalidMember).at_member("client_id"))?,
        };
        let client_secret = secret(&members, "client_secret")?;
        let expires_at = members.get("client_secret_expires_at").and_then(seconds);
        if client_secret.is_some() && expires_at.is_none() {
            // RFC 7591 §3.2.1: "REQUIRED if "client_secret" is issued."
            tracing::warn!("the OP sent no expiry time of the client secret; it is treated as unlimited");
        }
        let access_token = secret(&members, "registration_access_token")?;
        let endpoint = members.get("registration_client_uri");
        let configuration_endpoint = endpoint.map(|value| endpoint_url(value, judge));
        Ok(Self {
            client_secret,
            issued_at: members.get("client_id_issued_at").and_then(seconds),
            // "or 0 if it will not expire"
            secret_expires_at: expires_at.filter(|&time| time != 0),
            configuration_endpoint,
            access_token,
            client_id: client_id.to_owned(),
            metadata: metadata(members),
        })
    }
}

fn metadata(members: Members) -> ClientMetadata {
    let (issued, metadata): (Map<_, _>, _) =
        members.into_map().into_iter().partition(|(name, _)| ISSUED.contains(&name.as_str()));
    // Its secrets are overwritten.
    drop(Members::from(issued));
    ClientMetadata(metadata)
}

/// A text that can be part of a header.
fn text(value: &Value) -> Option<&str> {
    let fits =
        |text: &&str| (1..=LONGEST_VALUE).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    value.as_str().filter(fits)
}

fn secret(members: &Map<String, Value>, name: &'static str) -> Result<Option<Secret>, Violation> {
    match members.get(name) {
        None => Ok(None),
        Some(value) => text(value)
            .map(|text| Some(Secret::new(text)))
            .ok_or_else(|| violation(Rule::InvalidMember).at_member(name)),
    }
}

/// Checks the URL like every other endpoint of the OP, because the token and later the client secret are sent to it.
fn endpoint_url(value: &Value, judge: impl Fn(&Url) -> Result<(), Rule>) -> Result<Url, Violation> {
    let at = |rule| violation(rule).at_member("registration_client_uri");
    let url = text(value).and_then(|text| Url::parse(text).ok()).filter(|url| url.fragment().is_none());
    let url = url.ok_or_else(|| at(Rule::InvalidMember))?;
    judge(&url).map_err(at)?;
    Ok(url)
}

/// Seconds since 1970, in any form that OPs send.
fn seconds(value: &Value) -> Option<u64> {
    let fractional = || value.as_f64().filter(|seconds| *seconds >= 0.0);
    let written = || value.as_str().and_then(|text| text.parse().ok());
    // The cast saturates.
    value.as_u64().or_else(|| fractional().map(|seconds| seconds as u64)).or_else(written)
}

fn violation(rule: Rule) -> Violation {
    Violation::new(rule).in_document(Document::ClientInformation)
}
