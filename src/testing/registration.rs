//! Registration and its management (RFC 7591, RFC 7592; OpenID Connect Dynamic Client Registration 1.0).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, header};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};
use tokio_rustls::rustls::pki_types::CertificateDer;
use url::Url;

use super::builder::TestProviderBuilder;
use super::client::{RegisteredAuthentication, TestClient};
use super::dialect::OPENID_GRANT;
use super::editor::Editor;
use super::encryption::{self, Encryption};
use super::id_token::unix;
use super::keys::{self, Jwt};
use super::op::Handler;
use super::provider::TestProvider;
use super::record::RequestRule;
use super::state::Registered;
use super::wire::{Parameters, Rejection, Reply};

impl TestProviderBuilder {
    /// Lets clients register themselves (RFC 7591) and manage their registrations (RFC 7592). Registration access
    /// tokens are replaced whenever they are used. The provider does not fetch keys, so register them as `jwks`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use openid_deferred::registration::{Registrar, RegistrationRequest};
    /// use openid_deferred::testing::TestProvider;
    ///
    /// let op = TestProvider::builder().in_process().registration().start()?;
    /// let registrar = Registrar::builder(op.issuer()).http_client(op.http_client()).build()?;
    /// let registration = registrar.register(RegistrationRequest::new("https://rp.test/callback")).await?;
    /// assert!(op.registered(registration.client_id()).is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn registration(mut self) -> Self {
        self.settings.registration.is_offered = true;
        self
    }

    /// Requires this initial access token for registrations. Further calls add alternatives.
    pub fn initial_access_token(mut self, token: &str) -> Self {
        self.settings.registration.initial_access_tokens.push(token.to_owned());
        self.registration()
    }

    /// Accepts this software statement (RFC 7591 §2.3), a signed JWT. Other statements are not approved.
    pub fn software_statement(mut self, statement: &str) -> Self {
        self.settings.registration.software_statements.push(statement.to_owned());
        self.registration()
    }

    /// Registers other metadata than requested: the function changes the client metadata.
    ///
    /// ```
    /// use openid_deferred::testing::TestProvider;
    ///
    /// let builder = TestProvider::builder().in_process().registers(|members| {
    ///     members.insert("grant_types".into(), ["authorization_code"].into());
    /// });
    /// ```
    pub fn registers(mut self, edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        self.settings.registration.edits.push(Editor(Arc::new(edit)));
        self.registration()
    }

    /// Registers clients without a way to manage their registrations.
    pub fn without_registration_management(mut self) -> Self {
        self.settings.registration.has_no_management = true;
        self.registration()
    }

    /// Does not replace registration access tokens when they are used.
    pub fn without_registration_rotation(mut self) -> Self {
        self.settings.registration.keeps_access_tokens = true;
        self.registration()
    }

    /// Sets the lifetime of client secrets; whole seconds. A client that reads its registration after half of that time
    /// gets a new secret. By default they do not expire.
    pub fn client_secrets_expire_after(mut self, lifetime: Duration) -> Self {
        self.settings.registration.secret_lifetime = Some(lifetime);
        self.registration()
    }
}

impl TestProvider {
    /// The metadata of a client that registered itself. `None` if there is no such client.
    pub fn registered(&self, client_id: &str) -> Option<Value> {
        let state = self.op.state();
        state.registrations.get(client_id).map(|registered| Value::Object(registered.metadata.clone()))
    }

    /// Forgets a client that registered itself, as OPs do with unused clients.
    pub fn unregister(&self, client_id: &str) {
        let mut state = self.op.state();
        state.registrations.remove(client_id);
        state.clients.remove(client_id);
    }
}

const METHODS: [&str; 7] = [
    "none",
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
];

const SIGNATURES: [Algorithm; 12] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
];

