//! The revocation endpoint.

use super::op::Turn;
use super::record::RequestRule;
use super::wire::{Rejection, Reply};

impl Turn<'_> {
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
}
