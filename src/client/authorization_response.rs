//! DTR §Authentication Request Acknowledgment Validation: checks the response that the browser brings.

use std::borrow::Cow;
use std::fmt;

use super::Client;
use super::arrival::Place;
use super::authentication::Authentication;
use super::initial_request::InitialRequest;
use super::response_parameters::{Code, Parameters, broken};
use super::session::{self, AuthorizationSession};
use crate::dialect::CODE_GRANT;
use crate::error::{Error, Misuse, Rule, SessionProblem};
use crate::pending::PendingAuthentication;
use crate::secret::{Secret, constant_time_eq};

const STEP: &str = "checking the authorization response";
/// The state of a sign-in after the user returned.
#[non_exhaustive]
#[derive(Debug)]
#[must_use = "the user's deferred code has been spent for this"]
pub enum SignIn {
    /// The OP answered at once, and the user is signed in.
    Complete(Authentication),
    /// The OP defers its answer. [Wait](Client::wait) for the outcome, or store it and [poll](Client::poll).
    Deferred(PendingAuthentication),
}

/// An authorization response that was checked, with a code that has not been exchanged yet.
///
/// Call [`Client::exchange`] next. The grant remains usable if the request did not reach the OP, if the final tokens
/// cannot be validated yet, and if the future was dropped: the grant keeps the request and its answer. When a grant
/// with final tokens in this answer is dropped, the tokens are revoked, provided that the OP has a revocation endpoint
/// and a tokio runtime is available.
pub struct AuthorizationGrant {
    pub(super) request: InitialRequest,
    state: Secret,
    redirect_uri: String,
    is_deferred: bool,
    /// The response carried the `iss` of this OP (RFC 9207).
    names_issuer: bool,
    /// The response was a JWT that had already expired, so its code must not be sent.
    late: bool,
}

impl AuthorizationGrant {
    /// Whether the response had a deferred code. Otherwise it had an ordinary authorization code, for which the OP may
    /// still defer the tokens in the [IETF dialect](crate::Dialect::Ietf).
    pub fn is_deferred(&self) -> bool {
        self.is_deferred
    }

    /// What the application gave to [`context`](super::AuthorizationRequest::context) when this sign-in was started.
    pub fn context(&self) -> &[u8] {
        self.request.context()
    }

    /// Identifies this sign-in: the `state`, which is used once.
    pub(crate) fn state(&self) -> &Secret {
        &self.state
    }

    /// The redirect URI that the response arrived at, unless the response itself names its issuer. In that case no
    /// other OP's response can have been passed off as this one's.
    pub(crate) fn redirect_uri_that_tells(&self) -> Option<&str> {
        (!self.names_issuer).then_some(&self.redirect_uri)
    }

    /// Why the code of a response that arrived too late must not be sent, if it did.
    pub(crate) fn lateness(&self) -> Option<Error> {
        self.late.then(|| broken(Rule::JwtResponseExpired, "exp").in_step(STEP))
    }

    /// Whether the code has been sent, so that it must not be sent again.
    pub fn is_spent(&self) -> bool {
        self.request.is_spent()
    }

    /// The request with the code, for the poller.
    pub(crate) fn into_request(self) -> InitialRequest {
        self.request
    }
}

