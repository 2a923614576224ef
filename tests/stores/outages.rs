//! `PostgresStore` while its database is slow, full, failing over or gone.
#![expect(clippy::disallowed_methods, reason = "servers and sockets are real, and so is time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use openid_deferred::store::{Ping, Pinged, PostgresStore, Store as _, StoreProblem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config};

use crate::postgres::{Schema, assert_refused, url, url_in};
use crate::proxy::Proxy;
use crate::server::Server;
use crate::{PARTITION, fingerprint, id, waiting};

/// The longest wait for an expected event.
const PATIENCE: Duration = Duration::from_secs(40);

fn ping(number: u32) -> Ping {
    Ping::new(Some(id(number)), vec![fingerprint(number)])
}

fn noted(number: u32) -> Pinged {
    Pinged::Recorded { id: id(number), partition: PARTITION }
}

/// The connection string of the server of a URL, at one or more ports of this machine.
fn at_ports(url: &str, ports: &[u16], rest: &str) -> String {
    let config: Config = url.parse().unwrap();
    let password = str::from_utf8(config.get_password().unwrap()).unwrap();
    let (hosts, ports): (Vec<_>, Vec<_>) = ports.iter().map(|port| ("127.0.0.1", port.to_string())).unzip();
    let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
    format!(
        "host={} port={} user={user} password={password} dbname={database} {rest}",
        hosts.join(","),
        ports.join(",")
    )
}

fn port_of(url: &str) -> u16 {
    url.parse::<Config>().unwrap().get_ports()[0]
}

/// A connection other than a schema's, which is in a transaction and would always see the same sessions.
async fn observer() -> (Client, JoinSet<Result<(), tokio_postgres::Error>>) {
    let (client, connection) = tokio_postgres::connect(&url(), tokio_postgres::NoTls).await.unwrap();
    (client, JoinSet::from_iter([connection]))
}

/// The number of calls on a schema that wait for a lock.
async fn waiters(observer: &Client, schema: &Schema) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, $1) > 0";
    observer.query_one(count, &[&schema.quoted()]).await.unwrap().get(0)
}

/// The largest number of backends of an application while `settle_and_claim` runs.
async fn most_backends(application: &str, work: impl Future<Output = ()>) -> i64 {
    let (observer, _connection) = observer().await;
    let ended = AtomicBool::new(false);
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    let watch = async {
        let mut most = 0;
        while !ended.load(Ordering::Relaxed) {
            most = most.max(observer.query_one(count, &[&application]).await.unwrap().get(0));
        }
        most
    };
    let work = async {
        work.await;
        ended.store(true, Ordering::Relaxed);
    };
    tokio::join!(watch, work).0
}

#[tokio::test]
async fn statements_that_wait_for_a_lock_do_not_pile_up_in_the_server() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    let application = format!("piled {}", std::process::id());
    let store =
        PostgresStore::builder(&at_ports(&url(), &[port_of(&url())], &format!("application_name='{application}'")))
            .schema(&schema.name)
            .pool_size(4)
            .timeout(Duration::from_secs(4))
            .connect()
            .await
            .unwrap();
    schema.execute("BEGIN; SELECT FROM process FOR UPDATE").await;
    // Some callers wait until the end, and others give up, as when a browser hangs up.
    let give_up = AtomicUsize::new(0);
    let calls = async || {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(8) {
            let patience = if give_up.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { 50 } else { 10_000 };
            if let Ok(pinged) = tokio::time::timeout(Duration::from_millis(patience), store.ping(ping(1))).await {
                assert_eq!(pinged.unwrap_err().problem(), StoreProblem::Unavailable);
            }
        }
    };
    let most = most_backends(&application, async {
        join_all((0..8).map(|_| calls())).await;
    })
    .await;
    // A backend may still be ending when the connection that replaces it begins.
    assert!(most <= 6, "{most} backends for a pool of 4");
    schema.execute("COMMIT").await;
    let begun = Instant::now();
    while store.ping(ping(1)).await.map_err(|error| assert_eq!(error.problem(), StoreProblem::Unavailable))
        != Ok(noted(1))
    {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn without_cancel_requests_a_dropped_call_holds_its_connection_until_its_statement_ends() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    schema.execute("BEGIN; SELECT FROM process FOR UPDATE").await;
    let (observer, _connection) = observer().await;
    let builder = PostgresStore::builder(&url_in("PGBOUNCER_URL")).schema(&schema.name).without_prepared_statements();
    let timeout = Duration::from_secs(3);
    let store = builder.without_cancel_requests().pool_size(1).timeout(timeout).connect().await.unwrap();
    let until_it_waits = async { while waiters(&observer, &schema).await == 0 {} };
    tokio::select! {
        _ = store.ping(ping(1)) => panic!("the row is locked"),
        () = until_it_waits => {}
    }
    // The statement waits for the lock for half of the timeout.
    assert!(store.load(id(1)).await.unwrap().is_some());
    assert_eq!(waiters(&observer, &schema).await, 0);
    schema.execute("ROLLBACK").await;
}

