//! OpenID Connect RP-Initiated Logout 1.0 §3: the data that the application keeps while the browser is at the OP for a
//! logout, and the check of its return.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Client;
use super::arrival::{Arrival, Place};
use super::response_parameters::LONGEST_RESPONSE;
use super::session::{open_from_cookie, seal_for_cookie};
use crate::clock::saturating_add;
use crate::error::{Document, Error, Rule, SessionProblem, Violation};
use crate::keyring::{Keyring, Purpose};
use crate::sealed::{self, Sealable};
use crate::secret::{Secret, constant_time_eq};

/// The application's part of a logout: the `state` that the OP must send back.
///
/// It must be returned by the browser that it was made for. [Seal](Self::seal) it into a cookie of that browser with
/// `Secure`, `HttpOnly`, `Path=/` and `SameSite=Lax`. When the browser comes back, [open](Self::open) it, call
/// [`Client::end_session_response`], and delete the cookie. It lives as long as an
/// [`AuthorizationSession`](crate::AuthorizationSession).
pub struct LogoutSession(Box<Body>);

#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "cid")]
    client_id: String,
    #[serde(rename = "uri")]
    post_logout_redirect_uri: String,
    #[serde(rename = "st", with = "sealed::secret")]
    state: Secret,
    #[serde(rename = "t", with = "sealed::seconds")]
    started_at: SystemTime,
    /// The application's data for the code that handles the return.
    #[serde(rename = "dat", with = "sealed::secret_bytes", default, skip_serializing_if = "sealed::no_bytes")]
    data: Zeroizing<Vec<u8>>,
}

impl Sealable for Body {
    const PURPOSE: Purpose = Purpose::LogoutSession;
    const VERSION: u8 = 1;

    fn version(&self) -> u8 {
        self.version
    }
}

impl LogoutSession {
    /// `client` has the issuer and the client identifier.
    pub(super) fn new(
        client: (&str, &str),
        post_logout_redirect_uri: &str,
        state: String,
        started_at: SystemTime,
        data: Zeroizing<Vec<u8>>,
    ) -> Self {
        Self(Box::new(Body {
            version: Body::VERSION,
            issuer: client.0.to_owned(),
            client_id: client.1.to_owned(),
            post_logout_redirect_uri: post_logout_redirect_uri.to_owned(),
            state: Secret::new(state),
            started_at,
            data,
        }))
    }

    /// The `state` of the request.
    pub fn state(&self) -> &Secret {
        &self.0.state
    }

    /// The URI that the OP sends the user back to.
    pub fn post_logout_redirect_uri(&self) -> &str {
        &self.0.post_logout_redirect_uri
    }

    /// When the logout was started.
    pub fn started_at(&self) -> SystemTime {
        self.0.started_at
    }

    /// What the application gave to [`session_data`](super::EndSessionRequest::session_data).
    pub fn data(&self) -> &[u8] {
        &self.0.data
    }

    /// Seals the session into text that fits into a cookie: encrypted, authenticated, at most 2,000 characters.
    ///
    /// # Errors
    ///
    /// [`Misuse::SealedTooLarge`](crate::error::Misuse::SealedTooLarge) if the URI to return to is too long. Otherwise it
    /// fails only if randomness or the cryptographic library fails.
    pub fn seal(&self, keyring: &Keyring) -> Result<String, Error> {
        seal_for_cookie(keyring, &*self.0)
    }

    /// Opens the result of [`seal`](Self::seal), on any instance of the application.
    ///
    /// # Errors
    ///
    /// [`SessionProblem::Unreadable`] if it was altered, has another format, or was sealed with a key that the keyring
    /// does not have.
    pub fn open(keyring: &Keyring, sealed: &str) -> Result<Self, Error> {
        Ok(Self(Box::new(open_from_cookie(keyring, sealed)?)))
    }
}

