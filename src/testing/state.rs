//! The state of a provider.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::client::{TestClient, TestUser};
use super::decryption::DecryptionKeys;
use super::dialect::Dialect;
use super::fault::Fault;
use super::keys::ProviderKey;
use super::logout_token::SentLogoutToken;
use super::ping::SentPing;
use super::process::Process;
use super::record::{Endpoint, Log, RequestRule, RequestViolation};
use super::settings::DecisionPolicy;
use super::wire::Parameters;

#[derive(Default)]
pub(super) struct State {
    pub(super) clients: BTreeMap<String, TestClient>,
    /// The clients that registered themselves.
    pub(super) registrations: BTreeMap<String, Registered>,
    pub(super) processes: Vec<Process>,
    pub(super) pushed: BTreeMap<String, PushedRequest>,
    pub(super) by_code: BTreeMap<String, usize>,
    /// By `deferred_auth_id`, `deferral_code` or `auth_req_id`.
    pub(super) by_identifier: BTreeMap<String, usize>,
    /// By every `interaction_uri` that was issued.
    pub(super) by_interaction: BTreeMap<String, usize>,
    /// The subject tokens of token exchanges, and the subjects.
    pub(super) subject_tokens: BTreeMap<String, String>,
    /// The `login_hint_token`s that were issued, and when they expire.
    pub(super) hint_tokens: BTreeMap<String, Duration>,
    /// The deferred responses that are being made, by the number of the request, and their processes.
    pub(super) unannounced: BTreeMap<usize, usize>,
    /// The processes whose deferred responses were made, and are about to be written.
    pub(super) announced: Vec<usize>,
    /// The sign-ins that are decided by time, and when.
    pub(super) timed: BTreeSet<(Duration, usize)>,
    pub(super) used_keys: BTreeSet<String>,
    /// The user and the decision of the next sign-in.
    pub(super) user: TestUser,
    pub(super) decisions: DecisionPolicy,
    pub(super) user_declines: bool,
    pub(super) keys: Vec<ProviderKey>,
    pub(super) keys_made: usize,
    decryption_keys: Option<DecryptionKeys>,
    pub(super) access_tokens: BTreeMap<String, AccessToken>,
    pub(super) refresh_tokens: BTreeMap<String, RefreshToken>,
    pub(super) seen_ids: BTreeSet<String>,
    pub(super) nonces: [Nonces; 2],
    pub(super) faults: Vec<Fault>,
    pub(super) requests: Log,
    pub(super) violations: Vec<RequestViolation>,
    pub(super) pings: Vec<SentPing>,
    pub(super) logout_tokens: Vec<SentLogoutToken>,
    /// Sign-ins that were decided, and whose clients must be notified.
    pub(super) due_pings: Vec<usize>,
}

pub(super) struct AccessToken {
    pub(super) process: usize,
    pub(super) key: Option<String>,
    /// The thumbprint of the certificate that it is bound to.
    pub(super) certificate: Option<String>,
    pub(super) expires_at: Duration,
    /// Valid only for polls.
    pub(super) is_early: bool,
}

pub(super) struct RefreshToken {
    pub(super) process: usize,
    pub(super) key: Option<String>,
    /// Whether a newer one has replaced it.
    pub(super) used: bool,
}

/// The two roles of a provider. Each has its own DPoP nonces.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Role {
    AuthorizationServer,
    Resource,
}

#[derive(Default)]
pub(super) struct Nonces {
    pub(super) current: Option<String>,
    pub(super) issued: BTreeSet<String>,
}

impl State {
    pub(super) fn new(
        clients: Vec<TestClient>,
        user: TestUser,
        decisions: DecisionPolicy,
        keep_requests: Option<usize>,
    ) -> Self {
        let clients = clients.into_iter().map(|client| (client.id.clone(), client)).collect();
        Self { clients, user, decisions, requests: Log::new(keep_requests), ..Self::default() }
    }

    /// The key that signs tokens: the newest one for the algorithm. It is generated when it is first needed.
    pub(super) fn signing_key(&mut self, algorithm: Algorithm) -> &ProviderKey {
        if !self.keys.iter().any(|key| key.algorithm == algorithm) {
            self.add_key(algorithm);
        }
        self.keys.iter().rev().find(|key| key.algorithm == algorithm).expect("it was just added")
    }

    /// The key that signs a client's tokens: one of the provider's, or the client's secret.
    pub(super) fn key_for(&mut self, client: &TestClient) -> ProviderKey {
        match client.hmac_secret() {
            Some(secret) => ProviderKey::of_secret(client.id_token_algorithm, secret),
            None => self.signing_key(client.id_token_algorithm).clone(),
        }
    }

    /// The keys that requests are encrypted for. They are generated when they are first needed.
    pub(super) fn decryption_keys(&mut self) -> &DecryptionKeys {
        self.decryption_keys.get_or_insert_with(DecryptionKeys::generate)
    }

    pub(super) fn add_key(&mut self, algorithm: Algorithm) {
        self.keys_made += 1;
        self.keys.push(ProviderKey::generate(algorithm, format!("key-{}", self.keys_made)));
    }

    /// Revokes all tokens of a sign-in.
    pub(super) fn revoke_all(&mut self, process: usize) {
        self.access_tokens.retain(|_, token| token.process != process);
        self.refresh_tokens.retain(|_, token| token.process != process);
    }

    pub(super) fn process_by_id(&self, identifier: &str) -> Option<usize> {
        self.by_identifier.get(identifier).copied()
    }

    /// The process with this identifier, if it follows this draft.
    pub(super) fn process_in(&self, dialect: Dialect, identifier: &str) -> Option<usize> {
        self.process_by_id(identifier).filter(|&found| self.processes[found].dialect == dialect)
    }

    /// The process that a poll asks about.
    pub(super) fn polled(&self, poll: &Parameters) -> Option<usize> {
        let dialect = Dialect::of_grant(poll.get("grant_type")?)?;
        self.process_in(dialect, poll.get(dialect.identifier())?)
    }

    pub(super) fn violate(&mut self, rule: RequestRule, request: usize, endpoint: Endpoint, detail: String) {
        self.violations.push(RequestViolation { rule, request, endpoint, detail });
    }

    pub(super) fn note_faults(&mut self, number: usize, names: Vec<String>) {
        self.faults.retain(|fault| !fault.is_spent());
        let Some(record) = self.requests.get_mut(number) else { return };
        for name in names {
            record.fault = Some(record.fault.take().map_or(name.clone(), |earlier| format!("{earlier}, {name}")));
        }
    }
}

/// A pushed request.
pub(super) struct PushedRequest {
    pub(super) client_id: String,
    pub(super) parameters: Parameters,
    pub(super) expires_at: Duration,
    pub(super) used: bool,
}

/// A client that registered itself.
pub(super) struct Registered {
    pub(super) metadata: Map<String, Value>,
    pub(super) secret: Option<String>,
    pub(super) issued_at: u64,
    /// In seconds since 1970; 0 if it does not expire.
    pub(super) secret_expires_at: u64,
    pub(super) access_token: String,
    pub(super) replaced_tokens: BTreeSet<String>,
}
