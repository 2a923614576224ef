//! The status of a sign-in, as JSON and as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::axum::response::sse::Event;
use ::axum::response::{IntoResponse, Response, Sse};
use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_util::stream::unfold;
use http::StatusCode;
use serde_json::{Value, json};

use super::changes::Changes;
use super::hooks::SignInHooks;
use super::pages::{has_ended, protect};
use super::streams::OpenStream;
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
    let mut body = status.map_or_else(|| over(id), |status| json!(status));
    if let Some(members) = body.as_object_mut() {
        let uri = status.and_then(Status::interaction_uri).map(|uri| uri.expose().to_owned());
        members.insert("interaction_uri".to_owned(), json!(uri));
        let ending = if has_ended(status) { hooks.ending(id).await } else { None };
        members.insert("ending".to_owned(), json!(ending));
    }
    body
}

/// The members of [`Status`] for a sign-in that the poller no longer has. What it knew is null.
fn over(id: ProcessId) -> Value {
    json!({
        "id": id,
        "state": null,
        "has_ended": true,
        "progress": null,
        "needs_interaction": false,
        "due_in_seconds": null,
        "interim": null,
        "is_cancelled": null,
        "cancellation": null,
    })
}

/// One event for each different status, and a last one.
pub(super) fn events<H: SignInHooks>(hooks: Arc<H>, changes: Changes, id: ProcessId, open: OpenStream) -> Response {
    let end = changes.sleep(LONGEST_STREAM);
    let watch = Watch { hooks, id, shown: None, is_new: true, is_over: false, changes, _open: open };
    let mut response = Sse::new(stream(watch, end)).into_response();
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
    is_new: bool,
    is_over: bool,
    _open: OpenStream,
}

impl<H: SignInHooks> Watch<H> {
    async fn next(&mut self) -> Option<Event> {
        let is_first = std::mem::take(&mut self.is_new);
        if self.is_over || !(is_first || self.changes.changed().await) {
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

/// The events until the time is over, also while the application or the store does not answer.
fn stream<H: SignInHooks>(
    watch: Watch<H>,
    end: BoxFuture<'static, ()>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    unfold((watch, end), async |(mut watch, mut end)| {
        let event = tokio::select! {
            biased;
            () = &mut end => None,
            event = watch.next() => event,
        };
        Some((Ok(event?), (watch, end)))
    })
}
