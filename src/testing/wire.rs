//! Requests and responses inside the provider, independent of the transport.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::CertificateDer;
use url::Url;

use super::browser::BrowserReturn;
use super::dialect::TOKEN_EXCHANGE;
use super::record::RequestRule;

/// A request in the form that handlers use.
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The certificates that the client presented in TLS, its own certificate first.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Incoming {
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn is_form(&self) -> bool {
        self.is_of_type("application/x-www-form-urlencoded")
    }

    fn is_of_type(&self, expected: &str) -> bool {
        let media_type = self.header(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case(expected)
    }

    /// Checks the method against those of the endpoint, in the form of `Allow` (RFC 9110 §10.2.1).
    pub(super) fn check_method(&self, allowed: &str) -> Result<(), Rejection> {
        match allowed.split(", ").any(|method| method == self.method.as_str()) {
            true => Ok(()),
            false => Err(Rejection::new(405, "invalid_request", RequestRule::WrongMethod, self.method.as_str())
                .header(header::ALLOW, allowed)),
        }
    }

    fn check_type(&self, expected: &str) -> Result<(), Rejection> {
        let media_type = self.header(header::CONTENT_TYPE).unwrap_or("no Content-Type");
        match self.is_of_type(expected) {
            true => Ok(()),
            false => Err(Rejection::new(415, "invalid_request", RequestRule::WrongContentType, media_type)),
        }
    }

    /// The parameters of the form if there is one, otherwise of the query.
    pub(super) fn parameters(&self) -> Parameters {
        let pairs = match self.is_form() {
            true => form_urlencoded::parse(&self.body).into_owned().collect(),
            false => self.url.query_pairs().into_owned().collect(),
        };
        Parameters(pairs)
    }

    /// The parameters of a request that must be a POST with a form and with nothing in the URL.
    pub(super) fn form(&self) -> Result<Parameters, Rejection> {
        self.check_method("POST")?;
        self.check_type("application/x-www-form-urlencoded")?;
        self.has_no_query()?;
        if !is_form_encoded(&self.body) {
            return Err(Rejection::bad("invalid_request", RequestRule::WrongContentType, "it is not form-urlencoded"));
        }
        self.parameters().unrepeated()
    }

    fn has_no_query(&self) -> Result<(), Rejection> {
        match self.url.query() {
            None => Ok(()),
            Some(_) => Err(Rejection::bad("invalid_request", RequestRule::TokenInQuery, "parameters in the query")),
        }
    }

    /// The parameters of a request that must be a POST with a JSON object of strings.
    pub(super) fn json_parameters(&self) -> Result<Parameters, Rejection> {
        self.check_method("POST")?;
        self.check_json()?;
        self.has_no_query()?;
        let members = serde_json::from_slice::<BTreeMap<String, String>>(&self.body);
        let members = members
            .map_err(|_| Rejection::bad("invalid_request", RequestRule::WrongContentType, "no object of strings"))?;
        Ok(Parameters(members.into_iter().collect()))
    }

    pub(super) fn check_json(&self) -> Result<(), Rejection> {
        self.check_type("application/json")
    }
}

/// Whether a body can be application/x-www-form-urlencoded: visible ASCII characters, and two digits after each `%`.
/// Lenient parsers accept more.
fn is_form_encoded(body: &[u8]) -> bool {
    let mut rest = body;
    while let Some((&first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (b'!'..=b'~', after) if first != b'%' => after,
            _ => return false,
        };
    }
    true
}

/// Parameters, in order.
#[derive(Clone, Default)]
pub(super) struct Parameters(pub(super) Vec<(String, String)>);

impl Parameters {
    /// RFC 6749 §3.1: "Parameters sent without a value MUST be treated as if they were omitted".
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(super) fn required(&self, name: &'static str) -> Result<&str, Rejection> {
        self.get(name).ok_or_else(|| Rejection::bad("invalid_request", RequestRule::MissingParameter, name))
    }

    /// RFC 6749 §3.2: "Request and response parameters MUST NOT be included more than once"; RFC 8707 §2 lets
    /// `resource` repeat, and RFC 8693 §2.1 `audience`.
    pub(super) fn unrepeated(self) -> Result<Self, Rejection> {
        let exchanges_tokens = self.get("grant_type") == Some(TOKEN_EXCHANGE);
        for (position, (name, _)) in self.0.iter().enumerate() {
            let may_repeat = name == "resource" || (name == "audience" && exchanges_tokens);
            if !may_repeat && self.0[..position].iter().any(|(earlier, _)| earlier == name) {
                return Err(Rejection::bad("invalid_request", RequestRule::RepeatedParameter, name));
            }
        }
        Ok(self)
    }
}

/// A response that will be sent.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What a browser brings to the client because of it.
    pub(super) browser: Option<BrowserReturn>,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).expect("a status has three digits");
        let mut reply = Self { status, headers: HeaderMap::new(), body: body.into(), browser: None };
        if !content_type.is_empty() {
            reply.set(header::CONTENT_TYPE, content_type);
        }
        reply
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string()).with(header::CACHE_CONTROL, "no-store")
    }

    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(super) fn set(&mut self, name: HeaderName, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).expect("the value can stand in a header"));
    }
}

/// How a response is sent, if at all.
#[derive(Clone)]
pub(super) enum Delivery {
    Whole(Reply),
    /// The body never ends.
    Endless(Reply),
    /// The connection breaks before the body is complete.
    Cut(Reply),
    Reset,
    Stall,
}

/// The data of an error response, and the rule that the request broke, if any.
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) error: &'static str,
    pub(super) description: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    /// Further members of the body.
    pub(super) members: Vec<(&'static str, Value)>,
    pub(super) violation: Option<RequestRule>,
}

impl Rejection {
    pub(super) fn new(status: u16, error: &'static str, rule: RequestRule, detail: impl Into<String>) -> Self {
        let violation = Some(rule);
        Self { status, violation, ..Self::innocent(error, detail) }
    }

    pub(super) fn bad(error: &'static str, rule: RequestRule, detail: impl Into<String>) -> Self {
        Self::new(400, error, rule, detail)
    }

    /// An error without a broken rule, such as `authorization_pending`.
    pub(super) fn innocent(error: &'static str, description: impl Into<String>) -> Self {
        let description = description.into();
        Self { status: 400, error, description, headers: Vec::new(), members: Vec::new(), violation: None }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Adds a member to the body.
    pub(super) fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    pub(super) fn reply(&self) -> Reply {
        let mut body = json!({ "error": self.error });
        if !self.description.is_empty() {
            body["error_description"] = json!(self.description);
        }
        for (name, value) in &self.members {
            body[*name] = value.clone();
        }
        let mut reply = Reply::json(self.status, &body);
        for (name, value) in &self.headers {
            reply.set(name.clone(), value);
        }
        reply
    }
}
