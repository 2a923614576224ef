//! The other parts of the demonstration: an OP, its users and reviewers, and a supervisor that restarts a killed
//! worker.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use openid_deferred::testing::{TestClient, TestProcess, TestProvider, TestUser};
use openid_deferred::{Clock, Random, SystemClock, SystemRandom};
use tokio::process::{Child, Command};

use super::stop;

const CLIENT_ID: &str = "worker";
const CLIENT_SECRET: &str = "a secret of the demo worker";
const MOMENT: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub struct DemoSettings {
    /// The number of users who sign in.
    #[arg(long, default_value_t = 20)]
    users: u32,
    /// The store of the worker: a file for SQLite, or postgres://…. A new folder unless set.
    #[arg(long)]
    store: Option<String>,
    /// The longest time of a review, in seconds.
    #[arg(long, default_value_t = 30)]
    review: u16,
}

#[derive(clap::Args)]
pub struct OpSettings {
    /// The URL of the application, such as http://127.0.0.1:8080.
    #[arg(long)]
    app: String,
    /// The number of users who sign in.
    #[arg(long, default_value_t = 20)]
    users: u32,
    /// The longest time of a review, in seconds.
    #[arg(long, default_value_t = 30)]
    review: u16,
}

/// Runs an OP until it is told to stop.
pub async fn op(settings: OpSettings) -> anyhow::Result<()> {
    let op = provider(&settings.app)?;
    println!("{}", op.issuer());
    eprintln!("Start workers with OPENID_DEFERRED_CLIENT_SECRET='{CLIENT_SECRET}' and");
    eprintln!("worker run --issuer {} --id-token-alg ES256", op.issuer());
    let crowd = async {
        send_users(&op, &settings.app, settings.users).await?;
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        failed = crowd => failed,
        failed = review(&op, settings.review) => failed,
        stopped = stop::requested() => stopped,
    }
}

/// Runs an OP, a worker that is restarted whenever it ends, and waits for the outcomes of all users.
pub async fn demo(settings: DemoSettings) -> anyhow::Result<()> {
    let app = free_address()?;
    let app_url = format!("http://{app}");
    let op = provider(&app_url)?;
    let folder = tempfile::tempdir()?;
    let outcomes = folder.path().join("outcomes.jsonl");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["run", "--id-token-alg", "ES256", "--timeout", "5", "--delivery-lease", "10"])
        .args(["--issuer", op.issuer(), "--client-id", CLIENT_ID, "--listen", &app.to_string()])
        .args(["--store", &settings.store.unwrap_or_else(|| folder.path().join("pending.db").display().to_string())])
        .args([Path::new("--key-file"), &folder.path().join("pending.key"), Path::new("--outcomes"), &outcomes])
        .env("OPENID_DEFERRED_CLIENT_SECRET", CLIENT_SECRET)
        .kill_on_drop(true);
    eprintln!("An OpenID Provider with {} users is running at {}.", settings.users, op.issuer());
    eprintln!("Kill the worker with `kill -9` and the process ID that it prints. It is restarted and continues.");

    let mut worker = command.spawn().context("the worker cannot be started")?;
    tokio::select! {
        done = until_all_are_done(&op, &app_url, settings.users, &outcomes) => done?,
        stopped = stop::requested() => stopped?,
        failed = review(&op, settings.review) => failed?,
        failed = keep_running(&command, &mut worker) => failed?,
    }
    stop_gently(&mut worker).await?;

    for (outcome, count) in read(&outcomes).into_values().fold(BTreeMap::new(), |mut tally, outcome| {
        *tally.entry(outcome).or_insert(0) += 1;
        tally
    }) {
        println!("{outcome}: {count}");
    }
    // The OP records every request that breaks a rule, including early polls. A worker that is killed while it receives
    // a final answer polls once more for it. That is the only cost of a crash.
    for violation in op.violations() {
        eprintln!("the OP noted: {violation}");
    }
    Ok(())
}

async fn until_all_are_done(op: &TestProvider, app: &str, users: u32, outcomes: &Path) -> anyhow::Result<()> {
    send_users(op, app, users).await?;
    while read(outcomes).len() < users as usize {
        SystemClock.sleep(MOMENT).await;
    }
    Ok(())
}

