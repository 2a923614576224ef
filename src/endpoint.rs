//! Sends all requests to the OP's endpoints: client authentication, DPoP with nonces, and classification of responses.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Instrument as _;
use url::{Position, Url};
use zeroize::Zeroizing;

use crate::clock::{Clock, unix_seconds};
use crate::dpop::{DpopKey, ProofParts};
use crate::error::{Document, Error, Rule, TransportProblem, Violation};
use crate::random::{self, Random};
use crate::secret::{Secret, SecretBuffer};
use crate::trace_parent::TraceParent;
use crate::transport::{ClientCertificate, HttpClient, HttpError, HttpRequest, HttpResponse, PresentedCertificate};

mod answer;
mod challenge;
mod client_authentication;
mod clock_offset;
mod nonces;
mod registration;
mod resource;
mod retry_after;
#[cfg(test)]
mod tests;

pub use client_authentication::ClientAuthentication;

pub(crate) use answer::{Answer, ErrorAnswer, is_json, without_byte_order_mark};
pub(crate) use client_authentication::{GivenCredentials, Offer, SIGNER_TIMEOUT};
pub(crate) use nonces::gives_nonce;
pub(crate) use registration::RegistrationCall;
pub(crate) use resource::{Presentation, ResourceRequest, stated_error};

use clock_offset::ClockOffsets;
use nonces::NonceCache;

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const DPOP: HeaderName = HeaderName::from_static("dpop");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Sends requests to endpoints, and stores the DPoP nonce and the clock offset of each origin.
pub(crate) struct Endpoints {
    http: Arc<dyn HttpClient>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    nonces: NonceCache,
    offsets: ClockOffsets,
    /// An endpoint was not found at its URL in the metadata.
    absent: AtomicBool,
}

/// The role of a server. Each role has its own nonces, even at the same origin (RFC 9449 §8.2 and §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    AuthorizationServer,
    ResourceServer,
}

/// The client's identifier and its authentication.
#[derive(Debug, Clone)]
pub(crate) struct ClientIdentity {
    pub(crate) client_id: String,
    pub(crate) authentication: ClientAuthentication,
    /// Presented in TLS at every endpoint of the OP. It authenticates the client, or the tokens are bound to it.
    pub(crate) certificate: Option<ClientCertificate>,
}

impl ClientIdentity {
    /// Whether the OP's endpoints are called with a certificate, and therefore at their aliases (RFC 8705 §5).
    pub(crate) fn uses_mutual_tls(&self) -> bool {
        self.certificate.is_some()
    }
}

/// One request to an endpoint of the OP, as a form.
pub(crate) struct EndpointRequest<'a> {
    pub(crate) url: &'a Url,
    /// Names the response in errors.
    pub(crate) document: Document,
    /// The parameters of the request. The credentials are added, and `client_id` unless it is here.
    pub(crate) form: Vec<(&'a str, Cow<'a, str>)>,
    pub(crate) client: &'a ClientIdentity,
    /// The `aud` of a client assertion, one string; `None` for the URL above.
    pub(crate) assertion_audience: Option<&'a str>,
    pub(crate) dpop: Option<&'a DpopKey>,
    /// Sent in the `Authorization` header, with `ath` in the proof. A client that authenticates in the body still does
    /// so. `client_secret_basic` is not possible.
    pub(crate) access_token: Option<&'a Secret>,
    /// Sent in the header `traceparent`.
    pub(crate) trace_parent: Option<&'a TraceParent>,
    /// The timeout of each request that is sent, including the second one after a challenge.
    pub(crate) timeout: Duration,
    pub(crate) body_limit: usize,
}

/// The maximal number of transmissions of one request: one, one more with a nonce, and one more with the OP's time.
pub(crate) const REQUESTS_AT_MOST: u32 = 3;

/// How long preparing a request may take, apart from signatures by a signer.
const PREPARATION: Duration = Duration::from_secs(5);

/// How long after the call began the request may be sent, if `answers` transmissions of it were answered before.
fn longest_preparation(request: &EndpointRequest<'_>, answers: u32) -> Duration {
    let signing = match request.client.authentication.signer() {
        Some(_) => request.timeout.min(SIGNER_TIMEOUT),
        None => Duration::ZERO,
    };
    let signing = signing.saturating_mul(answers.saturating_add(1));
    request.timeout.saturating_mul(answers).saturating_add(signing).saturating_add(PREPARATION)
}

/// The encoding of a request's body.
#[derive(Debug, Clone, Copy)]
enum Encoding {
    Form,
    Json,
}

/// There was no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether the OP may have acted on the request. An earlier request that the OP answered with a nonce challenge
    /// does not count: it was refused before anything was done.
    pub(crate) may_have_been_sent: bool,
}

