//! The data that the application keeps while the user is at the OP.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::arrival::Arrival;
use crate::clock::{from_unix_seconds, saturating_add};
use crate::dialect::{Dialect, ResponseType};
use crate::dpop::DpopKey;
use crate::error::{Error, Misuse, SessionProblem};
use crate::jose::{self, CompactJws};
use crate::json::Object;
use crate::keyring::{Keyring, Purpose};
use crate::pending::Checks;
use crate::random::SystemRandom;
use crate::sealed::{self, Sealable};
use crate::secret::Secret;
use crate::trace_parent::TraceParent;

/// A browser keeps at most 4,096 bytes per cookie, including name and attributes. Several concurrent sign-ins and other
/// cookies share a header that servers limit to 8 kB.
const SEALED_LIMIT: usize = 2_000;

/// The application's part of an authorization request: `state`, `nonce`, the PKCE verifier, the DPoP key, and what the
/// final ID Token is checked against.
///
/// It must be returned by the browser that it was made for. [Seal](Self::seal) it into a cookie of that browser, one
/// for each `state` ([`cookie_name`](Self::cookie_name)). Give the cookie `Secure`, `HttpOnly`, `Path=/`,
/// `SameSite=Lax` (`None` if [`is_form_post`](Self::is_form_post)) and `Max-Age=3600`, the lifetime of a session. A mobile
/// browser that is closed while the user is at the OP deletes a cookie without `Max-Age`. The cookie prevents an
/// attacker from finishing their own sign-in in the browser of a victim. Any instance of the application that has the
/// keyring can [open](Self::open) it.
///
/// It is used once. So it is not `Clone`, `Client::authorization_response` takes it by value, and
/// `Client::check_authorization_response` marks it. Delete the cookie when you answer the request to the redirect URI,
/// unless the error [keeps the session](crate::Error::keeps_session). Otherwise a reloaded page sends the code a second
/// time, and OPs may then revoke the tokens of the first exchange (RFC 6749 §4.1.2). A session lives for an hour unless the client sets another
/// [lifetime](super::ClientBuilder::session_lifetime).
pub struct AuthorizationSession {
    pub(super) body: Arc<Body>,
    /// An authentic response was accepted for it.
    pub(super) spent: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    #[serde(rename = "v")]
    pub(super) version: u8,
    #[serde(rename = "iss")]
    pub(super) issuer: String,
    #[serde(rename = "cid")]
    pub(super) client_id: String,
    #[serde(rename = "uri")]
    pub(super) redirect_uri: String,
    /// In seconds since 1970, if the request was pushed or signed.
    #[serde(rename = "ux", default, skip_serializing_if = "Option::is_none")]
    pub(super) url_expires_at: Option<u64>,
    /// Which codes the response may have.
    #[serde(rename = "rt")]
    pub(super) response_type: ResponseType,
    #[serde(rename = "dl", default, skip_serializing_if = "Dialect::is_default")]
    pub(super) dialect: Dialect,
    /// The OP may defer its answer to an ordinary code.
    #[serde(rename = "op", default, skip_serializing_if = "is_false")]
    pub(super) opted_in: bool,
    /// The response has to be a JWT.
    #[serde(rename = "jw", default, skip_serializing_if = "is_false")]
    pub(super) jwt_response: bool,
    /// The OP's metadata said that its responses carry `iss` (RFC 9207).
    #[serde(rename = "ir")]
    pub(super) iss_required: bool,
    #[serde(rename = "st", with = "sealed::secret")]
    pub(super) state: Secret,
    #[serde(rename = "ver", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(super) code_verifier: Option<Secret>,
    #[serde(rename = "key", with = "sealed::dpop_key", default, skip_serializing_if = "Option::is_none")]
    pub(super) dpop_key: Option<DpopKey>,
    /// The application's data that is returned with the outcome.
    #[serde(rename = "ctx", with = "sealed::secret_bytes", default, skip_serializing_if = "sealed::no_bytes")]
    pub(super) context: Zeroizing<Vec<u8>>,
    /// The application's reference, for the poller.
    #[serde(rename = "ref", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<Secret>,
    /// The trace that it belongs to.
    #[serde(
        rename = "tp",
        deserialize_with = "TraceParent::deserialize",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) trace_parent: Option<TraceParent>,
    /// The application's data for the code that handles the response.
    #[serde(rename = "dat", with = "sealed::secret_bytes", default, skip_serializing_if = "sealed::no_bytes")]
    pub(super) data: Zeroizing<Vec<u8>>,
    /// The browser returns with a POST from the OP's page.
    #[serde(rename = "fp", default, skip_serializing_if = "is_false")]
    pub(super) form_post: bool,
    #[serde(rename = "chk")]
    pub(super) checks: Checks,
}

