//! Access to the provider without a socket.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::header;

use super::certificate;
use super::op::Op;
use super::wire::{Delivery, Incoming, Reply};
use crate::error::TransportProblem;
use crate::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};

/// An [`HttpClient`] that calls providers in this process directly. It reproduces timeouts, body limits and broken
/// connections, on the provider's clock.
#[derive(Clone)]
pub(super) struct InProcess(pub(super) Vec<Arc<Op>>);

impl HttpClient for InProcess {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            let Some(op) = self.0.iter().find(|op| op.is_at(&request.url)) else {
                return Err(HttpError::not_sent(TransportProblem::Connect));
            };
            let incoming = Incoming {
                method: request.method.clone(),
                url: request.url.clone(),
                headers: request.headers.clone(),
                body: request.body.clone(),
                certificates: match &request.client_certificate {
                    Some(certificate) if op.settings.mutual_tls => {
                        certificate::from_pem(certificate.certificates_pem())
                    }
                    _ => Vec::new(),
                },
            };
            let delivery = tokio::select! {
                biased;
                delivery = op.handle(incoming) => delivery,
                () = op.clock.sleep(request.timeout) => {
                    return Err(HttpError::maybe_sent(TransportProblem::Timeout));
                }
            };
            op.send_due_pings();
            let response = received(delivery, &request);
            op.announce();
            response
        })
    }

    fn presents_client_certificates(&self) -> bool {
        true
    }
}

/// Converts a delivery to what a client receives.
fn received(delivery: Delivery, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
    let too_large = || HttpError::maybe_sent(TransportProblem::BodyTooLarge(request.document));
    let broken = || HttpError::maybe_sent(TransportProblem::Broken);
    let Reply { status, mut headers, body, .. } = match delivery {
        Delivery::Whole(reply) => reply,
        Delivery::Endless(_) => return Err(too_large()),
        Delivery::Cut(_) | Delivery::Reset | Delivery::Stall => return Err(broken()),
    };
    let is_compressed = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let body = match is_compressed {
        false => body,
        true => {
            headers.remove(header::CONTENT_ENCODING);
            let mut inflated = Vec::new();
            let limit = u64::try_from(request.body_limit).unwrap_or(u64::MAX).saturating_add(1);
            let decoder = flate2::read::GzDecoder::new(&body[..]);
            decoder.take(limit).read_to_end(&mut inflated).map_err(|_| broken())?;
            Bytes::from(inflated)
        }
    };
    match body.len() > request.body_limit {
        true => Err(too_large()),
        false => Ok(HttpResponse { status, headers, body }),
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|op| &op.settings.issuer)).finish()
    }
}
