//! What the fuzzer throws hostile inputs at, in `fuzz/`; see docs/reliability.md.
//!
//! Each function takes any bytes and panics where something that must hold does not. The module exists with
//! `--cfg fuzzing` and in this crate's own tests, which throw every input at it that is committed.
//!
//! An input is text as far as it can be, so that seeds can be read and written by hand: answers of the OP look like
//! HTTP (see [`world`]), everything else is what comes over the wire as it comes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod authorization_response;
#[cfg(test)]
mod caps;
mod encrypted_token;
mod id_token;
mod ping;
mod provider;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod seeds;
mod stored;
mod tokens;
mod world;

pub use answers::{introspection, pushed_request, response_headers, userinfo};
pub use authorization_response::authorization_response;
pub use encrypted_token::encrypted_token;
pub use id_token::id_token;
pub use ping::ping;
pub use provider::{discovery, key_set};
pub use stored::{sealed_value, stored};
pub use tokens::{exchange, poll};

/// Every target by the name of its folder in `fuzz/corpus`.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("authorization_response", authorization_response),
    ("discovery", discovery),
    ("key_set", key_set),
    ("exchange", exchange),
    ("poll", poll),
    ("response_headers", response_headers),
    ("id_token", id_token),
    ("encrypted_token", encrypted_token),
    ("userinfo", userinfo),
    ("introspection", introspection),
    ("pushed_request", pushed_request),
    ("ping", ping),
    ("sealed_value", sealed_value),
    ("stored", stored),
];
