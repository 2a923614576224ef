//! The revocation endpoint.

use super::op::Handler;
use super::record::RequestRule;
use super::wire::{Parameters, Rejection, Reply};

impl Handler<'_> {
    /// RFC 7009: the answer does not depend on whether the token was known.
    pub(super) fn revocation(&mut self) -> Result<Reply, Rejection> {
        let form = self.request.form()?;
        let client = self.client(&form)?;
        let token = form.required("token")?;
        self.check_hint(&form, token);
        let access = self.state.access_tokens.get(token).map(|found| (found.process, found.key.clone()));
        let refresh = self.state.refresh_tokens.get(token).map(|found| (found.process, found.key.clone()));
        let (process, key) = access.or(refresh).unzip();
        self.optional_proof(key.flatten().as_deref())?;
        if let Some(process) = process {
            if self.state.processes[process].client_id != client.id {
                return Err(Rejection::bad("invalid_grant", RequestRule::ForeignGrant, client.id.as_str()));
            }
            self.state.access_tokens.remove(token);
            self.state.refresh_tokens.remove(token);
        }
        Ok(Reply::new(200, "", ""))
    }

    /// RFC 7009 §2.1, RFC 7662 §2.1: a wrong hint is recorded, but the request is not refused.
    pub(super) fn check_hint(&mut self, form: &Parameters, token: &str) {
        let fits = match form.get("token_type_hint") {
            None => true,
            Some("access_token") => !self.state.refresh_tokens.contains_key(token),
            Some("refresh_token") => !self.state.access_tokens.contains_key(token),
            Some(_) => false,
        };
        if !fits {
            self.violate(RequestRule::InvalidParameter, "token_type_hint");
        }
    }
}
