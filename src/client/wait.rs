//! The loop around [`poll`](Client::poll) for one sign-in.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use super::Client;
use super::outcome::Outcome;
use super::poll::Poll;
use crate::error::{Error, ErrorKind, Rule};
use crate::pending::PendingAuthentication;
use crate::secret::Secret;

/// The longest sleep, so that a suspended machine notices the time soon after it resumes.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Waits for an outcome. Created by [`Client::wait`] and started by `.await`. For `join!` and `select!`, which need a
/// future, call [`into_future`](IntoFuture::into_future).
#[must_use = "no poll is sent until this is awaited"]
pub struct Wait<'a> {
    client: &'a Client,
    pending: &'a mut PendingAuthentication,
    observer: Option<Box<dyn Observer + 'a>>,
}

trait Observer: FnMut(&PendingAuthentication, WaitEvent<'_>) + Send {}

impl<F: FnMut(&PendingAuthentication, WaitEvent<'_>) + Send> Observer for F {}

/// What happened while waiting. The durable poller's [`Event`](crate::poller::Event) uses the same names for the same
/// events.
#[non_exhaustive]
#[derive(Debug)]
pub enum WaitEvent<'a> {
    /// The next poll is not due yet.
    Sleeping {
        /// The time until it is.
        due_in: Duration,
    },
    /// A poll is about to be sent. Seal and store the pending sign-in now. After a crash, this copy shows that an
    /// answer may have been lost.
    Asking,
    /// The OP's success response, which it gives only once, has arrived and is about to be validated. Seal and store
    /// the pending sign-in now to keep it.
    Answered,
    /// The OP has not decided. [`progress`](PendingAuthentication::progress) may contain more details.
    Pending,
    /// The OP needs something from the user, at a new URI (IETF DTR §Token Endpoint — Polling). Show it to the user
    /// whom the request is about; polling continues meanwhile. The URI of the first answer is reported too, before the
    /// first poll.
    InteractionRequired {
        /// The URI, which works once and is as sensitive as a token.
        uri: &'a Secret,
    },
    /// The user has opened the URI of the last [`InteractionRequired`](Self::InteractionRequired). It works once, so do
    /// not show it any more. The OP has not decided.
    InteractionBegun,
    /// The OP answered `slow_down`.
    SlowDown,
    /// A poll failed with a transient error. The next one backs off.
    TransientError {
        /// What went wrong.
        error: &'a Error,
    },
    /// The OP has given no answer for this long, more than 90 days, and set no end. Polling continues; alert an
    /// operator. The event comes once for each silence.
    Stale {
        /// The duration of the OP's silence.
        silence: Duration,
    },
}

impl Client {
    /// Waits until the OP has decided, however long that takes. It polls at the OP's interval, obeys `slow_down`,
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
    /// Dropping the future ends the wait promptly. `pending` stays usable after that and after an error, and the
    /// interval continues: call `wait` again. A request in flight continues, and the next `wait` takes its answer.
    ///
    /// # Errors
    ///
    /// Only errors that are not transient:
    ///
    /// - [`ErrorResponse`](ErrorKind::ErrorResponse) with `invalid_client` or a similar code if the OP refuses the
    ///   client's credentials or registration;
    /// - [`Misuse`](ErrorKind::Misuse) or [`Configuration`](ErrorKind::Configuration) if the call or the configuration
    ///   is wrong, and the HTTP client's error if it refuses a URL;
    /// - [`Rule::IssuerMismatch`] if the metadata is another OP's;
    /// - an error of the cryptographic library.
    pub fn wait<'a>(&'a self, pending: &'a mut PendingAuthentication) -> Wait<'a> {
        Wait { client: self, pending, observer: None }
    }
}

impl<'a> Wait<'a> {
    /// Calls `observer` with every event, for progress bars, logs, and for sealing the pending sign-in before and after
    /// each poll. It should return quickly.
    pub fn on_event(mut self, observer: impl FnMut(&PendingAuthentication, WaitEvent<'_>) + Send + 'a) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    async fn run(mut self) -> Result<Outcome, Error> {
        let mut shown = None;
        loop {
            let uri = self.pending.interaction_uri().cloned();
            match &uri {
                Some(uri) if shown.as_ref() != Some(uri) => self.emit(WaitEvent::InteractionRequired { uri }),
                // While the OP's answer is validated, nothing is left to open.
                None if shown.is_some() && !self.pending.is_answered() => self.emit(WaitEvent::InteractionBegun),
                _ => {}
            }
            shown = uri;
            if self.pending.is_due(self.client.now()) {
                self.pending.announce_poll();
                self.emit(WaitEvent::Asking);
            }
            let polled = match self.client.ask(self.pending).await {
                Ok(Some(poll)) => Ok(poll),
                Ok(None) => {
                    self.emit(WaitEvent::Answered);
                    self.client.judge_answer(self.pending).await
                }
                Err(error) => Err(error),
            };
            match polled {
                Ok(Poll::Finished(outcome)) => return Ok(outcome),
                Ok(Poll::NotDue { due_in }) => {
                    self.emit(WaitEvent::Sleeping { due_in });
                    self.client.0.clock.sleep(due_in.min(LONGEST_SLEEP)).await;
                }
                Ok(Poll::Pending) => self.emit(WaitEvent::Pending),
                Ok(Poll::SlowDown) => self.emit(WaitEvent::SlowDown),
                Err(error) if passes(&error) => {
                    let silence = self.pending.0.schedule.newly_stale(self.client.now());
                    self.emit(WaitEvent::TransientError { error: &error });
                    if let Some(silence) = silence {
                        self.emit(WaitEvent::Stale { silence });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn emit(&mut self, event: WaitEvent<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(self.pending, event);
        }
    }
}

/// Whether waiting is the right reaction to the error.
fn passes(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Protocol(violation) => {
            // A malformed document is a mistake of the OP, and the next one may be correct.
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
