//! The identity of the client at the OP: how it authenticates, and with which certificate it connects.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::Client;
use super::options::{AssertionAudience, DpopMode, Options};
use super::setting::setting;
use crate::endpoint::{ClientAuthentication, ClientIdentity, GivenCredentials, Offer};
use crate::error::{ConfigurationProblem, Error};
use crate::jose::{Signer, SigningAlgorithm};
use crate::provider::{EndpointUrls, ProviderMetadata};
use crate::secret::{Secret, SharedSecret};
use crate::transport::ClientCertificate;

/// How a client was registered to authenticate, if that needs a key that the registration does not contain.
#[derive(Debug, Clone)]
pub(super) struct RegisteredMethod {
    pub(super) method: String,
    /// `token_endpoint_auth_signing_alg`, if there is one.
    pub(super) algorithm: Option<SigningAlgorithm>,
}

/// The settings of the builder about authentication.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// The registered method, if it was named.
    pub(super) named: Option<ClientAuthentication>,
    /// The method that the client was registered for, if its key is given separately.
    pub(super) registered: Option<RegisteredMethod>,
    pub(super) given: GivenCredentials,
    /// The key of signed requests, if it differs from that of client assertions.
    pub(super) request_object_signer: Option<Arc<dyn Signer>>,
}

impl Credentials {
    /// The client secret, which is also the key of ID Tokens that are signed with an HMAC.
    pub(super) fn secret(&self) -> Option<&SharedSecret> {
        self.named.as_ref().and_then(ClientAuthentication::secret).or(self.given.secret.as_ref())
    }

    /// The public key of client assertions, if there is one and its signer provides it.
    pub(super) fn public_jwk(&self) -> Option<Map<String, Value>> {
        let given = || self.given.signer.as_ref().and_then(|signer| signer.verification_jwk());
        self.named.as_ref().and_then(ClientAuthentication::public_jwk).or_else(given)
    }

    /// The signer of authorization requests: a separate one, or else that of client assertions.
    pub(super) fn request_object_signer(&self) -> Option<&Arc<dyn Signer>> {
        self.request_object_signer.as_ref().or_else(|| self.assertion_signer())
    }

    /// The signer of client assertions, if the client makes some or may later do so.
    pub(super) fn assertion_signer(&self) -> Option<&Arc<dyn Signer>> {
        self.named.as_ref().map_or(self.given.signer.as_ref(), ClientAuthentication::signer)
    }

