//! What the application makes of outcomes.

use openid_deferred::{Authentication, Claims, Delivery, Outcome, Poller};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;

/// How a booking ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "snake_case")]
pub enum Ending {
    /// The OP knows who it is.
    Approved(Person),
    /// The user declined while the browser was at the OP.
    Declined,
    /// The OP refused, later.
    Denied { reason: Option<String> },
    /// Nobody decided in time.
    Expired,
    /// The OP gave up, or the sign-in never got going. It says nothing about the user.
    Failed,
    /// The OP's answer cannot be trusted.
    Invalid,
    /// The OP's answer was lost.
    Unknown,
    /// The user no longer wanted it.
    Cancelled,
}

/// Somebody whom the OP has verified. `issuer` and `subject` together name them; everything else may change.
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

impl From<&Authentication> for Ending {
    /// The tokens are not kept, because this application calls no API with them. One that does keeps
    /// `authentication.seal(&keyring)`.
    fn from(authentication: &Authentication) -> Self {
        match authentication.is_after_cancellation() {
            // The OP had approved before it heard that nobody wants it any more. The user's word counts.
            true => Self::Cancelled,
            false => Self::Approved(authentication.claims().into()),
        }
    }
}

impl From<&Outcome> for Ending {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Approved(authentication) => authentication.into(),
            Outcome::Denied(denial) => Self::Denied { reason: denial.description().map(str::to_owned) },
            Outcome::Expired(_) => Self::Expired,
            Outcome::Failed(response) => {
                eprintln!("the OP ended a process: {response}");
                Self::Failed
            }
            Outcome::Invalid(violation) => {
                eprintln!("the OP's answer is not valid: {violation}");
                Self::Invalid
            }
            Outcome::Cancelled => Self::Cancelled,
            // The enum may grow. Whatever comes, it is no approval.
            _ => Self::Unknown,
        }
    }
}

impl Ending {
    /// Whether nothing else can follow. The OP's late success may follow the other two.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Failed)
    }
}

/// Takes outcomes for as long as the poller runs, and writes them down.
///
/// Nobody is signed in here: an outcome says who somebody is, not which browser they are sitting at. The booking that it
/// belongs to was made by one browser, which may fetch it.
pub async fn take(poller: &Poller, ledger: &Ledger) -> anyhow::Result<()> {
    let mut outcomes = poller.outcomes();
    while let Some(delivery) = outcomes.next().await {
        // First written down, then acknowledged. If either fails it comes again.
        if let Err(error) = settle(&delivery, ledger).await {
            eprintln!("an outcome could not be dealt with: {error:#}");
        }
    }
    Ok(())
}

async fn settle(delivery: &Delivery, ledger: &Ledger) -> anyhow::Result<()> {
    let booking = std::str::from_utf8(delivery.context())?;
    ledger.end(booking, delivery.outcome().into()).await?;
    delivery.acknowledge().await?;
    Ok(())
}
