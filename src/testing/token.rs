//! The token endpoint.

use std::time::Duration;

use http::header;
use serde_json::{Value, json};

use super::client::TestClient;
use super::dialect::{COMPLETION_MODE, Dialect};
use super::keys;
use super::op::{Answer, Handler, Opaque, Pass};
use super::process::{Code, Decision, Grant, Interaction};
use super::record::{Endpoint, RequestRule};
use super::settings::{InterimToken, ProofNeed};
use super::state::{AccessToken, RefreshToken, Role};
use super::wire::{Parameters, Rejection, Reply};

/// The interval of polls if the exchange response contains none.
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// RFC 6749 §4.1.2: "A maximum authorization code lifetime of 10 minutes is RECOMMENDED."
const CODE_LIFETIME: Duration = Duration::from_secs(600);

/// RFC 8693 §3: the type of every token that a token exchange issues here.
pub(super) const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// When an access token is issued.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Issued {
    /// With the identifier of a pending sign-in.
    Early,
    /// With the other tokens.
    Finally,
}

impl Handler<'_> {
    pub(super) fn token(&mut self) -> Result<Reply, Rejection> {
        let form = self.request.form()?;
        match self.endpoint {
            Endpoint::Exchange => self.exchange(&form),
            Endpoint::Code => self.code(&form),
            Endpoint::Refresh => self.refresh(&form),
            Endpoint::ClientCredentials => self.client_credentials(&form),
            Endpoint::TokenExchange => self.token_exchange(&form),
            Endpoint::JwtBearer => self.jwt_bearer(&form),
            _ => {
                let grant = form.required("grant_type")?;
                Err(Rejection::bad("unsupported_grant_type", RequestRule::UnsupportedGrantType, grant))
            }
        }
    }

    /// DTR §Deferred Code Exchange Request Validation.
    fn exchange(&mut self, form: &Parameters) -> Result<Reply, Rejection> {
        let client = self.client(form)?;
        if form.get("deferred_auth_id").is_some() {
            let detail = "`deferred_code` and `deferred_auth_id` together";
            return Err(Rejection::bad("invalid_request", RequestRule::InvalidParameter, detail));
        }
        let need = self.op.settings.proof_need(&client);
        let (process, key) = self.spend_code(form, &client, "deferred_code", need)?;
        if form.get("deferred_notification_token").is_some_and(|token| !is_bearer_token(token)) {
            self.violate(RequestRule::InvalidParameter, "deferred_notification_token");
        }
        let notification_token = form.get("deferred_notification_token");
        let deferred_auth_id = self.start_waiting(process, Dialect::OpenId, key.as_deref(), notification_token);
        let settings = &self.op.settings;
        let mut response = json!({ "deferred_auth_id": deferred_auth_id });
        if let Some(lifetime) = settings.expires_in {
            response["expires_in"] = json!(lifetime.as_secs());
        }
        if let Some(interval) = settings.interval {
            response["interval"] = json!(interval.as_secs());
        }
        let (old, new) = match settings.interim {
            InterimToken::Absent => (false, false),
            InterimToken::IdToken => (true, false),
            InterimToken::InterimIdToken => (false, true),
            InterimToken::Both => (true, true),
        };
        if old || new {
            let token = self.id_token(process, &client, None);
            if old {
                response["id_token"] = json!(token);
            }
            if new {
                response["interim_id_token"] = json!(token);
            }
        }
        if self.op.settings.early_access_token {
            response["access_token"] = json!(self.access_token(process, key.as_deref(), Issued::Early));
            response["token_type"] = json!(token_type(key.as_deref()));
        }
        Ok(Reply::json(200, &response))
    }

    /// The ordinary code flow, after `code` was the answer to `deferred_code code`, or was asked for alone.
    fn code(&mut self, form: &Parameters) -> Result<Reply, Rejection> {
        let client = self.client(form)?;
        let need = self.check_opt_in(form, &client)?;
        let (process, key) = self.spend_code(form, &client, "code", need)?;
        self.grant(form, process, &client, key.as_deref())
    }

    /// Checks a code and its accompanying parameters. The code is only spent if all of them are valid.
    fn spend_code(
        &mut self,
        form: &Parameters,
        client: &TestClient,
        parameter: &'static str,
        need: ProofNeed,
    ) -> Result<(usize, Option<String>), Rejection> {
        let grant = |rule, detail: &str| Rejection::bad("invalid_grant", rule, detail);
        let is_deferred = parameter == "deferred_code";
        let code = form.required(parameter)?;
        let found = self.state.by_code.get(code).and_then(|&found| Some((found, self.state.processes[found].code?)));
        let Some((process, issued)) = found.filter(|(_, issued)| issued.is_deferred == is_deferred) else {
            return Err(grant(RequestRule::UnknownCode, ""));
        };
        let bound = self.state.processes[process].request.get("dpop_jkt").map(str::to_owned);
        let record = &self.state.processes[process];
        if record.client_id != client.id {
            return Err(grant(RequestRule::ForeignGrant, &client.id));
        }
        if issued.used {
            return Err(grant(RequestRule::CodeReplayed, ""));
        }
        if self.op.clock.monotonic() > issued.issued_at + CODE_LIFETIME {
            return Err(Rejection::innocent("invalid_grant", "the code has expired"));
        }
        // The newer text of the draft no longer has `redirect_uri` in the exchange. If it is sent, it must be right.
        let redirect_uri = form.get("redirect_uri");
        let is_missing = redirect_uri.is_none() && !is_deferred;
        if is_missing || redirect_uri.is_some_and(|uri| uri != record.redirect_uri) {
            return Err(grant(RequestRule::RedirectUriChanged, redirect_uri.unwrap_or_default()));
        }
        let verifier = form.get("code_verifier");
        let fits = match (record.request.get("code_challenge"), verifier) {
            (Some(challenge), Some(verifier)) => {
                is_verifier(verifier) && keys::sha256(verifier.as_bytes()) == challenge
            }
            (None, None) => true,
            _ => false,
        };
        if !fits {
            return Err(grant(RequestRule::WrongVerifier, ""));
        }
        let has_hint = self.op.settings.dialects.ietf && record.request.get(COMPLETION_MODE).is_some();
        if has_hint && !is_deferred && form.get(COMPLETION_MODE).is_none() {
            return Err(Rejection::bad("invalid_request", RequestRule::HintDropped, ""));
        }
        let key = self.grant_proof(need, bound.as_deref())?;
        self.state.processes[process].code = Some(Code { used: true, ..issued });
        Ok((process, key))
    }

    /// DTR §Token Request Validation; IETF DTR §Token Endpoint — Polling.
    pub(super) fn poll(&mut self, pass: Pass) -> Result<Answer, Rejection> {
        let form = self.request.form()?;
        let is_first = pass != Pass::Again;
        let (process, client) = match is_first {
            true => self.valid_poll(&form)?,
            false => self.known_poll(&form)?,
        };
        let now = self.op.clock.monotonic();
        let record = &mut self.state.processes[process];
        let wants_slow_down = is_first && (pass == Pass::FirstTooEarly || std::mem::take(&mut record.slow_down_next));
        // The demo of the IETF draft slows down whoever is early, whatever was decided.
        let can_slow_down = match self.op.settings.ietf.is_the_demo && record.dialect == Dialect::Ietf {
            true => !record.redeemed && !record.has_expired(now),
            false => record.decision.is_none(),
        };
        if wants_slow_down && can_slow_down {
            record.interval += Duration::from_secs(5);
            return Err(Rejection::innocent("slow_down", record.progress.clone().unwrap_or_default()));
        }
        record.polls += usize::from(is_first);
        record.decide(now);
        // DTR §Token Request Validation, 3: a result that was not collected in time is no longer available.
        if record.has_expired(now) && !record.redeemed {
            record.decision = Some(Decision::Expired);
        }
        match &record.decision {
            None => self.pending(process, is_first.then_some(now)),
            Some(Decision::Denied(reason)) => Err(Rejection::innocent("access_denied", reason.clone())),
            Some(Decision::Expired) => Err(Rejection::innocent("expired_token", "the process has expired")),
            Some(Decision::Approved) if record.redeemed => {
                Err(Rejection::innocent("invalid_grant", "the result was already collected"))
            }
            Some(Decision::Approved) => {
                record.redeemed = true;
                let key = record.key.clone();
                Ok(Answer::Reply(Reply::json(200, &self.tokens(process, &client, key.as_deref()))))
            }
        }
    }

    /// A pending sign-in: answers at once, or later if the provider holds polls.
    fn pending(&mut self, process: usize, arrived: Option<Duration>) -> Result<Answer, Rejection> {
        let record = &mut self.state.processes[process];
        let now = self.op.clock.monotonic();
        if let Some(arrived) = arrived {
            record.pace.held_until = arrived + self.op.settings.long_polling;
        }
        // A server that needs the user now does not hold the answer.
        if now < record.pace.held_until && !matches!(record.interaction, Interaction::Required(_)) {
            let next = record.next_decision().map_or(record.pace.held_until, |next| next.min(record.pace.held_until));
            return Ok(Answer::Hold(next));
        }
        if record.dialect == Dialect::Ietf {
            return Err(self.pending_code(process));
        }
        let progress = record.progress.clone().unwrap_or_else(|| "the authentication is still being processed".into());
        Err(Rejection::innocent("authorization_pending", progress))
    }

    fn valid_poll(&mut self, form: &Parameters) -> Result<(usize, TestClient), Rejection> {
        let dialect = Dialect::of_grant(form.required("grant_type")?).unwrap_or(Dialect::OpenId);
        let (early, unknown) = match dialect {
            Dialect::OpenId => (self.early_token(form)?, RequestRule::UnknownDeferredAuthId),
            Dialect::Ietf => (None, RequestRule::UnknownDeferralCode),
            Dialect::Ciba => (None, RequestRule::UnknownAuthReqId),
        };
        let client = match &early {
            Some((_, client)) => client.clone(),
            None => self.client(form)?,
        };
        if dialect != Dialect::OpenId {
            self.check_poll_parameters(form);
        }
        form.required(dialect.identifier())?;
        let Some(process) = self.state.polled(form) else {
            return Err(Rejection::bad("invalid_grant", unknown, ""));
        };
        let record = &self.state.processes[process];
        if record.client_id != client.id || early.as_ref().is_some_and(|(owner, _)| *owner != process) {
            return Err(Rejection::bad("invalid_grant", RequestRule::ForeignGrant, client.id.as_str()));
        }
        let bound = record.key.clone();
        match early {
            Some(_) => {}
            None if dialect == Dialect::Ciba => {
                let need = self.op.settings.proof_need(&client);
                let key = self.grant_proof(need, bound.as_deref())?;
                self.bind(process, key.filter(|_| bound.is_none()));
            }
            None => drop(self.grant_proof(ProofNeed::IfBound, bound.as_deref())?),
        }
        self.check_certificate_of(process)?;
        Ok((process, client))
    }

    /// A held poll that was already found valid.
    fn known_poll(&mut self, form: &Parameters) -> Result<(usize, TestClient), Rejection> {
        let process = self.state.polled(form).expect("a held poll belongs to a process");
        let client = self.state.clients[&self.state.processes[process].client_id].clone();
        Ok((process, client))
    }

    /// The older text of the draft: the DPoP-bound access token of the exchange authenticates the poll.
    fn early_token(&mut self, form: &Parameters) -> Result<Option<(usize, TestClient)>, Rejection> {
        let authorization = self.request.header(header::AUTHORIZATION).unwrap_or_default().to_owned();
        let Some(token) = authorization.strip_prefix("DPoP ").filter(|_| self.op.settings.early_access_token) else {
            return Ok(None);
        };
        // The text does not say whether a confidential client authenticates as well. If it does, it must do so
        // correctly.
        let authenticates = form.get("client_secret").or(form.get("client_assertion")).is_some();
        let stated = if authenticates { Some(self.client(form)?.id) } else { None };
        let found = self.state.access_tokens.get(token).filter(|found| found.is_early);
        let Some((process, key)) = found.map(|found| (found.process, found.key.clone())) else {
            return Err(Rejection::new(401, "invalid_token", RequestRule::AccessTokenInvalid, "")
                .header(header::WWW_AUTHENTICATE, "DPoP error=\"invalid_token\""));
        };
        let proven = self.proof(Role::AuthorizationServer, Some(token))?;
        self.check_binding(Role::AuthorizationServer, proven, ProofNeed::Always, key.as_deref())?;
        let client = self.state.clients[&self.state.processes[process].client_id].clone();
        match stated.is_none_or(|stated| stated == client.id) {
            true => Ok(Some((process, client))),
            false => Err(Rejection::bad("invalid_grant", RequestRule::ForeignGrant, client.id)),
        }
    }

    fn refresh(&mut self, form: &Parameters) -> Result<Reply, Rejection> {
        let client = self.client(form)?;
        let presented = form.required("refresh_token")?;
        let Some(token) = self.state.refresh_tokens.get(presented) else {
            return Err(Rejection::bad("invalid_grant", RequestRule::UnknownRefreshToken, ""));
        };
        let (process, key, used) = (token.process, token.key.clone(), token.used);
        if self.state.processes[process].client_id != client.id {
            return Err(Rejection::bad("invalid_grant", RequestRule::ForeignGrant, client.id.as_str()));
        }
        if used {
            // RFC 9700 §4.14.2: one of the two holders is a thief, and it is unknown which one.
            self.state.revoke_all(process);
            return Err(Rejection::bad("invalid_grant", RequestRule::RefreshTokenReplayed, ""));
        }
        let need = self.op.settings.proof_need(&client);
        let proven = self.grant_proof(need, key.as_deref())?;
        // RFC 6749 §6: "MUST NOT include any scope not originally granted by the resource owner".
        let granted = self.state.processes[process].request.get("scope").unwrap_or_default();
        let is_granted = |asked: &str| granted.split(' ').any(|granted| granted == asked);
        if !form.get("scope").is_none_or(|asked| asked.split(' ').all(is_granted)) {
            return Err(Rejection::bad("invalid_scope", RequestRule::InvalidParameter, "scope"));
        }
        let rotates = self.op.settings.rotates_refresh_tokens;
        if let Some(token) = self.state.refresh_tokens.get_mut(presented) {
            token.used = rotates;
        }
        Ok(Reply::json(200, &self.tokens(process, &client, proven.as_deref())))
    }

    /// A successful token response (OpenID Connect Core §3.1.3.3).
    pub(super) fn tokens(&mut self, process: usize, client: &TestClient, key: Option<&str>) -> Value {
        let access_token = self.access_token(process, key, Issued::Finally);
        let mut response = json!({
            "access_token": access_token,
            "token_type": token_type(key),
            "expires_in": ACCESS_TOKEN_LIFETIME.as_secs(),
        });
        let record = &self.state.processes[process];
        let grant = record.grant;
        if grant.signs_in() && has_openid(&record.request) {
            response["id_token"] = json!(self.id_token(process, client, Some(&access_token)));
        }
        if grant == Grant::TokenExchange {
            response["issued_token_type"] = json!(ACCESS_TOKEN_TYPE);
        }
        if let Some(scope) = self.state.processes[process].request.get("scope") {
            response["scope"] = json!(scope);
        }
        // RFC 9396 §7: the granted details, which are always the requested ones here.
        if let Some(details) = self.state.processes[process].request.get("authorization_details") {
            response["authorization_details"] = serde_json::from_str(details).unwrap_or_default();
        }
        let keeps_the_old = self.endpoint == Endpoint::Refresh && !self.op.settings.rotates_refresh_tokens;
        let may_be_refreshed = grant.signs_in() || self.op.settings.ietf.refreshes_all_grants;
        if self.op.settings.refresh_tokens && !keeps_the_old && may_be_refreshed {
            let token = self.op.opaque(Opaque::Text);
            // RFC 9449 §5: refresh tokens of public clients are bound to the key, those of others to the client.
            let key = key.filter(|_| client.is_public()).map(str::to_owned);
            self.state.refresh_tokens.insert(token.clone(), RefreshToken { process, key, used: false });
            response["refresh_token"] = json!(token);
        }
        response
    }

    fn access_token(&mut self, process: usize, key: Option<&str>, issued: Issued) -> String {
        let token = self.op.opaque(Opaque::Bearer);
        let expires_at = self.op.clock.monotonic() + ACCESS_TOKEN_LIFETIME;
        let client = &self.state.clients[&self.state.processes[process].client_id];
        let certificate = if client.certificate_bound { self.certificate_thumbprint() } else { None };
        let is_early = issued == Issued::Early;
        let record = AccessToken { process, key: key.map(str::to_owned), certificate, expires_at, is_early };
        self.state.access_tokens.insert(token.clone(), record);
        token
    }
}

/// Whether the scope of a request asks for an ID Token (OpenID Connect Core §3.1.2.1).
pub(super) fn has_openid(request: &Parameters) -> bool {
    request.get("scope").unwrap_or_default().split(' ').any(|scope| scope == "openid")
}

fn token_type(key: Option<&str>) -> &'static str {
    if key.is_some() { "DPoP" } else { "Bearer" }
}

/// RFC 6750 §2.1: `b64token`.
pub(super) fn is_bearer_token(token: &str) -> bool {
    let characters = token.trim_end_matches('=');
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !characters.is_empty() && characters.bytes().all(is_allowed)
}

/// RFC 7636 §4.1: 43 to 128 unreserved characters.
fn is_verifier(verifier: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (43..=128).contains(&verifier.len()) && verifier.bytes().all(is_unreserved)
}
