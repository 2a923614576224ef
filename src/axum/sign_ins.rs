//! The sign-ins of one browser.

use std::cmp::Reverse;

use crate::store::ProcessId;

/// The sign-ins that this browser has started and that its cookies name, the newest first. An extractor for handlers whose
/// state contains [`SignInCookies`](super::SignInCookies), by [`FromRef`](::axum::extract::FromRef);
/// [`SignInCookies::sign_ins`](super::SignInCookies::sign_ins) is the same without axum.
///
/// ```
/// use axum::response::Html;
/// use openid_deferred::axum::BrowserSignIns;
///
/// async fn home(sign_ins: BrowserSignIns) -> Html<String> {
///     Html(format!("{} sign-ins are waiting", sign_ins.ids().count()))
/// }
/// ```
///
/// Cookies that were altered, made up, or have expired are ignored. It says that this browser started these sign-ins, and
/// nothing about who uses the browser now. Ask [`Poller::status`](crate::Poller::status), or your own records of outcomes,
/// how each of them stands.
#[derive(Debug, Clone, Default)]
pub struct BrowserSignIns {
    entries: Vec<BrowserSignIn>,
}

/// One cookie.
#[derive(Debug, Clone)]
pub(super) struct BrowserSignIn {
    pub(super) id: ProcessId,
    /// When the user came back, in seconds since 1970.
    pub(super) at: u64,
    /// The path to return to when the user is signed in.
    pub(super) return_path: Option<String>,
    /// The end of the cookie's name.
    pub(super) tag: String,
}

impl BrowserSignIns {
    pub(super) fn new(mut entries: Vec<BrowserSignIn>) -> Self {
        entries.sort_by_key(|entry| Reverse(entry.at));
        Self { entries }
    }

    pub(super) fn entries(&self) -> &[BrowserSignIn] {
        &self.entries
    }

    /// The path to return to from a sign-in.
    pub(super) fn return_path(&self, id: ProcessId) -> Option<&str> {
        self.entries.iter().find(|entry| entry.id == id)?.return_path.as_deref()
    }

    /// Their identifiers, the newest first.
    pub fn ids(&self) -> impl Iterator<Item = ProcessId> + '_ {
        self.entries.iter().map(|entry| entry.id)
    }

    /// Whether this browser started the sign-in with this identifier.
    pub fn contains(&self, id: ProcessId) -> bool {
        self.ids().any(|known| known == id)
    }
}
