//! Checks that this release can read what earlier releases have stored and handed out.
//!
//! Each file `tests/golden/<release>.json` contains sealed values and rows that the release wrote, and their content.
//! `GOLDEN_WRITE=1 cargo test --all-features --test golden` writes the file of the present release again. After a
//! release, its file must not change.

mod browser;
mod ciba;
mod ietf;
mod release;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::error::Rule;
use openid_deferred::store::{
    Cancellation, Claim, ClaimQuota, MemoryStore, NewProcess, Next, Partition, ProcessId, SealedBody, Settled,
    Settlement, State, Store,
};
use openid_deferred::testing::{Endpoint, TestClock};
use openid_deferred::{Authentication, AuthorizationSession, Delivery, Outcome, PendingAuthentication, Poller};

use release::{Release, Row, keyring};

fn file(release: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{release}.json"))
}

/// All releases with a file, including this one.
async fn releases() -> Vec<Release> {
    let present = file(env!("CARGO_PKG_VERSION"));
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&present, write::release().await).unwrap();
    }
    assert!(present.exists(), "this release has no golden file; GOLDEN_WRITE=1 makes it");
    let files = std::fs::read_dir(present.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn stored_values_of_earlier_releases_are_read() {
    for release in releases().await {
        values_open(&release);
        rows_are_carried_on(&release).await;
    }
}

fn values_open(release: &Release) {
    let keyring = keyring();
    let session = AuthorizationSession::open(&keyring, &release.session).unwrap();
    assert_eq!((session.state().expose(), session.redirect_uri()), (&*release.state, write::REDIRECT_URI));
    assert!(session.context().is_empty(), "release 0.1.0 took it with the response");

    let pending = PendingAuthentication::open(&keyring, &release.pending.0).unwrap();
    assert_eq!(pending.identifier().expose(), release.deferred_auth_id);
    assert_eq!((pending.issuer(), pending.client_id()), (&*release.issuer, write::CLIENT_ID));
    assert_eq!((pending.progress(), pending.is_cancelled()), (Some("step 2 of 3"), true));
    assert_eq!(pending.interim().verified().map(|interim| interim.claims().subject()), Some("user-1"));
    assert_eq!(pending.dpop_key().map(|key| key.thumbprint()), Some(&*release.thumbprint));
    let lifetime = pending.expires_at().unwrap().duration_since(pending.due_at()).unwrap();
    assert!(lifetime > Duration::from_secs(3_000) && lifetime < Duration::from_secs(3_600), "{lifetime:?}");

    let answered = PendingAuthentication::open(&keyring, &release.answered.0).unwrap();
    assert!(!answered.has_ended());

    let authentication = Authentication::open(&keyring, &release.authentication.0).unwrap();
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert_eq!(authentication.access_token().map(|token| token.expose()), Some(&*release.access_token));
    assert!(authentication.is_sender_constrained() && authentication.refresh_token().is_some());
}

/// Puts the rows into a store as they were written, and lets a poller of this release continue.
async fn rows_are_carried_on(release: &Release) {
    let clock = TestClock::automatic();
    let op = write::provider(&clock).start().unwrap();
    assert_eq!(op.issuer(), release.issuer);
    let client = write::client(&op, &clock);
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    // Rows that are claimed on their way into the store are inserted first. Otherwise the claims would take the others
    // too.
    let is_settled = |row: &&Row| matches!(&*row.state, "answered" | "decided");
    let (settled, others): (Vec<_>, Vec<_>) = release.rows.iter().partition(is_settled);
    for row in settled.into_iter().chain(others) {
        put(&store, row).await;
    }
    let poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone())).client(client);
    let poller = poller.start().await.unwrap();
    let status = async |label| {
        let row = release.rows.iter().find(|row| row.label == label).expect("there is such a row");
        poller.status(ProcessId::from_bytes(row.id)).await.unwrap().unwrap()
    };
    let waiting = status("waiting").await;
    assert_eq!((waiting.state(), waiting.progress()), (State::Waiting, Some("step 2 of 3")));
    assert_eq!(waiting.interim().verified().map(|interim| interim.claims().subject()), Some("user-1"));
    assert_eq!(status("exchanging").await.state(), State::Exchanging);

    let mut found = BTreeMap::new();
    let mut outcomes = poller.outcomes();
    while found.len() < release.rows.len() {
        let delivery = outcomes.next().await.unwrap();
        let row = release.rows.iter().find(|row| ProcessId::from_bytes(row.id) == delivery.id()).unwrap();
        let kind = kind_of(&delivery, row);
        assert_eq!(delivery.context(), b"context", "{}", row.label);
        found.insert(row.label.clone(), kind);
        delivery.acknowledge().await.unwrap();
    }
    let expected = [
        ("answered", "invalid"),
        ("approved", "approved"),
        ("cancelled", "cancelled"),
        ("denied", "denied"),
        ("exchanging", "unknown"),
        ("expired", "expired"),
        ("failed", "failed"),
        ("invalid", "invalid"),
        ("unknown", "unknown"),
        ("waiting", "failed"), // this provider does not know it
    ];
    let found: Vec<_> = found.iter().map(|(label, kind)| (&**label, *kind)).collect();
    assert_eq!(found, expected);
    let poll = op.requests_to(Endpoint::Poll).remove(0);
    assert_eq!(poll.parameter("deferred_auth_id"), Some(&*release.waiting_deferred_auth_id));
}

