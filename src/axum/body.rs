//! Reads the forms that browsers send, within bounds.

use ::axum::body::Body;
use http::StatusCode;

use crate::clock::Clock;
use crate::ping::BODY_TIMEOUT;
use crate::request_body;

/// The largest body of a form in bytes. An authorization response may have as many.
pub(super) const FORM_LIMIT: usize = 16 * 1024;

/// Reads a form. `Err` has the status of the answer.
pub(super) async fn read_form(body: Body, clock: &dyn Clock) -> Result<String, StatusCode> {
    let read = request_body::read(body, FORM_LIMIT, clock.sleep(BODY_TIMEOUT)).await?;
    String::from_utf8(read).map_err(|_| StatusCode::BAD_REQUEST)
}

/// The first field with this name.
pub(super) fn field(form: &str, name: &str) -> Option<String> {
    let mut fields = form_urlencoded::parse(form.as_bytes());
    fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
