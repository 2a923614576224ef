//! Where connections go, and where they do not, with a name server that the test answers for.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ::reqwest::Proxy;
use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};
use http::{HeaderMap, Method};
use url::Url;

use super::*;
use crate::error::ErrorKind;

/// Answers each question with the next of its addresses, and the last one for ever: a name that is bound anew.
struct NameServer {
    addresses: Vec<IpAddr>,
    questions: AtomicUsize,
}

impl NameServer {
    fn new(addresses: &[&str]) -> Arc<Self> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { addresses, questions: AtomicUsize::new(0) })
    }
}

impl Resolve for NameServer {
    fn resolve(&self, _: Name) -> Resolving {
        let index = self.questions.fetch_add(1, Ordering::SeqCst).min(self.addresses.len() - 1);
        let address = SocketAddr::new(self.addresses[index], 0);
        Box::pin(async move { Ok(Box::new([address].into_iter()) as Addrs) })
    }
}

fn client(private_addresses: PrivateAddresses, names: &Arc<NameServer>) -> ReqwestClient {
    let urls = UrlPolicy { allow_insecure_loopback: false, private_addresses };
    let names: Arc<dyn Resolve> = names.clone();
    let configure = move |http: ClientBuilder| match private_addresses {
        PrivateAddresses::Refused => http.dns_resolver(PublicAddresses::among(names.clone())),
        _ => http.no_proxy().dns_resolver(names.clone()),
    };
    ReqwestClient::new(TransportPolicy { urls, connect_timeout: SHORT }, Some(Box::new(configure))).unwrap()
}

const SHORT: Duration = Duration::from_secs(5);

fn get(url: &str) -> HttpRequest {
    HttpRequest {
        method: Method::GET,
        url: Url::parse(url).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        timeout: SHORT,
        body_limit: 1_000,
        document: Document::Metadata,
        client_certificate: None,
    }
}

fn problem(error: &HttpError) -> TransportProblem {
    match error.error.kind() {
        ErrorKind::Transport(problem) => *problem,
        other => unreachable!("{other:?}"),
    }
}

/// A listener on loopback, and the URL under which a name leads there.
fn inside() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://op.example:{}/keys?secret", listener.local_addr().unwrap().port());
    (listener, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_name_with_a_private_address_gets_no_connection_and_the_error_says_why() {
    let (listener, url) = inside();
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "64:ff9b::7f00:1"] {
        let error =
            client(PrivateAddresses::Refused, &NameServer::new(&[address])).send(get(&url)).await.err().unwrap();
        assert_eq!(problem(&error), TransportProblem::PrivateAddress, "{address}");
        assert!(!error.may_have_been_sent());
        let shown = format!("{error:?} {error}");
        assert!(!shown.contains("secret") && !shown.contains(address), "{shown}");
    }
    assert!(listener.accept().is_err(), "nobody connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_connection_resolves_its_name_once_and_checks_the_addresses() {
    let (listener, url) = inside();
    let names = NameServer::new(&["::1", "127.0.0.1"]);
    let client = client(PrivateAddresses::Refused, &names);
    for _ in 0..3 {
        let error = client.send(get(&url)).await.err().unwrap();
        assert_eq!(problem(&error), TransportProblem::PrivateAddress);
    }
    assert_eq!(names.questions.load(Ordering::SeqCst), 3, "nothing asks a second time after the look");
    assert!(listener.accept().is_err(), "nobody connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_name_with_a_private_address_gets_a_connection_unless_refused() {
    for private_addresses in [PrivateAddresses::RefusedInDocuments, PrivateAddresses::Allowed] {
        let (listener, url) = inside();
        let client = client(private_addresses, &NameServer::new(&["127.0.0.1"]));
        let accept = tokio::task::spawn_blocking(move || {
            listener.set_nonblocking(false).unwrap();
            drop(listener.accept().unwrap());
        });
        // The server hangs up, for it has no certificate.
        assert_eq!(problem(&client.send(get(&url)).await.err().unwrap()), TransportProblem::Connect);
        accept.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_address_in_a_url_is_refused_without_a_dns_query() {
    let names = NameServer::new(&["93.184.216.34"]);
    let client = client(PrivateAddresses::Refused, &names);
    for url in ["https://127.0.0.1/", "https://0x7f.1/", "https://[::ffff:10.0.0.1]/", "https://db.localhost./"] {
        let error = client.send(get(url)).await.err().unwrap();
        assert_eq!(problem(&error), TransportProblem::PrivateAddress, "{url}");
        assert!(!error.may_have_been_sent());
    }
    assert_eq!(names.questions.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_system_resolver_is_used_by_default() {
    let urls = UrlPolicy { allow_insecure_loopback: false, private_addresses: PrivateAddresses::Refused };
    let policy = TransportPolicy { urls, connect_timeout: SHORT };
    // Past the look at the URL, which would refuse this name before it is resolved.
    let client = ReqwestClient::new(policy, None).unwrap();
    let https = client.https.lease().await.client;
    let error = https.get("https://localhost:9/").send().await.unwrap_err();
    assert_eq!(problem(&before_response(error)), TransportProblem::PrivateAddress);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_proxy_of_the_application_resolves_names() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            request.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    let urls = UrlPolicy { allow_insecure_loopback: false, private_addresses: PrivateAddresses::Refused };
    let configure = move |http: ClientBuilder| http.proxy(Proxy::all(&proxy).unwrap());
    let policy = TransportPolicy { urls, connect_timeout: SHORT };
    let client = ReqwestClient::new(policy, Some(Box::new(configure))).unwrap();
    let error = client.send(get("https://op.example/keys")).await.err().unwrap();
    assert_eq!(problem(&error), TransportProblem::Connect);
    assert!(server.join().unwrap().starts_with("CONNECT op.example:443 "));
}
