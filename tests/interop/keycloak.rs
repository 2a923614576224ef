//! Keycloak 26.7.3 (Java, with a JOSE implementation of its own). It is started once, its realm is set up by its admin
//! API, and its clients by its registration endpoint.
//!
//! Where it differs from other OPs:
//! - It signs with HS256, HS384 and HS512 by a key of the realm instead of the client's secret (OpenID Connect Core 1.0
//!   §10.1), so no client can verify such an ID Token.
//! - It repeats `iss` in responses that are JWTs.
//! - It has no `self_signed_tls_client_auth`, and identifies a client's certificate by its subject alone.
//! - It refuses a registration with an unknown member, such as `client_name#ja` or `require_signed_request_object`, as
//!   a whole (RFC 7591 §2 requires that such members be ignored). It also refuses one whose keys have no `use`.
//! - At introspection it calls a token inactive unless the client that asks is in the token's audience. A mapper has to
//!   add the client, even the one to which the token was issued.
//! - It answers a JWT bearer grant with `invalid_scope` until the user has consented, if the client requires consent.
//! - It ends the user's session when a token is revoked, and then answers a second revocation with an error.
#![expect(clippy::disallowed_methods, reason = "it starts and issues tokens in real time")]

pub(crate) mod phones;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use openid_deferred::{Authentication, ResponseMode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use crate::browser::{Browser, Decision, Step, http};
use crate::certificates::Identity;
use crate::installation::installed;
use crate::op::{ALL_ENCRYPTIONS, Abilities, Op, Registered, SCOPES, Site};
use crate::page::Page;
use crate::process::{Process, file, free_port};
use crate::support::World;

pub(crate) struct Keycloak;

pub(crate) const OP: Keycloak = Keycloak;

const ADMIN: &str = "admin";
const REALM: &str = "interop";
/// A realm whose CIBA requests expire after a few seconds.
const BRIEF_REALM: &str = "brief";
pub(crate) const USER: &str = "user-1";
const PASSWORD: &str = "the password of user-1";
/// Users who are asked by CIBA.
const OTHER_USERS: usize = 200;
const SIGNING: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

struct Running {
    site: Site,
    /// The URL of all its realms.
    base: String,
    initial_access_token: String,
    /// The realm whose requests expire soon, with its initial access token.
    brief: OnceCell<(Site, String)>,
    /// With the time at which it was issued.
    admin_token: Mutex<Option<(String, Instant)>>,
    /// Its keys are rotated by one test at a time.
    rotations: Mutex<u32>,
    _process: Process,
}

async fn running() -> Option<&'static Running> {
    static RUNNING: OnceCell<Result<Option<Running>, String>> = OnceCell::const_new();
    let started = RUNNING.get_or_init(async || tokio::spawn(start()).await.map_err(|error| error.to_string())).await;
    started.as_ref().unwrap_or_else(|error| panic!("Keycloak has not started: {error}")).as_ref()
}

async fn start() -> Option<Running> {
    let home = installed("keycloak")?;
    let authority = Identity::authority();
    let host = Identity::host("localhost", Some(&authority));
    let files = [
        ("https-certificate-file", file("keycloak", "certificate.pem", &host.certificate_pem())),
        ("https-certificate-key-file", file("keycloak", "key.pem", &host.key_pem())),
        ("truststore-paths", file("keycloak", "authority.pem", &authority.certificate_pem())),
    ];
    let port = free_port();
    let base = format!("https://localhost:{port}");
    let mut process = Process::guarded("keycloak", &home.join("bin/kc.sh"), |command| {
        environment(command, &home);
        command.args(["start", "--optimized", "--http-enabled=false", "--http-host=127.0.0.1"]);
        command.arg(format!("--https-port={port}")).arg(format!("--hostname={base}"));
        const CHANNEL: &str = "spi-ciba-auth-channel--ciba-http-auth-channel--http-authentication-channel-uri";
        command.arg(format!("--{CHANNEL}={}", phones::channel()));
        command.args(files.iter().map(|(option, path)| format!("--{option}={}", path.display())));
    });
    process.wait_for(&format!("{base}/realms/master"), &authority.certificate_pem()).await;
    let site = Site { issuer: format!("{base}/realms/{REALM}"), authority, answer, scopes: SCOPES, cookie: None };
    let mut running = Running {
        site,
        base,
        initial_access_token: String::new(),
        brief: OnceCell::const_new(),
        admin_token: Mutex::new(None),
        rotations: Mutex::new(0),
        _process: process,
    };
    running.admin(Method::POST, "", Some(realm())).await;
    running.initial_access_token = running.new_initial_access_token(REALM).await;
    Some(running)
}

