//! The cookies of sign-ins: their names, their attributes, and what is sealed in them.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::sign_ins::{BrowserSignIn, BrowserSignIns};
use crate::client::{AuthorizationSession, Client, LogoutSession};
use crate::clock::{Clock as _, SystemClock, from_unix_seconds, saturating_add, unix_seconds};
use crate::error::{ConfigurationProblem, Error, ErrorKind, SessionProblem};
use crate::keyring::{Keyring, Purpose};
use crate::random::SystemRandom;
use crate::sealed::{self, Sealable};
use crate::store::ProcessId;

/// How long a browser may come back to a sign-in, unless the application sets another time.
const LIFETIME: Duration = Duration::from_secs(60 * 86_400);

/// The most sign-ins that one browser keeps. The oldest ones are dropped.
const MOST_SIGN_INS: usize = 8;

/// The most sign-ins of one browser that are at the OP. The oldest ones are dropped, so that the header `Cookie` stays
/// below the 8 kB that servers accept.
const MOST_SESSIONS: usize = 3;

/// The most cookies of one request that are opened.
const MOST_OPENED: usize = 32;

/// The longest value of a cookie that names a sign-in, in bytes.
const LONGEST_SIGN_IN: usize = 640;

/// The prefix that makes browsers require `Secure`, `Path=/` and no `Domain` (RFC 6265bis §4.1.3.2).
const HOST: &str = "__Host-";
/// The names of the cookies with authorization sessions, without [`HOST`].
const SESSION: &str = "deferred-";
/// The names of the cookies with sign-ins, without [`HOST`].
const SIGN_IN: &str = "sign-in-";
/// The name of the cookie with a logout, without [`HOST`].
const LOGOUT: &str = "logout";
/// What follows in both: the end of the name that [`AuthorizationSession::cookie_name`] returns.
const TAG_LENGTH: usize = 16;

/// Makes and reads the cookies of sign-ins, sealed by a [`Keyring`]. [`SignInRouter`](super::SignInRouter) uses it; clones
/// share the keys.
///
/// There are two kinds, and each sign-in has its own of both, so that tabs do not interfere:
///
/// | cookie | holds | from | to | attributes |
/// |---|---|---|---|---|
/// | `__Host-deferred-…` | the [`AuthorizationSession`] | the redirect to the OP | the callback | `Secure; HttpOnly; Path=/; SameSite=Lax` (`None` for `form_post`); `Max-Age` is the lifetime of a session |
/// | `__Host-sign-in-…` | the [`ProcessId`] of a sign-in that waits, and the path to return to | the callback | [`finish`](super::SignInHooks::finish), or `POST …/dismiss` | `Secure; HttpOnly; Path=/; SameSite=Lax`; `Max-Age` is [`lifetime`](Self::lifetime) |
///
/// A third one, `__Host-logout`, holds the [`LogoutSession`] while the browser is at the OP for a logout. A later logout
/// replaces it.
///
/// They protect against another browser that answers or sees a sign-in, against cookies that were altered or made up,
/// and against cookies from other hosts of the same domain. They do not protect against somebody who reads the browser's
/// cookies, and they do not say who the user is: keep a session of your own for that.
///
/// A browser keeps at most 3 sign-ins at the OP and 8 that wait. The oldest ones are dropped.
#[derive(Debug, Clone)]
pub struct SignInCookies {
    keyring: Keyring,
    lifetime: Duration,
    is_insecure: bool,
}

/// The content of a cookie that names a sign-in.
#[derive(Serialize, Deserialize)]
struct Named {
    #[serde(rename = "v")]
    version: u8,
    id: ProcessId,
    /// When the user came back, in seconds since 1970.
    at: u64,
    /// The path to return to when the user is signed in.
    #[serde(rename = "to", default, skip_serializing_if = "Option::is_none")]
    return_path: Option<String>,
}

impl Sealable for Named {
    const PURPOSE: Purpose = Purpose::BrowserSignIn;
    const VERSION: u8 = 1;

    fn version(&self) -> u8 {
        self.version
    }
}

impl SignInCookies {
    /// Cookies that this keyring seals and opens. It may be that of the poller.
    pub fn new(keyring: Keyring) -> Self {
        Self { keyring, lifetime: LIFETIME, is_insecure: false }
    }

    /// Sets how long a browser may come back to a sign-in. The default is 60 days. Browsers keep a cookie for 400 days
    /// at most.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Leaves out the prefix `__Host-` and the attribute `Secure`, for an application in development that is served
    /// over plain HTTP on this machine. [`SignInRouter::build`](super::SignInRouter::build) then requires a redirect URI
    /// with `http:` and a loopback address, and refuses any other. `form_post` does not work, because browsers require
    /// `Secure` with `SameSite=None`.
    pub fn insecure_loopback(mut self) -> Self {
        self.is_insecure = true;
        self
    }

    pub(super) fn is_insecure(&self) -> bool {
        self.is_insecure
    }

