//! Collects everything that an outsider could see.

use std::error::Error as StdError;
use std::fmt::{self, Debug, Write as _};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode};
use openid_deferred::Error;
use openid_deferred::error::TransportProblem;
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use serde_json::json;

/// A part of a response that repeats what the request contained, as a careless OP does.
#[derive(Debug, Clone, Copy)]
pub enum Echo {
    Description,
    BrokenJson,
    Page,
    Location,
    Headers,
    ContentType,
    IdToken,
    Members,
}

impl Echo {
    pub const ALL: [Self; 8] = [
        Self::Description,
        Self::BrokenJson,
        Self::Page,
        Self::Location,
        Self::Headers,
        Self::ContentType,
        Self::IdToken,
        Self::Members,
    ];

    fn answer(self, told: &str) -> HttpResponse {
        let short: String = told.chars().filter(char::is_ascii_graphic).take(200).collect();
        let (mut status, mut kind, mut body) = (400, "application/json".to_owned(), String::new());
        let mut headers = HeaderMap::new();
        let header = HeaderValue::try_from(&short).unwrap();
        match self {
            Self::Description => body = json!({"error": "server_error", "error_description": told}).to_string(),
            Self::BrokenJson => body = format!("{{\"error\": \"server_error\", \"{told}\": {told}"),
            Self::Page => (status, kind, body) = (502, "text/html".to_owned(), format!("<p>{told}")),
            Self::Location => {
                status = 302;
                headers.insert("location", header);
            }
            Self::Headers => {
                status = 503;
                headers.insert("retry-after", header.clone());
                headers.insert("www-authenticate", header.clone());
                headers.insert("date", header);
            }
            Self::ContentType => kind = format!("application/{short}"),
            Self::IdToken => {
                status = 200;
                let token = format!("{0}.{0}.{0}", URL_SAFE_NO_PAD.encode(told));
                body = json!({"access_token": told, "token_type": "DPoP", "id_token": token}).to_string();
            }
            Self::Members => {
                status = 200;
                body = json!({"access_token": 1, "id_token": {told: told}, told: told, "token_type": told}).to_string();
            }
        }
        headers.insert("content-type", HeaderValue::try_from(kind).unwrap());
        HttpResponse { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from(body) }
    }
}

/// Shows the requests and responses that pass through it, and lets an echo answer the first three polls.
pub struct ShownNetwork {
    pub inner: Arc<dyn HttpClient>,
    pub log: Log,
    pub echo: Arc<Mutex<Option<Echo>>>,
}

impl HttpClient for ShownNetwork {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(async move {
            self.log.show(&request);
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let has_identifier = ["deferred_auth_id=", "deferral_code="].iter().any(|name| body.contains(name));
            let is_poll = has_identifier && request.url.path() == "/token";
            let told = format!("{body} {:?}", request.headers.get("authorization").map(HeaderValue::as_bytes));
            let answered = self.inner.send(request).await;
            self.log.show(&answered);
            let echo = self.echo.lock().unwrap().filter(|_| is_poll);
            if let (Some(echo), Ok(_)) = (echo, &answered) {
                let told =
                    format!("{told} {}", form_urlencoded::parse(body.as_bytes()).map(|(_, v)| v).collect::<String>());
                let answer = echo.answer(&told);
                self.log.show(&answer);
                self.log.show(&HttpError::maybe_sent(TransportProblem::Broken));
                if self.log.echoed() > 3 {
                    *self.echo.lock().unwrap() = None;
                }
                return Ok(answer);
            }
            answered
        })
    }

    fn presents_client_certificates(&self) -> bool {
        self.inner.presents_client_certificates()
    }
}

impl Debug for ShownNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ShownNetwork")
    }
}

/// Messages that libraries log by `log` instead of `tracing`. There is one such logger for the whole program.
pub struct LibraryLog;

pub static LIBRARY_LOG: Mutex<String> = Mutex::new(String::new());

impl log::Log for LibraryLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(LIBRARY_LOG.lock().unwrap(), "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

/// Everything that an outsider could see.
#[derive(Clone, Default)]
pub struct Log {
    pub text: Arc<Mutex<String>>,
    pub echoes: Arc<AtomicU32>,
}

impl Log {
    /// Records everything that is traced on this thread until the guard is dropped.
    pub fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub fn show_text(&self, text: &str) {
        self.text.lock().unwrap().push_str(text);
    }

    pub fn show(&self, value: &dyn Debug) {
        writeln!(self.text.lock().unwrap(), "{value:?}\n{value:#?}").unwrap();
    }

    /// Records an error with all its sources.
    pub fn show_error(&self, error: &Error) {
        self.show(error);
        let mut layer: Option<&dyn StdError> = Some(error);
        while let Some(error) = layer {
            writeln!(self.text.lock().unwrap(), "{error}\n{error:?}\n{error:#?}").unwrap();
            layer = error.source();
        }
    }

    pub fn take(&self) -> String {
        std::mem::take(&mut self.text.lock().unwrap())
    }

    pub fn echoed(&self) -> u32 {
        self.echoes.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.show_text(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
