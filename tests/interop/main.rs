//! The crate against OpenID Providers that nobody here wrote, over plain `code`: `matrix.rs` says what runs against
//! which of them, and the module of each says what it cannot do or does in a way of its own.
//!
//! `scripts/interop` installs them. Where it cannot, the tests say so and pass, unless the environment variable
//! `OPENID_DEFERRED_INTEROP` is `required`.

mod browser;
mod certificates;
mod installation;
mod op;
mod page;
mod process;
mod support;

// The OPs.
mod glewlwyd;
mod idpyoidc;
mod keycloak;
mod node;
mod zitadel;

mod client_authentication;
mod encryption;
mod matrix;
mod mutual_tls;
mod pushed;
mod registration;
mod sign_in;
mod signing;
mod tokens;
