//! `PostgresStore` over TLS, at a server whose certificate an authority of the test has signed.

use std::fs;

use openid_deferred::store::{PostgresStore, Store as _, StoreProblem};
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVersion};
use openssl::x509::X509;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_postgres::Config;

use crate::postgres::assert_refused;
use crate::server::Server;
use crate::{id, waiting};

/// The name in the server's certificate. The tests find it at 127.0.0.1.
const NAME: &str = "db.example";
/// The role that `scripts/postgres` lets in with a certificate only.
const ROLE: &str = "banker";

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// A certificate and its key, in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// For whoever trusts this authority.
    fn trust(&self) -> SslConnectorBuilder {
        let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
        connector.cert_store_mut().add_cert(X509::from_pem(self.certificate.as_bytes()).unwrap()).unwrap();
        connector
    }

    /// Makes the server speak TLS, with a certificate for [`NAME`].
    fn certify(&self, server: &mut Server) {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = self.issue(NAME);
        fs::write(folder.path().join("server.crt"), certificate).unwrap();
        fs::write(folder.path().join("server.key"), key).unwrap();
        fs::write(folder.path().join("root.crt"), &self.certificate).unwrap();
        server.order(&format!("tls {}", folder.path().display()));
    }
}

/// Who connects to the server, under which of its names.
fn address(server: &Server, host: &str, role: Option<&str>) -> String {
    let config: Config = server.url.parse().unwrap();
    let port = config.get_ports()[0];
    let address = format!("host={host} hostaddr=127.0.0.1 port={port} dbname=postgres");
    match role {
        Some(role) => format!("{address} user={role}"),
        None => format!("{address} user=test password={}", str::from_utf8(config.get_password().unwrap()).unwrap()),
    }
}

#[tokio::test]
async fn rows_travel_over_tls_to_the_server_that_is_meant_and_to_no_other() {
    let mut server = Server::start();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger's"));
    let at = |server: &Server, host, connector: SslConnectorBuilder| {
        PostgresStore::builder(&address(server, host, None)).tls(connector.build()).connect()
    };
    // The server has no certificate yet, and nobody falls back to plain text.
    let connected = at(&server, NAME, authority.trust()).await;
    assert_refused(connected, StoreProblem::Unavailable, "server does not support TLS");

    authority.certify(&mut server);
    let store = at(&server, NAME, authority.trust()).await.unwrap();
    store.migrate().await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    assert!(store.load(id(1)).await.unwrap().is_some());
    let (admin, connection) = tokio_postgres::connect(&server.url, tokio_postgres::NoTls).await.unwrap();
    let watching = async {
        let sessions = "SELECT ssl, client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                        WHERE application_name = 'openid-deferred'";
        admin.query(sessions, &[]).await.unwrap()
    };
    let sessions = tokio::select! {
        sessions = watching => sessions,
        closed = connection => panic!("{closed:?}"),
    };
    assert!(!sessions.is_empty() && sessions.iter().all(|session| session.get("ssl")), "{sessions:?}");

    let unknown = at(&server, NAME, stranger.trust()).await;
    assert_refused(unknown, StoreProblem::Unusable, "certificate verify failed");
    let system = PostgresStore::connect(&address(&server, NAME, None)).await;
    assert_refused(system, StoreProblem::Unusable, "certificate verify failed");
    let another = at(&server, "other.example", authority.trust()).await;
    assert_refused(another, StoreProblem::Unusable, "certificate verify failed");

    // Connections that a restart has closed are made again.
    server.order("fast");
    assert!(store.load(id(1)).await.is_err());
    server.order("start");
    assert!(store.load(id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_client_certificate_signs_in_where_the_server_asks_for_one() {
    let mut server = Server::start();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger's"));
    authority.certify(&mut server);
    let (admin, connection) = tokio_postgres::connect(&server.url, tokio_postgres::NoTls).await.unwrap();
    tokio::select! {
        created = admin.batch_execute("CREATE ROLE banker LOGIN SUPERUSER") => created.unwrap(),
        closed = connection => panic!("{closed:?}"),
    }
    let with = |newest: Option<SslVersion>, issued: Option<(String, String)>| {
        let mut connector = authority.trust();
        connector.set_max_proto_version(newest).unwrap();
        if let Some((certificate, key)) = issued {
            connector.set_certificate(&X509::from_pem(certificate.as_bytes()).unwrap()).unwrap();
            connector.set_private_key(&PKey::private_key_from_pem(key.as_bytes()).unwrap()).unwrap();
        }
        PostgresStore::builder(&address(&server, NAME, Some(ROLE))).tls(connector.build()).connect()
    };
    assert_refused(with(None, None).await, StoreProblem::Unusable, "connection requires a valid client certificate");
    let anothers = with(None, Some(authority.issue("clerk"))).await;
    assert_refused(anothers, StoreProblem::Unusable, "certificate authentication failed");
    with(None, Some(authority.issue(ROLE))).await.unwrap().migrate().await.unwrap();

    // Under TLS 1.3 a client has written its first message before it can hear of its certificate, so that as often as
    // not it hears of nothing but a connection that was reset.
    let forged = with(Some(SslVersion::TLS1_2), Some(stranger.issue(ROLE))).await;
    assert_refused(forged, StoreProblem::Unusable, "unknown ca");
}
