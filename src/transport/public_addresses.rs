//! Name resolution that returns public addresses only.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{is_localhost, is_public};

/// A resolver for reqwest that removes every address that is not on the public internet.
///
/// [`ClientBuilder::refuse_private_addresses`](crate::ClientBuilder::refuse_private_addresses) uses it with the operating
/// system's resolver. Set it yourself if your application has another resolver:
///
/// ```
/// # use std::sync::Arc;
/// use openid_deferred::transport::PublicAddresses;
/// use openid_deferred::Client;
///
/// # fn example(resolver: Arc<dyn reqwest::dns::Resolve>) -> Result<(), openid_deferred::Error> {
/// let client = Client::builder("https://op.example", "my-client")
///     .redirect_uri("https://rp.example/callback")
///     .refuse_private_addresses()
///     .configure_http(move |http| http.dns_resolver(PublicAddresses::among(resolver.clone())))
///     .build()?;
/// # Ok(())
/// # }
/// ```
///
/// A connection goes to the addresses that were checked, so a later answer of the name server (DNS rebinding) has no
/// effect. If a name has public and private addresses, the public ones are used. The resolver does not see addresses in
/// URLs, which the client checks itself, and names that a proxy resolves.
#[derive(Clone)]
pub struct PublicAddresses {
    resolver: Arc<dyn Resolve>,
    allow_localhost: bool,
}

impl PublicAddresses {
    /// The public addresses of the operating system's resolver, including the hosts file.
    pub fn of_system() -> Self {
        Self::among(Arc::new(SystemResolver))
    }

    /// The public addresses of another resolver.
    pub fn among(resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, allow_localhost: false }
    }

    /// Keeps loopback addresses of `localhost`, for clients that may call it.
    pub(super) fn and_localhost(mut self) -> Self {
        self.allow_localhost = true;
        self
    }
}

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.allow_localhost && is_localhost(name.as_str());
        let resolving = self.resolver.resolve(name);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = resolving.await?.collect();
            let found = !addresses.is_empty();
            let public = addresses.into_iter().filter(move |address| {
                let ip = address.ip();
                is_public(ip) || (allowed && ip.is_loopback())
            });
            let public: Vec<_> = public.collect();
            if found && public.is_empty() {
                return Err(OnlyPrivateAddresses.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

impl fmt::Debug for PublicAddresses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PublicAddresses").finish_non_exhaustive()
    }
}

/// A name has only private addresses. The error does not show them, so that it does not reveal a private network.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
pub(super) struct OnlyPrivateAddresses;

struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port 0 stands for the one in the URL.
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    struct Fixed(Vec<IpAddr>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let addresses: Vec<_> = self.0.iter().map(|&address| SocketAddr::new(address, 0)).collect();
            Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
        }
    }

    fn resolver(addresses: &[&str]) -> PublicAddresses {
        PublicAddresses::among(Arc::new(Fixed(addresses.iter().map(|address| address.parse().unwrap()).collect())))
    }

    async fn resolved(resolver: &PublicAddresses, name: &str) -> Option<Vec<String>> {
        match resolver.resolve(name.parse().unwrap()).await {
            Ok(addresses) => Some(addresses.map(|address| address.ip().to_string()).collect()),
            Err(error) => {
                assert!(error.is::<OnlyPrivateAddresses>(), "{error}");
                assert!(!error.to_string().contains(|character: char| character.is_ascii_digit()), "{error}");
                None
            }
        }
    }

    #[tokio::test]
    async fn only_public_addresses_are_kept() {
        let mixed = resolver(&["10.0.0.1", "93.184.216.34", "::1", "2606:4700::1", "::ffff:127.0.0.1"]);
        assert_eq!(resolved(&mixed, "op.example").await.unwrap(), ["93.184.216.34", "2606:4700::1"]);
        assert!(resolved(&resolver(&[]), "op.example").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_name_with_only_private_addresses_is_an_error_that_shows_none() {
        assert_eq!(resolved(&resolver(&["169.254.169.254"]), "op.example").await, None);
        assert_eq!(resolved(&resolver(&["64:ff9b::10.0.0.1", "fd00::1"]), "op.example").await, None);
        assert_eq!(resolved(&PublicAddresses::of_system(), "localhost").await, None);
    }

    #[tokio::test]
    async fn localhost_resolves_only_to_loopback_addresses_and_only_if_allowed() {
        let allowing = resolver(&["127.0.0.1", "10.0.0.1"]).and_localhost();
        assert_eq!(resolved(&allowing, "localhost").await.unwrap(), ["127.0.0.1"]);
        assert_eq!(resolved(&allowing, "op.example").await, None);
    }
}
