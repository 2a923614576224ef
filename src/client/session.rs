//! What the application keeps while the user is at the OP.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::arrival::Arrival;
use super::response_type::ResponseType;
use crate::clock::{from_unix_seconds, saturating_add};
use crate::dpop::DpopKey;
use crate::error::{Error, Misuse, SessionProblem};
use crate::jose::{self, CompactJws};
use crate::json::Object;
use crate::keyring::{Keyring, Purpose};
use crate::pending::{self, Checks};
use crate::random::SystemRandom;
use crate::secret::Secret;

/// A browser keeps at most 4,096 bytes per cookie, name and attributes included; several sign-ins at once and other
/// cookies share a header that servers cap at 8 kB.
const SEALED_LIMIT: usize = 2_000;

/// The application's half of an authorization request: `state`, `nonce`, the PKCE verifier, the DPoP key, and what the
/// final ID Token will be judged by.
///
/// It must come back together with the browser that it was made for: [seal](Self::seal) it into a cookie of that
/// browser, one for each `state` ([`cookie_name`](Self::cookie_name)), with `Secure`, `HttpOnly`, `Path=/`,
/// `SameSite=Lax` (`None` for `form_post` and `form_post.jwt`) and `Max-Age=3600`, the lifetime of a session: a cookie
/// without `Max-Age` is gone when a mobile browser is put away, which happens while the user is at the OP. That is what
/// keeps an attacker from finishing their own sign-in in somebody else's browser. Any instance of the application that has
/// the keyring can [open](Self::open) it.
///
/// It is used once, so it is not `Clone`, `Client::authorization_response` takes it by value, and
/// `Client::check_authorization_response` marks it. Delete the cookie with
/// the answer to the user's return: a reloaded page would otherwise send the code a second time, and OPs that see that
/// may revoke what the first one brought (RFC 6749 §4.1.2). A session lives for an hour unless the client is set
/// otherwise.
pub struct AuthorizationSession {
    pub(super) body: Arc<Body>,
    /// An authentic response was taken for it.
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
    /// In seconds since 1970, where the request was pushed or signed.
    #[serde(rename = "ux", default, skip_serializing_if = "Option::is_none")]
    pub(super) url_expires_at: Option<u64>,
    #[serde(rename = "rt")]
    pub(super) response_type: ResponseType,
    /// The response has to be a JWT.
    #[serde(rename = "jw", default, skip_serializing_if = "is_false")]
    pub(super) jwt_response: bool,
    /// The OP had said that its responses carry `iss` (RFC 9207).
    #[serde(rename = "ir")]
    pub(super) iss_required: bool,
    #[serde(rename = "st", with = "pending::secret")]
    pub(super) state: Secret,
    #[serde(rename = "ver", with = "pending::optional_secret", default, skip_serializing_if = "Option::is_none")]
    pub(super) code_verifier: Option<Secret>,
    #[serde(rename = "key", with = "pending::dpop_key", default, skip_serializing_if = "Option::is_none")]
    pub(super) dpop_key: Option<DpopKey>,
    /// What the application wants to find with the outcome.
    #[serde(rename = "ctx", with = "pending::secret_bytes", default, skip_serializing_if = "pending::no_bytes")]
    pub(super) context: Zeroizing<Vec<u8>>,
    #[serde(rename = "chk")]
    pub(super) checks: Checks,
}

pub(super) const VERSION: u8 = 1;

impl AuthorizationSession {
    pub(super) fn new(body: Body) -> Self {
        Self { body: Arc::new(body), spent: false }
    }

    /// Whether the OP's answer to it, a code or an error, has been taken. A response that was refused does not spend it,
    /// whoever made it.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// The `state` of the request, by which the return can be matched with its session.
    pub fn state(&self) -> &Secret {
        &self.body.state
    }

    /// Issuer and client identifier of the client that started it.
    pub(crate) fn owner(&self) -> (&str, &str) {
        (&self.body.issuer, &self.body.client_id)
    }

    /// Where the OP sends the user back to.
    pub fn redirect_uri(&self) -> &str {
        &self.body.redirect_uri
    }

    /// When it was started, and so when the user was sent out.
    pub fn started_at(&self) -> SystemTime {
        self.body.checks.requested_at
    }

