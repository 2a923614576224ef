//! Signed authorization requests (RFC 9101).

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::client::{RegisteredAuthentication, TestClient};
use super::keys::Jwt;
use super::op::Handler;
use super::record::RequestRule;
use super::wire::{Parameters, Rejection};

/// FAPI 2.0 Message Signing §5.3.1: the maximum age and the maximum lifetime.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);
/// FAPI 2.0 Security Profile §5.3.2: a time this far in the future is still accepted.
const CLOCK_SKEW: Duration = Duration::from_secs(10);

/// What a request object contains.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Signed {
    AuthorizationRequest,
    /// CIBA §7.1.1.
    BackchannelRequest,
}

impl Signed {
    /// The member of the metadata with the algorithms.
    pub(super) fn algorithms(self) -> &'static str {
        match self {
            Self::AuthorizationRequest => "request_object_signing_alg_values_supported",
            Self::BackchannelRequest => "backchannel_authentication_request_signing_alg_values_supported",
        }
    }

    /// The claims that have the client identifier.
    fn issuers(self) -> &'static [&'static str] {
        match self {
            Self::AuthorizationRequest => &["iss", "client_id"],
            Self::BackchannelRequest => &["iss"],
        }
    }
}

impl Handler<'_> {
    /// The parameters of an authorization request. If it has a request object, only those in it count. `outside` are
    /// those that may be next to it.
    pub(super) fn unpacked(&mut self, request: Parameters, outside: &[&str]) -> Result<Parameters, Rejection> {
        let Some(object) = request.get("request") else { return Ok(request) };
        let client_id = request.required("client_id")?;
        let Some(client) = self.state.clients.get(client_id).cloned() else {
            return Err(Rejection::bad("invalid_request", RequestRule::UnknownClient, client_id));
        };
        let parameters = self.verified_request(&client, object, Signed::AuthorizationRequest)?;
        if request
            .0
            .iter()
            .any(|(name, _)| !["client_id", "request"].contains(&name.as_str()) && !outside.contains(&name.as_str()))
        {
            self.violate(RequestRule::ParameterBesideRequest, "");
        }
        Ok(parameters)
    }

    /// Records that a request object was used. One that only led to a challenge for a DPoP nonce was not used.
    pub(super) fn use_up(&mut self, request: &mut Parameters) {
        let Some(position) = request.0.iter().position(|(name, _)| name == "jti") else { return };
        let (_, jti) = request.0.remove(position);
        let client_id = request.get("client_id").unwrap_or_default();
        self.state.seen_ids.insert(format!("request {client_id} {jti}"));
    }

    /// The error of a request without a request object, if it needs one.
    pub(super) fn unsigned(&self, request: &Parameters) -> Option<Rejection> {
        let client = request.get("client_id").and_then(|id| self.state.clients.get(id));
        let has_to_sign = self.op.settings.requires_signed || client.is_some_and(TestClient::has_to_sign);
        let is_unsigned = has_to_sign && request.get("request").is_none();
        is_unsigned.then(|| Rejection::bad("invalid_request", RequestRule::NotSigned, ""))
    }

    /// RFC 9101 §6, with the additional requirements of FAPI 2.0 Message Signing §5.3.1.
    pub(super) fn verified_request(
        &mut self,
        client: &TestClient,
        object: &str,
        signed: Signed,
    ) -> Result<Parameters, Rejection> {
        let decrypted;
        let object = match (&client.request_object_encryption, signed) {
            (None, _) | (_, Signed::BackchannelRequest) => object,
            (Some(encryption), Signed::AuthorizationRequest) => {
                let keys = self.state.decryption_keys();
                decrypted = keys.decrypt(object, &encryption.alg, &encryption.enc).map_err(invalid)?;
                &decrypted
            }
        };
        let jwt = Jwt::parse(object).ok_or_else(|| invalid("not a signed JWT"))?;
        if jwt.header.get("typ").and_then(Value::as_str) != Some("oauth-authz-req+jwt") {
            return Err(invalid("`typ` is not `oauth-authz-req+jwt`"));
        }
        let algorithm = jwt.header.get("alg").and_then(Value::as_str).unwrap_or_default();
        if !self.op.settings.allows(algorithm) {
            return Err(Rejection::bad("invalid_request_object", RequestRule::FapiAlgorithm, "request object"));
        }
        if !self.lists(signed.algorithms(), algorithm) {
            return Err(invalid("`alg` is none of those advertised"));
        }
        if !client.signature_keys().any(|key| jwt.verifies(key)) {
            return Err(invalid("the signature does not verify with a key of the client"));
        }
        for claim in signed.issuers() {
            if jwt.claim(claim) != Some(client.id.as_str()) {
                return Err(invalid(&format!("`{claim}` is not `{}`", client.id)));
            }
        }
        let issuer = Value::from(self.op.settings.issuer.as_str());
        let is_for_us = match jwt.claims.get("aud") {
            Some(Value::Array(audiences)) => audiences.contains(&issuer),
            audience => audience == Some(&issuer),
        };
        if !is_for_us {
            return Err(invalid("`aud` is not the issuer"));
        }
        check_times(&jwt, self.op.now().duration_since(UNIX_EPOCH).unwrap_or_default())?;
        if ["sub", "request", "request_uri"].iter().any(|&name| jwt.claims.contains_key(name)) {
            return Err(invalid("it has a claim that no request object may have (RFC 9101 §4 and §10.8)"));
        }
        let jti = jwt.claim("jti").ok_or_else(|| invalid("`jti` is missing"))?;
        if self.state.seen_ids.contains(&format!("request {} {jti}", client.id)) {
            return Err(Rejection::bad("invalid_request_object", RequestRule::RequestObjectReplayed, ""));
        }
        let of_the_jwt = ["iss", "aud", "exp", "nbf", "iat"];
        let claims = jwt.claims.iter().filter(|(name, _)| !of_the_jwt.contains(&name.as_str()));
        Ok(Parameters(claims.flat_map(|(name, value)| parameters(name, value)).collect()))
    }
}

