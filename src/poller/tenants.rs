//! The clients of a poller, by partition and by the redirect URI of their authorization responses.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::tenant::Tenant;
use crate::client::{ArrivalPlace, Client};
use crate::error::{ConfigurationProblem, Error, Misuse};
use crate::store::Partition;

/// The clients of a poller. The cost of adding a client does not depend on their number.
#[derive(Default)]
pub(super) struct Tenants {
    listed: BTreeMap<Partition, Listed>,
    arrivals: Arrivals,
}

struct Listed {
    tenant: Arc<Tenant>,
    /// Where its responses arrive, if it has a redirect URI, and whether they are known not to name their OP.
    arrival: Option<(ArrivalPlace, bool)>,
}

impl Tenants {
    pub(super) fn get(&self, partition: Partition) -> Option<&Arc<Tenant>> {
        self.listed.get(&partition).map(|listed| &listed.tenant)
    }

    /// The partitions, in order.
    pub(super) fn by_partition(&self) -> &BTreeMap<Partition, impl Sized> {
        &self.listed
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.listed.values().map(|listed| &listed.tenant)
    }

    /// Adds a client, unless the partition has one already, or its responses can be confused with those of another OP.
    pub(super) fn insert(&mut self, tenant: Tenant) -> Result<(), Error> {
        if self.listed.contains_key(&tenant.partition) {
            let problem = "a client with this issuer and client identifier already exists";
            return Err(ConfigurationProblem::Setting { setting: "client", problem }.into());
        }
        let (client, partition) = (&tenant.client, tenant.partition);
        let is_silent = client.is_known_to_lack_iss();
        let arrival = client.redirect_uri().map(|uri| (ArrivalPlace::of(uri), is_silent));
        if let Some((place, _)) = &arrival {
            if let Some(other) = self.arrivals.confusable(place, client.issuer(), is_silent) {
                return Err(shared_redirect_uri(&other, client.issuer()));
            }
            self.arrivals.add(place, client.issuer(), is_silent);
        }
        self.listed.insert(partition, Listed { tenant: Arc::new(tenant), arrival });
        Ok(())
    }

    pub(super) fn remove(&mut self, partition: Partition) -> Option<Arc<Tenant>> {
        let Listed { tenant, arrival } = self.listed.remove(&partition)?;
        if let Some((place, is_silent)) = arrival {
            self.arrivals.remove(&place, tenant.client.issuer(), is_silent);
        }
        Some(tenant)
    }

    /// Replaces the client with the same issuer and client identifier, and returns the former one. After an error
    /// nothing has changed.
    pub(super) fn replace(&mut self, client: Client) -> Result<Arc<Tenant>, Error> {
        let partition = Partition(client.partition());
        let former = self.get(partition).filter(|former| former.is_of(client.issuer(), client.client_id())).cloned();
        let former = former.ok_or_else(|| Error::from(Misuse::UnknownClient))?;
        let arrival = self.listed.get(&partition).and_then(|listed| listed.arrival.clone());
        self.remove(partition);
        let replaced = self.insert(former.with_client(client));
        if replaced.is_err() {
            if let Some((place, is_silent)) = &arrival {
                self.arrivals.add(place, former.client.issuer(), *is_silent);
            }
            self.listed.insert(partition, Listed { tenant: former.clone(), arrival });
        }
        replaced.map(|()| former)
    }

    /// Checks that an OP cannot pass off another OP's code as its own (RFC 9700 §4.4): a response that does not name
    /// its OP must arrive at a place that no response of another OP can arrive at.
    pub(super) fn check_mix_up(&self, client: &Client, redirect_uri: &str) -> Result<(), Error> {
        let is_silent = true;
        match self.arrivals.confusable(&ArrivalPlace::of(redirect_uri), client.issuer(), is_silent) {
            Some(other) => Err(shared_redirect_uri(client.issuer(), &other)),
            None => Ok(()),
        }
    }

    /// Records which OPs do not name themselves in their responses, if that became known after their clients were
    /// added. It checks all clients.
    pub(super) fn update_silent_ops(&mut self) {
        for Listed { tenant, arrival } in self.listed.values_mut() {
            let Some((place, was_silent)) = arrival else { continue };
            let is_silent = tenant.client.is_known_to_lack_iss();
            if is_silent != *was_silent {
                let issuer = tenant.client.issuer();
                self.arrivals.remove(place, issuer, *was_silent);
                self.arrivals.add(place, issuer, is_silent);
                *was_silent = is_silent;
            }
        }
    }
}

fn shared_redirect_uri(issuer: &str, other: &str) -> Error {
    ConfigurationProblem::SharedRedirectUri { issuer: issuer.to_owned(), other: other.to_owned() }.into()
}

/// Which OPs' responses arrive where.
///
/// Behind a nested router, a response to a longer path seems to have arrived at each path that is a suffix of it.
#[derive(Default)]
struct Arrivals {
    /// By the complete path of the redirect URI.
    whole: BTreeMap<(String, String), Issuers>,
    /// By each suffix of its path.
    ends: BTreeMap<(String, String), Issuers>,
    /// The number of entries that were checked, for a test.
    #[cfg(test)]
    lookups: std::cell::Cell<usize>,
}

/// The OPs whose responses arrive in one place, and how many clients each has there.
#[derive(Default)]
struct Issuers {
    all: BTreeMap<String, usize>,
    /// The OPs that are known not to name themselves in their responses.
    silent: BTreeMap<String, usize>,
}

