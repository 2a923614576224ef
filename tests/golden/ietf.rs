//! The values and rows of the IETF dialect, in `tests/golden/ietf/<release>.json`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::poller::AcceptedTokenRequest;
use openid_deferred::store::{Claim, ClaimQuota, MemoryStore, Partition, ProcessId, State, Store};
use openid_deferred::testing::{Endpoint, TestClock};
use openid_deferred::{
    AuthorizationSession, Clock as _, Dialect, Grant, IssuedTokens, Outcome, PendingAuthentication, Poller,
};
use serde::{Deserialize, Serialize};

use crate::release::{Bytes, Row, keyring};
use crate::{put, write};

const SECOND: Duration = Duration::from_secs(1);

/// What a release wrote, and the values that it was given.
#[derive(Serialize, Deserialize)]
struct Written {
    session: String,
    state: String,
    pending: Bytes,
    deferral_code: String,
    interaction_uri: String,
    tokens: Bytes,
    access_token: String,
    waiting: Row,
    waiting_deferral_code: String,
    decided: Row,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ietf")
}

#[tokio::test]
async fn stored_values_of_earlier_releases_in_the_ietf_dialect_are_read() {
    let present = folder().join(format!("{}.json", env!("CARGO_PKG_VERSION")));
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&present, serde_json::to_string_pretty(&written().await).unwrap() + "\n").unwrap();
    }
    assert!(present.exists(), "this release has no golden file; GOLDEN_WRITE=1 makes it");
    for file in std::fs::read_dir(folder()).unwrap() {
        let written: Written = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        values_open(&written);
        rows_are_carried_on(&written).await;
    }
}

fn values_open(written: &Written) {
    let keyring = keyring();
    let session = AuthorizationSession::open(&keyring, &written.session).unwrap();
    assert_eq!(session.state().expose(), written.state);
    let pending = PendingAuthentication::open(&keyring, &written.pending.0).unwrap();
    assert_eq!((pending.dialect(), pending.identifier().expose()), (Dialect::Ietf, &*written.deferral_code));
    assert_eq!(pending.interaction_uri().map(|uri| uri.expose()), Some(&*written.interaction_uri));
    let tokens = IssuedTokens::open(&keyring, &written.tokens.0).unwrap();
    assert_eq!((tokens.access_token().expose(), tokens.context()), (&*written.access_token, b"order".as_slice()));
    assert!(tokens.is_sender_constrained());
}

/// A poller of this release continues with the rows.
async fn rows_are_carried_on(written: &Written) {
    let clock = TestClock::automatic();
    let op = write::provider(&clock).ietf().start().unwrap();
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    put(&store, &written.decided).await;
    put(&store, &written.waiting).await;
    let poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone()));
    let poller = poller.client(write::client(&op, &clock)).start().await.unwrap();
    let mut outcomes = poller.outcomes();
    for _ in 0..2 {
        let delivery = outcomes.next().await.unwrap();
        match delivery.outcome() {
            Outcome::Issued(_) => assert_eq!(delivery.id(), ProcessId::from_bytes(written.decided.id)),
            // This provider does not know it.
            Outcome::Failed(_) => assert_eq!(delivery.id(), ProcessId::from_bytes(written.waiting.id)),
            other => panic!("{other:?}"),
        }
        assert_eq!(delivery.context(), b"order");
        delivery.acknowledge().await.unwrap();
    }
    let poll = op.requests_to(Endpoint::Poll).remove(0);
    assert_eq!(poll.parameter("grant_type"), Some("urn:ietf:params:oauth:grant-type:deferred"));
    assert_eq!(poll.parameter("deferral_code"), Some(&*written.waiting_deferral_code));
}

#[tokio::test]
async fn a_release_that_reads_only_the_older_format_does_not_claim_these_rows() {
    let written = written().await;
    assert_eq!((written.waiting.format, written.decided.format), (2, 2));
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
    let op = write::provider(&clock).ietf().start().unwrap();
    let client = write::client(&op, &clock);
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone())).client(client.clone());
    let poller = poller.start().await.unwrap();
    let request = || client.token_request(Grant::client_credentials()).context("order");

    let (_, session) = client.authorize().start().await.unwrap();
    let openid_deferred::TokenAnswer::Deferred(mut pending) = request().send().await.unwrap() else {
        panic!("the provider defers")
    };
    let process = op.last_process();
    process.require_interaction();
    clock.sleep(6 * SECOND).await;
    let _ = client.poll(&mut pending).await.unwrap();
    let kept = pending.seal(&keyring()).unwrap();
    process.resume();
    process.approve();
    let Outcome::Issued(tokens) = client.wait(&mut pending).await.unwrap() else { panic!("it was approved") };

    let start = async || match poller.request_tokens(request()).await.unwrap() {
        AcceptedTokenRequest::Deferred(id) => id,
        other => panic!("{other:?}"),
    };
    let waiting = row("waiting", &store, start().await, State::Waiting).await;
    let waiting_deferral_code = op.last_process().deferral_code().unwrap();
    let id = start().await;
    op.last_process().approve();
    let decided = loop {
        clock.sleep(SECOND).await;
        if store.load(id).await.unwrap().unwrap().state == State::Decided {
            break row("decided", &store, id, State::Decided).await;
        }
    };
    Written {
        session: session.seal(&keyring()).unwrap(),
        state: session.state().expose().to_owned(),
        deferral_code: pending.identifier().expose().to_owned(),
        interaction_uri: PendingAuthentication::open(&keyring(), &kept)
            .unwrap()
            .interaction_uri()
            .unwrap()
            .expose()
            .to_owned(),
        pending: Bytes(kept),
        tokens: Bytes(tokens.seal(&keyring()).unwrap()),
        access_token: tokens.access_token().expose().to_owned(),
        waiting,
        waiting_deferral_code,
        decided,
    }
}

async fn row(label: &str, store: &MemoryStore, id: ProcessId, state: State) -> Row {
    let row = store.load(id).await.unwrap().unwrap();
    assert_eq!(row.state, state);
    Row::of(label, id, row)
}
