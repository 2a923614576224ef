//! The backchannel authentication endpoint (CIBA).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::authorization::{check_details, check_resources, check_scope_syntax};
use super::builder::TestProviderBuilder;
use super::client::{TestClient, TestUser};
use super::dialect::{Dialect, NOTIFICATION_TOKEN};
use super::keys::Jwt;
use super::op::Handler;
use super::process::Grant;
use super::provider::TestProvider;
use super::record::RequestRule;
use super::request_object::Signed;
use super::token::{has_openid, is_bearer_token};
use super::wire::{Parameters, Rejection, Reply};

/// The lifetime of a token of [`TestProvider::login_hint_token`].
const HINT_LIFETIME: Duration = Duration::from_secs(300);
/// The longest `binding_message` in characters. The specification leaves it to the OP.
const LONGEST_MESSAGE: usize = 100;
/// CIBA §7.1: "The length of the token MUST NOT exceed 1024 characters", and 128 bits are 22 characters of base64url.
const NOTIFICATION_TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 22..=1024;
const HINTS: [&str; 3] = ["login_hint", "login_hint_token", "id_token_hint"];

impl TestProviderBuilder {
    /// Also speaks CIBA (OpenID Connect Client-Initiated Backchannel Authentication Flow Core 1.0), in poll and ping mode.
    ///
    /// A client asks for a user at the backchannel authentication endpoint, and polls with the `auth_req_id`. Decisions,
    /// faults, long polling, pings and recorded requests are those of the other flows. The client is in poll mode, unless
    /// it is a [`TestClient::ping_mode`]. Every `login_hint` names the provider's [`user`](Self::user), unless
    /// [`login_hint`](Self::login_hint) sets some.
    ///
    /// ```
    /// use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let op = TestProvider::builder()
    ///     .ciba()
    ///     .client(TestClient::secret_basic("teller", "s3cret"))
    ///     .decisions(DecisionPolicy::after_polls(2))
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ciba(mut self) -> Self {
        self.settings.dialects.ciba = true;
        self
    }

    /// Speaks [CIBA](Self::ciba), and holds every client to the rules of the FAPI-CIBA profile: signed requests,
    /// `private_key_jwt` or a certificate, bound tokens, and signatures by PS256, ES256 or EdDSA.
    pub fn fapi_ciba(mut self) -> Self {
        self.settings.fapi = true;
        self.ciba()
    }

    /// Lets a `login_hint` name this user (CIBA). Hints that were not set are then `unknown_user_id`.
    pub fn login_hint(mut self, hint: &str, user: TestUser) -> Self {
        self.settings.backchannel.users.insert(hint.to_owned(), user);
        self
    }

    /// Requires this `user_code` in backchannel authentication requests (CIBA). Without this setting the provider does
    /// not support the parameter.
    pub fn user_code(mut self, code: &str) -> Self {
        self.settings.backchannel.user_code = Some(code.to_owned());
        self
    }
}

impl TestProvider {
    /// Issues a `login_hint_token` about the provider's user (CIBA). It can be used for five minutes of the provider's
    /// clock.
    pub fn login_hint_token(&self) -> String {
        let token = self.op.token();
        let expires_at = self.op.clock.monotonic() + HINT_LIFETIME;
        self.op.state().hint_tokens.insert(token.clone(), expires_at);
        token
    }
}

