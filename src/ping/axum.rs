//! The receiver as a route of axum.

use ::axum::body::{Body, to_bytes};
use ::axum::extract::Request;
use ::axum::http::StatusCode;
use ::axum::routing::{MethodRouter, any};

use super::{BODY_LIMIT, Receiver};

/// A route that takes Ping Callbacks; put it under the path of the registered Deferred Client Notification Endpoint.
/// It takes a [`Poller`](crate::Poller) or a [`Receiver`] of another kind, and answers all methods.
///
/// ```no_run
/// # fn example(poller: openid_deferred::Poller) {
/// let app: axum::Router =
///     axum::Router::new().route("/deferred/ping", openid_deferred::ping::axum::route(poller.clone()));
/// # }
/// ```
pub fn route<S: Clone + Send + Sync + 'static>(receiver: impl Into<Receiver>) -> MethodRouter<S> {
    let receiver = receiver.into();
    any(move |request: Request<Body>| async move {
        let (parts, body) = request.into_parts();
        match to_bytes(body, BODY_LIMIT).await {
            Ok(body) => receiver.receive(&parts.method, &parts.headers, &body).await,
            Err(_) => StatusCode::PAYLOAD_TOO_LARGE,
        }
    })
}
