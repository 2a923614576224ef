//! The provider itself: it processes requests.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::sync::Notify;
use url::Url;

use super::certificate::ClientAuthority;
use super::dialect::{CIBA_GRANT, IETF_GRANT, JWT_BEARER, OPENID_GRANT, TOKEN_EXCHANGE};
use super::fault::Action;
use super::ping::PingHook;
use super::process::Decision;
use super::record::{Endpoint, RecordedRequest, RequestRule};
use super::settings::{DiscoveryForm, NoncePolicy, Settings};
use super::state::{Role, State};
use super::wire::{Delivery, Incoming, Parameters, Rejection, Reply};
use crate::clock::Clock;
use crate::random::Random;

pub(super) struct Op {
    pub(super) settings: Settings,
    pub(super) base: Url,
    /// Like `base`, for clients with certificates.
    pub(super) alias_base: Option<Url>,
    pub(super) authority: ClientAuthority,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) ping_hook: Option<PingHook>,
    /// The error of the wall clock in seconds.
    pub(super) clock_offset: AtomicI64,
    pub(super) state: Mutex<State>,
    /// Wakes polls that are being held.
    pub(super) changed: Notify,
}

/// The handler of one request, with everything that it may use.
pub(super) struct Handler<'a> {
    pub(super) op: &'a Op,
    pub(super) state: &'a mut State,
    pub(super) request: &'a Incoming,
    pub(super) endpoint: Endpoint,
    pub(super) number: usize,
}

/// How often a request has been processed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    First,
    /// For the first time, and the poll came too early.
    FirstTooEarly,
    /// It was held, and is processed again.
    Again,
}

/// The characters of an opaque value.
#[derive(Clone, Copy)]
pub(super) enum Opaque {
    /// RFC 6749 appendix A: `VSCHAR`, for codes and refresh tokens. A `deferred_auth_id` has no syntax of its own.
    Text,
    /// RFC 6750 §2.1: `b64token`.
    Bearer,
    /// RFC 9449 §8.1: `NQCHAR`.
    Nonce,
    /// RFC 3986: the end of a URI.
    Uri,
}

/// The result of a [`Handler`].
pub(super) enum Answer {
    Reply(Reply),
    /// No answer yet: call again at this time of the monotonic clock, or when something has changed.
    Hold(Duration),
}

impl Op {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The provider's wall clock, with its error.
    pub(super) fn now(&self) -> SystemTime {
        let offset = self.clock_offset.load(Ordering::Relaxed);
        let (is_behind, offset) = (offset < 0, Duration::from_secs(offset.unsigned_abs()));
        match is_behind {
            true => self.clock.now() - offset,
            false => self.clock.now() + offset,
        }
    }

    /// An unguessable text for codes, tokens, identifiers and nonces.
    pub(super) fn token(&self) -> String {
        let mut bytes = [0; 24];
        self.random.fill(&mut bytes).expect("the source of randomness works");
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// An unguessable text as an opaque value of this kind.
    pub(super) fn opaque(&self, kind: Opaque) -> String {
        let (before, after) = match kind {
            _ if !self.settings.opaque_values => ("", ""),
            Opaque::Text => ("+ /=&%2B;?#\"\\'", " \\u0041<&amp;>=%"),
            Opaque::Bearer => ("+/~.", "/+=="),
            Opaque::Nonce => ("+/&%2B,;'", "<=>="),
            Opaque::Uri => ("+/&%2B%20;?", "=%3D+"),
        };
        format!("{before}{}{after}", self.token())
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.issuer)
    }

    /// Whether this URL belongs to the provider.
    pub(super) fn is_at(&self, url: &Url) -> bool {
        std::iter::once(&self.base).chain(&self.alias_base).any(|base| base.origin() == url.origin())
    }

