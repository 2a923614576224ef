//! The whole crate against a strict OpenID Provider, on simulated time: one test for each case, named as a sentence.

mod support;

mod authorization;
mod client_authentication;
mod discovery;
mod dpop;
mod exchange;
mod id_token;
mod immediate;
mod interim;
mod keys;
mod lost_answers;
mod mutual_tls;
mod network;
mod outages;
mod polling;
mod pushed;
mod resource;
mod sealing;
mod secrets;
mod steps;
mod userinfo;
