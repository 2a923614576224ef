//! Makes a client of a registration, with the settings that the OP registered.

use super::Registration;
use super::difference::{DifferenceEffect, METHODS};
use super::metadata::DEFAULT_METHOD;
use crate::client::Client;
use crate::client::algorithms::ClientAlgorithms;
use crate::client::builder::ClientBuilder;
use crate::client::delivery_mode::DeliveryMode;
use crate::client::identity::RegisteredMethod;
use crate::dialect::{Dialect, ResponseType};
use crate::endpoint::ClientAuthentication;
use crate::error::{ConfigurationProblem, Error};
use crate::id_token::Encryption;
use crate::jose::{ContentEncryptionAlgorithm, KeyManagementAlgorithm, SigningAlgorithm};

impl Registration {
    /// Starts a client with the registered settings: issuer, client identifier, authentication, the first requested
    /// redirect URI, the first URI to return to after a logout, response type, algorithms, and what the OP requires.
    ///
    /// Keys are not part of a registration. A client that was registered for `private_key_jwt` needs its
    /// [`signing_key`](ClientBuilder::signing_key), one with a certificate its
    /// [`client_certificate`](ClientBuilder::client_certificate), and one whose tokens are encrypted its
    /// [`decryption_key`](ClientBuilder::decryption_key). Everything else can be set as on any other client.
    ///
    /// ```
    /// # async fn example(registration: &openid_deferred::registration::Registration, pem: &str) -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::{SigningAlgorithm, SigningKey};
    ///
    /// let key = SigningKey::from_pem(SigningAlgorithm::Es256, pem, None)?;
    /// let client = registration.client()?.signing_key(key).discover().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Registered`] for the worst [difference](Self::differences) that
    /// [breaks](DifferenceEffect::Breaks) the client.
    pub fn client(&self) -> Result<ClientBuilder, Error> {
        let broken = self.differences().into_iter().find(|difference| difference.effect() == DifferenceEffect::Breaks);
        match broken {
            Some(difference) => {
                let (member, problem) = (difference.member().to_owned(), difference.problem());
                Err(ConfigurationProblem::Registered { member, problem }.into())
            }
            None => self.client_despite_differences(),
        }
    }

    /// Like [`client`](Self::client), whatever the OP registered. Use it only for OPs that do not act as their
    /// registration says: a client that contradicts its registration fails while users sign in.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Registered`] for algorithms and a method of authentication that this crate does not
    /// support, and for a method whose secret the OP did not issue.
    pub fn client_despite_differences(&self) -> Result<ClientBuilder, Error> {
        let metadata = self.metadata();
        let mut builder = self.authenticated(Client::builder(self.issuer(), self.client_id()))?;
        let requested = self.requested().redirect_uris();
        let registered = metadata.redirect_uris();
        let redirect_uri = requested.iter().find(|uri| registered.contains(uri)).or(requested.first());
        if let Some(redirect_uri) = redirect_uri.or(registered.first()) {
            builder = builder.redirect_uri(*redirect_uri);
        } else if metadata.is_for_backchannel() {
            builder = builder.without_redirect_uri();
        }
        let requested = self.requested().post_logout_redirect_uris();
        let registered = metadata.post_logout_redirect_uris();
        let return_uri = requested.iter().find(|uri| registered.contains(uri)).or(registered.first());
        builder = return_uri.into_iter().fold(builder, |builder, uri| builder.post_logout_redirect_uri(*uri));
        if metadata.is_for_backchannel() {
            let mode = metadata.backchannel_token_delivery_mode().and_then(DeliveryMode::from_name);
            builder = builder.backchannel_token_delivery_mode(mode.unwrap_or_default());
        }
        if metadata.get("backchannel_authentication_request_signing_alg").is_some() {
            builder = builder.signed_backchannel_authentication_requests();
        }
        match (self.response_type(), metadata.dialect()) {
            // In this dialect the OP defers its answer to an ordinary code.
            (Some(ResponseType::Code), Some(dialect @ Dialect::Ietf)) => {
                builder = builder.dialect(dialect).response_type(ResponseType::DeferredCodeOrCode);
            }
            (Some(response_type), _) => builder = builder.response_type(response_type),
            (None, _) => {}
        }
        builder = builder.algorithms(self.algorithms()?);
        if let Some(max_age) = metadata.default_max_age() {
            builder = builder.default_max_age(max_age);
        }
        if metadata.require_auth_time() {
            builder = builder.require_auth_time();
        }
        if metadata.require_signed_request_object() {
            builder = builder.require_signed_request_object();
        }
        if metadata.tls_client_certificate_bound_access_tokens() {
            builder = builder.certificate_bound_access_tokens();
        }
        if metadata.require_pushed_authorization_requests() {
            builder = builder.pushed_authorization_requests();
        }
        Ok(builder)
    }

