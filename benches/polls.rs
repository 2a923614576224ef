//! What a poll costs beside a bare loop that sends the same bytes: `scripts/bench`.
//!
//! A server in a process of its own answers `authorization_pending` at once and verifies nothing. Then 64 polls at a time
//! are sent over kept connections, alternately by a loop on reqwest and OpenSSL with a fresh proof for each and by
//! `Client::poll`, and then by a `Poller` on each store. A poller has its keys from storage, so it is compared with a loop
//! that brings its key back from raw bytes for each poll. What counts is this process's own CPU time for each poll, stores
//! included, and of it the ratio: the machine and what else runs on it weigh on all.
//!
//! `--peer <name>=<program> <argument>` has another program do the same work, against the same server: it is started
//! with the issuer, polls in flight, rounds and repetitions as further arguments and prints the median of its own CPU
//! time for each poll, in microseconds. Those in `benches/peers` are such programs.

use std::error::Error;
use std::io::{BufRead, BufReader};
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
use openid_deferred::poller::Event;
use openid_deferred::store::{MemoryStore, SqliteStore, Store};
use openid_deferred::testing::TestClock;
use openid_deferred::{
    Client, ClientAuthentication, Clock as _, Keyring, PendingAuthentication, Poll, Poller, SealingKey, SignIn,
    SystemClock, SystemRandom,
};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Private;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

type Failed = Box<dyn Error + Send + Sync>;

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 60;
const POLLS: usize = ROUNDS * IN_FLIGHT;
const REPETITIONS: usize = 7;
const GRANT: &str = "urn:openid:params:grant-type:deferred";

fn main() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().any(|argument| argument == "--serve") {
        return runtime.block_on(serve());
    }
    runtime.block_on(compare())
}

/// An OP of few words.
async fn serve() -> Result<(), Failed> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let issuer = format!("http://{}", listener.local_addr()?);
    let metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "device_authorization_endpoint": format!("{issuer}/device"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["deferred_code"],
        "grant_types_supported": [GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "authorization_response_iss_parameter_supported": true,
    });
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
        println!("{name:<50} {micros:>10.1} {:>15.0} {:>9.2}", 1e6 / micros, of / micros);
    }
    for (peer, theirs) in peers {
        println!("{peer:<50} {theirs:>10.1} {:>15.0}", 1e6 / theirs);
        for Row { name, micros, .. } in own.iter().filter(|row| !row.name.starts_with("bare")) {
            println!("{name:>50} makes {:.2} times as many", theirs / micros);
        }
    }
    Ok(())
}

/// Microseconds of CPU for each poll of other programs, with their names.
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

/// What one way of polling costs, and what its bare counterpart.
struct Row {
    name: &'static str,
    micros: f64,
    of: f64,
}