impl Handler<'_> {
    /// RFC 7591 §3.
    pub(super) fn registration(&mut self) -> Result<Reply, Rejection> {
        self.request.check_method("POST")?;
        let permitted = &self.op.settings.registration.initial_access_tokens;
        if !permitted.is_empty() && !permitted.iter().any(|token| self.bearer() == Some(token)) {
            return Err(unauthorized(RequestRule::InitialAccessToken));
        }
        let metadata = self.client_metadata()?;
        let (client_id, access_token) = (self.op.token(), self.op.token());
        let issued_at = unix(self.op.now());
        let needs_secret = needs_secret(&metadata);
        let mut registered = Registered {
            metadata,
            secret: None,
            issued_at,
            secret_expires_at: 0,
            access_token,
            replaced_tokens: BTreeSet::new(),
        };
        if needs_secret {
            self.issue_secret(&mut registered);
        }
        let client = self.registered_client(&client_id, &registered)?;
        let reply = self.client_information(201, &client_id, &registered);
        self.state.clients.insert(client_id.clone(), client);
        self.state.registrations.insert(client_id, registered);
        Ok(reply)
    }

    /// RFC 7592 §2.
    pub(super) fn client_configuration(&mut self) -> Result<Reply, Rejection> {
        let path = self.request.url.path();
        let client_id = path.rsplit('/').next().unwrap_or_default().to_owned();
        let token = self.bearer().map(str::to_owned).unwrap_or_default();
        let Some(mut registered) = self.state.registrations.remove(&client_id) else {
            return Err(Rejection { violation: None, ..unauthorized(RequestRule::RegistrationAccessToken) });
        };
        if registered.access_token != token {
            let rule = match registered.replaced_tokens.contains(&token) {
                true => RequestRule::RegistrationAccessTokenReplaced,
                false => RequestRule::RegistrationAccessToken,
            };
            self.state.registrations.insert(client_id, registered);
            return Err(unauthorized(rule));
        }
        let managed = match self.request.method {
            Method::DELETE => {
                self.state.clients.remove(&client_id);
                return Ok(Reply::new(204, "", "").with(header::CACHE_CONTROL, "no-store"));
            }
            Method::GET => Ok(()),
            Method::PUT => self.replace_metadata(&client_id, &mut registered),
            _ => self.request.check_method("DELETE, GET, PUT"),
        };
        let managed = managed.and_then(|()| {
            if needs_secret(&registered.metadata) && self.is_secret_old(&registered) {
                self.issue_secret(&mut registered);
            }
            let client = self.registered_client(&client_id, &registered)?;
            self.state.clients.insert(client_id.clone(), client);
            if !self.op.settings.registration.keeps_access_tokens {
                let replaced = std::mem::replace(&mut registered.access_token, self.op.token());
                registered.replaced_tokens.insert(replaced);
            }
            Ok(self.client_information(200, &client_id, &registered))
        });
        self.state.registrations.insert(client_id, registered);
        managed
    }

    /// RFC 7592 §2.2.
    fn replace_metadata(&mut self, client_id: &str, registered: &mut Registered) -> Result<(), Rejection> {
        let sent: Map<String, Value> = serde_json::from_slice(&self.request.body).unwrap_or_default();
        let stated = |name: &str| sent.get(name).and_then(Value::as_str);
        if stated("client_id") != Some(client_id) {
            return Err(invalid("`client_id` is not the client's"));
        }
        if sent.contains_key("client_secret") && stated("client_secret") != registered.secret.as_deref() {
            return Err(invalid("`client_secret` is not the current one"));
        }
        for name in ISSUED {
            if !["client_id", "client_secret"].contains(&name) && sent.contains_key(name) {
                return Err(invalid(name));
            }
        }
        registered.metadata = self.client_metadata()?;
        match needs_secret(&registered.metadata) {
            true if registered.secret.is_none() => self.issue_secret(registered),
            true => {}
            false => registered.secret = None,
        }
        Ok(())
    }

    /// The client metadata of the request, as it is registered.
    fn client_metadata(&mut self) -> Result<Map<String, Value>, Rejection> {
        self.request.check_json()?;
        let metadata = serde_json::from_slice::<Map<String, Value>>(&self.request.body);
        let mut metadata = metadata.map_err(|_| invalid("no JSON object"))?;
        metadata.retain(|name, _| !ISSUED.contains(&name.as_str()));
        self.check_statement(&metadata)?;
        check(&metadata)?;
        for editor in &self.op.settings.registration.edits {
            (editor.0)(&mut metadata);
        }
        // "The authorization server MUST return all registered metadata about this client", including the metadata that
        // it chose.
        for (name, value) in [
            ("grant_types", json!(["authorization_code"])),
            ("response_types", json!(["code"])),
            ("token_endpoint_auth_method", json!("client_secret_basic")),
            ("application_type", json!("web")),
            ("id_token_signed_response_alg", json!("RS256")),
        ] {
            metadata.entry(name).or_insert(value);
        }
        metadata.retain(|_, value| !value.is_null());
        Ok(metadata)
    }

    fn check_statement(&self, metadata: &Map<String, Value>) -> Result<(), Rejection> {
        let Some(statement) = metadata.get("software_statement") else { return Ok(()) };
        let statement = statement.as_str().filter(|statement| Jwt::parse(statement).is_some());
        let Some(statement) = statement else {
            return Err(Rejection::innocent("invalid_software_statement", "it is no JWT"));
        };
        match self.op.settings.registration.software_statements.iter().any(|approved| approved == statement) {
            true => Ok(()),
            false => Err(Rejection::innocent("unapproved_software_statement", "it is nobody's that counts here")),
        }
    }

    /// Makes the client of a registration.
    fn registered_client(&self, id: &str, registered: &Registered) -> Result<TestClient, Rejection> {
        let metadata = &registered.metadata;
        let text = |name: &str| metadata.get(name).and_then(Value::as_str);
        let flag = |name: &str| metadata.get(name) == Some(&Value::Bool(true));
        let encryption = |alg: &str, enc: &str| -> Result<Option<Encryption>, Rejection> {
            let (Some(alg), enc) = (text(alg), text(enc).unwrap_or("A128CBC-HS256")) else { return Ok(None) };
            match encryption::ALGORITHMS.contains(&alg) && encryption::CONTENT_ENCRYPTIONS.contains(&enc) {
                true => Ok(Some(Encryption::new(alg, enc))),
                false => Err(unsupported("the encryption is not supported")),
            }
        };
        let mut client = TestClient::public(id);
        client.authentication = registered_authentication(registered)?;
        let uris = metadata.get("redirect_uris").and_then(Value::as_array).into_iter().flatten();
        client.redirect_uris = uris.filter_map(Value::as_str).map(str::to_owned).collect();
        let notification =
            text("deferred_client_notification_endpoint").or(text("backchannel_client_notification_endpoint"));
        client.notification_endpoint = notification.and_then(|url| url.parse().ok());
        let uris = metadata.get("post_logout_redirect_uris").and_then(Value::as_array).into_iter().flatten();
        client.post_logout_redirect_uris = uris.filter_map(Value::as_str).map(str::to_owned).collect();
        client.backchannel_logout_uri = text("backchannel_logout_uri").and_then(|url| url.parse().ok());
        client.is_pinged = text("backchannel_token_delivery_mode") == Some("ping");
        client.signs_backchannel_requests = text("backchannel_authentication_request_signing_alg").is_some();
        client.id_token_algorithm = match text("id_token_signed_response_alg") {
            None => Algorithm::RS256,
            Some(name) => signature(name).ok_or_else(|| unsupported("the signature is not supported"))?,
        };
        if keys::name(client.id_token_algorithm).starts_with("HS") && client.hmac_secret().is_none() {
            return Err(unsupported("an HMAC needs a client that authenticates with its secret"));
        }
        if let Some(name) = text("userinfo_signed_response_alg") {
            client.signed_userinfo = true;
            if signature(name) != Some(client.id_token_algorithm) {
                return Err(unsupported("UserInfo is signed with the algorithm of ID Tokens"));
            }
        }
        client.id_token_encryption = encryption("id_token_encrypted_response_alg", "id_token_encrypted_response_enc")?;
        client.userinfo_encryption = encryption("userinfo_encrypted_response_alg", "userinfo_encrypted_response_enc")?;
        client.authorization_response_encryption =
            encryption("authorization_encrypted_response_alg", "authorization_encrypted_response_enc")?;
        client.request_object_encryption =
            encryption("request_object_encryption_alg", "request_object_encryption_enc")?;
        if let Some(name) = text("authorization_signed_response_alg") {
            let algorithm = signature(name).filter(|_| !name.starts_with("HS"));
            client.authorization_response_algorithm =
                Some(algorithm.ok_or_else(|| unsupported("the signature of responses is not supported"))?);
        }
        client.jwks = metadata.get("jwks").cloned().unwrap_or_default();
        client.requires_dpop = flag("dpop_bound_access_tokens");
        client.certificate_bound = flag("tls_client_certificate_bound_access_tokens");
        client.requires_pushed = flag("require_pushed_authorization_requests");
        client.requires_signed = flag("require_signed_request_object");
        Ok(client)
    }

    /// RFC 7591 §3.2.1, RFC 7592 §3.
    fn client_information(&self, status: u16, client_id: &str, registered: &Registered) -> Reply {
        let mut response = registered.metadata.clone();
        response.insert("client_id".to_owned(), json!(client_id));
        response.insert("client_id_issued_at".to_owned(), json!(registered.issued_at));
        if let Some(secret) = &registered.secret {
            response.insert("client_secret".to_owned(), json!(secret));
            response.insert("client_secret_expires_at".to_owned(), json!(registered.secret_expires_at));
        }
        if !self.op.settings.registration.has_no_management {
            let url = self.op.url(&format!("/register/{client_id}"));
            response.insert("registration_client_uri".to_owned(), json!(url));
            response.insert("registration_access_token".to_owned(), json!(registered.access_token));
        }
        Reply::json(status, &Value::Object(response))
    }

    fn issue_secret(&self, registered: &mut Registered) {
        // Long enough for every HMAC.
        registered.secret = Some(format!("{}{}", self.op.token(), self.op.token()));
        let lifetime = self.op.settings.registration.secret_lifetime;
        registered.secret_expires_at = lifetime.map_or(0, |lifetime| unix(self.op.now() + lifetime));
    }

    fn is_secret_old(&self, registered: &Registered) -> bool {
        let lifetime = self.op.settings.registration.secret_lifetime.unwrap_or_default();
        registered.secret_expires_at != 0 && unix(self.op.now() + lifetime / 2) >= registered.secret_expires_at
    }

    /// A client that registered itself may only do what it registered for (RFC 7591 §2). Other clients may do
    /// everything.
    pub(super) fn check_registered(&self, client_id: &str, request: &Parameters) -> Result<(), Rejection> {
        let Some(registered) = self.state.registrations.get(client_id) else { return Ok(()) };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
        let lists = |member: &str, asked: Option<&str>| {
            let listed = registered.metadata.get(member).and_then(Value::as_array).into_iter().flatten();
            let mut listed = listed.filter_map(Value::as_str);
            asked.is_none_or(|asked| listed.any(|listed| words(listed) == words(asked)))
        };
        match lists("response_types", request.get("response_type")) && lists("grant_types", request.get("grant_type")) {
            true => Ok(()),
            false => Err(Rejection::bad("unauthorized_client", RequestRule::NotRegisteredForThis, client_id)),
        }
    }

    /// Whether the client's secret has expired.
    pub(super) fn has_expired_secret(&self, client_id: &str) -> bool {
        let expiry = self.state.registrations.get(client_id).map_or(0, |registered| registered.secret_expires_at);
        expiry != 0 && unix(self.op.now()) >= expiry
    }

    fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.request.header(header::AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then_some(token)
    }
}

