//! The pool of connections, and how they are opened and closed.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, Pool, RecycleError, RecycleResult};
use openssl::ssl::SslConnector;
use postgres_openssl::TlsConnector;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Error, Statement};

use super::cancel;
use super::problem::{self, Failure, Refusal};
use super::settings::{Settings, Target};
use super::tls::{Connector, Distance};
use crate::clock::{Clock as _, SystemClock};
use crate::random;
use crate::store::StoreError;
use crate::task::{self, Task};

/// A connection that was idle in the pool for this long is checked before it is used.
const UNCHECKED: Duration = Duration::from_secs(5);
/// The minimum time for a host to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit of a request to cancel a statement, including the end of that statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// An open connection.
pub(super) struct Connection {
    client: Client,
    /// Prepared statements by their SQL, which always has the same parameter types.
    statements: Mutex<HashMap<String, Statement>>,
    generation: u64,
    /// The server that it leads to.
    target: Target,
    address: Option<IpAddr>,
    /// Why the connection has ended.
    end: Arc<OnceLock<String>>,
    driver: JoinSet<()>,
}

/// A listener for notifications. It gets the number of the notifying backend and the payload.
pub(super) type OnNotification = Arc<dyn Fn(i32, &str) + Send + Sync>;

impl Connection {
    /// Completes when the connection has ended.
    pub(super) async fn ended(&mut self) {
        self.driver.join_next().await;
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn prepared(&self, sql: &str) -> Option<Statement> {
        locked(&self.statements).get(sql).cloned()
    }

    pub(super) async fn prepare(&self, sql: &str, types: &[Type]) -> Result<Statement, Error> {
        let statement = self.client.prepare_typed(sql, types).await?;
        locked(&self.statements).insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// The error of a failed statement.
    pub(super) fn failure(&self, error: &Error) -> StoreError {
        match self.end.get() {
            Some(why) if error.is_closed() => problem::unavailable(format!("{error}: {why}")),
            _ => problem::of_database(error),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The limits of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) call: Duration,
    pub(super) pool_size: usize,
    /// Whether statements are cancelled. Otherwise their end is awaited.
    pub(super) cancels: bool,
}

/// The connections of a store.
pub(super) struct Connections {
    pool: Pool<Manager>,
    limits: Limits,
}

impl Connections {
    /// Creates a pool that opens connections when they are needed.
    pub(super) fn new(settings: Settings, tls: Option<SslConnector>, limits: Limits) -> Result<Self, StoreError> {
        let manager = Manager::new(settings, tls, limits.call)?;
        let builder = Pool::builder(manager).max_size(limits.pool_size.max(1)).runtime(deadpool::Runtime::Tokio1);
        let pool = builder.wait_timeout(Some(limits.call)).build().map_err(|error| Refusal::Pool(error.to_string()))?;
        Ok(Self { pool, limits })
    }

    pub(super) async fn take(&self) -> Result<Object<Manager>, StoreError> {
        self.pool.get().await.map_err(problem::of_pool)
    }

    /// The pool, for connections that do not belong to it.
    pub(super) fn pool(&self) -> Pool<Manager> {
        self.pool.clone()
    }

    /// Whether connections use TLS, and how far away the farthest server is.
    pub(super) fn protection(&self) -> (bool, Distance) {
        let manager = self.pool.manager();
        (manager.tls.is_on, manager.settings.distance())
    }

    /// The current generation. Connections of an older generation are not used again.
    pub(super) fn generation(&self) -> u64 {
        self.pool.manager().generation.load(Ordering::Relaxed)
    }

    /// Closes all connections that are as old as one that does not answer, because they will not answer either.
    pub(super) fn discard(&self, generation: u64) {
        if self.pool.manager().discard(generation) {
            drop(self.pool.retain(|connection, _| connection.generation > generation));
        }
    }

    /// Records a failure on a connection.
    pub(super) fn failed(&self, connection: &Connection, error: &Error) -> StoreError {
        if problem::is_of_all_connections(error) {
            self.discard(connection.generation);
        }
        connection.failure(error)
    }

    /// Closes a connection whose statement is still running.
    ///
    /// The server would not notice that the connection was closed, so the statement is cancelled first, or its end is
    /// awaited. Until then the connection keeps its slot in the pool, which bounds the number of statements that run at
    /// the same time.
    pub(super) fn abandon(&self, connection: Object<Manager>) {
        let is_discarded = connection.generation < self.generation();
        let tls = self.limits.cancels.then(|| self.pool.manager().tls.to(&connection.target.host)).transpose();
        // If a certificate file is missing now, the next connection attempt reports it.
        let Ok(tls) = tls else { return drop(Object::take(connection)) };
        let limit = if tls.is_some() { CANCEL_TIMEOUT } else { self.limits.call };
        let work = async move {
            if is_discarded {
                // Its slot is needed for a new connection.
                within(limit, end(&Object::take(connection), tls)).await;
            } else {
                within(limit, end(&connection, tls)).await;
                drop(Object::take(connection));
            }
        };
        // The task ends by itself, even if the store is dropped meanwhile.
        if task::can_spawn() {
            drop(Task::spawn(work));
        }
    }
}

/// Waits for the end of the running statement. A pooler can match a cancel request to its statement only while the
/// connection is open.
async fn end(connection: &Connection, tls: Option<TlsConnector>) {
    if let Some(tls) = tls {
        let token = connection.client.cancel_token();
        if cancel::cancel(&token, &connection.target, connection.address, tls).await.is_err() {
            return;
        }
    }
    drop(connection.client.batch_execute("ROLLBACK").await);
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = pin!(work) => Some(done),
        () = SystemClock.sleep(limit) => None,
    }
}

/// Opens connections.
pub(super) struct Manager {
    settings: Settings,
    tls: Connector,
    /// The time limit for each address of each host.
    connect_timeout: Duration,
    generation: AtomicU64,
}

impl Manager {
    fn new(mut settings: Settings, tls: Option<SslConnector>, call: Duration) -> Result<Self, StoreError> {
        let tls = settings.tls.clone().connector(tls, settings.distance())?;
        settings.config.ssl_mode(if tls.is_on { SslMode::Require } else { SslMode::Disable });
        settings.config.ssl_negotiation(if tls.is_direct { SslNegotiation::Direct } else { SslNegotiation::Postgres });
        // The hosts share half of the time of a call.
        let (half, hosts) = (call / 2, u32::try_from(settings.targets.len()).unwrap_or(u32::MAX).max(1));
        let share = (half / hosts).max(CONNECT_TIMEOUT);
        let connect_timeout = settings.connect_timeout.unwrap_or(share);
        if settings.config.get_tcp_user_timeout().is_none() {
            settings.config.tcp_user_timeout(half);
        }
        Ok(Self { settings, tls, connect_timeout, generation: AtomicU64::new(0) })
    }

    /// Ends a generation. Returns whether it was the current one.
    fn discard(&self, generation: u64) -> bool {
        self.generation.compare_exchange(generation, generation + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Opens a connection. `on_notification` gets its notifications.
    pub(super) async fn connect(&self, on_notification: Option<&OnNotification>) -> Result<Connection, StoreError> {
        let mut targets = self.settings.targets.clone();
        if self.settings.shuffles {
            shuffle(&mut targets);
        }
        let mut failures = Vec::new();
        for target in targets {
            let addresses = match self.addresses(&target).await {
                Ok(addresses) => addresses,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            for address in addresses {
                match self.connect_to(&target, address, on_notification).await {
                    Ok(connection) => return Ok(connection),
                    // The other hosts would give the same answer.
                    Err(failure) if failure.is_of_all_hosts => return Err(failure.into()),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        Err(problem::of_hosts(failures))
    }

    /// Looks up the addresses of a host. For a Unix socket there is one, which is `None`.
    async fn addresses(&self, target: &Target) -> Result<Vec<Option<IpAddr>>, Failure> {
        if target.address.is_some() || target.is_socket() {
            return Ok(vec![target.address]);
        }
        let name = format!("{}:{}", target.host, target.port);
        let lookup = tokio::net::lookup_host((target.host.as_str(), target.port));
        let mut addresses: Vec<_> = match within(self.connect_timeout, lookup).await {
            Some(Ok(addresses)) => addresses.map(|address| Some(address.ip())).collect(),
            Some(Err(error)) => {
                return Err(Failure::passing(&name, &format!("its address cannot be looked up: {error}")));
            }
            None => {
                return Err(Failure::passing(&name, "its address cannot be looked up: no answer"));
            }
        };
        if self.settings.shuffles {
            shuffle(&mut addresses);
        }
        if addresses.is_empty() { Err(Failure::passing(&name, "it has no address")) } else { Ok(addresses) }
    }

    async fn connect_to(
        &self,
        target: &Target,
        address: Option<IpAddr>,
        on_notification: Option<&OnNotification>,
    ) -> Result<Connection, Failure> {
        let name = match address {
            Some(address) if address.to_string() != target.host => {
                format!("{}:{} ({address})", target.host, target.port)
            }
            _ => format!("{}:{}", target.host, target.port),
        };
        let mut config = self.settings.config.clone();
        config.host(&target.host).port(target.port);
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if target.is_socket() {
            config.ssl_mode(SslMode::Disable);
        }
        let connect = async {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            let end = Arc::new(OnceLock::new());
            let driver = JoinSet::from_iter([drive(connection, on_notification.cloned(), end.clone())]);
            // Its generation is the one in which the server accepted it.
            let generation = self.generation.load(Ordering::Relaxed);
            let (statements, target) = (Mutex::default(), target.clone());
            let connection = Connection { client, statements, generation, target, address, end, driver };
            let check = self.check(&connection).await?;
            Ok((connection, check))
        };
        match within(self.connect_timeout, connect).await {
            Some(Ok((connection, Ok(())))) => Ok(connection),
            Some(Ok((_, Err(failure)))) => Err(failure.at(&name)),
            Some(Err(error)) => Err(Failure::of(&name, &error)),
            None => Err(Failure::passing(&name, &format!("it has not answered within {:?}", self.connect_timeout))),
        }
    }

    /// Checks whether a server can be used: it must accept writes, and commit to disk before it answers.
    async fn check(&self, connection: &Connection) -> Result<Result<(), Failure>, Error> {
        let sql = "SELECT current_setting('synchronous_commit') = 'off' AS asynchronous,
                          current_setting('transaction_read_only') = 'on' AS read_only";
        let rows = connection.client.query_typed(sql, &[]).await?;
        let is = |column| rows.iter().any(|row| row.try_get(column).unwrap_or(true));
        Ok(if is("asynchronous") {
            Err(Failure::of_all_hosts(Refusal::AsynchronousCommit))
        } else if is("read_only") && self.settings.needs_writes {
            Err(Failure::passing("", "it accepts no writes: it is a standby, or default_transaction_read_only is on"))
        } else {
            Ok(())
        })
    }
}

/// Drives a connection until it ends, and records the reason.
async fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    on_notification: Option<OnNotification>,
    end: Arc<OnceLock<String>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => {
                if let Some(on_notification) = &on_notification {
                    on_notification(notification.process_id(), notification.payload());
                }
            }
            Ok(_) => {}
            Err(error) => {
                // This must happen before callers see that the connection is closed.
                let _ = end.set(problem::text_of(&error));
                return;
            }
        }
    }
}

fn shuffle<T>(items: &mut [T]) {
    for place in (1..items.len()).rev() {
        // If no randomness is available, the order stays the same.
        let Ok(bytes) = random::bytes::<8>(&random::SystemRandom) else { return };
        let other = usize::try_from(u64::from_le_bytes(bytes) % (place as u64 + 1)).unwrap_or(0);
        items.swap(place, other);
    }
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection, StoreError> {
        self.connect(None).await
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<StoreError> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("the connection has ended"));
        }
        if connection.generation < self.generation.load(Ordering::Relaxed) {
            return Err(RecycleError::message("a connection of the same age does not answer"));
        }
        if metrics.last_used() >= UNCHECKED {
            let answer = within(self.connect_timeout, connection.client.batch_execute("")).await;
            if !matches!(answer, Some(Ok(()))) {
                self.discard(connection.generation);
                return Err(RecycleError::message("the server does not answer"));
            }
        }
        Ok(())
    }
}
