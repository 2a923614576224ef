//! `oidc-provider`, with DPoP nonces.

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Counter, Phones};
use crate::certificates::Identity;
use crate::node::Provider;
use crate::process::Process;
use crate::support::{CLIENT_ID, CLIENT_SECRET, with};

pub(super) struct Bank {
    authority: Identity,
}

/// The provider decides requests by orders of the test.
pub(super) struct Orders(Mutex<Process>);

impl super::Bank for Bank {
    type Phones = Orders;

    async fn open() -> Option<Self> {
        crate::installation::installed("node")?;
        Some(Self { authority: Identity::authority() })
    }

    fn authority(&self) -> Identity {
        self.authority.clone()
    }

    fn user(&self) -> &'static str {
        "user-1"
    }

    async fn counter(self, members: Value) -> Counter<Orders> {
        let user = super::Bank::user(&self);
        let client = with(json!({ "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET }), members);
        let settings = json!({ "clients": [client], "ciba": true, "requireNonce": true });
        let Provider { site, process } = Provider::start_with(self.authority, settings).expect("it is installed");
        Counter {
            site,
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.to_owned(),
            user,
            configure: |client| client,
            phones: Orders(Mutex::new(process)),
        }
    }
}

impl Orders {
    async fn order(&self, order: Value) {
        let answer = self.0.lock().await.ask(&order);
        assert_eq!(answer, json!({}), "{order}");
    }
}

impl Phones for Orders {
    async fn answer(&self, message: &str, approves: bool) {
        self.order(json!({ "decide": message, "approve": approves })).await;
    }

    async fn answer_at_once(&self, message: &str) -> bool {
        self.order(json!({ "hasty": message })).await;
        true
    }
}
