//! The receiver as a route of axum.

use ::axum::body::Body;
use ::axum::extract::Request;
use ::axum::routing::{MethodRouter, any};

use super::Receiver;

/// A route that receives Ping Callbacks. Put it under the path of the registered Deferred Client Notification Endpoint.
/// It takes a [`Poller`](crate::Poller) or another kind of [`Receiver`], and answers all methods.
///
/// ```no_run
/// # fn example(poller: openid_deferred::Poller) {
/// let app: axum::Router =
///     axum::Router::new().route("/deferred/ping", openid_deferred::ping::axum::route(poller.clone()));
/// # }
/// ```
pub fn route<S: Clone + Send + Sync + 'static>(receiver: impl Into<Receiver>) -> MethodRouter<S> {
    let receiver = receiver.into();
    any(move |request: Request| async move { receiver.receive(request).await.map(|()| Body::empty()) })
}
