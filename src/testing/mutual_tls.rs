//! The checks of client certificates (RFC 8705).

use super::client::{RegisteredAuthentication, TestClient};
use super::keys;
use super::op::Handler;
use super::record::{Endpoint, RequestRule};
use super::wire::Rejection;

impl Handler<'_> {
    /// Whether the client is registered with the certificate that was presented (RFC 8705 §2).
    pub(super) fn certificate_authenticates(&mut self, client: &TestClient) -> Result<bool, Rejection> {
        let presented = &self.request.certificates;
        let is_registered = match &client.authentication {
            RegisteredAuthentication::TlsClientAuth(name) => {
                self.op.authority.vouches_for(presented, name, self.op.now())
            }
            RegisteredAuthentication::SelfSignedTlsClientAuth(certificates) => {
                presented.first().is_some_and(|presented| certificates.contains(presented))
            }
            _ => return Ok(false),
        };
        if is_registered {
            self.must_use_alias();
        }
        Ok(is_registered)
    }

    /// Checks the requirements of certificate-bound tokens (RFC 8705 §3).
    pub(super) fn check_certificate_binding(&mut self, client: &TestClient) -> Result<(), Rejection> {
        if !client.certificate_bound {
            return Ok(());
        }
        if self.request.headers.contains_key("dpop") {
            self.violate(RequestRule::DpopWithCertificate, "");
        }
        if self.request.certificates.is_empty() {
            return Err(Rejection::bad(
                "invalid_request",
                RequestRule::CertificateMissing,
                "no certificate was presented",
            ));
        }
        self.must_use_alias();
        Ok(())
    }

    /// The thumbprint of the certificate that tokens of this request are bound to.
    pub(super) fn certificate_thumbprint(&self) -> Option<String> {
        self.request.certificates.first().map(|certificate| keys::sha256(certificate))
    }

    /// RFC 8705 §5: a client with a certificate must call the alias if the endpoint has one.
    pub(super) fn must_use_alias(&mut self) {
        let Some(member) = member_of(self.endpoint) else { return };
        let has_alias = self.metadata_document()["mtls_endpoint_aliases"].get(member).is_some();
        if has_alias && !self.is_at_alias() {
            self.violate(RequestRule::AliasIgnored, member);
        }
    }

    /// A client without a certificate must not call the alias.
    pub(super) fn check_alias(&mut self) {
        if self.is_at_alias() && self.request.certificates.is_empty() {
            self.violate(RequestRule::AliasWithoutCertificate, "");
        }
    }

    fn is_at_alias(&self) -> bool {
        self.op.alias_base.as_ref().is_some_and(|alias| alias.origin() == self.request.url.origin())
    }
}

fn member_of(endpoint: Endpoint) -> Option<&'static str> {
    Some(match endpoint {
        endpoint if endpoint.is_token() => "token_endpoint",
        Endpoint::PushedAuthorization => "pushed_authorization_request_endpoint",
        Endpoint::BackchannelAuthentication => "backchannel_authentication_endpoint",
        Endpoint::Revocation => "revocation_endpoint",
        Endpoint::UserInfo => "userinfo_endpoint",
        _ => return None,
    })
}
