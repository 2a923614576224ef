//! The URLs at which a client calls the OP's endpoints.

use url::Url;

use super::ProviderMetadata;
use crate::error::Error;

/// The endpoints of the OP for one client: with a certificate at their aliases, if they have any.
///
/// RFC 8705 §5: "If the metadata of an authorization server does not have a specific endpoint in
/// `mtls_endpoint_aliases`, the client uses the conventional endpoint", so each endpoint is looked up separately.
#[derive(Clone, Copy)]
pub(crate) struct EndpointUrls<'a> {
    metadata: &'a ProviderMetadata,
    /// Whether aliases are used.
    mutual_tls: bool,
}

impl ProviderMetadata {
    /// The endpoints for a client without a certificate.
    pub(crate) fn endpoints(&self) -> EndpointUrls<'_> {
        EndpointUrls { metadata: self, mutual_tls: false }
    }

    /// The endpoints for a client that presents a certificate.
    pub(crate) fn mtls_endpoints(&self) -> EndpointUrls<'_> {
        EndpointUrls { metadata: self, mutual_tls: true }
    }
}

impl<'a> EndpointUrls<'a> {
    pub(crate) fn token(self) -> Result<&'a Url, Error> {
        self.endpoint("token_endpoint")
    }

    pub(crate) fn userinfo(self) -> Result<&'a Url, Error> {
        self.endpoint("userinfo_endpoint")
    }

    pub(crate) fn revocation(self) -> Result<&'a Url, Error> {
        self.endpoint("revocation_endpoint")
    }

    pub(crate) fn introspection(self) -> Result<&'a Url, Error> {
        self.endpoint("introspection_endpoint")
    }

    pub(crate) fn pushed_authorization_request(self) -> Result<&'a Url, Error> {
        self.endpoint("pushed_authorization_request_endpoint")
    }

    pub(crate) fn backchannel_authentication(self) -> Result<&'a Url, Error> {
        self.endpoint("backchannel_authentication_endpoint")
    }

    pub(crate) fn registration(self) -> Result<&'a Url, Error> {
        self.endpoint("registration_endpoint")
    }

    fn endpoint(self, name: &'static str) -> Result<&'a Url, Error> {
        let alias = if self.mutual_tls { self.metadata.alias(name)? } else { None };
        alias.map_or_else(|| self.metadata.endpoint(name), Ok)
    }
}
