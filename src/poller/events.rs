//! The stream of events.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::future::BoxFuture;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use super::event::Event;

/// The events of a poller, from [`Poller::events`](super::Poller::events). It is also a [`Stream`].
pub struct Events {
    /// The reception of the next event. `None` after the end.
    next: Option<BoxFuture<'static, Received>>,
}

struct Received {
    event: Result<Event, RecvError>,
    /// For the events after it.
    source: Source,
}

struct Source {
    events: Receiver<Event>,
    /// Whether the poller has stopped. The handles of the poller may live on.
    has_stopped: watch::Receiver<bool>,
}

impl Events {
    pub(super) fn new(events: Receiver<Event>, has_stopped: watch::Receiver<bool>) -> Self {
        Self { next: Some(receive(Source { events, has_stopped })) }
    }

    /// Waits for the next event. Returns `None` when the poller has stopped. Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

fn receive(mut source: Source) -> BoxFuture<'static, Received> {
    Box::pin(async move {
        let event = tokio::select! {
            biased;
            event = source.events.recv() => event,
            // An error means that the poller is gone.
            _ = source.has_stopped.wait_for(|has_stopped| *has_stopped) => {
                source.events.try_recv().map_err(|error| match error {
                    TryRecvError::Lagged(events) => RecvError::Lagged(events),
                    TryRecvError::Empty | TryRecvError::Closed => RecvError::Closed,
                })
            }
        };
        Received { event, source }
    })
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let Received { event, source } = ready!(next.as_mut().poll(context));
        let event = match event {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(events)) => Some(Event::Missed { events }),
            Err(RecvError::Closed) => None,
        };
        self.next = event.as_ref().map(|_| receive(source));
        Poll::Ready(event)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Events").field("has_ended", &self.next.is_none()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;

    #[tokio::test]
    async fn a_slow_stream_says_how_many_events_it_missed_and_ends_with_the_poller() {
        let (sender, has_stopped) = (broadcast::Sender::new(2), watch::Sender::new(false));
        let mut events = Events::new(sender.subscribe(), has_stopped.subscribe());
        for clients in 1..=5 {
            sender.send(Event::UnknownClient { clients, processes: 0 }).unwrap();
        }
        drop(sender);
        assert!(matches!(events.next().await, Some(Event::Missed { events: 3 })));
        for expected in 4..=5 {
            let event = events.next().await;
            assert!(matches!(event, Some(Event::UnknownClient { clients, .. }) if clients == expected), "{event:?}");
        }
        assert!(events.next().await.is_none());
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_gets_the_events_before_the_end_and_ends_although_handles_exist() {
        let (sender, has_stopped) = (broadcast::Sender::new(2), watch::Sender::new(false));
        let mut events = Events::new(sender.subscribe(), has_stopped.subscribe());
        sender.send(Event::UnknownClient { clients: 1, processes: 0 }).unwrap();
        has_stopped.send_replace(true);
        assert!(matches!(events.next().await, Some(Event::UnknownClient { .. })));
        assert!(events.next().await.is_none());
    }
}
