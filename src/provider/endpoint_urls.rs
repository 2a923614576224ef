//! Under which URLs a client calls the OP's endpoints.

use url::Url;

use super::ProviderMetadata;

/// The endpoints of the OP as one client reaches them: with a certificate by their aliases, where they have some.
///
/// RFC 8705 §5: "If the metadata of an authorization server does not have a specific endpoint in
/// `mtls_endpoint_aliases`, the client uses the conventional endpoint", so each is looked up for itself.
#[derive(Clone, Copy)]
pub(crate) struct EndpointUrls<'a> {
    metadata: &'a ProviderMetadata,
    mutual_tls: bool,
}

impl ProviderMetadata {
    /// The endpoints for a client that presents a certificate, or for one that does not.
    pub(crate) fn endpoints(&self, mutual_tls: bool) -> EndpointUrls<'_> {
        EndpointUrls { metadata: self, mutual_tls }
    }
}

impl<'a> EndpointUrls<'a> {
    pub(crate) fn token(self) -> &'a Url {
        self.alias("token_endpoint").unwrap_or_else(|| self.metadata.token_endpoint())
    }

    pub(crate) fn userinfo(self) -> Option<&'a Url> {
        self.alias("userinfo_endpoint").or(self.metadata.userinfo_endpoint())
    }

    pub(crate) fn revocation(self) -> Option<&'a Url> {
        self.alias("revocation_endpoint").or(self.metadata.revocation_endpoint())
    }

    pub(crate) fn introspection(self) -> Option<&'a Url> {
        self.alias("introspection_endpoint").or(self.metadata.introspection_endpoint())
    }

    pub(crate) fn pushed_authorization_request(self) -> Option<&'a Url> {
        self.alias("pushed_authorization_request_endpoint").or(self.metadata.pushed_authorization_request_endpoint())
    }

    pub(crate) fn registration(self) -> Option<&'a Url> {
        self.alias("registration_endpoint").or(self.metadata.registration_endpoint())
    }

    fn alias(self, name: &str) -> Option<&'a Url> {
        self.metadata.mtls_endpoint_aliases().get(name).filter(|_| self.mutual_tls)
    }
}
