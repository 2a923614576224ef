//! RFC 9101: the authorization request as a JWT that the client signs, and encrypts if that was registered.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use url::Url;

use super::Client;
use super::request_values::check_extra;
use super::setting::setting;
use crate::clock::{saturating_add, unix_seconds};
use crate::error::{ConfigurationProblem, Error, ErrorKind, Misuse};
use crate::jose::{ContentEncryptionAlgorithm, KeyManagementAlgorithm, KeySet, Signer, sign_compact};
use crate::provider::ProviderMetadata;
use crate::random;
use crate::secret::Secret;

/// FAPI 2.0 Message Signing §5.3 allows an hour. The user is sent to the OP with the request at once.
const LIFETIME: Duration = Duration::from_secs(600);
/// The length that every HTTP server must support (RFC 9110 §4.1).
pub(super) const LONGEST_URL: usize = 8_000;
/// Claims about the JWT itself and not about the request. RFC 9101 §10.8 includes `sub`: with it, a request could be
/// passed off as a client assertion.
const CLAIMS: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

/// A signed request, and the time until which it is valid.
pub(super) struct RequestObject {
    pub(super) token: Secret,
    pub(super) expires_at: SystemTime,
}

impl Client {
    /// Whether requests of this client are signed: because the OP accepts no others, or because the client is
    /// configured for it.
    pub(super) fn signs_requests(&self, metadata: &ProviderMetadata) -> bool {
        self.0.options.signs_requests() || metadata.require_signed_request_object()
    }

    pub(super) fn request_object_signer(&self) -> Result<&Arc<dyn Signer>, Error> {
        let signer = self.0.credentials.request_object_signer();
        signer.ok_or_else(|| setting("request_object_signing_key", "requests must be signed; set a signing key"))
    }

    /// The checks of discovery: whether the OP accepts requests that are signed and encrypted like this client's.
    pub(super) async fn check_request_objects(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        const ALGORITHMS: &str = "request_object_signing_alg_values_supported";
        if !self.signs_requests(metadata) {
            return Ok(());
        }
        let algorithm = self.request_object_signer()?.algorithm();
        let allow_unadvertised = self.0.options.allow_unadvertised;
        let listed = metadata.request_object_signing_alg_values_supported();
        if !metadata.is_silent_about(ALGORITHMS)
            && !listed.iter().any(|listed| listed == algorithm.as_str())
            && !allow_unadvertised
        {
            let value = algorithm.as_str().to_owned();
            return Err(ConfigurationProblem::NotAdvertised { member: ALGORITHMS, value }.into());
        }
        // OpenID Connect Discovery 1.0 §3: "If omitted, the default value is false." RFC 9101 has no such member, so an
        // OP that lists algorithms may omit it. A pushed request does not depend on it (RFC 9126 §3).
        let by_value = metadata.request_parameter_supported().unwrap_or(!listed.is_empty());
        if !by_value && !self.pushes(metadata) && !allow_unadvertised {
            let (member, value) = ("request_parameter_supported", "true".to_owned());
            return Err(ConfigurationProblem::NotAdvertised { member, value }.into());
        }
        if let Some((alg, _)) = self.request_object_encryption() {
            self.keys_to_encrypt_for(alg).await?;
        }
        Ok(())
    }

    /// Whether the parameters can be part of a request object: some names are claims of the JWT itself.
    pub(super) fn check_request_object_parameters(&self, extra: &[(String, String)]) -> Result<(), Error> {
        check_extra(extra, &CLAIMS)
    }

    /// Signs the parameters, and encrypts the result if that was registered (RFC 9101 §4 and §6.1).
    pub(super) async fn request_object(&self, parameters: &[(&str, String)]) -> Result<RequestObject, Error> {
        let RequestObject { token: signed, expires_at } = self.signed_request(parameters).await?;
        let token = match self.request_object_encryption() {
            None => signed,
            Some((alg, enc)) => {
                let keys = self.keys_to_encrypt_for(alg).await?;
                let key = keys.encryption_key(alg).ok_or(ConfigurationProblem::NoEncryptionKey(alg.as_str()))?;
                Secret::new(key.encrypt(alg, enc, signed.expose())?)
            }
        };
        Ok(RequestObject { token, expires_at })
    }

