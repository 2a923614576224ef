//! idpyoidc 5.0.0 (Python, with cryptojwt for JOSE). It is started for each test, in a small program that serves its
//! endpoints and acts as the user. Clients register themselves.
//!
//! It does not support mutual TLS, responses in a JWT, EdDSA, ES512 (its key for that is not found), encrypted ID
//! Tokens, or the update and deletion of registrations.
//!
//! Where it differs from other OPs:
//! - Its DPoP compares `ath` with a hexadecimal hash (RFC 9449 §4.2 requires base64url), so DPoP is off here.
//! - It requires `response_type` and more beside `request` and `request_uri` (RFC 9101 §5 and RFC 9126 §4 have only
//!   `client_id` there), so neither signed nor pushed requests work.
//! - It accepts a client assertion only if `aud` is the URL of the called endpoint: `AssertionAudience::Endpoint`.
//! - It encrypts with an IV of 128 bits for AES-GCM (RFC 7518 §5.3 requires 96). No other implementation can decrypt
//!   what it encrypts with `ECDH-ES+A128KW` and `ECDH-ES+A256KW`.
//! - It refuses the registration of a client without keys, and of a native application with an HTTPS redirect URI.
//! - It compares the credentials of `client_secret_basic` without decoding them; the secrets that it issues have no
//!   character that is encoded.
//! - It refuses `offline_access` without `prompt=consent` instead of ignoring it.
//! - It answers a revoked refresh token with `invalid_request`, not with `invalid_grant`.

use std::process::Command;
use std::sync::Mutex;

use openid_deferred::compatibility::AssertionAudience;
use openid_deferred::encryption::{
    ClientAlgorithms, ContentEncryptionAlgorithm, DecryptionKey, Encryption, KeyManagementAlgorithm,
};
use openid_deferred::registration::RegistrationRequest;
use openid_deferred::{ClientBuilder, ResponseType, SigningAlgorithm, SigningKey};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::browser::http;
use crate::certificates::Identity;
use crate::installation::installed;
use crate::op::{Abilities, Encryptions, NO_ABILITIES, Op, Registered, SCOPES, Site};
use crate::process::{Process, source};
use crate::registration;
use crate::support::{REDIRECT_URI, World, chain, key_set, world_at};

pub(crate) struct Idpyoidc(OnceCell<Option<Running>>);

#[expect(clippy::declare_interior_mutable_const, reason = "each test has one of its own")]
pub(crate) const OP: Idpyoidc = Idpyoidc(OnceCell::const_new());

const SIGNING: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"];

/// The encryptions that it implements as RFC 7518 specifies.
const ENCRYPTIONS: Encryptions = &[
    (KeyManagementAlgorithm::RsaOaep, ContentEncryptionAlgorithm::A128CbcHs256),
    (KeyManagementAlgorithm::RsaOaep256, ContentEncryptionAlgorithm::A256CbcHs512),
    (KeyManagementAlgorithm::EcdhEs, ContentEncryptionAlgorithm::A128CbcHs256),
];

struct Running {
    site: Site,
    process: Mutex<Process>,
}

async fn start() -> Option<Running> {
    let folder = installed("idpyoidc")?;
    let authority = Identity::authority();
    let host = Identity::host("localhost", Some(&authority));
    let settings = json!({ "tls": { "certificate": host.certificate_pem(), "key": host.key_pem() } });
    let mut command = Command::new(folder.join("bin/python"));
    let (process, said) = Process::start("idpyoidc", command.arg(source("idpyoidc/op.py")), &settings);
    let issuer = said["issuer"].as_str().expect("the issuer is text").to_owned();
    // The program acts as the user.
    let site = Site { issuer, authority, answer: |_, _| None, scopes: SCOPES, cookie: None };
    Some(Running { site, process: Mutex::new(process) })
}

impl Idpyoidc {
    async fn running(&self) -> Option<&Running> {
        self.0.get_or_init(start).await.as_ref()
    }
}

impl Op for Idpyoidc {
    const ABILITIES: Abilities =
        Abilities { id_tokens: SIGNING, userinfo: SIGNING, assertions: SIGNING, ..NO_ABILITIES };