    fn endpoint(&self, request: &Incoming, parameters: &Parameters) -> Endpoint {
        let issuer_path = self.base.path().trim_end_matches('/');
        let path = request.url.path();
        let metadata = match self.settings.discovery {
            DiscoveryForm::OpenId => format!("{issuer_path}/.well-known/openid-configuration"),
            DiscoveryForm::OpenIdInfix => format!("/.well-known/openid-configuration{issuer_path}"),
            DiscoveryForm::OAuth => format!("/.well-known/oauth-authorization-server{issuer_path}"),
        };
        if path == metadata {
            return Endpoint::Metadata;
        }
        match path.strip_prefix(issuer_path).unwrap_or_default() {
            "/jwks" => Endpoint::Keys,
            "/authorize" => Endpoint::Authorization,
            "/token" => self.token_endpoint(parameters),
            "/cancel" if self.settings.dialects.openid => Endpoint::Cancellation,
            "/userinfo" => Endpoint::UserInfo,
            "/resource" => Endpoint::Resource,
            "/revoke" => Endpoint::Revocation,
            "/introspect" => Endpoint::Introspection,
            "/logout" => Endpoint::EndSession,
            "/par" => Endpoint::PushedAuthorization,
            "/bc-authorize" if self.settings.dialects.ciba => Endpoint::BackchannelAuthentication,
            "/register" if self.settings.registration.is_offered() => Endpoint::Registration,
            path if path.starts_with("/register/") && self.settings.registration.is_offered() => {
                Endpoint::ClientConfiguration
            }
            path if path.starts_with("/interact/") && self.settings.dialects.ietf => Endpoint::Interaction,
            _ => Endpoint::Unknown,
        }
    }

    /// The kind of a token request. Those of a dialect that the provider does not speak have none.
    fn token_endpoint(&self, parameters: &Parameters) -> Endpoint {
        let dialects = self.settings.dialects;
        match parameters.get("grant_type") {
            Some(OPENID_GRANT) if dialects.openid => match parameters.get("deferred_code") {
                Some(_) => Endpoint::Exchange,
                None => Endpoint::Poll,
            },
            Some(IETF_GRANT) if dialects.ietf => Endpoint::Poll,
            Some(CIBA_GRANT) if dialects.ciba => Endpoint::Poll,
            Some("authorization_code") => Endpoint::Code,
            Some("refresh_token") => Endpoint::Refresh,
            Some("client_credentials") if dialects.ietf => Endpoint::ClientCredentials,
            Some(TOKEN_EXCHANGE) if dialects.ietf => Endpoint::TokenExchange,
            Some(JWT_BEARER) if dialects.ietf => Endpoint::JwtBearer,
            _ => Endpoint::Token,
        }
    }

    /// Serves one request. Dropping the future means that the client disconnects.
    pub(super) async fn handle(&self, request: Incoming) -> Delivery {
        let parameters = request.parameters();
        let endpoint = self.endpoint(&request, &parameters);
        self.settle();
        let number = self.record(&request, &parameters, endpoint);
        let poll = self.poll_arrives(endpoint, &parameters, number);

        let mut delivery = None;
        for action in self.faults_before(number) {
            match action {
                Action::Delay(duration) => self.clock.sleep(duration).await,
                Action::ForgetNonces => self.state().nonces.iter_mut().for_each(|nonces| nonces.current = None),
                action => delivery = Some(action.apply_to(Reply::new(200, "application/json", "{}"))),
            }
        }
        let delivery = match delivery {
            Some(delivery) => delivery,
            None => {
                let is_early = poll.as_ref().is_some_and(|poll| poll.early);
                let first = if is_early { Pass::FirstTooEarly } else { Pass::First };
                self.process(&request, endpoint, number, first).await
            }
        };
        let delivery = self.stamped(delivery, endpoint);
        self.record_answer(number, &delivery);
        if matches!(delivery, Delivery::Stall) {
            std::future::pending::<()>().await;
        }
        self.deferred_response_is_made(number);
        if let Some(poll) = poll {
            poll.answered(&delivery);
        }
        delivery
    }