    /// What the application gave to [`context`](super::AuthorizationRequest::context) when it was started.
    pub fn context(&self) -> &[u8] {
        &self.body.context
    }

    /// Until when the browser has to be at the OP with the URL of the request. If the request was
    /// [pushed](super::AuthorizationRequest::pushed), OPs keep it for a minute or so, and for one use (RFC 9126 §2.2); if
    /// it was [signed](super::AuthorizationRequest::signed), its signature is good for ten minutes. Whoever comes later
    /// gets an error from the OP, and signs in anew.
    pub fn url_expires_at(&self) -> Option<SystemTime> {
        self.body.url_expires_at.map(from_unix_seconds)
    }

    /// A name for the cookie that carries the sealed session. It depends on `state` alone, so that several tabs do not
    /// get in each other's way; [`cookie_name_for`](Self::cookie_name_for) finds it again from the return.
    pub fn cookie_name(&self) -> String {
        cookie_name(self.body.state.expose())
    }

    /// The name of the cookie that belongs to an authorization response, given as its query string, its form body, the
    /// whole URL or path and query; `None` if the response has no `state`, or is an encrypted JWT: then
    /// [`Client::cookie_name_for`](super::Client::cookie_name_for) finds it. Whether the response is genuine is for
    /// `Client::authorization_response` to find out.
    pub fn cookie_name_for(response: &str) -> Option<String> {
        let plain = || parameter(response, "state").map(|state| cookie_name(&state));
        // In a JWT response nothing outside of the JWT counts.
        let jwt = parameter(response, "response").and_then(|token| cookie_name_of_jwt(&token));
        jwt.or_else(plain)
    }

    /// Seals the session into text that fits a cookie: encrypted, authenticated, at most 2,000 characters.
    ///
    /// # Errors
    ///
    /// [`Misuse::SealedTooLarge`] when the request carried too much to be judged by later (many essential `acr` values);
    /// otherwise only when randomness or the cryptographic library fail.
    pub fn seal(&self, keyring: &Keyring) -> Result<String, Error> {
        let plain = pending::to_json(&*self.body)?;
        let sealed = keyring.seal(&SystemRandom, Purpose::AuthorizationSession, &[], &plain)?;
        let text = URL_SAFE_NO_PAD.encode(sealed);
        if text.len() > SEALED_LIMIT {
            return Err(Misuse::SealedTooLarge { actual: text.len(), limit: SEALED_LIMIT }.into());
        }
        Ok(text)
    }

    /// Opens what [`seal`](Self::seal) made, on this instance of the application or another one.
    ///
    /// # Errors
    ///
    /// [`SessionProblem::Unreadable`]: it was altered, is something else, or was sealed with a key that the keyring
    /// does not have. Start a new sign-in.
    pub fn open(keyring: &Keyring, sealed: &str) -> Result<Self, Error> {
        let unreadable = || Error::from(SessionProblem::Unreadable);
        if sealed.len() > SEALED_LIMIT {
            return Err(unreadable());
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| unreadable())?;
        let plain = keyring.open(Purpose::AuthorizationSession, &[], &sealed).map_err(|_| unreadable())?;
        let body: Body = pending::from_json(&plain).map_err(|_| unreadable())?;
        if body.version != VERSION {
            return Err(unreadable());
        }
        Ok(Self::new(body))
    }

    /// Whether the user took longer than the session lives.
    pub(super) fn has_expired(&self, now: SystemTime, lifetime: Duration) -> bool {
        saturating_add(self.started_at(), lifetime) < now
    }
}

/// One parameter of a query string or form body.
pub(super) fn parameter(response: &str, name: &str) -> Option<String> {
    let (_, response) = Arrival::of(response);
    let mut parameters = form_urlencoded::parse(response.as_bytes());
    // A parameter without a value counts as omitted (RFC 6749 §3.1).
    parameters.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

/// The cookie's name by the state in a signed response.
pub(super) fn cookie_name_of_jwt(token: &str) -> Option<String> {
    unverified_state(token).map(|state| cookie_name(state.expose()))
}

/// The state that a response JWT claims to have. Nothing about it is verified.
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

/// `__Host-` makes browsers insist on `Secure`, `Path=/` and no `Domain` (RFC 6265bis §4.1.3.2). The `state` itself is
/// not shown, because it is what the return is compared with.
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
