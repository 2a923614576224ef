//! The pages for applications without their own, and what protects them.

use ::axum::body::Body;
use ::axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};

use super::sign_ins::BrowserSignIns;
use super::visit::Visit;
use crate::poller::{CancellationStatus, Status};
use crate::store::ProcessId;

/// Nothing is loaded, and nothing runs. It has no `form-action`, because a sign-in starts with a form that leads to the
/// OP.
pub(super) const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'");

/// The same for a page whose forms stay here.
const POLICY_WITH_OWN_FORMS: HeaderValue =
    HeaderValue::from_static("default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'");

/// Reloads a page after some seconds, without a script.
const RELOAD: &str = "<meta http-equiv=\"refresh\" content=\"5\">";

/// Whether the application has acknowledged the outcome, or the poller knows nothing more.
pub(super) fn has_ended(status: Option<&Status>) -> bool {
    status.is_none_or(Status::has_ended)
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

/// The text of a whole page. Its parts must be HTML.
pub(super) fn document(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\">{head}<title>{title}</title><h1>{title}</h1>{body}</html>\n"
    )
}

/// The page at which sign-ins start.
pub(super) fn start(sign_ins: &BrowserSignIns, visit: &Visit) -> Response {
    let link = |id| format!("<li><a href=\"{}\">A sign-in that you have started</a></li>", visit.status_path(id));
    let links: String = sign_ins.ids().map(link).collect();
    let list = if links.is_empty() { String::new() } else { format!("<ul>{links}</ul>") };
    page("Sign in", "", &(form(&visit.prefix, "Sign in") + &list), POLICY)
}

/// The page of one sign-in, without any text of the OP.
pub(super) fn sign_in(id: ProcessId, status: Option<&Status>, visit: &Visit) -> Response {
    let path = visit.status_path(id);
    let to = |action: &str, text: &str| form(&format!("{path}/{action}"), text);
    let (title, body) = match status {
        None => ("This sign-in is over", to("dismiss", "To the start page")),
        Some(status) if status.has_ended() => {
            ("Your provider has decided", to("finish", "Continue") + &to("dismiss", "Do not show this again"))
        }
        Some(status) if status.is_cancelled() => ("You have cancelled this sign-in", cancelled(status)),
        Some(_) => (
            "Your provider is checking who you are",
            "<p>This can take minutes or days. You may close this page.</p>".to_owned() + &to("cancel", "Cancel"),
        ),
    };
    let head = if has_ended(status) { "" } else { RELOAD };
    page(title, head, &body, POLICY_WITH_OWN_FORMS)
}

/// What the OP knows of a cancellation.
fn cancelled(status: &Status) -> String {
    let text = match status.cancellation() {
        Some(CancellationStatus::Accepted) => "Your provider knows that you have cancelled.",
        Some(CancellationStatus::Requested) => "Your provider will be told.",
        Some(CancellationStatus::LocallyOnly) => {
            "Your provider cannot be told, so it may still contact you. Its decision is no longer needed."
        }
        Some(CancellationStatus::TooLate) | None => "Your provider has decided in the meantime.",
    };
    format!("<p>{text}</p>")
}

/// A form with nothing but a button.
fn form(action: &str, text: &str) -> String {
    format!("<form method=\"post\" action=\"{action}\"><button>{text}</button></form>")
}

fn page(title: &str, head: &str, body: &str, policy: HeaderValue) -> Response {
    let mut response = private("text/html; charset=utf-8", document(title, head, body));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}
