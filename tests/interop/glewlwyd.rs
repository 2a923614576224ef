//! glewlwyd 2.7.5 as packaged by Debian (C, with rhonabwy for JOSE). It is started for each test and set up by its
//! admin API. Its pages are a web application in JavaScript, so the user signs in and consents through its API.
//!
//! Where it differs from other OPs:
//! - It compares the credentials of `client_secret_basic` without decoding them (RFC 6749 §2.3.1), so a secret with a
//!   character that is encoded works only with `client_secret_post`.
//! - It accepts a client assertion only if `aud` is the URL of the called endpoint: `AssertionAudience::Endpoint`.
//! - It finds a client's key only by its `kid`, or uses a single key in PEM.
//! - It signs everything for a client with one of its keys, regardless of the algorithms that the client has registered
//!   for each response. It uses the left half of SHA-256 as `at_hash` of an ID Token signed with EdDSA.
//! - It signs and encrypts UserInfo only if `Accept` is exactly `application/jwt`. It encrypts everything with one pair
//!   of algorithms, except authorization responses.
//! - In the mode `form_post` it encodes each value twice. So `iss` is another issuer, and the response is refused;
//!   `form_post.jwt` works.
//! - Its `auth_time` is 0, so no ID Token is accepted after `max_age`.
//! - If DPoP nonces are required, its endpoint for pushed requests refuses a proof without one, but does not supply
//!   one.
//! - In proofs for the token endpoint's alias for mutual TLS it requires the URL of the token endpoint itself, so the
//!   aliases are off here.
//! - It binds tokens to every certificate that is presented, and does not say so in its metadata.
//! - Most refusals are a 401 or 403 without a body. A public client cannot revoke tokens.
//! - It gives no secret to a client that registers itself without `token_endpoint_auth_method`, and ignores the
//!   algorithms that a client registers. When a registration is read, `token_endpoint_auth_method` is a list, and it
//!   refuses an update with that list.
//! - It loses rows of a SQLite database when two clients call at once, so each test has its own database.

mod differences;
mod phones;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwk::Jwk;
use josekit::jwk::alg::ec::EcCurve;
use josekit::jwk::alg::ed::EdCurve;
use openid_deferred::compatibility::AssertionAudience;
use openid_deferred::{ClientBuilder, ResponseMode};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey};
use openssl::rsa::Rsa;
use reqwest::Method;
use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use url::Url;

use crate::browser::{Decision, Step, http};
use crate::certificates::Identity;
use crate::installation::installed;
use crate::op::{ALL_ENCRYPTIONS, Abilities, NO_ABILITIES, Op, Registered, SCOPES, Site};
use crate::page::Page;
use crate::process::{Process, file, free_port};
use crate::support::World;

pub(crate) struct Glewlwyd {
    /// Whether DPoP proofs need its nonces.
    nonces: bool,
    running: OnceCell<Option<Running>>,
}

#[expect(clippy::declare_interior_mutable_const, reason = "each test has one of its own")]
pub(crate) const OP: Glewlwyd = Glewlwyd { nonces: false, running: OnceCell::const_new() };

const ADMIN: (&str, &str) = ("admin", "password");
const USER: (&str, &str) = ("user-1", "the password of user-1");
/// It compares the credentials of `client_secret_basic` without decoding them, so this has no character that is
/// encoded.
const CLIENT_SECRET: &str = "the-secret-of-a-client-which-is-long-enough-for-an-HMAC";
/// It stores no more keys than these, and signs with the first one unless a client names another.
const SIGNING: &[&str] = &["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS512", "PS256", "PS512"];
const VERIFYING: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];
const CIBA: &str = "urn:openid:params:grant-type:ciba";
const ENCRYPTION: &[&str] = &["RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"];

/// The OP with the session cookies of its admin and of the user.
struct Running {
    site: Site,
    base: String,
    admin: String,
    user: String,
    _process: Process,
}

