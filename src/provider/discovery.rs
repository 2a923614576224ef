//! Discovery (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).

use http::StatusCode;
use serde_json::{Map, Value};

use super::cache::{self, Fetched};
use super::{Provider, ProviderMetadata};
use crate::endpoint::is_json;
use crate::error::{Document, Error, ErrorKind, Rule, Violation};
use crate::jose::strict_object;
use crate::transport::HttpResponse;

impl Provider {
    pub(super) async fn fetch_metadata(&self) -> Result<Fetched<ProviderMetadata>, Error> {
        let mut not_found = None;
        for url in self.issuer.metadata_urls() {
            match self.fetch(&url, Document::Metadata).await {
                Ok(response) => {
                    let value = self.read_metadata(&response).map_err(Error::from)?;
                    return Ok(Fetched { value, lifetime: cache::lifetime(&response.headers) });
                }
                // Only this status says that the document is not here; anything else says nothing about other places.
                Err(error) if is_not_found(&error) => not_found = not_found.or(Some(error)),
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
    if let Some(members) = strict_object(&response.body) {
        return Ok(members);
    }
    if !is_json(&response.headers) {
        return Err(Violation::new(Rule::UnexpectedContentType));
    }
    Err(match serde_json::from_slice::<Map<String, Value>>(&response.body) {
        Err(error) => Violation::malformed_json(Document::Metadata, &error),
        // A member name is repeated, and nobody can say which of the two counts.
        Ok(_) => Violation::new(Rule::MalformedJson),
    })
}

pub(super) fn violation(rule: Rule, member: &'static str) -> Violation {
    Violation::new(rule).in_document(Document::Metadata).at_member(member)
}

fn is_not_found(error: &Error) -> bool {
    let status = match error.kind() {
        ErrorKind::Protocol(violation) => violation.status(),
        _ => None,
    };
    status == Some(StatusCode::NOT_FOUND.as_u16())
}
