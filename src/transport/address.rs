//! Decides which addresses are public, and which URLs a client may therefore call.
//!
//! An OP's documents name URLs that the client connects to with credentials. Without a check, the author of such a
//! document could reach services that only the client can reach (RFC 9728 §7.7): a service on the same machine, or the
//! metadata service of a cloud at 169.254.169.254.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::error::{ConfigurationProblem, Rule};

/// The application's policy for the URLs that its client calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UrlPolicy {
    /// Whether plain HTTP to this machine is allowed.
    pub(crate) allow_insecure_loopback: bool,
    /// The policy for private addresses.
    pub(crate) private_addresses: PrivateAddresses,
}

/// The policy for addresses that are not on the public internet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PrivateAddresses {
    /// An OP's documents may not name them. URLs of the application, and names that resolve to private addresses, are
    /// allowed.
    #[default]
    RefusedInDocuments,
    /// They are allowed.
    Allowed,
    /// No connection goes to them, under any name.
    Refused,
}

/// Why a URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UrlProblem {
    /// It is not `https:`, or it has a user name or password, which would become an `Authorization` header.
    Insecure,
    /// It has a private address.
    Private,
}

impl UrlPolicy {
    /// Whether credentials and tokens may be sent to a URL that the application named.
    pub(crate) fn check_own(self, url: &Url) -> Result<(), UrlProblem> {
        match self.private_addresses {
            PrivateAddresses::Refused => self.check_public(url),
            PrivateAddresses::RefusedInDocuments | PrivateAddresses::Allowed => self.check_secure(url),
        }
    }

    /// The same for a URL in a document of the OP. The host of the `issuer`, which the application named, is allowed on
    /// every port, because endpoints for client certificates often have a port of their own.
    pub(crate) fn check_named_by(self, issuer: &Url, url: &Url) -> Result<(), UrlProblem> {
        match self.private_addresses {
            PrivateAddresses::Refused => self.check_public(url),
            PrivateAddresses::RefusedInDocuments if url.host() != issuer.host() => self.check_public(url),
            PrivateAddresses::RefusedInDocuments | PrivateAddresses::Allowed => self.check_secure(url),
        }
    }

    /// The same for a URL that only a user's browser opens, whatever its address is.
    pub(crate) fn check_for_browser(self, url: &Url) -> Result<(), UrlProblem> {
        self.check_secure(url)
    }

    /// Checks that the URL is `https:` or an allowed loopback address, without credentials.
    fn check_secure(self, url: &Url) -> Result<(), UrlProblem> {
        let is_secure = match url.scheme() {
            "https" => url.has_host(),
            "http" => self.allows_loopback(url),
            _ => false,
        };
        if !is_secure || !url.username().is_empty() || url.password().is_some() {
            return Err(UrlProblem::Insecure);
        }
        Ok(())
    }

    /// The same, and that its host is not a private address.
    fn check_public(self, url: &Url) -> Result<(), UrlProblem> {
        self.check_secure(url)?;
        match !self.allows_loopback(url) && names_private_address(url) {
            true => Err(UrlProblem::Private),
            false => Ok(()),
        }
    }

    fn allows_loopback(self, url: &Url) -> bool {
        self.allow_insecure_loopback && is_loopback(url)
    }
}

impl UrlProblem {
    /// The problem of a setting or argument.
    pub(crate) fn of_setting(self, name: &'static str) -> ConfigurationProblem {
        match self {
            Self::Insecure => ConfigurationProblem::InsecureUrl { name },
            Self::Private => ConfigurationProblem::PrivateAddress { name },
        }
    }

    /// The rule that a document of the OP breaks.
    pub(crate) fn rule(self) -> Rule {
        match self {
            Self::Insecure => Rule::InsecureEndpoint,
            Self::Private => Rule::PrivateEndpoint,
        }
    }
}

/// Whether the host is a literal loopback address or `localhost`. Other names are not resolved, because the result can
/// change between the check and the connection.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether the host is a literal private address. The parser of [`Url`] has already normalized `0x7f.1`, `2130706433`
/// and `127.0.0.1.`.
fn names_private_address(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => !is_public_v4(address),
        Some(Host::Ipv6(address)) => !is_public_v6(address),
        Some(Host::Domain(name)) => is_localhost(name),
        None => false,
    }
}

/// RFC 6761 §6.3: these names stand for this machine, and some resolvers answer so without a query.
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

/// Whether an address belongs to a host on the public internet, according to IANA's registries of special-purpose
/// addresses (RFC 6890). `IpAddr::is_global` is not stable yet; this function is stricter for addresses that stand for
/// another one.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // "This network" (RFC 791), which several systems treat as this machine.
        [0, ..] => true,
        // Shared by the customers of a provider (RFC 6598); some clouds have their metadata services there.
        [100, 64..=127, ..] => true,
        // IETF protocol assignments (RFC 6890) and the relays of 6to4 (RFC 7526).
        [192, 0, 0, _] | [192, 88, 99, _] => true,
        // Benchmarks (RFC 2544).
        [198, 18..=19, ..] => true,
        // Multicast, reserved and broadcast (RFC 1112, RFC 919).
        [224..=255, ..] => true,
        _ => address.is_private() || address.is_loopback() || address.is_link_local() || address.is_documentation(),
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // IPv4-mapped addresses (RFC 4291 §2.5.5.2) and those of translators (RFC 6052), which DNS64 makes for every
        // host that has an IPv4 address only.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // IETF protocol assignments (RFC 2928), Teredo among them, and documentation (RFC 3849, RFC 9637).
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast (RFC 4291 §2.4). Unspecified, loopback, IPv4-compatible, link-local, site-local, unique local
        // and multicast addresses are outside this range.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests;