async fn start(nonces: bool) -> Option<Running> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let installation = installed("glewlwyd")?;
    let authority = Identity::authority();
    let port = free_port();
    let base = format!("https://localhost:{port}");
    let files = format!("glewlwyd-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let settings = file(&files, "glewlwyd.conf", &settings(&files, port, &base, &authority, &installation));
    let mut process = Process::guarded("glewlwyd", Path::new("glewlwyd"), |command| {
        command.arg(format!("--config-file={}", settings.display()));
    });
    process.wait_for(&format!("{base}/config"), &authority.certificate_pem()).await;
    let site = Site { issuer: format!("{base}/api/oidc"), authority, answer, scopes: SCOPES, cookie: None };
    let mut running = Running { site, base, admin: String::new(), user: String::new(), _process: process };
    running.admin = running.log_in(ADMIN).await;
    running.set_up(nonces).await;
    running.user = running.log_in(USER).await;
    running.site.cookie = Some(running.user.clone());
    Some(running)
}

/// The database as it is delivered.
fn database(files: &str, installation: &Path) -> PathBuf {
    let tables = fs::read_to_string(installation.join("init.sql")).expect("it is installed");
    let tables = file(files, "tables.sql", &format!("PRAGMA synchronous=OFF; BEGIN; {tables} COMMIT;"));
    let database = tables.with_file_name("glewlwyd.db");
    let input = File::open(tables).expect("it has just been written");
    let _ = fs::remove_file(&database);
    let ended = Command::new("sqlite3").arg(&database).stdin(Stdio::from(input)).status().expect("sqlite3 starts");
    assert!(ended.success(), "sqlite3: {ended}");
    database
}

fn settings(files: &str, port: u16, base: &str, authority: &Identity, installation: &Path) -> String {
    let host = Identity::host("localhost", Some(authority));
    let key = file(files, "key.pem", &host.key_pem());
    let certificate = file(files, "certificate.pem", &host.certificate_pem());
    let authority = file(files, "authority.pem", &authority.certificate_pem());
    format!(
        r#"
port={port}
bind_address="127.0.0.1"
external_url="{base}/"
login_url="login.html"
api_prefix="api"
log_mode="console"
log_level="DEBUG"
cookie_domain="localhost"
cookie_secure=1
session_expiration=86400
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
use_secure_connection=true
secure_connection_key_file="{}"
secure_connection_pem_file="{}"
secure_connection_ca_file="{}"
hash_algorithm="SHA512"
database={{ type="sqlite3" path="{}" }};
"#,
        key.display(),
        certificate.display(),
        authority.display(),
        database(files, installation).display(),
    )
}

