//! An agent without a browser that pays bills. A human decides about the large ones.
//!
//! It asks its authorization server (OP) for a token for each payment. Up to a limit the OP answers at once. Above it
//! the OP tells the agent to wait, and gives it a link at which a human approves or denies.
//!
//! `scripts/demo agent` runs `agent demo`: an OP, and this agent, which is killed with `kill -9` while it waits and
//! started again. The agent alone is `agent run …`. It ends when each of its bills is paid or refused.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use openid_deferred::poller::{AcceptedTokenRequest, Event};
use openid_deferred::store::SqliteStore;
use openid_deferred::{
    Client, ClientAuthentication, Delivery, Grant, IssuedTokens, Keyring, Outcome, Poller, SealingKey, Secret,
};
use serde_json::json;

#[path = "agent/demo.rs"]
mod demo;
#[path = "agent/ledger.rs"]
mod ledger;
#[path = "worker/stop.rs"]
mod stop;

use ledger::{Bill, Ledger};

/// The environment variables with the client's secret at the OP, and with the key that seals stored values.
const SECRET_VARIABLE: &str = "OPENID_DEFERRED_CLIENT_SECRET";
const KEY_VARIABLE: &str = "OPENID_DEFERRED_KEY";

/// The longest time of one request to the OP or to the payments API.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a payment is tried again.
const AFTER_A_FAILURE: Duration = Duration::from_secs(5);
/// How long a token stays reserved for an agent that was killed while it paid. After that it is delivered again.
const DELIVERY_LEASE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
struct Settings {
    /// The issuer of the OP.
    #[arg(long)]
    issuer: String,
    /// The client identifier at the OP. Its secret comes from OPENID_DEFERRED_CLIENT_SECRET.
    #[arg(long)]
    client_id: String,
    /// The URL of the payments API.
    #[arg(long)]
    payments: String,
    /// A bill to pay: its number and its amount in euros, such as INV-7=950. The agent remembers it.
    #[arg(long, value_name = "NUMBER=EUROS")]
    pay: Vec<Bill>,
    /// The folder with the agent's two files. The key for one of them comes from OPENID_DEFERRED_KEY.
    #[arg(long, default_value = ".")]
    data: PathBuf,
}

struct Agent {
    client: Client,
    poller: Poller,
    ledger: Ledger,
    payments: String,
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    // 1. Requests that wait for a human are in one file, the bills are in the other. Both survive `kill -9`.
    let store = SqliteStore::open(settings.data.join("pending.db")).await?;
    let keyring = Keyring::new(SealingKey::from_env(KEY_VARIABLE)?);
    let ledger = Ledger::open(&settings.data.join("bills.db"))?;
    settings.pay.iter().try_for_each(|bill| ledger.add(bill))?;

    // 2. A client that signs nobody in, and the poller. Each request and its token are bound to a DPoP key of its own.
    let secret = std::env::var(SECRET_VARIABLE).with_context(|| format!("{SECRET_VARIABLE} is not set"))?;
    let client = Client::builder(&settings.issuer, &settings.client_id)
        .authentication(ClientAuthentication::client_secret_basic(secret))
        .without_redirect_uri()
        // A poll that was in flight when the agent was killed is repeated when no answer can come any more: after 40 s here,
        // and after almost five minutes by default, for OPs that hold polls open.
        .request_timeout(REQUEST_TIMEOUT)
        .poll_timeout(REQUEST_TIMEOUT)
        // The demonstration's OP uses plain HTTP on this machine. Omit this everywhere else.
        .allow_insecure_loopback()
        .build()?;
    let poller = Poller::builder(store, keyring).client(client.clone()).delivery_lease(DELIVERY_LEASE).start().await?;

    // 3. Pay.
    let agent = Agent { client, poller, ledger, payments: settings.payments };
    let worked = agent.work().await;
    agent.poller.shutdown(Duration::ZERO).await;
    worked
}

impl Agent {
    async fn work(&self) -> anyhow::Result<()> {
        // Listen first and ask then, so that no link is missed.
        let (mut events, mut outcomes) = (self.poller.events(), self.poller.outcomes());
        for bill in self.ledger.open_bills()? {
            if let Err(error) = self.begin(&bill).await {
                println!("{bill}: failed, and is tried again at the next start: {error:#}");
            }
        }
        while self.ledger.open_bills()?.iter().any(|bill| bill.process.is_some()) {
            tokio::select! {
                Some(event) = events.next() => {
                    if let Event::InteractionRequired { id, uri } = event {
                        let bills = self.ledger.open_bills()?;
                        bills.iter().filter(|bill| bill.process == Some(id)).for_each(|bill| show_link(bill, &uri));
                    }
                }
                Some(delivery) = outcomes.next() => self.settle(delivery).await?,
                else => break,
            }
        }
        ensure!(self.ledger.open_bills()?.is_empty(), "some bills are still open: start the agent again");
        Ok(())
    }

