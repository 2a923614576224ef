//! The crate against `oidc-provider`, a certified OpenID Provider that nobody here wrote, over plain `code`.
//!
//! It needs Node.js 20 or newer with npm. Where they are missing every test here says so and passes, unless the
//! environment variable `OPENID_DEFERRED_INTEROP` is `required`.

mod browser;
mod certificates;
mod provider;
mod support;

mod client_authentication;
mod encryption;
mod mutual_tls;
mod pushed;
mod registration;
mod sign_in;
mod signing;
mod tokens;
