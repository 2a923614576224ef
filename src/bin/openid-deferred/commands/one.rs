//! The commands about one sign-in.

use clap::Args;
use openid_deferred::store::{Cancellation, ProcessId};
use serde_json::json;

use crate::Health;
use crate::failure::Failure;
use crate::location::Opened;
use crate::output::Output;

#[derive(Args)]
pub(crate) struct Sign {
    /// The identifier of the sign-in, as the logs (field `process`) and `list` show it.
    id: ProcessId,
}

impl Sign {
    pub(crate) async fn cancel(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let id = self.id;
        let failed = |error| Failure::store(format!("cannot cancel {id}"), &error);
        let (result, text) = match opened.store().cancel(id, Cancellation::Requested).await.map_err(failed)? {
            None => return Err(self.unknown()),
            Some(Cancellation::None) => ("too_late", "already has its outcome, which is delivered unchanged"),
            Some(Cancellation::Requested) => ("noted", "is cancelled; a replica tells the OP at the next poll"),
            Some(Cancellation::Told) => ("told", "is cancelled, and the OP knows it"),
        };
        output.print(&json!({ "id": id, "result": result }), || format!("{id} {text}"))?;
        Ok(Health::Well)
    }

    pub(crate) async fn forget(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let id = self.id;
        let failed = |error| Failure::store(format!("cannot forget {id}"), &error);
        if !opened.store().forget(id).await.map_err(failed)? {
            return Err(self.unknown());
        }
        output.print(&json!({ "id": id, "result": "erased" }), || format!("{id} is erased"))?;
        Ok(Health::Well)
    }

    fn unknown(&self) -> Failure {
        Failure::new(format!("the store has no sign-in {}", self.id)).advise(
            "see whether --store and --schema name the right store; a sign-in that ended is erased after some days",
        )
    }
}