fn invalid(detail: &str) -> Rejection {
    Rejection::bad("invalid_request_object", RequestRule::RequestObjectInvalid, detail)
}

/// Checks `nbf` and `exp`.
fn check_times(jwt: &Jwt, now: Duration) -> Result<(), Rejection> {
    let time = |name: &str| jwt.claims.get(name).and_then(Value::as_u64).map(Duration::from_secs);
    let (Some(not_before), Some(expires_at)) = (time("nbf"), time("exp")) else {
        return Err(invalid("`nbf` or `exp` is missing"));
    };
    if not_before > now + CLOCK_SKEW || now > not_before + LONGEST_LIFE {
        return Err(invalid("`nbf` lies in the future or too far back"));
    }
    if expires_at > not_before + LONGEST_LIFE {
        return Err(invalid("`exp` lies too far ahead"));
    }
    if expires_at <= now {
        // The user took too long, which is not a mistake of the client.
        return Err(Rejection::innocent("invalid_request_object", "it has expired"));
    }
    Ok(())
}

impl TestClient {
    fn has_to_sign(&self) -> bool {
        self.requires_signed || self.request_object_encryption.is_some()
    }

    /// The keys that verify its signatures.
    fn signature_keys(&self) -> impl Iterator<Item = &Value> {
        let of_assertions = match &self.authentication {
            RegisteredAuthentication::PrivateKeyJwt(key) => Some(key),
            _ => None,
        };
        let registered = self.jwks["keys"].as_array().into_iter().flatten();
        of_assertions.into_iter().chain(registered.filter(|key| key["use"] != "enc"))
    }
}

/// Converts a claim to the parameters that it represents.
fn parameters(name: &str, value: &Value) -> Vec<(String, String)> {
    let parameter = |value: &Value| (name.to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    match value {
        Value::Array(values) if name == "resource" => values.iter().map(parameter).collect(),
        value => vec![parameter(value)],
    }
}
