//! The values and rows of CIBA, in `tests/golden/ciba/<release>.json`.

use std::path::PathBuf;
use std::sync::Arc;

use openid_deferred::ciba::UserHint;
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::{Claim, ClaimQuota, MemoryStore, Partition, ProcessId, State, Store};
use openid_deferred::testing::{Endpoint, TestClock};
use openid_deferred::{Dialect, Outcome, PendingAuthentication, Poller};
use serde::{Deserialize, Serialize};

use crate::release::{Bytes, Row, keyring};
use crate::{put, write};

/// What a release wrote, and the values that it was given.
#[derive(Serialize, Deserialize)]
struct Written {
    pending: Bytes,
    auth_req_id: String,
    dpop_key: String,
    waiting: Row,
    waiting_auth_req_id: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ciba")
}

#[tokio::test]
async fn stored_values_of_earlier_releases_in_ciba_are_read() {
    let present = folder().join(format!("{}.json", env!("CARGO_PKG_VERSION")));
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&present, serde_json::to_string_pretty(&written().await).unwrap() + "\n").unwrap();
    }
    assert!(present.exists(), "this release has no golden file; GOLDEN_WRITE=1 makes it");
    for file in std::fs::read_dir(folder()).unwrap() {
        let written: Written = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let pending = PendingAuthentication::open(&keyring(), &written.pending.0).unwrap();
        assert_eq!((pending.dialect(), pending.identifier().expose()), (Dialect::Ciba, &*written.auth_req_id));
        assert_eq!(pending.dpop_key().map(|key| key.thumbprint()), Some(&*written.dpop_key));
        assert_eq!(pending.context(), b"order");
        the_row_is_carried_on(&written).await;
    }
}

/// A poller of this release continues with the row.
async fn the_row_is_carried_on(written: &Written) {
    let clock = TestClock::automatic();
    let op = write::provider(&clock).ciba().start().unwrap();
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    put(&store, &written.waiting).await;
    let poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone()));
    let poller = poller.client(write::client(&op, &clock)).start().await.unwrap();
    let delivery = poller.outcomes().next().await.unwrap();
    // This provider does not know it.
    assert!(matches!(delivery.outcome(), Outcome::Failed(_)), "{delivery:?}");
    assert_eq!(delivery.id(), ProcessId::from_bytes(written.waiting.id));
    assert_eq!(delivery.context(), b"order");
    let poll = op.requests_to(Endpoint::Poll).remove(0);
    assert_eq!(poll.parameter("grant_type"), Some("urn:openid:params:grant-type:ciba"));
    assert_eq!(poll.parameter("auth_req_id"), Some(&*written.waiting_auth_req_id));
}

#[tokio::test]
async fn a_release_that_reads_only_the_older_format_does_not_claim_the_row() {
    let written = written().await;
    assert_eq!(written.waiting.format, 2);
    let clock = TestClock::automatic();
    let store = MemoryStore::with_clock(Arc::new(clock.clone()));
    put(&store, &written.waiting).await;
    let quotas = vec![ClaimQuota::new(Partition(written.waiting.partition), 100, 100)];
    let claim = Claim::new(quotas, 1, vec![written.waiting.key]);
    assert!(store.settle_and_claim(vec![], Some(claim)).await.unwrap().claimed.is_empty());
}

/// What this release writes.
async fn written() -> Written {
    let clock = TestClock::automatic();
    let op = write::provider(&clock).ciba().start().unwrap();
    let client = write::client(&op, &clock);
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone())).client(client.clone());
    let poller = poller.start().await.unwrap();
    let request = || client.backchannel_authentication(UserHint::login_hint("user-1")).context("order");
    let pending = request().send().await.unwrap();
    let AcceptedSignIn::Deferred(id) = poller.request_authentication(request()).await.unwrap() else {
        panic!("the provider asks the user")
    };
    let row = store.load(id).await.unwrap().unwrap();
    assert_eq!(row.state, State::Waiting);
    Written {
        auth_req_id: pending.identifier().expose().to_owned(),
        dpop_key: pending.dpop_key().expect("it is bound").thumbprint().to_owned(),
        pending: Bytes(pending.seal(&keyring()).unwrap()),
        waiting: Row::of("waiting", id, row),
        waiting_auth_req_id: op.last_process().auth_req_id().unwrap(),
    }
}
