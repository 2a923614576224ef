//! The durable floor against a strict OpenID Provider, on simulated time: one test for each case, named as a sentence.

mod support;

mod delivery;
mod flow;
