//! The status of a sign-in, as JSON and as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::axum::response::sse::Event;
use ::axum::response::{IntoResponse, Response, Sse};
use futures_core::Stream;
use futures_util::stream::unfold;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::changes::Changes;
use super::hooks::SignInHooks;
use super::pages::{has_ended, protect};
use crate::poller::Status;
use crate::store::ProcessId;

/// How long one event stream lasts. The browser then connects again, perhaps to another replica.
const LONGEST_STREAM: Duration = Duration::from_secs(600);

/// How long a browser waits before it connects again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// The identifier of the last event. A browser that connects again after it is told to stop.
pub(super) const LAST: &str = "ended";

/// The status for the browser that started the sign-in, so the link for the user is part of it.
pub(super) async fn json_of<H: SignInHooks>(hooks: &H, id: ProcessId, status: Option<&Status>) -> Value {
    let mut body = status.map_or_else(|| json!({ "id": id, "state": null }), |status| json!(status));
    if let Some(members) = body.as_object_mut() {
        let uri = status.and_then(Status::interaction_uri).map(|uri| uri.expose().to_owned());
        members.insert("interaction_uri".to_owned(), json!(uri));
        let has_ended = has_ended(status);
        let ending = if has_ended { hooks.ending(id).await } else { None };
        members.insert("ending".to_owned(), json!(ending));
        members.insert("has_ended".to_owned(), json!(has_ended));
    }
    body
}

/// One event for each different status, and a last one.
pub(super) fn events<H: SignInHooks>(
    hooks: Arc<H>,
    changes: Changes,
    id: ProcessId,
    permit: OwnedSemaphorePermit,
) -> Response {
    let watch = Watch { hooks, id, shown: None, is_over: false, until: None, changes, _permit: permit };
    let mut response = Sse::new(stream(watch)).into_response();
    protect(&mut response);
    response
}

/// The answer to a browser that connects again after the last event: `EventSource` then stops (HTML §9.2.3).
pub(super) fn nothing_more() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// One open page.
struct Watch<H> {
    hooks: Arc<H>,
    changes: Changes,
    id: ProcessId,
    shown: Option<String>,
    is_over: bool,
    /// The end of the stream, on the monotonic clock.
    until: Option<Duration>,
    _permit: OwnedSemaphorePermit,
}

impl<H: SignInHooks> Watch<H> {
    async fn next(&mut self) -> Option<Event> {
        let is_first = self.until.is_none();
        let until = *self.until.get_or_insert(self.changes.now().saturating_add(LONGEST_STREAM));
        let goes_on = is_first || (!self.is_over && self.changes.changed().await);
        if !goes_on || self.changes.now() >= until {
            return None;
        }
        // A comment keeps proxies from closing a quiet connection. The page stays as it is, also while the store is
        // unavailable.
        Some(self.look().await.unwrap_or_else(|| Event::default().comment("")))
    }

    async fn look(&mut self) -> Option<Event> {
        let status = self.changes.status().await.ok()?;
        let has_ended = has_ended(status.as_ref());
        let mut body = json_of(&*self.hooks, self.id, status.as_ref()).await;
        // The time until the next poll always differs.
        body.as_object_mut()?.shift_remove("due_in_seconds");
        let text = body.to_string();
        if self.shown.as_ref() == Some(&text) {
            return None;
        }
        self.is_over = has_ended;
        // JSON text has no line breaks, which would end the data.
        let event = Event::default().event("status").retry(RECONNECT_AFTER).data(&text);
        self.shown = Some(text);
        Some(if has_ended { event.id(LAST) } else { event })
    }
}

fn stream<H: SignInHooks>(watch: Watch<H>) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    unfold(watch, async |mut watch| Some((Ok(watch.next().await?), watch)))
}
