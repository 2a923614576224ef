//! The whole crate against a strict OpenID Provider, on simulated time: one test for each case, named as a sentence.

mod support;

mod addresses;
mod authorization;
mod client_authentication;
mod code_flow;
mod dead_connections;
mod discovery;
mod dpop;
mod encryption;
mod exchange;
mod fapi;
mod id_token;
mod immediate;
mod interim;
mod introspection;
mod jwt_responses;
mod keys;
mod lost_answers;
mod mutual_tls;
mod network;
mod odd_claims;
mod outages;
mod polling;
mod pushed;
mod refresh;
mod registration;
mod repeated_members;
mod request_objects;
mod resource;
mod revocation;
mod sealing;
mod secrets;
mod steps;
mod userinfo;
mod verified_claims;