impl Handler<'_> {
    /// CIBA §7.2 and §7.3.
    pub(super) fn backchannel_authentication(&mut self) -> Result<Reply, Rejection> {
        let form = self.request.form()?;
        let client = self.client(&form)?;
        if client.is_public() {
            return Err(Rejection::bad("unauthorized_client", RequestRule::ClientNotConfidential, client.id));
        }
        let request = self.backchannel_parameters(form, &client)?;
        check_scope_syntax(&request)?;
        check_resources(&request)?;
        check_details(&request)?;
        if !has_openid(&request) {
            return Err(Rejection::bad("invalid_scope", RequestRule::NoOpenidScope, "scope"));
        }
        let user = self.hinted_user(&request, &client)?;
        self.check_user_code(&request)?;
        check_binding_message(&request)?;
        let lifetime = requested_lifetime(&request)?;
        self.check_client_notification_token(&request, &client)?;
        if let Some(jti) = request.get("jti") {
            self.state.seen_ids.insert(format!("request {} {jti}", client.id));
        }
        let process = self.begin(Grant::Backchannel, &client.id, &request, user);
        let notification_token = request.get(NOTIFICATION_TOKEN).filter(|_| client.is_pinged);
        let certificate = if client.certificate_bound { self.certificate_thumbprint() } else { None };
        self.state.processes[process].certificate = certificate;
        let limit = self.op.settings.expires_in;
        let lifetime = lifetime.map_or(limit, |asked| Some(limit.map_or(asked, |limit| asked.min(limit))));
        let auth_req_id = self.start_waiting_for(process, Dialect::Ciba, None, notification_token, lifetime);
        self.state.unannounced.insert(self.number, process);
        let mut response = json!({ "auth_req_id": auth_req_id });
        if let Some(lifetime) = lifetime {
            response["expires_in"] = json!(lifetime.as_secs());
        }
        if let Some(interval) = self.op.settings.interval {
            response["interval"] = json!(interval.as_secs());
        }
        Ok(Reply::json(200, &response))
    }

    /// The parameters of the form, or of the signed request in it (CIBA §7.1.1).
    fn backchannel_parameters(&mut self, form: Parameters, client: &TestClient) -> Result<Parameters, Rejection> {
        let has_to_sign = self.op.settings.fapi || client.signs_backchannel_requests;
        let Some(object) = form.get("request") else {
            return match has_to_sign {
                true => Err(Rejection::bad("invalid_request", RequestRule::NotSigned, "")),
                false => Ok(form),
            };
        };
        let request = self.verified_request(client, object, Signed::BackchannelRequest);
        let request = request.map_err(|rejection| Rejection { error: "invalid_request", ..rejection })?;
        let authentication = ["client_id", "client_secret", "client_assertion", "client_assertion_type", "request"];
        if let Some((name, _)) = form.0.iter().find(|(name, _)| !authentication.contains(&name.as_str())) {
            return Err(Rejection::bad("invalid_request", RequestRule::ParameterBesideRequest, name));
        }
        Ok(request)
    }

    /// CIBA §7.1: "it is REQUIRED that the Client provides one (and only one) of the hints".
    fn hinted_user(&self, request: &Parameters, client: &TestClient) -> Result<TestUser, Rejection> {
        let mut hints = HINTS.into_iter().filter_map(|name| Some((name, request.get(name)?)));
        let (Some((name, hint)), None) = (hints.next(), hints.next()) else {
            return Err(Rejection::bad("invalid_request", RequestRule::NotOneHint, ""));
        };
        let unknown = || Rejection::innocent("unknown_user_id", "no user fits the hint");
        match name {
            "login_hint_token" => match self.state.hint_tokens.get(hint) {
                None => Err(unknown()),
                Some(expiry) if *expiry <= self.op.clock.monotonic() => {
                    Err(Rejection::innocent("expired_login_hint_token", ""))
                }
                Some(_) => Ok(self.state.user.clone()),
            },
            "id_token_hint" => {
                let invalid = || Rejection::bad("invalid_request", RequestRule::InvalidParameter, "id_token_hint");
                let jwt = Jwt::parse(hint).ok_or_else(invalid)?;
                let is_ours = self.state.keys.iter().any(|key| jwt.verifies(&key.public_jwk()))
                    && jwt.claim("iss") == Some(&self.op.settings.issuer)
                    && jwt.claim("aud") == Some(&client.id);
                let sub = jwt.claim("sub").filter(|_| is_ours).ok_or_else(invalid)?;
                let mut known = self.state.processes.iter().map(|process| &process.user);
                known.find(|user| user.sub == sub).cloned().ok_or_else(unknown)
            }
            _ => match self.op.settings.backchannel.users.get(hint) {
                Some(user) => Ok(user.clone()),
                None if self.op.settings.backchannel.users.is_empty() => Ok(self.state.user.clone()),
                None => Err(unknown()),
            },
        }
    }

    fn check_user_code(&mut self, request: &Parameters) -> Result<(), Rejection> {
        match (&self.op.settings.backchannel.user_code, request.get("user_code")) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Rejection::bad("invalid_request", RequestRule::InvalidParameter, "user_code")),
            (Some(_), None) => Err(Rejection::innocent("missing_user_code", "")),
            (Some(code), Some(given)) if code == given => Ok(()),
            (Some(_), Some(_)) => Err(Rejection::innocent("invalid_user_code", "")),
        }
    }

    /// CIBA §7.1: a client of ping mode sends a bearer token of 128 bits or more. One of poll mode has no use for it.
    fn check_client_notification_token(&mut self, request: &Parameters, client: &TestClient) -> Result<(), Rejection> {
        if !client.is_pinged {
            if request.get(NOTIFICATION_TOKEN).is_some() {
                self.violate(RequestRule::ClientNotificationToken, "the client is in poll mode");
            }
            return Ok(());
        }
        let token = request.required(NOTIFICATION_TOKEN)?;
        match is_bearer_token(token) && NOTIFICATION_TOKEN_LENGTHS.contains(&token.len()) {
            true => Ok(()),
            false => Err(Rejection::bad("invalid_request", RequestRule::ClientNotificationToken, "its form")),
        }
    }

    /// CIBA §4.
    pub(super) fn backchannel_metadata(&self, members: &mut Map<String, Value>) {
        let settings = &self.op.settings;
        if !settings.dialects.ciba {
            return;
        }
        let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
        set("backchannel_authentication_endpoint", json!(self.op.url("/bc-authorize")));
        set("backchannel_token_delivery_modes_supported", json!(["poll", "ping"]));
        let algorithms = settings.allowed(&["ES256", "ES384", "EdDSA", "PS256", "RS256"]);
        set(Signed::BackchannelRequest.algorithms(), json!(algorithms));
        if settings.backchannel.user_code.is_some() {
            set("backchannel_user_code_parameter_supported", json!(true));
        }
    }

    /// Binds a request to the key of the proof in its first poll.
    pub(super) fn bind(&mut self, process: usize, key: Option<String>) {
        let Some(key) = key else { return };
        if !self.op.settings.allows_key_reuse && self.state.used_keys.contains(&key) {
            self.violate(RequestRule::DpopKeyReused, "");
        }
        self.state.used_keys.insert(key.clone());
        self.state.processes[process].key = Some(key);
    }
}

/// CIBA §7.1: "relatively short and use a limited set of plain text characters".
fn check_binding_message(request: &Parameters) -> Result<(), Rejection> {
    let Some(message) = request.get("binding_message") else { return Ok(()) };
    match message.chars().count() <= LONGEST_MESSAGE && !message.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(Rejection::innocent("invalid_binding_message", "it is too long or has control characters")),
    }
}

/// CIBA §7.1: "A positive integer".
fn requested_lifetime(request: &Parameters) -> Result<Option<Duration>, Rejection> {
    let Some(text) = request.get("requested_expiry") else { return Ok(None) };
    match text.parse() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Rejection::bad("invalid_request", RequestRule::InvalidParameter, "requested_expiry")),
    }
}
