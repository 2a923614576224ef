//! The revocation endpoint.

use super::client::TestClient;
use super::dialect::{CODE_TYPE, Dialect};
use super::op::Handler;
use super::process::Decision;
use super::record::RequestRule;
use super::settings::ProofNeed;
use super::wire::{Parameters, Rejection, Reply};

impl Handler<'_> {
    /// RFC 7009: the answer does not depend on whether the token was known.
    pub(super) fn revocation(&mut self) -> Result<Reply, Rejection> {
        let form = self.request.form()?;
        let client = self.client(&form)?;
        let token = form.required("token")?;
        if let Some(process) = self.state.process_in(Dialect::Ietf, token) {
            return self.revoke_code(&form, &client, process);
        }
        let is_known = self.state.access_tokens.contains_key(token) || self.state.refresh_tokens.contains_key(token);
        if self.op.settings.dialects.ietf && form.get("token_type_hint") == Some(CODE_TYPE) && !is_known {
            self.violate(RequestRule::UnknownDeferralCode, "");
            return Ok(Reply::new(200, "", ""));
        }
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

    /// IETF DTR §Cancellation. A repeated request does nothing more.
    fn revoke_code(&mut self, form: &Parameters, client: &TestClient, process: usize) -> Result<Reply, Rejection> {
        let done = Reply::new(200, "", "");
        if form.get("token_type_hint").is_some_and(|hint| hint != CODE_TYPE) {
            self.violate(RequestRule::InvalidParameter, "token_type_hint");
        }
        if self.op.settings.ietf.cannot_revoke_codes {
            self.violate(RequestRule::CodeRevocationUnlisted, "");
            return Ok(done);
        }
        if self.state.processes[process].client_id != client.id {
            return Err(Rejection::bad("invalid_grant", RequestRule::ForeignGrant, client.id.as_str()));
        }
        let key = self.state.processes[process].key.clone();
        self.grant_proof(ProofNeed::IfBound, key.as_deref())?;
        self.check_certificate_of(process)?;
        let now = self.op.clock.monotonic();
        let record = &mut self.state.processes[process];
        record.decide(now);
        // A success that was not delivered is suppressed.
        let is_open = matches!(record.decision, None | Some(Decision::Approved)) && !record.redeemed;
        if is_open && !record.has_expired(now) {
            record.cancelled = true;
            self.op.decide(self.state, process, Decision::Denied("the process was cancelled".into()));
        }
        Ok(done)
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
