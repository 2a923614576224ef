//! Discovery (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).

use serde_json::{Map, Value};

use super::cache::{self, Fetched};
use super::{Provider, ProviderMetadata};
use crate::endpoint::is_json;
use crate::error::{Document, Error, ErrorKind, Rule, Violation};
use crate::json::Object;
use crate::transport::HttpResponse;

/// The members that say whose metadata they are, where requests go, and what this client must do.
const NEEDED: [&str; 15] = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
    "pushed_authorization_request_endpoint",
    "end_session_endpoint",
    "registration_endpoint",
    "mtls_endpoint_aliases",
    "authorization_response_iss_parameter_supported",
    "require_pushed_authorization_requests",
    "require_signed_request_object",
    "tls_client_certificate_bound_access_tokens",
];

impl Provider {
    pub(super) async fn fetch_metadata(&self) -> Result<Fetched<ProviderMetadata>, Error> {
        let mut not_found = None;
        for url in self.issuer.metadata_urls() {
            match self.fetch(&url, Document::Metadata).await {
                Ok(response) => {
                    let value = self.read_metadata(&response).map_err(Error::from)?;
                    return Ok(Fetched { value, lifetime: cache::lifetime(&response.headers) });
                }
                // The document is not here, or not for everybody; whose the other one is will be compared. A server in
                // trouble says nothing about other places.
                Err(error) if is_not_there(&error) => not_found = not_found.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(not_found.unwrap_or_else(|| Violation::new(Rule::UnexpectedStatus).in_document(Document::Metadata).into()))
    }

    fn read_metadata(&self, response: &HttpResponse) -> Result<ProviderMetadata, Violation> {
        let members = members(response).map_err(|violation| violation.in_document(Document::Metadata))?;
        // OpenID Connect Discovery 1.0 §4.3: "The issuer value returned MUST be identical to the Issuer URL that was
        // used as the prefix to /.well-known/openid-configuration to retrieve the configuration information."
        match members.get("issuer") {
            Some(Value::String(issuer)) if issuer == self.issuer.as_str() => {}
            Some(Value::String(_)) => return Err(violation(Rule::IssuerMismatch, "issuer")),
            Some(_) => return Err(violation(Rule::InvalidMember, "issuer")),
            None => return Err(violation(Rule::MissingMember, "issuer")),
        }
        ProviderMetadata::parse(members, self.issuer.url(), self.urls)
    }
}

fn members(response: &HttpResponse) -> Result<Map<String, Value>, Violation> {
    match Object::read(&response.body, Document::Metadata, &NEEDED) {
        Err(violation) if violation.rule() == Rule::MalformedJson && !is_json(&response.headers) => {
            Err(Violation::new(Rule::UnexpectedContentType))
        }
        read => read,
    }
}

pub(super) fn violation(rule: Rule, member: &'static str) -> Violation {
    Violation::new(rule).in_document(Document::Metadata).at_member(member)
}

fn is_not_there(error: &Error) -> bool {
    let status = match error.kind() {
        ErrorKind::Protocol(violation) => violation.status(),
        _ => None,
    };
    matches!(status, Some(400 | 401 | 403 | 404 | 405 | 410))
}
