//! The security headers of every answer, and the refusal of forged forms.

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Permits only our own style sheet, script, pictures and event streams, and no framing. A page with a form whose
/// answer leads to another origin extends the policy.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    // The redirect URI contains a code, and the pages contain personal data.
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Protects all pages. Machines, such as the OP with its pings, use other routes.
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

/// Protects against cross-site request forgery: browsers send the origin of a form in `Sec-Fetch-Site`, and a page
/// cannot change it. `Origin` does not work here, because `no-referrer` makes browsers send `Origin: null` with forms.
/// Browsers send `Sec-Fetch-Site` only to HTTPS and loopback addresses, and so do they with `Secure` cookies.
fn comes_from_our_pages(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

/// The policy of a page with a form whose answer leads to another origin: browsers apply `form-action` to redirects as
/// well.
pub fn policy_with_form_to(origin: &str) -> HeaderValue {
    let policy = POLICY.replace("form-action 'self'", &format!("form-action 'self' {origin}"));
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(POLICY))
}
