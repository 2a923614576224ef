//! Notifies other replicas of changes at once, with `LISTEN` and `NOTIFY`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use deadpool::managed::Pool;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::types::Type;

use super::connection::{Connection, Manager, OnNotification, within};
use super::problem;
use super::session::Parameter;
use crate::clock::{Clock as _, SystemClock};
use crate::store::changes::Changes;
use crate::store::{Changed, StoreError};

/// Changes within this time are notified together, because a notifying transaction delays others during its commit.
const LINGER: Duration = Duration::from_millis(20);
/// The first pause between two attempts to listen.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The maximum of that pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After this time without a notification, the connection is checked.
const SILENCE: Duration = Duration::from_secs(10);
/// The time limit of an answer of the server.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection that listens, and notifies other replicas of changes made here. Its transactions are separate from
/// those that change rows, because PostgreSQL serializes the commits of transactions that notify.
pub(super) struct Notifications {
    pending: Arc<Pending>,
    _task: JoinSet<()>,
}

/// The changes made here that are not notified yet.
#[derive(Default)]
struct Pending {
    work: AtomicBool,
    outcomes: AtomicBool,
    some: Notify,
}

impl Notifications {
    /// Starts to listen. `changes` gets the changes of other replicas. `schema` is the name without quotation marks.
    pub(super) fn start(pool: Pool<Manager>, schema: &str, changes: Changes) -> Self {
        let pending = Arc::<Pending>::default();
        let listener = Listener { pool, channel: channel(schema), changes, pending: pending.clone() };
        let mut task = JoinSet::new();
        task.spawn(listener.run());
        Self { pending, _task: task }
    }

    /// Notifies other replicas soon.
    pub(super) fn announce(&self, changed: Changed) {
        self.pending.add(changed);
    }
}

impl Pending {
    fn add(&self, changed: Changed) {
        self.work.fetch_or(changed.work, Ordering::Relaxed);
        self.outcomes.fetch_or(changed.outcomes, Ordering::Relaxed);
        if changed != Changed::NOTHING {
            self.some.notify_one();
        }
    }

    fn take(&self) -> Changed {
        let take = |what: &AtomicBool| what.swap(false, Ordering::Relaxed);
        Changed { work: take(&self.work), outcomes: take(&self.outcomes) }
    }
}

/// The name of the channel, at most 63 bytes. Schemas that share a channel only wake each other needlessly.
fn channel(schema: &str) -> String {
    let mut channel = format!("openid_deferred {schema}");
    while channel.len() > 63 {
        channel.pop();
    }
    channel
}

struct Listener {
    pool: Pool<Manager>,
    channel: String,
    changes: Changes,
    pending: Arc<Pending>,
}

impl Listener {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.listen().await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    // There may have been changes while the store was not listening.
                    self.changes.notify(Changed::ALL);
                    self.follow(connection).await;
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::debug!(%source, "the store cannot listen for notifications; it checks for changes periodically");
                }
            }
            SystemClock.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn listen(&self) -> Result<Connection, StoreError> {
        let own = Arc::new(AtomicI32::new(0));
        let (changes, own_too) = (self.changes.clone(), own.clone());
        let on_notification: OnNotification = Arc::new(move |backend: i32, payload: &str| {
            if backend != own_too.load(Ordering::Relaxed) {
                changes.notify(changed_by(payload));
            }
        });
        let connection = self.pool.manager().connect(Some(&on_notification)).await?;
        let sql = format!("LISTEN \"{}\"", self.channel.replace('"', "\"\""));
        let listen = async {
            connection.client().batch_execute(&sql).await?;
            let rows = connection.client().query_typed("SELECT pg_backend_pid() AS backend", &[]).await?;
            rows.first().map_or(Ok(0), |row| row.try_get("backend"))
        };
        let backend = within(ANSWER, listen).await.ok_or_else(|| problem::no_answer_within(ANSWER))?;
        own.store(backend.map_err(|error| connection.failure(&error))?, Ordering::Relaxed);
        Ok(connection)
    }

    /// Listens and notifies until the connection ends.
    async fn follow(&self, mut connection: Connection) {
        loop {
            tokio::select! {
                () = connection.ended() => return,
                () = self.pending.some.notified() => SystemClock.sleep(LINGER).await,
                () = SystemClock.sleep(SILENCE) => {}
            }
            let changed = self.pending.take();
            let client = connection.client();
            let send = async {
                let Some(payload) = payload_of(changed) else { return client.batch_execute("").await };
                let (channel, payload): Parameters<'_> = ((&self.channel, Type::TEXT), (&payload, Type::TEXT));
                client.query_typed("SELECT pg_notify($1, $2)", &[channel, payload]).await.map(|_| ())
            };
            if !matches!(within(ANSWER, send).await, Some(Ok(()))) {
                self.pending.add(changed);
                return;
            }
        }
    }
}

type Parameters<'a> = (Parameter<'a>, Parameter<'a>);

fn payload_of(changed: Changed) -> Option<&'static str> {
    match changed {
        Changed { work: true, outcomes: true } => Some("all"),
        Changed { work: true, outcomes: false } => Some("work"),
        Changed { work: false, outcomes: true } => Some("outcomes"),
        Changed { work: false, outcomes: false } => None,
    }
}

/// An unknown payload, from a newer release, may mean any change.
fn changed_by(payload: &str) -> Changed {
    match payload {
        "work" => Changed::WORK,
        "outcomes" => Changed::OUTCOMES,
        _ => Changed::ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_channel_is_short_enough() {
        assert_eq!(channel("app"), "openid_deferred app");
        let long = channel(&"ä".repeat(40));
        assert!(long.len() <= 63 && long.starts_with("openid_deferred ää"));
    }
}
