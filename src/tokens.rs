//! The scope, the state and the kind of tokens, for calls after the outcome.
//!
//! An [`Authentication`](crate::Authentication) holds the tokens, or [`IssuedTokens`](crate::IssuedTokens) if no user
//! signed in. Each is a [`TokenHolder`]: [`Client::refresh`](crate::Client::refresh) renews the tokens,
//! [`Client::resource`](crate::Client::resource) calls an API with them, and [`Client::revoke`](crate::Client::revoke)
//! ends them. [`Authentication::granted_scope`] compares the scope of the access token with the requested one, as a
//! [`GrantedScope`]. [`Client::introspect`](crate::Client::introspect) asks the OP for
//! the state of a token, which is an [`Introspection`]. A [`TokenTypeHint`] says which kind of token a call is about.
//!
//! [`Authentication::granted_scope`]: crate::Authentication::granted_scope

pub use crate::client::{GrantedScope, Introspection, TokenHolder, TokenTypeHint};