impl Client {
    /// Checks the authorization response and exchanges the code.
    ///
    /// `response` is the query string of the request to the redirect URI, or the body of a `form_post`. `session` is
    /// that of the browser that brought it. This is
    /// [`check_authorization_response`](Self::check_authorization_response) and [`exchange`](Self::exchange) in one
    /// call.
    ///
    /// The whole URL is accepted too, with `https:` or the scheme of a native application, and so is the path with the
    /// query. The URL or path must then match the redirect URI of the session. Give the path as the browser requested
    /// it: a nested router strips a prefix (axum: use `OriginalUri`, not `Uri`). A path that is only the end of the
    /// redirect URI's path is accepted if the response carries `iss` or is a JWT. Otherwise it is [`Rule::PathSuffix`].
    ///
    /// The query alone does not show which redirect URI the response came to. If several OPs are in use and one of them
    /// sends no `iss`, give the path or the URL. Then no OP can pass another one's code off as its own (RFC 9700 §4.4).
    ///
    /// Do not drop the future: after the code was sent, its answer would be lost. A pending sign-in is then lost, and
    /// final tokens that arrive at once are revoked. Some web frameworks drop the handler when the browser disconnects.
    /// With them, run the call in its own task (`tokio::spawn`) that also stores the result. Alternatively, call the
    /// two steps yourself and keep the [`AuthorizationGrant`], whose exchange continues. A [`Poller`](crate::Poller)
    /// does that for you.
    ///
    /// # Errors
    ///
    /// The errors of both steps. If [`Error::keeps_session`] is true, keep the cookie and let the user reload. After
    /// any other error let the user start a new sign-in. Call the two steps yourself if you want to repeat, without the
    /// browser, an exchange that did not reach the OP or the check of a response whose signature could not be verified.
    pub async fn authorization_response(
        &self,
        response: &str,
        mut session: AuthorizationSession,
    ) -> Result<SignIn, Error> {
        let mut grant = self.check_authorization_response(response, &mut session).await?;
        self.exchange(&mut grant).await
    }

    /// Checks the authorization response (DTR §Authentication Request Acknowledgment Validation; RFC 9207; JARM §2.4).
    /// Call [`exchange`](Self::exchange) next.
    ///
    /// No request is sent for a plain response. A [JWT](super::ResponseMode::QueryJwt) is verified with the OP's keys,
    /// which may have to be fetched. The session is [spent](AuthorizationSession::is_spent) once the OP's answer is
    /// accepted. A response that is refused does not change the session.
    ///
    /// # Errors
    ///
    /// - [`Session`](crate::ErrorKind::Session) if the session expired or belongs to another client.
    /// - [`Protocol`](crate::ErrorKind::Protocol) with the rule that the response broke. [`Rule::is_forgery`]
    ///   distinguishes attacks on the browser from mistakes of the OP.
    /// - [`Protocol`](crate::ErrorKind::Protocol) with [`Rule::KeysUnavailable`], which [is
    ///   transient](Error::is_transient), if a JWT cannot be verified because the OP's keys cannot be fetched. Check
    ///   the same response again later.
    /// - [`ErrorResponse`](crate::ErrorKind::ErrorResponse) if the OP refused or the user declined.
    /// - [`Misuse`](crate::ErrorKind::Misuse) for a session that is spent.
    pub async fn check_authorization_response(
        &self,
        response: &str,
        session: &mut AuthorizationSession,
    ) -> Result<AuthorizationGrant, Error> {
        let checked = self.check_late_response(response, session).await;
        let checked = checked.and_then(|grant| grant.lateness().map_or(Ok(grant), Err));
        // An error response of the OP is its answer too.
        session.spent |= match &checked {
            Ok(_) => true,
            Err(error) => error.error_response().is_some(),
        };
        checked
    }

    /// Like [`check_authorization_response`](Self::check_authorization_response), for a caller that remembers sessions.
    /// An expired JWT, such as that of a reloaded page, only has to say which known session it is for.
    pub(crate) async fn check_late_response(
        &self,
        response: &str,
        session: &AuthorizationSession,
    ) -> Result<AuthorizationGrant, Error> {
        self.check_response(response, session).await.map_err(|error| error.in_step(STEP))
    }