impl Endpoints {
    pub(crate) fn new(http: Arc<dyn HttpClient>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            http,
            clock,
            random,
            nonces: NonceCache::default(),
            offsets: ClockOffsets::default(),
            absent: AtomicBool::new(false),
        }
    }

    /// What requests are sent through.
    pub(crate) fn http_client(&self) -> &Arc<dyn HttpClient> {
        &self.http
    }

    /// Sends a form and reads the answer.
    ///
    /// After a nonce challenge the request is sent once more, with the new nonce, a new `jti` and a new client
    /// assertion (RFC 9449 §8). After `invalid_dpop_proof` it is sent once more with the OP's time, if the response's
    /// `Date` shows that the two clocks differ. It is not sent if the
    /// machine was suspended meanwhile. Timers stand still in a suspend, so the clock is compared with the timeouts of
    /// signing and of the earlier transmissions.
    pub(crate) async fn post(&self, request: EndpointRequest<'_>) -> Result<Answer, Failure> {
        self.post_as(Encoding::Form, request).await
    }

    /// The same with the parameters as members of a JSON object.
    pub(crate) async fn post_json(&self, request: EndpointRequest<'_>) -> Result<Answer, Failure> {
        self.post_as(Encoding::Json, request).await
    }

    async fn post_as(&self, encoding: Encoding, request: EndpointRequest<'_>) -> Result<Answer, Failure> {
        let mut nonce = request.dpop.and_then(|_| self.nonces.latest(Role::AuthorizationServer, request.url));
        let (mut challenged, mut clock_corrected) = (false, false);
        let began = self.clock.monotonic();
        loop {
            let outgoing = self.request(encoding, &request, nonce.as_deref()).await.map_err(Failure::before_sending)?;
            let answers = u32::from(challenged) + u32::from(clock_corrected);
            let took = self.clock.monotonic().saturating_sub(began);
            if took > longest_preparation(&request, answers) {
                return Err(HttpError::not_sent(TransportProblem::Timeout).into());
            }
            let sent = self.send(outgoing).await;
            self.note_absence(&sent);
            let response = sent?;
            let now = self.clock.now();
            let given = self.nonces.learn(Role::AuthorizationServer, request.url, &response.headers);
            let server_time = clock_offset::date(&response.headers);
            let answer = Answer::of(response, request.document, now);
            let refusal = answer.refusal_of_the_proof().filter(|_| request.dpop.is_some());
            match (refusal, given) {
                (Some("use_dpop_nonce"), Some(given)) if !challenged => {
                    tracing::debug!(
                        origin = origin(request.url),
                        "the OP requires a DPoP nonce; the request is repeated with it"
                    );
                    challenged = true;
                    nonce = Some(given);
                }
                (Some("use_dpop_nonce"), given) => {
                    let rule = if given.is_some() { Rule::SecondNonceChallenge } else { Rule::NonceMissing };
                    return Ok(answer.into_failed_challenge(Violation::new(rule).in_document(request.document)));
                }
                (Some("invalid_dpop_proof"), given)
                    if !clock_corrected && self.offsets.correct(request.url, server_time, now) =>
                {
                    tracing::warn!(
                        origin = origin(request.url),
                        "the OP refused the time of a DPoP proof; the request is repeated with the OP's time"
                    );
                    clock_corrected = true;
                    nonce = given.or(nonce);
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Sends one request in a span of its own, which contains neither the request nor the response.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let span = tracing::debug_span!(
            "openid_deferred.request",
            otel.kind = "client",
            http.request.method = request.method.as_str(),
            server.address = request.url.host_str(),
            server.port = request.url.port_or_known_default(),
            document = %request.document,
            http.response.status_code = tracing::field::Empty,
            error.type = tracing::field::Empty,
        );
        let sent = self.http.send(request).instrument(span.clone()).await;
        match &sent {
            Ok(response) => span.record("http.response.status_code", response.status.as_u16()),
            Err(error) => span.record("error.type", tracing::field::display(error)),
        };
        sent
    }

    /// Fetches a public document.
    pub(crate) async fn get_json(
        &self,
        url: &Url,
        document: Document,
        body_limit: usize,
        timeout: Duration,
    ) -> Result<HttpResponse, HttpError> {
        let headers = HeaderMap::from_iter([(ACCEPT, JSON)]);
        let (method, url, body) = (Method::GET, url.clone(), Bytes::new());
        let client_certificate = None;
        let request = HttpRequest { method, url, headers, body, timeout, body_limit, document, client_certificate };
        let sent = self.http.send(request).await;
        if document == Document::KeySet {
            self.note_absence(&sent);
        }
        sent
    }

    /// Whether an endpoint was missing at the URL in the metadata since the last call: the connection failed, or the
    /// server answered with a redirect or a status such as 404.
    pub(crate) fn take_absence(&self) -> bool {
        self.absent.swap(false, Ordering::Relaxed)
    }

    fn note_absence(&self, sent: &Result<HttpResponse, HttpError>) {
        let is_absent = match sent {
            Ok(response) => response.status.is_redirection() || matches!(response.status.as_u16(), 404 | 405 | 410),
            Err(error) => error.is_without_connection(),
        };
        if is_absent {
            self.absent.store(true, Ordering::Relaxed);
        }
    }

    /// The source of randomness.
    pub(crate) fn random(&self) -> &Arc<dyn Random> {
        &self.random
    }

    /// One request with a new proof and a new client assertion.
    async fn request(
        &self,
        encoding: Encoding,
        request: &EndpointRequest<'_>,
        nonce: Option<&str>,
    ) -> Result<HttpRequest, Error> {
        let now = self.offsets.apply(request.url, self.clock.now());
        let mut credentials = self.credentials(request, now).await?;
        // Pushed requests contain it already, and no parameter may be repeated.
        credentials.form.retain(|(name, _)| !request.form.iter().any(|(present, _)| present == name));
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(ACCEPT, JSON);
        let (media_type, body) = match encoding {
            Encoding::Form => (FORM, form_body(&request.form, &credentials.form)),
            Encoding::Json => (JSON, json_body(&request.form, &credentials.form)),
        };
        headers.insert(CONTENT_TYPE, media_type);
        match request.access_token {
            Some(token) => headers.insert(AUTHORIZATION, authorization("DPoP", token)?),
            None => credentials.header.and_then(|header| headers.insert(AUTHORIZATION, header)),
        };
        if let Some(Ok(trace_parent)) = request.trace_parent.map(|parent| HeaderValue::from_str(parent.as_str())) {
            headers.insert(TRACE_PARENT, trace_parent);
        }
        if let Some(key) = request.dpop {
            let proof = self.proof(key, &Method::POST, request.url, nonce, request.access_token, now)?;
            headers.insert(DPOP, proof);
        }
        Ok(HttpRequest {
            method: Method::POST,
            url: request.url.clone(),
            headers,
            body,
            timeout: request.timeout,
            body_limit: request.body_limit,
            document: request.document,
            client_certificate: request.client.certificate.as_ref().map(|certificate| self.certificate(certificate)),
        })
    }

    /// The current certificate. An expired one is presented too, because the server decides whether it accepts it. The
    /// warning helps if the server's refusal does not state the reason.
    fn certificate(&self, certificate: &ClientCertificate) -> PresentedCertificate {
        let certificate = certificate.current();
        if certificate.expires_at() < self.clock.now() {
            tracing::warn!("the client certificate has expired; replace it");
        }
        certificate
    }

    fn proof(
        &self,
        key: &DpopKey,
        method: &Method,
        url: &Url,
        nonce: Option<&str>,
        access_token: Option<&Secret>,
        now: SystemTime,
    ) -> Result<HeaderValue, Error> {
        let id = random::base64url::<16>(&*self.random)?;
        let access_token = access_token.map(Secret::expose);
        let proof =
            key.proof(&ProofParts { method, url, issued_at: unix_seconds(now), id: &id, nonce, access_token })?;
        sensitive(proof)
    }
}

// Nonces and offsets are not shown, and the other fields have no state of interest.
impl fmt::Debug for Endpoints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Endpoints").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Failure {
    fn before_sending(error: Error) -> Self {
        Self { error, may_have_been_sent: false }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self { may_have_been_sent: error.may_have_been_sent(), error: error.into_error() }
    }
}

/// The form as a body that is overwritten in memory once it is sent.
fn form_body(parameters: &[(&str, Cow<'_, str>)], credentials: &[(&str, Secret)]) -> Bytes {
    let pairs = || {
        let parameters = parameters.iter().map(|(name, value)| (*name, value.as_ref()));
        parameters.chain(credentials.iter().map(|(name, value)| (*name, value.expose())))
    };
    // Large enough for every byte to be escaped: a buffer that grew would leave a copy behind.
    let capacity = pairs().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut serializer = form_urlencoded::Serializer::new(String::with_capacity(capacity));
    serializer.extend_pairs(pairs());
    Bytes::from_owner(Zeroizing::new(serializer.finish().into_bytes()))
}

/// The parameters as a JSON object in a body that is overwritten in memory once it is sent.
fn json_body(parameters: &[(&str, Cow<'_, str>)], credentials: &[(&str, Secret)]) -> Bytes {
    let parameters = parameters.iter().map(|(name, value)| (*name, value.as_ref()));
    let pairs = parameters.chain(credentials.iter().map(|(name, value)| (*name, value.expose())));
    let object: BTreeMap<&str, &str> = pairs.collect();
    let mut body = SecretBuffer::with_capacity(1024);
    // A map of strings can always be serialized, and writing to memory does not fail.
    let _ = serde_json::to_writer(&mut body, &object);
    Bytes::from_owner(body.into_bytes())
}

fn authorization(scheme: &str, token: &Secret) -> Result<HeaderValue, Error> {
    sensitive([scheme, " ", token.expose()].concat())
}

/// A header value that is not logged, not indexed by HPACK, and overwritten in memory once it is sent. A token with
/// characters that a header cannot contain is refused.
fn sensitive(value: String) -> Result<HeaderValue, Error> {
    let value = Bytes::from_owner(Zeroizing::new(value.into_bytes()));
    let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| Error::new(TransportProblem::Refused))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Scheme, host and port. URLs with a user name never get this far, and `Url` leaves default ports out.
fn origin(url: &Url) -> &str {
    &url[..Position::BeforePath]
}