    /// Makes the answer, and applies the faults that come after the processing.
    async fn process(&self, request: &Incoming, endpoint: Endpoint, number: usize, first: Pass) -> Delivery {
        let mut pass = first;
        let reply = loop {
            let changed = self.changed.notified();
            let answer = {
                let mut state = self.state();
                let mut handler = Handler { op: self, state: &mut state, request, endpoint, number };
                handler.answer(pass)
            };
            pass = Pass::Again;
            match answer {
                Answer::Reply(reply) => break reply,
                Answer::Hold(until) => {
                    let left = until.saturating_sub(self.clock.monotonic());
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = self.clock.sleep(left) => {}
                    }
                }
            }
        };
        let mut delivery = Delivery::Whole(reply);
        for action in self.faults_after(&delivery, number) {
            delivery = match (action, delivery) {
                (Action::Delay(duration), delivery) => {
                    self.clock.sleep(duration).await;
                    delivery
                }
                (action, Delivery::Whole(reply)) => action.apply_to(reply),
                (_, broken) => broken,
            };
        }
        delivery
    }

    /// Makes all decisions that are due. Returns when the next one is due, or `None` if no further one is scheduled.
    pub(super) fn settle(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        while let Some((due, number)) = state.timed.first().copied() {
            if due > now {
                return Some(due);
            }
            state.timed.pop_first();
            if state.processes[number].decide(now) {
                self.changed.notify_waiters();
                if state.processes[number].decision != Some(Decision::Expired) {
                    state.due_pings.push(number);
                }
            }
        }
        None
    }

    /// Makes each decision when it is due and sends its ping. It never ends.
    pub(super) async fn decide_on_time(self: &Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            let next = self.settle();
            self.send_due_pings();
            match next {
                None => changed.await,
                Some(next) => {
                    let left = next.saturating_sub(self.clock.monotonic());
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = self.clock.sleep(left) => {}
                    }
                }
            }
        }
    }

    /// Handles a visit of the user's browser to an endpoint for users. It takes no time, so faults that delay are
    /// omitted.
    pub(super) fn browse(&self, request: &Incoming, endpoint: Endpoint) -> Delivery {
        let number = self.record(request, &request.parameters(), endpoint);
        let mut faults = self.faults_before(number).into_iter();
        let instead = faults.find(|action| !matches!(action, Action::Delay(_) | Action::ForgetNonces));
        let delivery = match instead {
            Some(action) => action.apply_to(Reply::new(200, "text/html", "")),
            None => {
                let mut state = self.state();
                let mut handler = Handler { op: self, state: &mut state, request, endpoint, number };
                let Answer::Reply(reply) = handler.answer(Pass::First) else { unreachable!("only polls are held") };
                Delivery::Whole(reply)
            }
        };
        let delivery = self.stamped(delivery, endpoint);
        self.record_answer(number, &delivery);
        delivery
    }

    fn record(&self, request: &Incoming, parameters: &Parameters, endpoint: Endpoint) -> usize {
        let mut state = self.state();
        let number = state.requests.next_number();
        state.requests.push(RecordedRequest {
            number,
            endpoint,
            at: self.now(),
            arrived: self.clock.monotonic(),
            method: request.method.clone(),
            url: request.url.to_string(),
            headers: request.headers.clone(),
            parameters: parameters.0.clone(),
            body: request.body.clone(),
            client_certificate: request.certificates.first().map(|der| Bytes::copy_from_slice(der)),
            status: None,
            response_headers: HeaderMap::new(),
            response_body: Bytes::new(),
            fault: None,
        });
        number
    }

    fn record_answer(&self, number: usize, delivery: &Delivery) {
        let (Delivery::Whole(reply) | Delivery::Endless(reply) | Delivery::Cut(reply)) = delivery else { return };
        let mut state = self.state();
        let Some(record) = state.requests.get_mut(number) else { return };
        record.status = Some(reply.status.as_u16());
        record.response_headers = reply.headers.clone();
        record.response_body = reply.body.clone();
    }

    fn faults_before(&self, number: usize) -> Vec<Action> {
        let mut state = self.state();
        let mut actions = Vec::new();
        let mut names = Vec::new();
        let State { faults, requests, .. } = &mut *state;
        for fault in faults {
            if requests.get(number).is_some_and(|request| fault.strikes_before(request)) {
                names.push(fault.name.clone());
                actions.push(fault.action.clone());
                if !matches!(fault.action, Action::Delay(_) | Action::ForgetNonces) {
                    break;
                }
            }
        }
        state.note_faults(number, names);
        actions
    }

    fn faults_after(&self, delivery: &Delivery, number: usize) -> Vec<Action> {
        let Delivery::Whole(reply) = delivery else { return Vec::new() };
        let mut state = self.state();
        let mut names = Vec::new();
        let mut actions = Vec::new();
        let State { faults, requests, .. } = &mut *state;
        for fault in faults {
            if requests.get(number).is_some_and(|request| fault.strikes_answer(request, reply.status)) {
                names.push(fault.name.clone());
                actions.push(fault.action.clone());
            }
        }
        state.note_faults(number, names);
        actions
    }

    /// Sets the headers that every answer has: the date of the provider's clock, and the nonce.
    fn stamped(&self, delivery: Delivery, endpoint: Endpoint) -> Delivery {
        let stamp = |mut reply: Reply| {
            if !reply.headers.contains_key(header::DATE) {
                reply.set(header::DATE, &httpdate::fmt_http_date(self.now()));
            }
            if let Some(role) = role_of(endpoint)
                && let Some(nonce) = self.nonce_to_send(role)
            {
                reply.set(http::HeaderName::from_static("dpop-nonce"), &nonce);
            }
            reply
        };
        match delivery {
            Delivery::Whole(reply) => Delivery::Whole(stamp(reply)),
            Delivery::Endless(reply) => Delivery::Endless(stamp(reply)),
            Delivery::Cut(reply) => Delivery::Cut(stamp(reply)),
            delivery @ (Delivery::Reset | Delivery::Stall) => delivery,
        }
    }

    fn nonce_to_send(&self, role: Role) -> Option<String> {
        if self.settings.nonces == NoncePolicy::Off {
            return None;
        }
        let fresh = self.opaque(Opaque::Nonce);
        let mut state = self.state();
        let nonces = &mut state.nonces[role as usize];
        if self.settings.nonces == NoncePolicy::RotateEveryRequest || nonces.current.is_none() {
            nonces.issued.insert(fresh.clone());
            nonces.current = Some(fresh);
        }
        nonces.current.clone()
    }
}

