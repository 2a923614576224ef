//! RFC 9126: sends the authorization request to the OP directly, and gives the browser a reference to it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use url::Url;

use super::Client;
use crate::clock::saturating_add;
use crate::dpop::DpopKey;
use crate::endpoint::{Answer, EndpointRequest, Failure};
use crate::error::{Document, Error, Rule, Violation};
use crate::json::Object;
use crate::json::seconds::{Rounding, seconds};
use crate::provider::ProviderMetadata;

/// The longest answer in bytes. It contains a URN and a number.
const RESPONSE_LIMIT: usize = 64 * 1024;
/// The longest reference in bytes. It is part of a URL, whose length browsers and servers limit.
const LONGEST_REQUEST_URI: usize = 2_000;

/// The OP's answer to a pushed request.
pub(super) struct Pushed {
    request_uri: String,
    /// The time until which the browser must use the reference.
    pub(super) expires_at: SystemTime,
}

impl Client {
    /// Whether requests of this client are pushed: because the OP accepts no others, or because the client is
    /// configured for it.
    pub(super) fn pushes(&self, metadata: &ProviderMetadata) -> bool {
        self.0.options.pushed_authorization_requests || metadata.require_pushed_authorization_requests()
    }

    /// The endpoint that requests are pushed to.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::NoEndpoint`](crate::error::ConfigurationProblem::NoEndpoint), or an error about its URL.
    pub(super) fn push_endpoint<'a>(&self, metadata: &'a ProviderMetadata) -> Result<&'a Url, Error> {
        self.endpoints(metadata, self.identity_at(metadata)?).pushed_authorization_request()
    }

    /// Sends the parameters to the OP, with the client's authentication and a proof by the key of the sign-in (RFC 9126
    /// §2.1, RFC 9449 §10.1).
    pub(super) async fn push(
        &self,
        metadata: &ProviderMetadata,
        parameters: &[(&str, String)],
        dpop_key: Option<&DpopKey>,
    ) -> Result<Pushed, Error> {
        let request = EndpointRequest {
            url: self.push_endpoint(metadata)?,
            document: Document::PushedAuthorizationResponse,
            form: parameters.iter().map(|(name, value)| (*name, Cow::Borrowed(value.as_str()))).collect(),
            client: self.identity_at(metadata)?,
            assertion_audience: self.assertion_audience(metadata),
            dpop: dpop_key,
            access_token: None,
            trace_parent: None,
            timeout: self.0.options.request_timeout,
            body_limit: RESPONSE_LIMIT,
        };
        // The lifetime counts from the answer. Counting from the request is on the safe side.
        let sent_at = self.0.clock.now();
        match self.0.endpoints.post(request).await {
            Ok(Answer::Success { body, .. }) => Ok(self.pushed(&body, sent_at)?),
            Ok(Answer::Error(answer)) => Err(Error::new(answer.response).with_retry_after(answer.retry_after)),
            Ok(Answer::Unusable { violation, retry_after, .. }) => {
                Err(Error::new(violation).with_retry_after(retry_after))
            }
            // The request used nothing up, even if the OP saw it: the next one has new values.
            Err(Failure { error, .. }) => Err(error),
        }
    }

    /// RFC 9126 §2.2.
    fn pushed(&self, body: &[u8], sent_at: SystemTime) -> Result<Pushed, Violation> {
        let (request_uri, lifetime) = read(body)?;
        // Older sessions are refused, so a longer life of the reference has no use.
        let expires_at = saturating_add(sent_at, lifetime.min(self.0.options.session_lifetime));
        if expires_at <= self.0.clock.now() {
            return Err(violation(Rule::RequestUriExpired).at_member("expires_in"));
        }
        Ok(Pushed { request_uri, expires_at })
    }
}

impl Pushed {
    /// The URL for the browser. It contains only the client and the reference, because the OP has the request (RFC 9126
    /// §4).
    pub(super) fn url(&self, metadata: &ProviderMetadata, client_id: &str) -> Result<Url, Error> {
        let mut url = metadata.authorization_url()?.clone();
        url.query_pairs_mut().append_pair("client_id", client_id).append_pair("request_uri", &self.request_uri);
        Ok(url)
    }
}

fn read(body: &[u8]) -> Result<(String, Duration), Violation> {
    let mut members = Object::read(body, Document::PushedAuthorizationResponse, &["request_uri", "expires_in"])?;
    let mut member = |name| members.shift_remove(name).filter(|value| !value.is_null());
    let request_uri = match member("request_uri") {
        None => return Err(violation(Rule::MissingMember).at_member("request_uri")),
        Some(Value::String(uri)) if is_reference(&uri) => uri,
        Some(_) => return Err(violation(Rule::InvalidMember).at_member("request_uri")),
    };
    let lifetime = match member("expires_in") {
        None => return Err(violation(Rule::MissingMember).at_member("expires_in")),
        Some(value) => seconds(Some(&value), "expires_in", Rounding::Down),
    };
    Ok((request_uri, lifetime.ok_or_else(|| violation(Rule::InvalidMember).at_member("expires_in"))?))
}

/// "The format of the `request_uri` value is at the discretion of the authorization server", but it is a URI.
fn is_reference(uri: &str) -> bool {
    uri.len() <= LONGEST_REQUEST_URI && uri.bytes().all(|byte| byte.is_ascii_graphic()) && Url::parse(uri).is_ok()
}

fn violation(rule: Rule) -> Violation {
    Violation::new(rule).in_document(Document::PushedAuthorizationResponse)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c";

    fn problem(json: &str) -> (Rule, Option<&'static str>) {
        let violation = read(json.as_bytes()).unwrap_err();
        (violation.rule(), violation.member())
    }

    #[test]
    fn the_answer_of_rfc_9126_is_read() {
        let (uri, lifetime) = read(format!(r#"{{"request_uri": "{URI}", "expires_in": 60}}"#).as_bytes()).unwrap();
        assert_eq!((uri.as_str(), lifetime.as_secs()), (URI, 60));
    }

    #[test]
    fn a_missing_or_invalid_member_is_named() {
        let with = |uri: &str| format!(r#"{{"request_uri": {uri}, "expires_in": 60}}"#);
        assert_eq!(problem(r#"{"expires_in": 60}"#), (Rule::MissingMember, Some("request_uri")));
        let long = format!("\"urn:x:{}\"", "a".repeat(LONGEST_REQUEST_URI));
        for uri in ["7", "\"\"", "\"not a uri\"", "\"urn:a b\"", "\"urn:a\\n\"", "\"urn:ä\"", &long] {
            assert_eq!(problem(&with(uri)), (Rule::InvalidMember, Some("request_uri")), "{uri}");
        }
        let with = |lifetime: &str| format!(r#"{{"request_uri": "{URI}", "expires_in": {lifetime}}}"#);
        assert_eq!(problem(&format!(r#"{{"request_uri": "{URI}"}}"#)), (Rule::MissingMember, Some("expires_in")));
        for lifetime in ["0", "-1", "\"soon\"", "{}", "0.4"] {
            assert_eq!(problem(&with(lifetime)), (Rule::InvalidMember, Some("expires_in")), "{lifetime}");
        }
    }
}
