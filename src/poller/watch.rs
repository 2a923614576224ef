//! What is looked after about once a minute: OPs that give no usable answers, rows that cannot be opened here, rows of
//! clients that the poller does not have, and deliveries that are held for too long.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Event;
use super::measure;
use super::reach::{REMIND_EVERY, Unreachable};
use super::record::FORMAT;
use super::shared::{Shared, store_error};
use super::tenant::Tenant;
use super::watch_memory::{Cause, WatchMemory};
use crate::error::{Error, ErrorResponse};
use crate::pending::{Answer, Reading};
use crate::store::{KeyStats, PartitionStats};

/// How often all of this is looked after.
pub(super) const WATCH_EVERY: Duration = Duration::from_secs(60);
/// A poll that was prepared for so long has waited for the OP's metadata.
const LONG_PREPARATION: Duration = Duration::from_secs(1);
/// A store may have to look at all of its rows to count them. It is left alone for this many times as long as it took,
const PAUSE_FACTOR: u32 = 100;
/// but not for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

impl Shared {
    /// Reports what this replica knows by itself.
    pub(super) fn watch(&self) {
        self.drop_overdue_deliveries();
        self.report_unreachable();
        self.tenants().look_for_silent_ops();
    }

    /// Looks in the store for rows that operators should hear of.
    pub(super) async fn count_rows(&self) {
        let Ok(mut watch) = self.watch.try_lock() else { return };
        watch.look_at_keys(self).await;
        if self.settings.polls {
            watch.look_at_clients(self).await;
        }
    }

    /// Notes whether a poll has brought a usable answer.
    pub(super) fn note_reach(&self, tenant: &Tenant, answer: &Answer, error: Option<&Error>) {
        if tenant.is_replaced() {
            return;
        }
        match trouble(answer, error) {
            Some(cause) => self.note_trouble(tenant, cause),
            None => {
                let now = self.clock.monotonic();
                let recovered = tenant.reach().answered(now);
                self.troubled().remove(&tenant.partition);
                if let Some(silence) = recovered {
                    self.emit_recovered(tenant, silence);
                }
            }
        }
    }

    /// Notes that a poll could not leave in time, after so long a preparation, in which the OP's metadata are fetched. Where
    /// that was short, the OP is not what made it late.
    pub(super) fn note_unsent(&self, tenant: &Tenant, preparation: Duration) {
        if preparation >= LONG_PREPARATION && !tenant.is_replaced() {
            self.note_trouble(tenant, "the OP's metadata did not come in time".to_owned());
        }
    }

    fn note_trouble(&self, tenant: &Tenant, cause: String) {
        tenant.reach().failed(cause, self.clock.monotonic());
        self.troubled().insert(tenant.partition);
        self.emit_unreachable(tenant);
    }

    /// A client that has nothing to ask about any more hears no answer that would end its trouble.
    fn forget_trouble(&self, tenant: &Tenant) {
        if self.troubled().remove(&tenant.partition) {
            tenant.reach().forget();
            tenant.measure.unreachable(false);
        }
    }

    fn report_unreachable(&self) {
        let troubled: Vec<_> = self.troubled().iter().copied().collect();
        for partition in troubled {
            match self.tenant(partition) {
                Some(tenant) => self.emit_unreachable(&tenant),
                None => drop(self.troubled().remove(&partition)),
            }
        }
    }

    /// Reports that an OP gives no usable answers, if it is time for that.
    fn emit_unreachable(&self, tenant: &Tenant) {
        let report = tenant.reach().report(self.clock.monotonic());
        let Some(Unreachable { silence, polls, cause }) = report else { return };
        let (issuer, client_id, seconds) = (tenant.client.issuer(), tenant.client.client_id(), silence.as_secs());
        tracing::warn!(issuer, client_id, seconds, polls, cause = &*cause, "the OP gives no usable answer to polls");
        tenant.measure.unreachable(true);
        let (issuer, client_id) = (issuer.into(), client_id.into());
        self.tell(Event::OpUnreachable { issuer, client_id, silence, polls, cause });
    }

    fn emit_recovered(&self, tenant: &Tenant, silence: Duration) {
        let (issuer, client_id, seconds) = (tenant.client.issuer(), tenant.client.client_id(), silence.as_secs());
        tracing::info!(issuer, client_id, seconds, "the OP answers polls again");
        tenant.measure.unreachable(false);
        self.tell(Event::OpRecovered { issuer: issuer.into(), client_id: client_id.into(), silence });
    }
}

