//! Requests to protected resources (RFC 6750 §2.1, RFC 9449 §7).

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use super::{DPOP, Endpoints, Failure, Role, authorization, challenge};
use crate::dpop::DpopKey;
use crate::error::{Document, Error};
use crate::secret::Secret;
use crate::transport::{ClientCertificate, HttpRequest, HttpResponse};

/// One request to a protected resource.
pub(crate) struct ResourceRequest<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    /// `Authorization` and `DPoP` are set, whatever stands here.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) access_token: &'a Secret,
    pub(crate) presentation: Presentation<'a>,
    pub(crate) document: Document,
    pub(crate) timeout: Duration,
    pub(crate) body_limit: usize,
}

/// How an access token is shown, as its `token_type` says.
#[derive(Clone, Copy)]
pub(crate) enum Presentation<'a> {
    Bearer,
    /// With a proof by the key to which the token is bound.
    Dpop(&'a DpopKey),
    /// Over connections with the certificate to which the token is bound (RFC 8705 §3).
    WithCertificate(&'a ClientCertificate),
}

impl Endpoints {
    /// Calls a protected resource. A nonce challenge is answered once (RFC 9449 §9); whatever comes after that is the
    /// resource's response.
    pub(crate) async fn resource(&self, request: ResourceRequest<'_>) -> Result<HttpResponse, Failure> {
        let nonce = match request.presentation {
            Presentation::Bearer | Presentation::WithCertificate(_) => None,
            Presentation::Dpop(_) => self.nonces.latest(Role::ResourceServer, request.url),
        };
        let first = self.call(&request, nonce.as_deref()).await?;
        let given = self.nonces.learn(Role::ResourceServer, request.url, &first.headers);
        let (Presentation::Dpop(_), Some(given), true) = (request.presentation, given, is_nonce_challenge(&first))
        else {
            return Ok(first);
        };
        let second = self.call(&request, Some(&given)).await?;
        self.nonces.learn(Role::ResourceServer, request.url, &second.headers);
        Ok(second)
    }

    async fn call(&self, request: &ResourceRequest<'_>, nonce: Option<&str>) -> Result<HttpResponse, Failure> {
        let outgoing = self.resource_request(request, nonce).map_err(Failure::before_sending)?;
        Ok(self.http.send(outgoing).await?)
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

fn is_nonce_challenge(response: &HttpResponse) -> bool {
    response.status == StatusCode::UNAUTHORIZED
        && challenge::error(&response.headers, &["DPoP"]).as_deref() == Some("use_dpop_nonce")
}
