//! What access tokens are for: UserInfo and a protected resource.

use http::header;
use serde_json::{Value, json};

use super::keys;
use super::op::{Role, Turn};
use super::record::RequestRule;
use super::wire::{Rejection, Reply};

impl Turn<'_> {
    /// OpenID Connect Core §5.3.
    pub(super) fn userinfo(&mut self) -> Result<Reply, Rejection> {
        let process = self.authorized()?;
        let record = &self.state.processes[process];
        let mut claims = record.user.claims.clone();
        claims.insert("sub".into(), json!(record.user.sub));
        let client = self.state.clients[&record.client_id].clone();
        if !client.signed_userinfo {
            return Ok(Reply::json(200, &Value::Object(claims)));
        }
        claims.insert("iss".into(), json!(self.op.settings.issuer));
        claims.insert("aud".into(), json!(client.id));
        let token = self.signed(&client, &Value::Object(claims));
        Ok(Reply::new(200, "application/jwt", token).with(header::CACHE_CONTROL, "no-store"))
    }

    /// Repeats method, path, query and body.
    pub(super) fn resource(&mut self) -> Result<Reply, Rejection> {
        let process = self.authorized()?;
        let sub = self.state.processes[process].user.sub.clone();
        Ok(Reply::json(
            200,
            &json!({
                "method": self.request.method.as_str(),
                "query": self.request.url.query(),
                "body": String::from_utf8_lossy(&self.request.body),
                "sub": sub,
            }),
        ))
    }

    /// The process whose access token the request carries (RFC 6750 §2.1, RFC 9449 §7.1).
    fn authorized(&mut self) -> Result<usize, Rejection> {
        let header = self.request.header(header::AUTHORIZATION).unwrap_or_default();
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        let now = self.op.clock.monotonic();
        let found = self.state.access_tokens.get(token).filter(|found| !found.is_early && now < found.expires_at);
        let Some((process, key)) = found.map(|found| (found.process, found.key.clone())) else {
            return Err(Rejection::new(401, "invalid_token", RequestRule::AccessTokenInvalid, "")
                .header(header::WWW_AUTHENTICATE, "DPoP error=\"invalid_token\""));
        };
        let expected = if key.is_some() { "DPoP" } else { "Bearer" };
        if !scheme.eq_ignore_ascii_case(expected) {
            // RFC 9449 §7.2: a bound token must not be accepted as a bearer token.
            return Err(Rejection::new(401, "invalid_token", RequestRule::AccessTokenScheme, scheme)
                .header(header::WWW_AUTHENTICATE, "DPoP error=\"invalid_token\""));
        }
        if let Some(key) = key {
            let token = token.to_owned();
            let proven = self.proof(Role::Resource, Some(&token))?;
            self.check_binding(Role::Resource, proven, true, Some(&key))?;
        }
        Ok(process)
    }

    /// RFC 7009: the answer is the same whether the token was known or not.
    pub(super) fn revocation(&mut self) -> Result<Reply, Rejection> {
        let form = self.request.form()?;
        let client = self.client(&form)?;
        let token = form.required("token")?;
        let access = self.state.access_tokens.get(token).map(|found| found.process);
        let refresh = self.state.refresh_tokens.get(token).map(|found| found.process);
        if let Some(process) = access.or(refresh) {
            if self.state.processes[process].client_id != client.id {
                return Err(Rejection::bad("invalid_grant", RequestRule::ForeignGrant, client.id.as_str()));
            }
            self.state.access_tokens.remove(token);
            self.state.refresh_tokens.remove(token);
        }
        Ok(Reply::new(200, "", ""))
    }

    /// DTR §Authentication Cancellation Request Validation.
    pub(super) fn cancellation(&mut self) -> Result<Reply, Rejection> {
        let form = self.request.form()?;
        let client = self.client(&form)?;
        let id = form.required("deferred_auth_id")?;
        let done = Reply::new(200, "application/json", "").with(header::CACHE_CONTROL, "no-store");
        let Some(process) = self.state.process_by_id(id) else {
            // "… or if the RP submitted an invalid or already-processed `deferred_auth_id`."
            self.violate(RequestRule::UnknownDeferredAuthId, "");
            return Ok(done);
        };
        if self.state.processes[process].client_id != client.id {
            self.violate(RequestRule::ForeignGrant, client.id);
            return Ok(done);
        }
        let key = self.state.processes[process].key.clone();
        self.grant_proof(false, key.as_deref())?;
        let record = &mut self.state.processes[process];
        record.decide(self.op.clock.monotonic());
        if record.decision.is_none() {
            record.cancelled = true;
            self.op.decide(self.state, process, super::process::Decision::Denied("the process was cancelled".into()));
        }
        Ok(done)
    }
}

/// The thumbprint of a JWK, for tests that want to compare it with `dpop_jkt`.
///
/// ```
/// let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
/// let thumbprint = openid_deferred::testing::jwk_thumbprint(jwk).unwrap();
/// assert_eq!(thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
/// ```
pub fn jwk_thumbprint(jwk: &str) -> Option<String> {
    keys::thumbprint(&serde_json::from_str(jwk).ok()?)
}
