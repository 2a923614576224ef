//! The cost of a poll compared with a bare loop that sends the same bytes: `scripts/bench`.
//!
//! A server in another program answers `authorization_pending` at once and verifies nothing. Then 64 polls at a time
//! are sent over kept connections: alternately by a loop on reqwest and OpenSSL with a fresh proof for each, by
//! `Client::poll`, and by a `Poller` on each store. A poller reads its keys from storage, so it is compared with a loop
//! that loads its key from raw bytes for each poll. The result is this program's own CPU time for each poll, including
//! the stores but not a database server. The ratios are what counts, because the machine and its other load affect all
//! of them equally.
//!
//! With `DATABASE_URL` set, as `scripts/postgres run` sets it, PostgreSQL is measured too. Words on the command line
//! choose among `bare`, `client`, `memory`, `sqlite` and `postgres`, for a profiler.
//!
//! `--peer <name>=<program> <argument>` has another program do the same work against the same server. It is started
//! with the issuer, the number of polls in flight, rounds and repetitions as further arguments. It prints the median of
//! its own CPU time for each poll, in microseconds. The programs in `benches/peers` work this way.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use openid_deferred::poller::{Event, Events};
use openid_deferred::store::{MemoryStore, PostgresStore, SqliteStore, Store};
use openid_deferred::testing::TestClock;
use openid_deferred::{
    Client, ClientAuthentication, Clock, Keyring, PendingAuthentication, Poll, Poller, SealingKey, SignIn, SystemClock,
    SystemRandom,
};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use op::GRANT;

#[path = "support/op.rs"]
mod op;

type Failed = Box<dyn Error + Send + Sync>;

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 60;
const POLLS: usize = ROUNDS * IN_FLIGHT;
const REPETITIONS: usize = 7;

fn main() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().any(|argument| argument == "--serve") {
        return runtime.block_on(serve());
    }
    runtime.block_on(compare())
}

/// A minimal OP.
async fn serve() -> Result<(), Failed> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let issuer = format!("http://{}", listener.local_addr()?);
    let metadata = op::metadata(&issuer);
    println!("{issuer}");
    let token = post(|form: String| async move {
        if form.contains("deferred_code=") {
            let id = URL_SAFE_NO_PAD.encode(form.as_bytes().last_chunk::<12>().copied().unwrap_or_default());
            let body = json!({"deferred_auth_id": id, "expires_in": 1_000_000_000, "interval": 1});
            return (StatusCode::OK, Json(body));
        }
        (StatusCode::BAD_REQUEST, Json(json!({"error": "authorization_pending"})))
    });
    let device = json!({
        "device_code": "YSBkZWZlcnJlZCBh", "user_code": "WDJB-MJHT", "verification_uri": format!("{issuer}/device"),
        "expires_in": 1_000_000_000,
    });
    let routes = Router::new()
        .route("/device", post(async move || Json(device)))
        .route("/.well-known/openid-configuration", get(async move || Json(metadata)))
        .route("/token", token);
    Ok(axum::serve(listener, routes).await?)
}

async fn compare() -> Result<(), Failed> {
    let mut server = Command::new(std::env::current_exe()?).arg("--serve").stdout(Stdio::piped()).spawn()?;
    let mut issuer = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut issuer)?;
    let measured = async {
        let own = measure(issuer.trim()).await?;
        let peers = peers(issuer.trim())?;
        Ok::<_, Failed>((own, peers))
    };
    let measured = measured.await;
    server.kill()?;
    server.wait()?;
    let (own, peers) = measured?;
    println!(
        "{:<50} {:>10} {:>15} {:>9}",
        "one poll, 64 in flight, kept connections", "µs of CPU", "per CPU second", "of bare"
    );
    for Row { name, micros, of } in &own {
        let ratio = of.map_or("-".to_owned(), |of| format!("{:.2}", of / micros));
        println!("{name:<50} {micros:>10.1} {:>15.0} {ratio:>9}", 1e6 / micros);
    }
    for (peer, theirs) in peers {
        println!("{peer:<50} {theirs:>10.1} {:>15.0}", 1e6 / theirs);
        for Row { name, micros, .. } in own.iter().filter(|row| !row.name.starts_with("bare")) {
            println!("{name:>50} makes {:.2} times as many", theirs / micros);
        }
    }
    Ok(())
}

