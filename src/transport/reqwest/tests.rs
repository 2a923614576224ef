//! Against real sockets on loopback: what is checked here is what reqwest and the kernel do.
//! Most servers are threads that block, so the client has a worker of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use super::*;
use crate::error::ErrorKind;

const LIMIT: usize = 64 * 1024;

fn policy(allow_insecure_loopback: bool) -> TransportPolicy {
    let urls = UrlPolicy { allow_insecure_loopback, ..UrlPolicy::default() };
    TransportPolicy { urls, connect_timeout: Duration::from_secs(5) }
}

fn client() -> ReqwestClient {
    ReqwestClient::new(policy(true), None).unwrap()
}

fn post(url: &str) -> HttpRequest {
    HttpRequest {
        method: Method::POST,
        url: Url::parse(url).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"code=secret"),
        timeout: Duration::from_secs(20),
        body_limit: LIMIT,
        document: Document::TokenResponse,
        client_certificate: None,
    }
}

fn problem(error: HttpError) -> TransportProblem {
    match error.into_error().kind() {
        ErrorKind::Transport(problem) => *problem,
        other => unreachable!("{other:?}"),
    }
}

/// Serves one connection with `serve`, which gets the stream after a whole request was read.
fn serve_one(serve: impl FnOnce(&mut TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token?id_token_hint=secret", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        read_request(&mut stream);
        serve(&mut stream);
    });
    (url, server)
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"code=secret") && stream.read(&mut byte).unwrap_or(0) > 0 {
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

/// Writes `chunk` again and again until the client hangs up.
fn write_for_ever(stream: &mut TcpStream, chunk: &[u8]) {
    while stream.write_all(chunk).is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_is_read_completely() {
    let (url, server) = serve_one(|stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\ndpop-nonce: n\r\n\r\n{}").unwrap();
    });
    let response = client().send(post(&url)).await.unwrap();
    server.join().unwrap();
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    assert_eq!(response.headers["dpop-nonce"], "n");
    assert_eq!(&response.body[..], b"{}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (url, server) = serve_one(|stream| {
        stream
            .write_all(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        // The connection stays usable, so a client that follows would send its second request here.
        assert_eq!(read_request(stream), "");
    });
    let client = client();
    let response = client.send(post(&url)).await.unwrap();
    drop(client);
    server.join().unwrap();
    assert_eq!(response.status, StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn settings_of_the_caller_do_not_disable_the_rules() {
    let (url, server) = serve_one(|stream| {
        stream
            .write_all(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        assert_eq!(read_request(stream), "");
    });
    let configured = || {
        let builder = with_defaults(Client::builder(), policy(true))
            .redirect(redirect::Policy::limited(5))
            .retry(retry::for_host("127.0.0.1").classify_fn(|sent| sent.retryable()))
            .no_gzip();
        build(with_rules(builder))
    };
    let client = ReqwestClient { loopback: Some(Arc::new(Connections::new(configured).unwrap())), ..client() };
    let response = client.send(post(&url)).await.unwrap();
    drop(client);
    server.join().unwrap();
    assert_eq!(response.status, StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn https_only_stays_with_any_settings_of_the_caller() {
    let client = ReqwestClient::new(policy(false), Some(Box::new(|builder| builder.https_only(false)))).unwrap();
    let error = client.send(post("http://127.0.0.1:9/token")).await.unwrap_err();
    assert!(!error.may_have_been_sent());
    assert_eq!(problem(error), TransportProblem::Refused);
    // reqwest itself refuses as well, should a URL ever get past our own check.
    let request = ::reqwest::Request::new(Method::GET, Url::parse("http://127.0.0.1:9/").unwrap());
    assert!(client.https.lease().await.client.execute(request).await.unwrap_err().is_builder());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plain_http_to_another_machine_is_refused_before_anything_is_sent() {
    let error = client().send(post("http://192.0.2.1/token")).await.unwrap_err();
    assert!(!error.may_have_been_sent());
    assert_eq!(problem(error), TransportProblem::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_announced_over_the_limit_is_not_read() {
    let (url, server) = serve_one(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 52428800\r\n\r\n").unwrap();
        write_for_ever(stream, &[b'x'; 4096]);
    });
    let error = client().send(post(&url)).await.unwrap_err();
    server.join().unwrap();
    assert!(error.may_have_been_sent());
    assert_eq!(problem(error), TransportProblem::BodyTooLarge(Document::TokenResponse));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_that_never_ends_is_cut_off() {
    let (url, server) = serve_one(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        write_for_ever(stream, b"8\r\nxxxxxxxx\r\n");
    });
    let error = client().send(post(&url)).await.unwrap_err();
    server.join().unwrap();
    assert_eq!(problem(error), TransportProblem::BodyTooLarge(Document::TokenResponse));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_compressed_body_counts_after_inflation() {
    let (url, server) = serve_one(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        let bomb = gzip_bomb(LIMIT + 1);
        assert!(bomb.len() < LIMIT / 100, "compressed it would pass the limit");
        write!(stream, "{:x}\r\n", bomb.len()).unwrap();
        stream.write_all(&bomb).unwrap();
        stream.write_all(b"\r\n").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "the client hangs up");
    });
    let error = client().send(post(&url)).await.unwrap_err();
    server.join().unwrap();
    assert_eq!(problem(error), TransportProblem::BodyTooLarge(Document::TokenResponse));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_with_too_many_or_too_long_headers_is_refused() {
    let many: String = (0..101).map(|number| format!("x-{number}: a\r\n")).collect();
    let long = format!("x: {}\r\n", "a".repeat(2_000_000));
    for headers in [many, long] {
        let (url, server) = serve_one(move |stream| {
            // The client hangs up before the end of the long one.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\n{{}}");
        });
        let error = client().send(post(&url)).await.err().unwrap();
        server.join().unwrap();
        assert_eq!(problem(error), TransportProblem::Broken);
    }
    let (url, server) = serve_one(|stream| {
        let headers: String = (0..99).map(|number| format!("x-{number}: a\r\n")).collect();
        write!(stream, "HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\n{{}}").unwrap();
    });
    assert_eq!(client().send(post(&url)).await.unwrap().headers.len(), 100);
    server.join().unwrap();
}

/// A gzip stream without an end (RFC 1952) that inflates to at least `size` zeros: a deflate block of fixed Huffman codes
/// (RFC 1951 §3.2.6) with one literal and then nothing but "the last byte 258 times", in 13 bits each.
fn gzip_bomb(size: usize) -> Vec<u8> {
    // Not the last block (0), fixed codes (01, least significant bit first), a literal zero.
    let mut bits = String::from("0") + "10" + "00110000";
    bits.extend(std::iter::repeat_n("1100010100000", size / 258 + 9));
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for byte in bits.as_bytes().chunks_exact(8) {
        stream.push(byte.iter().rev().fold(0, |byte, bit| byte << 1 | (bit - b'0')));
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refused_connection_means_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token?id_token_hint=secret", listener.local_addr().unwrap());
    drop(listener);
    let error = client().send(post(&url)).await.unwrap_err();
    assert!(!error.may_have_been_sent());
    assert!(!format!("{error:?} {error}").contains("secret"), "the query is not in the error");
    assert_eq!(problem(error), TransportProblem::Connect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reset_after_the_request_means_maybe_sent() {
    // Closing with unread bytes makes the kernel send a reset.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token?id_token_hint=secret", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.read_exact(&mut [0; 4]).unwrap();
    });
    let error = client().send(post(&url)).await.unwrap_err();
    server.join().unwrap();
    assert!(error.may_have_been_sent());
    assert!(!format!("{error:?} {error}").contains("secret"), "the query is not in the error");
    assert_eq!(problem(error), TransportProblem::Broken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_truncated_body_means_maybe_sent() {
    let (url, server) = serve_one(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_token\":").unwrap();
    });
    let error = client().send(post(&url)).await.unwrap_err();
    server.join().unwrap();
    assert!(error.may_have_been_sent());
    assert_eq!(problem(error), TransportProblem::Broken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_timeout_covers_the_body_and_means_maybe_sent() {
    let (url, server) = serve_one(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "the client hangs up");
    });
    let request = HttpRequest { timeout: Duration::from_millis(200), ..post(&url) };
    let error = client().send(request).await.unwrap_err();
    server.join().unwrap();
    assert!(error.may_have_been_sent());
    assert_eq!(problem(error), TransportProblem::Timeout);
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_and_each_request_is_sent_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let client = client();
    let answer_and_close = async |body: &str| {
        let mut stream = listener.accept().await.unwrap().0;
        let mut request = Vec::new();
        while !request.ends_with(b"code=secret") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{body}");
        stream.write_all(response.as_bytes()).await.unwrap();
    };
    let (response, ()) = tokio::join!(client.send(post(&url)), answer_and_close("1"));
    assert_eq!(response.unwrap().body, "1");
    // The one thread of this test runs the connection's task as well, which notices the end here.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let (response, ()) = tokio::join!(client.send(post(&url)), answer_and_close("2"));
    assert_eq!(response.unwrap().body, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_request_is_repeated_when_its_connection_dies() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    // Only the first request is answered, whatever connection the others come on.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counter) = (stream.unwrap(), counter.clone());
            thread::spawn(move || {
                while read_request(&mut stream).ends_with("code=secret") {
                    if counter.fetch_add(1, Ordering::SeqCst) > 0 {
                        return;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1").unwrap();
                }
            });
        }
    });
    let client = client();
    assert_eq!(client.send(post(&url)).await.unwrap().body, "1");
    let error = client.send(post(&url)).await.unwrap_err();
    assert!(error.may_have_been_sent());
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[test]
fn debug_output_shows_no_default_header() {
    let configure = |builder: ClientBuilder| {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", "secret".parse().unwrap());
        builder.default_headers(headers)
    };
    let client = ReqwestClient::new(policy(true), Some(Box::new(configure))).unwrap();
    assert!(!format!("{client:?}").contains("secret"));
}
