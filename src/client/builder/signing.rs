//! Settings about signed and encrypted requests and responses, and the rules of FAPI 2.0.

use std::sync::Arc;

use super::ClientBuilder;
use crate::client::options::FapiProfile;
use crate::client::response_mode::ResponseMode;
use crate::jose::Signer;

impl ClientBuilder {
    /// Signs every authorization request (`require_signed_request_object`, RFC 9101 §10.5). The OP then knows who made
    /// it, and that it was not changed on the way.
    ///
    /// [`AuthorizationRequest::signed`](crate::AuthorizationRequest::signed) is for a single request. If the OP
    /// requires it, requests are signed without this setting.
    pub fn require_signed_request_object(mut self) -> Self {
        self.options.require_signed_request_object = true;
        self
    }

    /// Sets the key that authorization requests are signed with, in memory or behind any [`Signer`]; that of client
    /// assertions unless set. Its algorithm is the one that was registered as `request_object_signing_alg`.
    /// [`Client::jwks`](crate::Client::jwks) contains its public half.
    pub fn request_object_signing_key(mut self, signer: impl Signer + 'static) -> Self {
        self.credentials.request_object_signer = Some(Arc::new(signer));
        self
    }

    /// Sets how the OP returns authorization responses by default; in the query unless set. Discovery refuses an OP
    /// that does not list the mode.
    ///
    /// With [`ResponseMode::QueryJwt`], [`ResponseMode::FormPostJwt`] or [`ResponseMode::Jwt`] the response is a JWT
    /// that the OP signed (JARM), and a response in another form is refused.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// use openid_deferred::encryption::ClientAlgorithms;
    /// use openid_deferred::{Client, ResponseMode, SignIn, SigningAlgorithm};
    ///
    /// # let registered = TestClient::public("my-client").authorization_signed_response_alg("ES256");
    /// # let op = TestProvider::builder().in_process().client(registered).start()?;
    /// let client = Client::builder(op.issuer(), "my-client")
    ///     .response_mode(ResponseMode::QueryJwt)
    ///     .algorithms(ClientAlgorithms::new().authorization_signed_response_alg(SigningAlgorithm::Es256))
    ///     .redirect_uri("https://rp.example/callback")
    /// #   .http_client(op.http_client())
    ///     .discover()
    ///     .await?;
    /// let (url, session) = client.authorize().start().await?;
    /// let query = op.visit(url).query(); // response=eyJhbGciOiJFUzI1NiIs…
    /// let SignIn::Deferred(pending) = client.authorization_response(&query, session).await? else {
    ///     return Err("the OP answered at once".into());
    /// };
    /// # drop(pending);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn response_mode(mut self, response_mode: ResponseMode) -> Self {
        self.options.response_mode = Some(response_mode);
        self
    }

    /// Holds the client to the rules of the FAPI 2.0 Security Profile, as far as they apply to this flow:
    ///
    /// - Requests are pushed and have a PKCE challenge.
    /// - The client authenticates with `private_key_jwt` or a certificate.
    /// - Tokens are bound to a DPoP key or the certificate. Other tokens are dropped, as with
    ///   [`drop_unbound_tokens`](Self::drop_unbound_tokens).
    /// - Responses have to name their issuer.
    /// - Every signature uses PS256, ES256 or Ed25519.
    /// - Every connection uses TLS.
    ///
    /// Settings that contradict these rules are an error when the client is built
    /// ([`ConfigurationProblem::Fapi`](crate::error::ConfigurationProblem::Fapi)). An OP that does not support them is
    /// an error at discovery and before a sign-in starts. [`allow_unadvertised`](Self::allow_unadvertised) does not
    /// change that.
    ///
    /// **This is not FAPI conformance.** FAPI 2.0 covers only `response_type=code`. It says nothing about deferred
    /// codes, polls and pings, and no test suite for it covers them. It applies the same rules to another flow.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use openid_deferred::testing::{TestClient, TestProvider};
    /// use openid_deferred::{Client, SigningAlgorithm, SigningKey};
    ///
    /// let key = SigningKey::generate(SigningAlgorithm::Ps256)?;
    /// # let jwk = serde_json::to_string(&key.public_jwk())?;
    /// # let registered = TestClient::private_key_jwt("my-client", &jwk).signing_algorithm("PS256");
    /// # let op = TestProvider::builder().in_process().fapi2().client(registered).start()?;
    /// let client = Client::builder(op.issuer(), "my-client")
    ///     .fapi2()
    ///     .signing_key(key)
    ///     .redirect_uri("https://rp.example/callback")
    /// #   .http_client(op.http_client())
    ///     .discover()
    ///     .await?;
    /// let (url, session) = client.authorize().start().await?; // pushed
    /// # let _ = client.authorization_response(&op.visit(url).query(), session).await?;
    /// # op.assert_clean();
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "testing"))]
    /// # fn main() {}
    /// ```
    pub fn fapi2(mut self) -> Self {
        self.options.fapi.get_or_insert(FapiProfile::Security);
        self
    }

    /// Applies the rules of [`fapi2`](Self::fapi2) and those of FAPI 2.0 Message Signing for authorization requests and
    /// responses.
    ///
    /// Requests are [signed](Self::require_signed_request_object) before they are pushed. Responses are JWTs:
    /// [`ResponseMode::QueryJwt`], or its shorthand [`ResponseMode::Jwt`] if the OP lists only that, unless
    /// [`response_mode`](Self::response_mode) sets another one.
    ///
    /// Signed introspection responses and HTTP message signatures, which that profile has too, are not covered. What
    /// [`fapi2`](Self::fapi2) says about conformance applies here as well.
    pub fn fapi2_message_signing(mut self) -> Self {
        self.options.fapi = Some(FapiProfile::MessageSigning);
        self
    }
}
