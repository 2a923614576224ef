//! The whole crate against a strict OpenID Provider, on simulated time: one test for each case, named as a sentence.

mod support;

mod authorization;
mod discovery;
mod dpop;
mod exchange;
mod id_token;
mod network;
mod polling;
mod resource;
mod sealing;
mod steps;
mod userinfo;
