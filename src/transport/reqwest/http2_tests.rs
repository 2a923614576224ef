//! What the end of an HTTP/2 stream says about the request on it. The servers are h2's own, or a thread that writes
//! frames by hand where h2 would not.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use h2::Reason;
use http::{HeaderMap, Method};
use url::Url;

use super::*;

/// A server may attach any text to a `GOAWAY`, parts of the request included.
const DEBUG_DATA: &[u8] = b"code=secret";

fn client() -> ReqwestClient {
    let urls = UrlPolicy { allow_insecure_loopback: true, ..UrlPolicy::default() };
    let policy = TransportPolicy { urls, connect_timeout: Duration::from_secs(5) };
    let loopback = move || build(with_rules(with_defaults(Client::builder(), policy)).http2_prior_knowledge());
    let loopback = Some(Arc::new(Connections::new(loopback).unwrap()));
    ReqwestClient { loopback, ..ReqwestClient::new(policy, None).unwrap() }
}

fn post(address: std::net::SocketAddr) -> HttpRequest {
    HttpRequest {
        method: Method::POST,
        url: Url::parse(&format!("http://{address}/token?id_token_hint=secret")).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"code=secret"),
        timeout: Duration::from_secs(20),
        body_limit: 1_000,
        document: Document::TokenResponse,
        client_certificate: None,
    }
}

/// What the client makes of a request whose stream an h2 server resets. It counts the requests.
async fn reset_with(reason: Reason) -> (HttpError, usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = post(listener.local_addr().unwrap());
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut requests = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(reason);
            requests += 1;
        }
        requests
    };
    let ask = async {
        // Dropping the client closes the connection and so ends the server.
        let client = client();
        client.send(request).await.unwrap_err()
    };
    tokio::join!(ask, serve)
}

/// What the client makes of a request on stream 1 that is answered with a `GOAWAY` frame (RFC 9113 §6.8) and the end
/// of the connection.
async fn go_away_with(last_stream: u32, reason: Reason) -> HttpError {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let request = post(listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut received = Vec::new();
        while !received.ends_with(b"code=secret") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            received.extend(byte);
        }
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&settings).unwrap();
        stream.write_all(&[0, 0, 8 + DEBUG_DATA.len() as u8, 7, 0, 0, 0, 0, 0]).unwrap();
        stream.write_all(&last_stream.to_be_bytes()).unwrap();
        stream.write_all(&u32::from(reason).to_be_bytes()).unwrap();
        stream.write_all(DEBUG_DATA).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Closing with unread bytes would reset the connection.
        let _ = stream.read_to_end(&mut received);
        assert!(listener.set_nonblocking(true).is_ok() && listener.accept().is_err(), "sent again on its own");
    });
    let client = client();
    let error = client.send(request).await.unwrap_err();
    drop(client);
    server.join().unwrap();
    error
}

/// Nothing of the request and of what the server said about it is in the error.
fn is_broken(error: &HttpError) -> bool {
    *error.error.kind() == TransportProblem::Broken.into() && !format!("{error:?}").contains("secret")
}

#[tokio::test]
async fn a_refused_stream_means_not_sent() {
    let (error, requests) = reset_with(Reason::REFUSED_STREAM).await;
    assert!(is_broken(&error) && !error.may_have_been_sent(), "{error:?}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_stream_that_was_reset_for_another_reason_means_maybe_sent() {
    for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let (error, requests) = reset_with(reason).await;
        assert!(is_broken(&error) && error.may_have_been_sent(), "{reason:?} {error:?}");
        assert_eq!(requests, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_graceful_shutdown_before_this_stream_means_not_sent() {
    let error = go_away_with(0, Reason::NO_ERROR).await;
    assert!(is_broken(&error) && !error.may_have_been_sent(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_shutdown_that_covers_this_stream_or_is_an_error_means_maybe_sent() {
    for (last_stream, reason) in [
        (1, Reason::NO_ERROR),
        (0x7fff_ffff, Reason::NO_ERROR),
        (0, Reason::INTERNAL_ERROR),
        (1, Reason::PROTOCOL_ERROR),
    ] {
        let error = go_away_with(last_stream, reason).await;
        assert!(is_broken(&error) && error.may_have_been_sent(), "{last_stream} {reason:?} {error:?}");
    }
}

#[tokio::test]
async fn a_refusal_after_the_response_began_means_maybe_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = post(listener.local_addr().unwrap());
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"{"), false).unwrap();
        body.reserve_capacity(1);
        // The frames so far go out before the reset, which would overtake them.
        for _ in 0..10 {
            let accepted = poll_fn(|context| std::task::Poll::Ready(connection.poll_accept(context).is_ready())).await;
            assert!(!accepted);
            tokio::task::yield_now().await;
        }
        body.send_reset(Reason::REFUSED_STREAM);
        while connection.accept().await.is_some() {}
    };
    let ask = async {
        let client = client();
        client.send(request).await.map(|_| ()).unwrap_err()
    };
    let (error, ()) = tokio::join!(ask, serve);
    assert!(is_broken(&error) && error.may_have_been_sent(), "{error:?}");
}
