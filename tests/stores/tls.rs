//! `PostgresStore` over TLS, at a server whose certificate is signed by an authority of the test.

use std::fs;
use std::path::Path;

use openid_deferred::store::{PostgresStore, Store as _, StoreError, StoreProblem};
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVersion};
use openssl::symm::Cipher;
use openssl::x509::X509;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::AsyncReadExt as _;
use tokio_postgres::Config;

use crate::postgres::assert_refused;
use crate::server::Server;
use crate::{id, waiting};

/// The name in the server's certificate. The tests reach the server at 127.0.0.1.
const NAME: &str = "db.example";
/// The role that `scripts/postgres` admits only with a certificate.
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

    /// Saves the certificate in a file of a folder.
    fn save(&self, folder: &Path, name: &str) -> String {
        let path = folder.join(name);
        fs::write(&path, &self.certificate).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A connector that trusts this authority.
    fn trust(&self) -> SslConnectorBuilder {
        let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
        connector.cert_store_mut().add_cert(X509::from_pem(self.certificate.as_bytes()).unwrap()).unwrap();
        connector
    }

    /// Enables TLS on the server, with a certificate for [`NAME`].
    fn certify(&self, server: &mut Server) {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = self.issue(NAME);
        fs::write(folder.path().join("server.crt"), certificate).unwrap();
        fs::write(folder.path().join("server.key"), key).unwrap();
        fs::write(folder.path().join("root.crt"), &self.certificate).unwrap();
        server.order(&format!("tls {}", folder.path().display()));
    }
}