    /// Asks for a token for a bill, unless that was done before the agent was killed.
    async fn begin(&self, bill: &Bill) -> anyhow::Result<()> {
        let status = match bill.process {
            Some(process) => self.poller.status(process).await?,
            None => None,
        };
        let Some(status) = status else { return self.request(bill).await };
        match status.interaction_uri() {
            Some(uri) => show_link(bill, uri),
            None => println!("{bill}: still waiting for the decision"),
        }
        Ok(())
    }

    async fn request(&self, bill: &Bill) -> anyhow::Result<()> {
        let request = self.client.token_request(Grant::client_credentials());
        // The outcome comes back with the number of the bill, however much later. If the agent is killed before it has
        // noted the process, it asks again. The bill is still paid once, as `pay` explains.
        let request = request.authorization_details(json!([bill.details()])).context(bill.number.as_str());
        match self.poller.request_tokens(request).await? {
            AcceptedTokenRequest::Complete(tokens) => self.ledger.end(bill, &self.pay(bill, &tokens).await?),
            AcceptedTokenRequest::Deferred(process) => {
                println!("{bill}: the OP tells the agent to wait for a human");
                self.ledger.wait_for(bill, Some(process))
            }
            answer => anyhow::bail!("this example does not know this variant: {answer:?}"),
        }
    }

    /// Pays, and returns how the bill ended. An error means that the payment must be tried again.
    ///
    /// The same payment may be sent several times: the agent may be killed after the payment and before it has noted
    /// that, or the answer may be lost. So the payments API must be idempotent. It makes one payment for each
    /// `Idempotency-Key` and repeats its answer, for at least as long as an outcome can be delivered again. The key is
    /// the number of the bill, and neither random nor the token, because both would be new after a second request.
    async fn pay(&self, bill: &Bill, tokens: &IssuedTokens) -> anyhow::Result<String> {
        let request = http::Request::post(&self.payments)
            .header("content-type", "application/json")
            .header("idempotency-key", &bill.number)
            .body(bill.details().to_string().into())?;
        // The API checks that the token is for this payment, and that the DPoP proof has the key of the token.
        let status = self.client.resource(tokens, request).await?.status();
        ensure!(!status.is_server_error(), "the payments API answered {status}");
        Ok(match status.is_success() {
            true => "paid".to_owned(),
            false => format!("not paid: the payments API answered {status}"),
        })
    }

    /// Handles an outcome: first the payment, then the note about it, and the acknowledgement last. In any other order a
    /// crash between two of these steps would lose the payment.
    async fn settle(&self, delivery: Delivery) -> anyhow::Result<()> {
        let number = std::str::from_utf8(delivery.context())?;
        let Some(bill) = self.ledger.open_bills()?.into_iter().find(|bill| bill.number == number) else {
            // It was paid before the agent was killed, or with the token of another request.
            return Ok(delivery.acknowledge().await?);
        };
        let ending = match delivery.outcome() {
            Outcome::Issued(tokens) => match self.pay(&bill, tokens).await {
                Ok(ending) => ending,
                Err(error) => {
                    println!("{bill}: the payment failed and is tried again: {error:#}");
                    return Ok(delivery.retry_after(AFTER_A_FAILURE).await?);
                }
            },
            Outcome::Denied(denial) => {
                format!("not paid, denied: {}", denial.description().unwrap_or("no reason given"))
            }
            Outcome::Expired(_) => "not paid: nobody approved it in time".to_owned(),
            // The OP's answer was lost, and nothing was paid with it. The human is asked again.
            Outcome::Unknown => {
                self.ledger.wait_for(&bill, None)?;
                self.request(&bill).await?;
                return Ok(delivery.acknowledge().await?);
            }
            outcome => format!("not paid: {outcome:?}"),
        };
        self.ledger.end(&bill, &ending)?;
        Ok(delivery.acknowledge().await?)
    }
}

/// Prints the link, which is a secret: anyone who has it can decide. A real agent sends it only to the human who should
/// decide, and never to a log.
fn show_link(bill: &Bill, link: &Secret) {
    println!("{bill}: a human must decide at {}", link.expose());
}

/// Pays bills with tokens that a human approves.
#[derive(Parser)]
enum Command {
    /// Run an OP, and an agent that is killed while it waits.
    Demo(demo::DemoSettings),
    /// Run only the agent.
    Run(Settings),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Demo(settings) => demo::demo(settings).await,
        Command::Run(settings) => run(settings).await,
    }
}
