//! The pushed authorization request endpoint (RFC 9126).

use serde_json::json;

use super::op::{Handler, Opaque};
use super::record::RequestRule;
use super::state::PushedRequest;
use super::wire::{Parameters, Rejection, Reply};

/// Parameters that authenticate the client.
const CREDENTIALS: [&str; 3] = ["client_secret", "client_assertion", "client_assertion_type"];

const PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

impl Handler<'_> {
    /// RFC 9126 §2.1 and §2.2; with a proof, RFC 9449 §10.1.
    pub(super) fn push(&mut self) -> Result<Reply, Rejection> {
        let mut request = self.request.form()?;
        let client = self.client(&request)?;
        if request.get("request_uri").is_some() {
            return Err(Rejection::bad("invalid_request", RequestRule::InvalidParameter, "request_uri"));
        }
        if request.required("client_id")? != client.id {
            return Err(Rejection::bad("invalid_request", RequestRule::InvalidParameter, "client_id"));
        }
        if let Some(rejection) = self.unsigned(&request) {
            return Err(rejection);
        }
        request = self.unpacked(request, &CREDENTIALS)?;
        self.redirect_target(&request)?;
        self.check_request(&request)?;
        let announced = request.get("dpop_jkt").map(str::to_owned);
        if let Some(key) = self.optional_proof(announced.as_deref())?
            && announced.is_none()
        {
            request.0.push(("dpop_jkt".into(), key));
        }
        self.use_up(&mut request);
        // The client's credentials are not part of the request.
        request.0.retain(|(name, _)| !CREDENTIALS.contains(&name.as_str()));
        let lifetime = self.op.settings.request_uri_lifetime;
        let request_uri = format!("{PREFIX}{}", self.op.opaque(Opaque::Uri));
        let expires_at = self.op.clock.monotonic() + lifetime;
        let pushed = PushedRequest { client_id: client.id, parameters: request, expires_at, used: false };
        self.state.pushed.insert(request_uri.clone(), pushed);
        Ok(Reply::json(201, &json!({ "request_uri": request_uri, "expires_in": lifetime.as_secs() })))
    }

    /// The authorization request from the browser, or the pushed one that it references, and the rule that it broke, if
    /// any.
    pub(super) fn pushed_or_plain(
        &mut self,
        request: Parameters,
    ) -> Result<(Parameters, Option<Rejection>), Rejection> {
        let Some(uri) = request.get("request_uri") else {
            let client = request.get("client_id").and_then(|id| self.state.clients.get(id));
            let has_to_push = self.op.settings.requires_pushed || client.is_some_and(|client| client.requires_pushed);
            let problem = has_to_push.then(|| Rejection::bad("invalid_request", RequestRule::NotPushed, ""));
            let problem = problem.or_else(|| self.unsigned(&request));
            let mut request = self.unpacked(request, &[])?;
            self.use_up(&mut request);
            return Ok((request, problem));
        };
        if request.0.iter().any(|(name, _)| !["client_id", "request_uri"].contains(&name.as_str())) {
            self.violate(RequestRule::ParameterBesideRequestUri, "");
        }
        let now = self.op.clock.monotonic();
        let client_id = request.required("client_id")?;
        let unknown = |detail: &str| Rejection::bad("invalid_request_uri", RequestRule::UnknownRequestUri, detail);
        let Some(pushed) = self.state.pushed.get_mut(uri).filter(|pushed| pushed.client_id == client_id) else {
            return Err(unknown("there is no such request of this client"));
        };
        let problem = match (std::mem::replace(&mut pushed.used, true), now < pushed.expires_at) {
            (true, _) => Some(unknown("it was used before")),
            // The user took too long, which is not a mistake of the client.
            (false, false) => Some(Rejection::innocent("invalid_request_uri", "it has expired")),
            (false, true) => None,
        };
        Ok((pushed.parameters.clone(), problem))
    }
}
