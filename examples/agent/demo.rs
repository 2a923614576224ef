//! The demonstration: an OP in this program, and the agent in another one that is killed while it waits.

use std::io::IsTerminal as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use openid_deferred::testing::{Endpoint, TestClient, TestProvider};
use openid_deferred::{SealingKey, SystemRandom};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{KEY_VARIABLE, SECRET_VARIABLE, stop};

const CLIENT_SECRET: &str = "a secret of the demo agent";

#[derive(clap::Args)]
pub struct DemoSettings {
    /// Approve without a human. This is also done if standard input is not a terminal.
    #[arg(long)]
    auto: bool,
}

pub async fn demo(settings: DemoSettings) -> anyhow::Result<()> {
    let op = TestProvider::builder()
        .ietf()
        .defers_above(100)
        .requires_interaction()
        .interval(Duration::from_secs(2))
        .expires_in(Duration::from_secs(3600))
        .client(TestClient::secret_basic("agent", CLIENT_SECRET))
        .start()?;
    eprintln!("An OP is running at {}. It asks a human about payments above 100 EUR.", op.issuer());
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--client-id", "agent", "--issuer", op.issuer(), "--payments", &op.resource(), "--data"]);
    command.arg(folder.path()).args(["--pay", "INV-1=40", "--pay", "INV-2=950"]).stdout(Stdio::piped());
    command.env(SECRET_VARIABLE, CLIENT_SECRET).kill_on_drop(true);
    command.env(KEY_VARIABLE, SealingKey::generate(&SystemRandom)?.to_base64().expose());

    let is_automatic = settings.auto || !std::io::stdin().is_terminal();
    tokio::select! {
        shown = show(&mut command, is_automatic) => shown?,
        stopped = stop::requested() => return stopped,
    }
    for payment in op.requests_to(Endpoint::Resource).iter().filter(|payment| payment.status == Some(200)) {
        println!("The payments API has made the payment {}", payment.header("idempotency-key").unwrap_or_default());
    }
    // The OP records every request that breaks a rule, including early polls.
    for violation in op.violations() {
        println!("the OP noted: {violation}");
    }
    Ok(())
}

async fn show(command: &mut Command, is_automatic: bool) -> anyhow::Result<()> {
    let mut agent = Agent::start(command)?;
    agent.link().await?;
    eprintln!("This program kills the agent, as `kill -9 {}` does.", agent.child.id().unwrap_or_default());
    agent.child.kill().await?;
    eprintln!("The agent is started again. The payment that waits is in its SQLite file.");
    let mut agent = Agent::start(command)?;
    let link = agent.link().await?;
    match is_automatic {
        true => approve(&link).await?,
        false => eprintln!("Open the link in a browser on this machine, and approve or deny."),
    }
    while agent.line().await?.is_some() {}
    let status = agent.child.wait().await?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

/// Does what a browser does: loads the page, and sends its form with the button Approve.
async fn approve(link: &str) -> anyhow::Result<()> {
    eprintln!("Approve is pressed by this program.");
    let browser = reqwest::Client::builder().no_proxy().build()?;
    browser.get(link).send().await?.error_for_status()?;
    let form = browser.post(link).header("content-type", "application/x-www-form-urlencoded");
    form.body("decision=approve").send().await?.error_for_status()?;
    Ok(())
}

/// A running agent, whose output is shown.
struct Agent {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.spawn().context("the agent cannot be started")?;
        let lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        Ok(Self { child, lines })
    }

    async fn line(&mut self) -> anyhow::Result<Option<String>> {
        let line = self.lines.next_line().await?;
        line.iter().for_each(|line| println!("agent: {line}"));
        Ok(line)
    }

    /// Waits until the agent shows its link.
    async fn link(&mut self) -> anyhow::Result<String> {
        loop {
            let line = self.line().await?.context("the agent ended without a link")?;
            if let Some((_, link)) = line.split_once(" decide at ") {
                return Ok(link.to_owned());
            }
        }
    }
}
