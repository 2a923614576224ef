//! Identifies the browser by the application's own session cookie.

use std::time::Duration;

use anyhow::Context;
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::Cookie;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openid_deferred::{Random as _, SystemRandom};

use super::ledger::{Browser, Ledger};

/// The prefix `__Host-` prevents other hosts from setting it, including our own subdomains.
const NAME: &str = "__Host-fairwater";

/// The longest time that a user may have to wait.
const LIFETIME: Duration = Duration::from_secs(60 * 86_400);

/// Finds the browser that sent these cookies.
pub async fn recognise(ledger: &Ledger, jar: &CookieJar) -> anyhow::Result<Option<Browser>> {
    match jar.get(NAME) {
        Some(cookie) => ledger.browser(hash(cookie.value())).await,
        None => Ok(None),
    }
}

/// Finds the browser, or creates a session for a new one, in which no user is signed in.
pub async fn welcome(ledger: &Ledger, jar: CookieJar) -> anyhow::Result<(Browser, CookieJar)> {
    if let Some(browser) = recognise(ledger, &jar).await? {
        return Ok((browser, jar));
    }
    let token = random_text()?;
    let browser = ledger.new_browser(hash(&token)).await?;
    Ok((browser, jar.add(session(&token)?)))
}

/// Signs in the person of a booking. The session's token changes, so that a token that was seen or planted before is
/// useless.
pub async fn sign_in(
    ledger: &Ledger,
    jar: CookieJar,
    browser: &Browser,
    booking: &str,
) -> anyhow::Result<(bool, CookieJar)> {
    let token = random_text()?;
    match ledger.sign_in(booking, browser.id, hash(&token)).await? {
        true => Ok((true, jar.add(session(&token)?))),
        false => Ok((false, jar)),
    }
}

/// Signs out. The bookings stay, because they belong to the browser.
pub async fn sign_out(ledger: &Ledger, jar: CookieJar, browser: &Browser) -> anyhow::Result<CookieJar> {
    let token = random_text()?;
    ledger.sign_out(browser.id, hash(&token)).await?;
    Ok(jar.add(session(&token)?))
}

fn session(token: &str) -> anyhow::Result<Cookie<'static>> {
    cookie(NAME, token, LIFETIME)
}

/// A cookie for this host, this scheme and this browser only. With `Lax` the browser sends it when the OP redirects
/// back, and not when another site posts a form. Chromium and Firefox accept `Secure` cookies from loopback addresses
/// without TLS, which the demonstration needs; Safari does not.
pub fn cookie(name: &str, value: &str, lifetime: Duration) -> anyhow::Result<Cookie<'static>> {
    let seconds = lifetime.as_secs();
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    Cookie::parse(text).context("this is no cookie")
}

/// 128 random bits.
pub fn random_text() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom.fill(&mut bytes).context("the system's randomness failed")?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn hash(token: &str) -> [u8; 32] {
    openssl::sha::sha256(token.as_bytes())
}
