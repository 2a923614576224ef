//! The faults that a test can request.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::editor::Editor;
use super::encryption::EncryptionForgery;
use super::record::{Endpoint, RecordedRequest};
use super::wire::{Delivery, Reply};

/// A fault of the provider at one of its endpoints, once or more often.
///
/// A fault applies to the next request at its endpoint. [`skip`](Self::skip) lets requests pass before,
/// [`times`](Self::times) and [`always`](Self::always) apply it to several requests. Most faults occur before the
/// request is processed, like those of a broken proxy. With [`after_processing`](Self::after_processing) the provider
/// has processed the request (a code is spent, a sign-in ended), and only the answer is affected.
///
/// ```
/// use openid_deferred::testing::{Endpoint, Fault, TestProvider};
/// # fn main() -> std::io::Result<()> {
/// let op = TestProvider::builder().in_process().start()?;
/// op.misbehave(Fault::status(Endpoint::Poll, 503).header("Retry-After", "120").times(3));
/// op.misbehave(Fault::reset(Endpoint::Exchange).after_processing());
/// op.misbehave(Fault::edit_json(Endpoint::Exchange, |members| {
///     members.insert("interval".into(), "7".into());
/// }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a fault does nothing until it is given to a provider"]
pub struct Fault {
    pub(super) endpoint: Endpoint,
    pub(super) name: String,
    pub(super) action: Action,
    skip: usize,
    left: Option<usize>,
    after_processing: bool,
    successes_only: bool,
    condition: Option<Condition>,
}

/// Selects the requests that a fault applies to.
#[derive(Clone)]
struct Condition(Arc<dyn Fn(&RecordedRequest) -> bool + Send + Sync>);

#[derive(Clone)]
pub(super) enum Action {
    Reply(Reply),
    Reset,
    Stall,
    Delay(Duration),
    Endless,
    Cut,
    Truncate,
    EditJson(Editor<Map<String, Value>>),
    EditBody(Editor<String>),
    EditHeaders(Editor<HeaderMap>),
    IdToken(IdTokenForgery),
    Encryption(EncryptionForgery),
    Authorization(Editor<Vec<(String, String)>>),
    JwtResponse(IdTokenForgery),
    ForgetNonces,
    ByteOrderMark,
    Status(StatusCode),
}

impl Fault {
    fn new(endpoint: Endpoint, name: impl Into<String>, action: Action) -> Self {
        let name = name.into();
        Self {
            endpoint,
            name,
            action,
            skip: 0,
            left: Some(1),
            after_processing: false,
            successes_only: false,
            condition: None,
        }
    }

    /// A fault that edits every answer, so it applies after the request is processed.
    fn edit(endpoint: Endpoint, name: &str, action: Action) -> Self {
        Self { after_processing: true, ..Self::new(endpoint, name, action) }
    }

    /// A fault that edits successful answers.
    fn edit_success(endpoint: Endpoint, name: &str, action: Action) -> Self {
        Self { successes_only: true, ..Self::edit(endpoint, name, action) }
    }

    /// Answers with only a status and an HTML page, as a proxy does.
    pub fn status(endpoint: Endpoint, status: u16) -> Self {
        Self::response(endpoint, status, "text/html", format!("<html><body><h1>{status}</h1></body></html>"))
    }

    /// Answers with exactly this. An empty content type is omitted.
    pub fn response(endpoint: Endpoint, status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::new(endpoint, format!("status {status}"), Action::Reply(Reply::new(status, content_type, body)))
    }

    /// Answers with an OAuth error and status 400.
    pub fn error(endpoint: Endpoint, code: &str) -> Self {
        let reply = Reply::json(400, &json!({ "error": code, "error_description": "as the test wanted it" }));
        Self::new(endpoint, code, Action::Reply(reply))
    }