    /// The `Set-Cookie` for the redirect to the OP, with the session of the request.
    ///
    /// # Errors
    ///
    /// Those of [`AuthorizationSession::seal`], and [`Configuration`](crate::ErrorKind::Configuration) for `form_post`
    /// after [`insecure_loopback`](Self::insecure_loopback).
    pub fn start(&self, client: &Client, session: &AuthorizationSession) -> Result<HeaderValue, Error> {
        if session.is_form_post() && self.is_insecure {
            let problem = "`form_post` needs cookies with `Secure`: serve HTTPS, or use the response mode `query`";
            return Err(ConfigurationProblem::Setting { setting: "insecure_loopback", problem }.into());
        }
        let same_site = if session.is_form_post() { SameSite::None } else { SameSite::Lax };
        let name = self.renamed(&session.cookie_name())?;
        self.set(name, session.seal(&self.keyring)?, same_site, client.session_lifetime())
    }

    /// The session for a response, whose cookie has this `name` by
    /// [`Client::cookie_name_for`](crate::Client::cookie_name_for).
    ///
    /// # Errors
    ///
    /// [`SessionProblem::Missing`] if the browser sent no such cookie, and [`SessionProblem::Unreadable`] if it cannot be
    /// opened.
    pub fn session(&self, headers: &HeaderMap, name: &str) -> Result<AuthorizationSession, Error> {
        let name = self.renamed(name)?;
        let sealed = cookies(headers).find(|cookie| cookie.name() == name).ok_or(SessionProblem::Missing)?;
        AuthorizationSession::open(&self.keyring, sealed.value())
    }

    /// The `Set-Cookie` that deletes the session with this `name`, for the answer to the callback, unless the error
    /// [keeps the session](Error::keeps_session).
    ///
    /// # Errors
    ///
    /// [`SessionProblem::Missing`] for a name that is not one of [`AuthorizationSession::cookie_name`].
    pub fn end(&self, name: &str) -> Result<HeaderValue, Error> {
        self.set(self.renamed(name)?, String::new(), SameSite::Lax, Duration::ZERO)
    }

    /// The `Set-Cookie`s that let this browser come back to a sign-in that waits, and that drop the oldest ones if there
    /// are too many. `name` is that of the cookie of its session.
    ///
    /// # Errors
    ///
    /// Only if randomness or the cryptographic library fails, and [`SessionProblem::Missing`] as for [`end`](Self::end).
    pub fn remember(&self, headers: &HeaderMap, id: ProcessId, name: &str) -> Result<Vec<HeaderValue>, Error> {
        self.remember_with(headers, id, name, None)
    }

    /// The same, with the path to return to when the user is signed in. [`checked_return_path`] has checked it.
    ///
    /// [`checked_return_path`]: super::checked_return_path
    pub(super) fn remember_with(
        &self,
        headers: &HeaderMap,
        id: ProcessId,
        name: &str,
        return_path: Option<String>,
    ) -> Result<Vec<HeaderValue>, Error> {
        let tag = tag_of(name, SESSION).ok_or(SessionProblem::Missing)?;
        let named = Named { version: Named::VERSION, id, at: unix_seconds(SystemClock.now()), return_path };
        let sealed = sealed::seal(&self.keyring, &SystemRandom, tag.as_bytes(), &named)?;
        let value = URL_SAFE_NO_PAD.encode(sealed);
        let mut changes = vec![self.set(self.name(SIGN_IN, tag), value, SameSite::Lax, self.lifetime)?];
        let known = self.sign_ins(headers);
        let others = known.entries().iter().filter(|known| known.tag != tag);
        for dropped in others.skip(MOST_SIGN_INS - 1) {
            changes.push(self.deletion(SIGN_IN, &dropped.tag)?);
        }
        Ok(changes)
    }

    /// The `Set-Cookie` that makes this browser forget a sign-in; `None` if it does not know it.
    ///
    /// # Errors
    ///
    /// [`Sealed`](crate::ErrorKind::Sealed) if the cookie cannot be written as a header, which does not happen.
    pub fn forget(&self, headers: &HeaderMap, id: ProcessId) -> Result<Option<HeaderValue>, Error> {
        let known = self.sign_ins(headers);
        let entry = known.entries().iter().find(|known| known.id == id);
        entry.map(|known| self.deletion(SIGN_IN, &known.tag)).transpose()
    }

    /// The sign-ins that the cookies of a request name, as the extractor [`BrowserSignIns`] returns them.
    pub fn sign_ins(&self, headers: &HeaderMap) -> BrowserSignIns {
        self.sign_ins_at(headers, SystemClock.now())
    }

    fn sign_ins_at(&self, headers: &HeaderMap, now: SystemTime) -> BrowserSignIns {
        let named = self.named(headers, SIGN_IN).filter(|(_, value)| value.len() <= LONGEST_SIGN_IN);
        let opened = named.take(MOST_OPENED).filter_map(|(tag, value)| {
            let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
            let named: Named = sealed::open(&self.keyring, tag.as_bytes(), &sealed).ok()?;
            let is_alive = saturating_add(from_unix_seconds(named.at), self.lifetime) >= now;
            is_alive.then_some(BrowserSignIn { id: named.id, at: named.at, return_path: named.return_path, tag })
        });
        BrowserSignIns::new(opened.collect())
    }

