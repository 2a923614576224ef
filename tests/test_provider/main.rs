//! The test provider, driven by a relying party written by hand: what it lets pass, what it refuses, what it notes.

mod clients;
mod faults;
mod flow;
mod pings;
mod registration;
mod rp;
mod rules;
mod signing;
mod strictness;