/// Limits the memory, and turns off a compiler that pays off only after minutes.
fn environment(command: &mut Command, home: &Path) {
    command
        .current_dir(home)
        .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN)
        .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN)
        .env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m")
        .env("JAVA_OPTS_APPEND", "-XX:TieredStopAtLevel=1");
}

/// The realm with its user, keys for every algorithm, and a rule that the user is always asked for consent.
fn realm() -> Value {
    let mut keys: Vec<_> = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
        .map(|name| key(name, "rsa-generated", json!({ "algorithm": [name] })))
        .into();
    for (name, curve) in [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")] {
        keys.push(key(name, "ecdsa-generated", json!({ "ecdsaEllipticCurveKey": [curve] })));
    }
    keys.push(key("EdDSA", "eddsa-generated", json!({ "eddsaEllipticCurveKey": ["Ed25519"] })));
    keys.push(key("HS512", "hmac-generated", json!({ "algorithm": ["HS512"] })));
    keys.push(key("AES", "aes-generated", json!({})));
    for name in ["RSA-OAEP", "RSA-OAEP-256"] {
        keys.push(key(name, "rsa-enc-generated", json!({ "algorithm": [name] })));
    }
    for name in ["ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"] {
        let config = json!({ "ecdhEllipticCurveKey": ["P-256"], "ecdhAlgorithm": [name] });
        keys.push(key(name, "ecdh-generated", config));
    }
    let mut users = vec![user(USER, "jane@example.com")];
    users.extend((0..OTHER_USERS).map(|number| user(&other_user(number), &format!("customer-{number}@example.com"))));
    json!({
        "realm": REALM,
        "enabled": true,
        // Logging in takes no time.
        "passwordPolicy": "hashAlgorithm(pbkdf2-sha256) and hashIterations(1)",
        // Hundreds of users are asked at once.
        "attributes": { "cibaExpiresIn": "600" },
        "components": { "org.keycloak.keys.KeyProvider": keys },
        "users": users,
        "clientProfiles": { "profiles": [{
            "name": "consent",
            "executors": [{ "executor": "consent-required", "configuration": { "auto-configure": true } }],
        }] },
        "clientPolicies": { "policies": [{
            "name": "consent",
            "enabled": true,
            "conditions": [{ "condition": "any-client", "configuration": {} }],
            "profiles": ["consent"],
        }] },
    })
}

pub(crate) fn other_user(number: usize) -> String {
    format!("customer-{number}")
}

fn brief_realm() -> Value {
    json!({
        "realm": BRIEF_REALM,
        "enabled": true,
        "attributes": { "cibaExpiresIn": "10" },
        "users": [user(USER, "jane@example.com")],
    })
}

fn user(name: &str, email: &str) -> Value {
    json!({
        "username": name,
        "email": email,
        "emailVerified": true,
        "firstName": "Jane",
        "lastName": "Doe",
        "enabled": true,
        "credentials": [{ "type": "password", "value": PASSWORD }],
    })
}

fn key(name: &str, provider: &str, mut config: Value) -> Value {
    config["priority"] = json!(["100"]);
    json!({ "name": name, "providerId": provider, "config": config })
}

impl Running {
    async fn new_initial_access_token(&self, realm: &str) -> String {
        let path = format!("/{realm}/clients-initial-access");
        let token = self.admin(Method::POST, &path, Some(json!({ "count": 10_000 }))).await;
        token["token"].as_str().expect("there is a token").to_owned()
    }

    async fn brief(&self) -> &(Site, String) {
        let create = async || {
            self.admin(Method::POST, "", Some(brief_realm())).await;
            let site = Site { issuer: format!("{}/realms/{BRIEF_REALM}", self.base), ..self.site.clone() };
            (site, self.new_initial_access_token(BRIEF_REALM).await)
        };
        self.brief.get_or_init(create).await
    }

