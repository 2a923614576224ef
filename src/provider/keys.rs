//! The OP's keys, and the verification of every JWT that the OP signs.
//!
//! Keys rotate: under a new `kid`, under the old one, or without any. So a signature that does not verify, or a key that
//! is not there, is the last word only by keys that were fetched after the JWT had been received. Whoever sends JWTs of
//! their own can make us fetch the keys, but only so often, and can take that from nobody else: what comes through the
//! browser and what comes from the OP itself are counted apart, and where it is too early for a fetch the answer is that
//! nobody can tell yet.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::AGE;
use url::Url;

use super::Provider;
use super::backoff::Refetches;
use super::cache::{self, Fetched};
use crate::clock::Moment;
use crate::error::{Document, Error, Rule, Violation};
use crate::jose::{KeyManagementAlgorithm, KeySet, SigningAlgorithm};
use crate::secret::Secret;

/// By how much the clocks of two machines may differ, and one clock from itself after it was set. By so much the wall
/// clock has to show that keys are newer than a token that another machine or an earlier process received.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Keys with the place that they came from.
#[derive(Clone)]
pub(super) struct Keys {
    set: Arc<KeySet>,
    from: Url,
    /// What the OP changed after this moment is not in them.
    as_of: Moment,
    /// Their place in the order in which fetches began, which clocks may be too coarse to tell.
    number: u64,
}

/// When the verification of a JWT began.
#[derive(Clone, Copy)]
struct Began {
    at: Duration,
    /// The fetch of keys that had begun last.
    after_fetch: u64,
}

/// Through whose hands a JWT came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The OP's own, from one of its endpoints.
    Back,
    /// The browser's, so that anybody can have made it.
    Front,
}

/// What is known of a JWT before it is verified.
pub(crate) struct SignedJwt<'a> {
    /// The algorithm that its header names, which the caller accepts.
    pub(crate) algorithm: SigningAlgorithm,
    /// The client secret, as the key of an HMAC.
    pub(crate) secret: Option<&'a Secret>,
    pub(crate) received_at: SystemTime,
    pub(crate) channel: Channel,
    /// How long the caller can wait where keys are out of reach or it is too early to fetch them again.
    pub(crate) patience: Duration,
}

/// The fetches that JWTs have caused, by where the JWTs came from.
#[derive(Debug, Default)]
pub(super) struct RefetchCounts {
    back: Refetches,
    front: Refetches,
}

impl RefetchCounts {
    fn of(&mut self, channel: Channel) -> &mut Refetches {
        match channel {
            Channel::Back => &mut self.back,
            Channel::Front => &mut self.front,
        }
    }
}

impl Provider {
    /// The OP's keys, fetched at the first call and again when they have aged or the metadata names another place.
    ///
    /// # Errors
    ///
    /// [`Rule::KeysUnavailable`], with the reason as source, where none could be fetched for a day; [`Rule::NoUsableKey`]
    /// where they were fetched and none can be used; or the error of [`metadata`](Self::metadata).
    pub(crate) async fn keys(&self) -> Result<Arc<KeySet>, Error> {
        self.kept_keys().await.map(|keys| keys.set)
    }

    /// Verifies a JWT of the OP by `check`, which holds it against one set of keys. The keys are fetched again where the
    /// kept ones do not fit.
    ///
    /// The inner result is the last word about the JWT: what `check` found, by keys that are new enough to say so.
    ///
    /// # Errors
    ///
    /// The outer result is an error where nobody can tell yet. It [passes](Error::is_transient), and its `retry_after`
    /// says when to try again: [`Rule::KeysUnavailable`], [`Rule::KeysOutdated`], [`Rule::NoUsableKey`], or the error of
    /// [`metadata`](Self::metadata).
    pub(crate) async fn verify<T>(
        &self,
        jwt: &SignedJwt<'_>,
        check: impl Fn(&KeySet) -> Result<T, Violation>,
    ) -> Result<Result<T, Violation>, Error> {
        if jwt.algorithm.is_symmetric() {
            return Ok(check(&jwt.secret.map_or_else(KeySet::empty, KeySet::of_secret)));
        }
        let began = Began { at: self.clock.monotonic(), after_fetch: self.key_fetches.load(Ordering::Relaxed) };
        let until = began.at.saturating_add(jwt.patience);
        loop {
            let error = match self.verify_now(jwt, began, &check).await {
                Ok(verified) => return Ok(verified),
                Err(error) => error,
            };
            match error.retry_after().filter(|_| error.is_transient()) {
                Some(wait) if self.clock.monotonic().saturating_add(wait) <= until => self.clock.sleep(wait).await,
                _ => return Err(error),
            }
        }
    }

    /// The same without waiting.
    async fn verify_now<T>(
        &self,
        jwt: &SignedJwt<'_>,
        began: Began,
        check: &impl Fn(&KeySet) -> Result<T, Violation>,
    ) -> Result<Result<T, Violation>, Error> {
        let mut keys = self.kept_keys().await?;
        loop {
            match check(&keys.set) {
                Err(violation) if violation.rule().depends_on_keys() && !self.are_newer(&keys, jwt, began) => {
                    let newer = self.newer_keys(&keys, jwt.channel).await;
                    keys = newer.map_err(|error| match error.rule() {
                        Some(Rule::KeysOutdated) => error.with_source(Error::new(violation)),
                        _ => error,
                    })?;
                }
                checked => return Ok(checked),
            }
        }
    }

