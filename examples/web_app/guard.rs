//! What every answer says to browsers, and which requests are not listened to.

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Only our own style sheet, script, pictures and event streams, and nobody may frame us. A page with a form whose
/// answer leads elsewhere says so itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    // The redirect URI has a code in it, and the pages are about people.
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Goes around all pages. Machines, such as the OP with its pings, come in by another door.
pub async fn guard(request: Request, next: Next) -> Response {
    if !request.method().is_safe() && !comes_from_our_pages(request.headers()) {
        return (StatusCode::FORBIDDEN, "This form was not sent from a page of ours.\n").into_response();
    }
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Cross-site request forgery: browsers say where a form was sent from, and no page can make them lie. `Origin` would not
/// do here, because under `no-referrer` forms are sent with `Origin: null`. Browsers say it to HTTPS and loopback
/// addresses only; the cookies, which are `Secure`, go to no others either.
fn comes_from_our_pages(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

/// The same policy for a page with a form whose answer leads to another origin: browsers apply `form-action` to redirects
/// as well.
pub fn policy_with_form_to(origin: &str) -> HeaderValue {
    let policy = POLICY.replace("form-action 'self'", &format!("form-action 'self' {origin}"));
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(POLICY))
}
