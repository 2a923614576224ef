//! Work that continues after its caller is dropped.

use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::task::Poll;

use futures_core::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// A request that was sent or is about to be sent. It runs to its end, and its result is kept here until a caller takes
/// it. Any number of callers may wait for it, and each of them may be dropped.
///
/// If this value is dropped, the work still runs to its end, but the result is lost.
pub(crate) struct Task<T>(Mutex<State<T>>);

enum State<T> {
    /// The runtime drives it.
    Spawned(JoinHandle<T>),
    /// The callers that wait for it drive it.
    Held(BoxFuture<'static, T>),
    /// `None` if the runtime was shut down first.
    Ended(Option<T>),
}

/// Code panicked. The message went to the panic hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Drives `work` to its end, or to a panic, after which it is dropped.
pub(crate) async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}

/// Whether work can be spawned here, so that it runs without a waiting caller.
pub(crate) fn can_spawn() -> bool {
    Handle::try_current().is_ok()
}

impl<T: Send + 'static> Task<T> {
    /// Starts work that runs without a waiting caller.
    pub(crate) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        let work = work.in_current_span();
        // This value owns the task and awaits it. Outside of tokio, tasks cannot be spawned, so the callers drive the
        // work.
        Self(Mutex::new(match Handle::try_current() {
            Ok(runtime) => State::Spawned(runtime.spawn(work)),
            Err(_) => State::Held(Box::pin(work)),
        }))
    }

    /// Creates work that its callers drive, for callers that are known not to be dropped.
    pub(crate) fn held(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Mutex::new(State::Held(Box::pin(work))))
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// If the work panics, the first caller that waits for it panics too.
    pub(crate) async fn finish(&self) {
        self.inspect(|_| ()).await;
    }

    /// Waits for the end, and passes the result to `inspect` without taking it. There is none if the runtime was shut
    /// down first.
    pub(crate) async fn inspect<R>(&self, inspect: impl FnOnce(Option<&T>) -> R) -> R {
        let mut state = self.0.lock().await;
        let ended = match &mut *state {
            State::Spawned(task) => task.await,
            State::Held(work) => Ok(work.await),
            State::Ended(result) => return inspect(result.as_ref()),
        };
        let result = match ended {
            Ok(result) => Some(result),
            Err(failure) => match failure.try_into_panic() {
                Ok(cause) => {
                    *state = State::Ended(None);
                    panic::resume_unwind(cause)
                }
                Err(_) => None,
            },
        };
        let inspected = inspect(result.as_ref());
        *state = State::Ended(result);
        inspected
    }

    /// Returns the result, if the work has [ended](Self::finish).
    pub(crate) fn into_result(self) -> Option<T> {
        match self.0.into_inner() {
            State::Ended(result) => result,
            State::Spawned(_) | State::Held(_) => None,
        }
    }
}