    /// The OP's keys, with one among them that something can be encrypted for. `None` where the OP is not known to have
    /// one.
    ///
    /// # Errors
    ///
    /// As [`keys`](Self::keys).
    pub(crate) async fn keys_to_encrypt_for(
        &self,
        algorithm: KeyManagementAlgorithm,
    ) -> Result<Option<Arc<KeySet>>, Error> {
        let keys = self.kept_keys().await?;
        if keys.set.encryption_key(algorithm).is_some() {
            return Ok(Some(keys.set));
        }
        // It may have been published a moment ago. Every visitor can cause this fetch.
        match self.newer_keys(&keys, Channel::Front).await {
            Ok(newer) => Ok(Some(newer.set).filter(|keys| keys.encryption_key(algorithm).is_some())),
            Err(error) if error.rule() == Some(Rule::KeysOutdated) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn kept_keys(&self) -> Result<Keys, Error> {
        let metadata = self.metadata().await?;
        let from = metadata.key_set_url()?;
        let keys = self.keys.get(self.backoff(), |keys| keys.from == *from, self.fetch_keys(from)).await;
        keys.map_err(not_there)
    }

    /// Whether keys were fetched after a JWT had been received, so that what they say about it is the last word.
    ///
    /// Its verification began after it had been received, so a fetch that began later still is one. The time of receipt is one
    /// of the wall clock, of another machine perhaps or from before it was set; so keys that are newer than that have to
    /// be so by some minutes, whichever way they are compared.
    fn are_newer(&self, keys: &Keys, jwt: &SignedJwt<'_>, began: Began) -> bool {
        if keys.number > began.after_fetch && keys.as_of.monotonic >= began.at {
            return true;
        }
        let now = Moment::of(&*self.clock);
        let age = now.wall.duration_since(jwt.received_at).unwrap_or_default();
        let received = now.monotonic.saturating_sub(age).saturating_add(CLOCK_TOLERANCE);
        let after = keys.as_of.wall.duration_since(jwt.received_at).unwrap_or_default();
        keys.as_of.monotonic >= received && after >= CLOCK_TOLERANCE
    }

    /// Other keys than `seen`: those that somebody else has fetched meanwhile, or else new ones.
    async fn newer_keys(&self, seen: &Keys, channel: Channel) -> Result<Keys, Error> {
        let metadata = self.metadata().await?;
        let _flight = self.keys.flight().await;
        if let Some(latest) = self.keys.latest(&*self.clock).filter(|latest| !Arc::ptr_eq(&latest.set, &seen.set)) {
            return Ok(latest);
        }
        if let Some(failure) = self.keys.recent_failure(&*self.clock) {
            return Err(not_there(failure));
        }
        // Counted before the request leaves: a caller that goes away in the middle has caused it too.
        let before = self.count_refetch(channel)?;
        let fetched = self.keys.fetch(self.backoff(), self.fetch_keys(metadata.key_set_url()?)).await;
        fetched.map_err(|error| {
            // Failures have pauses of their own, which an outage must not make longer.
            *self.refetches().of(channel) = before;
            not_there(error)
        })
    }

    /// Counts a fetch that a JWT causes, if it is not too early for one. Gives the count before it.
    fn count_refetch(&self, channel: Channel) -> Result<Refetches, Error> {
        let now = self.clock.monotonic();
        let mut counts = self.refetches();
        let count = counts.of(channel);
        match count.pause(now) {
            Duration::ZERO => Ok(std::mem::replace(count, count.and_one(now))),
            pause => {
                let violation = Violation::new(Rule::KeysOutdated).in_document(Document::KeySet);
                Err(Error::new(violation).with_retry_after(Some(pause)))
            }
        }
    }

    fn refetches(&self) -> MutexGuard<'_, RefetchCounts> {
        self.refetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch_keys(&self, from: &Url) -> Result<Fetched<Keys>, Error> {
        let asked = Moment::of(&*self.clock);
        let number = self.key_fetches.fetch_add(1, Ordering::Relaxed) + 1;
        let response = self.fetch(from, Document::KeySet).await?;
        let age = age(&response.headers);
        let as_of = Moment {
            wall: asked.wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            monotonic: asked.monotonic.saturating_sub(age),
        };
        let set = KeySet::read(&response.body, |left_out| {
            tracing::warn!(issuer = self.issuer.as_str(), %left_out, "a key of the OP is left out");
        })?;
        let keys = Keys { set: Arc::new(set), from: from.clone(), as_of, number };
        Ok(Fetched { lifetime: cache::lifetime(&response.headers), value: keys })
    }
}

/// How long a cache between us and the OP has had the response (RFC 9111 §5.1).
fn age(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(AGE).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or_default()).min(cache::LONGEST_LIFETIME)
}

/// What is wrong with keys that are not there: they were fetched and none can be used, or they cannot be fetched.
fn not_there(reason: Error) -> Error {
    if reason.rule() == Some(Rule::NoUsableKey) {
        return reason.that_passes();
    }
    let retry_after = reason.retry_after();
    Error::from(Violation::new(Rule::KeysUnavailable).in_document(Document::KeySet))
        .with_retry_after(retry_after)
        .with_source(reason)
}
