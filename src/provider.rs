//! The OP's metadata and keys, fetched on demand and cached.

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
pub(crate) use support::{check_response_type, check_support};

use cache::{About, Cached};
use keys::{Keys, LeftOutKeys};
use refetch::{Dated, Refetching};

/// The timeout of fetching metadata or keys. They are small and public, and a caller waits.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest time of fetching metadata, which an OP may publish at one of two URLs.
pub(crate) const LONGEST_FETCH: Duration = Duration::from_secs(30);
/// Enough for a hundred RSA keys with their certificate chains.
const BODY_LIMIT: usize = 1024 * 1024;
/// How long old keys are used while new ones cannot be fetched. The OP may have withdrawn them.
const KEYS_SERVE: Duration = Duration::from_secs(24 * 60 * 60);

/// One OP. It fetches documents on demand.
pub(crate) struct Provider {
    source: Arc<Source>,
    metadata: Cached<Dated<ProviderMetadata>>,
    keys: Cached<Dated<Keys>>,
    metadata_refetching: Refetching,
    key_refetching: Refetching,
}

/// The source of the documents, shared by the tasks that fetch them.
struct Source {
    issuer: Issuer,
    endpoints: Arc<Endpoints>,
    urls: UrlPolicy,
    clock: Arc<dyn Clock>,
    /// The number of fetches of either document that have begun.
    fetches: AtomicU64,
    /// The skipped keys of the last set, which were logged.
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

    /// The OP's metadata. It is fetched at the first call, again when it has aged, and, at most once a minute, when an
    /// endpoint was not found at its URL. The old copy is used until a newer one is fetched: aged metadata is returned
    /// at once, and metadata that may be outdated after a moment.
    ///
    /// # Errors
    ///
    /// If no metadata was ever fetched: the network's error, or the rule that the metadata broke.
    pub(crate) async fn metadata(&self) -> Result<ProviderMetadata, Error> {
        self.kept_metadata().await.map(|metadata| metadata.value)
    }

    async fn kept_metadata(&self) -> Result<Dated<ProviderMetadata>, Error> {
        if self.source.endpoints.take_absence() {
            self.metadata.mark_suspect();
        }
        self.metadata.get(Duration::ZERO, |_| true, || self.source.clone().fetch_metadata()).await
    }

    /// Stores metadata as if it had just been fetched, because the fuzzer has no time to parse the same metadata each
    /// time.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn knows(&self, metadata: ProviderMetadata) {
        let value = Dated { value: metadata, fetched: self.source.fetch_begins() };
        self.metadata.put(cache::Fetched { value, lifetime: Duration::from_secs(3_600) });
    }

    /// The last fetched metadata, if any.
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