    /// Answers with an OAuth error and this status.
    pub fn error_with_status(endpoint: Endpoint, status: u16, code: &str) -> Self {
        Self::new(endpoint, code, Action::Reply(Reply::json(status, &json!({ "error": code }))))
    }

    /// Answers with a redirect (302).
    pub fn redirect(endpoint: Endpoint, location: &str) -> Self {
        Self::response(endpoint, 302, "", "").header("Location", location)
    }

    /// Resets the connection instead of answering.
    pub fn reset(endpoint: Endpoint) -> Self {
        Self::new(endpoint, "reset", Action::Reset)
    }

    /// Never answers and keeps the connection open.
    pub fn stall(endpoint: Endpoint) -> Self {
        Self::new(endpoint, "stall", Action::Stall)
    }

    /// Waits on the provider's clock, and then continues normally.
    pub fn delay(endpoint: Endpoint, duration: Duration) -> Self {
        Self::new(endpoint, "delay", Action::Delay(duration))
    }

    /// Answers 200 with a body that never ends.
    pub fn endless_body(endpoint: Endpoint) -> Self {
        Self::new(endpoint, "endless body", Action::Endless)
    }

    /// Answers 200 with a JSON object of about `bytes` bytes.
    pub fn huge_body(endpoint: Endpoint, bytes: usize) -> Self {
        let body = json!({ "padding": "a".repeat(bytes) }).to_string();
        Self::response(endpoint, 200, "application/json", body)
    }

