//! RFC 9449 §7: calls a protected resource with the tokens of an outcome.

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use super::Client;
use super::authentication::TokenType;
use super::setting::setting;
use super::token_holder::{HeldTokens, TokenHolder};
use crate::endpoint::{Failure, Presentation, ResourceRequest, stated_error};
use crate::error::{ConfigurationProblem, Document, Error, Misuse};
use crate::transport::{ClientCertificate, HttpResponse};

/// The longest response in bytes. Applications fetch larger ones with their own HTTP client.
const RESOURCE_RESPONSE_LIMIT: usize = 16 * 1024 * 1024;

/// A request with an access token.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) document: Document,
    pub(super) body_limit: usize,
}

impl Client {
    /// Sends a request to a protected resource with the access token.
    ///
    /// If the token is bound to a key, the request has a DPoP proof. If it is bound to the client certificate, the
    /// connection presents that. A challenge for a nonce is answered once. Nonces of resource servers are kept
    /// separately from the OP's.
    ///
    /// Only `https:` URLs are called (or plain loopback ones if the client allows them), redirects are not followed,
    /// and the response has at most 16 MiB. Its status is not checked. If the resource refuses the request and says why
    /// in a challenge (RFC 6750 §3), the response's extensions contain an [`ErrorResponse`](crate::ErrorResponse).
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, authentication: &openid_deferred::Authentication)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// use openid_deferred::ErrorResponse;
    ///
    /// let request = http::Request::get("https://api.example/accounts").body(Default::default())?;
    /// let response = client.resource(authentication, request).await?;
    /// match response.extensions().get::<ErrorResponse>() {
    ///     Some(error) if error.code() == "insufficient_scope" => println!("ask for {:?}", error.scope()),
    ///     Some(error) => println!("refused: {error}"), // after `invalid_token`, `Client::refresh` may help
    ///     None => println!("{}: {} bytes", response.status(), response.body().len()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Misuse`](crate::ErrorKind::Misuse) without an access token, or with one of another client.
    /// - [`Misuse::NoDpopKey`](crate::error::Misuse::NoDpopKey) for a token of type `DPoP` that was issued although the
    ///   client sends no proofs.
    /// - [`Transport`](crate::ErrorKind::Transport) if no response arrived.
    /// - [`Configuration`](crate::ErrorKind::Configuration) for a URL that is not absolute or not `https:`, or that has
    ///   an address which [`refuse_private_addresses`](super::ClientBuilder::refuse_private_addresses) excludes.
    pub async fn resource(
        &self,
        tokens: &impl TokenHolder,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, Error> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| ConfigurationProblem::Setting {
            setting: "request",
            problem: "its URI is not an absolute URL",
        })?;
        self.0.urls.check_own(&url).map_err(|problem| problem.of_setting("request"))?;
        let call = Call {
            method: parts.method,
            url: &url,
            headers: parts.headers,
            body,
            document: Document::Resource,
            body_limit: RESOURCE_RESPONSE_LIMIT,
        };
        let sent = self.with_access_token(tokens.tokens(), call);
        let received = sent.await.map_err(|error| error.in_step("calling a protected resource"))?;
        let mut response = http::Response::new(received.body);
        if let Some(error) = stated_error(received.status, &received.headers) {
            response.extensions_mut().insert(error);
        }
        *response.status_mut() = received.status;
        *response.headers_mut() = received.headers;
        Ok(response)
    }

    pub(super) async fn with_access_token(
        &self,
        tokens: HeldTokens<'_>,
        call: Call<'_>,
    ) -> Result<HttpResponse, Error> {
        let Call { method, url, headers, body, document, body_limit } = call;
        self.check_ownership(tokens.issuer, tokens.client_id)?;
        // A token of another kind must not be sent to a resource.
        let access_token = tokens.access_token.filter(|_| tokens.token_type.is_some()).ok_or(Misuse::NoAccessToken)?;
        let request = ResourceRequest {
            method,
            url,
            document,
            headers,
            body,
            access_token,
            presentation: match (tokens.token_type, tokens.dpop_key) {
                (Some(TokenType::Dpop), Some(key)) => Presentation::Dpop(key),
                // As a bearer token it would be refused, and a server that should not have it would receive it.
                (Some(TokenType::Dpop), None) => return Err(Misuse::NoDpopKey.into()),
                _ if tokens.certificate_bound => Presentation::WithCertificate(self.token_certificate()?),
                _ => Presentation::Bearer,
            },
            timeout: self.0.options.request_timeout,
            body_limit,
        };
        self.0.endpoints.resource(request).await.map_err(|Failure { error, .. }| error)
    }

    /// The certificate that the OP binds this client's tokens to.
    fn token_certificate(&self) -> Result<&ClientCertificate, Error> {
        let problem = "the access token is bound to a certificate that this client does not have";
        self.0.credentials.certificate().ok_or_else(|| setting("client_certificate", problem))
    }
}
