//! A minimal OP: it defers everything, answers polls at once, verifies nothing, and records the times of each sign-in.

use std::fmt;
use std::io::BufRead as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use openid_deferred::Clock as _;
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Failed;
use crate::clock::{BenchClock, PREPARED};
use crate::words::metadata;

/// The OP without its transport.
pub(crate) struct Op {
    address: String,
    clock: Arc<BenchClock>,
    interval: Duration,
    /// The time of the last answer for each sign-in, in nanoseconds on the clock.
    answered: Vec<AtomicU64>,
    /// The time of the first poll, likewise. Zero before it.
    first: AtomicU64,
    early: AtomicU64,
    /// How much later than an interval after the previous answer polls came, in microseconds.
    lateness: Mutex<Vec<u32>>,
}

/// The punctuality of the polls since the last [`Op::reset`], as the OP sees it. The lateness includes the time that
/// requests and responses spend on the network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Punctuality {
    pub(crate) polls: usize,
    pub(crate) early: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// The time of the very first poll, on the clock.
    pub(crate) first: Option<Duration>,
}

impl Op {
    pub(crate) fn new(address: &str, clock: Arc<BenchClock>, pending: usize, interval: Duration) -> Self {
        // All users have signed in within the interval before the time at which the clock stood still.
        let answered = (0..pending).map(|number| AtomicU64::new(nanos(signed_in(number, pending, interval)))).collect();
        Self {
            address: address.to_owned(),
            clock,
            interval,
            answered,
            first: AtomicU64::new(0),
            early: AtomicU64::new(0),
            lateness: Mutex::default(),
        }
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    fn token(&self, form: &str) -> (StatusCode, Value) {
        let mut members = form_urlencoded::parse(form.as_bytes());
        if let Some((_, code)) = members.find(|(name, _)| name == "deferred_code") {
            // The code contains the number of its sign-in, and the identifier repeats it.
            let interval = self.interval.as_secs();
            let body = json!({"deferred_auth_id": code, "expires_in": 1_000_000_000, "interval": interval});
            return (StatusCode::OK, body);
        }
        let mut members = form_urlencoded::parse(form.as_bytes());
        let id = members.find(|(name, _)| name == "deferred_auth_id").and_then(|(_, id)| id.parse().ok());
        let Some(answered) = id.and_then(|number: usize| self.answered.get(number)) else {
            return (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}));
        };
        let now = self.clock.monotonic();
        let due = Duration::from_nanos(answered.load(Ordering::Relaxed)) + self.interval;
        let _ = self.first.compare_exchange(0, nanos(now), Ordering::Relaxed, Ordering::Relaxed);
        if now < due {
            self.early.fetch_add(1, Ordering::Relaxed);
        }
        let late = u32::try_from(now.saturating_sub(due).as_micros()).unwrap_or(u32::MAX);
        self.lateness.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        answered.store(nanos(self.clock.monotonic()), Ordering::Relaxed);
        (StatusCode::BAD_REQUEST, json!({"error": "authorization_pending"}))
    }

    /// Starts a new count; the first poll and the number of early polls are kept.
    pub(crate) fn reset(&self) {
        self.lateness.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn punctuality(&self) -> Punctuality {
        let mut lateness = self.lateness.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lateness.sort_unstable();
        let at = |share: f64| {
            let place = (lateness.len() as f64 * share) as usize;
            lateness.get(place.min(lateness.len().saturating_sub(1))).map_or(0.0, |micros| f64::from(*micros) / 1e3)
        };
        let first = self.first.load(Ordering::Relaxed);
        Punctuality {
            polls: lateness.len(),
            early: self.early.load(Ordering::Relaxed),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
            first: (first > 0).then(|| Duration::from_nanos(first)),
        }
    }

    /// Serves in a program of its own. It prints a line once it can be reached, starts its clock when it reads how
    /// late, confirms that, and ends when its input ends.
    pub(crate) async fn serve(self) -> Result<(), Failed> {
        let listener = tokio::net::TcpListener::bind(&self.address).await?;
        let op = Arc::new(self);
        let (reports, resets, tokens) = (op.clone(), op.clone(), op.clone());
        let metadata = metadata(&op.issuer());
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(async move || Json(metadata)))
            .route("/report", get(async move || Json(reports.punctuality())))
            .route("/reset", post(async move || resets.reset()))
            .route(
                "/token",
                post(async move |form: String| {
                    let (status, body) = tokens.token(&form);
                    (status, Json(body))
                }),
            );
        println!("ready");
        let input = tokio::task::spawn_blocking(move || {
            let (mut input, mut late) = (std::io::stdin().lock(), String::new());
            input.read_line(&mut late)?;
            op.clock.release(Duration::from_secs(late.trim().parse().unwrap_or_default()));
            println!("released");
            // It ends with the program that started it.
            std::io::copy(&mut input, &mut std::io::sink())
        });
        tokio::select! {
            ended = input => Ok(ended?.map(drop)?),
            served = axum::serve(listener, routes) => Ok(served?),
        }
    }
}

/// The time at which a user signed in: evenly spread over the interval before the time at which the clock stood still.
pub(crate) fn signed_in(number: usize, pending: usize, interval: Duration) -> Duration {
    PREPARED - interval + interval.mul_f64(number as f64 / pending as f64)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Without a transport: a request is answered in the call that sends it.
impl HttpClient for Op {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let (status, body) = match request.url.path() {
            "/token" => self.token(&String::from_utf8_lossy(&request.body)),
            _ => (StatusCode::OK, metadata(&self.issuer())),
        };
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
        let response = HttpResponse { status, headers, body: body.to_string().into() };
        Box::pin(std::future::ready(Ok(response)))
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Op").field("issuer", &self.issuer()).finish_non_exhaustive()
    }
}