/// The members that a client cannot choose.
const ISSUED: [&str; 6] = [
    "client_id",
    "client_secret",
    "client_id_issued_at",
    "client_secret_expires_at",
    "registration_access_token",
    "registration_client_uri",
];

/// How a registered client authenticates.
fn registered_authentication(registered: &Registered) -> Result<RegisteredAuthentication, Rejection> {
    let text = |name: &str| registered.metadata.get(name).and_then(Value::as_str);
    let secret = || registered.secret.clone().unwrap_or_default();
    let jwks = registered.metadata.get("jwks").cloned().unwrap_or_default();
    Ok(match text("token_endpoint_auth_method").unwrap_or("client_secret_basic") {
        "none" => RegisteredAuthentication::None,
        "client_secret_post" => RegisteredAuthentication::SecretPost(secret()),
        "client_secret_jwt" => RegisteredAuthentication::SecretJwt(secret()),
        "private_key_jwt" => {
            let keys = jwks["keys"].as_array().into_iter().flatten();
            let key = keys.into_iter().find(|key| key["use"] != "enc");
            RegisteredAuthentication::PrivateKeyJwt(
                key.cloned().ok_or_else(|| invalid("`jwks` has no key for signatures"))?,
            )
        }
        "tls_client_auth" => {
            let name =
                text("tls_client_auth_san_dns").ok_or_else(|| unsupported("certificates are known by DNS name"))?;
            RegisteredAuthentication::TlsClientAuth(name.to_owned())
        }
        "self_signed_tls_client_auth" => {
            let keys = jwks["keys"].as_array().into_iter().flatten();
            let der = keys.filter_map(|key| STANDARD.decode(key["x5c"][0].as_str()?).ok());
            RegisteredAuthentication::SelfSignedTlsClientAuth(der.map(CertificateDer::from).collect())
        }
        _ => RegisteredAuthentication::SecretBasic(secret()),
    })
}

