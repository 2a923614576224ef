//! The cost of a ping: from its arrival to the outcome, and of refusing a forged one. `scripts/bench` runs it.
//!
//! `outcomes`: an OP in another program answers each poll with tokens at once. Users sign in over HTTP. As soon as a
//! ping may bring the poll of a sign-in forward, the sign-in is pinged. The time runs from the arrival of the ping at
//! the route of `ping::axum` until the outcome is delivered. The same run measures the time that the OP takes to
//! answer, a bare POST over a kept connection, and a bare commit to a SQLite file in the same folder.
//!
//! `forged`: a load generator sends pings with a forged token, alternately to the route and to a bare axum handler that
//! answers 401. Each runs in a program of its own whose CPU time is counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Parser, Subcommand};
use futures_util::future::{join_all, try_join_all};
use indicatif::ProgressBar;
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::{MemoryStore, SqliteStore, Store};
use openid_deferred::{
    Client, ClientAuthentication, Clock as _, Keyring, Outcome, Poller, SealingKey, SystemClock, SystemRandom, ping,
};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

#[path = "support/machine.rs"]
mod machine;
#[path = "support/op.rs"]
mod op;

type Failed = Box<dyn Error + Send + Sync>;

/// A ping does not bring a poll forward before this time has passed since the previous answer.
const PINGS_COUNT_AFTER: Duration = Duration::from_millis(1_500);
const RESULTS: &str = "target/bench/pings.json";

#[derive(Parser)]
#[command(about = "What a ping costs. Without a command: both measurements.")]
struct Arguments {
    #[command(subcommand)]
    order: Option<Order>,
    /// The number of sign-ins that are pinged on each store.
    #[arg(long, global = true, default_value_t = 500)]
    pings: usize,
    /// The time for which each server is under load in each of five rounds, in seconds.
    #[arg(long, global = true, default_value_t = 3)]
    seconds: u64,
    /// Cargo passes this to every benchmark.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Order {
    /// From a ping to its outcome.
    Outcomes,
    /// Forged pings refused per CPU second.
    Forged,
    #[command(hide = true)]
    Op,
    #[command(hide = true)]
    Receiver,
    #[command(hide = true)]
    Bare,
    #[command(hide = true)]
    Load {
        #[arg(long)]
        url: String,
        #[arg(long)]
        token: String,
    },
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    match &arguments.order {
        None => {
            outcomes(arguments.pings).await?;
            forged(arguments.seconds).await
        }
        Some(Order::Outcomes) => outcomes(arguments.pings).await,
        Some(Order::Forged) => forged(arguments.seconds).await,
        Some(Order::Op) => ends_with_input(Op::new()?.serve()).await,
        Some(Order::Receiver) => ends_with_input(serve_receiver()).await,
        Some(Order::Bare) => {
            ends_with_input(serve(Router::new().route("/ping", any(async || StatusCode::UNAUTHORIZED)), "")).await
        }
        Some(Order::Load { url, token }) => load(url, token, Duration::from_secs(arguments.seconds)).await,
    }
}

/// Times of one kind, in milliseconds.
#[derive(Debug, Default, Serialize)]
struct Times {
    p50: f64,
    p99: f64,
}

impl Times {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1)));
        Self { p50: at(0.5).copied().unwrap_or_default(), p99: at(0.99).copied().unwrap_or_default() }
    }
}

/// The times from pings to outcomes on one store.
#[derive(Debug, Serialize)]
struct FromPings {
    store: &'static str,
    total: Times,
    op_answers: Times,
    raw_post: Times,
    raw_commit: Times,
    /// The total minus the OP's time, one POST and, if the store commits to a disk, two commits. Computed from the
    /// medians and from the 99th percentiles.
    remains: Times,
}

async fn outcomes(pings: usize) -> Result<(), Failed> {
    let mut measured = Vec::new();
    for name in ["MemoryStore", "SqliteStore"] {
        let folder = tempfile::tempdir_in("target")?;
        let store: Arc<dyn Store> = match name {
            "MemoryStore" => Arc::new(MemoryStore::new()),
            _ => Arc::new(SqliteStore::open(folder.path().join("pings.sqlite")).await?),
        };
        measured.push(from_pings(name, store, folder.path(), pings).await?);
    }
    println!("\nFrom a ping to its outcome, ms, {}, load average {}\n", machine::processors(), machine::load());
    println!("| store | | in all | OP answers | one POST | one commit | remains |\n|---|---|---|---|---|---|---|");
    for of in &measured {
        for (share, of_times) in [("p50", (|of: &Times| of.p50) as fn(&Times) -> f64), ("p99", |of| of.p99)] {
            let times = [&of.total, &of.op_answers, &of.raw_post, &of.raw_commit, &of.remains];
            let cells = times.map(|times| format!("{:.2}", of_times(times)));
            println!("| {} | {share} | {} |", of.store, cells.join(" | "));
        }
    }
    keep("outcomes", serde_json::to_value(measured)?)
}

