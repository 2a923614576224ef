//! A program that is killed with `kill -9` while users decide.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use openid_deferred::ciba::{DeliveryMode, UserHint};
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::SqliteStore;
use openid_deferred::{Client, ClientAuthentication, Keyring, Outcome, Poller, SealingKey};
use serde_json::{Value, json};

use super::{Counter, Phones, assert_approved, discovered, next};
use crate::browser::certificate;

/// What the program is told. Without it, the test below has nothing to do.
const ORDERS: &str = "OPENID_DEFERRED_CIBA_PROGRAM";
const ASKED: &str = "the user is asked";
const KEY: &str = "CVh2hmGkm7dpPYHCxQeQWzB4jLYHG8xQbD3c3bqFUZc=";

/// The program asks two users and is killed. They decide while it is dead.
pub(super) async fn a_program_is_killed_while_it_waits<P: Phones>(counter: &Counter<P>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.sqlite");
    for message in ["killed-1", "killed-2"] {
        ask_and_be_killed(counter, &file, message).await;
    }
    counter.phones.answer("killed-1", true).await;
    counter.phones.answer("killed-2", false).await;
    let client = counter.client().await;
    let poller = poller(&client, &file).await;
    for _ in 0..2 {
        let delivery = next(&poller).await;
        match delivery.context() {
            b"killed-1" => assert_approved(delivery.outcome()),
            _ => assert!(matches!(delivery.outcome(), Outcome::Denied(_)), "{delivery:?}"),
        }
        delivery.acknowledge().await.unwrap();
    }
}

async fn poller(client: &Client, file: &Path) -> Poller {
    let keyring = Keyring::new(SealingKey::from_base64(KEY).unwrap());
    let store = SqliteStore::open(file).await.expect("the file can be opened");
    Poller::builder(Arc::new(store), keyring).client(client.clone()).start().await.expect("the poller starts")
}

async fn ask_and_be_killed<P: Phones>(counter: &Counter<P>, file: &Path, message: &str) {
    let orders = json!({
        "issuer": counter.site.issuer,
        "authority": counter.site.authority.certificate_pem(),
        "client_id": counter.client_id,
        "client_secret": counter.client_secret,
        "user": counter.user,
        "store": file,
        "message": message,
    });
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["ciba::killed::the_program_that_is_killed", "--exact", "--nocapture"])
        .env(ORDERS, orders.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(program.stdout.take().unwrap());
    let killed = tokio::task::spawn_blocking(move || {
        let has_asked = output.lines().map_while(Result::ok).any(|line| line.contains(ASKED));
        // SIGKILL.
        program.kill().unwrap();
        program.wait().unwrap();
        has_asked
    });
    assert!(killed.await.unwrap(), "the program ended before it had asked the user");
}

/// The role of the program, in a process of its own that has [`ORDERS`].
#[tokio::test]
async fn the_program_that_is_killed() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Value = serde_json::from_str(&orders).unwrap();
    let text = |name: &str| orders[name].as_str().unwrap().to_owned();
    let authority = certificate(&text("authority"));
    let client = Client::builder(text("issuer"), text("client_id"))
        .authentication(ClientAuthentication::client_secret_basic(text("client_secret")))
        .without_redirect_uri()
        .backchannel_token_delivery_mode(DeliveryMode::Poll)
        .configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]));
    let client = discovered(client).await;
    let poller = poller(&client, Path::new(&text("store"))).await;
    let request = client.backchannel_authentication(UserHint::login_hint(text("user")));
    let message = text("message");
    let request = request.binding_message(message.as_str()).context(message.as_str());
    let asked = poller.request_authentication(request).await;
    assert!(matches!(asked, Ok(AcceptedSignIn::Deferred(_))), "{asked:?}");
    println!("{ASKED}");
    // Until it is killed.
    std::future::pending::<()>().await;
}
