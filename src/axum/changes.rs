//! Waits for changes of one sign-in.

use std::fmt;
use std::time::Duration;

use futures_core::future::BoxFuture;

use crate::error::Error;
use crate::poller::{Event, Events, Poller, Status};
use crate::store::ProcessId;

/// The longest time between two checks of a sign-in. Another replica may have polled for it, or an event was missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Follows one sign-in, for a live page of your own. `GET /sign-in/{id}/events` of
/// [`SignInRouter`](super::SignInRouter) uses it.
///
/// ```
/// # async fn example(poller: openid_deferred::Poller, id: openid_deferred::store::ProcessId)
/// # -> Result<(), openid_deferred::Error> {
/// let mut changes = openid_deferred::axum::Changes::of(&poller, id);
/// while let Some(status) = changes.status().await? {
///     println!("{:?}, {}", status.state(), status.progress().unwrap_or("no news"));
///     if !changes.changed().await {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// It does not check which browser asks.
pub struct Changes {
    poller: Poller,
    events: Events,
    id: ProcessId,
}

impl Changes {
    /// Begins to listen, so that no change after this call is missed.
    pub fn of(poller: &Poller, id: ProcessId) -> Self {
        Self { poller: poller.clone(), events: poller.events(), id }
    }

    /// Completes after this time by the poller's clock.
    pub(super) fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.poller.clock().sleep(duration)
    }

    /// The present status, as [`Poller::status`] returns it.
    ///
    /// # Errors
    ///
    /// Those of [`Poller::status`].
    pub async fn status(&mut self) -> Result<Option<Status>, Error> {
        self.poller.status(self.id).await
    }

    /// Waits until the status may have changed: after an event of this replica, and at the latest after 5 s. Returns
    /// `false` as soon as the poller is [shut down](Poller::shutdown).
    pub async fn changed(&mut self) -> bool {
        let Self { poller, events, id } = self;
        let event = async {
            loop {
                match events.next().await {
                    None => return false,
                    Some(event) if concerns(&event, *id) => return true,
                    Some(_) => {}
                }
            }
        };
        tokio::select! {
            biased;
            // A server that waits for its streams before it shuts the poller down would wait for long.
            () = poller.stopped() => false,
            goes_on = event => goes_on,
            () = poller.clock().sleep(CHECK_INTERVAL) => true,
        }
    }
}

/// Whether the status of this sign-in may differ after the event.
fn concerns(event: &Event, this: ProcessId) -> bool {
    match event {
        Event::Missed { .. } => true,
        Event::Accepted { id }
        | Event::Progress { id, .. }
        | Event::InteractionRequired { id, .. }
        | Event::InteractionBegun { id }
        | Event::Decided { id }
        | Event::Acknowledged { id } => *id == this,
        _ => false,
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Changes").field("id", &self.id).finish_non_exhaustive()
    }
}
