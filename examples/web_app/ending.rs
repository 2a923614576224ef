//! How the application handles outcomes.

use openid_deferred::{Claims, Delivery, Outcome, Poller};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;

/// How a booking ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "snake_case")]
pub enum Ending {
    /// The OP verified the user's identity.
    Approved(Person),
    /// The OP refused later.
    Denied { reason: Option<String> },
    /// The OP did not decide in time.
    Expired,
    /// The OP gave up. This says nothing about the user.
    Failed,
    /// The OP's answer is not valid.
    Invalid,
    /// The OP's answer was lost.
    Unknown,
    /// The user cancelled.
    Cancelled,
}

/// A person whom the OP has verified. `issuer` and `subject` together identify them; everything else may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    pub issuer: String,
    pub subject: String,
    pub name: Option<String>,
    pub birthdate: Option<String>,
    pub email: Option<String>,
}

impl Person {
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.subject)
    }
}

impl From<&Claims> for Person {
    fn from(claims: &Claims) -> Self {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Self {
            issuer: claims.issuer().to_owned(),
            subject: claims.subject().to_owned(),
            name: own(claims.name()),
            birthdate: own(claims.birthdate()),
            email: own(claims.email()),
        }
    }
}

impl From<&Outcome> for Ending {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            // The OP approved before it received the cancellation. The user's decision counts.
            Outcome::Approved(authentication) if authentication.is_after_cancellation() => Self::Cancelled,
            // Drops the tokens, because this application calls no API with them. Otherwise it would keep
            // `authentication.seal(&keyring)`.
            Outcome::Approved(authentication) => Self::Approved(authentication.claims().into()),
            Outcome::Denied(denial) => Self::Denied { reason: denial.description().map(str::to_owned) },
            Outcome::Expired(_) => Self::Expired,
            Outcome::Failed(response) => {
                eprintln!("the OP ended a sign-in: {response}");
                Self::Failed
            }
            Outcome::Invalid(violation) => {
                eprintln!("the OP's answer is not valid: {violation}");
                Self::Invalid
            }
            Outcome::Cancelled => Self::Cancelled,
            // The enum may grow. A new variant is not an approval.
            _ => Self::Unknown,
        }
    }
}

impl Ending {
    /// Whether no other ending can follow. A late success of the OP may follow the other two.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Failed)
    }
}

/// Receives outcomes while the poller runs, and stores them.
///
/// It signs no user in: an outcome says who a person is, not which browser they use. The browser that made the booking
/// may fetch it.
pub async fn take(poller: &Poller, ledger: &Ledger) -> anyhow::Result<()> {
    let mut outcomes = poller.outcomes();
    while let Some(delivery) = outcomes.next().await {
        // First store, then acknowledge. If either fails, the outcome is delivered again.
        if let Err(error) = settle(&delivery, ledger).await {
            eprintln!("an outcome could not be handled: {error:#}");
        }
    }
    Ok(())
}

async fn settle(delivery: &Delivery, ledger: &Ledger) -> anyhow::Result<()> {
    let boat = String::from_utf8_lossy(delivery.context()).into_owned();
    ledger.end(delivery.id(), boat, delivery.outcome().into()).await?;
    delivery.acknowledge().await?;
    Ok(())
}
