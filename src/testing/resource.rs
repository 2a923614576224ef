//! The endpoints that accept access tokens: UserInfo and a protected resource.

use http::header;
use serde_json::{Value, json};

use super::op::Handler;
use super::record::RequestRule;
use super::settings::ProofNeed;
use super::state::Role;
use super::wire::{Rejection, Reply};

impl Handler<'_> {
    /// OpenID Connect Core §5.3.
    pub(super) fn userinfo(&mut self) -> Result<Reply, Rejection> {
        self.request.check_method("GET, POST")?;
        let process = self.authorized()?;
        let record = &self.state.processes[process];
        let mut claims = record.user.claims.clone();
        claims.insert("sub".into(), json!(record.user.sub));
        let client = self.state.clients[&record.client_id].clone();
        if !client.signed_userinfo && client.userinfo_encryption.is_none() {
            return Ok(Reply::json(200, &Value::Object(claims)));
        }
        let inside = if client.signed_userinfo {
            // The user's claims can override these, as in ID Tokens.
            claims.entry("iss").or_insert(json!(self.op.settings.issuer));
            claims.entry("aud").or_insert(json!(client.id));
            self.signed(&client, &Value::Object(claims))
        } else {
            Value::Object(claims).to_string()
        };
        let token = self.encrypted(&client, client.userinfo_encryption.as_ref(), inside);
        Ok(Reply::new(200, "application/jwt", token).with(header::CACHE_CONTROL, "no-store"))
    }

    /// Returns the method, query and body of the request.
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

    /// The sign-in that the request's access token belongs to (RFC 6750 §2.1, RFC 9449 §7.1).
    fn authorized(&mut self) -> Result<usize, Rejection> {
        if self.request.parameters().get("access_token").is_some() {
            // RFC 6750 §2: "Clients MUST NOT use more than one method to transmit the token in each request."
            return Err(Rejection::bad("invalid_request", RequestRule::TokenInQuery, "access_token"));
        }
        let header = self.request.header(header::AUTHORIZATION).unwrap_or_default();
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        let now = self.op.clock.monotonic();
        let found = self.state.access_tokens.get(token).filter(|found| !found.is_early && now < found.expires_at);
        let found = found.map(|found| (found.process, found.key.clone(), found.certificate.clone()));
        let Some((process, key, certificate)) = found else {
            return Err(Rejection::new(401, "invalid_token", RequestRule::AccessTokenInvalid, "")
                .header(header::WWW_AUTHENTICATE, "DPoP error=\"invalid_token\""));
        };
        let expected = if key.is_some() { "DPoP" } else { "Bearer" };
        if !scheme.eq_ignore_ascii_case(expected) {
            // RFC 9449 §7.2: a bound token must not be accepted as a bearer token.
            return Err(Rejection::new(401, "invalid_token", RequestRule::AccessTokenScheme, scheme)
                .header(header::WWW_AUTHENTICATE, "DPoP error=\"invalid_token\""));
        }
        if let Some(certificate) = certificate {
            if self.certificate_thumbprint() != Some(certificate) {
                return Err(Rejection::new(401, "invalid_token", RequestRule::CertificateChanged, "")
                    .header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""));
            }
            self.must_use_alias();
        }
        if let Some(key) = key {
            let token = token.to_owned();
            let proven = self.proof(Role::Resource, Some(&token))?;
            self.check_binding(Role::Resource, proven, ProofNeed::Always, Some(&key))?;
        } else if self.op.settings.supports_dpop && self.request.headers.contains_key("dpop") {
            self.violate(RequestRule::AccessTokenScheme, "a DPoP proof beside a token that is bound to no key");
        }
        Ok(process)
    }
}
