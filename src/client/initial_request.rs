//! A request whose answer the OP may defer, from before it is sent until its answer is taken: a token request, or a
//! backchannel authentication request.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::Client;
use super::initial_answer::{InitialAnswer, Received};
use crate::dialect::{Dialect, InitialEndpoint};
use crate::dpop::DpopKey;
use crate::error::{Error, Misuse};
use crate::pending::{Checks, PendingAuthentication};
use crate::secret::Secret;
use crate::task::Task;
use crate::trace_parent::TraceParent;

/// The request, or what has become of it. It is made for one client and sent once.
pub(crate) struct InitialRequest {
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) dialect: Dialect,
    /// Whether the OP may defer its answer to this request.
    pub(super) may_defer: bool,
    /// The parameters, without those of the dialect.
    pub(super) form: Vec<(Cow<'static, str>, Secret)>,
    /// Whether the parameters are sent in a signed JWT.
    pub(super) signed: bool,
    pub(super) dpop_key: Option<DpopKey>,
    pub(super) context: Zeroizing<Vec<u8>>,
    /// The application's reference, for the poller.
    pub(super) reference: Option<Secret>,
    pub(super) trace_parent: Option<TraceParent>,
    /// `None` if no ID Token is expected, because no user signs in.
    pub(super) checks: Option<Checks>,
    /// The authorization code in it, if there is one. An ID Token may have its hash.
    pub(super) code: Option<Secret>,
    /// For the callbacks about this request only.
    pub(super) notification_token: Option<Secret>,
    /// Whether the OP may have processed it.
    pub(super) spent: bool,
    /// The request in flight, or its result, until a caller takes it.
    pub(super) in_flight: Option<Task<InitialAnswer>>,
    /// The answer with final tokens, while it cannot be validated. The OP sends it only once.
    pub(super) received: Option<Received>,
    /// The pending request that the OP made of it, while its interim ID Token is verified.
    pub(super) deferred: Option<PendingAuthentication>,
}

impl InitialRequest {
    /// A request with these parameters that has not been sent. It may be deferred, and nothing is bound to a key.
    pub(super) fn new(client: &Client, dialect: Dialect, form: Vec<(Cow<'static, str>, Secret)>) -> Self {
        Self {
            issuer: client.issuer().to_owned(),
            client_id: client.client_id().to_owned(),
            dialect,
            may_defer: true,
            form,
            signed: false,
            dpop_key: None,
            context: Zeroizing::default(),
            reference: None,
            trace_parent: None,
            checks: None,
            code: None,
            notification_token: None,
            spent: false,
            in_flight: None,
            received: None,
            deferred: None,
        }
    }

    /// Whether the request was sent and its result can still be taken.
    pub(super) fn keeps_answer(&self) -> bool {
        self.in_flight.is_some() || self.received.is_some() || self.deferred.is_some()
    }

    /// Whether the OP may have processed it, so that it must not be sent again.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }

    /// The result in metrics of a request that can be sent again after this error.
    pub(crate) fn unspent_result(&self, error: &Error) -> &'static str {
        match self.dialect.protocol().initial_endpoint() {
            InitialEndpoint::BackchannelAuthentication if error.error_response().is_some() => "refused",
            _ => "unsent",
        }
    }

    pub(crate) fn context(&self) -> &[u8] {
        &self.context
    }

    pub(crate) fn trace_parent(&self) -> Option<&TraceParent> {
        self.trace_parent.as_ref()
    }

    pub(crate) fn reference(&self) -> Option<&Secret> {
        self.reference.as_ref()
    }

    /// Sets the bearer token that the OP is to send in the callbacks about this request.
    pub(crate) fn set_notification_token(&mut self, token: Secret) {
        self.notification_token = Some(token);
    }

    /// What the crate is doing when it sends the request, for errors.
    pub(crate) fn step(&self) -> &'static str {
        match (self.dialect.protocol().initial_endpoint(), &self.checks) {
            (InitialEndpoint::BackchannelAuthentication, _) => "requesting the authentication of a user",
            (InitialEndpoint::Token, Some(_)) => "exchanging the code",
            (InitialEndpoint::Token, None) => "requesting tokens",
        }
    }
}

impl Client {
    /// Refuses a request that was already sent or belongs to another client.
    pub(super) fn check_request(&self, request: &InitialRequest) -> Result<(), Error> {
        self.check_ownership(&request.issuer, &request.client_id)?;
        if request.spent && !request.keeps_answer() {
            return Err(Misuse::GrantAlreadyUsed.into());
        }
        Ok(())
    }
}
