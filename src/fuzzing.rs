//! The fuzz targets of `fuzz/`, which process hostile input; see docs/reliability.md.
//!
//! Each function takes arbitrary bytes and panics if a property does not hold. The module exists with `--cfg fuzzing`
//! and in this crate's own tests, which run every committed input.
//!
//! Inputs are text as far as possible, so that seeds can be read and written by hand. Answers of the OP look like HTTP
//! (see [`world`]). All other input is the received message itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod authorization_response;
#[cfg(test)]
mod caps;
mod encrypted_token;
mod id_token;
mod logout_token;
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
pub use logout_token::logout_token;
pub use ping::ping;
pub use provider::{discovery, key_set};
pub use stored::{sealed_value, stored};
pub use tokens::{exchange, poll};

/// A target of the fuzzer.
pub struct Target {
    /// The name of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Processes one input.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 15] = [
    Target { name: "authorization_response", run: authorization_response },
    Target { name: "discovery", run: discovery },
    Target { name: "key_set", run: key_set },
    Target { name: "exchange", run: exchange },
    Target { name: "poll", run: poll },
    Target { name: "response_headers", run: response_headers },
    Target { name: "id_token", run: id_token },
    Target { name: "encrypted_token", run: encrypted_token },
    Target { name: "logout_token", run: logout_token },
    Target { name: "userinfo", run: userinfo },
    Target { name: "introspection", run: introspection },
    Target { name: "pushed_request", run: pushed_request },
    Target { name: "ping", run: ping },
    Target { name: "sealed_value", run: sealed_value },
    Target { name: "stored", run: stored },
];