/// The CPU time of other programs for each poll in microseconds, with their names.
fn peers(issuer: &str) -> Result<Vec<(String, f64)>, Failed> {
    let mut arguments = std::env::args();
    let mut measured = Vec::new();
    while arguments.by_ref().any(|argument| argument == "--peer") {
        let peer = arguments.next().ok_or("no peer")?;
        let (name, command) = peer.split_once('=').ok_or("a peer is <name>=<program>")?;
        let mut words = command.split(' ');
        let mut program = Command::new(words.next().unwrap_or_default());
        let numbers = [IN_FLIGHT, ROUNDS, REPETITIONS].map(|number| number.to_string());
        let output = program.args(words).arg(issuer).args(numbers).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{name} failed").into());
        }
        measured.push((name.to_owned(), String::from_utf8(output.stdout)?.trim().parse()?));
    }
    Ok(measured)
}

/// The cost of one way of polling, and of its bare counterpart if that was measured.
struct Row {
    name: &'static str,
    micros: f64,
    of: Option<f64>,
}

/// A way to make [`POLLS`] polls.
enum Contender {
    Bare { bare: Arc<Bare>, brings_key_back: bool },
    Client { client: Client, clock: TestClock, pending: Vec<PendingAuthentication> },
    Poller(Waiting),
}

/// The median CPU time of each poll, in microseconds. The contenders alternate, so that other load on the machine
/// affects all equally.
async fn measure(issuer: &str) -> Result<Vec<Row>, Failed> {
    let folder = tempfile::tempdir()?;
    let mut contenders = contenders(issuer, folder.path()).await?;
    let mut times: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::new()).collect();
    for repetition in 0..=REPETITIONS {
        for ((_, contender), times) in contenders.iter_mut().zip(&mut times) {
            let began = cpu_time()?;
            contender.poll().await?;
            // The first repetition warms up connections and caches.
            if repetition > 0 {
                times.push((cpu_time()? - began).as_secs_f64() * 1e6 / POLLS as f64);
            }
        }
    }
    let medians: Vec<_> = times.into_iter().map(median).collect();
    let bare = |brings: bool| {
        let is_it = |contender: &Contender| matches!(contender, Contender::Bare { brings_key_back, .. } if *brings_key_back == brings);
        contenders.iter().zip(&medians).find(|((_, contender), _)| is_it(contender)).map(|(_, micros)| *micros)
    };
    let row = |((name, contender), micros): (&(&'static str, Contender), &f64)| {
        let brings_key_back = match contender {
            Contender::Bare { brings_key_back, .. } => *brings_key_back,
            Contender::Client { .. } => false,
            Contender::Poller(_) => true,
        };
        Row { name, micros: *micros, of: bare(brings_key_back) }
    };
    Ok(contenders.iter().zip(&medians).map(row).collect())
}

