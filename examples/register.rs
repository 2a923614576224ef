//! A client that registers itself: the differences to its request, a user who signs in through it, and its deletion.
//!
//! `cargo run --features testing --example register`

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::registration::{
    DifferenceEffect, Registrar, Registration, RegistrationRefusal, RegistrationRequest,
};
use openid_deferred::testing::{DecisionPolicy, TestClock, TestProvider};
use openid_deferred::{Keyring, Outcome, SignIn, SigningAlgorithm, SigningKey};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // An OP that registers anyone who has the token, never binds access tokens, and takes a week to decide.
    let clock = TestClock::automatic();
    let op = TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .initial_access_token("taken-from-the-console")
        .registers(|metadata| {
            metadata.insert("dpop_bound_access_tokens".into(), false.into());
        })
        .interval(Duration::from_secs(3_600))
        .decisions(DecisionPolicy::after(Duration::from_secs(7 * 86_400)))
        .start()?;
    let keyring = Keyring::ephemeral()?; // an application stores its keys

    let registrar = Registrar::builder(op.issuer())
        .initial_access_token("taken-from-the-console")
        .http_client(op.http_client()) // these two lines
        .clock(Arc::new(clock.clone())) // are for the example only
        .build()?;
    let key = SigningKey::generate(SigningAlgorithm::Es256)?; // an application stores it
    let request = RegistrationRequest::new("https://rp.example/callback")
        .private_key_jwt(&key)
        .grant_type("refresh_token")
        .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
        .deferred_client_notification_endpoint("https://rp.example/deferred/ping")
        .dpop_bound_access_tokens()
        .client_name("Example Bank")
        .client_name_in("de", "Beispielbank");
    let registration = registrar.register(request).await?;
    let stored = registration.seal(&keyring)?; // first of all, because the OP does not send it again
    println!("registered for {}", registration.metadata().grant_types().join(" and "));
    for difference in registration.differences() {
        if difference.effect() >= DifferenceEffect::Weakens {
            println!("look at {difference}");
        }
    }

    // Later, perhaps in another program, the client gets the registered settings.
    let mut registration = Registration::open(&keyring, &stored)?;
    let client =
        registration.client()?.signing_key(key).http_client(op.http_client()).clock(Arc::new(clock)).discover().await?;
    let (url, session) = client.authorize().scopes(["profile"]).start().await?;
    let query = op.visit(url).query(); // the user's browser visits the URL and comes back
    let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await? else {
        anyhow::bail!("the OP answered at once");
    };
    match client.wait(&mut pending).await? {
        Outcome::Approved(authentication) => println!("welcome, {}", authentication.claims().subject()),
        other => println!("not approved: {other:?}"),
    }

    // An update contains all members again, and the OP replaces the token that it was made with.
    let update = registration.metadata().to_request().client_name("Example Bank & Sons");
    registrar.update(&mut registration, update).await?;
    let stored = registration.seal(&keyring)?;
    println!("now called {}", registration.metadata().client_name().unwrap_or_default());

    registrar.delete(&Registration::open(&keyring, &stored)?).await?;
    let Err(error) = registrar.read(&mut registration).await else { anyhow::bail!("it is still there") };
    assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::AccessToken));
    println!("deleted");
    op.assert_clean();
    Ok(())
}
