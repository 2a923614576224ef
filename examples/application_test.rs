//! Testing an application with `TestProvider`: an OP in the test's own process, a clock that skips weeks, and outages
//! on demand. Run it with `cargo test --example application_test --features testing`.

use openid_deferred::{Client, Error, Outcome, PendingAuthentication};

/// The part of an application that is tested. It decides who may come aboard.
pub async fn admit(client: &Client, mut pending: PendingAuthentication) -> Result<String, Error> {
    Ok(match client.wait(&mut pending).await? {
        Outcome::Approved(authentication) => format!("welcome, {}", authentication.claims().name().unwrap_or("you")),
        Outcome::Denied(denial) => format!("refused: {}", denial.description().unwrap_or("no reason given")),
        Outcome::Expired(_) => "time ran out, please start again".to_owned(),
        Outcome::Unknown => "the answer was lost, please start again".to_owned(),
        _ => "please start again".to_owned(),
    })
}

fn main() {
    println!("This is a test: cargo test --example application_test --features testing");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault, TestClient, TestClock, TestProvider, TestUser};
    use openid_deferred::{ClientAuthentication, SignIn};

    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    /// Signs a user in at an OP with these decisions and this fault. Returns the application's answer.
    async fn signs_in(decisions: DecisionPolicy, fault: Option<Fault>) -> String {
        let clock = Arc::new(TestClock::automatic());
        let op = TestProvider::builder()
            .in_process()
            .clock(clock.clone())
            .client(TestClient::secret_basic("boats", "secret").redirect_uri("https://boats.test/callback"))
            .user(TestUser::new("jane").claim("name", "Jane Doe"))
            .interval(Duration::from_secs(3600))
            .expires_in(4 * WEEK)
            .decisions(decisions)
            .start()
            .unwrap();
        let client = Client::builder(op.issuer(), "boats")
            .authentication(ClientAuthentication::client_secret_basic("secret"))
            .redirect_uri("https://boats.test/callback")
            .http_client(op.http_client())
            .clock(clock)
            .discover()
            .await
            .unwrap();
        let (url, session) = client.authorize().start().await.unwrap();
        let query = op.visit(url).query();
        let Ok(SignIn::Deferred(pending)) = client.authorization_response(&query, session).await else { panic!() };
        fault.into_iter().for_each(|fault| op.misbehave(fault));
        let said = admit(&client, pending).await.unwrap();
        op.assert_clean(); // no request broke a rule
        said
    }

    #[tokio::test]
    async fn a_user_is_signed_in_after_two_weeks_and_an_outage() {
        let outage = Fault::status(Endpoint::Poll, 502).skip(10).times(24);
        assert_eq!(signs_in(DecisionPolicy::after(2 * WEEK), Some(outage)).await, "welcome, Jane Doe");
    }

    #[tokio::test]
    async fn a_denial_a_lost_answer_and_an_expiration_are_different_outcomes() {
        let refused = signs_in(DecisionPolicy::after(WEEK).deny(), None).await;
        assert_eq!(refused, "refused: the identity could not be attested");
        let lost = Fault::reset(Endpoint::Poll).after_success();
        assert_eq!(signs_in(DecisionPolicy::after(WEEK), Some(lost)).await, "the answer was lost, please start again");
        assert_eq!(signs_in(DecisionPolicy::scripted(), None).await, "time ran out, please start again");
    }
}
