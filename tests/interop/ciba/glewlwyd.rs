//! glewlwyd, whose users decide on its page of waiting requests. Here that page is played through its API.
//!
//! Where it differs from other OPs:
//! - `login_hint` has to be a JSON object with `username` or `sub`.
//! - It answers `invalid_request` to a hint of an unknown user, instead of `unknown_user_id`.
//! - A request replaces an earlier one of the same client for the same user.
//! - The audience of client assertions is not the issuer, as FAPI requires, so `fapi_ciba` does not fit.
//! - It sends no `interval` to a client in ping mode, and no ping when the user refuses.

use serde_json::Value;

use super::{Counter, Phones};
use crate::certificates::Identity;
use crate::glewlwyd::{Glewlwyd, OP};
use crate::op::{Op as _, Site};

pub(super) struct Bank {
    op: Glewlwyd,
    site: Site,
}

impl super::Bank for Bank {
    type Phones = Glewlwyd;

    async fn open() -> Option<Self> {
        let op = OP;
        let site = op.site().await?;
        Some(Self { op, site })
    }

    fn authority(&self) -> Identity {
        self.site.authority.clone()
    }

    fn user(&self) -> &'static str {
        r#"{"username":"user-1"}"#
    }

    async fn counter(self, members: Value) -> Counter<Glewlwyd> {
        let user = super::Bank::user(&self);
        let registered = self.op.register(members).await.expect("it runs");
        Counter {
            site: registered.site,
            client_id: registered.client_id,
            client_secret: registered.client_secret,
            user,
            configure: Glewlwyd::configure,
            phones: self.op,
        }
    }
}

impl Phones for Glewlwyd {
    async fn answer(&self, message: &str, approves: bool) {
        self.decide_request(message, approves).await;
    }
}
