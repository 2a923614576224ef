//! Processes: their start, and the answers that defer a token request (IETF draft).

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{TestClient, TestUser};
use super::dialect::{
    COMPLETION_MODE, DEFERRED, Dialect, INTERACTION_PENDING, INTERACTION_REQUIRED, INTERACTION_URI, NOTIFICATION_TOKEN,
};
use super::op::{Handler, Op, Opaque};
use super::process::{Decision, Grant, Interaction, Pace, Process};
use super::record::RequestRule;
use super::settings::{ProofNeed, When};
use super::token::{DEFAULT_INTERVAL, is_bearer_token};
use super::wire::{Parameters, Rejection, Reply};

/// IETF DTR §Client Opt-In Signaling: the characters of a bearer token with 128 bits, each of which has 6 bits at most.
const NOTIFICATION_TOKEN_LENGTH: usize = 22;

impl Handler<'_> {
    /// Begins a process with its grant, before anything is deferred.
    pub(super) fn begin(&mut self, grant: Grant, client_id: &str, request: &Parameters, user: TestUser) -> usize {
        let mut interim_claims = self.op.settings.interim_claims.clone();
        interim_claims.extend(user.interim_claims.clone());
        self.state.processes.push(Process {
            client_id: client_id.to_owned(),
            grant,
            dialect: Dialect::OpenId,
            request: request.clone(),
            redirect_uri: String::new(),
            authenticated_at: self.op.now(),
            user,
            interim_claims,
            code: None,
            identifier: None,
            key: None,
            certificate: None,
            notification_token: None,
            policy: self.state.decisions,
            decision: None,
            progress: None,
            slow_down_next: false,
            exchanged_at: self.op.clock.monotonic(),
            deadline: None,
            interval: self.op.settings.interval.unwrap_or(DEFAULT_INTERVAL),
            pace: Pace::default(),
            polls: 0,
            redeemed: false,
            cancelled: false,
            interaction: Interaction::None,
            is_announced: false,
        });
        self.state.processes.len() - 1
    }

    /// Lets a process wait for its decision, and returns the identifier that its polls have.
    pub(super) fn start_waiting(
        &mut self,
        process: usize,
        dialect: Dialect,
        key: Option<&str>,
        notification_token: Option<&str>,
    ) -> String {
        self.start_waiting_for(process, dialect, key, notification_token, self.op.settings.expires_in)
    }

    /// The same with another lifetime than the provider's.
    pub(super) fn start_waiting_for(
        &mut self,
        process: usize,
        dialect: Dialect,
        key: Option<&str>,
        notification_token: Option<&str>,
        lifetime: Option<Duration>,
    ) -> String {
        if let Some(key) = key
            && !self.op.settings.allows_key_reuse
            && self.state.used_keys.contains(key)
        {
            self.violate(RequestRule::DpopKeyReused, "");
        }
        let now = self.op.clock.monotonic();
        let identifier = match dialect {
            Dialect::OpenId | Dialect::Ietf => self.op.opaque(Opaque::Text),
            // CIBA §7.3: letters, digits, `.`, `-` and `_`.
            Dialect::Ciba => self.op.token(),
        };
        self.state.by_identifier.insert(identifier.clone(), process);
        self.state.used_keys.extend(key.map(str::to_owned));
        let record = &mut self.state.processes[process];
        record.dialect = dialect;
        record.identifier = Some(identifier.clone());
        record.key = key.map(str::to_owned);
        record.notification_token = notification_token.map(str::to_owned);
        record.exchanged_at = now;
        record.pace.last_answer = now;
        record.deadline = lifetime.map(|lifetime| now + lifetime);
        if record.decision.is_some() {
            self.state.due_pings.push(process);
        } else if let When::Time(_) = record.policy.when {
            self.state.timed.extend(record.next_decision().map(|due| (due, process)));
        }
        self.op.changed.notify_waiters();
        identifier
    }

    /// IETF DTR §Client Opt-In Signaling: a list whose only value is `deferred`. The parameter is unknown to a provider
    /// of the other dialect, which ignores it.
    pub(super) fn check_completion_mode(&self, request: &Parameters) -> Result<(), Rejection> {
        let Some(modes) = request.get(COMPLETION_MODE).filter(|_| self.op.settings.dialects.ietf) else {
            return Ok(());
        };
        match modes.split(' ').all(|mode| mode == DEFERRED) {
            true => Ok(()),
            false => Err(Rejection::bad("invalid_request", RequestRule::CompletionMode, modes)),
        }
    }

    /// Checks what a token request says about its deferral. Returns whether the request needs a proof (IETF DTR
    /// §Sender-Constraint Requirements).
    pub(super) fn check_opt_in(&mut self, form: &Parameters, client: &TestClient) -> Result<ProofNeed, Rejection> {
        self.check_completion_mode(form)?;
        let needs_key = self.opts_in(form) && client.is_public() && !client.certificate_bound;
        Ok(if needs_key { ProofNeed::Always } else { self.op.settings.proof_need(client) })
    }

    fn opts_in(&self, form: &Parameters) -> bool {
        self.op.settings.dialects.ietf && form.get(COMPLETION_MODE).is_some()
    }

    /// Answers a valid token request: with the tokens, or with a deferral code.
    pub(super) fn grant(
        &mut self,
        form: &Parameters,
        process: usize,
        client: &TestClient,
        key: Option<&str>,
    ) -> Result<Reply, Rejection> {
        if self.opts_in(form) {
            self.check_notification_token(form);
            match &self.state.processes[process].decision {
                // The decision was made before the request, so that there is nothing to wait for.
                Some(Decision::Denied(reason)) => return Err(Rejection::innocent("access_denied", reason.clone())),
                Some(Decision::Expired) => return Err(Rejection::innocent("invalid_grant", "the grant has expired")),
                None if self.defers(form, process) => return Ok(self.defer(form, process, client, key)),
                Some(Decision::Approved) | None => {}
            }
        }
        Ok(Reply::json(200, &self.tokens(process, client, key)))
    }

    /// IETF DTR §Client Opt-In Signaling: "fresh for each request", at least 128 bits. The request is answered.
    fn check_notification_token(&mut self, form: &Parameters) {
        let Some(token) = form.get(NOTIFICATION_TOKEN) else { return };
        let is_long = token.trim_end_matches('=').len() >= NOTIFICATION_TOKEN_LENGTH;
        let is_fresh = self.state.seen_ids.insert(format!("notification {token}"));
        let problem = match (is_bearer_token(token), is_long, is_fresh) {
            (true, true, true) => return,
            (false, _, _) => "it is no `b64token`",
            (_, false, _) => "it is too short",
            (_, _, false) => "it was used before",
        };
        self.violate(RequestRule::NotificationToken, problem);
    }

    /// Whether a request that can be deferred is.
    fn defers(&self, form: &Parameters, process: usize) -> bool {
        let settings = &self.op.settings.ietf;
        let record = &self.state.processes[process];
        let details = form.get("authorization_details").or(record.request.get("authorization_details"));
        let is_plain = settings.is_the_demo && record.grant == Grant::ClientCredentials && details.is_none();
        if settings.answers_at_once || is_plain {
            return false;
        }
        match (settings.limit, details.and_then(largest_amount)) {
            (Some(limit), Some(amount)) => amount > limit as f64,
            _ => true,
        }
    }

    /// IETF DTR §Token Endpoint — Deferred Response.
    fn defer(&mut self, form: &Parameters, process: usize, client: &TestClient, key: Option<&str>) -> Reply {
        let code = self.start_waiting(process, Dialect::Ietf, key, form.get(NOTIFICATION_TOKEN));
        self.state.unannounced.insert(self.number, process);
        let certificate = if client.certificate_bound { self.certificate_thumbprint() } else { None };
        let settings = &self.op.settings;
        let grant = self.state.processes[process].grant;
        if settings.ietf.requires_interaction || (settings.ietf.is_the_demo && grant == Grant::JwtBearer) {
            self.op.require_interaction(self.state, process);
        }
        let record = &mut self.state.processes[process];
        record.certificate = certificate;
        let (error, uri) = match &record.interaction {
            Interaction::Required(uri) => (INTERACTION_REQUIRED, Some(uri)),
            _ => ("authorization_pending", None),
        };
        let mut response = json!({ "error": error, Dialect::Ietf.identifier(): code });
        if let Some(lifetime) = settings.expires_in {
            response["expires_in"] = json!(lifetime.as_secs());
        }
        if let Some(interval) = settings.interval {
            response["interval"] = json!(interval.as_secs());
        }
        if let Some(uri) = uri {
            response[INTERACTION_URI] = json!(uri);
        }
        Reply::json(400, &response)
    }

    /// The parameters of the initial request have no place in a poll (IETF DTR §Client Opt-In Signaling, §Token Endpoint
    /// — Polling). The poll is answered.
    pub(super) fn check_poll_parameters(&mut self, form: &Parameters) {
        for name in [COMPLETION_MODE, NOTIFICATION_TOKEN, "code_verifier", "code"] {
            if form.get(name).is_some() {
                self.violate(RequestRule::InitialParameterOnPoll, name);
            }
        }
    }

    /// IETF DTR §Sender-Constraint Requirements: the certificate of a poll is the one of the initial request.
    pub(super) fn check_certificate_of(&self, process: usize) -> Result<(), Rejection> {
        let bound = &self.state.processes[process].certificate;
        match bound.is_none() || *bound == self.certificate_thumbprint() {
            true => Ok(()),
            false => Err(Rejection::bad("invalid_grant", RequestRule::CertificateChanged, "another certificate")),
        }
    }

    /// IETF DTR §Token Endpoint — Polling: the answer to a poll while nothing is decided.
    pub(super) fn pending_code(&self, process: usize) -> Rejection {
        let record = &self.state.processes[process];
        let progress = record.progress.clone().unwrap_or_default();
        let settings = &self.op.settings.ietf;
        let (answer, repeats) = match &record.interaction {
            Interaction::None => (Rejection::innocent("authorization_pending", progress), false),
            Interaction::Opened(_) => (Rejection::innocent(INTERACTION_PENDING, progress), false),
            Interaction::Required(uri) => {
                let answer = Rejection::innocent(INTERACTION_REQUIRED, progress);
                (answer.member(INTERACTION_URI, uri.as_str()), settings.is_the_demo)
            }
        };
        if !repeats && !settings.repeats_members {
            return answer;
        }
        let left = record.deadline.map(|deadline| deadline.saturating_sub(self.op.clock.monotonic()));
        let answer = answer
            .member(Dialect::Ietf.identifier(), record.identifier.clone())
            .member("interval", record.interval.as_secs());
        match left {
            Some(left) => answer.member("expires_in", left.as_secs()),
            None => answer,
        }
    }
}

