//! The checks of discovery: everything about the OP that would otherwise fail while a user signs in.

use super::{Client, builder};
use crate::dialect::{Dialect, ResponseType};
use crate::error::{ConfigurationProblem, Error};
use crate::provider::{ProviderMetadata, check_response_type, check_support};

impl Client {
    /// Makes the checks of discovery: everything that would otherwise fail while a user signs in.
    pub(super) async fn check_provider(&self) -> Result<(), Error> {
        let metadata = self.0.provider.metadata().await?;
        if !self.0.options.allow_unadvertised {
            self.check_authentication(&metadata)?;
        }
        let identity = self.identity_at(&metadata)?;
        builder::check_poll_credential(&self.0.options, &identity.authentication)?;
        self.endpoints(&metadata, identity).token()?;
        self.check_secret(&identity.authentication)?;
        self.check_fapi(&metadata)?;
        self.dpop_algorithm(&metadata)?;
        if self.is_for_backchannel() {
            self.check_backchannel(&metadata)?;
            if self.0.options.signed_backchannel_requests {
                self.check_backchannel_signature(&metadata)?;
            }
            self.check_id_tokens(&metadata).await?;
        }
        match self.0.options.without_redirect_uri {
            true => self.check_dialect(Dialect::Ietf, &identity.authentication),
            false => self.check_sign_ins(&metadata).await,
        }
    }

    /// The checks of discovery for a client that signs users in.
    async fn check_sign_ins(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        let (dialect, response_type) = (self.dialect_at(metadata), self.0.options.response_type);
        if !self.0.options.allow_unadvertised {
            if self.0.options.strict_response_types {
                check_response_type(metadata, dialect.protocol().response_type(response_type))?;
            }
            self.check_advertised(metadata, response_type)?;
        }
        self.check_dialect_of_sign_ins(dialect, response_type, metadata)?;
        metadata.authorization_url()?;
        if self.pushes(metadata) {
            self.push_endpoint(metadata)?;
        }
        self.check_id_token_algorithms(metadata)?;
        self.check_response_mode(metadata)?;
        self.check_encryption(metadata)?;
        self.check_request_objects(metadata).await?;
        self.check_keys().await
    }

    /// The checks of discovery for ID Tokens.
    async fn check_id_tokens(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        self.check_id_token_algorithms(metadata)?;
        self.check_encryption(metadata)?;
        self.check_keys().await
    }

    async fn check_keys(&self) -> Result<(), Error> {
        // An OP whose tokens are authenticated with the client secret may have no keys at all.
        if !self.id_token_algorithms().await?.iter().all(|algorithm| algorithm.is_symmetric()) {
            self.0.provider.keys().await?;
        }
        Ok(())
    }

    /// Logs a warning for what discovery refuses. An OP whose metadata lost an entry in a deployment may still work,
    /// and users are waiting.
    pub(super) fn warn_if_unsupported(&self, metadata: &ProviderMetadata, response_type: ResponseType) {
        if self.0.options.allow_unadvertised {
            return;
        }
        let supported = self.check_advertised(metadata, response_type);
        let supported = supported.and_then(|()| self.check_authentication(metadata));
        if let Err(problem) = supported.and_then(|()| self.check_id_token_algorithms(metadata)) {
            tracing::warn!(
                issuer = self.issuer(),
                %problem,
                "the OP's metadata no longer lists a feature that this client needs"
            );
        }
    }

    /// Checks that the OP lists what sign-ins with this response type need.
    fn check_advertised(
        &self,
        metadata: &ProviderMetadata,
        response_type: ResponseType,
    ) -> Result<(), ConfigurationProblem> {
        let protocol = self.dialect_at(metadata).protocol();
        let (wire, grant) = (protocol.response_type(response_type), protocol.required_grant_type(response_type));
        check_support(metadata, wire, &[grant])
    }
}
