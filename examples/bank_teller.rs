//! A bank teller asks the phone of the customer at the counter to confirm a change of address (CIBA).
//!
//! `scripts/demo ciba` runs it against an OpenID Provider of its own, in ping mode. This terminal is both the teller's
//! screen and the customer's phone. `--approve` and `--deny` answer for the customer.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use openid_deferred::ciba::{AuthenticationRefusal, DeliveryMode, UserHint};
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProcess, TestProvider, TestUser};
use openid_deferred::{Client, ClientAuthentication, Keyring, Outcome, Poller, ping};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The customer's phone, which the OP would ask.
#[derive(Clone, Copy)]
enum Phone {
    Asks,
    Approves,
    Denies,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let phone = phone()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let op = bank(&format!("http://{}/ciba/ping", listener.local_addr()?))?;
    let client = Client::builder(op.issuer(), "teller")
        .authentication(ClientAuthentication::client_secret_basic("s3cret"))
        .without_redirect_uri()
        .backchannel_token_delivery_mode(DeliveryMode::Ping)
        .allow_insecure_loopback()
        .discover()
        .await?;
    // For production: `SqliteStore` or `PostgresStore`, and a keyring of your own.
    let poller = Poller::builder(Arc::new(MemoryStore::new()), Keyring::ephemeral()?).receives_pings();
    let poller = poller.client(client.clone()).start().await?;
    let routes = Router::new().route("/ciba/ping", ping::axum::route(poller.clone()));
    // It serves until the program ends.
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await });

    // The teller mistypes the number first.
    for account in ["12345687", "12345678"] {
        println!("teller: ask the customer of account {account}");
        if !ask(&client, &poller, account).await? {
            continue;
        }
        let customer = op.last_process();
        tokio::task::spawn_blocking(move || answer(&customer, phone)).await??;
        confirmed(&poller).await?;
    }
    op.assert_clean();
    Ok(())
}

fn phone() -> anyhow::Result<Phone> {
    match std::env::args().nth(1).as_deref() {
        None if std::io::stdin().is_terminal() => Ok(Phone::Asks),
        None | Some("--approve") => Ok(Phone::Approves),
        Some("--deny") => Ok(Phone::Denies),
        Some(other) => anyhow::bail!("{other} is unknown; use --approve or --deny"),
    }
}

/// The bank's OP, with one customer. It permits one poll a minute, so that a ping is worth it.
fn bank(notification_endpoint: &str) -> anyhow::Result<TestProvider> {
    let client = TestClient::secret_basic("teller", "s3cret").ping_mode().notification_endpoint(notification_endpoint);
    let op = TestProvider::builder()
        .ciba()
        .client(client)
        .login_hint("account 12345678", TestUser::new("jane").claim("name", "Jane Doe"))
        .interval(Duration::from_secs(60))
        .expires_in(Duration::from_secs(300))
        .decisions(DecisionPolicy::scripted());
    Ok(op.start()?)
}

/// Asks the customer. Returns whether the OP does so.
async fn ask(client: &Client, poller: &Poller, account: &str) -> anyhow::Result<bool> {
    let order = format!("change of address, account {account}");
    let request = client
        .backchannel_authentication(UserHint::login_hint(format!("account {account}")))
        .scopes(["profile"])
        .binding_message("Counter 3: change of address, W4SCT")
        .requested_expiry(Duration::from_secs(120))
        .context(order.as_str())
        // If the teller presses the button twice, the customer is asked once.
        .idempotency_key(order.as_str());
    match poller.request_authentication(request).await {
        Ok(AcceptedSignIn::Deferred(_)) => {
            println!("teller: please confirm on your phone; it shows the code W4SCT");
            Ok(true)
        }
        Ok(other) => anyhow::bail!("the customer has answered before: {other:?}"),
        Err(error) => match AuthenticationRefusal::of(&error) {
            Some(AuthenticationRefusal::UnknownUser) => {
                println!("teller: there is no such customer");
                Ok(false)
            }
            Some(refusal) => anyhow::bail!("the bank refuses the request: {refusal:?}"),
            None => Err(error.into()),
        },
    }
}

/// The customer looks at the phone and decides.
fn answer(request: &TestProcess, phone: Phone) -> anyhow::Result<()> {
    let message = request.authorization_parameter("binding_message").unwrap_or_default();
    println!("phone:  {message}");
    let approves = match phone {
        Phone::Approves => true,
        Phone::Denies => false,
        Phone::Asks => {
            print!("phone:  approve? [y/n] ");
            std::io::stdout().flush()?;
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim().eq_ignore_ascii_case("y")
        }
    };
    if approves {
        request.approve()
    } else {
        request.deny()
    }
    Ok(())
}

/// Waits for the outcome, which the ping brings forward.
async fn confirmed(poller: &Poller) -> anyhow::Result<()> {
    let delivery = poller.outcomes().next().await.context("the poller was shut down")?;
    let order = String::from_utf8_lossy(delivery.context()).into_owned();
    match delivery.outcome() {
        Outcome::Approved(authentication) => {
            println!("teller: {order}: confirmed by {}", authentication.claims().name().unwrap_or("the customer"));
        }
        Outcome::Denied(_) => println!("teller: {order}: the customer refused"),
        outcome => println!("teller: {order}: no answer: {outcome:?}"),
    }
    delivery.acknowledge().await?;
    Ok(())
}
