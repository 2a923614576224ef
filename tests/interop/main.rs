//! The crate against OpenID Providers of other authors, with plain `code`. `matrix.rs` lists what runs against which
//! OP, and the module of each OP lists what it does not support or does differently. `ietf` is a server of this project,
//! and runs tests of its own.
//!
//! `scripts/interop` installs the OPs. If it cannot, the tests say so and pass, unless the environment variable
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
mod grants;
mod idpyoidc;
mod keycloak;
mod node;
mod zitadel;

mod ciba;
mod client_authentication;
mod encryption;
mod ietf;
mod logout;
mod matrix;
mod mutual_tls;
mod pushed;
mod registration;
mod sign_in;
mod signing;
mod tokens;
