//! The handle of a test provider.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, Method};
use url::Url;

use super::browser::BrowserReturn;
use super::certificate::TestCertificate;
use super::client::{TestClient, TestUser};
use super::dialect::Dialect;
use super::fault::Fault;
use super::in_process::InProcess;
use super::op::Op;
use super::ping::{PingForgery, SentPing};
use super::process::{Decision, Process};
use super::record::{Endpoint, RecordedRequest, RequestViolation};
use super::server::Server;
use super::settings::DecisionPolicy;
use super::state::State;
use super::wire::{Delivery, Incoming, Reply};
use crate::transport::HttpClient;

/// A strict OpenID Provider for tests, with the Deferred Token Response flow; or an authorization server that speaks the
/// IETF draft ([`ietf`](crate::testing::TestProviderBuilder::ietf)).
///
/// It checks everything that a request must get right, and records every rule that was broken: end each test with
/// [`assert_clean`](Self::assert_clean). It decides sign-ins automatically or as the test says
/// ([`process`](Self::process)), and the test can make it [misbehave](Self::misbehave). Clones are the same provider,
/// which stops when the last one is dropped.
///
/// ```
/// use openid_deferred::testing::{TestClient, TestProvider};
///
/// # fn main() -> std::io::Result<()> {
/// let op = TestProvider::builder()
///     .client(TestClient::public("my-app").redirect_uri("https://rp.test/callback"))
///     .start()?;
/// println!("the OP is at {}", op.issuer());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TestProvider {
    pub(super) op: Arc<Op>,
    server: Option<Arc<Server>>,
}

impl TestProvider {
    pub(super) fn new(op: Arc<Op>, server: Option<Server>) -> Self {
        Self { op, server: server.map(Arc::new) }
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.op.settings.issuer
    }

    /// The Authentication Cancellation Endpoint. The draft has no metadata for it, so configure it in the client.
    pub fn cancellation_endpoint(&self) -> String {
        self.op.url("/cancel")
    }

    /// A protected resource that accepts this provider's access tokens and returns the request that it received.
    pub fn resource(&self) -> String {
        self.op.url("/resource")
    }

    /// The certificate authority of an HTTPS provider, in PEM. The client has to trust it.
    pub fn ca_certificate_pem(&self) -> Option<&str> {
        self.server.as_ref()?.ca_pem.as_deref()
    }

    /// Issues a client certificate with this DNS name, from an authority that this provider trusts, for
    /// [`TestClient::tls_client_auth`]. Each call issues a new one with a new key, as a renewal does.
    pub fn client_certificate(&self, name: &str) -> TestCertificate {
        self.op.authority.issue(name)
    }

    /// Issues a certificate of the same kind that expired long ago.
    pub fn expired_client_certificate(&self, name: &str) -> TestCertificate {
        self.op.authority.issue_expired(name)
    }

    /// Access to the provider without a socket, through the same code, on the provider's clock. Requests to other hosts
    /// cannot connect.
    pub fn http_client(&self) -> Arc<dyn HttpClient> {
        Self::network([self])
    }