fn check(metadata: &Map<String, Value>) -> Result<(), Rejection> {
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    let texts = |name: &str, default: &str| match metadata.get(name) {
        None => vec![default.to_owned()],
        Some(values) => {
            values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        }
    };
    let redirect_uris = texts("redirect_uris", "");
    // CIBA §4: a client without response types has no use for them.
    let has_browser = !texts("response_types", "code").is_empty();
    let is_uri = |uri: &String| Url::parse(uri).is_ok_and(|url| url.fragment().is_none());
    if has_browser && (redirect_uris.is_empty() || !redirect_uris.iter().all(is_uri)) {
        let rule = RequestRule::ClientMetadata;
        return Err(Rejection::bad("invalid_redirect_uri", rule, "`redirect_uris` is missing or has what is no URI"));
    }
    if text("jwks_uri").is_some() && metadata.contains_key("jwks") {
        return Err(invalid("`jwks` and `jwks_uri` together"));
    }
    if text("jwks_uri").is_some() {
        return Err(unsupported("the test provider fetches no keys; register them as `jwks`"));
    }
    let keys = metadata.get("jwks").and_then(|jwks| jwks["keys"].as_array());
    if keys.into_iter().flatten().any(keys::is_private) {
        return Err(invalid("`jwks` has a private key"));
    }
    // DTR §Client Registration Metadata: "It MUST be an HTTPS URL." CIBA §4 requires the same.
    let notification = metadata
        .get("deferred_client_notification_endpoint")
        .or(metadata.get("backchannel_client_notification_endpoint"));
    let is_https =
        |url: &Value| url.as_str().and_then(|url| Url::parse(url).ok()).is_some_and(|url| url.scheme() == "https");
    if notification.is_some_and(|url| !is_https(url)) {
        return Err(invalid("the notification endpoint is no HTTPS URL"));
    }
    check_logout(metadata)?;
    match text("backchannel_token_delivery_mode") {
        None | Some("poll") => {}
        Some("ping") if notification.is_some() => {}
        Some("ping") => return Err(invalid("ping mode without `backchannel_client_notification_endpoint`")),
        Some(_) => return Err(unsupported("the modes of CIBA are `poll` and `ping`")),
    }
    if text("token_endpoint_auth_method").is_some_and(|method| !METHODS.contains(&method)) {
        return Err(invalid("`token_endpoint_auth_method`"));
    }
    let grants = texts("grant_types", "authorization_code");
    for response_type in texts("response_types", "code") {
        for value in response_type.split(' ') {
            let needed = match value {
                "deferred_code" => OPENID_GRANT,
                "code" => "authorization_code",
                _ => return Err(invalid("`response_types`")),
            };
            if !grants.iter().any(|grant| grant == needed) {
                return Err(invalid("a response type without its grant type"));
            }
        }
    }
    Ok(())
}

