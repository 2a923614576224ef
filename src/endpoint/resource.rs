//! Requests to protected resources (RFC 6750 §2.1, RFC 9449 §7).

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use super::{DPOP, Endpoints, Failure, Role, authorization, challenge, clock_offset, origin};
use crate::dpop::DpopKey;
use crate::error::{Document, Error, ErrorResponse};
use crate::secret::Secret;
use crate::transport::{ClientCertificate, HttpRequest, HttpResponse};

/// One request to a protected resource.
pub(crate) struct ResourceRequest<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    /// `Authorization` and `DPoP` are replaced.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) access_token: &'a Secret,
    pub(crate) presentation: Presentation<'a>,
    pub(crate) document: Document,
    pub(crate) timeout: Duration,
    pub(crate) body_limit: usize,
}

/// How an access token is presented, according to its `token_type`.
#[derive(Clone, Copy)]
pub(crate) enum Presentation<'a> {
    Bearer,
    /// With a proof of the key to which the token is bound.
    Dpop(&'a DpopKey),
    /// Over connections with the certificate to which the token is bound (RFC 8705 §3).
    WithCertificate(&'a ClientCertificate),
}

impl Endpoints {
    /// Calls a protected resource. The request is repeated once after a nonce challenge (RFC 9449 §9), and once after a
    /// refused proof if the response's `Date` shows that the two clocks differ. Any later response is returned.
    pub(crate) async fn resource(&self, request: ResourceRequest<'_>) -> Result<HttpResponse, Failure> {
        let Presentation::Dpop(_) = request.presentation else { return self.call(&request, None).await };
        let mut nonce = self.nonces.latest(Role::ResourceServer, request.url);
        let (mut challenged, mut clock_corrected) = (false, false);
        loop {
            let response = self.call(&request, nonce.as_deref()).await?;
            let given = self.nonces.learn(Role::ResourceServer, request.url, &response.headers);
            match (refusal_of_the_proof(&response).as_deref(), given) {
                (Some("use_dpop_nonce"), Some(given)) if !challenged => {
                    challenged = true;
                    nonce = Some(given);
                }
                (Some("invalid_dpop_proof"), given)
                    if !clock_corrected
                        && self.offsets.correct(
                            request.url,
                            clock_offset::date(&response.headers),
                            self.clock.now(),
                        ) =>
                {
                    tracing::warn!(
                        origin = origin(request.url),
                        "the resource refused the time of a DPoP proof; the request is repeated with the resource's time"
                    );
                    clock_corrected = true;
                    nonce = given.or(nonce);
                }
                _ => return Ok(response),
            }
        }
    }

    async fn call(&self, request: &ResourceRequest<'_>, nonce: Option<&str>) -> Result<HttpResponse, Failure> {
        let outgoing = self.resource_request(request, nonce).map_err(Failure::before_sending)?;
        Ok(self.send(outgoing).await?)
    }

    fn resource_request(&self, request: &ResourceRequest<'_>, nonce: Option<&str>) -> Result<HttpRequest, Error> {
        let mut headers = request.headers.clone();
        headers.remove(DPOP);
        let scheme = match request.presentation {
            Presentation::Bearer | Presentation::WithCertificate(_) => "Bearer",
            Presentation::Dpop(key) => {
                let now = self.offsets.apply(request.url, self.clock.now());
                let token = Some(request.access_token);
                headers.insert(DPOP, self.proof(key, &request.method, request.url, nonce, token, now)?);
                "DPoP"
            }
        };
        headers.insert(AUTHORIZATION, authorization(scheme, request.access_token)?);
        Ok(HttpRequest {
            method: request.method.clone(),
            url: request.url.clone(),
            headers,
            body: request.body.clone(),
            timeout: request.timeout,
            body_limit: request.body_limit,
            document: request.document,
            client_certificate: match request.presentation {
                Presentation::WithCertificate(certificate) => Some(self.certificate(certificate)),
                Presentation::Bearer | Presentation::Dpop(_) => None,
            },
        })
    }
}

/// The error of the DPoP challenge in a 401.
fn refusal_of_the_proof(response: &HttpResponse) -> Option<String> {
    (response.status == StatusCode::UNAUTHORIZED).then(|| challenge::error(&response.headers, &["DPoP"]))?
}

/// The error in a protected resource's challenge (RFC 6750 §3): with 401 about the token or the proof, with 403 about
/// the scope, with 400 about the request.
pub(crate) fn stated_error(status: StatusCode, headers: &HeaderMap) -> Option<ErrorResponse> {
    status.is_client_error().then(|| challenge::error_response(headers, status.as_u16()))?
}