    /// Sends a request to the admin API, below `/admin/realms`.
    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let http = http(&self.site.authority.certificate_pem());
        let token = self.admin_token(&http).await;
        let mut request = http.request(method, format!("{}/admin/realms{path}", self.base)).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await.expect("it answers");
        let status = response.status();
        let text = response.text().await.expect("whole");
        assert!(status.is_success(), "{path}: {status}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
    }

    /// An admin token, which is valid for a minute.
    async fn admin_token(&self, http: &reqwest::Client) -> String {
        let mut known = self.admin_token.lock().await;
        if let Some((token, issued)) = &*known
            && issued.elapsed() < Duration::from_secs(30)
        {
            return token.clone();
        }
        let issued = Instant::now();
        let form = [("grant_type", "password"), ("client_id", "admin-cli"), ("username", ADMIN), ("password", ADMIN)];
        let request = http
            .post(format!("{}/realms/master/protocol/openid-connect/token", self.base))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish());
        let answer = request.send().await.expect("it answers").bytes().await.expect("whole");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("no token for the admin: {answer}"));
        *known = Some((token.to_owned(), issued));
        token.to_owned()
    }

    /// Adds the client to the audience of its access tokens.
    async fn add_audience(&self, client_id: &str) {
        let mapper = json!({
            "name": "audience",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {
                "included.client.audience": client_id,
                "access.token.claim": "true",
                "introspection.token.claim": "true",
                "id.token.claim": "false",
            },
        });
        // A client that registered itself has the same identifier in the admin API.
        let path = format!("/{REALM}/clients/{client_id}/protocol-mappers/models");
        self.admin(Method::POST, &path, Some(mapper)).await;
    }
}

impl Running {
    /// Lets a client exchange tokens, which no member of a registration does.
    async fn allow_token_exchange(&self, client_id: &str) {
        let path = format!("/{REALM}/clients/{client_id}");
        let mut client = self.admin(Method::GET, &path, None).await;
        client["attributes"]["standard.token.exchange.enabled"] = json!("true");
        self.admin(Method::PUT, &path, Some(client)).await;
    }

    /// Adds an identity provider whose assertions a client may present (RFC 7523), and makes the user known there by
    /// this name.
    async fn add_issuer_of_assertions(&self, issuer: &str, keys: &Value, client_id: &str, subject: &str) {
        let alias = format!("issuer-for-{client_id}");
        let provider = json!({
            "alias": alias,
            "providerId": "jwt-authorization-grant",
            "enabled": true,
            "config": {
                "issuer": issuer,
                "jwtAuthorizationGrantEnabled": "true",
                "useJwksUrl": "false",
                "publicKeySignatureVerifier": keys.to_string(),
            },
        });
        self.admin(Method::POST, &format!("/{REALM}/identity-provider/instances"), Some(provider)).await;

        let users = self.admin(Method::GET, &format!("/{REALM}/users?exact=true&username={USER}"), None).await;
        let user = users[0]["id"].as_str().expect("there is the user");
        let identity = json!({ "identityProvider": alias, "userId": subject, "userName": subject });
        self.admin(Method::POST, &format!("/{REALM}/users/{user}/federated-identity/{alias}"), Some(identity)).await;

        let path = format!("/{REALM}/clients/{client_id}");
        let mut client = self.admin(Method::GET, &path, None).await;
        client["attributes"]["oauth2.jwt.authorization.grant.idp"] = json!(alias);
        self.admin(Method::PUT, &path, Some(client)).await;
    }
}

/// The user's actions on its two pages.
fn answer(page: &Page, decision: Decision) -> Option<Step> {
    if let Some(login) = page.form(|form| form.id == "kc-form-login") {
        return Some(Step::Submit(login.with([("username", USER), ("password", PASSWORD)])));
    }
    let consent = page.form(|form| form.action.contains("login-actions/consent"))?;
    Some(Step::Submit(consent.with([match decision {
        Decision::SignsIn => ("accept", "Yes"),
        Decision::Declines => ("cancel", "No"),
    }])))
}