    /// The certificate, if there is one.
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        self.named.as_ref().and_then(ClientAuthentication::certificate).or(self.given.certificate.as_ref())
    }

    /// Refuses credentials that contradict each other or the other settings.
    pub(super) fn check(&self, options: &Options) -> Result<(), Error> {
        if options.certificate_bound_access_tokens
            && matches!(options.dpop, Some(DpopMode::PerProcess | DpopMode::Shared(_)))
        {
            return Err(setting(
                "dpop",
                "access tokens can be bound to a DPoP key or to the client certificate, not to both; choose one",
            ));
        }
        if options.certificate_bound_access_tokens && self.certificate().is_none() {
            return Err(setting("certificate_bound_access_tokens", "set the certificate with `client_certificate`"));
        }
        match self.request_object_signer() {
            None if options.signs_requests() => {
                return Err(setting(
                    "require_signed_request_object",
                    "there is no signing key; set `request_object_signing_key`, or authenticate with `private_key_jwt`",
                ));
            }
            Some(signer) if options.signs_requests() && signer.algorithm().is_symmetric() => {
                return Err(setting("request_object_signing_key", "an HMAC does not prove the origin; use a key pair"));
            }
            _ => {}
        }
        let Some(named) = &self.named else { return Ok(()) };
        named.check()?;
        if self.given.signer.is_some() {
            return Err(setting("signing_key", "`authentication` already names a method with its credentials"));
        }
        if self.given.certificate.is_some()
            && (named.certificate().is_some() || !options.certificate_bound_access_tokens)
        {
            return Err(setting(
                "client_certificate",
                "`authentication` names a method with its credentials, and `certificate_bound_access_tokens` is not \
                 set, so nothing would use it",
            ));
        }
        Ok(())
    }

    /// Combines the registered method with the key that the application gave.
    pub(super) fn settle_registered(&mut self) -> Result<(), Error> {
        let Some(RegisteredMethod { method, algorithm }) = self.registered.take() else { return Ok(()) };
        if let Some(named) = &self.named {
            return match named.method() == method {
                true => Ok(()),
                false => Err(setting("authentication", "the client was registered for another method")),
            };
        }
        let certificate = self.given.certificate.clone();
        let certificate =
            || certificate.ok_or_else(|| setting("client_certificate", "the client was registered with one"));
        self.named = Some(match method.as_str() {
            "private_key_jwt" => {
                let signer = self.given.signer.take();
                let signer = signer.ok_or_else(|| setting("signing_key", "the client was registered with one"))?;
                if algorithm.is_some_and(|algorithm| algorithm != signer.algorithm()) {
                    return Err(setting("signing_key", "the client was registered for another algorithm"));
                }
                ClientAuthentication::private_key_jwt(signer)
            }
            "tls_client_auth" => ClientAuthentication::tls_client_auth(certificate()?),
            _ => ClientAuthentication::self_signed_tls_client_auth(certificate()?),
        });
        if method != "private_key_jwt" {
            self.given.certificate = None;
        }
        Ok(())
    }

    /// Sets the signer of client assertions.
    pub(super) fn set_signer(&mut self, signer: impl Signer + 'static) {
        self.given.signer = Some(Arc::new(signer));
    }
}

