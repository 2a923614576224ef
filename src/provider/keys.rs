//! The OP's keys, and the verification of every JWT that the OP signs.
//!
//! Keys rotate: under a new `kid`, under the old one, or without any. Therefore a JWT is refused for its signature or
//! for a missing key only with keys that were fetched after its receipt. Until such keys can be fetched, the error is
//! transient.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use url::Url;

use super::cache::{self, Fetched, NEWER_PATIENCE};
use super::refetch::{Began, Channel, Dated, NotNewer};
use super::{Provider, Source};
use crate::error::{Document, Error, Rule, Violation};
use crate::jose::{KeyManagementAlgorithm, KeySet, LeftOut, SigningAlgorithm};
use crate::secret::Secret;

/// The number of skipped keys that warnings name; further ones are counted.
const NAMED_LEFT_OUT: usize = 5;

/// Keys with their URL.
#[derive(Clone)]
pub(super) struct Keys {
    set: Arc<KeySet>,
    from: Url,
}

/// The unusable keys of a set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOutKeys {
    named: Vec<LeftOut>,
    further: usize,
}

impl LeftOutKeys {
    fn add(&mut self, one: LeftOut) {
        match self.named.len() < NAMED_LEFT_OUT {
            true => self.named.push(one),
            false => self.further += 1,
        }
    }
}

/// What is known about a JWT before it is verified.
pub(crate) struct SignedJwt {
    /// The algorithm in its header, which the caller accepts.
    pub(crate) algorithm: SigningAlgorithm,
    /// The client secret, as the key of an HMAC.
    pub(crate) secret: Option<Arc<Secret>>,
    pub(crate) received_at: SystemTime,
    pub(crate) channel: Channel,
    /// How long the caller can wait if keys are unavailable or it is too early to fetch them again.
    pub(crate) patience: Duration,
}

impl Provider {
    /// The OP's keys, fetched at the first call and again when they have aged or the metadata names another URL.
    ///
    /// # Errors
    ///
    /// [`Rule::KeysUnavailable`], with the reason as source, if none could be fetched for a day; [`Rule::NoUsableKey`] if they
    /// were fetched and none is usable; or the error of [`metadata`](Self::metadata).
    pub(crate) async fn keys(&self) -> Result<Arc<KeySet>, Error> {
        self.kept_keys().await.map(|keys| keys.value.set)
    }

    /// Verifies a JWT of the OP with `check`, which checks it against one set of keys. If the cached keys do not verify
    /// it, they are fetched again.
    ///
    /// The inner result is final: the result of `check`, with keys that are new enough.
    ///
    /// # Errors
    ///
    /// The outer result is an error if the JWT cannot be judged yet. It is [transient](Error::is_transient), and its
    /// `retry_after` states when to try again: [`Rule::KeysUnavailable`], [`Rule::KeysOutdated`],
    /// [`Rule::NoUsableKey`], or the error of [`metadata`](Self::metadata).
    pub(crate) async fn verify<T>(
        &self,
        jwt: &SignedJwt,
        check: impl Fn(&KeySet) -> Result<T, Violation>,
    ) -> Result<Result<T, Violation>, Error> {
        if jwt.algorithm.is_symmetric() {
            return Ok(check(&jwt.secret.as_deref().map_or_else(KeySet::empty, KeySet::of_secret)));
        }
        let attempt = |began| self.verify_now(jwt, began, &check);
        let too_late = || Violation::new(Rule::KeysUnavailable).in_document(Document::KeySet).into();
        self.within_patience(jwt.patience, attempt, too_late).await
    }

    /// The same without waiting.
    async fn verify_now<T>(
        &self,
        jwt: &SignedJwt,
        began: Began,
        check: &impl Fn(&KeySet) -> Result<T, Violation>,
    ) -> Result<Result<T, Violation>, Error> {
        let mut keys = self.kept_keys().await?;
        loop {
            match check(&keys.value.set) {
                Err(violation)
                    if violation.rule().depends_on_keys()
                        && !self.source.is_newer(keys.fetched, jwt.received_at, began) =>
                {
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

    /// The OP's keys, with an encryption key among them. `None` if the OP is not known to have one.
    ///
    /// # Errors
    ///
    /// As [`keys`](Self::keys).
    pub(crate) async fn keys_to_encrypt_for(
        &self,
        algorithm: KeyManagementAlgorithm,
    ) -> Result<Option<Arc<KeySet>>, Error> {
        let keys = self.kept_keys().await?;
        if keys.value.set.encryption_key(algorithm).is_some() {
            return Ok(Some(keys.value.set));
        }
        // The key may be new. Every visitor can cause this fetch.
        match self.newer_keys(&keys, Channel::Front).await {
            Ok(newer) => Ok(Some(newer.value.set).filter(|keys| keys.encryption_key(algorithm).is_some())),
            Err(error) if error.rule() == Some(Rule::KeysOutdated) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn kept_keys(&self) -> Result<Dated<Keys>, Error> {
        let metadata = self.metadata().await?;
        let from = metadata.key_set_url()?;
        let fetch = || self.source.clone().fetch_keys(from.clone());
        // The OP may have withdrawn an old key, so waiting a moment for new ones is worthwhile.
        self.keys.get(NEWER_PATIENCE, |keys| keys.value.from == *from, fetch).await.map_err(not_there)
    }

    /// Other keys than `seen`: those that another caller fetched meanwhile, or else new ones.
    async fn newer_keys(&self, seen: &Dated<Keys>, channel: Channel) -> Result<Dated<Keys>, Error> {
        let metadata = self.metadata().await?;
        let from = metadata.key_set_url()?;
        let fetch = || self.source.clone().fetch_keys(from.clone());
        self.key_refetching.newer(&self.keys, seen, channel, fetch).await.map_err(|why| match why {
            NotNewer::TooEarly(pause) => {
                let violation = Violation::new(Rule::KeysOutdated).in_document(Document::KeySet);
                Error::new(violation).with_retry_after(Some(pause))
            }
            NotNewer::Failed(error) => not_there(error),
        })
    }
}

impl Source {
    async fn fetch_keys(self: Arc<Self>, from: Url) -> Result<Fetched<Dated<Keys>>, Error> {
        let fetched = self.fetch_begins();
        let response = self.fetch(&from, Document::KeySet).await?;
        let mut left_out = LeftOutKeys::default();
        let set = KeySet::read(&response.body, |one| left_out.add(one));
        self.warn_about(left_out);
        let keys = Keys { set: Arc::new(set?), from };
        let value = Dated { value: keys, fetched: fetched.out_of_a_cache(&response.headers) };
        Ok(Fetched { lifetime: cache::lifetime(&response.headers), value })
    }

    /// Warns about the skipped keys, in a few lines and once until they change.
    fn warn_about(&self, left_out: LeftOutKeys) {
        let mut warned = self.left_out_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if *warned == left_out {
            return;
        }
        let issuer = self.issuer.as_str();
        for one in &left_out.named {
            tracing::warn!(issuer, left_out = %one, "a key of the OP cannot be used and is skipped");
        }
        if left_out.further > 0 {
            tracing::warn!(issuer, number = left_out.further, "further keys of the OP cannot be used and are skipped");
        }
        *warned = left_out;
    }
}

/// The error if there are no keys: they were fetched and none is usable, or they cannot be fetched.
fn not_there(reason: Error) -> Error {
    if reason.rule() == Some(Rule::NoUsableKey) {
        return reason.transient();
    }
    let retry_after = reason.retry_after();
    Error::from(Violation::new(Rule::KeysUnavailable).in_document(Document::KeySet))
        .with_retry_after(retry_after)
        .with_source(reason)
}
