//! A request of a browser to one of the routes.

use std::fmt;

use ::axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use crate::error::{ProblemDetails, ProblemType};
use crate::store::ProcessId;

/// A request of a browser to one of the routes.
pub struct Visit {
    pub(super) parts: Parts,
    pub(super) form: String,
    pub(super) prefix: String,
    pub(super) return_path: Option<String>,
    pub(super) context: Vec<u8>,
}

impl Visit {
    /// The head of the request: headers with the cookies of the application, and extensions that its middleware set.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The first field with this name in the form that began the sign-in, cancelled it or finished it, or that logged the
    /// user out: untrusted text.
    pub fn field(&self, name: &str) -> Option<String> {
        super::body::field(&self.form, name)
    }

    /// The path to return to, or `/`. It was [checked](super::checked_return_path).
    ///
    /// - In [`complete`](super::SignInHooks::complete), and in [`waiting`](super::SignInHooks::waiting) at the
    ///   callback: the field `return_to` of the form that began the sign-in.
    /// - In [`finish`](super::SignInHooks::finish): the field `return_to` of the form that finishes the sign-in, or
    ///   else that of the form that began it, which the cookie of the sign-in keeps.
    /// - After a logout: the field `return_to` of the form that began it.
    /// - For other forms: their own field `return_to`.
    pub fn return_path(&self) -> &str {
        self.return_path.as_deref().unwrap_or("/")
    }

    /// The [`context`](crate::AuthorizationRequest::context) of the sign-in, when the user comes back with a response of the
    /// OP; empty otherwise.
    pub fn context(&self) -> &[u8] {
        &self.context
    }

    /// The path of a sign-in, such as `/sign-in/AAECAwQFBgcICQoLDA0ODw`: its page, and its status as JSON.
    pub fn status_path(&self, id: ProcessId) -> String {
        format!("{}/{id}", self.prefix)
    }
}

/// Leaves out everything that the browser sent.
impl fmt::Debug for Visit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Visit").field("method", &self.parts.method).finish_non_exhaustive()
    }
}

/// A redirect after a POST or a response of the OP. It is never cached.
pub(super) fn redirect(location: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else {
        return ProblemDetails::from(ProblemType::Internal).into_response();
    };
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
