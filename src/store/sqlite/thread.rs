//! A thread that owns a connection and executes the calls of many tasks, a group of them per transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::moment::Moment;
use super::problem;
use crate::clock::Clock;
use crate::store::changes::Changes;
use crate::store::{Changed, StoreError};

/// The maximum number of calls that wait for the thread. If a disk hangs, they include calls that were given up.
const WAITING_CALLS: usize = 100_000;

/// The maximum number of calls in a transaction, so that the first of them does not wait for long.
const CALLS_PER_TRANSACTION: usize = 256;

/// How often to check whether another process has changed the file.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The role of a thread.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// It takes the write lock before it reads anything.
    Writer,
    /// It never writes, so it neither waits for writers nor delays them.
    Reader,
}

/// A handle to the thread. After the handle is dropped, the thread completes the pending calls and ends; the drop does
/// not wait for that.
pub(super) struct Worker {
    calls: Sender<Box<dyn Call>>,
    /// The number of calls that the thread has not taken.
    waiting: Arc<AtomicUsize>,
}

impl Worker {
    /// Starts the thread, which opens its own connection.
    pub(super) async fn start(
        role: Role,
        clock: Arc<dyn Clock>,
        changes: Changes,
        open: impl FnOnce() -> Result<Connection, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (calls, received) = mpsc::channel();
        let (opened, answer) = oneshot::channel();
        let name = match role {
            Role::Writer => "sqlite-writer",
            Role::Reader => "sqlite-reader",
        };
        let waiting = Arc::<AtomicUsize>::default();
        let taken = waiting.clone();
        let body = move || match open() {
            Ok(connection) => {
                let _ = opened.send(Ok(()));
                Thread { connection, role, clock, changes, waiting: taken }.serve(&received);
            }
            Err(error) => {
                let _ = opened.send(Err(error));
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(body).map_err(problem::of_file)?;
        answer.await.unwrap_or_else(|_| Err(problem::thread_has_ended()))?;
        Ok(Self { calls, waiting })
    }

    /// Executes `work` in the thread. The answer comes after the commit of the transaction. If the commit or `work`
    /// fails, nothing has happened.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        changed: impl Fn(&T) -> Changed + Send + 'static,
        work: impl FnOnce(&Connection, Moment) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.waiting.load(Ordering::Relaxed) >= WAITING_CALLS {
            return Err(problem::too_many_calls());
        }
        let (reply, answer) = oneshot::channel();
        let call = OneCall { changed, work: Some(work), result: None, reply };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.calls.send(Box::new(call)).map_err(|_| problem::thread_has_ended())?;
        answer.await.unwrap_or_else(|_| Err(problem::thread_has_ended()))
    }
}

/// A call in a transaction.
trait Call: Send {
    /// Whether its caller has gone. Such a call is skipped, because a claim without a reader of its answer would block
    /// rows.
    fn is_abandoned(&self) -> bool;

    /// The changes that waiters must be notified of.
    fn changed(&self) -> Changed;

    fn run(&mut self, connection: &Connection, now: Moment) -> rusqlite::Result<()>;

    /// Sends the answer after the end of the transaction.
    fn finish(self: Box<Self>, transaction: Result<(), &rusqlite::Error>);
}

struct OneCall<W, T, C> {
    changed: C,
    work: Option<W>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<W, T, C> Call for OneCall<W, T, C>
where
    C: Fn(&T) -> Changed + Send,
    W: FnOnce(&Connection, Moment) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn changed(&self) -> Changed {
        match &self.result {
            Some(Ok(answer)) => (self.changed)(answer),
            _ => Changed::NOTHING,
        }
    }

    fn run(&mut self, connection: &Connection, now: Moment) -> rusqlite::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = work(connection, now);
        let (result, outcome) = match result {
            Ok(answer) => (Ok(answer), Ok(())),
            Err(error) => (Err(problem::of_database(&error)), Err(error)),
        };
        self.result = Some(result);
        outcome
    }

