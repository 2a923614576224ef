//! The whole crate against a strict OpenID Provider, on simulated time: one test for each case, named as a sentence.

mod support;

mod authorization;
mod discovery;
mod dpop;
mod encryption;
mod exchange;
mod id_token;
mod immediate;
mod interim;
mod keys;
mod lost_answers;
mod network;
mod outages;
mod polling;
mod resource;
mod sealing;
mod secrets;
mod steps;
mod userinfo;