    /// Signs the parameters (RFC 9101 §4; CIBA §7.1.1).
    pub(super) async fn signed_request(&self, parameters: &[(&str, String)]) -> Result<RequestObject, Error> {
        let signer = self.request_object_signer()?;
        let now = self.0.clock.now();
        let expires_at = saturating_add(now, LIFETIME.min(self.0.options.session_lifetime));
        let mut claims = request_claims(parameters);
        for (name, value) in [
            ("iss", json!(self.client_id())),
            // Only the issuer (RFC 9101 §4, FAPI 2.0 Message Signing §5.3.2).
            ("aud", json!(self.issuer())),
            ("iat", json!(unix_seconds(now))),
            ("nbf", json!(unix_seconds(now))),
            ("exp", json!(unix_seconds(expires_at))),
            ("jti", json!(random::base64url::<16>(&*self.0.random)?)),
        ] {
            claims.insert(name.to_owned(), value);
        }
        // RFC 9101 §10.8: an explicit type keeps a request from being taken for another kind of JWT.
        let header = Map::from_iter([("typ".to_owned(), json!("oauth-authz-req+jwt"))]);
        let token = tokio::select! {
            biased;
            signed = sign_compact(&**signer, header, &claims) => signed?,
            // A key management service that never answers must not keep the user waiting forever.
            () = self.0.clock.sleep(self.0.options.request_timeout) => {
                return Err(Error::new(ErrorKind::Signer).with_source("the signer timed out"));
            }
        };
        Ok(RequestObject { token, expires_at })
    }

    /// The algorithms that were registered for encrypting requests.
    fn request_object_encryption(&self) -> Option<(KeyManagementAlgorithm, ContentEncryptionAlgorithm)> {
        let registered = self.0.options.algorithms.request_object_encryption?;
        // OpenID Connect Registration 1.0 §2: "the default for this value is A128CBC-HS256".
        Some((registered.alg, registered.enc.unwrap_or(ContentEncryptionAlgorithm::A128CbcHs256)))
    }

    /// The OP's keys, if requests can be encrypted for one of them. They may have to be fetched again, because such a
    /// key may be new.
    async fn keys_to_encrypt_for(&self, alg: KeyManagementAlgorithm) -> Result<Arc<KeySet>, Error> {
        let fitting = self.0.provider.keys_to_encrypt_for(alg).await?;
        fitting.ok_or_else(|| ConfigurationProblem::NoEncryptionKey(alg.as_str()).into())
    }
}

impl RequestObject {
    /// The parameters of a signed request, in a URL or pushed to the OP (RFC 9101 §5 and RFC 9126 §3).
    pub(super) fn parameters(&self, client_id: &str) -> [(&'static str, String); 2] {
        [("client_id", client_id.to_owned()), ("request", self.token.expose().to_owned())]
    }

    /// The URL for the browser, with the signed request in it.
    ///
    /// # Errors
    ///
    /// [`Misuse::RequestTooLong`].
    pub(super) fn url(&self, metadata: &ProviderMetadata, client_id: &str) -> Result<Url, Error> {
        let mut url = metadata.authorization_url()?.clone();
        url.query_pairs_mut().extend_pairs(self.parameters(client_id));
        match url.as_str().len() {
            actual if actual > LONGEST_URL => Err(Misuse::RequestTooLong { actual, limit: LONGEST_URL }.into()),
            _ => Ok(url),
        }
    }
}

/// RFC 9101 §4: "Parameter names and string values MUST be included as JSON strings. [...] Numerical values MUST be
/// included as JSON numbers." JSON values are included unchanged (OpenID Connect Core 1.0 §6.1, RFC 9396 §3), and a
/// repeated parameter is an array (RFC 8707 §2).
fn request_claims(parameters: &[(&str, String)]) -> Map<String, Value> {
    let mut claims: Map<String, Value> = Map::new();
    for (name, text) in parameters {
        let value = match *name {
            "max_age" | "requested_expiry" => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
            "claims" | "authorization_details" => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
            _ => json!(text),
        };
        match claims.get_mut(*name) {
            None => drop(claims.insert((*name).to_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_json_types_in_the_request_object() {
        let text = |text: &str| text.to_owned();
        let claims = request_claims(&[
            ("scope", text("openid profile")),
            ("max_age", text("600")),
            ("claims", text(r#"{"id_token":{"acr":{"essential":true}}}"#)),
            ("authorization_details", text(r#"[{"type":"account"}]"#)),
            ("resource", text("https://one.example")),
            ("resource", text("https://two.example")),
            ("resource", text("https://three.example")),
            ("login_hint", text("12")),
        ]);
        let expected = json!({
            "scope": "openid profile",
            "max_age": 600,
            "claims": { "id_token": { "acr": { "essential": true } } },
            "authorization_details": [{ "type": "account" }],
            "resource": ["https://one.example", "https://two.example", "https://three.example"],
            "login_hint": "12",
        });
        assert_eq!(Value::Object(claims), expected);
    }
}
