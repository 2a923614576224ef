//! The state of a booking, and a stream of server-sent events with every change.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Sse;
use axum::response::sse::{self, KeepAlive};
use axum_extra::extract::CookieJar;
use futures_util::Stream;
use futures_util::stream::unfold;
use openid_deferred::poller::{Event, Events, Status};
use openid_deferred::store::{self, ProcessId};
use openid_deferred::{Clock as _, SystemClock};
use tokio::sync::broadcast;

use super::app::{App, Problem};
use super::ending::Ending;
use super::ledger::Booking;
use super::pages;

/// The longest time between two checks of a page. Another replica may have polled for it, or an event was missed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The user's view of a booking.
pub struct View {
    pub booking: Booking,
    pub stage: Stage,
}

pub enum Stage {
    /// The user has not come back from the OP.
    Away,
    /// The OP has not decided yet.
    Waiting(Status),
    /// The OP has decided; its answer is being verified and stored.
    Arriving,
    Ended(Ending),
}

impl View {
    pub async fn of(app: &App, booking: Booking) -> Result<Self, Problem> {
        let stage = match (&booking.ending, booking.process) {
            (Some(ending), _) => Stage::Ended(ending.clone()),
            (None, None) => Stage::Away,
            (None, Some(process)) => match app.poller.status(process).await? {
                Some(status) => match status.state() {
                    store::State::Exchanging | store::State::Waiting => Stage::Waiting(status),
                    store::State::Acknowledged => Self::acknowledged(app, &booking).await?,
                    _ => Stage::Arriving,
                },
                None => Self::acknowledged(app, &booking).await?,
            },
        };
        Ok(Self { booking, stage })
    }

    /// Outcomes are stored before they are acknowledged, so the ending is in the ledger. Otherwise the sign-in failed,
    /// and the application was killed before it stored that.
    async fn acknowledged(app: &App, booking: &Booking) -> Result<Stage, Problem> {
        Ok(Stage::Ended(app.ledger.ending(&booking.id).await?.unwrap_or(Ending::Failed)))
    }

    /// Whether no other state can follow.
    fn is_final(&self) -> bool {
        matches!(&self.stage, Stage::Ended(ending) if ending.is_final())
    }
}

/// The changing part of the page, now and after each change. The browser reconnects automatically when the stream
/// breaks, so a restart of the application does no harm.
///
/// Each open page is a connection. Serve HTTP/2, because browsers open at most six connections per host with HTTP/1.1.
pub async fn stream(
    State(app): State<App>,
    jar: CookieJar,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let (browser, _) = app.booking(&jar, &id).await?;
    let watch = Watch {
        // Subscribe first and check then, so that no change is missed.
        events: app.poller.events(),
        changes: app.ledger.changes(),
        app,
        browser: browser.id,
        booking: id,
        process: None,
        shown: None,
        is_over: false,
    };
    let events = unfold(watch, |mut watch| async { Some((Ok(watch.next().await?), watch)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// One open page.
struct Watch {
    app: App,
    events: Events,
    changes: broadcast::Receiver<Arc<str>>,
    browser: i64,
    booking: String,
    process: Option<ProcessId>,
    shown: Option<String>,
    is_over: bool,
}

impl Watch {
    /// The next content to show. `None` if nothing more will follow.
    async fn next(&mut self) -> Option<sse::Event> {
        while !self.is_over {
            // If the store is unavailable, the page stays unchanged.
            if let Some(view) = self.look().await {
                let html = pages::view(&view).into_string();
                if self.shown.as_ref() != Some(&html) {
                    self.is_over = view.is_final();
                    let name = if self.is_over { "last" } else { "message" };
                    // As JSON, because a line break would end the event's data.
                    let event = sse::Event::default().retry(Duration::from_secs(1)).event(name).json_data(&html);
                    self.shown = Some(html);
                    return event.ok();
                }
            }
            self.wait().await;
        }
        None
    }

    async fn look(&mut self) -> Option<View> {
        let booking = self.app.ledger.booking(&self.booking, self.browser).await.ok()??;
        self.process = booking.process;
        View::of(&self.app, booking).await.ok()
    }

    /// Waits until there may be a change: a progress text or a link of the OP, or a change of the booking.
    async fn wait(&mut self) {
        let progress = async {
            loop {
                match self.events.next().await {
                    Some(
                        Event::Progress { id, .. }
                        | Event::InteractionRequired { id, .. }
                        | Event::InteractionBegun { id, .. },
                    ) if Some(id) == self.process => {
                        break;
                    }
                    Some(Event::Missed { .. }) | None => break,
                    Some(_) => {}
                }
            }
        };
        let change = async { while self.changes.recv().await.is_ok_and(|booking| *booking != self.booking) {} };
        tokio::select! {
            () = progress => {}
            () = change => {}
            () = SystemClock.sleep(LOOK_EVERY) => {}
        }
    }
}