async fn from_pings(
    name: &'static str,
    store: Arc<dyn Store>,
    folder: &Path,
    pings: usize,
) -> Result<FromPings, Failed> {
    let (_op, issuer) = Server::start(&["op"])?;
    let client = client(&issuer)?;
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom)?);
    let poller = Poller::builder(store.clone(), keyring).client(client.clone()).receives_pings().start().await?;

    let (arrived, arrival) = watch::channel(Duration::ZERO);
    let route = ping::axum::route::<()>(poller.clone()).layer(from_fn_with_state(arrived, note_arrival));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/ping", listener.local_addr()?);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, Router::new().route("/ping", route)).await });

    let numbers: Vec<_> = (0..pings).collect();
    for numbers in numbers.chunks(16) {
        try_join_all(numbers.iter().map(|number| sign_in(&poller, &client, *number))).await?;
    }
    SystemClock.sleep(PINGS_COUNT_AFTER).await;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let tokens: BTreeMap<String, Waiting> = get_json(&http, &format!("{issuer}/waiting")).await?;

    let disk = BareCommits::new(folder)?;
    let mut outcomes = poller.outcomes();
    let (mut total, mut posts, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    let bar = ProgressBar::new(pings as u64);
    for (id, waiting) in &tokens {
        let request =
            http.post(&url).bearer_auth(&waiting.notification_token).header("content-type", "application/json");
        let request = request.body(json!({"deferred_auth_id": id}).to_string());
        let (answered, delivery) = tokio::join!(request.send(), outcomes.next());
        let delivered = SystemClock.monotonic();
        total.push(millis(delivered.saturating_sub(*arrival.borrow())));
        answered?.error_for_status()?;
        let delivery = delivery.ok_or("the poller stopped")?;
        if !matches!(delivery.outcome(), Outcome::Approved(_)) {
            return Err(format!("not approved: {:?}", delivery.outcome()).into());
        }
        delivery.acknowledge().await?;

        let began = SystemClock.monotonic();
        http.post(format!("{issuer}/raw")).body("deferred_auth_id=").send().await?.bytes().await?;
        posts.push(millis(SystemClock.monotonic() - began));
        let began = SystemClock.monotonic();
        disk.commit()?;
        commits.push(millis(SystemClock.monotonic() - began));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let op_answers: Vec<f64> = get_json(&http, &format!("{issuer}/times")).await?;
    poller.shutdown(Duration::ZERO).await;
    let [total, op_answers, raw_post, raw_commit] = [total, op_answers, posts, commits].map(Times::of);
    let commits = if store.is_ephemeral() { 0.0 } else { 2.0 };
    let remains = Times {
        p50: total.p50 - op_answers.p50 - raw_post.p50 - commits * raw_commit.p50,
        p99: total.p99 - op_answers.p99 - raw_post.p99 - commits * raw_commit.p99,
    };
    Ok(FromPings { store: name, total, op_answers, raw_post, raw_commit, remains })
}

async fn note_arrival(State(arrived): State<watch::Sender<Duration>>, request: Request, next: Next) -> Response {
    arrived.send_replace(SystemClock.monotonic());
    next.run(request).await
}

fn client(issuer: &str) -> Result<Client, Failed> {
    let builder = Client::builder(issuer, "bench")
        .authentication(ClientAuthentication::client_secret_basic("a secret of some length"))
        .redirect_uri("https://rp.example/callback")
        .allow_insecure_loopback()
        .configure_http(|http| http.no_proxy());
    Ok(builder.build()?)
}

async fn sign_in(poller: &Poller, client: &Client, number: usize) -> Result<(), Failed> {
    let (url, session) = client.authorize().start().await?;
    // The OP learns the nonce from the code, because no browser visits it.
    let nonce = url.query_pairs().find(|(name, _)| name == "nonce").ok_or("no nonce")?.1.into_owned();
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("deferred_code", &format!("{number:022}.{nonce}"));
    query.append_pair("state", session.state().expose()).append_pair("iss", client.issuer());
    match poller.authorization_response(&query.finish(), session).await? {
        AcceptedSignIn::Deferred(_) => Ok(()),
        other => Err(format!("not deferred: {other:?}").into()),
    }
}

/// A SQLite file with the settings of the store, and one row that changes.
struct BareCommits(Connection);

impl BareCommits {
    fn new(folder: &Path) -> Result<Self, Failed> {
        let connection = Connection::open(folder.join("bare.sqlite"))?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.execute_batch("CREATE TABLE counter (count INTEGER); INSERT INTO counter VALUES (0)")?;
        Ok(Self(connection))
    }

    fn commit(&self) -> Result<(), Failed> {
        self.0.execute("UPDATE counter SET count = count + 1", [])?;
        Ok(())
    }
}

/// An OP that has decided before it is asked.
struct Op {
    key: EcKey<Private>,
    waiting: Mutex<BTreeMap<String, Waiting>>,
    /// The times that the OP took to answer polls, in milliseconds.
    times: Mutex<Vec<f64>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Waiting {
    nonce: String,
    notification_token: String,
}

impl Op {
    fn new() -> Result<Self, Failed> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        Ok(Self { key: EcKey::generate(&group)?, waiting: Mutex::default(), times: Mutex::default() })
    }

    async fn serve(self) -> Result<(), Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let issuer = format!("http://{}", listener.local_addr()?);
        let metadata = op::metadata(&issuer);
        let keys = json!({"keys": [self.jwk()?]});
        let op = Arc::new(self);
        let (tokens, waiting, times, name) = (op.clone(), op.clone(), op.clone(), issuer.clone());
        let token = post(async move |form: String| {
            let began = SystemClock.monotonic();
            let answer = tokens.token(&name, &form).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            if form.contains("deferred_auth_id=") {
                locked(&tokens.times).push(millis(SystemClock.monotonic() - began));
            }
            Ok::<_, (StatusCode, String)>(Json(answer))
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(async move || Json(metadata)))
            .route("/jwks", get(async move || Json(keys)))
            .route("/token", token)
            .route("/raw", post(async |_: String| Json(json!({"error": "authorization_pending"}))))
            .route("/waiting", get(async move || Json(locked(&waiting.waiting).clone())))
            .route("/times", get(async move || Json(locked(&times.times).clone())));
        println!("{issuer}");
        Ok(axum::serve(listener, routes).await?)
    }

    fn jwk(&self) -> Result<Value, Failed> {
        let (mut x, mut y, mut context) = (BigNum::new()?, BigNum::new()?, BigNumContext::new()?);
        self.key.public_key().affine_coordinates(self.key.group(), &mut x, &mut y, &mut context)?;
        let coordinate = |number: &BigNum| number.to_vec_padded(32).map(|octets| URL_SAFE_NO_PAD.encode(octets));
        Ok(json!({"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig",
            "x": coordinate(&x)?, "y": coordinate(&y)?}))
    }

    fn token(&self, issuer: &str, form: &str) -> Result<Value, Failed> {
        let form: BTreeMap<_, _> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        if let Some(code) = form.get("deferred_code") {
            let (id, nonce) = code.split_once('.').ok_or("no nonce")?;
            let notification_token = form.get("deferred_notification_token").cloned().unwrap_or_default();
            let waiting = Waiting { nonce: nonce.to_owned(), notification_token };
            locked(&self.waiting).insert(id.to_owned(), waiting);
            return Ok(json!({"deferred_auth_id": id, "expires_in": 1_000_000, "interval": 3_600}));
        }
        let id = form.get("deferred_auth_id").ok_or("no deferred_auth_id")?;
        let nonce = locked(&self.waiting).get(id).ok_or("unknown")?.nonce.clone();
        let access_token = format!("access-token-{id}");
        let hash = openssl::sha::sha256(access_token.as_bytes());
        let now = SystemClock.now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": issuer, "sub": "248289761001", "aud": "bench", "iat": now, "exp": now + 600, "auth_time": now,
            "nonce": nonce, "at_hash": URL_SAFE_NO_PAD.encode(&hash[..16]),
        });
        let header = URL_SAFE_NO_PAD.encode(json!({"typ": "JWT", "alg": "ES256", "kid": "1"}).to_string());
        let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = EcdsaSig::sign(&openssl::sha::sha256(input.as_bytes()), &self.key)?;
        let raw = [signature.r().to_vec_padded(32)?, signature.s().to_vec_padded(32)?].concat();
        let id_token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(raw));
        Ok(json!({"access_token": access_token, "token_type": "DPoP", "expires_in": 600, "id_token": id_token}))
    }
}

