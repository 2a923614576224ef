//! What the application keeps of an outcome.

use openid_deferred::{Claims, Outcome, Poller};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;

/// How a booking ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ending {
    /// The name of the outcome, such as `denied`. An approval after the user has cancelled is `cancelled`.
    pub name: String,
    /// Whom the OP has verified, after an approval.
    pub person: Option<Person>,
    /// Why the OP refused.
    pub reason: Option<String>,
}

/// A person whom the OP has verified. `issuer` and `subject` together identify them; everything else may change.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

/// Drops the tokens, because this application calls no API with them. Otherwise it would keep
/// `authentication.seal(&keyring)`.
impl From<&Outcome> for Ending {
    fn from(outcome: &Outcome) -> Self {
        let reason = match outcome {
            Outcome::Denied(denial) => denial.description().map(str::to_owned),
            _ => None,
        };
        let person = outcome.approved().map(|user| user.claims().into());
        let name = match outcome {
            // The OP approved before it received the cancellation. The user's decision counts.
            Outcome::Approved(_) if person.is_none() => Outcome::Cancelled.name(),
            _ => outcome.name(),
        };
        Self { name: name.to_owned(), person, reason }
    }
}

/// Stores outcomes while the poller runs.
///
/// It signs no user in: an outcome says who a person is, not which browser they use. The browser that made the booking
/// may fetch it.
pub async fn take(poller: &Poller, ledger: &Ledger) {
    let outcomes = poller.outcomes();
    outcomes
        .handle_each(async |delivery| {
            let boat = String::from_utf8_lossy(delivery.context()).into_owned();
            Ok(ledger.end(delivery.id(), boat, &delivery.outcome().into()).await?)
        })
        .await;
}
