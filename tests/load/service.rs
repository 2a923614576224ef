//! A provider, a client and a poller in one program, each configured as in production.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::poller::PollerBuilder;
use openid_deferred::store::SqliteStore;
use openid_deferred::testing::{DecisionPolicy, SeededRandom, TestClient, TestProvider};
use openid_deferred::{AuthorizationSession, Client, ClientAuthentication, Keyring, Poller, SealingKey};
use tempfile::TempDir;

const CLIENT_SECRET: &str = "the secret of somebody popular";
const REDIRECT_URI: &str = "https://rp.test/callback";

pub struct Service {
    pub op: TestProvider,
    pub poller: Poller,
    client: Client,
    keyring: Keyring,
    _folder: TempDir,
}

impl Service {
    /// The provider asks for an hour between polls, decides when it is told, and believes that its pings arrive.
    pub async fn start(poller: impl FnOnce(PollerBuilder) -> PollerBuilder) -> Self {
        let op = TestProvider::builder()
            .client(TestClient::secret_basic("popular", CLIENT_SECRET).redirect_uri(REDIRECT_URI))
            .interval(Duration::from_secs(3600))
            .decisions(DecisionPolicy::scripted())
            .on_ping(|_| 204)
            // The memory for recorded requests is not what is measured here.
            .keep_requests(1_000)
            .start()
            .expect("the provider starts");
        let client = Client::builder(op.issuer(), "popular")
            .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
            .redirect_uri(REDIRECT_URI)
            .allow_insecure_loopback()
            .build()
            .expect("the settings work");
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(folder.path().join("pending.db")).await.expect("the file opens");
        let keyring = Keyring::new(SealingKey::generate(&SeededRandom::new(7)).expect("a key"));
        let builder = Poller::builder(Arc::new(store), keyring.clone()).client(client.clone());
        let poller = poller(builder).start().await.expect("the poller starts");
        Self { op, poller, client, keyring, _folder: folder }
    }

    /// Sends a user out and back. Returns the query string and the content of the session cookie.
    pub async fn user_returns(&self) -> (String, String) {
        let (url, session) = self.client.authorize().start().await.expect("the request can be made");
        (self.op.visit(url).query(), session.seal(&self.keyring).expect("it fits a cookie"))
    }

    pub fn open(&self, cookie: &str) -> AuthorizationSession {
        AuthorizationSession::open(&self.keyring, cookie).expect("it is the cookie that was set")
    }

    /// The number of pending sign-ins, and the number of all sign-ins in the store.
    pub async fn waiting(&self) -> (u64, u64) {
        let stats = self.poller.stats().await.expect("the store is there");
        let rows = &stats[0].rows;
        (rows.waiting, rows.open() + rows.decided + rows.acknowledged)
    }
}
