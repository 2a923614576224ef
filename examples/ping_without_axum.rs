//! Ping Callbacks without axum, here with plain hyper: `ping::Receiver` takes a request and returns the response. It
//! checks the bearer token before it reads the body, and limits the size and the time of the body.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use openid_deferred::ping::Receiver;
use openid_deferred::store::MemoryStore;
use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
use openid_deferred::{Client, ClientAuthentication, Keyring, Outcome, Poller};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One request to the registered Deferred Client Notification Endpoint.
async fn notified(receiver: Receiver, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    Ok(receiver.receive(request).await.map(|()| Empty::new()))
}

async fn serve(listener: TcpListener, receiver: Receiver) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let receiver = receiver.clone();
        let service = service_fn(move |request| notified(receiver.clone(), request));
        // The receiver limits the time of the body. The server must limit that of the head, and hyper does so with a
        // timer.
        let server = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        connections.spawn(server);
        while connections.try_join_next().is_some() {}
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let endpoint = format!("http://{}/notified", listener.local_addr()?);
    // An OP that permits only one poll an hour.
    let op = TestProvider::builder()
        .client(TestClient::secret_basic("app", "secret").notification_endpoint(&endpoint))
        .interval(Duration::from_secs(3600))
        .decisions(DecisionPolicy::after(Duration::from_secs(1)))
        .start()?;
    let client = Client::builder(op.issuer(), "app")
        .authentication(ClientAuthentication::client_secret_basic("secret"))
        .redirect_uri("https://rp.example/callback")
        .allow_insecure_loopback()
        .build()?;
    let poller = Poller::builder(MemoryStore::new(), Keyring::ephemeral()?).client(client.clone()).receives_pings();
    let poller = poller.start().await?;

    let (url, session) = client.authorize().context("order 4711").start().await?;
    let _process = poller.authorization_response(&op.visit(url).query(), session).await?;
    let mut outcomes = poller.outcomes();
    let delivery = tokio::select! {
        delivery = outcomes.next() => delivery.context("the poller was shut down")?,
        failed = serve(listener, Receiver::new(poller.clone())) => return failed,
    };
    if let Outcome::Approved(authentication) = delivery.outcome() {
        println!("welcome, {}, an hour before the next poll", authentication.claims().subject());
    }
    delivery.acknowledge().await?;
    op.assert_clean();
    Ok(())
}
