//! What the application does with the decisions of the OP.

use openid_deferred::{Claims, Delivery, Outcome, Poller};

use crate::tables::Tables;

/// A person whom the OP has verified. `issuer` and `subject` together identify them; everything else may change.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    pub issuer: String,
    pub subject: String,
    pub name: Option<String>,
    pub email: Option<String>,
}

impl From<&Claims> for Person {
    fn from(claims: &Claims) -> Self {
        Self {
            issuer: claims.issuer().to_owned(),
            subject: claims.subject().to_owned(),
            name: claims.name().map(str::to_owned),
            // An address that the OP has not verified may be that of somebody else.
            email: claims.email().filter(|_| claims.email_verified() == Some(true)).map(str::to_owned),
        }
    }
}

/// How a sign-in ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    Approved(Person),
    Denied,
    /// The OP did not decide in time.
    Expired,
    /// The OP gave up. A late success may follow.
    Failed,
    /// The OP's answer is not valid.
    Invalid,
    /// The OP's answer was lost. A late success may follow.
    Unknown,
    Cancelled,
}

impl Ending {
    /// The name in the tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approved(_) => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn person(&self) -> Option<&Person> {
        match self {
            Self::Approved(person) => Some(person),
            _ => None,
        }
    }
}

impl From<&Outcome> for Ending {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            // The OP approved before it received the cancellation. The user's decision counts.
            Outcome::Approved(authentication) if authentication.is_after_cancellation() => Self::Cancelled,
            // Drops the tokens. An application that calls an API with them keeps `authentication.seal(&keyring)`.
            Outcome::Approved(authentication) => Self::Approved(authentication.claims().into()),
            Outcome::Denied(_) => Self::Denied,
            Outcome::Expired(_) => Self::Expired,
            Outcome::Failed(response) => {
                tracing::error!(%response, "the OP ended a sign-in; nobody was refused");
                Self::Failed
            }
            Outcome::Invalid(violation) => {
                tracing::error!(%violation, "the OP's answer is not valid; nobody is signed in");
                Self::Invalid
            }
            Outcome::Cancelled => Self::Cancelled,
            // The enum may grow. A new variant is not an approval.
            _ => Self::Unknown,
        }
    }
}

/// Receives outcomes until the poller is shut down, and keeps them in the application's tables.
///
/// It does not sign users in, because an outcome identifies a person and not a browser. The browser that started the
/// sign-in fetches the outcome in `web.rs`.
pub async fn take(poller: Poller, tables: Tables) {
    poller.outcomes().handle_each(async move |delivery| Ok(keep(delivery, &tables).await?)).await;
}

/// Commits. After that the outcome is acknowledged. A crash between the two repeats the delivery, here or in another
/// replica, which then changes nothing.
async fn keep(delivery: &Delivery, tables: &Tables) -> anyhow::Result<()> {
    let purpose = String::from_utf8_lossy(delivery.context());
    let ending = Ending::from(delivery.outcome());
    tables.keep_outcome(delivery.id(), &purpose, &ending).await?;
    tracing::info!(process = %delivery.id(), ending = ending.name(), "a sign-in has ended");
    Ok(())
}
