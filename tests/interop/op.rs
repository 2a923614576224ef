//! What a scenario needs of an OP, whichever it is.

use openid_deferred::{ClientBuilder, ContentEncryptionAlgorithm, KeyManagementAlgorithm, ResponseMode};
use serde_json::Value;

use crate::browser::Answer;
use crate::certificates::Identity;
use crate::process::Process;
use crate::support::World;

/// Where an OP is, and how a user gets past its pages.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) issuer: String,
    pub(crate) authority: Identity,
    pub(crate) answer: Answer,
    /// What is asked for, so that there is UserInfo and a refresh token.
    pub(crate) scopes: &'static [&'static str],
    /// `NAME=VALUE` of a user who is signed in at the OP already.
    pub(crate) cookie: Option<String>,
}

pub(crate) const SCOPES: &[&str] = &["profile", "email"];

/// A client as the OP knows it.
pub(crate) struct Registered {
    pub(crate) site: Site,
    pub(crate) client_id: String,
    /// Empty for a client without one.
    pub(crate) client_secret: String,
    /// Ends with the test, where the OP was started for this client.
    pub(crate) process: Option<Process>,
}

/// The algorithms that a scenario goes through at an OP.
pub(crate) struct Abilities {
    /// By which it signs ID Tokens.
    pub(crate) id_tokens: &'static [&'static str],
    /// By which it signs UserInfo responses.
    pub(crate) userinfo: &'static [&'static str],
    /// By which it signs authorization responses.
    pub(crate) responses: &'static [&'static str],
    /// Which it verifies in the assertions of clients.
    pub(crate) assertions: &'static [&'static str],
    /// Which it verifies in request objects.
    pub(crate) requests: &'static [&'static str],
    /// By which it encrypts ID Tokens and UserInfo responses.
    pub(crate) encryption: Encryptions,
    /// By which it encrypts authorization responses.
    pub(crate) response_encryption: Encryptions,
    /// Which it decrypts in request objects.
    pub(crate) request_encryption: Encryptions,
    /// How a client that it knows cannot authenticate at introspection.
    pub(crate) no_introspection_by: &'static [&'static str],
    /// In which modes it answers in a JWT.
    pub(crate) jwt_modes: &'static [ResponseMode],
}

pub(crate) type Encryptions = &'static [(KeyManagementAlgorithm, ContentEncryptionAlgorithm)];

pub(crate) const NO_ABILITIES: Abilities = Abilities {
    id_tokens: &[],
    userinfo: &[],
    responses: &[],
    assertions: &[],
    requests: &[],
    encryption: &[],
    response_encryption: &[],
    request_encryption: &[],
    no_introspection_by: &[],
    jwt_modes: &[],
};

/// Every key management that this crate knows, and every content encryption.
pub(crate) const ALL_ENCRYPTIONS: Encryptions = &[
    (KeyManagementAlgorithm::RsaOaep, ContentEncryptionAlgorithm::A128Gcm),
    (KeyManagementAlgorithm::RsaOaep256, ContentEncryptionAlgorithm::A256Gcm),
    (KeyManagementAlgorithm::EcdhEs, ContentEncryptionAlgorithm::A128CbcHs256),
    (KeyManagementAlgorithm::EcdhEsA128Kw, ContentEncryptionAlgorithm::A256CbcHs512),
    (KeyManagementAlgorithm::EcdhEsA256Kw, ContentEncryptionAlgorithm::A256Gcm),
];

/// An OP of the matrix.
pub(crate) trait Op {
    const ABILITIES: Abilities;

    /// The error with which it answers where the user declines.
    const DECLINED: &'static str = "access_denied";

    /// What every client has to be told about this OP.
    fn configure(client: ClientBuilder) -> ClientBuilder {
        client
    }

    /// Registers a client with these members (RFC 7591); `None` where the OP cannot run here.
    async fn register(&self, members: Value) -> Option<Registered>;

    /// The OP before any client is registered; `None` where it cannot run here.
    async fn site(&self) -> Option<Site> {
        panic!("this OP is started for a client")
    }

    /// Signs ID Tokens by ES256 with a new key from now on.
    async fn rotate_keys(&self, _: &mut World) {
        panic!("the matrix does not ask this OP for that")
    }

    /// What lets a registrar in, where the OP registers clients; `None` where everybody may.
    async fn initial_access_token(&self) -> Option<String> {
        panic!("the matrix does not ask this OP for that")
    }

    /// Lets the user consent to a client that has registered itself, where no page asks for it.
    async fn consent(&self, _client_id: &str) {}
}
