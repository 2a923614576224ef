//! The commands about one sign-in.

use std::time::SystemTime;

use clap::Args;
use openid_deferred::operations::{Cancel, Operations, Overview, PollNow, Requeue, Stuck};
use openid_deferred::store::ProcessId;
use openid_deferred::{Clock as _, Error, SystemClock};
use serde::Serialize;

use super::list::{due, trouble};
use crate::Health;
use crate::failure::Failure;
use crate::keys::OptionalKeys;
use crate::location::Opened;
use crate::output::{Output, counted, name, printable, rough, table, word};

#[derive(Args)]
pub(crate) struct One {
    /// The identifier of the sign-in, as the logs (field `process`) and `list` show it.
    #[arg(allow_hyphen_values = true)]
    id: ProcessId,
}

/// A sign-in, and the keys to compare it with.
#[derive(Args)]
pub(crate) struct Compared {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    keys: OptionalKeys,
}

/// What was done, with the sign-in beside it.
#[derive(Serialize)]
struct Answer<'a, T> {
    id: ProcessId,
    #[serde(flatten)]
    answer: &'a T,
    /// Why the sign-in is stuck in spite of it.
    stuck: Option<Stuck>,
}

/// What was done, in words.
struct Words {
    done: String,
    /// What follows if the sign-in is not stuck.
    follows: &'static str,
}

impl Words {
    fn new(done: impl Into<String>) -> Self {
        Self { done: done.into(), follows: "" }
    }

    fn then(self, follows: &'static str) -> Self {
        Self { follows, ..self }
    }
}

impl Compared {
    pub(crate) async fn show(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let operations = opened.operations_with(self.keys.keyring()?.as_ref());
        let overview = operations.show(self.one.id).await.map_err(|error| self.one.failed("show", &error))?;
        let overview = overview.ok_or_else(|| self.one.unknown())?;
        output.print(&overview, || details(&overview, SystemClock.now()))?;
        Ok(Health::Well)
    }

    pub(crate) async fn poll_now(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let (id, operations) = (self.one.id, opened.operations_with(self.keys.keyring()?.as_ref()));
        let answer = operations.poll_now(id).await.map_err(|error| self.one.failed("poll", &error))?;
        let words = match answer {
            PollNow::NotFound => return Err(self.one.unknown()),
            PollNow::Scheduled { due_in } if due_in.is_zero() => {
                Words::new("is due now").then(" and will be polled by the next free replica")
            }
            PollNow::Scheduled { due_in } => {
                Words::new(format!("is due in {}, the earliest time that the OP permits", rough(Some(due_in))))
            }
            PollNow::InFlight => Words::new("is claimed by a replica").then(", which is polling it"),
            PollNow::NoBody => Words::new("is not polled: its sealed data are missing"),
            _ => Words::new("is decided and not polled any more"),
        };
        self.print(&operations, output, &answer, words).await?;
        Ok(if answer == PollNow::NoBody { Health::Unwell } else { Health::Well })
    }

    pub(crate) async fn requeue(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let (id, operations) = (self.one.id, opened.operations_with(self.keys.keyring()?.as_ref()));
        let answer = operations.requeue(id).await.map_err(|error| self.one.failed("requeue", &error))?;
        let words = match answer {
            Requeue::NotFound => return Err(self.one.unknown()),
            Requeue::Done { state } => Words::new(format!("is released in the state {} and due now", word(&state))),
            Requeue::InUse { ends_in } => {
                Words::new(format!("is in use: a request may be in flight. Its claim ends in {}", rough(Some(ends_in))))
                    .then(", and it is due again by itself")
            }
            Requeue::Free => Words::new("is not claimed").then("; it continues without intervention"),
            _ => Words::new("is not released: its sealed data are missing"),
        };
        self.print(&operations, output, &answer, words).await?;
        Ok(if answer == Requeue::NoBody { Health::Unwell } else { Health::Well })
    }

    pub(crate) async fn cancel(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let (id, operations) = (self.one.id, opened.operations_with(self.keys.keyring()?.as_ref()));
        let answer = operations.cancel(id).await.map_err(|error| self.one.failed("cancel", &error))?;
        let words = match answer {
            Cancel::NotFound => return Err(self.one.unknown()),
            Cancel::Requested => Words::new("is cancelled").then("; a replica tells the OP at the next poll"),
            Cancel::Told => Words::new("is cancelled, and the OP was told or cannot be told"),
            _ => Words::new("already has its outcome").then(", which is delivered unchanged"),
        };
        self.print(&operations, output, &answer, words).await?;
        Ok(Health::Well)
    }

    /// Prints the answer, and whether the sign-in is stuck in spite of what was done.
    async fn print(
        &self,
        operations: &Operations,
        output: &mut Output,
        answer: &impl Serialize,
        words: Words,
    ) -> Result<(), Failure> {
        let (id, Words { done, follows }) = (self.one.id, words);
        let seen = operations.show(id).await;
        let seen = seen.map_err(|error| Failure::library(format!("{id} {done}, but cannot be shown"), &error))?;
        let stuck = seen.as_ref().and_then(|sign_in| sign_in.stuck);
        let why = seen.as_ref().and_then(|sign_in| Some(why(sign_in, sign_in.stuck?, SystemClock.now())));
        output.print(&Answer { id, answer, stuck }, || match why {
            None => format!("{id} {done}{follows}"),
            Some(why) => format!("{id} {done}\n{why}"),
        })
    }
}

/// Why a sign-in is stuck, and what to do.
fn why(sign_in: &Overview, stuck: Stuck, now: SystemTime) -> String {
    match stuck {
        Stuck::SetAside => {
            "It stays as it is: its sealed data are missing. Restore them from a backup and run `requeue`, \
            or run `forget` and ask the user to start again."
                .to_owned()
        }
        Stuck::KeyMissing => format!(
            "It stays as it is: the given keys do not include its key {}. Add the key to the keyring of every replica.",
            sign_in.key_id
        ),
        Stuck::ClientRefused => "It stays as it is: the OP refuses its client, and only probes are sent. Correct the \
            secret, key or registration of the client; `stats` names it."
            .to_owned(),
        Stuck::RetryAfter => format!(
            "It stays as it is: Retry-After of the OP forbids polls, and ends {}. Ask the OP, and ask the user to wait.",
            due(sign_in.retry_at, now)
        ),
        Stuck::Overdue => "It stays as it is: it has been due for ten minutes or longer, and no replica takes it. See \
            whether a replica runs that has its client and its key and, for an outcome, a consumer."
            .to_owned(),
        Stuck::Undelivered => format!(
            "It may fail again: its outcome was delivered {} times and never acknowledged. See the log of the consumer.",
            sign_in.deliveries
        ),
        Stuck::Troubled => format!(
            "It may fail again: the last {} polls or verifications failed. The last trouble: {}.",
            sign_in.troubles,
            printable(&trouble(sign_in))
        ),
        _ => format!("It is stuck: {}. See the guide to the command-line tool.", word(&stuck)),
    }
}

impl One {
    pub(crate) async fn forget(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let forgotten = opened.operations().forget(self.id).await.map_err(|error| self.failed("forget", &error))?;
        if forgotten.erased == 0 && forgotten.left == 0 {
            return Err(self.unknown());
        }
        let (erased, left) = (forgotten.erased, forgotten.left);
        output.print(&forgotten, || {
            format!(
                "{} is erased: {} in the tables, and {left} remained at a second check",
                self.id,
                counted(erased, "entry", "entries")
            )
        })?;
        Ok(if forgotten.is_complete() { Health::Well } else { Health::Unwell })
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
