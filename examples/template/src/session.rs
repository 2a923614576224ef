//! The application's own session: who is signed in. It has nothing to do with the session at the OP.

use axum::http::HeaderMap;
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openid_deferred::{Random as _, SystemRandom};
use sha2::{Digest as _, Sha256};

/// The cookie of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionCookie {
    /// Whether the application is in development, and served without HTTPS on this machine.
    pub is_insecure: bool,
}

/// A new session token. Only the browser gets it; the tables have its hash.
pub struct Token(String);

impl Token {
    pub fn new() -> anyhow::Result<Self> {
        let mut bytes = [0; 32];
        SystemRandom.fill(&mut bytes)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub fn hash(&self) -> String {
        hash(&self.0)
    }
}

impl SessionCookie {
    /// `__Host-` makes browsers require `Secure` and `Path=/`, and keeps other hosts of the domain from setting it.
    fn name(self) -> &'static str {
        if self.is_insecure { "session" } else { "__Host-session" }
    }

    fn build(self, value: String) -> Cookie<'static> {
        let cookie = Cookie::build((self.name(), value)).path("/").http_only(true).same_site(SameSite::Lax);
        cookie.secure(!self.is_insecure).build()
    }

    /// The `Set-Cookie` of a new session. Each sign-in has a new token, so one that was planted before is useless. The
    /// browser drops it when it is closed, and the tables end the session after [`SESSION`](crate::tables::SESSION).
    pub fn begin(self, token: Token) -> CookieJar {
        CookieJar::new().add(self.build(token.0))
    }

    /// The `Set-Cookie` that ends the session in the browser.
    pub fn end(self, headers: &HeaderMap) -> CookieJar {
        CookieJar::from_headers(headers).remove(self.build(String::new()))
    }

    /// The hash of the token that the browser sent.
    pub fn hash_of(self, headers: &HeaderMap) -> Option<String> {
        CookieJar::from_headers(headers).get(self.name()).map(|cookie| hash(cookie.value()))
    }
}

fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()))
}
