//! The DPoP nonces of servers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName};
use url::Url;

use super::{Role, origin};

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The nonce is sent back within a proof that is a third longer, and servers accept headers of 8 kB. Nonces with
/// encrypted state can be longer than a kilobyte.
const LENGTH_LIMIT: usize = 4 * 1024;
/// Applications may call any number of resources, so the number of origins is bounded. A forgotten nonce costs one more
/// request.
const ORIGINS_LIMIT: usize = 256;

/// The latest nonce of each origin in each role.
#[derive(Default)]
pub(super) struct NonceCache {
    authorization_servers: Mutex<BTreeMap<String, Arc<str>>>,
    resource_servers: Mutex<BTreeMap<String, Arc<str>>>,
}

impl NonceCache {
    pub(super) fn latest(&self, role: Role, url: &Url) -> Option<Arc<str>> {
        self.of(role).lock().unwrap_or_else(PoisonError::into_inner).get(origin(url)).cloned()
    }

    /// Stores the nonce of a response, whatever its status (RFC 9449 §8.2), and returns it.
    pub(super) fn learn(&self, role: Role, url: &Url, headers: &HeaderMap) -> Option<Arc<str>> {
        let nonce = nonce(headers)?;
        let mut known = self.of(role).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = known.get_mut(origin(url)) {
            if **latest != *nonce {
                *latest = nonce.into();
            }
            return Some(latest.clone());
        }
        if known.len() >= ORIGINS_LIMIT {
            known.pop_first();
        }
        let nonce: Arc<str> = nonce.into();
        known.insert(origin(url).to_owned(), nonce.clone());
        Some(nonce)
    }

    fn of(&self, role: Role) -> &Mutex<BTreeMap<String, Arc<str>>> {
        match role {
            Role::AuthorizationServer => &self.authorization_servers,
            Role::ResourceServer => &self.resource_servers,
        }
    }
}

/// Whether a response has a usable nonce.
pub(crate) fn gives_nonce(headers: &HeaderMap) -> bool {
    nonce(headers).is_some()
}

/// The nonce of a response. A header that a proxy repeated with the same value counts once. RFC 9449 §8.1: "nonce =
/// 1*NQCHAR".
fn nonce(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(DPOP_NONCE).iter();
    let value = values.next()?;
    let value = values.all(|other| other == value).then_some(value)?.to_str().ok()?;
    let well_formed = !value.is_empty()
        && value.len() <= LENGTH_LIMIT
        && value.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    well_formed.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(nonces: &[&str]) -> HeaderMap {
        nonces.iter().map(|nonce| (DPOP_NONCE, nonce.parse().unwrap())).collect()
    }

    fn url(url: &str) -> Url {
        Url::parse(url).unwrap()
    }

    #[test]
    fn a_nonce_belongs_to_an_origin_and_a_role() {
        let cache = NonceCache::default();
        let learned = cache.learn(Role::AuthorizationServer, &url("https://op.example/token"), &headers(&["n1"]));
        assert_eq!(learned.as_deref(), Some("n1"));
        let latest = |role, at| cache.latest(role, &url(at));
        assert_eq!(latest(Role::AuthorizationServer, "https://op.example:443/cancel").as_deref(), Some("n1"));
        assert_eq!(latest(Role::ResourceServer, "https://op.example/userinfo"), None);
        assert_eq!(latest(Role::AuthorizationServer, "https://op.example:8443/token"), None);
        assert_eq!(latest(Role::AuthorizationServer, "http://op.example/token"), None);
    }

    #[test]
    fn a_nonce_with_other_characters_too_long_or_beside_another_one_is_ignored() {
        let (cache, at) = (NonceCache::default(), url("https://op.example/"));
        for given in
            [&headers(&[""]), &headers(&["a b"]), &headers(&["a\"b"]), &headers(&["a\\b"]), &headers(&["a", "b"])]
        {
            assert_eq!(cache.learn(Role::AuthorizationServer, &at, given), None);
        }
        assert_eq!(cache.learn(Role::AuthorizationServer, &at, &headers(&[&"n".repeat(4_097)])), None);
        assert!(cache.learn(Role::AuthorizationServer, &at, &headers(&[&"n".repeat(4_096)])).is_some());
        let repeated = cache.learn(Role::AuthorizationServer, &at, &headers(&["a", "a", "a"]));
        assert_eq!(repeated.as_deref(), Some("a"), "a header that a proxy has repeated says one thing");
    }

    #[test]
    fn a_later_nonce_replaces_an_earlier_one_and_a_response_without_one_keeps_it() {
        let (cache, at) = (NonceCache::default(), url("https://op.example/"));
        cache.learn(Role::AuthorizationServer, &at, &headers(&["n1"]));
        cache.learn(Role::AuthorizationServer, &at, &headers(&["n2"]));
        cache.learn(Role::AuthorizationServer, &at, &headers(&[]));
        assert_eq!(cache.latest(Role::AuthorizationServer, &at).as_deref(), Some("n2"));
    }

    #[test]
    fn the_number_of_origins_is_bounded() {
        let cache = NonceCache::default();
        for number in 0..1_000 {
            cache.learn(Role::ResourceServer, &url(&format!("https://{number}.example/")), &headers(&["n"]));
        }
        assert_eq!(cache.resource_servers.lock().unwrap().len(), ORIGINS_LIMIT);
    }
}
