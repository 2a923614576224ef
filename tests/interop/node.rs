//! `oidc-provider` 9.13 on Node.js, a certified OP. It is started for each test, with the clients of that test.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use openid_deferred::{Authentication, ResponseMode};
use serde_json::{Value, json};

use crate::browser::{Browser, Decision, Step};
use crate::certificates::Identity;
use crate::installation::installed;
use crate::op::{ALL_ENCRYPTIONS, Abilities, Op, Registered, SCOPES, Site};
use crate::page::Page;
use crate::process::{Process, file};
use crate::support::{CLIENT_ID, CLIENT_SECRET, World, with};

/// A provider that runs until this is dropped.
pub(crate) struct Provider {
    pub(crate) site: Site,
    pub(crate) process: Process,
}

impl Provider {
    /// Starts a provider with these settings (see `node/provider.mjs`). Returns `None` if it cannot run here.
    pub(crate) fn start(settings: Value) -> Option<Self> {
        Self::start_with(Identity::authority(), settings)
    }

    /// The same with an authority that has signed certificates of clients.
    pub(crate) fn start_with(authority: Identity, mut settings: Value) -> Option<Self> {
        let folder = installed("node")?;
        let host = Identity::host("localhost", Some(&authority));
        settings["tls"] = json!({
            "authority": authority.certificate_pem(),
            "certificate": host.certificate_pem(),
            "key": host.key_pem(),
        });
        let mut command = Command::new("node");
        command.arg("provider.mjs").current_dir(folder).env("NODE_NO_WARNINGS", "1");
        // It sends pings to the test.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority-{}.pem", COUNT.fetch_add(1, Ordering::Relaxed));
        command.env("NODE_EXTRA_CA_CERTS", file("node", &name, &authority.certificate_pem()));
        let (process, said) = Process::start("node", &mut command, &settings);
        let issuer = said["issuer"].as_str().expect("the issuer is text").to_owned();
        let site = Site { issuer, authority, answer, scopes: SCOPES, cookie: None };
        Some(Self { site, process })
    }
}

pub(crate) struct Node;

pub(crate) const OP: Node = Node;

const ALGORITHMS: &[&str] = &["RS256", "PS256", "ES256", "EdDSA"];

/// The provider handles its pages itself, except the one that asks whether the user wants to log out.
fn answer(page: &Page, _: Decision) -> Option<Step> {
    let logout = page.form(|form| form.id == "op.logoutForm")?;
    Some(Step::Submit(logout.with([("logout", "yes")])))
}

impl Op for Node {
    const ABILITIES: Abilities = Abilities {
        id_tokens: &["RS256", "PS256", "ES256", "EdDSA", "Ed25519"],
        userinfo: ALGORITHMS,
        responses: ALGORITHMS,
        assertions: ALGORITHMS,
        requests: ALGORITHMS,
        encryption: ALL_ENCRYPTIONS,
        response_encryption: ALL_ENCRYPTIONS,
        request_encryption: ALL_ENCRYPTIONS,
        no_introspection_by: &[],
        jwt_modes: &[ResponseMode::QueryJwt, ResponseMode::FormPostJwt, ResponseMode::Jwt],
    };

    /// The user logs out.
    async fn end_session(&self, world: &World, browser: &mut Browser, user: &Authentication) {
        let (url, session) = world.client.end_session().of(user).start().await.expect("it has the endpoint");
        let session = session.expect("there is a URI to return to");
        browser.visit(url, session.post_logout_redirect_uri(), answer, Decision::SignsIn).await;
    }

    /// Starts a provider for this client.
    async fn register(&self, members: Value) -> Option<Registered> {
        let client = with(json!({ "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET }), members);
        let Provider { site, process } = Provider::start(json!({ "clients": [client] }))?;
        Some(Registered {
            site,
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            process: Some(process),
        })
    }
}
