//! Requests for claims about the user.
//!
//! Scopes such as `profile` and `email` ask for groups of claims. For single claims, build a [`ClaimsRequest`] and pass
//! it to [`AuthorizationRequest::claims`](crate::AuthorizationRequest::claims) (OpenID Connect Core 1.0 §5.5). Requests
//! for verified claims are in [`identity_assurance`](crate::identity_assurance).
//!
//! The answers are in [`Claims`](crate::Claims) and [`UserInfo`](crate::UserInfo), with the methods
//! [`address`](crate::Claims::address) for an [`Address`] and [`get`](crate::Claims::get) for any other claim.

pub use crate::client::{ClaimRequest, ClaimsRequest};
pub use crate::id_token::Address;