    fn authenticated(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, Error> {
        let method = self.metadata().token_endpoint_auth_method().unwrap_or(DEFAULT_METHOD);
        let algorithm = self.metadata().token_endpoint_auth_signing_alg();
        let member = "token_endpoint_auth_method";
        if !METHODS.contains(&method) {
            return Err(registered(member, "the OP expects an authentication method that this crate does not support"));
        }
        let secret = self.client_secret().cloned();
        let issued = || {
            secret.clone().ok_or_else(|| registered(member, "the method needs a client secret, and the OP issued none"))
        };
        let authentication = match method {
            "none" => ClientAuthentication::none(),
            "client_secret_basic" => ClientAuthentication::client_secret_basic(issued()?),
            "client_secret_post" => ClientAuthentication::client_secret_post(issued()?),
            "client_secret_jwt" => match algorithm {
                Some(algorithm) => ClientAuthentication::client_secret_jwt_with(issued()?, algorithm),
                None => ClientAuthentication::client_secret_jwt(issued()?),
            },
            _ => {
                // The secret can still be the key of ID Tokens.
                builder = secret.into_iter().fold(builder, ClientBuilder::client_secret);
                return Ok(builder.registered_method(RegisteredMethod { method: method.to_owned(), algorithm }));
            }
        };
        if method == "none" {
            builder = secret.into_iter().fold(builder, ClientBuilder::client_secret);
        } else if let Some(expiry) = self.client_secret_expires_at() {
            builder = builder.secret_expires_at(expiry);
        }
        Ok(builder.authentication(authentication))
    }

    /// The first response type that was requested and is registered.
    fn response_type(&self) -> Option<ResponseType> {
        let listed = self.requested().response_types();
        let kinds = listed.into_iter().filter_map(|listed| {
            let named = |kind: &ResponseType| {
                super::metadata::words(super::metadata::named(*kind)) == super::metadata::words(listed)
            };
            ResponseType::ALL.into_iter().find(named)
        });
        let kinds: Vec<_> = kinds.collect();
        kinds.iter().copied().find(|kind| self.metadata().allows_response_type(*kind)).or(kinds.first().copied())
    }

    /// The registered algorithms of what the OP sends. Requests are encrypted only if the application wants that.
    fn algorithms(&self) -> Result<ClientAlgorithms, Error> {
        let signature = |member| self.named(member, SigningAlgorithm::from_name);
        let mut algorithms = ClientAlgorithms::new();
        algorithms.id_token_signature = signature("id_token_signed_response_alg")?;
        algorithms.id_token_encryption =
            self.encryption("id_token_encrypted_response_alg", "id_token_encrypted_response_enc")?;
        algorithms.userinfo_signature = signature("userinfo_signed_response_alg")?;
        algorithms.userinfo_encryption =
            self.encryption("userinfo_encrypted_response_alg", "userinfo_encrypted_response_enc")?;
        algorithms.authorization_signature = signature("authorization_signed_response_alg")?;
        // Without a decryption key the client could not be built. What was not requested concerns only JWT responses.
        if self.requested().get("authorization_encrypted_response_alg").is_some() {
            algorithms.authorization_encryption =
                self.encryption("authorization_encrypted_response_alg", "authorization_encrypted_response_enc")?;
        }
        Ok(algorithms)
    }

    /// OpenID Connect Dynamic Client Registration 1.0 §2: "When id_token_encrypted_response_enc is included,
    /// id_token_encrypted_response_alg MUST also be provided."
    fn encryption(&self, alg: &'static str, enc: &'static str) -> Result<Option<Encryption>, Error> {
        let content = self.named(enc, ContentEncryptionAlgorithm::from_name)?;
        match (self.named(alg, KeyManagementAlgorithm::from_name)?, content) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(registered(enc, "it is registered without an algorithm for the key")),
            (Some(alg), None) => Ok(Some(Encryption::new(alg))),
            (Some(alg), Some(enc)) => Ok(Some(Encryption::new(alg).content(enc))),
        }
    }

    fn named<T>(&self, member: &'static str, find: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
        let Some(name) = self.metadata().text(member) else { return Ok(None) };
        find(name).map(Some).ok_or_else(|| registered(member, "this crate does not support the algorithm"))
    }
}

fn registered(member: &str, problem: &'static str) -> Error {
    ConfigurationProblem::Registered { member: member.to_owned(), problem }.into()
}