    /// Access to several providers, selected by origin, for clients that use more than one. Give each its own
    /// [host](crate::testing::TestProviderBuilder::host).
    pub fn network<'a>(providers: impl IntoIterator<Item = &'a Self>) -> Arc<dyn HttpClient> {
        Arc::new(InProcess(providers.into_iter().map(|provider| Arc::clone(&provider.op)).collect()))
    }

    /// Registers a client while the provider runs.
    pub fn register(&self, client: TestClient) {
        self.op.state().clients.insert(client.id.clone(), client);
    }

    /// Plays the browser and the user: opens the authorization URL, lets the user sign in, and returns what the browser
    /// brings back to the client. Errors that the client should receive are returned as well.
    ///
    /// # Panics
    ///
    /// Panics if the user would see an error page, because the client or redirect URI is unknown, or because of a
    /// [`Fault`]. The message contains the error.
    pub fn visit(&self, authorization_url: impl AsRef<str>) -> BrowserReturn {
        let reply = self.browse(authorization_url.as_ref(), Endpoint::Authorization);
        reply.browser.unwrap_or_else(|| {
            let page = String::from_utf8_lossy(&reply.body).into_owned();
            panic!("the user sees an error page with status {}: {page}", reply.status)
        })
    }

    /// Opens a URL of the provider in the user's browser.
    pub(super) fn browse(&self, url: &str, endpoint: Endpoint) -> Reply {
        let url = Url::parse(url).expect("the request is a URL");
        assert_eq!(url.origin(), self.op.base.origin(), "the request goes to another server");
        let request = Incoming {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            certificates: Vec::new(),
        };
        match self.op.browse(&request, endpoint) {
            Delivery::Whole(reply) => reply,
            _ => panic!("the user's browser got no answer"),
        }
    }

    /// Plays a user who declines: the browser brings back `access_denied`.
    ///
    /// # Panics
    ///
    /// The panics of [`visit`](Self::visit).
    pub fn visit_and_decline(&self, authorization_url: impl AsRef<str>) -> BrowserReturn {
        self.op.state().user_declines = true;
        let back = self.visit(authorization_url);
        self.op.state().user_declines = false;
        back
    }

    /// Changes the user of later sign-ins.
    pub fn set_user(&self, user: TestUser) {
        self.op.state().user = user;
    }

    /// Changes the decisions of sign-ins that begin later.
    pub fn set_decisions(&self, policy: DecisionPolicy) {
        self.op.state().decisions = policy;
    }

    /// The sign-in with this `deferred_auth_id`, or the process with this `deferral_code` (IETF dialect) or `auth_req_id`
    /// (CIBA).
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn process(&self, identifier: &str) -> TestProcess {
        let number = self.op.state().process_by_id(identifier).expect("this identifier was issued");
        TestProcess { op: Arc::clone(&self.op), number }
    }

    /// The sign-in that was started last.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn last_process(&self) -> TestProcess {
        self.processes().pop().expect("a process was started")
    }

    /// All sign-ins, in the order of their start. In the IETF dialect every granted token request counts.
    pub fn processes(&self) -> Vec<TestProcess> {
        let count = self.op.state().processes.len();
        (0..count).map(|number| TestProcess { op: Arc::clone(&self.op), number }).collect()
    }

    /// Adds a fault to those that are still active.
    pub fn misbehave(&self, fault: Fault) {
        self.op.state().faults.push(fault);
    }

    /// Removes all faults.
    pub fn behave(&self) {
        self.op.state().faults.clear();
    }

    /// The number of faults that have not occurred as often as requested.
    pub fn faults_left(&self) -> usize {
        self.op.state().faults.len()
    }

    /// Signs with new keys from now on. The old ones stay in the key set.
    pub fn rotate_keys(&self) {
        sign_with_new_keys(&mut self.op.state());
    }

    /// Signs with new keys from now on, and removes the old ones from the key set.
    pub fn replace_keys(&self) {
        let mut state = self.op.state();
        state.keys.iter_mut().for_each(|key| key.published = false);
        sign_with_new_keys(&mut state);
    }

    /// Forgets the current DPoP nonces, so that the next proof is challenged.
    pub fn rotate_nonces(&self) {
        self.op.state().nonces.iter_mut().for_each(|nonces| nonces.current = None);
    }

    /// Sets an error of the provider's wall clock from now on, in seconds. A positive value means that it is ahead.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.op.clock_offset.store(seconds, Ordering::Relaxed);
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.op.state().requests.all()
    }

    /// The requests to one endpoint, in the order of arrival.
    pub fn requests_to(&self, endpoint: Endpoint) -> Vec<RecordedRequest> {
        self.requests().into_iter().filter(|request| endpoint.covers(request.endpoint)).collect()
    }

    /// Every rule that a request broke so far.
    pub fn violations(&self) -> Vec<RequestViolation> {
        self.op.state().violations.clone()
    }

    /// Forgets the violations so far, for tests that break rules on purpose.
    pub fn forgive(&self) {
        self.op.state().violations.clear();
    }

    /// Asserts that no request broke a rule.
    ///
    /// # Panics
    ///
    /// Panics if a request did. The message lists the violations.
    #[track_caller]
    pub fn assert_clean(&self) {
        let violations = self.violations();
        let list: String = violations.iter().map(|violation| format!("\n- {violation}")).collect();
        assert!(violations.is_empty(), "the client broke rules:{list}");
    }

    /// Makes the decisions of [`DecisionPolicy::after`] when they are due, and sends their Ping Callbacks. It never
    /// ends.
    ///
    /// This is for a provider in process, which has no thread for it. Await it together with the tested code, with
    /// `select!`.
    pub async fn decide_on_time(&self) {
        self.op.decide_on_time().await;
    }

    /// Every Ping Callback so far.
    pub fn pings(&self) -> Vec<SentPing> {
        self.op.state().pings.clone()
    }
}

fn sign_with_new_keys(state: &mut State) {
    let mut algorithms: Vec<_> = state.keys.iter().map(|key| key.algorithm).collect();
    algorithms.dedup();
    let mut fresh = Vec::new();
    for algorithm in algorithms {
        if !fresh.contains(&algorithm) {
            fresh.push(algorithm);
        }
    }
    for algorithm in fresh {
        state.add_key(algorithm);
    }
}

