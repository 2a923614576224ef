//! CIBA (OpenID Connect Client-Initiated Backchannel Authentication Flow Core 1.0): what the specification demands of a
//! client. docs/specification/ciba.md names the test of each row.

mod discovery;
mod fapi;
mod id_token;
mod polling;
mod refusals;
mod registration;
mod request;
mod signed;

use openid_deferred::ciba::{DeliveryMode, UserHint};
use openid_deferred::testing::{DecisionPolicy, Endpoint, RecordedRequest, TestClient, TestProviderBuilder};
use openid_deferred::{ClientAuthentication, ClientBuilder, PendingAuthentication, SigningAlgorithm, SigningKey};

use crate::support::{CLIENT_ID, REDIRECT_URI, World, world_with};

/// A provider that speaks CIBA, with other settings, and a client in poll mode.
async fn ciba(op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder) -> World {
    ciba_with(op, |client| client).await
}

/// The same with other settings of the client.
async fn ciba_with(
    op: impl FnOnce(TestProviderBuilder) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    world_with(
        |builder| op(builder.ciba()),
        |builder| client(builder.backchannel_token_delivery_mode(DeliveryMode::Poll)),
    )
    .await
}

/// A provider that decides when the test says so.
async fn undecided() -> World {
    ciba(|op| op.decisions(DecisionPolicy::scripted())).await
}

/// A client with a key, in the provider and in the program.
async fn with_key(
    algorithm: SigningAlgorithm,
    op: impl FnOnce(TestProviderBuilder, TestClient) -> TestProviderBuilder,
    client: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> World {
    let key = SigningKey::generate(algorithm).expect("a key");
    let jwk = serde_json::to_string(&key.public_jwk()).expect("a JWK is JSON");
    let registered = TestClient::private_key_jwt(CLIENT_ID, &jwk).redirect_uri(REDIRECT_URI).signing_algorithm("ES256");
    let method = ClientAuthentication::private_key_jwt(key);
    ciba_with(|builder| op(builder, registered), |builder| client(builder.authentication(method))).await
}

impl World {
    /// Asks for a user, who is then waited for.
    async fn asked(&self) -> PendingAuthentication {
        let request = self.client.backchannel_authentication(UserHint::login_hint("user-1"));
        request.send().await.expect("the OP asks the user")
    }

    /// The backchannel authentication requests.
    fn asks(&self) -> Vec<RecordedRequest> {
        self.op.requests_to(Endpoint::BackchannelAuthentication)
    }
}
