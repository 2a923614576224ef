//! Keycloak, whose authentication channel is an HTTP endpoint of the test.
//!
//! Where it differs from other OPs:
//! - It answers `invalid_request` to a hint of an unknown user, instead of `unknown_user_id`.
//! - It knows users by `login_hint` alone, and answers `invalid_request` to an `id_token_hint`.
//! - Simultaneous first approvals of one user store the consent twice, and then every approval fails with status 500.
//! - It ignores `requested_expiry`: requests live as long as the realm says, two minutes by default.

use serde_json::{Value, json};

use super::{Counter, Phones};
use crate::browser::http;
use crate::certificates::Identity;
use crate::keycloak::{self, phones};
use crate::op::{Op as _, Registered, Site};

pub(super) struct Bank {
    site: Site,
}

/// The channel from Keycloak to the phones, and back.
pub(super) struct Channel {
    site: Site,
}

impl super::Bank for Bank {
    type Phones = Channel;

    async fn open() -> Option<Self> {
        Some(Self { site: keycloak::OP.site().await? })
    }

    fn authority(&self) -> Identity {
        self.site.authority.clone()
    }

    fn user(&self) -> &'static str {
        keycloak::USER
    }

    fn user_with(&self, number: usize) -> String {
        keycloak::other_user(number)
    }

    async fn counter(self, members: Value) -> Counter<Channel> {
        counter(keycloak::OP.register(members).await.expect("it runs"))
    }

    async fn brief_counter(self, members: Value) -> Counter<Channel> {
        counter(keycloak::OP.register_briefly(&members).await)
    }
}

fn counter(registered: Registered) -> Counter<Channel> {
    Counter {
        phones: Channel { site: registered.site.clone() },
        site: registered.site,
        client_id: registered.client_id,
        client_secret: registered.client_secret,
        user: keycloak::USER,
        configure: |client| client,
    }
}

impl Phones for Channel {
    async fn answer(&self, message: &str, approves: bool) {
        let token = phones::token_of(message).await;
        let answer = json!({ "status": if approves { "SUCCEED" } else { "UNAUTHORIZED" } });
        let request = http(&self.site.authority.certificate_pem())
            .post(format!("{}/protocol/openid-connect/ext/ciba/auth/callback", self.site.issuer))
            .header("Authorization", token)
            .header("Content-Type", "application/json");
        let response = request.body(answer.to_string()).send().await.expect("it answers");
        let status = response.status();
        assert!(status.is_success(), "{status}: {}", response.text().await.unwrap_or_default());
    }
}