    /// Answers 200 with a small gzip body that inflates to about `bytes` bytes of JSON.
    pub fn gzip_bomb(endpoint: Endpoint, bytes: usize) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let blank = vec![b' '; 64 * 1024];
        let mut left = bytes;
        encoder.write_all(b"{").expect("a Vec takes all");
        while left > 0 {
            let chunk = &blank[..left.min(blank.len())];
            encoder.write_all(chunk).expect("a Vec takes all");
            left -= chunk.len();
        }
        encoder.write_all(b"}").expect("a Vec takes all");
        let body = encoder.finish().expect("a Vec takes all");
        Self::response(endpoint, 200, "application/json", body).header("Content-Encoding", "gzip")
    }

    /// Breaks the connection in the middle of the answer's body.
    pub fn cut_body(endpoint: Endpoint) -> Self {
        Self { after_processing: true, ..Self::new(endpoint, "cut body", Action::Cut) }
    }

    /// Sends only half of the JSON, with a matching length.
    pub fn truncated_json(endpoint: Endpoint) -> Self {
        Self::edit_success(endpoint, "truncated JSON", Action::Truncate)
    }

    /// Edits the members of the next *successful* JSON answer: metadata, key set, token responses, UserInfo. Error
    /// answers, such as `authorization_pending`, pass and do not count.
    pub fn edit_json(endpoint: Endpoint, edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        Self::edit_success(endpoint, "edited JSON", Action::EditJson(Editor(Arc::new(edit))))
    }

    /// Edits the members of the next JSON answer, successful or not.
    pub fn edit_any_json(endpoint: Endpoint, edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        Self::edit(endpoint, "edited JSON", Action::EditJson(Editor(Arc::new(edit))))
    }

    /// Edits the body of the next *successful* answer as text. Use it for what [`edit_json`](Self::edit_json) cannot
    /// write, such as a repeated member.
    ///
    /// ```
    /// use openid_deferred::testing::{Endpoint, Fault};
    ///
    /// let repeated = Fault::edit_body(Endpoint::Poll, |body| body.insert_str(1, r#""token_type":"Bearer","#));
    /// ```
    pub fn edit_body(endpoint: Endpoint, edit: impl Fn(&mut String) + Send + Sync + 'static) -> Self {
        Self::edit_success(endpoint, "edited body", Action::EditBody(Editor(Arc::new(edit))))
    }

    /// Edits the headers of the next answer.
    pub fn edit_headers(endpoint: Endpoint, edit: impl Fn(&mut HeaderMap) + Send + Sync + 'static) -> Self {
        Self::edit(endpoint, "edited headers", Action::EditHeaders(Editor(Arc::new(edit))))
    }

    /// Forges the next ID Token that this endpoint issues: the interim one at [`Endpoint::Exchange`], the final one at
    /// [`Endpoint::Poll`].
    pub fn id_token(endpoint: Endpoint, forgery: IdTokenForgery) -> Self {
        Self::edit_success(endpoint, "forged ID Token", Action::IdToken(forgery))
    }

    /// Forges the encryption of the next ID Token or UserInfo response that this endpoint encrypts. The content is
    /// genuine, unless [`id_token`](Self::id_token) forges it.
    ///
    /// ```
    /// use openid_deferred::testing::{EncryptionForgery, Endpoint, Fault};
    ///
    /// let in_clear = Fault::encryption(Endpoint::Poll, EncryptionForgery::in_clear());
    /// ```
    pub fn encryption(endpoint: Endpoint, forgery: EncryptionForgery) -> Self {
        Self::edit_success(endpoint, "forged encryption", Action::Encryption(forgery))
    }

    /// Edits the parameters of the next authorization response, after `state` and `iss` have been added.
    ///
    /// ```
    /// use openid_deferred::testing::Fault;
    ///
    /// let both_codes = Fault::authorization_response(|parameters| parameters.push(("code".into(), "abc".into())));
    /// let no_state = Fault::authorization_response(|parameters| parameters.retain(|(name, _)| name != "state"));
    /// ```
    pub fn authorization_response(edit: impl Fn(&mut Vec<(String, String)>) + Send + Sync + 'static) -> Self {
        let action = Action::Authorization(Editor(Arc::new(edit)));
        Self::edit(Endpoint::Authorization, "forged authorization response", action)
    }

    /// Forges the next JWT authorization response (JARM), as an ID Token can be forged. Use
    /// [`encryption`](Self::encryption) to forge its encryption, and
    /// [`authorization_response`](Self::authorization_response) for its content.
    ///
    /// ```
    /// use openid_deferred::testing::{Fault, IdTokenForgery};
    ///
    /// let unsigned = Fault::jwt_response(IdTokenForgery::algorithm_none());
    /// ```
    pub fn jwt_response(forgery: IdTokenForgery) -> Self {
        Self::edit(Endpoint::Authorization, "forged response JWT", Action::JwtResponse(forgery))
    }

    /// Puts a UTF-8 byte order mark before the next *successful* answer.
    pub fn byte_order_mark(endpoint: Endpoint) -> Self {
        Self::edit_success(endpoint, "byte order mark", Action::ByteOrderMark)
    }

    /// Sends the next *successful* answer with another status, such as 201 or 202.
    ///
    /// # Panics
    ///
    /// Panics if the status does not have three digits.
    pub fn success_status(endpoint: Endpoint, status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status has three digits");
        Self::edit_success(endpoint, "another status of success", Action::Status(status))
    }

    /// Forgets all DPoP nonces just before the request is checked. It is then challenged although its nonce was valid a
    /// moment ago. Two such faults in a row also challenge the retry.
    pub fn forget_nonces(endpoint: Endpoint) -> Self {
        Self::new(endpoint, "nonces forgotten", Action::ForgetNonces)
    }

    /// Adds a header to an answer made by [`status`](Self::status), [`response`](Self::response),
    /// [`error`](Self::error) and similar functions.
    ///
    /// # Panics
    ///
    /// Panics if the fault makes no answer of its own, or if this is not a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Action::Reply(reply) = &mut self.action else { panic!("this fault makes no answer of its own") };
        let name = HeaderName::try_from(name).expect("this is the name of a header");
        reply.headers.append(name, HeaderValue::from_str(value).expect("the value can stand in a header"));
        self
    }

    /// Lets this many requests pass first.
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// Applies to this many requests instead of one.
    pub fn times(mut self, requests: usize) -> Self {
        self.left = Some(requests);
        self
    }

    /// Applies until [`TestProvider::behave`](super::TestProvider::behave).
    pub fn always(mut self) -> Self {
        self.left = None;
        self
    }

    /// Applies only to requests that this function selects. All others pass and do not count.
    ///
    /// ```
    /// use openid_deferred::testing::{Endpoint, Fault};
    ///
    /// let for_one_process = Fault::status(Endpoint::Poll, 502)
    ///     .always()
    ///     .when(|request| request.parameter("deferred_auth_id") == Some("f4oirNBUlM"));
    /// ```
    pub fn when(mut self, picks: impl Fn(&RecordedRequest) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Condition(Arc::new(picks)));
        self
    }

    /// Applies after the request was processed: the provider has changed its state, and only the answer is affected.
    pub fn after_processing(mut self) -> Self {
        self.after_processing = true;
        self
    }

    /// Applies after the request was processed *successfully*. Other answers pass and do not count. With
    /// [`reset`](Self::reset) at [`Endpoint::Poll`] this loses the one answer that cannot be requested again.
    pub fn after_success(mut self) -> Self {
        self.after_processing = true;
        self.successes_only = true;
        self
    }

    /// Whether the fault applies to no further request.
    pub(super) fn is_spent(&self) -> bool {
        self.left == Some(0)
    }

    /// Counts one request, or one answer, and returns whether the fault applies to it.
    fn applies(&mut self, request: &RecordedRequest) -> bool {
        if !self.endpoint.covers(request.endpoint) || self.condition.as_ref().is_some_and(|picks| !(picks.0)(request)) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Whether it applies to this request before it is processed.
    pub(super) fn strikes_before(&mut self, request: &RecordedRequest) -> bool {
        !self.after_processing && self.applies(request)
    }

    /// Whether it applies to this answer.
    pub(super) fn strikes_answer(&mut self, request: &RecordedRequest, status: StatusCode) -> bool {
        let is_for_minting = matches!(
            self.action,
            Action::IdToken(_) | Action::Encryption(_) | Action::Authorization(_) | Action::JwtResponse(_)
        );
        self.after_processing
            && !is_for_minting
            && (!self.successes_only || status.is_success())
            && self.applies(request)
    }

    /// The forgery for an ID Token that is being issued.
    pub(super) fn forges_id_token(&mut self, request: &RecordedRequest) -> Option<IdTokenForgery> {
        let Action::IdToken(forgery) = &self.action else { return None };
        let forgery = forgery.clone();
        self.applies(request).then_some(forgery)
    }

    /// The forgery for an authorization response that is being signed.
    pub(super) fn forges_jwt_response(&mut self, request: &RecordedRequest) -> Option<IdTokenForgery> {
        let Action::JwtResponse(forgery) = &self.action else { return None };
        let forgery = forgery.clone();
        self.applies(request).then_some(forgery)
    }

    /// The forgery for something that is being encrypted.
    pub(super) fn forges_encryption(&mut self, request: &RecordedRequest) -> Option<EncryptionForgery> {
        let Action::Encryption(forgery) = &self.action else { return None };
        let forgery = forgery.clone();
        self.applies(request).then_some(forgery)
    }

    /// The change to an authorization response that is being sent.
    pub(super) fn forges_authorization(&mut self, request: &RecordedRequest) -> Option<Editor<Vec<(String, String)>>> {
        let Action::Authorization(editor) = &self.action else { return None };
        let editor = editor.clone();
        self.applies(request).then_some(editor)
    }
}