impl Op {
    /// Notes that the answer to a request was made.
    pub(super) fn deferred_response_is_made(&self, number: usize) {
        let mut state = self.state();
        let process = state.unannounced.remove(&number);
        state.announced.extend(process);
    }

    /// Notes that all answers that were made are on their way to the clients, which may be notified from now on.
    pub(super) fn announce(&self) {
        let mut state = self.state();
        for process in std::mem::take(&mut state.announced) {
            state.processes[process].is_announced = true;
        }
        if !state.due_pings.is_empty() {
            self.changed.notify_waiters();
        }
    }
}

/// The largest `instructedAmount.amount` of some authorization details, a number or a number in text.
fn largest_amount(details: &str) -> Option<f64> {
    let details: Vec<Value> = serde_json::from_str(details).unwrap_or_default();
    let amounts = details.iter().filter_map(|detail| match &detail["instructedAmount"]["amount"] {
        Value::String(amount) => amount.parse().ok(),
        amount => amount.as_f64(),
    });
    amounts.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_number_or_a_text_and_the_largest_counts() {
        let details = r#"[{"type":"payment","instructedAmount":{"amount":"123.50"}},{"type":"payment","instructedAmount":{"amount":99}},{"type":"other"}]"#;
        assert_eq!(largest_amount(details), Some(123.5));
        assert_eq!(largest_amount(r#"[{"type":"other"}]"#), None);
    }
}
