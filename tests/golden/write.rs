//! Writes the golden file of the present release: a sign-in for each state in which one can wait or end.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::store::{MemoryStore, ProcessId, State, Store};
use openid_deferred::testing::{
    DecisionPolicy, Endpoint, Fault, IdTokenForgery, SeededRandom, TestClient, TestClock, TestProvider,
    TestProviderBuilder, TestUser,
};
use openid_deferred::{
    Authentication, AuthorizationSession, Cancelled, Client, ClientAuthentication, ClientBuilder, Clock, Outcome,
    PendingAuthentication, Poll, Poller, SignIn, poller,
};

use crate::release::{Bytes, Release, Row, keyring};

pub const CLIENT_ID: &str = "golden";
pub const REDIRECT_URI: &str = "https://rp.test/callback";
const SECRET: &str = "golden secret";
const SECOND: Duration = Duration::from_secs(1);

pub fn provider(clock: &TestClock) -> TestProviderBuilder {
    TestProvider::builder()
        .in_process()
        .clock(Arc::new(clock.clone()))
        .random(Arc::new(SeededRandom::new(1)))
        .client(TestClient::secret_basic(CLIENT_ID, SECRET).redirect_uri(REDIRECT_URI))
        .user(TestUser::new("user-1").claim("name", "Jane Doe"))
        .interval(5 * SECOND)
        .expires_in(3_600 * SECOND)
        .decisions(DecisionPolicy::scripted())
}

pub fn client(op: &TestProvider, clock: &TestClock) -> Client {
    client_builder(op, clock).build().unwrap()
}

pub fn client_builder(op: &TestProvider, clock: &TestClock) -> ClientBuilder {
    Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(SECRET))
        .redirect_uri(REDIRECT_URI)
        .http_client(op.http_client())
        .clock(Arc::new(clock.clone()))
}

struct Writer {
    op: TestProvider,
    clock: TestClock,
    client: Client,
    store: Arc<MemoryStore>,
    poller: Poller,
    rows: Vec<Row>,
}

impl Writer {
    async fn user_returns(&self) -> (String, AuthorizationSession) {
        let (url, session) = self.client.authorize().context("context").start().await.unwrap();
        (self.op.visit(url).query(), session)
    }

    async fn pending(&self) -> PendingAuthentication {
        let (query, session) = self.user_returns().await;
        match self.client.authorization_response(&query, session).await.unwrap() {
            SignIn::Deferred(pending) => pending,
            other => panic!("{other:?}"),
        }
    }

    async fn waiting(&self) -> ProcessId {
        let (query, session) = self.user_returns().await;
        match self.poller.authorization_response(&query, session).await.unwrap() {
            poller::AcceptedSignIn::Deferred(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the row is in a state, keeps it, and removes it from the store.
    async fn keep(&mut self, label: &str, id: ProcessId, state: State) {
        let row = loop {
            let row = self.store.load(id).await.unwrap().unwrap();
            if row.state == state {
                break row;
            }
            self.clock.sleep(SECOND).await;
        };
        self.rows.push(Row::of(label, id, row));
        self.poller.forget(id).await.unwrap();
        self.op.behave();
    }

    /// A sign-in that ends as soon as `decide` has been called.
    async fn decided(&mut self, label: &str, decide: impl FnOnce(&TestProvider)) {
        let id = self.waiting().await;
        decide(&self.op);
        self.keep(label, id, State::Decided).await;
    }

    async fn answered(&mut self, pending: &mut PendingAuthentication) -> Vec<u8> {
        self.op.last_process().approve();
        // The keys were fetched before. A signature by a new key requires fetching them again.
        self.op.replace_keys();
        self.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
        self.clock.sleep(6 * SECOND).await;
        self.client.poll(pending).await.unwrap_err();
        pending.seal(&keyring()).unwrap()
    }
}

/// The golden file of this release.
pub async fn release() -> String {
    let clock = TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    let client = client(&op, &clock);
    let store = Arc::new(MemoryStore::with_clock(Arc::new(clock.clone())));
    let poller = Poller::builder(store.clone(), keyring()).clock(Arc::new(clock.clone())).client(client.clone());
    let poller = poller.receives_pings().start().await.unwrap();
    let mut writer = Writer { op, clock, client, store, poller, rows: Vec::new() };

    let (_, session) = writer.user_returns().await;
    let mut pending = writer.pending().await;
    writer.op.last_process().progress("step 2 of 3");
    writer.clock.sleep(6 * SECOND).await;
    assert!(matches!(writer.client.poll(&mut pending).await.unwrap(), Poll::Pending));
    assert_eq!(writer.client.cancel(&mut pending).await.unwrap(), Cancelled::LocallyOnly);
    let authentication = approved(&writer).await;

    decided_rows(&mut writer).await;
    let id = writer.waiting().await;
    writer.op.last_process().progress("step 2 of 3");
    writer.clock.sleep(6 * SECOND).await;
    let waiting_deferred_auth_id = writer.op.last_process().deferred_auth_id().unwrap();
    writer.keep("waiting", id, State::Waiting).await;

    let mut late = writer.pending().await;
    let answered = writer.answered(&mut late).await;
    let id = writer.poller.track(&late).await.unwrap();
    writer.keep("answered", id, State::Answered).await;

    writer.op.misbehave(Fault::stall(Endpoint::Exchange));
    let (query, session_that_dies) = writer.user_returns().await;
    tokio::select! {
        biased;
        accepted = writer.poller.authorization_response(&query, session_that_dies) => panic!("{accepted:?}"),
        () = writer.clock.sleep(SECOND) => {}
    }
    let row = writer.store.not_sealed_with([0; 4], None, 1).await.unwrap().remove(0);
    writer.keep("exchanging", row.id, State::Exchanging).await;

    let release = Release {
        issuer: writer.op.issuer().to_owned(),
        session: session.seal(&keyring()).unwrap(),
        state: session.state().expose().to_owned(),
        deferred_auth_id: pending.identifier().expose().to_owned(),
        waiting_deferred_auth_id,
        thumbprint: pending.dpop_key().unwrap().thumbprint().to_owned(),
        pending: Bytes(pending.seal(&keyring()).unwrap()),
        answered: Bytes(answered),
        access_token: authentication.access_token().unwrap().expose().to_owned(),
        authentication: Bytes(authentication.seal(&keyring()).unwrap()),
        rows: writer.rows,
    };
    serde_json::to_string_pretty(&release).unwrap() + "\n"
}

async fn decided_rows(writer: &mut Writer) {
    writer.decided("approved", |op| op.last_process().approve()).await;
    writer.decided("denied", |op| op.last_process().deny()).await;
    writer.decided("expired", |op| op.last_process().expire()).await;
    writer.decided("failed", |op| op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant"))).await;
    let forged = || Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature()).after_success();
    writer
        .decided("invalid", |op| {
            op.last_process().approve();
            op.misbehave(forged());
        })
        .await;
    let lost = || Fault::reset(Endpoint::Poll).after_success();
    writer
        .decided("unknown", |op| {
            op.last_process().approve();
            op.misbehave(lost());
        })
        .await;
    let id = writer.waiting().await;
    writer.poller.cancel(id).await.unwrap();
    writer.op.last_process().deny();
    writer.keep("cancelled", id, State::Decided).await;
}

async fn approved(writer: &Writer) -> Authentication {
    let mut pending = writer.pending().await;
    writer.op.last_process().approve();
    match writer.client.wait(&mut pending).await.unwrap() {
        Outcome::Approved(authentication) => authentication,
        other => panic!("{other:?}"),
    }
}