/// The contenders that the command line names, or all.
async fn contenders(issuer: &str, folder: &Path) -> Result<Vec<(&'static str, Contender)>, Failed> {
    let mut contenders = Vec::new();
    if is_chosen("bare") {
        let bare = Arc::new(Bare::new(issuer)?);
        contenders.push(("bare loop, its key alive", Contender::Bare { bare: bare.clone(), brings_key_back: false }));
        let name = "bare loop, its key from raw bytes for each poll";
        contenders.push((name, Contender::Bare { bare, brings_key_back: true }));
    }
    if is_chosen("client") {
        let clock = TestClock::new();
        let (client, mut pending) = (client(issuer, &clock)?, Vec::with_capacity(IN_FLIGHT));
        for _ in 0..IN_FLIGHT {
            pending.push(sign_in(&client).await?);
        }
        contenders.push(("Client::poll", Contender::Client { client, clock, pending }));
    }
    if is_chosen("memory") {
        let waiting = Waiting::new(issuer, MemoryStore::new()).await?;
        contenders.push(("Poller on MemoryStore", Contender::Poller(waiting)));
    }
    if is_chosen("sqlite") {
        let store = SqliteStore::open(folder.join("bench.db")).await?;
        contenders.push(("Poller on SqliteStore", Contender::Poller(Waiting::new(issuer, store).await?)));
    }
    if let Ok(url) = std::env::var("DATABASE_URL")
        && is_chosen("postgres")
    {
        let store = PostgresStore::builder(&url).schema("polls_bench").connect().await?;
        store.migrate().await?;
        contenders.push(("Poller on PostgresStore", Contender::Poller(Waiting::new(issuer, store).await?)));
    }
    Ok(contenders)
}

impl Contender {
    async fn poll(&mut self) -> Result<(), Failed> {
        match self {
            Self::Bare { bare, brings_key_back } => {
                for _ in 0..ROUNDS {
                    let polls = (0..IN_FLIGHT).map(|_| bare.poll(*brings_key_back));
                    join_all(polls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
                }
            }
            Self::Client { client, clock, pending } => {
                for _ in 0..ROUNDS {
                    clock.advance(Duration::from_secs(5));
                    for polled in join_all(pending.iter_mut().map(|pending| client.poll(pending))).await {
                        if !matches!(polled?, Poll::Pending) {
                            return Err("the server says pending".into());
                        }
                    }
                }
            }
            Self::Poller(waiting) => waiting.poll().await?,
        }
        Ok(())
    }
}

fn client(issuer: &str, clock: &(impl Clock + Clone + 'static)) -> Result<Client, Failed> {
    Ok(Client::builder(issuer, "bench")
        .authentication(ClientAuthentication::client_secret_basic("a secret of some length"))
        .redirect_uri("https://rp.example/callback")
        .allow_insecure_loopback()
        .clock(Arc::new(clock.clone()))
        .build()?)
}

/// Whether the command line names this contender, or none.
fn is_chosen(name: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|argument| !argument.contains(['-', '='])).peekable();
    words.peek().is_none() || words.any(|word| word == name)
}

/// As many pending sign-ins as there are polls in a round. Each is due a second after its last poll. There is a poller only
/// while it is measured.
struct Waiting {
    client: Client,
    store: Arc<dyn Store>,
    keyring: Keyring,
}

impl Waiting {
    async fn new(issuer: &str, store: impl Store + 'static) -> Result<Self, Failed> {
        let keyring = Keyring::new(SealingKey::generate(&SystemRandom)?);
        let waiting = Self { client: client(issuer, &SystemClock)?, store: Arc::new(store), keyring };
        let poller = Poller::builder(waiting.store.clone(), waiting.keyring.clone()).client(waiting.client.clone());
        track(&waiting.client, &poller.connect().await?).await?;
        Ok(waiting)
    }