impl fmt::Debug for TestProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestProvider").field("issuer", &self.issuer()).finish_non_exhaustive()
    }
}

/// One sign-in at the provider, or one token request of the IETF dialect, with the actions of a reviewer there.
#[derive(Clone)]
pub struct TestProcess {
    pub(super) op: Arc<Op>,
    pub(super) number: usize,
}

impl TestProcess {
    /// Its `deferred_auth_id`; `None` before the exchange, and in the IETF dialect.
    pub fn deferred_auth_id(&self) -> Option<String> {
        self.identifier(Dialect::OpenId)
    }

    /// Its `deferral_code` (IETF dialect); `None` if it is not deferred.
    pub fn deferral_code(&self) -> Option<String> {
        self.identifier(Dialect::Ietf)
    }

    /// Its `auth_req_id` (CIBA).
    pub fn auth_req_id(&self) -> Option<String> {
        self.identifier(Dialect::Ciba)
    }

    fn identifier(&self, dialect: Dialect) -> Option<String> {
        self.with(|process| process.identifier.clone().filter(|_| process.dialect == dialect))
    }

    /// The client that it belongs to.
    pub fn client_id(&self) -> String {
        self.with(|process| process.client_id.clone())
    }

    /// A parameter of the authorization request, of the token request of a grant without a browser, or of the backchannel
    /// authentication request.
    pub fn authorization_parameter(&self, name: &str) -> Option<String> {
        self.with(|process| process.request.get(name).map(str::to_owned))
    }

    /// The `deferred_notification_token` of the exchange, or the `client_notification_token` of the IETF dialect and of
    /// CIBA.
    pub fn notification_token(&self) -> Option<String> {
        self.with(|process| process.notification_token.clone())
    }

    /// The thumbprint of the DPoP key that it is bound to.
    pub fn dpop_key(&self) -> Option<String> {
        self.with(|process| process.key.clone())
    }

    /// The number of answered polls, without `slow_down` and nonce challenges.
    pub fn polls(&self) -> usize {
        self.with(|process| process.polls)
    }

    /// The current interval, which grows with each `slow_down`.
    pub fn interval(&self) -> std::time::Duration {
        self.with(|process| process.interval)
    }

    /// Whether the tokens were issued, even if the answer did not arrive.
    pub fn is_redeemed(&self) -> bool {
        self.with(|process| process.redeemed)
    }

    /// Whether it was approved, denied or cancelled, or has expired.
    pub fn is_decided(&self) -> bool {
        let now = self.op.clock.monotonic();
        self.with(|process| process.decision.is_some() || process.has_expired(now))
    }

    /// Whether the client cancelled it.
    pub fn is_cancelled(&self) -> bool {
        self.with(|process| process.cancelled)
    }

    /// Approves with the user's claims, and sends a Ping Callback.
    pub fn approve(&self) {
        self.decide(Decision::Approved);
    }

    /// Approves with additional or changed claims, including `sub`.
    ///
    /// # Panics
    ///
    /// Panics if `claims` is not a JSON object.
    pub fn approve_with(&self, claims: serde_json::Value) {
        let serde_json::Value::Object(claims) = claims else { panic!("claims are a JSON object") };
        self.with(|process| process.user.claims.extend(claims));
        self.approve();
    }

    /// Denies, and sends a Ping Callback.
    pub fn deny(&self) {
        self.deny_with("the identity could not be attested");
    }

    /// Denies, with this reason in `error_description`.
    pub fn deny_with(&self, reason: &str) {
        self.decide(Decision::Denied(reason.to_owned()));
    }

    /// Lets the sign-in expire now. No Ping Callback is sent.
    pub fn expire(&self) {
        self.decide(Decision::Expired);
    }

    /// Sets the `error_description` of pending answers.
    pub fn progress(&self, text: &str) {
        self.with(|process| process.progress = Some(text.to_owned()));
    }

    /// Answers the next poll with `slow_down`, whenever it arrives.
    pub fn slow_down_next(&self) {
        self.with(|process| process.slow_down_next = true);
    }

    /// Changes the subject of later tokens.
    pub fn change_subject(&self, sub: &str) {
        self.with(|process| process.user.sub = sub.to_owned());
    }

    /// Sends a Ping Callback now, genuine or not.
    pub fn send_ping(&self, forgery: PingForgery) {
        self.op.send_ping(self.number, forgery);
    }

    fn decide(&self, decision: Decision) {
        self.op.decide(&mut self.op.state(), self.number, decision);
        self.op.send_due_pings();
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Process) -> T) -> T {
        use_it(&mut self.op.state().processes[self.number])
    }
}

impl fmt::Debug for TestProcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestProcess").field("number", &self.number).finish_non_exhaustive()
    }
}
