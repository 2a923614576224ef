//! The durable poller against a strict OpenID Provider, on simulated time: one test for each case, named as a sentence.

mod faulty_store;
mod support;

mod alerts;
mod axum;
mod cancellation;
mod ciba;
mod clients;
mod clock_jumps;
mod crashes;
mod crowds;
mod delivery;
mod documents;
mod encryption;
mod flow;
mod ietf;
mod jwt_responses;
mod known_clients;
mod late_answers;
mod odd_answers;
mod operations;
mod pings;
mod polling;
mod refused_clients;
mod start;
mod store_trouble;
mod streams;
mod traces;
