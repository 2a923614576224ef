//! One process without a store: a tool for one user. What waits is kept in a file, so the tool may be stopped at any time
//! and go on tomorrow.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
use openid_deferred::{Client, Keyring, Outcome, PendingAuthentication, SealingKey, SignIn, SystemRandom, WaitEvent};

/// Sends the user out and writes down what to wait for.
async fn begin(client: &Client, op: &TestProvider, keyring: &Keyring, file: &Path) -> anyhow::Result<()> {
    let (url, session) = client.authorize().scopes(["profile"]).start().await?;
    // In a tool with a real OP: open the browser, and listen at the redirect URI as `examples/quickstart` does.
    let query = op.visit(url).query();
    let SignIn::Deferred(pending) = client.authorization_response(&query, session).await? else {
        bail!("the OP answered at once");
    };
    fs::write(file, pending.seal(keyring)?)?;
    Ok(())
}

/// Waits for what was written down, today or tomorrow.
async fn go_on(client: &Client, keyring: &Keyring, file: &Path) -> anyhow::Result<Outcome> {
    let mut pending = PendingAuthentication::open(keyring, &fs::read(file)?)?;
    let keep = |pending: &PendingAuthentication| -> anyhow::Result<()> {
        // Whole or not at all: written beside it first, then put in its place.
        let fresh = file.with_extension("new");
        fs::write(&fresh, pending.seal(keyring)?)?;
        Ok(fs::rename(&fresh, file)?)
    };
    let wait = client.wait(&mut pending).on_event(|pending, event| match event {
        // Just before the question, so that a lost answer is noticed; just after an answer that is given once only.
        WaitEvent::Asking | WaitEvent::Answered => {
            if let Err(error) = keep(pending) {
                eprintln!("a crash now would lose something: {error:#}");
            }
        }
        WaitEvent::Pending => println!("not yet: {}", pending.progress().unwrap_or("no details")),
        _ => {}
    });
    let outcome = wait.await?;
    fs::remove_file(file)?;
    Ok(outcome)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let op = TestProvider::builder()
        .client(TestClient::public("tool"))
        .interval(Duration::from_secs(1))
        .decisions(DecisionPolicy::after_polls(2))
        .start()?;
    let client =
        Client::builder(op.issuer(), "tool").redirect_uri("http://127.0.0.1:8765/cb").allow_insecure_loopback();
    let client = client.discover().await?;
    // Kept where the user's other secrets are.
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom)?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pending");

    begin(&client, &op, &keyring, &file).await?;
    op.last_process().progress("a person is looking at the passport");
    match go_on(&client, &keyring, &file).await? {
        Outcome::Approved(authentication) => println!("welcome, {}", authentication.claims().subject()),
        Outcome::Denied(denial) => println!("refused: {}", denial.description().unwrap_or("no reason given")),
        outcome => println!("start again: {outcome:?}"),
    }
    op.assert_clean();
    Ok(())
}
