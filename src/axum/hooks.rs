//! What the application decides.

use std::future::Future;

use ::axum::response::Response;

use super::pages;
use super::problem::page;
use super::sign_ins::BrowserSignIns;
use super::visit::{Visit, redirect};
use crate::client::{Authentication, AuthorizationRequest};
use crate::error::{Error, ProblemDetails};
use crate::poller::Status;
use crate::store::ProcessId;

/// What the application does in the routes of a [`SignInRouter`](super::SignInRouter): its sessions, its data and its
/// pages. Only [`complete`](Self::complete) has no default.
///
/// Methods that return a response may set cookies of the application in it. The routes add their own.
pub trait SignInHooks: Send + Sync + 'static {
    /// The page at which sign-ins start, with those that this browser has started before. The default is a plain page
    /// with a button and a link for each of them. An application with pages of its own needs only a form that posts to
    /// the same path, such as `<form method=post action=/sign-in>`, and the extractor [`BrowserSignIns`].
    fn start_page(&self, sign_ins: BrowserSignIns, visit: &Visit) -> impl Future<Output = Response> + Send {
        let page = pages::start(&sign_ins, visit);
        async move { page }
    }

    /// Completes the authorization request when a user starts a sign-in: scopes, claims, and the
    /// [`context`](AuthorizationRequest::context) that comes back with the outcome, such as the key of the account or the
    /// order that the sign-in is for. [`Visit::field`] reads the form. The default requests `profile` and `email`. Do not
    /// use [`session_data`](AuthorizationRequest::session_data), in which the routes keep the path to return to.
    ///
    /// # Errors
    ///
    /// A response that is sent instead, for example because sign-ins are closed for maintenance.
    fn request<'a>(
        &self,
        request: AuthorizationRequest<'a>,
        visit: &Visit,
    ) -> impl Future<Output = Result<AuthorizationRequest<'a>, Response>> + Send {
        let _ = visit;
        async move { Ok(request.scopes(["profile", "email"])) }
    }

    /// The OP answered at once, so the user is signed in and nothing will be delivered. Start a session of the
    /// application with a new token, and redirect to [`Visit::return_path`].
    fn complete(&self, authentication: Authentication, visit: &Visit) -> impl Future<Output = Response> + Send;

    /// The user has come back and the OP decides later, or the user has reloaded the callback or cancelled. The default
    /// redirects to the [page](Self::page) of the sign-in.
    fn waiting(&self, id: ProcessId, visit: &Visit) -> impl Future<Output = Response> + Send {
        let response = redirect(&visit.status_path(id));
        async move { response }
    }

    /// The page of a sign-in of this browser, with its status; `None` if the poller no longer has it.
    /// [`Status::is_cancelled`] and [`Status::cancellation`] say what to tell a user who has cancelled. The default is a plain page that reloads itself
    /// and shows no text of the OP.
    fn page(&self, id: ProcessId, status: Option<Status>, visit: &Visit) -> impl Future<Output = Response> + Send {
        let page = pages::sign_in(id, status.as_ref(), visit);
        async move { page }
    }

    /// What the application knows about a sign-in that has ended, as JSON: the member `ending` of the status, such as
    /// `"approved"`. A page needs it to offer [`finish`](Self::finish) after an approval only. By default the member is
    /// null.
    fn ending(&self, id: ProcessId) -> impl Future<Output = Option<serde_json::Value>> + Send {
        let _ = id;
        async { None }
    }

    /// The user asks to be signed in after an outcome, in the browser that started the sign-in. Look the outcome up in
    /// your own records by the identifier, which is that of its [`Delivery`](crate::Delivery::id). If it is an
    /// [approval](crate::Outcome::approved), start a session of the application with a new token, and redirect to
    /// [`Visit::return_path`]. `None` if there is no such approval: the routes answer with the [problem](Self::problem)
    /// [`NotApproved`](crate::error::ProblemType::NotApproved).
    ///
    /// Let an approval be used again for a short time, such as two minutes after its first use, and let the new session
    /// replace the first. Users click twice, and answers are lost: the browser then drops the first answer with the
    /// cookie of its session. The routes call this method only for the browser with the cookie of the sign-in. After
    /// that time return `None`, so that a copy of the cookie is of no use.
    ///
    /// After a response with a status below 400 the browser forgets the sign-in. The default knows no outcomes.
    fn finish(&self, id: ProcessId, visit: &Visit) -> impl Future<Output = Option<Response>> + Send {
        let _ = (id, visit);
        async { None }
    }

    /// Renders a problem. `error` is for the log; its texts are not for users. The default logs it as a warning through
    /// `tracing`, and answers with a plain page for browsers and with problem details as JSON for everything else.
    fn problem(&self, problem: ProblemDetails, error: Option<&Error>, visit: &Visit) -> Response {
        if let Some(error) = error {
            tracing::warn!(%error, advice = error.advice(), "a sign-in failed");
        }
        page(problem, &visit.parts.headers)
    }
}
