//! Discovery (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).

use std::sync::Arc;

use serde_json::{Map, Value};
use url::Url;

use super::cache::{self, Fetched};
use super::keys::SignedJwt;
use super::metadata::violation;
use super::refetch::{Began, Dated, NotNewer};
use super::{Provider, ProviderMetadata, Source};
use crate::endpoint::is_json;
use crate::error::{Document, Error, ErrorKind, Rule, TransportProblem, Violation};
use crate::json::{Members, Object};
use crate::transport::HttpResponse;

/// The members that name the issuer and the endpoints, and those that restrict this client.
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
    /// Metadata that allows a JWT. It is fetched again if the cached metadata does not.
    ///
    /// The inner result is `violation` if metadata that was fetched after the receipt of the JWT does not allow it
    /// either. This is final.
    ///
    /// # Errors
    ///
    /// The outer result is an error if the JWT cannot be judged yet. It is [transient](Error::is_transient), and its
    /// `retry_after` states when to try again: [`Rule::MetadataOutdated`], or the error of
    /// [`metadata`](Self::metadata).
    pub(crate) async fn metadata_fitting(
        &self,
        jwt: &SignedJwt,
        violation: Violation,
        fit: impl Fn(&ProviderMetadata) -> bool,
    ) -> Result<Result<ProviderMetadata, Violation>, Error> {
        let attempt = |began| self.metadata_fitting_now(jwt, began, &fit);
        // Without metadata nothing can be outdated.
        let too_late = || match self.metadata.latest() {
            Some(_) => Violation::new(Rule::MetadataOutdated).in_document(Document::Metadata).into(),
            None => TransportProblem::Timeout.into(),
        };
        self.within_patience(jwt.patience, attempt, too_late).await.map(|fitting| fitting.ok_or(violation))
    }

    /// The same without waiting. `None` is final.
    async fn metadata_fitting_now(
        &self,
        jwt: &SignedJwt,
        began: Began,
        fit: &impl Fn(&ProviderMetadata) -> bool,
    ) -> Result<Option<ProviderMetadata>, Error> {
        let mut metadata = self.kept_metadata().await?;
        loop {
            if fit(&metadata.value) {
                return Ok(Some(metadata.value));
            }
            if self.source.is_newer(metadata.fetched, jwt.received_at, began) {
                return Ok(None);
            }
            let fetch = || self.source.clone().fetch_metadata();
            let newer = self.metadata_refetching.newer(&self.metadata, &metadata, jwt.channel, fetch).await;
            metadata = newer.map_err(outdated)?;
        }
    }
}

impl Source {
    pub(super) async fn fetch_metadata(self: Arc<Self>) -> Result<Fetched<Dated<ProviderMetadata>>, Error> {
        let mut first = None;
        for url in self.issuer.metadata_urls() {
            match self.fetch_metadata_at(&url).await {
                // The document is not at this URL, or not public. The issuer of a document at the next URL is checked
                // too. A server error says nothing about other URLs.
                Err(error) if is_not_there(&error) => first = first.or(Some(error)),
                fetched => return fetched,
            }
        }
        Err(first.unwrap_or_else(|| Violation::new(Rule::UnexpectedStatus).in_document(Document::Metadata).into()))
    }

    async fn fetch_metadata_at(&self, url: &Url) -> Result<Fetched<Dated<ProviderMetadata>>, Error> {
        let fetched = self.fetch_begins();
        let response = self.fetch(url, Document::Metadata).await?;
        let value = self.read_metadata(&response)?;
        let value = Dated { value, fetched: fetched.out_of_a_cache(&response.headers) };
        Ok(Fetched { value, lifetime: cache::lifetime(&response.headers) })
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

/// The metadata does not allow the JWT, and cannot be fetched again yet.
fn outdated(why: NotNewer) -> Error {
    let outdated = Error::from(Violation::new(Rule::MetadataOutdated).in_document(Document::Metadata));
    match why {
        NotNewer::TooEarly(pause) => outdated.with_retry_after(Some(pause)),
        NotNewer::Failed(reason) => outdated.with_retry_after(reason.retry_after()).with_source(reason),
    }
}

fn members(response: &HttpResponse) -> Result<Map<String, Value>, Violation> {
    match Object::read(&response.body, Document::Metadata, &NEEDED) {
        Err(violation) if violation.rule() == Rule::MalformedJson && !is_json(&response.headers) => {
            Err(Violation::new(Rule::UnexpectedContentType))
        }
        read => read.map(Members::into_map),
    }
}

/// Whether a URL has no metadata. Single-page applications answer every path with their page, and other servers
/// redirect unknown paths, for example to a login page. Redirects are not followed.
fn is_not_there(error: &Error) -> bool {
    let ErrorKind::Protocol(violation) = error.kind() else { return false };
    match violation.rule() {
        Rule::UnexpectedContentType | Rule::UnexpectedRedirect => true,
        _ => matches!(violation.status(), Some(400 | 401 | 403 | 404 | 405 | 410)),
    }
}
