//! The commands about one sign-in.

use std::time::SystemTime;

use clap::Args;
use openid_deferred::operations::{Cancel, Overview, PollNow, Requeue};
use openid_deferred::store::ProcessId;
use openid_deferred::{Clock as _, Error, SystemClock};
use serde::Serialize;

use super::list::{due, trouble};
use crate::Health;
use crate::failure::Failure;
use crate::keys::OptionalKeys;
use crate::location::Opened;
use crate::output::{Output, name, rough, table, word};

#[derive(Args)]
pub(crate) struct One {
    /// The identifier of the sign-in, as the logs (field `process`) and `list` show it.
    #[arg(allow_hyphen_values = true)]
    id: ProcessId,
}

#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    keys: OptionalKeys,
}

impl Show {
    pub(crate) async fn run(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let (one, keyring) = (self.one, self.keys.keyring()?);
        let overview = opened.operations_with(keyring.as_ref()).show(one.id).await;
        let overview = overview.map_err(|error| one.failed("show", &error))?.ok_or_else(|| one.unknown())?;
        output.print(&overview, || details(&overview, SystemClock.now()))?;
        Ok(Health::Well)
    }
}

/// What was done, with the sign-in beside it.
#[derive(Serialize)]
struct Answer<'a, T> {
    id: ProcessId,
    #[serde(flatten)]
    answer: &'a T,
}

impl One {
    pub(crate) async fn poll_now(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let answer = opened.operations().poll_now(self.id).await.map_err(|error| self.failed("poll", &error))?;
        let text = match answer {
            PollNow::NotFound => return Err(self.unknown()),
            PollNow::Scheduled { due_in } if due_in.is_zero() => {
                "is due now and will be polled by the next free replica".to_owned()
            }
            PollNow::Scheduled { due_in } => {
                format!("is polled in {}, the earliest time that the OP permits", rough(Some(due_in)))
            }
            PollNow::InFlight => "is being polled".to_owned(),
            _ => "is decided and not polled any more".to_owned(),
        };
        self.print(output, &answer, &text)
    }

    pub(crate) async fn requeue(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let answer = opened.operations().requeue(self.id).await.map_err(|error| self.failed("requeue", &error))?;
        let text = match answer {
            Requeue::NotFound => return Err(self.unknown()),
            Requeue::Done { state } => format!("is released in the state {} and due now", word(&state)),
            Requeue::InUse { ends_in } => {
                format!("is in use: a request may be in flight. It is due again by itself in {}", rough(Some(ends_in)))
            }
            Requeue::Free => "is not claimed; it continues without intervention".to_owned(),
            _ => "has lost its sealed data: restore them from a backup, or forget it".to_owned(),
        };
        self.print(output, &answer, &text)
    }

    pub(crate) async fn cancel(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let answer = opened.operations().cancel(self.id).await.map_err(|error| self.failed("cancel", &error))?;
        let text = match answer {
            Cancel::NotFound => return Err(self.unknown()),
            Cancel::Requested => "is cancelled; a replica tells the OP at the next poll",
            Cancel::Told => "is cancelled, and the OP was told or cannot be told",
            _ => "already has its outcome, which is delivered unchanged",
        };
        self.print(output, &answer, text)
    }

    pub(crate) async fn forget(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let forgotten = opened.operations().forget(self.id).await.map_err(|error| self.failed("forget", &error))?;
        if forgotten.erased == 0 && forgotten.left == 0 {
            return Err(self.unknown());
        }
        let (erased, left) = (forgotten.erased, forgotten.left);
        output.print(&forgotten, || {
            format!(
                "{} is erased: {erased} entries in the tables, and {left} were still there after a second check",
                self.id
            )
        })?;
        Ok(if forgotten.is_complete() { Health::Well } else { Health::Unwell })
    }

    fn print(&self, output: &mut Output, answer: &impl Serialize, text: &str) -> Result<Health, Failure> {
        output.print(&Answer { id: self.id, answer }, || format!("{} {text}", self.id))?;
        Ok(Health::Well)
    }

    fn failed(&self, what: &str, error: &Error) -> Failure {
        Failure::library(format!("cannot {what} {}", self.id), error)
    }

    fn unknown(&self) -> Failure {
        Failure::new(format!("the store has no sign-in {}", self.id)).advise(
            "see whether --store and --schema name the right store; a sign-in that ended is erased after some days",
        )
    }
}

/// One line for each thing that is known.
fn details(sign_in: &Overview, now: SystemTime) -> String {
    let at = |at: Option<SystemTime>| due(at, now);
    let mut rows = vec![
        ("sign-in", sign_in.id.to_string()),
        ("client", sign_in.client.0.to_string()),
        ("issuer", name(sign_in.issuer.as_deref())),
        ("client identifier", name(sign_in.client_id.as_deref())),
        ("state", word(&sign_in.state)),
        ("waits for", word(&sign_in.waits_for)),
        ("stuck", sign_in.stuck.as_ref().map_or("no".to_owned(), word)),
        ("started", at(sign_in.started_at)),
        ("expires", at(sign_in.expires_at)),
        ("due", at(sign_in.due_at)),
        ("claimed until", at(sign_in.leased_until)),
        ("decided", at(sign_in.decided_at)),
        ("attempts", sign_in.attempts.to_string()),
        ("deliveries", sign_in.deliveries.to_string()),
        ("poll interval", rough(sign_in.interval)),
        ("planned wait", rough(sign_in.wait)),
        ("Retry-After until", at(sign_in.retry_at)),
        ("last answer", at(sign_in.last_answer_at)),
        ("troubles in a row", sign_in.troubles.to_string()),
        ("last trouble", trouble(sign_in)),
        ("cancellation", word(&sign_in.cancellation)),
        ("key", sign_in.key_id.clone()),
    ];
    if let Some(trouble) = &sign_in.trouble {
        rows.push(("trouble at", due(Some(trouble.at), now)));
    }
    if sign_in.is_answer_lost {
        rows.push(("lost answer", "an answer of the OP was lost, which may have been the success".to_owned()));
    }
    table(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
}
