//! After a sign-in: calls an API with tokens that are bound to a key, finds out why a call is refused, refreshes the
//! tokens, and revokes them.
//!
//! `cargo run --example resource_server_call --features testing` runs it against its own OpenID Provider, with a clock
//! that skips the hour in which the access token expires.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use openid_deferred::testing::{NoncePolicy, TestClient, TestClock, TestProvider};
use openid_deferred::tokens::TokenTypeHint;
use openid_deferred::{Authentication, Client, ClientAuthentication, ErrorResponse, Outcome, SignIn};

/// Calls the API, and again with new tokens if the old ones have expired.
async fn call(client: &Client, tokens: &mut Authentication, url: &str) -> anyhow::Result<Bytes> {
    for attempt in ["with the tokens as they are", "with new ones"] {
        let request = Request::post(url).header("content-type", "text/plain").body(Bytes::from("a payment"))?;
        let response = client.resource(tokens, request).await?;
        match response.extensions().get::<ErrorResponse>() {
            None => {
                println!("{attempt}: {}", response.status());
                return Ok(response.into_body());
            }
            Some(error) if error.code() == "invalid_token" => println!("{attempt}: {error}"),
            Some(error) => anyhow::bail!("the API wants the scope {:?}: {error}", error.scope()),
        }
        client.refresh(tokens).await?;
        // An application seals and stores `tokens` here, because the old refresh token is used up.
    }
    anyhow::bail!("the API refuses new tokens too")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let clock = TestClock::automatic();
    let op = TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .client(TestClient::secret_basic("my-app", "s3cret").redirect_uri("https://rp.example/callback"))
        .dpop_nonces(NoncePolicy::Required)
        .start()?;
    let client = Client::builder(op.issuer(), "my-app")
        .authentication(ClientAuthentication::client_secret_basic("s3cret"))
        .redirect_uri("https://rp.example/callback")
        .http_client(op.http_client()) // these two lines
        .clock(Arc::new(clock.clone())) // are for the demonstration only
        .discover()
        .await?;
    let (url, session) = client.authorize().start().await?;
    let SignIn::Deferred(mut pending) = client.authorization_response(&op.visit(url).query(), session).await? else {
        anyhow::bail!("the provider answered at once");
    };
    let Outcome::Approved(mut tokens) = client.wait(&mut pending).await? else { anyhow::bail!("not approved") };

    call(&client, &mut tokens, &op.resource()).await?;
    clock.advance(Duration::from_secs(2 * 3600));
    let answer = call(&client, &mut tokens, &op.resource()).await?;
    println!("the API says: {}", String::from_utf8_lossy(&answer));

    if let Some(token) = tokens.access_token() {
        let described = client.introspect(token, TokenTypeHint::AccessToken).await?;
        println!("the token is good for {:?} until {:?}", described.scope(), described.expires_at());
    }
    client.revoke(&tokens).await?;
    Ok(())
}
