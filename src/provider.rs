//! The OP as we see it: its metadata and its keys, fetched when they are needed and kept while they are good.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use url::Url;

use crate::clock::Clock;
use crate::endpoint::Endpoints;
use crate::error::{Document, Error, Rule, Violation};
use crate::transport::{HttpResponse, UrlPolicy};

mod backoff;
mod cache;
mod discovery;
mod endpoint_urls;
mod identity_assurance;
mod issuer;
mod keys;
mod metadata;
mod refetch;
mod support;
#[cfg(test)]
mod tests;

pub use metadata::ProviderMetadata;

pub(crate) use endpoint_urls::EndpointUrls;
pub(crate) use issuer::Issuer;
pub(crate) use keys::SignedJwt;
pub(crate) use refetch::Channel;
pub(crate) use support::check_support;

use cache::{Backoff, Cached};
use keys::{Keys, LeftOutKeys};
use refetch::{Dated, RefetchCounts};

/// The time for fetching metadata or keys. They are small and public, and someone waits.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the metadata can take: they may be at the second of two places, and somebody else's failed fetch is waited for
/// before.
pub(crate) const LONGEST_FETCH: Duration = Duration::from_secs(60);
/// A hundred RSA keys with their certificate chains fit in.
const BODY_LIMIT: usize = 1024 * 1024;
/// How long keys serve that cannot be fetched again. An OP may have withdrawn them for a reason.
const KEYS_SERVE: Duration = Duration::from_secs(24 * 60 * 60);
/// One OP. It fetches nothing until it is asked.
pub(crate) struct Provider {
    issuer: Issuer,
    endpoints: Arc<Endpoints>,
    urls: UrlPolicy,
    clock: Arc<dyn Clock>,
    metadata: Cached<Dated<ProviderMetadata>>,
    keys: Cached<Dated<Keys>>,
    /// How many fetches of either have begun.
    fetches: AtomicU64,
    metadata_refetches: RefetchCounts,
    key_refetches: RefetchCounts,
    /// The keys that were left out of the last set, which the log has.
    left_out_keys: Mutex<LeftOutKeys>,
}

impl Provider {
    pub(crate) fn new(issuer: Issuer, endpoints: Arc<Endpoints>, urls: UrlPolicy, clock: Arc<dyn Clock>) -> Self {
        let (metadata, keys) = (Cached::new(None), Cached::new(Some(KEYS_SERVE)));
        Self {
            issuer,
            endpoints,
            urls,
            clock,
            metadata,
            keys,
            fetches: AtomicU64::new(0),
            metadata_refetches: RefetchCounts::default(),
            key_refetches: RefetchCounts::default(),
            left_out_keys: Mutex::default(),
        }
    }

    /// The OP's metadata: fetched at the first call and again when it has aged, or when an endpoint was not found where it
    /// says, at most once a minute. What was fetched once serves until something newer was fetched.
    ///
    /// # Errors
    ///
    /// Where nothing was ever fetched: the network's error, or the rule that the metadata broke.
    pub(crate) async fn metadata(&self) -> Result<ProviderMetadata, Error> {
        self.kept_metadata().await.map(|metadata| metadata.value)
    }

    async fn kept_metadata(&self) -> Result<Dated<ProviderMetadata>, Error> {
        if self.endpoints.take_absence() {
            self.metadata.doubt(&*self.clock);
        }
        self.metadata.get(self.backoff(), |_| true, self.fetch_metadata()).await
    }

    /// Takes metadata as if they had just been fetched: the fuzzer has no time to read the same ones each time.
    #[cfg(any(fuzzing, test))]
    pub(crate) async fn knows(&self, metadata: ProviderMetadata) -> Result<ProviderMetadata, Error> {
        let value = Dated { value: metadata, fetched: self.fetch_begins() };
        let fetched = cache::Fetched { value, lifetime: Duration::from_secs(3_600) };
        self.metadata.fetch(self.backoff(), std::future::ready(Ok(fetched))).await.map(|metadata| metadata.value)
    }

    /// The metadata that was fetched last, if any was.
    pub(crate) fn known_metadata(&self) -> Option<ProviderMetadata> {
        self.metadata.latest(&*self.clock).map(|metadata| metadata.value)
    }

    /// How failed fetches are paced.
    fn backoff(&self) -> Backoff<'_> {
        Backoff { clock: &*self.clock, random: self.endpoints.random() }
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