/// The connection string for a role and one of the server's names.
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
async fn connections_use_tls_and_verify_the_server() {
    let mut server = Server::start();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger's"));
    let at = |server: &Server, host, connector: SslConnectorBuilder| {
        PostgresStore::builder(&address(server, host, None)).tls(connector.build()).connect()
    };
    // The server has no certificate yet, and the store does not fall back to plain text.
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

    // Connections that a restart has closed are opened again.
    server.order("fast");
    assert!(store.load(id(1)).await.is_err());
    server.order("start");
    assert!(store.load(id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_client_certificate_authenticates_if_the_server_requests_one() {
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

    // With TLS 1.3 a client has sent its first message before the server can reject its certificate. So in about half
    // of the attempts the client sees only a reset connection.
    let forged = with(Some(SslVersion::TLS1_2), Some(stranger.issue(ROLE))).await;
    assert_refused(forged, StoreProblem::Unusable, "unknown ca");
}

#[tokio::test]
async fn sslmode_determines_the_checks_of_the_servers_certificate() {
    let mut server = Server::start();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("a stranger's"));
    authority.certify(&mut server);
    let folder = tempfile::tempdir().unwrap();
    // The name has a space, which URLs and key-value pairs write differently.
    let ours = authority.save(folder.path(), "our root.crt");
    let strangers = stranger.save(folder.path(), "stranger.crt");
    let at = async |host: &str, rest: &str, root: &str| {
        let root = if root.is_empty() { String::new() } else { format!("sslrootcert='{root}'") };
        PostgresStore::connect(&format!("{} {rest} {root}", address(&server, host, None))).await
    };
    for (host, rest, root) in [
        (NAME, "", &*ours),
        (NAME, "sslmode=verify-full", &ours),
        (NAME, "sslmode=prefer", &ours),
        (NAME, "sslmode=verify-full ssl_min_protocol_version=TLSv1.3 sslsni=0", &ours),
        (NAME, "sslmode=verify-full ssl_max_protocol_version=TLSv1.2", &ours),
        // The name differs and is not checked. For `require` this holds if there is a file, as in libpq.
        ("other.example", "sslmode=verify-ca", &ours),
        ("other.example", "sslmode=require", &ours),
    ] {
        let store = at(host, rest, root).await.unwrap_or_else(|error| panic!("{host} {rest}: {error:?}"));
        store.migrate().await.unwrap();
    }
    for (host, rest, root, why) in [
        (NAME, "sslmode=verify-full", &*strangers, "certificate verify failed"),
        (NAME, "sslmode=verify-ca", &strangers, "certificate verify failed"),
        ("other.example", "sslmode=verify-ca", &strangers, "certificate verify failed"),
        (NAME, "sslmode=require", &strangers, "certificate verify failed"),
        ("other.example", "sslmode=verify-full", &ours, "mismatch"),
        ("other.example", "", &ours, "mismatch"),
        ("other.example", "sslmode=prefer", &ours, "mismatch"),
        ("other.example", "sslmode=allow", &ours, "mismatch"),
        // An address that the certificate does not name.
        ("127.0.0.1", "sslmode=verify-full", &ours, "mismatch"),
        // Without a file the system's authorities count, even for `require`, which is laxer in libpq.
        (NAME, "sslmode=verify-full", "system", "certificate verify failed"),
        (NAME, "sslmode=verify-full", "", "set sslrootcert to the authority"),
        (NAME, "sslmode=require", "", "certificate verify failed"),
        (NAME, "sslmode=prefer", "", "certificate verify failed"),
        (NAME, "sslmode=allow", "", "certificate verify failed"),
        (NAME, "sslmode=verify-ca", "", "sslmode in the connection string"),
        (NAME, "sslmode=verify-ca", "system", "sslmode in the connection string"),
        (NAME, "sslmode=verify-full", "/nowhere/root.crt", "/nowhere/root.crt"),
        (NAME, "sslmode=verify-full", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "no certificate in PEM"),
    ] {
        assert_refused(at(host, rest, root).await, StoreProblem::Unusable, why);
    }

    let config: Config = server.url.parse().unwrap();
    let (password, port) = (str::from_utf8(config.get_password().unwrap()).unwrap(), config.get_ports()[0]);
    let url = format!(
        "postgresql://test:{password}@{NAME}:{port}/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={}",
        ours.replace('/', "%2F").replace(' ', "%20")
    );
    let store = PostgresStore::connect(&url).await.unwrap();
    store.insert(waiting(1)).await.unwrap();
    let trusted = PostgresStore::builder(&url).tls(authority.trust().build()).connect().await;
    assert_refused(trusted, StoreProblem::Unusable, "cannot be combined");

    // The file is read for each connection, because certificates are replaced while replicas run.
    fs::write(&ours, &stranger.certificate).unwrap();
    server.order("fast");
    server.order("start");
    assert_refused(refused(&store).await, StoreProblem::Unusable, "certificate verify failed");
    fs::write(&ours, &authority.certificate).unwrap();
    assert!(store.load(id(1)).await.unwrap().is_some());
}

/// Loads a row until the store is unusable.
async fn refused(store: &PostgresStore) -> Result<(), StoreError> {
    loop {
        match store.load(id(1)).await {
            Err(error) if error.problem() == StoreProblem::Unusable => return Err(error),
            Err(_) => {}
            Ok(loaded) => panic!("{loaded:?}"),
        }
    }
}

#[tokio::test]
async fn the_connection_string_names_a_client_certificate() {
    let mut server = Server::start();
    let authority = Authority::new("ours");
    authority.certify(&mut server);
    let (admin, connection) = tokio_postgres::connect(&server.url, tokio_postgres::NoTls).await.unwrap();
    tokio::select! {
        created = admin.batch_execute("CREATE ROLE banker LOGIN SUPERUSER") => created.unwrap(),
        closed = connection => panic!("{closed:?}"),
    }
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let root = authority.save(folder.path(), "root.crt");
    let (certificate, key) = authority.issue(ROLE);
    let private = PKey::private_key_from_pem(key.as_bytes()).unwrap();
    let encrypted = private.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"the word").unwrap();
    let (certificate, plain) = (write("banker.crt", certificate.as_bytes()), write("banker.key", key.as_bytes()));
    let der = write("banker.der", &private.private_key_to_der().unwrap());
    let encrypted = write("encrypted.key", &encrypted);
    let others = write("other.key", authority.issue(ROLE).1.as_bytes());
    let with = async |rest: &str| {
        let address = address(&server, NAME, Some(ROLE));
        PostgresStore::connect(&format!("{address} sslmode=verify-full sslrootcert={root} {rest}")).await
    };
    for rest in [
        format!("sslcert={certificate} sslkey={plain}"),
        format!("sslcert={certificate} sslkey={der}"),
        format!("sslcert={certificate} sslkey={encrypted} sslpassword='the word'"),
    ] {
        with(&rest).await.unwrap_or_else(|error| panic!("{rest}: {error:?}"));
    }
    for (rest, why) in [
        (String::new(), "connection requires a valid client certificate"),
        (format!("sslcert={certificate} sslkey={plain} sslcertmode=disable"), "requires a valid client certificate"),
        (format!("sslcert={certificate} sslkey={encrypted}"), "sslpassword does not decrypt it"),
        (format!("sslcert={certificate} sslkey={encrypted} sslpassword=wrong"), "sslpassword does not decrypt it"),
        (format!("sslcert={certificate} sslkey={others}"), "not the key of the certificate"),
        (format!("sslcert={plain} sslkey={plain}"), "sslcert in the connection string"),
    ] {
        assert_refused(with(&rest).await, StoreProblem::Unusable, why);
    }
}

/// PostgreSQL 17 and newer support this; older versions send no valid answer.
#[tokio::test]
async fn a_direct_negotiation_begins_with_tls_and_names_the_protocol() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let address = format!(
        "host={NAME} hostaddr=127.0.0.1 port={port} user=test dbname=test sslmode=verify-full sslnegotiation=direct"
    );
    let serve = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut hello = vec![0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
        stream.read_exact(&mut hello[5..]).await.unwrap();
        hello
    };
    let (hello, connected) = tokio::join!(serve, PostgresStore::connect(&address));
    assert_eq!(connected.unwrap_err().problem(), StoreProblem::Unavailable);
    // A handshake record with a ClientHello.
    assert_eq!((hello[0], hello[5]), (22, 1));
    let contains = |text: &[u8]| hello.windows(text.len()).any(|window| window == text);
    assert!(contains(b"\x0apostgresql") && contains(NAME.as_bytes()));
}
