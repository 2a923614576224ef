//! The whole crate against a strict OpenID Provider, on simulated time: one test for each case, named as a sentence.

mod steps;
mod support;

mod authorization;
mod discovery;
mod exchange;
mod immediate;
mod network;
mod polling;