async fn forged(seconds: u64) -> Result<(), Failed> {
    let (receiver, said) = Server::start(&["receiver"])?;
    let (bare, bare_url) = Server::start(&["bare"])?;
    let (url, token) = said.split_once(' ').ok_or("no token")?;
    let servers = [("bare handler", &bare, bare_url.trim()), ("ping::axum::route", &receiver, url)];
    let mut rates = [Vec::new(), Vec::new()];
    // The first round warms up connections and caches.
    for round in 0..=5 {
        for ((_, server, url), rates) in servers.iter().zip(&mut rates) {
            let before = machine::cpu_time(server.0.id())?;
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["load", "--url", url, "--token", token, "--seconds", &seconds.to_string()]);
            let output = command.stderr(Stdio::inherit()).output()?;
            let refused: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
            let spent = machine::cpu_time(server.0.id())? - before;
            if round > 0 {
                rates.push(refused / spent.as_secs_f64());
            }
        }
    }
    let rates = rates.map(|rates| Times::of(rates).p50);
    println!("\nForged pings, {}, load average {}\n", machine::processors(), machine::load());
    println!("| | refused per CPU second | of bare |\n|---|---|---|");
    for ((name, ..), rate) in servers.iter().zip(rates) {
        println!("| {name} | {rate:.0} | {:.2} |", rate / rates[0]);
    }
    keep("forged", json!({"bare": rates[0], "route": rates[1]}))
}

