//! Settings about backchannel authentication (CIBA).

use super::ClientBuilder;
use crate::client::delivery_mode::DeliveryMode;

impl ClientBuilder {
    /// Sets the token delivery mode that the client is registered for (`backchannel_token_delivery_mode`, CIBA §4);
    /// [`DeliveryMode::Poll`] unless set. If it is set, [`discover`](Self::discover) also checks that the OP supports
    /// [backchannel authentication](crate::Client::backchannel_authentication) with this mode and these settings.
    ///
    /// With [`DeliveryMode::Ping`] each request has a notification token: that of a poller that
    /// [receives pings](crate::poller::PollerBuilder::receives_pings), that of the
    /// [request](crate::ciba::AuthenticationRequest::notification_token), or that of the
    /// [client](Self::notification_token). With [`DeliveryMode::Poll`] none is sent. [`DeliveryMode::Push`] is an error.
    ///
    /// A client that needs no browser also sets [`without_redirect_uri`](Self::without_redirect_uri).
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// use openid_deferred::ciba::{DeliveryMode, UserHint};
    /// use openid_deferred::{Client, Outcome};
    ///
    /// # let op = TestProvider::builder().in_process().ciba().client(TestClient::secret_basic("teller", "secret")).start()?;
    /// let client = Client::builder(op.issuer(), "teller")
    ///     .client_secret("secret")
    ///     .without_redirect_uri()
    ///     .backchannel_token_delivery_mode(DeliveryMode::Poll)
    /// #   .http_client(op.http_client())
    ///     .discover()
    ///     .await?;
    /// let mut pending = client.backchannel_authentication(UserHint::login_hint("248289761001")).send().await?;
    /// # op.assert_clean();
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn backchannel_token_delivery_mode(mut self, mode: DeliveryMode) -> Self {
        self.options.backchannel_delivery = Some(mode);
        self
    }

    /// Signs every backchannel authentication request (CIBA §7.1.1), as a client must that is registered with a
    /// `backchannel_authentication_request_signing_alg`. Discovery refuses an OP that does not list the algorithm of the
    /// key. The key is that of [`request_object_signing_key`](Self::request_object_signing_key), or else that of client
    /// assertions.
    pub fn signed_backchannel_authentication_requests(mut self) -> Self {
        self.options.signed_backchannel_requests = true;
        self
    }

    /// Holds backchannel authentication to the rules of the FAPI-CIBA profile (Financial-grade API: Client Initiated
    /// Backchannel Authentication Profile, Implementer's Draft 1 §5.2.3), with the algorithms and bound tokens of
    /// [FAPI 2.0](Self::fapi2):
    ///
    /// - Every request is signed, as with
    ///   [`signed_backchannel_authentication_requests`](Self::signed_backchannel_authentication_requests).
    /// - The client authenticates with `private_key_jwt` or a certificate, and its assertions are for the issuer.
    /// - Tokens are bound to a DPoP key or the certificate. Other tokens are dropped, as with
    ///   [`drop_unbound_tokens`](Self::drop_unbound_tokens).
    /// - Every signature uses PS256, ES256 or Ed25519.
    /// - Every connection uses TLS.
    ///
    /// The profile is about clients in poll and ping mode; push mode is an error in any case. Settings that contradict
    /// these rules are an error when the client is built
    /// ([`ConfigurationProblem::Fapi`](crate::error::ConfigurationProblem::Fapi)), and an OP that does not support them
    /// is an error at discovery and before each request. Sign-ins in a browser have rules of their own:
    /// [`fapi2`](Self::fapi2).
    ///
    /// **These are rules, and no certification.** The profile of 2019 binds tokens to a certificate; binding them to a
    /// DPoP key is what FAPI 2.0 does.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// use openid_deferred::ciba::UserHint;
    /// use openid_deferred::{Client, SigningAlgorithm, SigningKey};
    ///
    /// let key = SigningKey::generate(SigningAlgorithm::Ps256)?;
    /// # let jwk = serde_json::to_string(&key.public_jwk())?;
    /// # let registered = TestClient::private_key_jwt("teller", &jwk).signing_algorithm("PS256");
    /// # let op = TestProvider::builder().in_process().fapi_ciba().client(registered).start()?;
    /// let client = Client::builder(op.issuer(), "teller")
    ///     .fapi_ciba()
    ///     .signing_key(key)
    ///     .without_redirect_uri()
    /// #   .http_client(op.http_client())
    ///     .discover()
    ///     .await?;
    /// let pending = client.backchannel_authentication(UserHint::login_hint("248289761001")).send().await?; // signed
    /// # drop(pending);
    /// # op.assert_clean();
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn fapi_ciba(mut self) -> Self {
        self.options.fapi_ciba = true;
        self
    }
}