impl Sealable for Body {
    const PURPOSE: Purpose = Purpose::AuthorizationSession;
    const VERSION: u8 = 2;
    const OLDEST: u8 = 1;

    fn version(&self) -> u8 {
        self.version
    }
}

impl AuthorizationSession {
    pub(super) fn new(body: Body) -> Self {
        Self { body: Arc::new(body), spent: false }
    }

    /// Whether the OP's answer to it, a code or an error, was accepted. A refused response does not spend the session.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// The `state` of the request, which matches the response with its session.
    pub fn state(&self) -> &Secret {
        &self.body.state
    }

    /// Issuer and client identifier of the client that started it.
    pub(crate) fn owner(&self) -> (&str, &str) {
        (&self.body.issuer, &self.body.client_id)
    }

    /// The URI that the OP sends the user back to.
    pub fn redirect_uri(&self) -> &str {
        &self.body.redirect_uri
    }

    /// When the sign-in was started.
    pub fn started_at(&self) -> SystemTime {
        self.body.checks.requested_at
    }

    /// What the application gave to [`context`](super::AuthorizationRequest::context) when it was started.
    pub fn context(&self) -> &[u8] {
        &self.body.context
    }

    /// What the application gave to [`session_data`](super::AuthorizationRequest::session_data) when it was started.
    pub fn data(&self) -> &[u8] {
        &self.body.data
    }

    /// The [trace](super::AuthorizationRequest::trace_parent) that the sign-in belongs to, as the value of a header
    /// `traceparent`.
    pub fn trace_parent(&self) -> Option<&str> {
        self.body.trace_parent.as_ref().map(TraceParent::as_str)
    }

    /// Whether the browser returns with a POST from the OP's page (`form_post` or `form_post.jwt`). Its cookie then needs
    /// `SameSite=None`.
    pub fn is_form_post(&self) -> bool {
        self.body.form_post
    }

    /// The time until which the browser must open the URL of the request, if it is limited.
    ///
    /// OPs keep a [pushed](super::AuthorizationRequest::pushed) request for about a minute, and for one use (RFC 9126
    /// §2.2). The signature of a [signed](super::AuthorizationRequest::signed) request is valid for ten minutes. After
    /// that time the user gets an error from the OP and must sign in again.
    pub fn url_expires_at(&self) -> Option<SystemTime> {
        self.body.url_expires_at.map(from_unix_seconds)
    }

    /// A name for the cookie that carries the sealed session. It depends only on `state`, so that several tabs do not
    /// interfere. [`cookie_name_for`](Self::cookie_name_for) derives it from the response.
    pub fn cookie_name(&self) -> String {
        cookie_name(self.body.state.expose())
    }

    /// The name of the cookie that belongs to an authorization response, given as its query string, form body, whole
    /// URL, or path and query.
    ///
    /// `None` if the response has no `state`, or is an encrypted JWT; then use
    /// [`Client::cookie_name_for`](super::Client::cookie_name_for). This does not check the response;
    /// `Client::authorization_response` does.
    pub fn cookie_name_for(response: &str) -> Option<String> {
        let plain = || parameter(response, "state").map(|state| cookie_name(&state));
        // In a JWT response, parameters outside of the JWT are ignored.
        let jwt = parameter(response, "response").and_then(|token| cookie_name_of_jwt(&token));
        jwt.or_else(plain)
    }