/// Prints its address and a token whose only fault is a wrong MAC.
async fn serve_receiver() -> Result<(), Failed> {
    let (_op, issuer) = Server::start(&["op"])?;
    let client = client(&issuer)?;
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom)?);
    let builder = Poller::builder(MemoryStore::new(), keyring).client(client.clone()).receives_pings();
    let poller = builder.connect().await?;
    sign_in(&poller, &client, 0).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let waiting: BTreeMap<String, Waiting> = get_json(&http, &format!("{issuer}/waiting")).await?;
    let genuine = waiting.into_values().next().ok_or("no sign-in is pending")?.notification_token;
    // Changes a character in the middle of the MAC.
    let (head, tail) = genuine.split_at(genuine.len() - 10);
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    let token = format!("{head}{other}{}", &tail[1..]);
    serve(Router::new().route("/ping", ping::axum::route(poller)), &token).await
}

async fn serve(routes: Router, token: &str) -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/ping {token}", listener.local_addr()?);
    Ok(axum::serve(listener, routes).await?)
}

/// Sends pings over kept connections, 64 at a time, and prints how many were refused.
async fn load(url: &str, token: &str, lasts: Duration) -> Result<(), Failed> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let end = SystemClock.monotonic() + lasts;
    let body = json!({"deferred_auth_id": "0".repeat(22)}).to_string();
    let one_after_the_other = async || {
        let mut refused = 0_u64;
        while SystemClock.monotonic() < end {
            let request = http.post(url).bearer_auth(token).header("content-type", "application/json");
            let response = request.body(body.clone()).send().await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Err(Failed::from(format!("not refused: {}", response.status())));
            }
            response.bytes().await?;
            refused += 1;
        }
        Ok(refused)
    };
    let refused = join_all((0..64).map(|_| one_after_the_other())).await;
    println!("{}", refused.into_iter().sum::<Result<u64, _>>()?);
    Ok(())
}

/// A server ends with the program that started it, even if that is killed.
async fn ends_with_input(server: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    let input = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    tokio::select! {
        ended = input => Ok(ended?.map(drop)?),
        served = server => served,
    }
}

/// Another instance of this program.
struct Server(Child);

impl Server {
    /// Starts it and returns the line that it prints once it is ready.
    fn start(arguments: &[&str]) -> Result<(Self, String), Failed> {
        let mut process = Command::new(std::env::current_exe()?);
        let mut process = process.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let server = Self(process);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok((server, line.trim().to_owned()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It holds nothing that has to be saved.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get_json<T: serde::de::DeserializeOwned>(http: &reqwest::Client, url: &str) -> Result<T, Failed> {
    Ok(serde_json::from_slice(&http.get(url).send().await?.error_for_status()?.bytes().await?)?)
}

/// Stores results beside those of other measurements.
fn keep(kind: &str, results: Value) -> Result<(), Failed> {
    let mut all: Value =
        fs::read(RESULTS).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or(json!({}));
    all[kind] = results;
    if let Some(folder) = Path::new(RESULTS).parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(RESULTS, serde_json::to_vec_pretty(&all)?)?)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
