//! Reads the forms that browsers send, within bounds.

use ::axum::body::Body;
use http::StatusCode;

use crate::clock::Clock;
use crate::ping::{self, BODY_TIMEOUT};

/// The largest body of a form in bytes. An authorization response may have as many.
pub(super) const FORM_LIMIT: usize = 16 * 1024;

/// Reads a form. `Err` has the status of the answer.
pub(super) async fn read_form(body: Body, clock: &dyn Clock) -> Result<String, StatusCode> {
    let read = tokio::select! {
        biased;
        read = ping::read_body(body, FORM_LIMIT) => read?,
        () = clock.sleep(BODY_TIMEOUT) => return Err(StatusCode::REQUEST_TIMEOUT),
    };
    String::from_utf8(read).map_err(|_| StatusCode::BAD_REQUEST)
}

/// The first field with this name.
pub(super) fn field(form: &str, name: &str) -> Option<String> {
    fields(form, name).next()
}

/// All fields with this name.
pub(super) fn fields(form: &str, name: &str) -> impl Iterator<Item = String> {
    let fields = form_urlencoded::parse(form.as_bytes());
    fields.filter(move |(key, _)| key == name).map(|(_, value)| value.into_owned())
}