impl Client {
    /// Checks that the browser comes back from a logout that it started here (OpenID Connect RP-Initiated Logout 1.0
    /// §3). Then show the page for users who have logged out.
    ///
    /// `response` is the query string of the request to the
    /// [`post_logout_redirect_uri`](super::ClientBuilder::post_logout_redirect_uri), the path with the query, or the
    /// whole URL. The check says that this browser started the logout and that the OP was reached. It does not say that
    /// the user agreed to end the session at the OP.
    ///
    /// # Errors
    ///
    /// - [`Session`](crate::ErrorKind::Session) if the session expired or belongs to another client.
    /// - [`Protocol`](crate::ErrorKind::Protocol) if `state` is missing, repeated or another one, if the response is too
    ///   long, or if it arrived at another URI.
    pub fn end_session_response(&self, response: &str, session: &LogoutSession) -> Result<(), Error> {
        self.check_return(response, session).map_err(|error| error.in_step("checking the return from the logout"))
    }

    fn check_return(&self, response: &str, LogoutSession(session): &LogoutSession) -> Result<(), Error> {
        if session.issuer != self.issuer() || session.client_id != self.client_id() {
            return Err(SessionProblem::Foreign.into());
        }
        if saturating_add(session.started_at, self.0.options.session_lifetime) < self.0.clock.now() {
            return Err(SessionProblem::Expired.into());
        }
        if response.len() > LONGEST_RESPONSE {
            return Err(Violation::new(Rule::OversizedResponse).in_document(Document::LogoutResponse).into());
        }
        let (arrival, query) = Arrival::of(response);
        // A parameter without a value counts as omitted, as in an authorization response.
        let pairs = form_urlencoded::parse(query.as_bytes());
        let mut states = pairs.filter(|(name, value)| name == "state" && !value.is_empty()).map(|(_, value)| value);
        let state = states.next().ok_or(broken(Rule::StateMissing, "state"))?;
        if states.next().is_some() {
            return Err(broken(Rule::RepeatedParameter, "state").into());
        }
        if !constant_time_eq(state.as_bytes(), session.state.expose().as_bytes()) {
            return Err(broken(Rule::StateMismatch, "state").into());
        }
        match arrival.compared_with(&session.post_logout_redirect_uri) {
            // A router may have stripped a prefix. No secret is in the response, so this is no risk.
            Place::Same | Place::PathSuffix => Ok(()),
            Place::Different => Err(broken(Rule::WrongRedirectUri, "post_logout_redirect_uri").into()),
        }
    }
}

fn broken(rule: Rule, parameter: &'static str) -> Violation {
    Violation::new(rule).in_document(Document::LogoutResponse).at_member(parameter)
}

impl fmt::Debug for LogoutSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LogoutSession")
            .field("issuer", &self.0.issuer)
            .field("client_id", &self.0.client_id)
            .field("started_at", &self.0.started_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;
    use crate::clock::from_unix_seconds;
    use crate::random::SystemRandom;

    /// Cookies contain the sealed form, so every later release must open it.
    #[test]
    fn a_session_sealed_by_an_earlier_release_opens() {
        let keyring = Keyring::ephemeral().unwrap();
        let stored = json!({
            "v": 1, "iss": "https://op.test", "cid": "app", "uri": "https://rp.test/bye", "st": "abc", "t": 1_800_000_000,
            "dat": "L29yZGVycw",
        });
        let open = |stored: &serde_json::Value| {
            let sealed = keyring.seal(&SystemRandom, Purpose::LogoutSession, &[], stored.to_string().as_bytes());
            LogoutSession::open(&keyring, &URL_SAFE_NO_PAD.encode(sealed.unwrap()))
        };
        let session = open(&stored).unwrap();
        assert_eq!((session.state().expose(), session.data()), ("abc", &b"/orders"[..]));
        assert_eq!(session.post_logout_redirect_uri(), "https://rp.test/bye");
        assert_eq!(session.started_at(), from_unix_seconds(1_800_000_000));
        assert_eq!(serde_json::to_value(&*session.0).unwrap(), stored);
        let again = LogoutSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
        assert_eq!(again.state(), session.state());
        for newer in [json!(2), json!(0)] {
            let mut stored = stored.clone();
            stored["v"] = newer;
            assert!(open(&stored).is_err());
        }
        assert!(LogoutSession::open(&keyring, &"A".repeat(2_001)).is_err());
        assert!(!format!("{session:?}").contains("abc"));
    }
}
