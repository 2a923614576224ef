//! RFC 9449 §7: calling a protected resource with the tokens of an outcome.

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use super::Client;
use super::authentication::{Authentication, TokenType};
use super::setting::setting;
use crate::endpoint::{Failure, Presentation, ResourceRequest, stated_error};
use crate::error::{ConfigurationProblem, Document, Error, Misuse};
use crate::transport::{ClientCertificate, HttpResponse};

/// More than an application should get through this door; larger things are fetched with its own HTTP client.
const RESOURCE_RESPONSE_LIMIT: usize = 16 * 1024 * 1024;

/// A request that an access token goes with.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) document: Document,
    pub(super) body_limit: usize,
}

impl Client {
    /// Sends a request to a protected resource with the access token, and with a DPoP proof where the token is bound
    /// to a key, or over a connection with the client certificate where it is bound to that. A challenge for a nonce is
    /// answered once; nonces of resource servers are kept apart from the OP's.
    ///
    /// Only `https:` URLs are called (or plain loopback ones where the client allows them), redirects are not followed,
    /// and the response has at most 16 MiB. Its status is not judged; where the resource refuses the request and says
    /// why in a challenge (RFC 6750 §3), the response's extensions have that as an
    /// [`ErrorResponse`](crate::ErrorResponse).
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
    /// [`Misuse`](crate::ErrorKind::Misuse) without an access token, with one of the type `DPoP` that came although the
    /// client sends no proofs ([`NoDpopKey`](crate::Misuse::NoDpopKey)), or with another client's;
    /// [`Transport`](crate::ErrorKind::Transport) where no response came;
    /// [`Configuration`](crate::ErrorKind::Configuration) for a URL that is not absolute or not `https:`, or at an address
    /// that [`refuse_private_addresses`](super::ClientBuilder::refuse_private_addresses) rules out.
    pub async fn resource(
        &self,
        authentication: &Authentication,
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
        let sent = self.with_access_token(authentication, call);
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
        authentication: &Authentication,
        call: Call<'_>,
    ) -> Result<HttpResponse, Error> {
        let Call { method, url, headers, body, document, body_limit } = call;
        let tokens = authentication.body();
        self.check_ownership(&tokens.issuer, &tokens.client_id)?;
        let access_token = tokens.access_token.as_ref().ok_or(Misuse::NoAccessToken)?;
        let request = ResourceRequest {
            method,
            url,
            document,
            headers,
            body,
            access_token,
            presentation: match (tokens.token_type, &tokens.dpop_key) {
                (TokenType::Dpop, Some(key)) => Presentation::Dpop(key),
                // Shown as a bearer token it would be refused, and given away to somebody who cannot tell.
                (TokenType::Dpop, None) => return Err(Misuse::NoDpopKey.into()),
                _ if tokens.certificate_bound => Presentation::WithCertificate(self.token_certificate()?),
                _ => Presentation::Bearer,
            },
            timeout: self.0.options.request_timeout,
            body_limit,
        };
        self.0.endpoints.resource(request).await.map_err(|Failure { error, .. }| error)
    }

    /// The certificate to which the OP binds this client's tokens.
    fn token_certificate(&self) -> Result<&ClientCertificate, Error> {
        let problem = "the access token is bound to a certificate, which this client does not have";
        self.0.credentials.certificate().ok_or_else(|| setting("client_certificate", problem))
    }
}