    /// The `Set-Cookie` for the redirect to the OP for a logout.
    ///
    /// # Errors
    ///
    /// Those of [`LogoutSession::seal`].
    pub fn start_logout(&self, client: &Client, session: &LogoutSession) -> Result<HeaderValue, Error> {
        let value = session.seal(&self.keyring)?;
        self.set(self.name(LOGOUT, ""), value, SameSite::Lax, client.session_lifetime())
    }

    /// The logout from which this browser comes back.
    ///
    /// # Errors
    ///
    /// [`SessionProblem::Missing`] if the browser sent no such cookie, and [`SessionProblem::Unreadable`] if it cannot be
    /// opened.
    pub fn logout_session(&self, headers: &HeaderMap) -> Result<LogoutSession, Error> {
        let name = self.name(LOGOUT, "");
        let sealed = cookies(headers).find(|cookie| cookie.name() == name).ok_or(SessionProblem::Missing)?;
        LogoutSession::open(&self.keyring, sealed.value())
    }

    /// The `Set-Cookie` that deletes the logout.
    ///
    /// # Errors
    ///
    /// [`Sealed`](crate::ErrorKind::Sealed) if the cookie cannot be written as a header, which does not happen.
    pub fn end_logout(&self) -> Result<HeaderValue, Error> {
        self.deletion(LOGOUT, "")
    }

    /// The sign-in whose session had the cookie with this `name`.
    pub(super) fn sign_in_of(&self, headers: &HeaderMap, name: &str) -> Option<ProcessId> {
        let tag = tag_of(name, SESSION)?;
        self.sign_ins(headers).entries().iter().find(|known| known.tag == tag).map(|known| known.id)
    }

    /// The `Set-Cookie`s that delete the oldest sessions of a browser that has too many for another one.
    pub(super) fn make_room(&self, headers: &HeaderMap) -> Result<Vec<HeaderValue>, Error> {
        let opened = self.named(headers, SESSION).take(MOST_OPENED).map(|(tag, value)| {
            // What cannot be opened is the oldest.
            let session = AuthorizationSession::open(&self.keyring, &value).ok();
            (session.map(|session| session.started_at()), tag)
        });
        let mut sessions: Vec<_> = opened.collect();
        sessions.sort_by_key(|(started_at, _)| std::cmp::Reverse(*started_at));
        let surplus = sessions.iter().skip(MOST_SESSIONS - 1);
        surplus.map(|(_, tag)| self.deletion(SESSION, tag)).collect()
    }

    /// The tags and values of the cookies with this kind of name.
    fn named<'a>(&'a self, headers: &'a HeaderMap, kind: &'static str) -> impl Iterator<Item = (String, String)> + 'a {
        cookies(headers).filter_map(move |cookie| {
            let has_prefix = cookie.name().starts_with(HOST);
            let tag = tag_of(cookie.name(), kind).filter(|_| has_prefix != self.is_insecure)?;
            Some((tag.to_owned(), cookie.value().to_owned()))
        })
    }

    /// The name of a session's cookie as this application uses it.
    fn renamed(&self, name: &str) -> Result<String, Error> {
        let tag = tag_of(name, SESSION).ok_or(SessionProblem::Missing)?;
        Ok(self.name(SESSION, tag))
    }

    fn name(&self, kind: &str, tag: &str) -> String {
        let host = if self.is_insecure { "" } else { HOST };
        format!("{host}{kind}{tag}")
    }

    fn deletion(&self, kind: &str, tag: &str) -> Result<HeaderValue, Error> {
        self.set(self.name(kind, tag), String::new(), SameSite::Lax, Duration::ZERO)
    }

    fn set(&self, name: String, value: String, same_site: SameSite, lifetime: Duration) -> Result<HeaderValue, Error> {
        let max_age = cookie::time::Duration::seconds(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let cookie = Cookie::build((name, value)).path("/").http_only(true).same_site(same_site).max_age(max_age);
        let cookie = cookie.secure(!self.is_insecure).build();
        // Its parts are base64url.
        HeaderValue::try_from(cookie.to_string()).map_err(|_| Error::new(ErrorKind::Sealed))
    }
}

/// All cookies of a request. What is not text is skipped.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(Cookie::split_parse).filter_map(Result::ok)
}

/// The end of a cookie's name, if it is of this kind.
fn tag_of<'a>(name: &'a str, kind: &str) -> Option<&'a str> {
    let tag = name.strip_prefix(HOST).unwrap_or(name).strip_prefix(kind)?;
    let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (tag.len() == TAG_LENGTH && tag.bytes().all(is_tag)).then_some(tag)
}

#[cfg(test)]
mod tests;