/// New private keys, one for each algorithm and named after it.
fn keys() -> Value {
    let sign = SIGNING.iter().map(|name| ("sig", name));
    let keys = sign.chain(ENCRYPTION.iter().map(|name| ("enc", name))).map(|(key_use, name)| {
        let key = match *name {
            "ES384" => Jwk::generate_ec_key(EcCurve::P384),
            "ES512" => Jwk::generate_ec_key(EcCurve::P521),
            "EdDSA" => Jwk::generate_ed_key(EdCurve::Ed25519),
            name if name.starts_with('E') => Jwk::generate_ec_key(EcCurve::P256),
            _ => Jwk::generate_rsa_key(2048),
        };
        let mut key = key.expect("a key");
        key.set_algorithm(*name);
        key.set_key_id(*name);
        key.set_key_use(key_use);
        Value::Object(key.as_ref().clone())
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}

const SWITCHED_ON: [&str; 23] = [
    "jwks-show",
    "refresh-token-rolling",
    "auth-type-code-enabled",
    "auth-type-client-enabled",
    "auth-type-refresh-enabled",
    "pkce-allowed",
    "introspection-revocation-allowed",
    "introspection-revocation-allow-target-client",
    "register-client-allowed",
    "register-client-management-allowed",
    "request-parameter-allow",
    "request-parameter-ietf-strict",
    "request-parameter-allow-encrypted",
    "encrypt-out-token-allow",
    "client-cert-self-signed-allowed",
    "oauth-dpop-allowed",
    "oauth-par-allowed",
    "oauth-as-iss-id",
    "oauth-fapi-allow-jarm",
    "oauth-ciba-allowed",
    "oauth-ciba-mode-poll-allowed",
    "oauth-ciba-mode-ping-allowed",
    // It knows only the authorities of the system.
    "oauth-ciba-allow-https-non-secure",
];

fn plugin(issuer: &str, nonces: bool) -> Value {
    // It takes long to make them.
    static KEYS: LazyLock<Value> = LazyLock::new(keys);
    let mut parameters = json!({
        "iss": issuer,
        "jwks-private": KEYS.to_string(),
        "default-kid": "ES256",
        "client-sign_kid-parameter": "sign_kid",
        "access-token-duration": 3600,
        "refresh-token-duration": 86_400,
        "refresh-token-one-use": "always",
        "code-duration": 600,
        "allowed-scope": ["openid", "profile", "email"],
        "subject-type": "public",
        "name-claim": "on-demand",
        "name-claim-scope": ["profile"],
        "email-claim": "on-demand",
        "email-claim-scope": ["email"],
        "scope-claim": "no",
        "introspection-revocation-auth-scope": [],
        "register-client-auth-scope": [],
        "register-client-credentials-scope": ["openid"],
        "register-default-properties": {},
        "request-maximum-exp": 3600,
        "client-jwks-parameter": "jwks",
        "client-pubkey-parameter": "pubkey",
        "client-enc-parameter": "enc",
        "client-alg-parameter": "alg",
        "client-alg_kid-parameter": "alg_kid",
        "client-encrypt_id_token-parameter": "encrypt_id_token",
        "client-encrypt_userinfo-parameter": "encrypt_userinfo",
        "client-cert-source": "TLS",
        "oauth-dpop-iat-duration": 600,
        // It reads a clock that is a few milliseconds behind.
        "oauth-dpop-iat-gap-duration": 5,
        "oauth-dpop-nonce-mandatory": nonces,
        "oauth-dpop-nonce-counter": 5,
        "oauth-ciba-default-expiry": 600,
        "oauth-ciba-maximum-expiry": 3600,
        "oauth-par-duration": 90,
        "oauth-par-request_uri-prefix": "urn:ietf:params:oauth:request_uri:",
    });
    for name in SWITCHED_ON {
        parameters[name] = json!(true);
    }
    parameters
}

impl Running {
    /// Sets up the OP's scopes, its user, and the OpenID Provider itself, which is a plugin.
    async fn set_up(&self, nonces: bool) {
        for scope in ["profile", "email"] {
            let scope = json!({ "name": scope, "display_name": scope, "password_required": true, "scheme": {} });
            self.call(Method::POST, "scope/", scope).await;
        }
        // Clients have only the properties that are listed.
        let mut module = self.call(Method::GET, "mod/client/database", Value::Null).await;
        for name in [
            "sign_kid",
            "authorization_encrypted_response_alg",
            "authorization_encrypted_response_enc",
            "backchannel_token_delivery_mode",
            "backchannel_client_notification_endpoint",
            "backchannel_user_code_parameter",
        ] {
            module["parameters"]["data-format"][name] = json!({ "multiple": false, "read": true, "write": true });
        }
        self.call(Method::PUT, "mod/client/database", module).await;
        self.call(Method::PUT, "mod/client/database/reset", Value::Null).await;
        let plugin = json!({
            "module": "oidc",
            "name": "oidc",
            "display_name": "OpenID Connect",
            "parameters": plugin(&self.site.issuer, nonces),
        });
        self.call(Method::POST, "mod/plugin/", plugin).await;
        let user = json!({
            "username": USER.0,
            "password": USER.1,
            "name": "Jane Doe",
            "email": "jane@example.com",
            "scope": ["g_profile", "openid", "profile", "email"],
        });
        self.call(Method::POST, "user/", user).await;
    }

    /// Opens a session, and returns its cookie.
    async fn log_in(&self, (user, password): (&str, &str)) -> String {
        let request = http(&self.site.authority.certificate_pem()).post(format!("{}/api/auth/", self.base));
        let body = json!({ "username": user, "password": password }).to_string();
        let response = request.header("Content-Type", "application/json").body(body).send().await.expect("it answers");
        let cookie = response.headers().get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.unwrap_or_else(|| panic!("{user} cannot log in: {}", response.status()));
        cookie.split(';').next().unwrap_or_default().to_owned()
    }

    /// Sends a request to the admin API, with a body unless that is null.
    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        self.call_as(&self.admin, method, path, body).await
    }

    async fn call_as(&self, session: &str, method: Method, path: &str, body: Value) -> Value {
        let http = http(&self.site.authority.certificate_pem());
        let mut request = http.request(method, format!("{}/api/{path}", self.base)).header(COOKIE, session);
        if !body.is_null() {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await.expect("it answers");
        let status = response.status();
        let text = response.text().await.expect("whole");
        assert!(status.is_success(), "{path}: {status}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
    }

    async fn consent(&self, client_id: &str) {
        let scopes = json!({ "scope": "openid profile email" });
        self.call_as(&self.user, Method::PUT, &format!("auth/grant/{client_id}"), scopes).await;
    }
}

/// Converts a registration into the terms of the admin API.
fn client(client_id: &str, members: &Value) -> Value {
    let method = &members["token_endpoint_auth_method"];
    let first = |names: &[&str]| names.iter().map(|name| members[*name].clone()).find(|member| !member.is_null());
    let mut client = json!({
        "client_id": client_id,
        "name": client_id,
        "confidential": method != "none",
        "client_secret": CLIENT_SECRET,
        "redirect_uri": members["redirect_uris"],
        "authorization_type": ["code", "refresh_token", "client_credentials", CIBA],
        "scope": ["openid"],
        "token_endpoint_auth_method": [method],
        // One key signs everything for a client.
        "sign_kid": first(&[
            "userinfo_signed_response_alg",
            "authorization_signed_response_alg",
            "id_token_signed_response_alg",
        ]),
    });
    let mut set = |name: &str, value: Option<Value>| {
        client.as_object_mut().expect("it is an object").remove(name);
        if let Some(value) = value {
            client[name] = value;
        }
    };
    for name in [
        "jwks",
        "request_object_signing_alg",
        "request_object_encryption_alg",
        "request_object_encryption_enc",
        "authorization_encrypted_response_alg",
        "authorization_encrypted_response_enc",
        "backchannel_token_delivery_mode",
        "backchannel_client_notification_endpoint",
    ] {
        set(name, first(&[name]));
    }
    // If there are several keys, it finds one only by its `kid`.
    if let Some(key) = members.pointer("/jwks/keys/0").filter(|key| key["use"] == "sig") {
        set("pubkey", Some(json!(pem(key))));
        set("jwks", None);
    }
    set("token_endpoint_signing_alg", first(&["token_endpoint_auth_signing_alg"]));
    set("tls_client_auth_san_dns", first(&["tls_client_auth_subject_dn"]).map(|_| json!("client.test")));
    if method == "client_secret_jwt" {
        set("token_endpoint_signing_alg", Some(json!("HS256")));
    }
    if let Some(alg) = first(&["id_token_encrypted_response_alg"]) {
        set("alg", Some(alg));
        set("enc", first(&["id_token_encrypted_response_enc"]));
        set("encrypt_id_token", Some(json!("1")));
        set("encrypt_userinfo", Some(json!("1")));
    }
    client
}

/// A public key in PEM, the format of OPs without JWK.
fn pem(jwk: &Value) -> String {
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("it is there")).expect("base64url");
    let number = |name: &str| BigNum::from_slice(&bytes(name)).expect("a number");
    let curve = match jwk["crv"].as_str() {
        Some("P-256") => Nid::X9_62_PRIME256V1,
        Some("P-384") => Nid::SECP384R1,
        _ => Nid::SECP521R1,
    };
    let key = match jwk["kty"].as_str() {
        Some("RSA") => PKey::from_rsa(Rsa::from_public_components(number("n"), number("e")).expect("a key")),
        Some("EC") => {
            let group = EcGroup::from_curve_name(curve).expect("a curve");
            let point = EcKey::from_public_key_affine_coordinates(&group, &number("x"), &number("y"));
            PKey::from_ec_key(point.expect("a key"))
        }
        _ => PKey::public_key_from_raw_bytes(&bytes("x"), Id::ED25519),
    };
    String::from_utf8(key.expect("a key").public_key_to_pem().expect("PEM")).expect("PEM is text")
}

/// Continues from the login page as its application does for a user who is signed in. The user cannot decline on that
/// page, but a scope that the user does not have also causes an error.
fn answer(page: &Page, decision: Decision) -> Option<Step> {
    let (_, next) = page.url().query_pairs().find(|(name, _)| name == "callback_url")?;
    let mut next = Url::parse(&next).ok()?;
    if decision == Decision::Declines {
        let pairs: Vec<_> = next.query_pairs().into_owned().filter(|(name, _)| name != "scope").collect();
        next.query_pairs_mut().clear().extend_pairs(pairs).append_pair("scope", "g_admin");
    }
    next.query_pairs_mut().append_pair("g_continue", "");
    Some(Step::Open(next))
}

impl Glewlwyd {
    async fn running(&self) -> Option<&Running> {
        self.running.get_or_init(|| start(self.nonces)).await.as_ref()
    }
}

impl Op for Glewlwyd {
    const ABILITIES: Abilities = Abilities {
        id_tokens: SIGNING,
        userinfo: SIGNING,
        responses: SIGNING,
        assertions: VERIFYING,
        requests: VERIFYING,
        encryption: ALL_ENCRYPTIONS,
        response_encryption: ALL_ENCRYPTIONS,
        request_encryption: ALL_ENCRYPTIONS,
        jwt_modes: &[ResponseMode::QueryJwt, ResponseMode::FormPostJwt, ResponseMode::Jwt],
        ..NO_ABILITIES
    };
    const DECLINED: &'static str = "invalid_scope";

    fn configure(client: ClientBuilder) -> ClientBuilder {
        client.assertion_audience(AssertionAudience::Endpoint)
    }

    async fn register(&self, members: Value) -> Option<Registered> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let running = self.running().await?;
        let client_id = format!("app-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        running.call(Method::POST, "client/", client(&client_id, &members)).await;
        running.consent(&client_id).await;
        let client_secret = CLIENT_SECRET.to_owned();
        Some(Registered { site: running.site.clone(), client_id, client_secret, process: None })
    }

    async fn site(&self) -> Option<Site> {
        Some(self.running().await?.site.clone())
    }

    /// The new key has the name of the old one.
    async fn rotate_keys(&self, _: &mut World) {
        let running = self.running().await.expect("a client has been registered");
        let mut plugin = running.call(Method::GET, "mod/plugin/oidc", Value::Null).await;
        plugin["parameters"]["jwks-private"] = json!(keys().to_string());
        running.call(Method::PUT, "mod/plugin/oidc", plugin).await;
        running.call(Method::PUT, "mod/plugin/oidc/reset", Value::Null).await;
    }

    /// Any party may register a client.
    async fn initial_access_token(&self) -> Option<String> {
        None
    }

    async fn consent(&self, client_id: &str) {
        self.running().await.expect("a client has been registered").consent(client_id).await;
    }
}
