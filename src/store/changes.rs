//! Notifies waiters within this process of changes.

use futures_core::future::BoxFuture;
use tokio::sync::watch;

use super::Changed;

/// The number of changes of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    work: u64,
    outcomes: u64,
}

/// A channel for changes, used by those who make them and those who wait for them. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Changes(watch::Sender<Counts>);

impl Changes {
    pub(super) fn new() -> Self {
        Self(watch::Sender::default())
    }

    pub(super) fn notify(&self, changed: Changed) {
        self.0.send_if_modified(|counts| {
            counts.work = counts.work.wrapping_add(changed.work.into());
            counts.outcomes = counts.outcomes.wrapping_add(changed.outcomes.into());
            changed != Changed::NOTHING
        });
    }

    /// See [`Store::changed`](super::Store::changed).
    pub(super) fn next(&self) -> BoxFuture<'static, Changed> {
        let mut counts = self.0.subscribe();
        let before = *counts.borrow_and_update();
        Box::pin(async move {
            if counts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let now = *counts.borrow_and_update();
            Changed { work: now.work != before.work, outcomes: now.outcomes != before.outcomes }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_gets_every_change_since_its_call() {
        let changes = Changes::new();
        changes.notify(Changed::ALL);
        let changed = changes.next();
        changes.notify(Changed::NOTHING);
        changes.notify(Changed::WORK);
        assert_eq!(changed.await, Changed::WORK);
        let changed = changes.next();
        changes.notify(Changed::OUTCOMES);
        changes.notify(Changed::WORK);
        assert_eq!(changed.await, Changed::ALL);
    }
}
