//! The sign-ins of a browser as an extractor.

use std::convert::Infallible;

use ::axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::cookies::SignInCookies;
use super::sign_ins::BrowserSignIns;

impl<S: Send + Sync> FromRequestParts<S> for BrowserSignIns
where
    SignInCookies: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(SignInCookies::from_ref(state).sign_ins(&parts.headers))
    }
}