/// Restarts the worker whenever it was killed.
async fn keep_running(command: &Command, worker: &mut Child) -> anyhow::Result<()> {
    loop {
        let status = worker.wait().await?;
        if status.code().is_some() {
            bail!("the worker ended by itself: {status}");
        }
        eprintln!("The worker was killed and has been restarted.");
        *worker = again(command).spawn()?;
    }
}

/// Copies the command.
fn again(command: &Command) -> Command {
    let command = command.as_std();
    let mut again = Command::new(command.get_program());
    again.args(command.get_args()).kill_on_drop(true);
    again.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    again
}

/// Asks the worker to stop, as a service manager does, and waits until it has ended.
async fn stop_gently(worker: &mut Child) -> anyhow::Result<()> {
    if let Some(id) = worker.id() {
        Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await?;
    }
    worker.wait().await?;
    Ok(())
}

/// Starts a strict OP on a loopback port.
fn provider(app: &str) -> anyhow::Result<TestProvider> {
    let client = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(&format!("{app}/callback"))
        .notification_endpoint(&format!("{app}/ping"))
        .signing_algorithm("ES256");
    let op = TestProvider::builder().client(client).interval(Duration::from_secs(2));
    Ok(op.decisions(openid_deferred::testing::DecisionPolicy::scripted()).start()?)
}

/// Lets users sign in one after the other, through the application and the OP. If the application is unavailable, a
/// user reloads.
async fn send_users(op: &TestProvider, app: &str, users: u32) -> anyhow::Result<()> {
    let no_redirects = reqwest::redirect::Policy::none();
    let browser = reqwest::Client::builder().no_proxy().redirect(no_redirects).build()?;
    for user in 1..=users {
        let start = reload(&browser, &format!("{app}/start/{user}"), "").await?;
        let (Some(url), Some(cookie)) = (text(&start, "location"), text(&start, "set-cookie")) else {
            bail!("the application does not send user {user} to the OP: {}", start.status());
        };
        op.set_user(TestUser::new(&format!("user-{user}")));
        let back = op.visit(url).url();
        let page = reload(&browser, &back, cookie.split(';').next().unwrap_or_default()).await?;
        if !page.status().is_success() {
            bail!("user {user} came back, but was not taken: {}", page.text().await?);
        }
    }
    Ok(())
}

async fn reload(browser: &reqwest::Client, url: &str, cookie: &str) -> anyhow::Result<reqwest::Response> {
    for _ in 0..1_000 {
        match browser.get(url).header("cookie", cookie).send().await {
            Ok(page) if page.status() != reqwest::StatusCode::SERVICE_UNAVAILABLE => return Ok(page),
            _ => SystemClock.sleep(MOMENT).await,
        }
    }
    bail!("the application does not answer: {url}")
}

fn text(page: &reqwest::Response, name: &str) -> Option<String> {
    Some(page.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Plays the reviewers at the OP: they take some time for each sign-in, and then approve, deny or let it expire.
async fn review(op: &TestProvider, longest: u16) -> anyhow::Result<()> {
    let mut desks: BTreeMap<usize, (Duration, u8)> = BTreeMap::new();
    loop {
        let now = SystemClock.monotonic();
        for (number, process) in op.processes().iter().enumerate() {
            if process.deferred_auth_id().is_some() && !desks.contains_key(&number) {
                let [high, low, dice] = random()?;
                let share = f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX);
                desks.insert(number, (now + Duration::from_secs(longest.into()).mul_f64(share), dice));
                process.progress("a person is looking at the passport");
            }
        }
        for (number, process) in op.processes().iter().enumerate() {
            if let Some((due, dice)) = desks.get_mut(&number).filter(|(due, _)| now >= *due) {
                decide(process, *dice);
                *due = Duration::MAX;
            }
        }
        SystemClock.sleep(MOMENT).await;
    }
}

fn decide(process: &TestProcess, dice: u8) {
    match dice % 10 {
        0 => process.deny(),
        1 => process.expire(),
        _ => process.approve(),
    }
}

/// The outcomes so far, by sign-in. A second line for one sign-in repeats the first.
fn read(outcomes: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(outcomes).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter_map(|line| Some((line["id"].as_str()?.to_owned(), line["outcome"].as_str()?.to_owned()))).collect()
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom.fill(&mut bytes)?;
    Ok(bytes)
}
