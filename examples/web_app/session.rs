//! The application's own session: who is signed in.

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openid_deferred::store::ProcessId;
use openid_deferred::{Random as _, SystemRandom};

use super::ending::Person;
use super::ledger::Ledger;

/// The prefix `__Host-` prevents other hosts from setting it, including our own subdomains. Chromium and Firefox accept it
/// from loopback addresses without TLS, which the demonstration needs; Safari does not.
const NAME: &str = "__Host-fairwater";

/// Signs a person in. Each session has a new token, so one that was seen or planted before is useless.
pub async fn begin(ledger: &Ledger, person: Person) -> anyhow::Result<Response> {
    let token = new_token()?;
    ledger.sign_in(hash(&token), &person).await?;
    Ok(signed_in(token))
}

/// Signs the verified person of a booking in; `None` if there is none.
pub async fn enter(ledger: &Ledger, id: ProcessId) -> anyhow::Result<Option<Response>> {
    let token = new_token()?;
    Ok(ledger.enter(id, hash(&token)).await?.then(|| signed_in(token)))
}

fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom.fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn signed_in(token: String) -> Response {
    let cookie = Cookie::build((NAME, token)).path("/").secure(true).http_only(true).same_site(SameSite::Lax);
    (CookieJar::new().add(cookie), Redirect::to("/account")).into_response()
}

/// The person who is signed in.
pub async fn person(ledger: &Ledger, headers: &HeaderMap) -> anyhow::Result<Option<Person>> {
    match CookieJar::from_headers(headers).get(NAME) {
        Some(cookie) => ledger.person(hash(cookie.value())).await,
        None => Ok(None),
    }
}

/// Signs out, here and on the server.
pub async fn end(ledger: &Ledger, headers: &HeaderMap) -> anyhow::Result<Response> {
    let jar = CookieJar::from_headers(headers);
    if let Some(cookie) = jar.get(NAME) {
        ledger.sign_out(hash(cookie.value())).await?;
    }
    let cookie = Cookie::build(NAME).path("/").secure(true);
    Ok((jar.remove(cookie), Redirect::to("/")).into_response())
}

fn hash(token: &str) -> [u8; 32] {
    openssl::sha::sha256(token.as_bytes())
}