impl Handler<'_> {
    fn answer(&mut self, pass: Pass) -> Answer {
        // If the answer was held, the head has already been checked.
        let head = if pass != Pass::Again { self.check_head() } else { Ok(()) };
        let answer = head.and_then(|()| match self.endpoint {
            Endpoint::Poll => self.poll(pass),
            _ => self.reply().map(Answer::Reply),
        });
        answer.unwrap_or_else(|rejection| Answer::Reply(self.rejected(&rejection)))
    }

    fn reply(&mut self) -> Result<Reply, Rejection> {
        match self.endpoint {
            Endpoint::Metadata => self.metadata(),
            Endpoint::Keys => self.key_set(),
            Endpoint::Authorization => self.authorization(),
            endpoint if endpoint.is_token() => self.token(),
            Endpoint::PushedAuthorization => self.push(),
            Endpoint::BackchannelAuthentication => self.backchannel_authentication(),
            Endpoint::Cancellation => self.cancellation(),
            Endpoint::UserInfo => self.userinfo(),
            Endpoint::Resource => self.resource(),
            Endpoint::Revocation => self.revocation(),
            Endpoint::Introspection => self.introspection(),
            Endpoint::Registration => self.registration(),
            Endpoint::ClientConfiguration => self.client_configuration(),
            Endpoint::Interaction => self.interaction(),
            Endpoint::EndSession => self.end_session(),
            _ => {
                let url = self.request.url.as_str();
                // An OP has only one form of discovery document, so a client has to try.
                match self.request.url.path().contains("/.well-known/") {
                    true => Ok(Reply::new(404, "text/plain", "not found")),
                    false => Err(Rejection::new(404, "invalid_request", RequestRule::UnknownEndpoint, url)),
                }
            }
        }
    }

    /// Checks the rules that apply to every request.
    fn check_head(&mut self) -> Result<(), Rejection> {
        self.check_alias();
        let request = self.request;
        // RFC 9110 §5.3: a field that is not a list occurs once in a message.
        if request.headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
            let rule = RequestRule::SeveralAuthentications;
            return Err(Rejection::bad("invalid_request", rule, "there is more than one `Authorization` header"));
        }
        if matches!(
            self.endpoint,
            Endpoint::Metadata
                | Endpoint::Keys
                | Endpoint::Authorization
                | Endpoint::Interaction
                | Endpoint::EndSession
        ) {
            for name in [header::AUTHORIZATION, http::HeaderName::from_static("dpop")] {
                if request.headers.contains_key(&name) {
                    self.violate(RequestRule::UnneededCredential, name.as_str());
                }
            }
        }
        Ok(())
    }

    /// Makes an error response, and records the rule that the request broke.
    pub(super) fn rejected(&mut self, rejection: &Rejection) -> Reply {
        if let Some(rule) = rejection.violation {
            self.violate(rule, rejection.description.clone());
        }
        rejection.reply()
    }

    pub(super) fn violate(&mut self, rule: RequestRule, detail: impl Into<String>) {
        self.state.violate(rule, self.number, self.endpoint, detail.into());
    }
}

fn role_of(endpoint: Endpoint) -> Option<Role> {
    match endpoint {
        Endpoint::UserInfo | Endpoint::Resource => Some(Role::Resource),
        Endpoint::Metadata | Endpoint::Keys | Endpoint::Authorization | Endpoint::Unknown => None,
        // These endpoints do not use DPoP.
        Endpoint::Registration | Endpoint::ClientConfiguration | Endpoint::Interaction | Endpoint::EndSession => None,
        _ => Some(Role::AuthorizationServer),
    }
}