    async fn poll(&self) -> Result<(), Failed> {
        let builder = Poller::builder(self.store.clone(), self.keyring.clone()).client(self.client.clone());
        let poller = builder.start().await?;
        polled(poller.events()).await?;
        poller.shutdown(Duration::from_secs(5)).await;
        Ok(())
    }
}

async fn track(client: &Client, poller: &Poller) -> Result<(), Failed> {
    for _ in 0..ROUNDS {
        let tracked = (0..IN_FLIGHT).map(async |_| {
            poller.track(&sign_in(client).await?).await?;
            Ok::<_, Failed>(())
        });
        join_all(tracked).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

/// Waits for a round of polls.
async fn polled(mut events: Events) -> Result<(), Failed> {
    let mut polled = 0;
    while polled < POLLS {
        match events.next().await {
            Some(Event::Pending { .. }) => polled += 1,
            Some(Event::TransientError { error, .. }) => return Err(error.to_string().into()),
            Some(Event::Missed { .. }) | None => return Err("events were missed".into()),
            Some(_) => {}
        }
    }
    Ok(())
}

async fn sign_in(client: &Client) -> Result<PendingAuthentication, Failed> {
    let (_, session) = client.authorize().start().await?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("deferred_code", "a deferred code").append_pair("state", session.state().expose());
    query.append_pair("iss", client.issuer());
    match client.authorization_response(&query.finish(), session).await? {
        SignIn::Deferred(pending) => Ok(pending),
        other => Err(format!("not deferred: {other:?}").into()),
    }
}

/// The code of a programmer who wants only speed.
struct Bare {
    http: reqwest::Client,
    url: reqwest::Url,
    authorization: String,
    key: EcKey<Private>,
    /// The same key as a row would hold it: the scalar and the point.
    raw_key: (Vec<u8>, Vec<u8>),
    header: String,
    proofs: AtomicU64,
}

impl Bare {
    fn new(issuer: &str) -> Result<Self, Failed> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = EcKey::generate(&group)?;
        let (mut x, mut y, mut context) = (BigNum::new()?, BigNum::new()?, BigNumContext::new()?);
        key.public_key().affine_coordinates(&group, &mut x, &mut y, &mut context)?;
        let coordinate = |number: &BigNum| number.to_vec_padded(32).map(|octets| URL_SAFE_NO_PAD.encode(octets));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": coordinate(&x)?, "y": coordinate(&y)?});
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}).to_string();
        let point = key.public_key().to_bytes(&group, PointConversionForm::UNCOMPRESSED, &mut context)?;
        Ok(Self {
            raw_key: (key.private_key().to_vec_padded(32)?, point),
            http: reqwest::Client::builder().no_proxy().build()?,
            url: format!("{issuer}/token").parse()?,
            authorization: format!("Basic {}", STANDARD.encode("bench:a+secret+of+some+length")),
            key,
            header: URL_SAFE_NO_PAD.encode(header),
            proofs: AtomicU64::new(0),
        })
    }

    async fn poll(&self, brings_key_back: bool) -> Result<(), Failed> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", GRANT).append_pair("deferred_auth_id", "YSBkZWZlcnJlZCBh");
        let request = self.http.post(self.url.clone()).header("authorization", &self.authorization);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.finish());
        let response = request.header("dpop", self.proof(brings_key_back)?).send().await?;
        let body: Value = serde_json::from_slice(&response.bytes().await?)?;
        if body["error"] == "authorization_pending" { Ok(()) } else { Err("the server says pending".into()) }
    }

    fn proof(&self, brings_key_back: bool) -> Result<String, Failed> {
        let brought_back = if brings_key_back { Some(self.brought_back()?) } else { None };
        let key = brought_back.as_ref().unwrap_or(&self.key);
        let number = self.proofs.fetch_add(1, Ordering::Relaxed);
        let issued_at = SystemClock.now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({"jti": format!("{number:022}"), "htm": "POST", "htu": self.url.as_str(), "iat": issued_at});
        let input = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = EcdsaSig::sign(&openssl::sha::sha256(input.as_bytes()), key)?;
        let raw = [signature.r().to_vec_padded(32)?, signature.s().to_vec_padded(32)?].concat();
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(raw)))
    }
}

impl Bare {
    fn brought_back(&self) -> Result<EcKey<Private>, Failed> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let mut context = BigNumContext::new()?;
        let point = EcPoint::from_bytes(&group, &self.raw_key.1, &mut context)?;
        let scalar = BigNum::from_slice(&self.raw_key.0)?;
        Ok(EcKey::from_private_components(&group, &scalar, &point)?)
    }
}

/// The CPU time of all threads of this program, user and system.
fn cpu_time() -> Result<Duration, Failed> {
    Ok(clock_gettime(ClockId::ProcessCPUTime).try_into()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