    /// Seals the session into text that fits into a cookie: encrypted, authenticated, at most 2,000 characters.
    ///
    /// # Errors
    ///
    /// [`Misuse::SealedTooLarge`] if the session holds too much data, such as many essential `acr` values. Otherwise it
    /// fails only if randomness or the cryptographic library fails.
    pub fn seal(&self, keyring: &Keyring) -> Result<String, Error> {
        seal_for_cookie(keyring, &*self.body)
    }

    /// Opens the result of [`seal`](Self::seal), on any instance of the application.
    ///
    /// # Errors
    ///
    /// [`SessionProblem::Unreadable`] if it was altered, has another format, or was sealed with a key that the keyring
    /// does not have. Start a new sign-in.
    pub fn open(keyring: &Keyring, sealed: &str) -> Result<Self, Error> {
        open_from_cookie(keyring, sealed).map(Self::new)
    }

    /// Whether the user took longer than the lifetime of the session.
    pub(super) fn has_expired(&self, now: SystemTime, lifetime: Duration) -> bool {
        saturating_add(self.started_at(), lifetime) < now
    }
}

/// Seals a value into text for a cookie.
pub(super) fn seal_for_cookie<T: Sealable>(keyring: &Keyring, value: &T) -> Result<String, Error> {
    let text = URL_SAFE_NO_PAD.encode(sealed::seal(keyring, &SystemRandom, &[], value)?);
    if text.len() > SEALED_LIMIT {
        return Err(Misuse::SealedTooLarge { actual: text.len(), limit: SEALED_LIMIT }.into());
    }
    Ok(text)
}

/// Opens what [`seal_for_cookie`] sealed.
pub(super) fn open_from_cookie<T: Sealable>(keyring: &Keyring, sealed: &str) -> Result<T, Error> {
    let unreadable = || Error::from(SessionProblem::Unreadable);
    if sealed.len() > SEALED_LIMIT {
        return Err(unreadable());
    }
    let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| unreadable())?;
    sealed::open(keyring, &[], &sealed).map_err(|_| unreadable())
}

/// One parameter of a query string or form body.
pub(super) fn parameter(response: &str, name: &str) -> Option<String> {
    let (_, response) = Arrival::of(response);
    let mut parameters = form_urlencoded::parse(response.as_bytes());
    // A parameter without a value counts as omitted (RFC 6749 §3.1).
    parameters.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

/// The cookie's name for the state in a signed response.
pub(super) fn cookie_name_of_jwt(token: &str) -> Option<String> {
    unverified_state(token).map(|state| cookie_name(state.expose()))
}

/// The state in a response JWT, of which nothing is verified.
fn unverified_state(token: &str) -> Option<Secret> {
    let object = Object::parse(CompactJws::parse(token).ok()?.payload()).ok()?;
    match object.needing(&["state"]).ok()?.get("state")? {
        Value::String(state) => Some(Secret::new(state.as_str())),
        _ => None,
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// `__Host-` makes browsers require `Secure`, `Path=/` and no `Domain` (RFC 6265bis §4.1.3.2). The `state` itself does
/// not appear in the name, because the response is compared with it.
fn cookie_name(state: &str) -> String {
    let digest = jose::sha256(state.as_bytes());
    let prefix: [u8; 12] = std::array::from_fn(|index| digest.get(index).copied().unwrap_or_default());
    format!("__Host-deferred-{}", URL_SAFE_NO_PAD.encode(prefix))
}

impl fmt::Debug for AuthorizationSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthorizationSession")
            .field("issuer", &self.body.issuer)
            .field("client_id", &self.body.client_id)
            .field("redirect_uri", &self.body.redirect_uri)
            .field("started_at", &self.started_at())
            .finish_non_exhaustive()
    }
}
