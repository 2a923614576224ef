//! The Authentication Cancellation Endpoint.

use http::header;

use super::dialect::Dialect;
use super::op::Handler;
use super::process::Decision;
use super::record::RequestRule;
use super::settings::ProofNeed;
use super::wire::{Rejection, Reply};

impl Handler<'_> {
    /// DTR §Authentication Cancellation Request Validation.
    pub(super) fn cancellation(&mut self) -> Result<Reply, Rejection> {
        let in_json = self.op.settings.cancellation_in_json;
        if in_json && self.request.is_form() {
            // Clients cannot know this in advance, so it breaks no rule.
            return Ok(Reply::new(415, "application/json", r#"{"error":"invalid_request"}"#));
        }
        let form = if in_json { self.request.json_parameters()? } else { self.request.form()? };
        let client = self.client(&form)?;
        let id = form.required("deferred_auth_id")?;
        let done = Reply::new(200, "application/json", "").with(header::CACHE_CONTROL, "no-store");
        let Some(process) = self.state.process_in(Dialect::OpenId, id) else {
            // "… or if the RP submitted an invalid or already-processed `deferred_auth_id`."
            self.violate(RequestRule::UnknownDeferredAuthId, "");
            return Ok(done);
        };
        if self.state.processes[process].client_id != client.id {
            self.violate(RequestRule::ForeignGrant, client.id);
            return Ok(done);
        }
        let key = self.state.processes[process].key.clone();
        self.grant_proof(ProofNeed::IfBound, key.as_deref())?;
        let record = &mut self.state.processes[process];
        record.decide(self.op.clock.monotonic());
        if record.decision.is_none() {
            record.cancelled = true;
            self.op.decide(self.state, process, Decision::Denied("the process was cancelled".into()));
        }
        Ok(done)
    }
}