    fn finish(self: Box<Self>, transaction: Result<(), &rusqlite::Error>) {
        let answer = match (transaction, self.result) {
            (Ok(()), Some(result)) => result,
            (Err(error), _) => Err(problem::of_database(error)),
            (Ok(()), None) => Err(problem::thread_has_ended()),
        };
        // A caller that has gone repeats the call, as after any lost answer.
        let _ = self.reply.send(answer);
    }
}

struct Thread {
    connection: Connection,
    role: Role,
    clock: Arc<dyn Clock>,
    changes: Changes,
    waiting: Arc<AtomicUsize>,
}

impl Thread {
    fn serve(&self, calls: &Receiver<Box<dyn Call>>) {
        let mut version = self.data_version();
        loop {
            match self.next(calls) {
                Ok(first) => self.serve_group(first, calls),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if matches!(self.role, Role::Writer) {
                let current = self.data_version();
                if current != version {
                    version = current;
                    self.changes.notify(Changed::ALL);
                }
            }
        }
    }

    fn next(&self, calls: &Receiver<Box<dyn Call>>) -> Result<Box<dyn Call>, RecvTimeoutError> {
        match self.role {
            Role::Writer => calls.recv_timeout(CHECK_INTERVAL),
            Role::Reader => calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// A number that changes with every commit of another connection. Reading it only accesses shared memory.
    fn data_version(&self) -> Option<i64> {
        let mut statement = self.connection.prepare_cached("PRAGMA data_version").ok()?;
        statement.query_row([], |row| row.get(0)).ok()
    }

    fn serve_group(&self, first: Box<dyn Call>, calls: &Receiver<Box<dyn Call>>) {
        let waiting: Vec<_> = std::iter::once(first).chain(calls.try_iter()).take(CALLS_PER_TRANSACTION).collect();
        self.waiting.fetch_sub(waiting.len(), Ordering::Relaxed);
        let mut group: Vec<_> = waiting.into_iter().filter(|call| !call.is_abandoned()).collect();
        if group.is_empty() {
            return;
        }
        let transaction = self.run(&mut group);
        if transaction.is_err() && !self.connection.is_autocommit() {
            // If this fails too, the next `BEGIN` returns the error to its callers.
            let _ = self.execute("ROLLBACK");
        }
        if transaction.is_ok() {
            group.iter().for_each(|call| self.changes.notify(call.changed()));
        }
        for call in group {
            call.finish(transaction.as_ref().copied());
        }
    }

    fn run(&self, group: &mut [Box<dyn Call>]) -> rusqlite::Result<()> {
        self.execute(match self.role {
            Role::Writer => "BEGIN IMMEDIATE",
            Role::Reader => "BEGIN DEFERRED",
        })?;
        let now = || Moment::of(self.clock.as_ref());
        if let [call] = group {
            // One call needs no savepoint besides the transaction. A savepoint would keep a copy of every changed page.
            call.run(&self.connection, now())?;
            return self.execute("COMMIT");
        }
        for call in group {
            self.execute("SAVEPOINT call")?;
            if let Err(error) = call.run(&self.connection, now()) {
                if self.connection.is_autocommit() {
                    // SQLite has rolled everything back, including the earlier calls.
                    return Err(error);
                }
                self.execute("ROLLBACK TO call")?;
            }
            self.execute("RELEASE call")?;
        }
        self.execute("COMMIT")
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::task::Poll;

    use super::*;
    use crate::clock::SystemClock;

    async fn worker() -> (Worker, Changes) {
        let changes = Changes::new();
        let open = || {
            let connection = Connection::open_in_memory().map_err(|error| problem::of_database(&error))?;
            connection.execute_batch("CREATE TABLE t (x UNIQUE)").map_err(|error| problem::of_database(&error))?;
            Ok(connection)
        };
        (Worker::start(Role::Writer, Arc::new(SystemClock), changes.clone(), open).await.unwrap(), changes)
    }

    /// Keeps the thread busy until the sender is dropped, so that the calls made meanwhile form one group.
    fn occupy(worker: &Worker) -> Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (reply, _) = oneshot::channel();
        let wait = move |_: &Connection, _| {
            let _ = released.recv();
            Ok(())
        };
        // Sent directly, because it has no caller to wait for it. `is_abandoned` is checked before the wait for
        // `released`.
        let call = OneCall { changed: |(): &()| Changed::NOTHING, work: Some(wait), result: None, reply };
        worker.waiting.fetch_add(1, Ordering::Relaxed);
        worker.calls.send(Box::new(Uninterested(call))).unwrap();
        release
    }

    /// A call that is executed without a waiting caller.
    struct Uninterested<C>(C);

    impl<C: Call> Call for Uninterested<C> {
        fn is_abandoned(&self) -> bool {
            false
        }

        fn changed(&self) -> Changed {
            self.0.changed()
        }

        fn run(&mut self, connection: &Connection, now: Moment) -> rusqlite::Result<()> {
            self.0.run(connection, now)
        }

        fn finish(self: Box<Self>, transaction: Result<(), &rusqlite::Error>) {
            Box::new(self.0).finish(transaction);
        }
    }

    async fn add(worker: &Worker, values: &'static [i64]) -> Result<(), StoreError> {
        let add = |file: &Connection, _| {
            values.iter().try_for_each(|value| file.execute("INSERT INTO t VALUES (?)", [value]).map(drop))
        };
        worker.call(|()| Changed::WORK, add).await
    }

    async fn sum(worker: &Worker) -> i64 {
        worker
            .call(|_| Changed::NOTHING, |file, _| file.query_row("SELECT sum(x) FROM t", [], |row| row.get(0)))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_failed_call_is_rolled_back_without_the_others_of_its_group() {
        let (worker, _) = worker().await;
        let release = occupy(&worker);
        let (first, second, third, ()) =
            tokio::join!(add(&worker, &[1]), add(&worker, &[10, 1]), add(&worker, &[100]), async { drop(release) });
        assert!(first.is_ok() && second.is_err() && third.is_ok());
        assert_eq!(sum(&worker).await, 101);
    }

    #[tokio::test]
    async fn a_call_whose_caller_was_dropped_is_not_executed() {
        let (worker, _) = worker().await;
        let release = occupy(&worker);
        let mut gone = Box::pin(add(&worker, &[1]));
        assert!(std::future::poll_fn(|context| Poll::Ready(gone.as_mut().poll(context))).await.is_pending());
        drop(gone);
        let (stays, ()) = tokio::join!(add(&worker, &[2]), async { drop(release) });
        assert!(stays.is_ok());
        assert_eq!(sum(&worker).await, 2);
    }

    #[tokio::test]
    async fn the_queue_of_a_hanging_thread_is_bounded() {
        let (worker, _) = worker().await;
        let release = occupy(&worker);
        worker.waiting.fetch_add(WAITING_CALLS, Ordering::Relaxed);
        let refused = add(&worker, &[1]).await.unwrap_err();
        assert_eq!(refused.problem(), crate::store::StoreProblem::Unavailable);
        worker.waiting.fetch_sub(WAITING_CALLS, Ordering::Relaxed);
        let (accepted, ()) = tokio::join!(add(&worker, &[2]), async { drop(release) });
        assert!(accepted.is_ok());
        assert_eq!((sum(&worker).await, worker.waiting.load(Ordering::Relaxed)), (2, 0));
    }

    #[tokio::test]
    async fn successful_changes_are_notified_and_failed_ones_are_not() {
        let (worker, changes) = worker().await;
        let told = changes.next();
        add(&worker, &[1]).await.unwrap();
        assert_eq!(told.await, Changed::WORK);
        let mut told = changes.next();
        add(&worker, &[1]).await.unwrap_err();
        assert!(std::future::poll_fn(|context| Poll::Ready(told.as_mut().poll(context))).await.is_pending());
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_opened_is_an_error() {
        let refuse = || Err(problem::thread_has_ended());
        let started = Worker::start(Role::Reader, Arc::new(SystemClock), Changes::new(), refuse).await;
        assert!(started.is_err());
    }
}
