//! Runs the program `openid-deferred` on a real SQLite file and a real PostgreSQL database, beside a running poller.
//!
//! PostgreSQL comes from `scripts/postgres run cargo test --all-features --test cli`.

mod arguments;
mod guide;
mod keys;
mod moving;
mod privileges;
mod rows;
mod stuck;
mod tool;
mod world;
