//! Signing one user in through the Deferred Token Response flow, from discovery to verified claims.
//!
//! Run it with `scripts/demo`. It starts its own OpenID Provider, whose "reviewer" checks a passport for a few seconds.
//! It prints every step with the requests and responses.
//!
//! With `OPENID_DEFERRED_ISSUER`, `OPENID_DEFERRED_CLIENT_ID` and, for a confidential client,
//! `OPENID_DEFERRED_CLIENT_SECRET` it signs in at a real provider instead; see `--help`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use openid_deferred::{Claims, Client, Error, InterimState, Outcome, SignIn};

#[path = "quickstart/demo.rs"]
mod demo;
#[path = "quickstart/progress.rs"]
mod progress;
#[path = "quickstart/real.rs"]
mod real;

use progress::Progress;

/// The whole flow, with everything that an application does. Only the visit of the browser differs between the
/// demonstration and a real provider, so the caller provides it.
async fn sign_in(client: &Client, browser: &mut dyn Browser, progress: &Progress) -> anyhow::Result<Claims> {
    // 1. Make the URL for the browser, and a session to keep until the browser returns. A web application seals the
    //    session into a cookie of that browser. This one keeps it in a variable.
    let (url, session) = client.authorize().scopes(browser.scopes()).start().await?;
    progress.step("Send the user out", "response_type=deferred_code, PKCE, and the thumbprint of a fresh DPoP key");

    // 2. The user finishes with the browser in a minute, and returns with a query string.
    let query = browser.visit(url.as_str()).await?;
    progress.step("The user is back", "the query string has a deferred_code, and the user can leave now");

    // 3. Check the response and exchange the deferred code. It is sent once. After that there is a pending sign-in,
    //    which `pending.seal(..)` converts to bytes that survive a restart.
    let mut pending = match client.authorization_response(&query, session).await? {
        SignIn::Deferred(pending) => pending,
        SignIn::Complete(authentication) => {
            progress.step("The provider answered at once", "there is nothing to wait for");
            return Ok(authentication.claims().clone());
        }
        _ => bail!("this example does not know this variant"),
    };
    progress.step("Exchange the deferred code", "the provider returns an identifier to poll with, and the interval");
    match pending.interim() {
        InterimState::Verified(interim) => {
            let name = interim.claims().name().unwrap_or("somebody");
            progress.note(&format!("an interim ID Token says, not verified yet, that this is {name}"));
        }
        InterimState::Rejected(rule) => progress.note(&format!("an interim ID Token was rejected: {rule}")),
        _ => {}
    }

    // 4. Wait. This polls at the provider's pace and survives its outages, for seconds or for weeks.
    progress.step("Wait for the decision", "one poll per interval, each with a DPoP proof of its own");
    let outcome = client.wait(&mut pending).on_event(|pending, event| progress.event(pending, &event)).await?;
    progress.finish();

    // 5. There is exactly one outcome.
    match outcome {
        Outcome::Approved(authentication) => {
            progress.step("Approved", "the final ID Token is verified; these are its claims");
            if !authentication.is_sender_constrained() {
                progress.note("the access token is not bound to the DPoP key");
            }
            Ok(authentication.claims().clone())
        }
        Outcome::Denied(denial) => bail!("the provider denied: {}", denial.description().unwrap_or("no reason given")),
        Outcome::Expired(_) => bail!("time ran out before the provider decided; start again"),
        Outcome::Failed(response) => {
            bail!(
                "the provider ended the sign-in with {response}: {}",
                response.description().unwrap_or("no reason given")
            )
        }
        Outcome::Invalid(violation) => bail!("the provider's approval is not valid: {violation}"),
        Outcome::Cancelled => bail!("the sign-in was cancelled"),
        Outcome::Unknown => bail!("the provider's answer was lost, and it is sent only once; start again"),
        other => bail!("this example does not know this variant: {other:?}"),
    }
}

/// How the user gets to the provider and back.
trait Browser {
    /// The scopes to request in addition to `openid`.
    fn scopes(&self) -> Vec<String>;

    /// Visits the authorization URL. Returns the query string with which the provider sends the user back.
    fn visit<'a>(&'a mut self, url: &'a str) -> futures_util::future::BoxFuture<'a, anyhow::Result<String>>;
}

#[tokio::main]
async fn main() -> ExitCode {
    let ran = match real::Settings::from_environment() {
        Ok(Some(settings)) => real::run(settings).await,
        Ok(None) => demo::run().await,
        Err(error) => Err(error),
    };
    // The claims are the only thing on stdout, so that a script can read them.
    match ran.and_then(|claims| serde_json::to_string(claims.as_json()).context("the claims are not JSON")) {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            // Errors of the library never contain the provider's text, but it can be requested.
            let response = error.downcast_ref::<Error>().and_then(Error::error_response);
            if let Some(description) = response.and_then(|response| response.description()) {
                eprintln!("the provider says: {description}");
            }
            ExitCode::FAILURE
        }
    }
}
