//! The OP as we see it: its metadata and its keys, fetched when they are needed and kept while they are good.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use crate::clock::Clock;
use crate::endpoint::Endpoints;
use crate::error::{Document, Error, Rule, Violation};
use crate::jose::{KeySet, SigningAlgorithm};
use crate::transport::{HttpResponse, UrlPolicy};

mod cache;
mod discovery;
mod endpoint_urls;
mod identity_assurance;
mod issuer;
mod metadata;
mod support;
#[cfg(test)]
mod tests;

pub use metadata::ProviderMetadata;

pub(crate) use endpoint_urls::EndpointUrls;
pub(crate) use issuer::Issuer;
pub(crate) use support::check_support;

use cache::{Cached, Fetched};

/// The time for fetching metadata or keys. They are small and public, and someone waits.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the metadata can take: they may be at the second of two places, and somebody else's failed fetch is waited for
/// before.
pub(crate) const LONGEST_FETCH: Duration = Duration::from_secs(60);
/// A hundred RSA keys with their certificate chains fit in.
const BODY_LIMIT: usize = 1024 * 1024;
/// How long keys serve that cannot be fetched again. An OP may have withdrawn them for a reason.
const KEYS_SERVE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a token may make us fetch the keys: anyone can name a key that does not exist.
const REFETCH_COOLDOWN: Duration = Duration::from_secs(60);
/// The same where the keys could not be fetched.
const FAILED_REFETCH_COOLDOWN: Duration = Duration::from_secs(30);

/// One OP. It fetches nothing until it is asked.
pub(crate) struct Provider {
    issuer: Issuer,
    endpoints: Arc<Endpoints>,
    urls: UrlPolicy,
    clock: Arc<dyn Clock>,
    metadata: Cached<ProviderMetadata>,
    keys: Cached<Keys>,
    refetch: Mutex<Option<Refetch>>,
}

#[derive(Clone)]
struct Keys {
    set: Arc<KeySet>,
    from: Url,
}

/// The last time that a token made us fetch the keys.
struct Refetch {
    at: Duration,
    /// What the fetched keys were to answer; nothing while they are being fetched and where that failed.
    answered: Option<Question>,
}

impl Refetch {
    fn cooldown(&self) -> Duration {
        if self.answered.is_some() { REFETCH_COOLDOWN } else { FAILED_REFETCH_COOLDOWN }
    }
}

#[derive(PartialEq, Eq)]
enum Question {
    IsThere { algorithm: SigningAlgorithm, kid: Option<String> },
    HaveTheyChanged,
}

impl Provider {
    pub(crate) fn new(issuer: Issuer, endpoints: Arc<Endpoints>, urls: UrlPolicy, clock: Arc<dyn Clock>) -> Self {
        let (metadata, keys) = (Cached::new(None), Cached::new(Some(KEYS_SERVE)));
        Self { issuer, endpoints, urls, clock, metadata, keys, refetch: Mutex::new(None) }
    }

    /// The OP's metadata: fetched at the first call and again when it has aged, or when an endpoint was not found where it
    /// says, at most once a minute. What was fetched once serves until something newer was fetched.
    ///
    /// # Errors
    ///
    /// Where nothing was ever fetched: the network's error, or the rule that the metadata broke.
    pub(crate) async fn metadata(&self) -> Result<ProviderMetadata, Error> {
        if self.endpoints.take_absence() {
            self.metadata.doubt(&*self.clock);
        }
        self.metadata.get(&*self.clock, |_| true, self.fetch_metadata()).await
    }

    /// Takes metadata as if they had just been fetched: the fuzzer has no time to read the same ones each time.
    #[cfg(any(fuzzing, test))]
    pub(crate) async fn knows(&self, metadata: ProviderMetadata) -> Result<ProviderMetadata, Error> {
        let fetched = Fetched { value: metadata, lifetime: Duration::from_secs(3_600) };
        self.metadata.fetch(&*self.clock, std::future::ready(Ok(fetched))).await
    }

    /// The metadata that was fetched last, if any was.
    pub(crate) fn known_metadata(&self) -> Option<ProviderMetadata> {
        self.metadata.latest(&*self.clock)
    }

