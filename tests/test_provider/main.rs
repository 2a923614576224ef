//! The test provider, called by a hand-written relying party: what it accepts, what it refuses, what it records.

mod clients;
mod faults;
mod flow;
mod ietf;
mod ietf_rules;
mod interaction;
mod logout;
mod pings;
mod registration;
mod rp;
mod rules;
mod signing;
mod strictness;