    fn configure(client: ClientBuilder) -> ClientBuilder {
        client.assertion_audience(AssertionAudience::Endpoint)
    }

    async fn register(&self, mut members: Value) -> Option<Registered> {
        // It allows no HTTPS redirect URI for a native application.
        members.as_object_mut()?.remove("application_type");
        if members["jwks"].is_null() {
            let key = SigningKey::generate(SigningAlgorithm::Es256).expect("a key");
            members["jwks"] = key_set(key.public_jwk());
        }
        let site = &self.running().await?.site;
        let request = http(&site.authority.certificate_pem())
            .post(format!("{}/registration", site.issuer))
            .header("Content-Type", "application/json")
            .body(members.to_string());
        let text = request.send().await.expect("it answers").text().await.expect("whole");
        let registered: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let member = |name: &str| registered[name].as_str().map(str::to_owned);
        Some(Registered {
            site: site.clone(),
            client_id: member("client_id").unwrap_or_else(|| panic!("{members} is refused: {text}")),
            client_secret: member("client_secret").unwrap_or_default(),
            process: None,
        })
    }

    async fn site(&self) -> Option<Site> {
        Some(self.running().await?.site.clone())
    }

    async fn rotate_keys(&self, _: &mut World) {
        let running = self.running().await.expect("a client has been registered");
        running.process.lock().expect("nothing panics with it").ask(&json!({}));
    }

    /// Any party may register a client.
    async fn initial_access_token(&self) -> Option<String> {
        None
    }
}

/// It answers a token that is refused for its state with `invalid_request`.
#[tokio::test]
async fn revoked_tokens_are_refused() {
    let op = OP;
    let Some(world) = world_at(&op, json!({}), |client| client).await else { return };
    let mut authentication = world.sign_in().await;
    world.client.revoke(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let token = authentication.access_token().unwrap().clone();
    assert!(!world.client.introspect(&token, None).await.unwrap().is_active());
    let error = world.client.userinfo(&authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_token", "{}", chain(&error));
    let error = world.client.refresh(&mut authentication).await.unwrap_err();
    assert_eq!(error.error_response().unwrap().code(), "invalid_request", "{}", chain(&error));
}

/// It encrypts no ID Tokens.
#[tokio::test]
async fn userinfo_is_decrypted() {
    let op = OP;
    for (alg, enc) in ENCRYPTIONS.iter().copied() {
        let key = DecryptionKey::generate(alg).unwrap();
        let registered = json!({
            "jwks": key_set(key.public_jwk()),
            "userinfo_signed_response_alg": "ES256",
            "userinfo_encrypted_response_alg": alg.as_str(),
            "userinfo_encrypted_response_enc": enc.as_str(),
        });
        let decrypting = world_at(&op, registered, |client| {
            client
                .decryption_key(key)
                .algorithms(ClientAlgorithms::new().userinfo_encrypted_response(Encryption::new(alg).content(enc)))
        });
        let Some(world) = decrypting.await else { return };
        let authentication = world.sign_in().await;
        let userinfo = world.client.userinfo(&authentication).await;
        let userinfo = userinfo.unwrap_or_else(|error| panic!("{alg:?}: {}", chain(&error)));
        assert_eq!(userinfo.claim("email"), Some(&json!("jane@example.com")), "{alg:?}");
    }
}

#[tokio::test]
async fn a_client_registers_itself_and_reads_its_registration() {
    let op = OP;
    let Some(site) = op.site().await else { return };
    let registrar = registration::registrar(&site).build().unwrap();
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let request = RegistrationRequest::new(REDIRECT_URI)
        .response_types([ResponseType::Code])
        .grant_type("refresh_token")
        .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
        .member("jwks", key_set(key.public_jwk()))
        .client_name("Example");
    let mut registered = registration::registered(&registrar, request).await;
    registration::signs_in(&site, &registered, None).await;
    registrar.read(&mut registered).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(registered.metadata().client_name(), Some("Example"));
    registration::signs_in(&site, &registered, None).await;
}
