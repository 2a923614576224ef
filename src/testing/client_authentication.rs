//! Client authentication (OpenID Connect Core §9).

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header;
use serde_json::Value;

use super::client::{RegisteredAuthentication, TestClient};
use super::keys::Jwt;
use super::op::Handler;
use super::record::RequestRule;
use super::wire::{Parameters, Rejection};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The longest time until an assertion's `exp`.
const LONGEST_ASSERTION: Duration = Duration::from_secs(600);

impl Handler<'_> {
    /// The client, after it has authenticated by exactly its registered method.
    pub(super) fn client(&mut self, form: &Parameters) -> Result<TestClient, Rejection> {
        let client = self.registered_client_of(form);
        if !self.op.settings.ietf.is_the_demo {
            return client;
        }
        // The demo of the IETF draft's authors has another answer to this.
        client.map_err(|rejection| match rejection.error {
            "invalid_client" => Rejection { status: 400, error: "invalid_request", headers: Vec::new(), ..rejection },
            _ => rejection,
        })
    }

    fn registered_client_of(&mut self, form: &Parameters) -> Result<TestClient, Rejection> {
        let client = self.authenticated_client(form)?;
        if self.op.settings.fapi && !client.authentication.is_asymmetric() {
            return Err(Rejection::new(401, "invalid_client", RequestRule::FapiAuthentication, ""));
        }
        self.check_certificate_binding(&client)?;
        if client.authentication.has_secret() && self.has_expired_secret(&client.id) {
            return Err(Rejection::new(401, "invalid_client", RequestRule::ClientSecretExpired, &client.id));
        }
        self.check_registered(&client.id, form)?;
        Ok(client)
    }

    fn authenticated_client(&mut self, form: &Parameters) -> Result<TestClient, Rejection> {
        // An early access token uses the header, so the client authenticates in the body.
        let is_token = |value: &&str| self.op.settings.early_access_token && value.starts_with("DPoP ");
        let header = self.request.header(header::AUTHORIZATION).filter(|value| !is_token(value));
        let basic = header.map(basic_credentials);
        let ways = [
            basic.is_some(),
            form.get("client_secret").is_some(),
            form.get("client_assertion").or(form.get("client_assertion_type")).is_some(),
        ];
        if ways.iter().filter(|&&used| used).count() > 1 {
            return Err(Rejection::bad("invalid_request", RequestRule::SeveralAuthentications, ""));
        }
        if form.get("client_assertion_type").is_some() && form.get("client_assertion").is_none() {
            return Err(refused("`client_assertion_type` without a `client_assertion`"));
        }
        let (id, presented) = match (basic, form.get("client_secret"), form.get("client_assertion")) {
            (Some(Some((id, secret))), _, _) => (id, RegisteredAuthentication::SecretBasic(secret)),
            (Some(None), _, _) => return Err(refused("`Authorization` is no Basic credential").basic_challenge()),
            (_, Some(secret), _) => {
                (form.required("client_id")?.to_owned(), RegisteredAuthentication::SecretPost(secret.to_owned()))
            }
            (_, _, Some(assertion)) => return self.client_by_assertion(form, assertion),
            _ => (form.required("client_id")?.to_owned(), RegisteredAuthentication::None),
        };
        let by_header = matches!(presented, RegisteredAuthentication::SecretBasic(_));
        let refused_here = |detail| if by_header { refused(detail).basic_challenge() } else { refused(detail) };
        if form.get("client_id").is_some_and(|stated| stated != id) {
            return Err(refused_here("`client_id` is not the authenticated client"));
        }
        let Some(client) = self.state.clients.get(&id).cloned() else {
            return Err(refused_here("no such client"));
        };
        let by_certificate = presented == RegisteredAuthentication::None && self.certificate_authenticates(&client)?;
        match by_certificate || client.authentication == presented {
            true => Ok(client),
            false => Err(refused_here("not the registered method or not the registered secret")),
        }
    }

    /// RFC 7523 §3 and OpenID Connect Core §9, with the issuer or the token endpoint as the only audience.
    fn client_by_assertion(&mut self, form: &Parameters, assertion: &str) -> Result<TestClient, Rejection> {
        let invalid =
            |detail: &str| Rejection::new(401, "invalid_client", RequestRule::AssertionInvalid, detail.to_owned());
        if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
            return Err(invalid("`client_assertion_type`"));
        }
        let jwt = Jwt::parse(assertion).ok_or_else(|| invalid("not a JWT"))?;
        let id = jwt.claim("sub").ok_or_else(|| invalid("`sub` is missing"))?;
        if jwt.claim("iss") != Some(id) || form.get("client_id").is_some_and(|stated| stated != id) {
            return Err(invalid("`iss`, `sub` and `client_id` differ"));
        }
        let client = self.state.clients.get(id).cloned().ok_or_else(|| refused("no such client"))?;
        let verifies = match &client.authentication {
            RegisteredAuthentication::PrivateKeyJwt(key) => jwt.verifies(key),
            RegisteredAuthentication::SecretJwt(secret) => jwt.verifies_with_secret(secret.as_bytes()),
            _ => return Err(refused("the client is not registered with a method that has assertions")),
        };
        if !verifies {
            return Err(invalid("the signature does not verify"));
        }
        let algorithm = jwt.header.get("alg").and_then(Value::as_str).unwrap_or_default();
        if !self.op.settings.allows(algorithm) {
            return Err(Rejection::new(401, "invalid_client", RequestRule::FapiAlgorithm, "client assertion"));
        }
        if !self.lists("token_endpoint_auth_signing_alg_values_supported", algorithm) {
            return Err(invalid("`alg` is none of those advertised"));
        }
        let (audience, problem) = match self.op.settings.assertions_for_token_endpoint {
            true => (self.op.url("/token"), "`aud` is not the token endpoint as one string"),
            false => (self.op.settings.issuer.clone(), "`aud` is not the issuer as one string"),
        };
        if jwt.claims.get("aud") != Some(&Value::from(audience)) {
            return Err(invalid(problem));
        }
        let now = self.op.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = jwt.claims.get("exp").and_then(Value::as_u64).map(Duration::from_secs);
        if !expiry.is_some_and(|expiry| now < expiry && expiry <= now + LONGEST_ASSERTION) {
            return Err(invalid("`exp` is missing, past or too far ahead"));
        }
        if jwt.claims.get("iat").and_then(Value::as_u64).is_some_and(|issued| issued > now.as_secs() + 60) {
            return Err(invalid("`iat` is in the future"));
        }
        if jwt.claims.get("nbf").is_some_and(|time| time.as_u64().is_none_or(|time| time > now.as_secs() + 60)) {
            return Err(invalid("`nbf` is no time, or in the future"));
        }
        let jti = jwt.claim("jti").ok_or_else(|| invalid("`jti` is missing"))?;
        if !self.state.seen_ids.insert(format!("assertion {id} {jti}")) {
            return Err(Rejection::new(401, "invalid_client", RequestRule::AssertionReplayed, ""));
        }
        Ok(client)
    }
}

