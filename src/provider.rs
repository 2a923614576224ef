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

use cache::{About, Cached};
use keys::{Keys, LeftOutKeys};
use refetch::{Dated, Refetching};

/// The time for fetching metadata or keys. They are small and public, and someone waits.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long fetching the metadata can take: an OP may publish them at either of two places.
pub(crate) const LONGEST_FETCH: Duration = Duration::from_secs(30);
/// A hundred RSA keys with their certificate chains fit in.
const BODY_LIMIT: usize = 1024 * 1024;
/// How long keys serve that cannot be fetched again. An OP may have withdrawn them for a reason.
const KEYS_SERVE: Duration = Duration::from_secs(24 * 60 * 60);

/// One OP. It fetches nothing until it is asked.
pub(crate) struct Provider {
    source: Arc<Source>,
    metadata: Cached<Dated<ProviderMetadata>>,
    keys: Cached<Dated<Keys>>,
    metadata_refetching: Refetching,
    key_refetching: Refetching,
}

/// Where the documents come from. The tasks that fetch them share it.
struct Source {
    issuer: Issuer,
    endpoints: Arc<Endpoints>,
    urls: UrlPolicy,
    clock: Arc<dyn Clock>,
    /// How many fetches of either document have begun.
    fetches: AtomicU64,
    /// The keys that were left out of the last set, which the log has.
    left_out_keys: Mutex<LeftOutKeys>,
}

impl Provider {
    pub(crate) fn new(issuer: Issuer, endpoints: Arc<Endpoints>, urls: UrlPolicy, clock: Arc<dyn Clock>) -> Self {
        let about = |document| About {
            issuer: issuer.as_str().to_owned(),
            document,
            clock: clock.clone(),
            random: endpoints.random().clone(),
        };
        let metadata = Cached::new(about(Document::Metadata), None);
        let keys = Cached::new(about(Document::KeySet), Some(KEYS_SERVE));
        let (fetches, left_out_keys) = (AtomicU64::new(0), Mutex::default());
        Self {
            source: Arc::new(Source { issuer, endpoints, urls, clock, fetches, left_out_keys }),
            metadata,
            keys,
            metadata_refetching: Refetching::default(),
            key_refetching: Refetching::default(),
        }
    }

    /// The OP's metadata: fetched at the first call and again when it has aged, or when an endpoint was not found where it
    /// says, at most once a minute. What was fetched once serves until something newer was fetched: metadata that has aged
    /// is returned at once, and metadata that is in doubt after a moment.
    ///
    /// # Errors
    ///
    /// Where nothing was ever fetched: the network's error, or the rule that the metadata broke.
    pub(crate) async fn metadata(&self) -> Result<ProviderMetadata, Error> {
        self.kept_metadata().await.map(|metadata| metadata.value)
    }

    async fn kept_metadata(&self) -> Result<Dated<ProviderMetadata>, Error> {
        if self.source.endpoints.take_absence() {
            self.metadata.doubt();
        }
        self.metadata.get(Duration::ZERO, |_| true, || self.source.clone().fetch_metadata()).await
    }

    /// Takes metadata as if they had just been fetched: the fuzzer has no time to read the same ones each time.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn knows(&self, metadata: ProviderMetadata) {
        let value = Dated { value: metadata, fetched: self.source.fetch_begins() };
        self.metadata.put(cache::Fetched { value, lifetime: Duration::from_secs(3_600) });
    }

    /// The metadata that was fetched last, if any was.
    pub(crate) fn known_metadata(&self) -> Option<ProviderMetadata> {
        self.metadata.latest().map(|metadata| metadata.value)
    }
}

impl Source {
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
        formatter.debug_struct("Provider").field("issuer", &self.source.issuer.as_str()).finish_non_exhaustive()
    }
}