/// Microseconds of CPU for each poll, the medians.
async fn measure(issuer: &str) -> Result<Vec<Row>, Failed> {
    let bare = Bare::new(issuer)?;
    let clock = TestClock::new();
    let client = Client::builder(issuer, "bench")
        .authentication(ClientAuthentication::client_secret_basic("a secret of some length"))
        .redirect_uri("https://rp.example/callback")
        .allow_insecure_loopback()
        .clock(Arc::new(clock.clone()))
        .build()?;
    let mut pending = Vec::with_capacity(IN_FLIGHT);
    for _ in 0..IN_FLIGHT {
        pending.push(sign_in(&client, issuer).await?);
    }
    let mut times: [Vec<f64>; 3] = Default::default();
    for repetition in 0..=REPETITIONS {
        let mut marks = vec![cpu_time()?];
        for brings_key_back in [false, true] {
            for _ in 0..ROUNDS {
                let polls = (0..IN_FLIGHT).map(|_| bare.poll(brings_key_back));
                join_all(polls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            }
            marks.push(cpu_time()?);
        }
        for _ in 0..ROUNDS {
            clock.advance(Duration::from_secs(5));
            for polled in join_all(pending.iter_mut().map(|pending| client.poll(pending))).await {
                if !matches!(polled?, Poll::Pending) {
                    return Err("the server says pending".into());
                }
            }
        }
        marks.push(cpu_time()?);
        // The first time warms connections and caches up.
        if repetition > 0 {
            for (time, mark) in times.iter_mut().zip(marks.windows(2)) {
                time.push((mark[1] - mark[0]).as_secs_f64() * 1e6 / POLLS as f64);
            }
        }
    }
    let [alive, brought_back, ours] = times.map(median);
    let in_memory = {
        let store = MemoryStore::with_clock(Arc::new(clock.clone()));
        Waiting::new(&client, issuer, &clock, store).await?.measure(&clock).await?
    };
    let in_file = {
        let folder = tempfile::tempdir()?;
        let builder = SqliteStore::builder(folder.path().join("bench.db")).clock(Arc::new(clock.clone()));
        Waiting::new(&client, issuer, &clock, builder.open().await?).await?.measure(&clock).await?
    };
    Ok(vec![
        Row { name: "bare loop, its key alive", micros: alive, of: alive },
        Row { name: "Client::poll", micros: ours, of: alive },
        Row { name: "bare loop, its key from raw bytes for each poll", micros: brought_back, of: brought_back },
        Row { name: "Poller on MemoryStore", micros: in_memory, of: brought_back },
        Row { name: "Poller on SqliteStore", micros: in_file, of: brought_back },
    ])
}

/// As many processes as the others make polls, in a poller.
struct Waiting(Poller);

impl Waiting {
    async fn new(
        client: &Client,
        issuer: &str,
        clock: &TestClock,
        store: impl Store + 'static,
    ) -> Result<Self, Failed> {
        let builder = Poller::builder(store, Keyring::new(SealingKey::generate(&SystemRandom)?));
        let poller = builder.clock(Arc::new(clock.clone())).client(client.clone()).start().await?;
        for _ in 0..POLLS {
            poller.track(&sign_in(client, issuer).await?, "").await?;
        }
        Ok(Self(poller))
    }

    /// Microseconds of CPU for each poll, the store's included.
    async fn measure(self, clock: &TestClock) -> Result<f64, Failed> {
        let mut times = Vec::new();
        for repetition in 0..=REPETITIONS {
            let began = cpu_time()?;
            self.polled(clock).await?;
            if repetition > 0 {
                times.push((cpu_time()? - began).as_secs_f64() * 1e6 / POLLS as f64);
            }
        }
        self.0.shutdown(Duration::ZERO).await;
        Ok(median(times))
    }

    /// Waits for so many polls, and lets an interval pass whenever nobody is due.
    #[expect(clippy::disallowed_methods, reason = "real time shows that nothing happens on the simulated one")]
    async fn polled(&self, clock: &TestClock) -> Result<(), Failed> {
        let mut events = self.0.events();
        let mut polled = 0;
        while polled < POLLS {
            match tokio::time::timeout(Duration::from_millis(20), events.recv()).await {
                Ok(Ok(Event::Polled { .. })) => polled += 1,
                Ok(Ok(Event::Trouble { error, .. })) => return Err(error.to_string().into()),
                Ok(Ok(_)) => {}
                Ok(Err(missed)) => return Err(missed.into()),
                Err(_) => clock.advance(Duration::from_secs(2)),
            }
        }
        Ok(())
    }
}

async fn sign_in(client: &Client, issuer: &str) -> Result<PendingAuthentication, Failed> {
    let (_, session) = client.authorize().start().await?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("deferred_code", "a deferred code").append_pair("state", session.state().expose());
    query.append_pair("iss", issuer);
    match client.authorization_response(&query.finish(), session).await? {
        SignIn::Deferred(pending) => Ok(pending),
        other => Err(format!("not deferred: {other:?}").into()),
    }
}

/// What somebody would write who wants nothing but speed.
struct Bare {
    http: reqwest::Client,
    url: reqwest::Url,
    authorization: String,
    key: EcKey<Private>,
    /// The same as it would stand in a row: the scalar and the point.
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

/// Of all threads of this process, user and system.
fn cpu_time() -> Result<Duration, Failed> {
    Ok(clock_gettime(ClockId::ProcessCPUTime).try_into()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