/// Registers a client in a realm.
async fn registered(site: &Site, initial_access_token: &str, members: &Value) -> Registered {
    let http = http(&site.authority.certificate_pem());
    let request = http
        .post(format!("{}/clients-registrations/openid-connect", site.issuer))
        .bearer_auth(initial_access_token)
        .header("Content-Type", "application/json");
    let response = request.body(members.to_string()).send().await.expect("it answers");
    let text = response.text().await.expect("whole");
    let registered: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let member = |name: &str| registered[name].as_str().map(str::to_owned);
    let client_id = member("client_id").unwrap_or_else(|| panic!("{members} is refused: {text}"));
    let client_secret = member("client_secret").unwrap_or_default();
    Registered { site: site.clone(), client_id, client_secret, process: None }
}

impl Keycloak {
    /// Registers a client whose CIBA requests expire after ten seconds.
    pub(crate) async fn register_briefly(&self, members: &Value) -> Registered {
        let (site, token) = running().await.expect("it runs").brief().await;
        registered(site, token, members).await
    }
}

impl Op for Keycloak {
    const ABILITIES: Abilities = Abilities {
        id_tokens: SIGNING,
        userinfo: SIGNING,
        responses: SIGNING,
        assertions: SIGNING,
        requests: SIGNING,
        encryption: ALL_ENCRYPTIONS,
        response_encryption: ALL_ENCRYPTIONS,
        request_encryption: ALL_ENCRYPTIONS,
        no_introspection_by: &[],
        jwt_modes: &[ResponseMode::QueryJwt, ResponseMode::FormPostJwt, ResponseMode::Jwt],
    };

    async fn register(&self, mut members: Value) -> Option<Registered> {
        let running = running().await?;
        members.as_object_mut()?.remove("require_signed_request_object");
        let registered = registered(&running.site, &running.initial_access_token, &members).await;
        running.add_audience(&registered.client_id).await;
        let grants = members["grant_types"].as_array().into_iter().flatten();
        if grants.into_iter().any(|grant| grant == crate::grants::TOKEN_EXCHANGE) {
            running.allow_token_exchange(&registered.client_id).await;
        }
        Some(registered)
    }

    async fn site(&self) -> Option<Site> {
        Some(running().await?.site.clone())
    }

    async fn rotate_keys(&self, _: &mut World) {
        let running = running().await.expect("a client has been registered");
        let mut rotations = running.rotations.lock().await;
        *rotations += 1;
        let path = format!("/{REALM}/components");
        let list = format!("{path}?type=org.keycloak.keys.KeyProvider");
        let mut components = running.admin(Method::GET, &list, None).await;
        let mut signing = components.as_array_mut().expect("a list").iter_mut().filter(|key| {
            key["config"]["ecdsaEllipticCurveKey"][0] == "P-256" && key["config"]["active"][0] != "false"
        });
        let old = signing.next().expect("there is a key");
        let mut new = key("ES256", "ecdsa-generated", json!({ "ecdsaEllipticCurveKey": ["P-256"] }));
        new["name"] = json!(format!("ES256 {rotations}"));
        new["providerType"] = json!("org.keycloak.keys.KeyProvider");
        running.admin(Method::POST, &path, Some(new)).await;
        // Other tests verify tokens that it has signed.
        old["config"]["active"] = json!(["false"]);
        let path = format!("{path}/{}", old["id"].as_str().expect("it has a name"));
        running.admin(Method::PUT, &path, Some(old.clone())).await;
    }

    /// An administrator ends it. The token then has a second event, which this setting adds.
    async fn end_session(&self, world: &World, _: &mut Browser, user: &Authentication) {
        let running = running().await.expect("a client has been registered");
        let path = format!("/{REALM}/clients/{}", world.client_id);
        let mut client = running.admin(Method::GET, &path, None).await;
        client["attributes"]["backchannel.logout.revoke.offline.tokens"] = json!("true");
        running.admin(Method::PUT, &path, Some(client)).await;
        let sid = user.claims().sid().expect("Keycloak puts it into every ID Token");
        running.admin(Method::DELETE, &format!("/{REALM}/sessions/{sid}"), None).await;
    }

    async fn trusted_issuer(&self, client_id: &str, keys: Value) -> (String, String) {
        let running = running().await.expect("a client has been registered");
        let (issuer, subject) = (format!("https://issuer.test/{client_id}"), format!("jane of {client_id}"));
        running.add_issuer_of_assertions(&issuer, &keys, client_id, &subject).await;
        (issuer, subject)
    }

    async fn initial_access_token(&self) -> Option<String> {
        Some(running().await?.initial_access_token.clone())
    }
}
