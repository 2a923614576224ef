//! Valid and forged ID Tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::client::TestClient;
use super::encryption::{Encryption, encrypt};
use super::fault::{ForgeryKind, IdTokenForgery};
use super::keys::{self, ProviderKey};
use super::logout_token::sid;
use super::op::Handler;
use super::process::Process;
use super::record::Endpoint;
use super::state::State;

/// The lifetime of an ID Token, in seconds.
const LIFETIME: u64 = 600;

impl Handler<'_> {
    /// Makes an ID Token for a sign-in. Without `access_token` it is an interim one.
    pub(super) fn id_token(&mut self, process: usize, client: &TestClient, access_token: Option<&str>) -> String {
        let now = unix(self.op.now());
        let issuer = self.op.settings.issuer.clone();
        let mut claims = claims(&self.state.processes[process], client, &issuer, now, access_token);
        if let Value::Object(members) = &mut claims
            && self.endpoint == Endpoint::Refresh
        {
            // OpenID Connect Core §12.2: "it SHOULD NOT have a nonce Claim".
            members.shift_remove("nonce");
        }
        if let Value::Object(members) = &mut claims
            && client.backchannel_logout_uri.is_some()
        {
            // OpenID Connect Back-Channel Logout 1.0 §2.1.
            members.entry("sid").or_insert_with(|| json!(sid(&issuer, process)));
        }
        let State { faults, requests, .. } = &mut *self.state;
        let struck = faults.iter_mut().find_map(|fault| {
            let forgery = fault.forges_id_token(requests.get(self.number)?)?;
            Some((forgery, fault.name.clone()))
        });
        let (forgery, name) = struck.unzip();
        self.state.note_faults(self.number, name.into_iter().collect());
        let key = self.state.key_for(client);
        let mut header = key.header();
        header["typ"] = json!("JWT");
        let token = match forgery {
            None => key.sign(&header, &claims),
            Some(forgery) => forged(forgery, &key, header, claims),
        };
        self.encrypted(client, client.id_token_encryption.as_ref(), token)
    }

    /// Signs a JWT with other claims, such as a UserInfo response.
    pub(super) fn signed(&mut self, client: &TestClient, claims: &Value) -> String {
        let key = self.state.key_for(client);
        key.sign(&key.header(), claims)
    }

    /// Encrypts an ID Token or a UserInfo response, `inside`, as the client registered, unless a fault says otherwise.
    pub(super) fn encrypted(&mut self, client: &TestClient, encryption: Option<&Encryption>, inside: String) -> String {
        let Some(encryption) = encryption else { return inside };
        let State { faults, requests, .. } = &mut *self.state;
        let struck = faults.iter_mut().find_map(|fault| {
            let forgery = fault.forges_encryption(requests.get(self.number)?)?;
            Some((forgery, fault.name.clone()))
        });
        let (forgery, name) = struck.unzip();
        self.state.note_faults(self.number, name.into_iter().collect());
        let key = client.encryption_key(&encryption.alg);
        encrypt(&inside, &key, encryption, forgery.as_ref())
    }
}

fn claims(process: &Process, client: &TestClient, issuer: &str, now: u64, access_token: Option<&str>) -> Value {
    let mut claims = match access_token {
        Some(_) => process.user.claims.clone(),
        None => process.interim_claims.clone(),
    };
    let mut defaults = Map::new();
    defaults.insert("iss".into(), json!(issuer));
    defaults.insert("sub".into(), json!(process.user.sub));
    defaults.insert("aud".into(), json!(client.id));
    defaults.insert("iat".into(), json!(now));
    defaults.insert("exp".into(), json!(now + LIFETIME));
    defaults.insert("auth_time".into(), json!(unix(process.authenticated_at)));
    if let Some(nonce) = process.request.get("nonce") {
        defaults.insert("nonce".into(), json!(nonce));
    }
    if let Some(acr) = requested_acr(process) {
        defaults.insert("acr".into(), json!(acr));
    }
    if let Some(token) = access_token {
        defaults.insert("at_hash".into(), json!(keys::half_hash(client.id_token_algorithm, token)));
    }
    for (name, value) in defaults {
        claims.entry(name).or_insert(value);
    }
    Value::Object(claims)
}

/// The first of the requested classes: the test user satisfies all of them.
fn requested_acr(process: &Process) -> Option<String> {
    if let Some(claims) = process.request.get("claims") {
        let claims: Value = serde_json::from_str(claims).unwrap_or_default();
        let acr = &claims["id_token"]["acr"];
        if let Some(value) = acr["value"].as_str().or(acr["values"][0].as_str()) {
            return Some(value.to_owned());
        }
    }
    process.request.get("acr_values")?.split(' ').next().map(str::to_owned)
}

pub(super) fn forged(forgery: IdTokenForgery, key: &ProviderKey, mut header: Value, mut claims: Value) -> String {
    match forgery.0 {
        ForgeryKind::AlgorithmNone => {
            header["alg"] = json!("none");
            keys::unsigned(&header, &claims)
        }
        ForgeryKind::HmacWithPublicKey => {
            header["alg"] = json!("HS256");
            keys::sign_with_secret(key.public_pem().as_bytes(), &header, &claims)
        }
        ForgeryKind::ForeignKey => key.foreign().sign(&header, &claims),
        ForgeryKind::BrokenSignature => {
            let genuine = key.sign(&header, &claims);
            claims["sub"] = json!("somebody else");
            let other = key.sign(&header, &claims);
            let (_, signature) = genuine.rsplit_once('.').expect("a JWT has dots");
            let (message, _) = other.rsplit_once('.').expect("a JWT has dots");
            format!("{message}.{signature}")
        }
        ForgeryKind::Header(editor) => {
            if let Value::Object(members) = &mut header {
                (editor.0)(members);
            }
            key.sign(&header, &claims)
        }
        ForgeryKind::Claims(editor) => {
            if let Value::Object(members) = &mut claims {
                (editor.0)(members);
            }
            key.sign(&header, &claims)
        }
        ForgeryKind::ClaimsText(editor) => {
            let mut text = claims.to_string();
            (editor.0)(&mut text);
            key.sign_text(&header, &text)
        }
        ForgeryKind::Raw(text) => text,
    }
}

pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
