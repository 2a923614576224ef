//! The example server of zitadel/oidc 3.52 (Go, with go-jose). It is started for each client, in a small program that
//! gives it keys and that client.
//!
//! It does not support pushed requests, DPoP, mutual TLS, responses in a JWT, encryption, signed UserInfo,
//! registration, `client_secret_jwt`, or request objects that replace the parameters of the URL (RFC 9101). It requires
//! `scope`, `response_type` and `redirect_uri` beside `request`, as OpenID Connect Core 1.0 §6.1 does.
//!
//! Where it differs from other OPs:
//! - It lists no `iss` in authorization responses (RFC 9207) and sends none.
//! - It signs with one algorithm at a time, regardless of what a client has registered.
//! - It accepts `client_secret_post` at the token endpoint and not at introspection, as its metadata says.
//! - It verifies assertions with RS256 only.
//! - It issues a refresh token only for the scope `offline_access`.
//! - Users cannot decline on its login page.

use std::process::Command;

use serde_json::{Value, json};

use crate::browser::{Decision, Step};
use crate::certificates::Identity;
use crate::installation::installed;
use crate::op::{Abilities, NO_ABILITIES, Op, Registered, Site};
use crate::page::Page;
use crate::process::Process;
use crate::support::{CLIENT_ID, CLIENT_SECRET, World, with};

pub(crate) struct Zitadel;

pub(crate) const OP: Zitadel = Zitadel;

fn answer(page: &Page, decision: Decision) -> Option<Step> {
    let login = page.form(|_| page.url().path() == "/login/username")?;
    let login = login.with([("username", "user-1"), ("password", "the password of user-1")]);
    (decision == Decision::SignsIn).then_some(Step::Submit(login))
}

impl Op for Zitadel {
    const ABILITIES: Abilities = Abilities {
        id_tokens: &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
        assertions: &["RS256"],
        no_introspection_by: &["client_secret_post"],
        ..NO_ABILITIES
    };

    async fn register(&self, members: Value) -> Option<Registered> {
        let folder = installed("zitadel")?;
        let authority = Identity::authority();
        let host = Identity::host("localhost", Some(&authority));
        let settings = json!({
            "tls": { "certificate": host.certificate_pem(), "key": host.key_pem() },
            "client": with(json!({ "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET }), members),
        });
        let (process, said) = Process::start("zitadel", &mut Command::new(folder.join("provider")), &settings);
        let issuer = said["issuer"].as_str().expect("the issuer is text").to_owned();
        Some(Registered {
            site: Site { issuer, authority, answer, scopes: &["profile", "email", "offline_access"], cookie: None },
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            process: Some(process),
        })
    }

    async fn rotate_keys(&self, world: &mut World) {
        world.process.as_mut().expect("it runs for this client").ask(&json!({}));
    }
}
