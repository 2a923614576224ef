//! The interface between scenarios and OPs.

use openid_deferred::encryption::{ContentEncryptionAlgorithm, KeyManagementAlgorithm};
use openid_deferred::{Authentication, ClientBuilder, ResponseMode};
use serde_json::Value;

use crate::browser::{Answer, Browser};
use crate::certificates::Identity;
use crate::process::Process;
use crate::support::World;

/// The address of an OP, and how a user gets through its pages.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) issuer: String,
    pub(crate) authority: Identity,
    pub(crate) answer: Answer,
    /// The requested scopes, so that there is UserInfo and a refresh token.
    pub(crate) scopes: &'static [&'static str],
    /// `NAME=VALUE` of a user who is already signed in at the OP.
    pub(crate) cookie: Option<String>,
}

pub(crate) const SCOPES: &[&str] = &["profile", "email"];

/// A client as it is registered at the OP.
pub(crate) struct Registered {
    pub(crate) site: Site,
    pub(crate) client_id: String,
    /// Empty for a client without a secret.
    pub(crate) client_secret: String,
    /// The OP's program if it was started for this client. It ends with the test.
    pub(crate) process: Option<Process>,
}

/// The algorithms of an OP that scenarios go through.
pub(crate) struct Abilities {
    /// For signing ID Tokens.
    pub(crate) id_tokens: &'static [&'static str],
    /// For signing UserInfo responses.
    pub(crate) userinfo: &'static [&'static str],
    /// For signing authorization responses.
    pub(crate) responses: &'static [&'static str],
    /// For verifying the assertions of clients.
    pub(crate) assertions: &'static [&'static str],
    /// For verifying request objects.
    pub(crate) requests: &'static [&'static str],
    /// For encrypting ID Tokens and UserInfo responses.
    pub(crate) encryption: Encryptions,
    /// For encrypting authorization responses.
    pub(crate) response_encryption: Encryptions,
    /// For decrypting request objects.
    pub(crate) request_encryption: Encryptions,
    /// The authentication methods that do not work at introspection.
    pub(crate) no_introspection_by: &'static [&'static str],
    /// The modes in which it answers in a JWT.
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

/// Every key management algorithm and every content encryption of this crate.
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

    /// The OP's error if the user declines.
    const DECLINED: &'static str = "access_denied";

    /// Adds the settings that every client of this OP needs.
    fn configure(client: ClientBuilder) -> ClientBuilder {
        client
    }

    /// Registers a client with these members (RFC 7591). Returns `None` if the OP cannot run here.
    async fn register(&self, members: Value) -> Option<Registered>;

    /// The OP before any client is registered, or `None` if it cannot run here.
    async fn site(&self) -> Option<Site> {
        panic!("this OP is started for a client")
    }

    /// Makes the OP sign ID Tokens with ES256 and a new key from now on.
    async fn rotate_keys(&self, _: &mut World) {
        panic!("the matrix does not ask this OP for that")
    }

    /// The token with which a registrar may register clients, or `None` if any party may.
    async fn initial_access_token(&self) -> Option<String> {
        panic!("the matrix does not ask this OP for that")
    }

    /// Makes the OP accept assertions by these keys in requests of this client. Returns their issuer and subject: the
    /// client itself, if the OP takes the keys of its registration.
    async fn trusted_issuer(&self, client_id: &str, _keys: Value) -> (String, String) {
        (client_id.to_owned(), client_id.to_owned())
    }

    /// Ends the session of this browser at the OP, in a way in which the OP tells the client of the user about it.
    async fn end_session(&self, _: &World, _: &mut Browser, _: &Authentication) {
        panic!("the matrix does not ask this OP for that")
    }

    /// Records the consent of the user to a client that has registered itself, if no page asks for it.
    async fn consent(&self, _client_id: &str) {}
}
