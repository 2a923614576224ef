//! The page of a sign-in for applications without their own, and what protects it.

use ::axum::body::Body;
use ::axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};

use super::visit::Visit;
use crate::poller::Status;
use crate::store::{ProcessId, State};

/// Reloads itself, and has forms of its own origin.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'");

/// Whether the application has acknowledged the outcome, or the poller knows nothing more.
pub(super) fn has_ended(status: Option<&Status>) -> bool {
    status.is_none_or(|status| status.state() == State::Acknowledged)
}

/// An answer that no cache and no other site gets.
pub(super) fn private(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    protect(&mut response);
    response
}

pub(super) fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
}

/// A plain page without any text of the OP.
pub(super) fn default_page(id: ProcessId, status: Option<&Status>, visit: &Visit) -> Response {
    let path = visit.status_path(id);
    let (title, body) = match status {
        None => ("This sign-in is over", "<p><a href=\"/\">To the start page</a></p>".to_owned()),
        Some(status) if status.state() == State::Acknowledged => (
            "Your provider has decided",
            format!("<form method=\"post\" action=\"{path}/finish\"><button>Continue</button></form>"),
        ),
        Some(status) if status.is_cancelled() => ("The sign-in is being cancelled", String::new()),
        Some(_) => (
            "Your provider is checking who you are",
            format!(
                "<p>This can take minutes or days. You may close this page.</p><form method=\"post\" \
                 action=\"{path}/cancel\"><button>Cancel</button></form>"
            ),
        ),
    };
    let reload = if has_ended(status) { "" } else { "<meta http-equiv=\"refresh\" content=\"5\">" };
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\">{reload}<title>{title}</title><h1>{title}</h1>{body}</html>\n"
    );
    let mut response = private("text/html; charset=utf-8", page);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}
