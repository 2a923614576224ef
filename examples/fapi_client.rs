//! A client under the rules of FAPI 2.0, with signed requests and responses, as banks require.
//!
//! `cargo run --example fapi_client --features testing` runs it against its own OpenID Provider, which refuses every
//! request that breaks these rules. It is not FAPI conformance: FAPI 2.0 only covers `response_type=code`.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::encryption::{ClientAlgorithms, DecryptionKey, KeyManagementAlgorithm};
use openid_deferred::testing::{DecisionPolicy, TestClient, TestClock, TestProvider};
use openid_deferred::{Client, ClientAuthentication, Outcome, SignIn, SigningAlgorithm, SigningKey};

const REDIRECT_URI: &str = "https://rp.example/callback";
const ALG: KeyManagementAlgorithm = KeyManagementAlgorithm::EcdhEsA256Kw;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // One key signs client assertions and requests. The provider encrypts its responses for the other. Both may come
    // from PEM files, and the first from a key management service (`Signer`).
    let signing_key = Arc::new(SigningKey::generate(SigningAlgorithm::Ps256)?);
    let decryption_key = DecryptionKey::generate(ALG)?;

    // The data that the bank's provider has registered: public keys and algorithms.
    let clock = TestClock::automatic();
    let registered = TestClient::private_key_jwt("my-app", &serde_json::to_string(&signing_key.public_jwk())?)
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("PS256")
        .jwks(&serde_json::json!({ "keys": [decryption_key.public_jwk()] }))
        .encrypted_authorization_response(ALG.as_str(), "A256GCM");
    let op = TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .fapi2()
        .require_signed_request_object()
        .client(registered)
        .interval(Duration::from_secs(3600))
        .decisions(DecisionPolicy::after(Duration::from_secs(3 * 86_400)))
        .start()?;

    let client = Client::builder(op.issuer(), "my-app")
        .fapi2_message_signing()
        .authentication(ClientAuthentication::private_key_jwt(signing_key))
        .decryption_key(decryption_key)
        .algorithms(
            ClientAlgorithms::new()
                .id_token_signed_response_alg(SigningAlgorithm::Ps256)
                .authorization_signed_response_alg(SigningAlgorithm::Ps256)
                .authorization_encrypted_response(ALG),
        )
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client()) // these two lines
        .clock(Arc::new(clock)) // are for the demonstration only
        .discover()
        .await?;
    println!("served at the client's jwks_uri: {}", client.jwks());

    // The browser sees only a reference to the request, and a response that only this client can decrypt.
    let (url, session) = client.authorize().scopes(["profile"]).start().await?;
    println!("the browser goes to {}", url.path());
    for (name, _) in url.query_pairs() {
        println!("  with {name}");
    }
    let back = op.visit(url);
    for (name, value) in back.parameters() {
        println!("it comes back with {name}, a JWT of {} parts", value.split('.').count());
    }
    // The name of the session's cookie depends on the `state`, which is in the encrypted response.
    assert_eq!(client.cookie_name_for(&back.query()), Some(session.cookie_name()));

    let SignIn::Deferred(mut pending) = client.authorization_response(&back.query(), session).await? else {
        anyhow::bail!("the provider answered at once");
    };
    let Outcome::Approved(authentication) = client.wait(&mut pending).await? else { anyhow::bail!("not approved") };
    let (subject, bound) = (authentication.claims().subject(), authentication.is_sender_constrained());
    println!("signed in: {subject}; the tokens are bound to a key: {bound}");

    // A setting that the rules forbid is an error before any sign-in starts.
    let forbidden = Client::builder(op.issuer(), "my-app").fapi2().client_secret("s3cret").build();
    println!("with a client secret: {}", forbidden.expect_err("FAPI 2.0 forbids client secrets"));

    op.assert_clean();
    Ok(())
}
