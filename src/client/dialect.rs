//! Which dialect the client speaks with its OP, and what that demands of the client.

use super::Client;
use super::options::DpopMode;
use super::setting::setting;
use crate::dialect::{Binding, Dialect, ResponseType};
use crate::endpoint::ClientAuthentication;
use crate::error::Error;
use crate::provider::ProviderMetadata;

impl Client {
    /// The dialect of new sign-ins at this OP: the one that was [set](super::ClientBuilder::dialect), or else the one
    /// that the OP's metadata advertises. [`Dialect::OpenId`] if it advertises both or neither.
    ///
    /// The metadata advertises the OpenID dialect with the response type `deferred_code` (DTR §Authorization Server
    /// Metadata), and the IETF dialect with `deferred_token_response_supported` (IETF DTR §Client Opt-In Signaling).
    /// [`PendingAuthentication::dialect`](crate::PendingAuthentication::dialect) is that of a pending sign-in.
    ///
    /// # Errors
    ///
    /// The errors of [`provider_metadata`](Self::provider_metadata).
    pub async fn dialect(&self) -> Result<Dialect, Error> {
        Ok(self.dialect_at(&self.provider_metadata().await?))
    }

    pub(super) fn dialect_at(&self, metadata: &ProviderMetadata) -> Dialect {
        let advertised = || Dialect::advertised(metadata.members());
        self.0.options.dialect.or_else(advertised).unwrap_or_default()
    }

    /// Refuses sign-ins that the dialect does not permit to this client.
    pub(super) fn check_dialect_of_sign_ins(
        &self,
        dialect: Dialect,
        response_type: ResponseType,
        metadata: &ProviderMetadata,
    ) -> Result<(), Error> {
        if !response_type.may_defer() {
            return Ok(());
        }
        self.check_dialect(dialect, &self.identity_at(metadata)?.authentication)
    }

    /// Refuses settings that the dialect does not permit to a client with this authentication.
    pub(super) fn check_dialect(&self, dialect: Dialect, authentication: &ClientAuthentication) -> Result<(), Error> {
        let has_token = self.0.options.notification_token.is_some();
        if has_token && dialect.protocol().needs_fresh_notification_tokens() {
            return Err(setting(
                "notification_token",
                "the IETF dialect requires a new token for each request; remove it, and let a poller receive pings",
            ));
        }
        self.check_binding(dialect, authentication)
    }

    /// Refuses a client without DPoP where the dialect requires it (IETF DTR §Sender-Constraint Requirements).
    pub(super) fn check_binding(&self, dialect: Dialect, authentication: &ClientAuthentication) -> Result<(), Error> {
        if !matches!(self.0.options.dpop(), DpopMode::Off) {
            return Ok(());
        }
        let method = authentication.method();
        match dialect.protocol().binding(method) {
            Binding::Required => Err(setting(
                "dpop",
                "a public client must use DPoP, so that nobody else can poll with its deferral code",
            )),
            Binding::Recommended => {
                tracing::warn!(
                    issuer = self.issuer(),
                    method,
                    "this client authenticates with a shared secret and uses no DPoP; turn DPoP on"
                );
                Ok(())
            }
            Binding::Optional => Ok(()),
        }
    }
}