    async fn check_response(
        &self,
        response: &str,
        session: &AuthorizationSession,
    ) -> Result<AuthorizationGrant, Error> {
        if session.body.issuer != self.issuer() || session.body.client_id != self.client_id() {
            return Err(SessionProblem::Foreign.into());
        }
        if session.spent {
            return Err(Misuse::SessionAlreadyUsed.into());
        }
        if session.has_expired(self.0.clock.now(), self.0.options.session_lifetime) {
            return Err(SessionProblem::Expired.into());
        }
        let session = session.body.clone();
        let mut parameters = Parameters::parse(response)?;
        let place = parameters.arrival.compared_with(&session.redirect_uri);
        match (session.jwt_response, parameters.response.take()) {
            (true, None) => return Err(broken(Rule::ResponseNotJwt, "response")),
            (true, Some(_)) if parameters.repeated.contains(&"response") => {
                return Err(broken(Rule::RepeatedParameter, "response"));
            }
            // Other parameters beside it are not read.
            (true, Some(token)) => parameters = self.opened_response(&token, &session).await?,
            (false, Some(_)) if parameters.state.is_none() => return Err(broken(Rule::UnrequestedJwt, "response")),
            // An unknown parameter, because no JWT was requested.
            (false, _) => parameters.repeated.retain(|name| *name != "response"),
        }

        // First whether this answers our request at all. Before that, nothing in it is worth reporting.
        let state = parameters.state.as_deref().ok_or(broken(Rule::StateMissing, "state"))?;
        if !constant_time_eq(state.as_bytes(), session.state.expose().as_bytes()) {
            return Err(broken(Rule::StateMismatch, "state"));
        }
        if place == Place::Different {
            return Err(broken(Rule::WrongRedirectUri, "redirect_uri"));
        }
        match parameters.iss.as_deref() {
            Some(iss) if iss != self.issuer() => return Err(broken(Rule::IssMismatch, "iss")),
            None if session.iss_required => return Err(broken(Rule::IssMissing, "iss")),
            // The response may have arrived at the redirect URI of another OP, and its code would be sent to the wrong
            // one.
            None if place == Place::PathSuffix => return Err(broken(Rule::PathSuffix, "redirect_uri")),
            _ => {}
        }
        if let Some(&name) = parameters.repeated.first() {
            return Err(broken(Rule::RepeatedParameter, name));
        }
        let (names_issuer, late) = (parameters.iss.is_some(), parameters.late);
        let code = match parameters.code(session.response_type) {
            Err(_) if late => return Err(broken(Rule::JwtResponseExpired, "exp")),
            code => code?,
        };
        Ok(AuthorizationGrant {
            state: session.state.clone(),
            redirect_uri: session.redirect_uri.clone(),
            is_deferred: matches!(code, Code::Deferred(_)),
            request: self.request_with(code, &session),
            names_issuer,
            late,
        })
    }

    /// The token request with the code.
    fn request_with(&self, code: Code, session: &session::Body) -> InitialRequest {
        let mut form: Vec<(Cow<'static, str>, Secret)> = Vec::with_capacity(7);
        let (is_deferred, code) = match code {
            Code::Deferred(code) => {
                form.push(("grant_type".into(), Secret::new(session.dialect.protocol().grant_type())));
                form.push(("deferred_code".into(), code));
                (true, None)
            }
            Code::Authorization(code) => {
                form.push(("grant_type".into(), Secret::new(CODE_GRANT)));
                form.push(("code".into(), code.clone()));
                (false, Some(code))
            }
        };
        // RFC 6749 §4.1.3 requires it for `code`; the base draft shows it for `deferred_code`.
        if !self.0.options.without_redirect_uri_in_exchange || !is_deferred {
            form.push(("redirect_uri".into(), Secret::new(session.redirect_uri.as_str())));
        }
        if let Some(verifier) = &session.code_verifier {
            form.push(("code_verifier".into(), verifier.clone()));
        }
        InitialRequest {
            may_defer: is_deferred || session.opted_in,
            dpop_key: session.dpop_key.clone(),
            context: session.context.clone(),
            reference: session.reference.clone(),
            trace_parent: session.trace_parent.clone(),
            checks: Some(session.checks.clone()),
            code,
            ..InitialRequest::new(self, session.dialect, form)
        }
    }
}

impl fmt::Debug for AuthorizationGrant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AuthorizationGrant")
            .field("issuer", &self.request.issuer)
            .field("client_id", &self.request.client_id)
            .field("is_deferred", &self.is_deferred())
            .field("is_spent", &self.is_spent())
            .finish_non_exhaustive()
    }
}