impl Action {
    /// Applies the fault to an answer.
    pub(super) fn apply_to(&self, mut reply: Reply) -> Delivery {
        match self {
            Self::Reply(other) => return Delivery::Whole(other.clone()),
            Self::Reset => return Delivery::Reset,
            Self::Stall => return Delivery::Stall,
            Self::Endless => return Delivery::Endless(Reply::new(200, "application/json", r#"{"padding":""#)),
            Self::Cut => return Delivery::Cut(reply),
            Self::EditJson(editor) => {
                if let Ok(Value::Object(mut members)) = serde_json::from_slice(&reply.body) {
                    (editor.0)(&mut members);
                    reply.body = Value::Object(members).to_string().into();
                }
            }
            Self::EditBody(editor) => {
                if let Ok(mut text) = String::from_utf8(reply.body.to_vec()) {
                    (editor.0)(&mut text);
                    reply.body = text.into();
                }
            }
            Self::EditHeaders(editor) => (editor.0)(&mut reply.headers),
            Self::ByteOrderMark => reply.body = [b"\xef\xbb\xbf", &*reply.body].concat().into(),
            Self::Status(status) => reply.status = *status,
            Self::Truncate => reply.body = reply.body.slice(..reply.body.len() / 2),
            Self::Delay(_)
            | Self::ForgetNonces
            | Self::IdToken(_)
            | Self::Encryption(_)
            | Self::Authorization(_)
            | Self::JwtResponse(_) => {}
        }
        Delivery::Whole(reply)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fault")
            .field("endpoint", &self.endpoint)
            .field("name", &self.name)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// A forgery of an ID Token.
#[derive(Clone)]
pub struct IdTokenForgery(pub(super) ForgeryKind);

#[derive(Clone)]
pub(super) enum ForgeryKind {
    AlgorithmNone,
    HmacWithPublicKey,
    ForeignKey,
    BrokenSignature,
    Header(Editor<Map<String, Value>>),
    Claims(Editor<Map<String, Value>>),
    ClaimsText(Editor<String>),
    Raw(String),
}

impl IdTokenForgery {
    /// `alg: none` and no signature.
    pub fn algorithm_none() -> Self {
        Self(ForgeryKind::AlgorithmNone)
    }

    /// `HS256`, keyed with the PEM of the provider's public key: a well-known algorithm confusion.
    pub fn hmac_with_public_key() -> Self {
        Self(ForgeryKind::HmacWithPublicKey)
    }

    /// Signed by another key, under the provider's `kid`.
    pub fn foreign_key() -> Self {
        Self(ForgeryKind::ForeignKey)
    }

    /// Signed by the right key, but with claims that were changed after signing.
    pub fn broken_signature() -> Self {
        Self(ForgeryKind::BrokenSignature)
    }

    /// Edits the header before signing.
    pub fn header(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        Self(ForgeryKind::Header(Editor(Arc::new(edit))))
    }

    /// Edits the claims before signing.
    ///
    /// ```
    /// use openid_deferred::testing::IdTokenForgery;
    ///
    /// let wrong_nonce = IdTokenForgery::claims(|claims| { claims.insert("nonce".into(), "another".into()); });
    /// ```
    pub fn claims(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        Self(ForgeryKind::Claims(Editor(Arc::new(edit))))
    }

    /// Edits the JSON text of the claims before signing. Use it for what [`claims`](Self::claims) cannot write, such as
    /// a repeated claim.
    ///
    /// ```
    /// use openid_deferred::testing::IdTokenForgery;
    ///
    /// let repeated = IdTokenForgery::claims_text(|claims| claims.insert_str(1, r#""sub":"somebody else","#));
    /// ```
    pub fn claims_text(edit: impl Fn(&mut String) + Send + Sync + 'static) -> Self {
        Self(ForgeryKind::ClaimsText(Editor(Arc::new(edit))))
    }

    /// This text instead of the token.
    pub fn raw(text: &str) -> Self {
        Self(ForgeryKind::Raw(text.to_owned()))
    }
}

impl fmt::Debug for IdTokenForgery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IdTokenForgery").finish_non_exhaustive()
    }
}