/// The lock is held, so only a request to cancel can end the statement.
#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_in_the_server() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    schema.execute("BEGIN; SELECT FROM process FOR UPDATE").await;
    let (observer, _connection) = observer().await;
    for url in [url(), url_in("PGBOUNCER_URL")] {
        let store = PostgresStore::builder(&url)
            .schema(&schema.name)
            .without_prepared_statements()
            .pool_size(1)
            .timeout(Duration::from_secs(60))
            .connect()
            .await
            .unwrap();
        let until_it_waits = async { while waiters(&observer, &schema).await == 0 {} };
        tokio::select! {
            _ = store.ping(ping(1)) => panic!("the row is locked"),
            () = until_it_waits => {}
        }
        let dropped = Instant::now();
        while waiters(&observer, &schema).await > 0 {
            assert!(dropped.elapsed() < Duration::from_secs(10), "the statement goes on");
        }
        // The connection in the pool is free once the request to cancel has been handled.
        assert!(store.load(id(1)).await.unwrap().is_some());
    }
    schema.execute("ROLLBACK").await;
}

/// Calls until one succeeds, and returns how long that took.
async fn until_it_answers(store: &PostgresStore) -> Duration {
    let begun = Instant::now();
    loop {
        match store.load(id(1)).await {
            Ok(process) => {
                assert!(process.is_some());
                return begun.elapsed();
            }
            Err(error) => {
                assert_eq!(error.problem(), StoreProblem::Unavailable, "{error:?}");
                assert!(begun.elapsed() < PATIENCE, "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_store_switches_within_15_seconds_if_the_primary_becomes_unreachable() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    let proxy = Proxy::before(port_of(&url())).await;
    let address = at_ports(&url(), &[proxy.port, port_of(&url())], "");
    let store = PostgresStore::builder(&address).schema(&schema.name).connect().await.unwrap();
    // Several connections are open, and none of them will ever be answered again.
    for loaded in join_all((0..3).map(|_| store.load(id(1)))).await {
        assert!(loaded.unwrap().is_some());
    }
    proxy.vanish();
    let took = until_it_answers(&store).await;
    assert!(took <= Duration::from_secs(15), "{took:?}");
    // None of the dead connections is handed out later.
    let begun = Instant::now();
    for _ in 0..16 {
        assert!(store.load(id(1)).await.unwrap().is_some());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_host_that_accepts_writes_is_used_after_a_failover_too() {
    let [old, new] = [Server::start(), Server::start()];
    let mut config: Config = old.url.parse().unwrap();
    let admin = async |server: &Server, sql: &str| {
        let (admin, connection) = tokio_postgres::connect(&server.url, tokio_postgres::NoTls).await.unwrap();
        tokio::select! {
            done = admin.batch_execute(sql) => done.unwrap(),
            closed = connection => panic!("{closed:?}"),
        }
    };
    // Standbys have the primary's roles; these two servers get one with the same name and password.
    for (server, number) in [(&old, 1), (&new, 2)] {
        admin(server, "CREATE ROLE app LOGIN SUPERUSER PASSWORD 'secret'").await;
        let store = PostgresStore::connect(&server.url).await.unwrap();
        store.migrate().await.unwrap();
        store.insert(waiting(number)).await.unwrap();
    }
    config.user("app");
    let follow = async |server: &Server, is_standby: bool| {
        admin(server, &format!("ALTER SYSTEM SET default_transaction_read_only = {is_standby}")).await;
        admin(server, "SELECT pg_reload_conf()").await;
    };
    follow(&new, true).await;
    let ports = [port_of(&new.url), port_of(&old.url)];
    let address =
        format!("host=127.0.0.1,127.0.0.1 port={},{} user=app password=secret dbname=postgres", ports[0], ports[1]);
    let store = PostgresStore::connect(&address).await.unwrap();
    assert!(store.load(id(1)).await.unwrap().is_some());
    assert_eq!(store.ping(ping(1)).await.unwrap(), noted(1));

    follow(&new, false).await;
    follow(&old, true).await;
    let begun = Instant::now();
    while store.ping(ping(2)).await.map_err(|error| assert_eq!(error.problem(), StoreProblem::Unavailable, "{error:?}"))
        != Ok(noted(2))
    {
        assert!(begun.elapsed() < PATIENCE);
    }

    // If no server accepts writes, the store is unavailable and says why.
    follow(&new, true).await;
    let begun = Instant::now();
    let error = loop {
        let error = PostgresStore::connect(&address).await;
        if error.is_err() {
            break error;
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert_refused(error, StoreProblem::Unavailable, "accepts no writes");
}

/// A server that refuses every connection with a code and a message.
async fn refuse(code: &'static str) -> Result<PostgresStore, openid_deferred::store::StoreError> {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let serve = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut startup = [0; 4];
        stream.read_exact(&mut startup).await.unwrap();
        let mut rest = vec![0; u32::from_be_bytes(startup) as usize - 4];
        stream.read_exact(&mut rest).await.unwrap();
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mthe reason\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap();
        stream.write_all(&[b"E", length.to_be_bytes().as_slice(), fields.as_bytes()].concat()).await.unwrap();
    };
    let address = format!("host=127.0.0.1 port={port} user=test password=secret dbname=test");
    tokio::join!(serve, PostgresStore::connect(&address)).1
}

#[tokio::test]
async fn temporary_refusals_of_a_server_differ_from_those_that_need_an_operator() {
    use StoreProblem::{Unavailable, Unusable};
    for (code, problem, advice) in [
        // Starting up, in recovery, shutting down; stopped by the operator.
        ("57P03", Unavailable, ""),
        ("57P01", Unavailable, ""),
        ("57P02", Unavailable, ""),
        ("57P05", Unavailable, ""),
        // A standby, or a primary that has become one.
        ("25006", Unavailable, "target_session_attrs"),
        // Idle in a transaction, and a transaction that took too long.
        ("25P03", Unavailable, ""),
        ("25P04", Unavailable, ""),
        ("57014", Unavailable, ""),
        ("55P03", Unavailable, ""),
        ("53300", Unavailable, "pool_size"),
        ("53100", Unavailable, ""),
        ("40001", Unavailable, ""),
        ("40P01", Unavailable, ""),
        ("28P01", Unusable, "password"),
        ("28000", Unusable, "pg_hba.conf"),
        ("3D000", Unusable, "database"),
        ("42501", Unusable, "GRANT"),
    ] {
        assert_refused(refuse(code).await, problem, &format!("{code}: the reason"));
        assert_refused(refuse(code).await, problem, advice);
    }
}

#[tokio::test]
async fn a_missing_password_is_an_error() {
    let rest = url().rsplit_once('@').unwrap().1.to_owned();
    let connected = PostgresStore::connect(&format!("postgres://test@{rest}")).await;
    assert_refused(connected, StoreProblem::Unusable, "password missing");
}

#[tokio::test]
async fn a_role_without_a_free_connection_waits_for_one() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    let role = format!("limited_{}", std::process::id());
    let grant = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'secret' CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA {quoted} TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {quoted} TO {role}",
        quoted = schema.quoted()
    );
    schema.execute(&grant).await;
    let rest = url().rsplit_once('@').unwrap().1.to_owned();
    let url = format!("postgres://{role}:secret@{rest}");
    let first = PostgresStore::builder(&url).schema(&schema.name).connect().await.unwrap();
    let second = PostgresStore::builder(&url).schema(&schema.name).connect().await;
    assert_refused(second, StoreProblem::Unavailable, "pool_size");
    drop(first);
    let begun = Instant::now();
    while PostgresStore::builder(&url).schema(&schema.name).connect().await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
    schema.execute(&format!("DROP OWNED BY {role} CASCADE")).await;
}

#[tokio::test]
async fn open_connections_survive_a_password_change_and_new_ones_report_the_error() {
    let schema = Schema::new().await;
    schema.store().await.insert(waiting(1)).await.unwrap();
    let role = format!("rotated_{}", std::process::id());
    schema.execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'before'")).await;
    let rest = url().rsplit_once('@').unwrap().1.to_owned();
    let url = format!("postgres://{role}:before@{rest}");
    let store = Arc::new(PostgresStore::builder(&url).schema(&schema.name).pool_size(2).connect().await.unwrap());
    schema.execute(&format!("ALTER ROLE {role} PASSWORD 'after'")).await;
    assert!(store.load(id(1)).await.unwrap().is_some());
    // Two calls at once need a second connection, which is refused; the first one is kept.
    schema.execute("BEGIN; SELECT FROM process FOR UPDATE").await;
    let (first, second) = (store.clone(), store.clone());
    let blocked = tokio::spawn(async move { first.ping(ping(1)).await });
    let (observer, _connection) = observer().await;
    while waiters(&observer, &schema).await == 0 {}
    let refused = second.load(id(1)).await;
    let shown = format!("{refused:?}");
    assert!(!shown.contains("before"), "{shown}");
    assert_refused(refused, StoreProblem::Unusable, "password");
    schema.execute("COMMIT").await;
    assert_eq!(blocked.await.unwrap().unwrap(), noted(1));
    assert!(store.load(id(1)).await.unwrap().is_some());
    schema.execute(&format!("DROP OWNED BY {role} CASCADE")).await;
}