/// The kind of the outcome, which must be the one that the row had.
fn kind_of(delivery: &Delivery, row: &Row) -> &'static str {
    match delivery.outcome() {
        Outcome::Approved(authentication) => {
            assert_eq!(authentication.claims().subject(), "user-1");
            "approved"
        }
        Outcome::Denied(denial) => {
            assert!(denial.description().is_some());
            "denied"
        }
        Outcome::Expired(expiry) => {
            assert!(expiry.is_confirmed());
            "expired"
        }
        Outcome::Failed(response) => {
            assert_eq!(response.code(), "invalid_grant");
            "failed"
        }
        Outcome::Invalid(violation) => {
            // The provider of this test has other keys than the one that answered.
            let rule = if row.label == "answered" { Rule::IdTokenNoKey } else { Rule::IdTokenSignature };
            assert_eq!(violation.rule(), rule);
            assert!(delivery.rejected_response().unwrap().expose().contains("id_token"));
            "invalid"
        }
        Outcome::Unknown => "unknown",
        Outcome::Cancelled => "cancelled",
        other => panic!("{other:?}"),
    }
}

async fn put(store: &MemoryStore, row: &Row) {
    let id = ProcessId::from_bytes(row.id);
    let body = SealedBody::new(row.format, row.key, row.body.0.clone());
    let state = if row.state == "exchanging" { State::Exchanging } else { State::Waiting };
    let mut process = NewProcess::new(id, Partition(row.partition), state, body);
    process.interval = Duration::from_secs(5);
    process.schedule = row.schedule.clone();
    store.insert(process).await.unwrap();
    if row.cancelled {
        store.cancel(id, Cancellation::Told).await.unwrap();
    }
    let next = match &*row.state {
        "answered" => Next::Answered,
        "decided" => Next::Decided { provisional: row.provisional },
        _ => return,
    };
    let quotas = vec![ClaimQuota::new(Partition(row.partition), 100, 100)];
    let claim = Claim::new(quotas, row.format, vec![row.key]);
    let claimed = store.settle_and_claim(vec![], Some(claim)).await.unwrap().claimed;
    let epoch = claimed.iter().find(|claimed| claimed.id == id).expect("it is due").epoch;
    let mut settlement = Settlement::new(id, next);
    settlement.epoch = Some(epoch);
    settlement.schedule = row.schedule.clone();
    assert_eq!(store.settle_and_claim(vec![settlement], None).await.unwrap().settled, [Settled::Done]);
}
