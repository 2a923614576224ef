//! One OpenTelemetry trace that follows a user from the login to the outcome, although the application restarts between.
//!
//! It prints every span when it ends. An application exports them with `opentelemetry-otlp` instead, and sets the OP's
//! spans beside its own with `ClientBuilder::send_trace_parent` if the OP shares its tracing system.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::SqliteStore;
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
use openid_deferred::{AuthorizationSession, Client, Keyring, Poller, SealingKey, SystemRandom};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::{Instrument as _, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Makes a span a part of the trace with this `traceparent`. Call it before the span is entered.
fn join(span: &Span, trace_parent: &str) {
    let headers = HashMap::from([("traceparent".to_owned(), trace_parent.to_owned())]);
    // It fails for spans that are filtered out, which need no trace.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
}

/// The `traceparent` of the present span.
fn trace_parent() -> String {
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut headers);
    headers.remove("traceparent").unwrap_or_default()
}

/// `GET /login`: the trace begins here. Returns the query string that the user brings back, and the session.
async fn login(client: &Client, op: &TestProvider) -> anyhow::Result<(String, AuthorizationSession)> {
    let (url, session) = client.authorize().trace_parent(trace_parent()).start().await?;
    Ok((op.visit(url).query(), session))
}

/// `GET /callback`. The browser sends a new request, so the session names the trace.
async fn callback(poller: &Poller, query: &str, session: AuthorizationSession) -> anyhow::Result<()> {
    let span = info_span!("GET /callback");
    session.trace_parent().inspect(|trace_parent| join(&span, trace_parent));
    match poller.authorization_response(query, session).instrument(span).await? {
        AcceptedSignIn::Deferred(_) => Ok(()),
        _ => bail!("the OP answered at once"),
    }
}

/// Waits for the outcome of a sign-in, and handles it in its trace.
async fn handle_outcome(poller: &Poller) -> anyhow::Result<()> {
    let delivery = poller.outcomes().next().await.context("the poller was shut down")?;
    let span = info_span!("outcome");
    delivery.trace_parent().inspect(|trace_parent| join(&span, trace_parent));
    Ok(delivery.acknowledge().instrument(span).await?)
}

/// The poller of the application, with spans that join the traces of their sign-ins.
async fn start(client: &Client, keyring: &Keyring, file: &Path) -> anyhow::Result<Poller> {
    let builder = Poller::builder(SqliteStore::open(file).await?, keyring.clone());
    Ok(builder.client(client.clone()).continue_traces(join).start().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let exporter = SdkTracerProvider::builder().with_simple_exporter(Printer).build();
    let layer = tracing_opentelemetry::layer().with_tracer(exporter.tracer("shop"));
    // Polls are spans at the level `debug`. A sign-in may have thousands: leave them out, or sample.
    let filter = Targets::new().with_default(LevelFilter::INFO).with_target("openid_deferred", LevelFilter::DEBUG);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();

    let op = TestProvider::builder()
        .client(TestClient::public("shop"))
        .interval(Duration::from_secs(1))
        .decisions(DecisionPolicy::scripted())
        .start()?;
    let client =
        Client::builder(op.issuer(), "shop").redirect_uri("http://127.0.0.1:8765/cb").allow_insecure_loopback();
    let client = client.send_trace_parent().discover().await?;
    let keyring = Keyring::new(SealingKey::generate(&SystemRandom)?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pending.db");

    let poller = start(&client, &keyring, &file).await?;
    let (query, session) = login(&client, &op).instrument(info_span!("GET /login")).await?;
    callback(&poller, &query, session).await?;
    poller.shutdown(Duration::from_secs(5)).await;
    println!("restarted");

    let poller = start(&client, &keyring, &file).await?;
    op.last_process().approve();
    handle_outcome(&poller).await?;
    poller.shutdown(Duration::from_secs(5)).await;
    exporter.shutdown()?;
    op.assert_clean();
    Ok(())
}

/// Prints the spans that have ended: trace, span, parent, name.
#[derive(Debug)]
struct Printer;

impl SpanExporter for Printer {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        for SpanData { span_context, parent_span_id, name, .. } in spans {
            println!("{} {} {parent_span_id} {name}", span_context.trace_id(), span_context.span_id());
        }
        Ok(())
    }
}