impl Client {
    /// How this client authenticates at the OP's endpoints, such as `private_key_jwt`: the method that was named, or
    /// the one that was chosen from those that the OP lists. `None` until the choice can be made from the OP's
    /// metadata.
    ///
    /// A choice stays for the life of the client, even if the OP's list changes later.
    pub fn authentication_method(&self) -> Option<&'static str> {
        let chosen = self.0.identity.get().map(|identity| &identity.authentication);
        chosen.or(self.0.credentials.named.as_ref()).map(ClientAuthentication::method)
    }

    /// The identity of this client. If it depends on what the OP lists, the metadata is fetched.
    pub(crate) async fn identity(&self) -> Result<&ClientIdentity, Error> {
        match self.0.identity.get() {
            Some(identity) => Ok(identity),
            None => self.identity_at(&self.0.provider.metadata().await?),
        }
    }

    /// The identity of this client at an OP with this metadata. The first result stays.
    pub(super) fn identity_at(&self, metadata: &ProviderMetadata) -> Result<&ClientIdentity, Error> {
        if let Some(identity) = self.0.identity.get() {
            return Ok(identity);
        }
        let credentials = &self.0.credentials;
        let settled = match &credentials.named {
            Some(named) => named.settled(offer(metadata)),
            None => credentials.given.best(offer(metadata)),
        };
        let authentication = match settled {
            Ok(authentication) => authentication,
            Err(ConfigurationProblem::NotAdvertised { .. }) if self.0.options.allow_unadvertised => {
                credentials.named.clone().unwrap_or_else(|| credentials.given.first())
            }
            Err(problem) => return Err(problem.into()),
        };
        tracing::debug!(
            issuer = self.issuer(),
            method = authentication.method(),
            "the client authentication method is chosen"
        );
        Ok(self.0.identity.get_or_init(|| self.0.identity_with(authentication)))
    }

    /// The OP's endpoints for this client, which differ if it authenticates with mutual TLS.
    pub(super) fn endpoints<'a>(&self, metadata: &'a ProviderMetadata, identity: &ClientIdentity) -> EndpointUrls<'a> {
        match identity.uses_mutual_tls() {
            true => metadata.mtls_endpoints(),
            false => metadata.endpoints(),
        }
    }

    /// The audience of client assertions at every endpoint. `None` means the endpoint that the assertion is sent to.
    pub(super) fn assertion_audience<'a>(&'a self, metadata: &'a ProviderMetadata) -> Option<&'a str> {
        match self.0.assertion_audience {
            AssertionAudience::Issuer => Some(self.issuer()),
            AssertionAudience::TokenEndpoint => Some(metadata.token_endpoint().as_str()),
            AssertionAudience::Endpoint => None,
        }
    }

    /// Checks that the OP lists how this client authenticates and how its tokens are to be bound.
    pub(super) fn check_authentication(&self, metadata: &ProviderMetadata) -> Result<(), ConfigurationProblem> {
        if let Some(named) = &self.0.credentials.named {
            named.settled(offer(metadata))?;
        }
        if self.0.options.certificate_bound_access_tokens && !metadata.tls_client_certificate_bound_access_tokens() {
            let (member, value) = ("tls_client_certificate_bound_access_tokens", "true".to_owned());
            return Err(ConfigurationProblem::NotAdvertised { member, value });
        }
        Ok(())
    }

    /// The client secret, which is also the key of ID Tokens that are signed with an HMAC.
    pub(super) fn client_secret(&self) -> Option<Arc<Secret>> {
        self.0.credentials.secret().map(SharedSecret::current)
    }

    /// Replaces the client secret of this client, of all its clones, and of every [`Poller`](crate::Poller) that has
    /// one, while they are in use. Requests that have been sent finish with the old secret.
    ///
    /// Most OPs accept both secrets for a while: replace it within that time. If polling has stopped because the OP
    /// refused the old one, call [`Poller::resume`](crate::Poller::resume). Other credentials change without a restart
    /// too: see [`ClientCertificate::replace`](crate::transport::ClientCertificate::replace),
    /// [`replace_decryption_keys`](Self::replace_decryption_keys) and, for everything else of a client,
    /// [`Poller::replace_client`](crate::Poller::replace_client). A [`Signer`](crate::Signer) of your own may change its
    /// key at any time.
    ///
    /// ID Tokens that are signed with an HMAC are verified with the new secret from now on.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if this client has no secret, or if the new one is too short
    /// for the HMAC of its settings. The old secret then stays.
    pub fn replace_client_secret(&self, secret: impl Into<Secret>) -> Result<(), Error> {
        let secret = secret.into();
        let no_secret = || setting("client_secret", "this client does not authenticate with a secret");
        let shared = self.0.credentials.secret().ok_or_else(no_secret)?;
        let chosen = self.0.identity.get().map(|identity| &identity.authentication);
        for authentication in chosen.into_iter().chain(self.0.credentials.named.as_ref()) {
            authentication.check_new_secret(&secret)?;
        }
        self.0.options.check_hmac_secret(Some(&secret))?;
        shared.replace(secret);
        self.0.secret_is_replaced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses a secret that has expired, because the OP would refuse it while a user signs in.
    pub(super) fn check_secret(&self, authentication: &ClientAuthentication) -> Result<(), Error> {
        let expired = |expiry: SystemTime| expiry <= self.0.clock.now();
        let is_registered = authentication.secret().is_some() && !self.0.secret_is_replaced.load(Ordering::Relaxed);
        if is_registered && self.0.options.secret_expires_at.is_some_and(expired) {
            let problem = "it has expired; read the registration again, and build a new client from it or call \
                           `replace_client_secret`";
            return Err(setting("client_secret", problem));
        }
        Ok(())
    }
}

impl super::Inner {
    /// The identity with a method that is settled.
    pub(super) fn identity_with(&self, authentication: ClientAuthentication) -> ClientIdentity {
        let bound_to = self.credentials.certificate().filter(|_| self.options.certificate_bound_access_tokens);
        ClientIdentity {
            client_id: self.client_id.clone(),
            certificate: authentication.certificate().or(bound_to).cloned(),
            authentication,
        }
    }
}

fn offer(metadata: &ProviderMetadata) -> Offer<'_> {
    Offer {
        methods: metadata.token_endpoint_auth_methods_supported(),
        algorithms: metadata.token_endpoint_auth_signing_alg_values_supported(),
    }
}
