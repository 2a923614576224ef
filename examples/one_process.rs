//! A tool for one user, without a store. It keeps the pending sign-in in a file, so it can be stopped at any time and
//! continue tomorrow.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
use openid_deferred::{Client, Keyring, Outcome, PendingAuthentication, SealingKey, SignIn, SystemRandom, WaitEvent};

/// Sends the user to the OP, and writes the pending sign-in to a file.
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

/// Waits for the sign-in in the file, today or tomorrow.
async fn go_on(client: &Client, keyring: &Keyring, file: &Path) -> anyhow::Result<Outcome> {
    let mut pending = PendingAuthentication::open(keyring, &fs::read(file)?)?;
    let keep = |pending: &PendingAuthentication| -> anyhow::Result<()> {
        // Replaces the file atomically: writes a new file first, and then renames it.
        let fresh = file.with_extension("new");
        fs::write(&fresh, pending.seal(keyring)?)?;
        Ok(fs::rename(&fresh, file)?)
    };
    let wait = client.wait(&mut pending).on_event(|pending, event| match event {
        // Just before a poll, so that a lost answer is noticed. Just after an answer that the OP sends only once.
        WaitEvent::Asking | WaitEvent::Answered => {
            if let Err(error) = keep(pending) {
                eprintln!("the sign-in could not be saved: {error:#}");
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
    // Store this key with the user's other secrets.
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
