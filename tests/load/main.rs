//! Load tests with real HTTP on loopback and a real SQLite file. They check how much a burst of pings or users may
//! cost, and that each of its requests is still handled.

mod memory;
mod pings;
mod service;
mod users;

use tokio::sync::Mutex;

/// Memory is measured for the whole program, so only one burst runs at a time.
static ALONE: Mutex<()> = Mutex::const_new(());