impl RegisteredAuthentication {
    fn is_asymmetric(&self) -> bool {
        matches!(self, Self::PrivateKeyJwt(_) | Self::TlsClientAuth(_) | Self::SelfSignedTlsClientAuth(_))
    }
}

fn refused(detail: &str) -> Rejection {
    Rejection::new(401, "invalid_client", RequestRule::ClientAuthentication, detail)
}

impl Rejection {
    /// RFC 6749 §5.2: adds a challenge, if the client used the `Authorization` header.
    fn basic_challenge(self) -> Self {
        self.header(header::WWW_AUTHENTICATE, "Basic realm=\"token\", charset=\"UTF-8\"")
    }
}

/// RFC 6749 §2.3.1: identifier and secret are form-urlencoded and then joined by a colon.
fn basic_credentials(header: &str) -> Option<(String, String)> {
    let (scheme, credentials) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decoded(id)?, form_decoded(secret)?))
}

/// Decodes form-urlencoded text. `None` if it is not encoded.
fn form_decoded(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"*-._+%".contains(&byte)) {
        return None;
    }
    let pair = format!("v={text}");
    form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_decoded_from_base64_and_from_the_form_encoding() {
        let header = format!("Basic {}", STANDARD.encode("s6BhdRkqt3:7Fjfp+0%3A%2B%25"));
        assert_eq!(basic_credentials(&header).unwrap(), ("s6BhdRkqt3".into(), "7Fjfp 0:+%".into()));
    }

    #[test]
    fn credentials_that_are_not_form_encoded_are_refused() {
        let header = format!("Basic {}", STANDARD.encode("client:a secret/with=signs"));
        assert_eq!(basic_credentials(&header), None);
    }
}
