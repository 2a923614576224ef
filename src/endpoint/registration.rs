//! Requests to the client registration endpoint (RFC 7591 §3) and to a client configuration endpoint (RFC 7592 §2).

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use url::Url;
use zeroize::Zeroizing;

use super::{Answer, Endpoints, Failure, JSON, authorization};
use crate::error::{Document, Error};
use crate::secret::Secret;
use crate::transport::{ClientCertificate, HttpRequest};

/// One request about a client's registration. It carries a bearer token instead of client authentication.
pub(crate) struct RegistrationCall<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    /// The client metadata, if the request has any.
    pub(crate) metadata: Option<&'a Map<String, Value>>,
    /// The initial access token or the registration access token (RFC 6750 §2.1).
    pub(crate) access_token: Option<&'a Secret>,
    /// For OPs that accept registrations only with a certificate.
    pub(crate) certificate: Option<&'a ClientCertificate>,
    pub(crate) document: Document,
    pub(crate) timeout: Duration,
    pub(crate) body_limit: usize,
}

impl Endpoints {
    /// Sends the request, once, and reads the answer.
    pub(crate) async fn registration(&self, call: RegistrationCall<'_>) -> Result<Answer, Failure> {
        let document = call.document;
        let outgoing = self.registration_request(call).map_err(Failure::before_sending)?;
        let response = self.send(outgoing).await?;
        Ok(Answer::of(response, document, self.clock.now()))
    }

    fn registration_request(&self, call: RegistrationCall<'_>) -> Result<HttpRequest, Error> {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(ACCEPT, JSON);
        if let Some(token) = call.access_token {
            headers.insert(AUTHORIZATION, authorization("Bearer", token)?);
        }
        let body = match call.metadata {
            Some(metadata) => {
                headers.insert(CONTENT_TYPE, JSON);
                // An update contains the client secret. A JSON object can always be serialized.
                Bytes::from_owner(Zeroizing::new(serde_json::to_vec(metadata).unwrap_or_default()))
            }
            None => Bytes::new(),
        };
        Ok(HttpRequest {
            method: call.method,
            url: call.url.clone(),
            headers,
            body,
            timeout: call.timeout,
            body_limit: call.body_limit,
            document: call.document,
            client_certificate: call.certificate.map(|certificate| self.certificate(certificate)),
        })
    }
}
