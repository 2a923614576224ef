//! Crowds, with real HTTP on loopback and a real SQLite file: what a burst of pings or of users may cost, and that what
//! a burst asks for is done nevertheless.

mod memory;
mod pings;
mod service;
mod users;

use tokio::sync::Mutex;

/// Memory is measured for the whole process, so one burst comes after the other.
static ALONE: Mutex<()> = Mutex::const_new(());
