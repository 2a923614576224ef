//! The loop around [`poll`](Client::poll) for one process.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use super::Client;
use super::outcome::Outcome;
use super::poll::{Asked, Poll};
use crate::error::{Error, ErrorKind, Rule};
use crate::pending::PendingAuthentication;

/// No sleep is longer, so that a machine that was suspended notices the time soon after it wakes.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Waiting for an outcome; made by [`Client::wait`], started by `.await`. For `join!` and `select!`, which want a future,
/// call [`into_future`](IntoFuture::into_future).
#[must_use = "nothing is asked until this is awaited"]
pub struct Wait<'a> {
    client: &'a Client,
    pending: &'a mut PendingAuthentication,
    observer: Option<Box<dyn Observer + 'a>>,
}

trait Observer: FnMut(&PendingAuthentication, WaitEvent<'_>) + Send {}

impl<F: FnMut(&PendingAuthentication, WaitEvent<'_>) + Send> Observer for F {}

/// What happened while waiting.
#[non_exhaustive]
#[derive(Debug)]
pub enum WaitEvent<'a> {
    /// Nothing is due for this long.
    Sleeping(Duration),
    /// A poll is about to be sent. Who seals and stores the process now will know after a crash that an answer may have
    /// been lost.
    Asking,
    /// The OP's success response is here, which it gives once only, and is about to be validated. Who seals and stores
    /// the process now cannot lose it.
    Answered,
    /// The OP has not decided; [`progress`](PendingAuthentication::progress) may say more.
    Pending,
    /// The OP wants to be asked less often.
    SlowDown,
    /// A poll met trouble that can pass. The next one is planned with backoff.
    Trouble(&'a Error),
    /// The OP has given no answer for this long, which is more than 90 days, and set no time at which the process ends.
    /// It is asked all the same; tell somebody. It comes once for each silence.
    Stale(Duration),
}

impl Client {
    /// Waits until the OP has decided, however long that takes: polls at the OP's interval, grows it when told to,
    /// survives outages with exponential backoff, and keeps an answer whose signature cannot be checked yet.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, mut pending: openid_deferred::PendingAuthentication)
    /// # -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::{Outcome, WaitEvent};
    ///
    /// let outcome = client
    ///     .wait(&mut pending)
    ///     .on_event(|pending, event| match event {
    ///         WaitEvent::Pending => println!("not yet: {}", pending.progress().unwrap_or("no details")),
    ///         event => println!("{event:?}"),
    ///     })
    ///     .await?;
    /// if let Outcome::Approved(authentication) = outcome {
    ///     println!("welcome, {}", authentication.claims().subject());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Dropping the future cancels the wait promptly. `pending` stays usable after that and after an error, and the
    /// interval goes on from where it was: call `wait` again. A request under way is not cut off; the next `wait` takes its
    /// answer.
    ///
    /// # Errors
    ///
    /// Only what does not pass by waiting: our own credentials or registration are refused
    /// ([`ErrorResponse`](ErrorKind::ErrorResponse) with `invalid_client` and its like), the call or the configuration
    /// is wrong ([`Misuse`](ErrorKind::Misuse), [`Configuration`](ErrorKind::Configuration), a URL that the HTTP client
    /// refuses), the OP's metadata is another OP's ([`Rule::IssuerMismatch`]), or the cryptographic library fails.
    pub fn wait<'a>(&'a self, pending: &'a mut PendingAuthentication) -> Wait<'a> {
        Wait { client: self, pending, observer: None }
    }
}

impl<'a> Wait<'a> {
    /// Calls `observer` with everything that happens, for progress bars, logs, and for sealing the process again before
    /// and after each poll. It should return quickly.
    pub fn on_event(mut self, observer: impl FnMut(&PendingAuthentication, WaitEvent<'_>) + Send + 'a) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    async fn run(mut self) -> Result<Outcome, Error> {
        loop {
            if self.pending.is_due(self.client.now()) {
                self.pending.announce_poll();
                self.tell(WaitEvent::Asking);
            }
            let polled = match self.client.ask(self.pending).await {
                Ok(Asked::Said(poll)) => Ok(poll),
                Ok(Asked::Answered) => {
                    self.tell(WaitEvent::Answered);
                    self.client.judge_answer(self.pending).await
                }
                Err(error) => Err(error),
            };
            match polled {
                Ok(Poll::Finished(outcome)) => return Ok(outcome),
                Ok(Poll::NotDue { due_in }) => {
                    self.tell(WaitEvent::Sleeping(due_in));
                    self.client.0.clock.sleep(due_in.min(LONGEST_SLEEP)).await;
                }
                Ok(Poll::Pending) => self.tell(WaitEvent::Pending),
                Ok(Poll::SlowDown) => self.tell(WaitEvent::SlowDown),
                Err(error) if passes(&error) => {
                    let silence = self.pending.0.schedule.turns_stale(self.client.now());
                    self.tell(WaitEvent::Trouble(&error));
                    if let Some(silence) = silence {
                        self.tell(WaitEvent::Stale(silence));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn tell(&mut self, event: WaitEvent<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(self.pending, event);
        }
    }
}

/// Whether waiting is all that there is to do about it.
fn passes(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Protocol(violation) => {
            // A broken document is the OP's trouble, and the next one may be whole.
            violation.rule() != Rule::IssuerMismatch
        }
        _ => error.is_transient(),
    }
}

impl<'a> IntoFuture for Wait<'a> {
    type Output = Result<Outcome, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wait").field("pending", &self.pending).finish_non_exhaustive()
    }
}