impl WatchMemory {
    /// Looks for rows that no claim of this replica takes, because it cannot open them.
    async fn look_at_keys(&mut self, shared: &Shared) {
        let began = shared.clock.monotonic();
        if began < self.keys_at {
            return;
        }
        let stats = shared.store.keys().await;
        let now = shared.clock.monotonic();
        // A store that is too large to be counted in time is left alone as well.
        self.keys_at = next_time(began, now);
        let stats = match stats {
            Ok(stats) => stats,
            Err(error) => return not_counted(error),
        };
        let (missing, newer) = unreadable(&stats, &shared.keyring.ids());
        measure::unreadable_rows(missing.values().sum(), newer.values().sum());
        for (key, rows) in missing {
            if self.is_due(Cause::MissingKey(key), now) {
                let key_id = format!("{:08x}", u32::from_be_bytes(key));
                tracing::error!(
                    key_id,
                    rows,
                    "the store contains rows sealed with a key that the keyring lacks; add the key"
                );
                shared.tell(Event::MissingKey { key_id: key_id.into(), rows });
            }
        }
        for (format, rows) in newer {
            if self.is_due(Cause::NewerFormat(format), now) {
                tracing::warn!(format, rows, "the store contains rows that only a newer release can read");
                shared.tell(Event::NewerFormat { format, rows });
            }
        }
    }

    /// Looks for rows of clients that the poller does not have.
    async fn look_at_clients(&mut self, shared: &Shared) {
        let began = shared.clock.monotonic();
        if began < self.stats_at {
            return;
        }
        let stats = shared.store.stats().await;
        let now = shared.clock.monotonic();
        // A store that is too large to be counted in time is left alone as well.
        self.stats_at = next_time(began, now);
        let stats = match stats {
            Ok(stats) => stats,
            Err(error) => return not_counted(error),
        };
        let stats: BTreeMap<_, _> = stats.into_iter().map(|stats| (stats.partition, stats)).collect();
        let tenants: Vec<_> = shared.tenants().values().cloned().collect();
        for tenant in tenants {
            let rows = stats.get(&tenant.partition);
            tenant.measure.undelivered(rows.and_then(|rows| rows.undelivered).unwrap_or_default());
            if rows.is_none_or(|rows| rows.waiting == 0) {
                shared.forget_trouble(&tenant);
            }
        }
        let is_unknown = |rows: &&PartitionStats| rows.open() > 0 && shared.tenant(rows.partition).is_none();
        let unknown: Vec<_> = stats.values().filter(is_unknown).collect();
        let processes = unknown.iter().map(|rows| rows.open()).sum();
        measure::unknown_client_rows(processes);
        // One event for all of them, as soon as one of them is to be reported.
        let causes = || unknown.iter().map(|rows| Cause::UnknownClient(rows.partition));
        if causes().any(|cause| self.is_due(cause, now)) {
            self.reported.extend(causes().map(|cause| (cause, now)));
            let clients = unknown.len();
            tracing::warn!(
                clients,
                processes,
                "the store contains sign-ins of clients that this poller does not have; add the clients"
            );
            shared.tell(Event::UnknownClient { clients, processes });
        }
    }

    /// Whether a cause is to be reported now. It counts as reported then.
    fn is_due(&mut self, cause: Cause, now: Duration) -> bool {
        self.reported.retain(|_, at| now.saturating_sub(*at) < REMIND_EVERY);
        let is_due = !self.reported.contains_key(&cause);
        if is_due {
            self.reported.insert(cause, now);
        }
        is_due
    }
}

/// What a poll met in place of a usable answer. A refusal of the client is an answer: the OP can be reached.
fn trouble(answer: &Answer, error: Option<&Error>) -> Option<String> {
    let response = match answer {
        Answer::Error { response, .. } => Some(response),
        Answer::Success(_) | Answer::Trouble { .. } => None,
    };
    let is_trouble = matches!(answer.reading(), Reading::Trouble { .. })
        || response.is_some_and(|response| response.code() == "use_dpop_nonce");
    let cause = || response.map(ErrorResponse::to_string).or_else(|| error.map(Error::to_string));
    is_trouble.then(|| cause().unwrap_or_else(|| "no answer in time".to_owned()))
}

/// How many rows need which key that is not there, and how many have which format that is too new.
fn unreadable(stats: &[KeyStats], keys: &[[u8; 4]]) -> (BTreeMap<[u8; 4], u64>, BTreeMap<u8, u64>) {
    let (mut missing, mut newer) = (BTreeMap::new(), BTreeMap::new());
    for stats in stats.iter().filter(|stats| stats.bodies > 0) {
        if !keys.contains(&stats.key) {
            *missing.entry(stats.key).or_default() += stats.bodies;
        }
        if stats.format > FORMAT {
            *newer.entry(stats.format).or_default() += stats.bodies;
        }
    }
    (missing, newer)
}

/// When to count again.
fn next_time(began: Duration, now: Duration) -> Duration {
    let took = now.saturating_sub(began);
    now.saturating_add(took.saturating_mul(PAUSE_FACTOR).min(LONGEST_PAUSE))
}

/// The engine reports a store that is out of reach; here it is enough to try again later.
fn not_counted(error: crate::store::StoreError) {
    let error = store_error(error);
    tracing::warn!(error = %error, "the rows of the store could not be counted; statistics and some alerts are missing");
}
