//! The introspection endpoint.

use std::time::Duration;

use serde_json::{Value, json};

use super::id_token::unix;
use super::op::Handler;
use super::record::RequestRule;
use super::wire::{Rejection, Reply};

impl Handler<'_> {
    /// RFC 7662: an unknown, expired, revoked or foreign token is not active, and the answer says nothing more.
    pub(super) fn introspection(&mut self) -> Result<Reply, Rejection> {
        let form = self.request.form()?;
        let client = self.client(&form)?;
        if client.is_public() {
            // RFC 7662 §2.1: "the endpoint MUST also require some form of authorization to access this endpoint".
            let detail = "a client that does not authenticate cannot ask about tokens";
            return Err(Rejection::new(401, "invalid_client", RequestRule::ClientAuthentication, detail));
        }
        let token = form.required("token")?;
        self.check_hint(&form, token);
        self.optional_proof(None)?;
        let now = self.op.clock.monotonic();
        let access = self.state.access_tokens.get(token).filter(|found| now < found.expires_at);
        let refresh = self.state.refresh_tokens.get(token).filter(|found| !found.used);
        let found = match (access, refresh) {
            (Some(access), _) => {
                let bound_to = (access.key.clone(), access.certificate.clone());
                Some((access.process, bound_to, Some(access.expires_at)))
            }
            (None, Some(refresh)) => Some((refresh.process, (refresh.key.clone(), None), None)),
            (None, None) => None,
        };
        let owned = found.filter(|(process, ..)| self.state.processes[*process].client_id == client.id);
        let Some((process, (key, certificate), expires_at)) = owned else {
            return Ok(Reply::json(200, &json!({ "active": false })));
        };
        let record = &self.state.processes[process];
        let mut response = json!({
            "active": true,
            "iss": self.op.settings.issuer,
            "client_id": client.id,
            "sub": record.user.sub,
        });
        if let Some(scope) = record.request.get("scope") {
            response["scope"] = json!(scope);
        }
        if let Some(expires_at) = expires_at {
            let left: Duration = expires_at.saturating_sub(now);
            response["exp"] = json!(unix(self.op.now() + left));
            response["token_type"] = Value::from(if key.is_some() { "DPoP" } else { "Bearer" });
        }
        if let Some(key) = key {
            response["cnf"] = json!({ "jkt": key });
        } else if let Some(certificate) = certificate {
            response["cnf"] = json!({ "x5t#S256": certificate });
        }
        Ok(Reply::json(200, &response))
    }
}
