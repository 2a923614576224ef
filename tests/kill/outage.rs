//! A database that is unavailable for a while: nothing is lost, no poll is early, and users and pings are told to come
//! again. The same holds for a worker that is replaced by another one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openid_deferred::testing::{Endpoint, Fault, TestProcess};
use openid_deferred::{Clock as _, SystemClock};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

use crate::server::Server;
use crate::service::{MOMENT, Service, Setting, StoreOf, database_url};

const USERS: u32 = 20;
/// Several intervals, and longer than `SqliteStore` waits for a lock.
const OUTAGE: Duration = Duration::from_secs(8);
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_early_while_another_process_locks_the_sqlite_file() {
    outage(StoreOf::sqlite(), |service| {
        let file = rusqlite::Connection::open(service.sqlite_file()).unwrap();
        file.busy_timeout(DEADLINE).unwrap();
        file.execute_batch("BEGIN EXCLUSIVE").unwrap();
        file
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_early_while_postgresql_is_unreachable() {
    let mut url = Url::parse(&database_url()).expect("DATABASE_URL is a URL");
    let server = url.socket_addrs(|| Some(5432)).expect("DATABASE_URL names a host")[0];
    let wire = Wire::to(server).await;
    url.set_ip_host(wire.address.ip()).unwrap();
    url.set_port(Some(wire.address.port())).unwrap();
    outage(StoreOf::postgres_at(url.to_string()), |_| wire.cut()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_early_while_postgresql_is_shut_down() {
    while_postgresql_is_down("fast").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_early_after_a_crash_of_postgresql() {
    while_postgresql_is_down("immediate").await;
}

/// `stop` is "fast" or "immediate". "fast" is a normal shutdown of the machine. With "immediate" the server's processes
/// end at once, and the next start recovers committed data from the log.
async fn while_postgresql_is_down(stop: &str) {
    let mut server = Server::start();
    let url = server.url.clone();
    outage(StoreOf::postgres_at(url), |_| {
        server.order(stop);
        Stopped(&mut server)
    })
    .await;
}

/// A server that is down. It is started again when this is dropped.
struct Stopped<'a>(&'a mut Server);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.order("start");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_stopped_gracefully_releases_everything_for_the_next_one() {
    let service = Service::start(Setting::plain(StoreOf::sqlite())).await;
    let worker = service.worker();
    let mut processes = Vec::new();
    for user in 0..USERS {
        processes.push(service.sign_in(user).await);
    }
    until("all sign-ins are polled", || processes.iter().all(|process| process.polls() > 0)).await;
    assert!(worker.stop().await);
    let stopped = polls(&service);
    let _next = service.worker();
    until("all sign-ins are polled again", || polls(&service) >= stopped + USERS as usize).await;
    let began = SystemClock.monotonic();
    processes.iter().for_each(|process| process.approve());
    until("all users have an outcome", || service.lines().len() >= USERS as usize).await;
    let took = SystemClock.monotonic() - began;
    assert!(took < Duration::from_secs(10), "no claim was left to run out, and yet it took {took:?}");
    assert!(service.lines().iter().all(is_success));
    service.op.assert_clean();
}

/// Some users wait, and the store is unavailable until the value that `take_away` returns is dropped. In the end every
/// user has an outcome: the user whose success was in flight to the worker when the store went away, the users who were
/// approved during the outage or after it, and a user who came back during the outage.
async fn outage<T>(store: StoreOf, take_away: impl FnOnce(&Service) -> T) {
    let service = Service::start(Setting::plain(store)).await;
    let _worker = service.worker();
    let mut processes = Vec::new();
    for user in 0..USERS {
        processes.push(service.sign_in(user).await);
    }
    until("all sign-ins are polled", || processes.iter().all(|process| process.polls() > 0)).await;

    // The OP sends this once, and it arrives while it cannot be stored.
    service.op.misbehave(Fault::delay(Endpoint::Poll, Duration::from_secs(2)).after_success());
    processes[0].approve();
    until("a success is on its way", || processes[0].is_redeemed()).await;
    let gone = take_away(&service);
    let (since, polls) = (SystemClock.monotonic(), polls(&service));
    let (decided, undecided) = processes.split_at(processes.len() / 2);
    decided.iter().for_each(|process| process.approve());
    assert_eq!(service.ping(&undecided[0]).await, 503);
    let mut late = JoinSet::new();
    let door = service.clone();
    late.spawn(async move { door.sign_in(USERS).await });
    until("some time has passed", || SystemClock.monotonic() - since > OUTAGE).await;
    assert_eq!(service.ping(&undecided[0]).await, 503);
    let asked = self::polls(&service) - polls;
    assert!(asked <= processes.len(), "{asked} polls went out, though what they brought could not be stored");
    assert_eq!(service.lines().len(), 0, "nothing was delivered that could not be acknowledged");
    drop(gone);

    until_taken(&service, &undecided[0]).await;
    let process = late.join_next().await.expect("there is one").expect("the late user is taken back in the end");
    process.approve();
    undecided.iter().for_each(|process| process.approve());
    let store = service.open_store().await;
    let states = async || -> (u64, u64) {
        let stats = store.stats().await.unwrap_or_default();
        let rows = stats.iter().map(|rows| (rows.open() + rows.decided, rows.acknowledged));
        rows.fold((0, 0), |all, rows| (all.0 + rows.0, all.1 + rows.1))
    };
    while states().await != (0, u64::from(USERS) + 1) {
        assert!(SystemClock.monotonic() - since < DEADLINE, "{:?}", states().await);
        SystemClock.sleep(MOMENT).await;
    }
    let lines = service.lines();
    assert_eq!(lines.len(), USERS as usize + 1, "each outcome once");
    assert!(lines.iter().all(is_success), "{lines:?}");
    service.op.assert_clean();
}

fn is_success(line: &Value) -> bool {
    line["outcome"] == "approved" || line["outcome"] == "issued"
}

/// The OP repeats the ping as long as it gets a 503.
async fn until_taken(service: &Service, process: &TestProcess) {
    let began = SystemClock.monotonic();
    loop {
        match service.ping(process).await {
            503 => assert!(SystemClock.monotonic() - began < DEADLINE, "pings are still refused"),
            status => return assert_eq!(status, 204),
        }
        SystemClock.sleep(MOMENT).await;
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = SystemClock.monotonic();
    while !is_so() {
        assert!(SystemClock.monotonic() - began < DEADLINE, "not yet: {what}");
        SystemClock.sleep(MOMENT).await;
    }
}

fn polls(service: &Service) -> usize {
    service.op.requests_to(Endpoint::Poll).len()
}

/// The connection to a server. While it is cut, connections break and new ones fail, as when the server is stopped.
struct Wire {
    address: SocketAddr,
    is_cut: Arc<watch::Sender<bool>>,
    _task: JoinSet<()>,
}

/// Restores the connection when it is dropped.
struct Cut(Arc<watch::Sender<bool>>);

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::new(watch::Sender::new(false));
        let watched = is_cut.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connect(client, server, watched.clone()));
            }
        });
        Self { address, is_cut, _task: task }
    }

    fn cut(&self) -> Cut {
        self.is_cut.send_replace(true);
        Cut(self.is_cut.clone())
    }
}

async fn connect(mut client: TcpStream, server: SocketAddr, mut is_cut: watch::Receiver<bool>) {
    if *is_cut.borrow_and_update() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        _ = is_cut.changed() => {}
        _ = copy_bidirectional(&mut client, &mut server) => {}
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}