/// OpenID Connect RP-Initiated Logout 1.0 §3.1; OpenID Connect Back-Channel Logout 1.0 §2.2.
fn check_logout(metadata: &Map<String, Value>) -> Result<(), Rejection> {
    let is_uri =
        |uri: &Value| uri.as_str().and_then(|uri| Url::parse(uri).ok()).is_some_and(|url| url.fragment().is_none());
    let returns = metadata.get("post_logout_redirect_uris");
    if returns.is_some_and(|uris| !uris.as_array().is_some_and(|uris| uris.iter().all(is_uri))) {
        return Err(invalid("`post_logout_redirect_uris` has what is no URI"));
    }
    match (metadata.get("backchannel_logout_uri"), metadata.get("backchannel_logout_session_required")) {
        (Some(uri), _) if !is_uri(uri) => Err(invalid("`backchannel_logout_uri` is no URI")),
        (None, Some(required)) if required == true => Err(invalid("a `sid` is required, and there is no URI for it")),
        _ => Ok(()),
    }
}

fn needs_secret(metadata: &Map<String, Value>) -> bool {
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    text("token_endpoint_auth_method").starts_with("client_secret_")
        || text("id_token_signed_response_alg").starts_with("HS")
}

fn signature(name: &str) -> Option<Algorithm> {
    SIGNATURES.into_iter().find(|algorithm| keys::name(*algorithm) == name)
}

fn invalid(detail: &str) -> Rejection {
    Rejection::bad("invalid_client_metadata", RequestRule::ClientMetadata, detail)
}

/// A valid value that this provider does not support.
fn unsupported(detail: &str) -> Rejection {
    Rejection::innocent("invalid_client_metadata", detail)
}

fn unauthorized(rule: RequestRule) -> Rejection {
    Rejection::new(401, "invalid_token", rule, "").header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")
}