    /// The OP's keys, fetched at the first call and again when they have aged or the metadata names another place.
    ///
    /// # Errors
    ///
    /// [`Rule::KeysUnavailable`], with the reason as source, where none could be fetched for a day; or the error of
    /// [`metadata`](Self::metadata).
    pub(crate) async fn keys(&self) -> Result<Arc<KeySet>, Error> {
        let metadata = self.metadata().await?;
        let from = metadata.key_set_url()?;
        let keys = self.keys.get(&*self.clock, |keys| keys.from == *from, self.fetch_keys(from)).await;
        keys.map(|keys| keys.set).map_err(keys_unavailable)
    }

    /// The OP's keys, with one that may have made a signature by this algorithm and `kid` among them, or as the OP
    /// published them after this call began. An unknown `kid` fetches the keys again, at most once a minute.
    ///
    /// # Errors
    ///
    /// As [`keys`](Self::keys). [`Rule::KeysUnavailable`] also where the key is unknown but the OP cannot be asked
    /// right now, so that nobody takes that for an answer; the error's `retry_after` says when it can.
    pub(crate) async fn keys_with(&self, algorithm: SigningAlgorithm, kid: Option<&str>) -> Result<Arc<KeySet>, Error> {
        let keys = self.keys().await?;
        if keys.has(kid, algorithm) {
            return Ok(keys);
        }
        self.refetched(&keys, Question::IsThere { algorithm, kid: kid.map(str::to_owned) }).await
    }

    /// Keys that are newer than `seen`, for a signature that none of `seen` verifies: keys without a `kid` rotate
    /// unseen. `None` where the OP has no others.
    ///
    /// # Errors
    ///
    /// As [`keys_with`](Self::keys_with).
    pub(crate) async fn keys_newer_than(&self, seen: &Arc<KeySet>) -> Result<Option<Arc<KeySet>>, Error> {
        let keys = self.refetched(seen, Question::HaveTheyChanged).await?;
        Ok((!Arc::ptr_eq(&keys, seen)).then_some(keys))
    }

    async fn refetched(&self, seen: &Arc<KeySet>, question: Question) -> Result<Arc<KeySet>, Error> {
        let metadata = self.metadata().await?;
        let _flight = self.keys.flight().await;
        let latest = self.keys.latest(&*self.clock).filter(|keys| !Arc::ptr_eq(&keys.set, seen));
        if let Some(newer) = latest {
            return Ok(newer.set);
        }
        let now = self.clock.monotonic();
        {
            let mut last = self.refetch.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = last.as_ref().filter(|last| now < last.at + last.cooldown()) {
                if last.answered.as_ref() == Some(&question) {
                    return Ok(seen.clone());
                }
                let wait = (last.at + last.cooldown()).saturating_sub(now);
                return Err(Error::from(Rule::KeysUnavailable).with_retry_after(Some(wait)));
            }
            *last = Some(Refetch { at: now, answered: None });
        }
        let fetched = self.keys.fetch(&*self.clock, self.fetch_keys(metadata.key_set_url()?)).await;
        let keys = fetched.map_err(|error| {
            // Whoever comes back earlier finds us not asking.
            let wait = error.retry_after().unwrap_or_default().max(FAILED_REFETCH_COOLDOWN);
            keys_unavailable(error).with_retry_after(Some(wait))
        })?;
        if let Some(last) = self.refetch.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            last.answered = Some(question);
        }
        Ok(keys.set)
    }

    async fn fetch_keys(&self, from: &Url) -> Result<Fetched<Keys>, Error> {
        let response = self.fetch(from, Document::KeySet).await?;
        let set = Arc::new(KeySet::parse(&response.body)?);
        Ok(Fetched { lifetime: cache::lifetime(&response.headers), value: Keys { set, from: from.clone() } })
    }

    async fn fetch(&self, url: &Url, document: Document) -> Result<HttpResponse, Error> {
        let sent = self.endpoints.get_json(url, document, BODY_LIMIT, FETCH_TIMEOUT).await;
        let response = sent.map_err(|error| error.into_error())?;
        let rule = match response.status.as_u16() {
            200 => return Ok(response),
            300..=399 => Rule::UnexpectedRedirect,
            _ => Rule::UnexpectedStatus,
        };
        Err(Violation::new(rule).in_document(document).with_status(response.status.as_u16()).into())
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Provider").field("issuer", &self.issuer.as_str()).finish_non_exhaustive()
    }
}

fn keys_unavailable(reason: Error) -> Error {
    let retry_after = reason.retry_after();
    Error::from(Violation::new(Rule::KeysUnavailable).in_document(Document::KeySet))
        .with_retry_after(retry_after)
        .with_source(reason)
}