impl Arrivals {
    /// Returns another OP whose responses can be confused with those of this one, because one of the two does not name
    /// itself.
    fn confusable(&self, place: &ArrivalPlace, issuer: &str, is_silent: bool) -> Option<String> {
        let whole = place.ends().filter_map(|end| self.whole.get(&(place.origin().to_owned(), end.to_owned())));
        let key = (place.origin().to_owned(), place.path().to_owned());
        let mut issuers = whole.chain(self.ends.get(&key));
        issuers.find_map(|issuers| {
            let issuers = if is_silent { &issuers.all } else { &issuers.silent };
            issuers.keys().inspect(|_| self.count_lookup()).find(|other| **other != issuer).cloned()
        })
    }

    fn add(&mut self, place: &ArrivalPlace, issuer: &str, is_silent: bool) {
        self.change(place, |issuers| issuers.add(issuer, is_silent));
    }

    fn remove(&mut self, place: &ArrivalPlace, issuer: &str, is_silent: bool) {
        self.change(place, |issuers| issuers.remove(issuer, is_silent));
    }

    fn change(&mut self, place: &ArrivalPlace, change: impl Fn(&mut Issuers)) {
        let key = |path: &str| (place.origin().to_owned(), path.to_owned());
        let change_in = |map: &mut BTreeMap<(String, String), Issuers>, key: (String, String)| {
            let issuers = map.entry(key.clone()).or_default();
            change(issuers);
            if issuers.all.is_empty() {
                map.remove(&key);
            }
        };
        change_in(&mut self.whole, key(place.path()));
        for end in place.ends() {
            change_in(&mut self.ends, key(end));
        }
    }

    #[cfg_attr(not(test), expect(clippy::unused_self))]
    fn count_lookup(&self) {
        #[cfg(test)]
        self.lookups.set(self.lookups.get() + 1);
    }
}

impl Issuers {
    fn add(&mut self, issuer: &str, is_silent: bool) {
        let maps = [Some(&mut self.all), is_silent.then_some(&mut self.silent)];
        maps.into_iter().flatten().for_each(|map| *map.entry(issuer.to_owned()).or_default() += 1);
    }

    fn remove(&mut self, issuer: &str, is_silent: bool) {
        for map in [Some(&mut self.all), is_silent.then_some(&mut self.silent)].into_iter().flatten() {
            let left = map.get(issuer).copied().unwrap_or_default().saturating_sub(1);
            match left {
                0 => drop(map.remove(issuer)),
                left => drop(map.insert(issuer.to_owned(), left)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::can_be_confused;

    #[test]
    fn a_new_client_is_compared_with_at_most_two_others() {
        let mut arrivals = Arrivals::default();
        for number in 0..10_000 {
            let issuer = format!("https://op-{number}.test");
            // All of them share one redirect URI, which is allowed because all of them name themselves in their
            // responses.
            let shared = ArrivalPlace::of("https://rp.test/a/b/callback");
            let own = ArrivalPlace::of(&format!("https://rp.test/{number}/callback"));
            for place in [&shared, &own] {
                arrivals.lookups.set(0);
                assert_eq!(arrivals.confusable(place, &issuer, false), None);
                assert!(arrivals.lookups.get() <= 2, "{} entries for client {number}", arrivals.lookups.get());
                arrivals.add(place, &issuer, false);
            }
        }
        arrivals.lookups.set(0);
        let place = ArrivalPlace::of("https://rp.test/callback");
        assert!(arrivals.confusable(&place, "https://op-1.test", true).is_some(), "an OP that does not name itself");
        assert!(arrivals.lookups.get() <= 2, "{} entries", arrivals.lookups.get());
    }

    fn redirect_uri() -> impl Strategy<Value = String> {
        let origin = prop::sample::select(vec!["https://a.test", "https://b.test", "com.example.app:"]);
        let path = prop::collection::vec(prop::sample::select(vec!["", "a", "b", "callback"]), 0..4);
        let query = prop::sample::select(vec!["", "?op=1"]);
        (origin, path, query).prop_map(|(origin, path, query)| format!("{origin}/{}{query}", path.join("/")))
    }

    proptest! {
        /// The index gives the same result as a comparison of every pair.
        #[test]
        fn ambiguous_redirect_uris_are_found_as_if_each_pair_were_compared(
            clients in prop::collection::vec((redirect_uri(), 0..3_u8, any::<bool>(), any::<bool>()), 1..12),
            uri in redirect_uri(),
            is_silent in any::<bool>(),
        ) {
            let mut arrivals = Arrivals::default();
            for (uri, issuer, is_silent, _) in &clients {
                arrivals.add(&ArrivalPlace::of(uri), &issuer.to_string(), *is_silent);
            }
            for (uri, issuer, is_silent, stays) in &clients {
                if !stays {
                    arrivals.remove(&ArrivalPlace::of(uri), &issuer.to_string(), *is_silent);
                }
            }
            let expected = clients.iter().any(|(other, issuer, other_is_silent, stays)| {
                *stays && *issuer != 0 && can_be_confused(&uri, other) && (is_silent || *other_is_silent)
            });
            prop_assert_eq!(arrivals.confusable(&ArrivalPlace::of(&uri), "0", is_silent).is_some(), expected);
        }
    }
}
