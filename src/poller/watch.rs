//! The checks that run about once a minute: OPs that give no usable answers, rows that this replica cannot open, rows
//! of clients that the poller does not have, and deliveries that are held for too long.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Event;
use super::measure;
use super::reachability::Unreachable;
use super::record::FORMAT;
use super::reminders::Cause;
use super::shared::Shared;
use super::tenant::Tenant;
use super::watch_memory::WatchMemory;
use crate::error::{Error, ErrorResponse, Verdict};
use crate::keyring::key_name;
use crate::operations::Clients;
use crate::pending::Answer;
use crate::store::{KeyStats, Partition, PartitionStats};

/// The interval of the checks.
pub(super) const WATCH_EVERY: Duration = Duration::from_secs(60);
/// How many unknown clients one line of the log names.
const LISTED_CLIENTS: usize = 16;
/// A poll whose preparation took this long has waited for the OP's metadata.
const LONG_PREPARATION: Duration = Duration::from_secs(1);
/// The pause until the next count, as a multiple of the duration of the last one. A store may have to scan all rows to
/// count them.
const PAUSE_FACTOR: u32 = 100;
/// The maximum of that pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

impl Shared {
    /// Runs the checks that need no store.
    pub(super) fn watch(&self) {
        self.drop_overdue_deliveries();
        self.report_unreachable();
        self.tenants().update_silent_ops();
    }

    /// Searches the store for rows that operators should be alerted to.
    pub(super) async fn count_rows(&self) {
        let Ok(mut watch) = self.watch.try_lock() else { return };
        watch.check_keys(self).await;
        if self.settings.polls {
            watch.check_clients(self).await;
        }
    }

    /// Records whether a poll got a usable answer.
    pub(super) fn note_reachability(&self, tenant: &Tenant, answer: &Answer, error: Option<&Error>) {
        if tenant.is_retired() {
            return;
        }
        match failure(answer, error) {
            Some(cause) => self.note_failure(tenant, cause),
            None => {
                let now = self.clock.monotonic();
                let recovered = tenant.reachability().answered(now);
                self.failing().remove(&tenant.partition);
                if let Some(silence) = recovered {
                    self.emit_recovered(tenant, silence);
                }
            }
        }
    }

    /// Records that a poll could not be sent in time, with the duration of its preparation, in which the OP's metadata
    /// is fetched. If the preparation was short, the OP did not cause the delay.
    pub(super) fn note_unsent(&self, tenant: &Tenant, preparation: Duration) {
        if preparation >= LONG_PREPARATION && !tenant.is_retired() {
            self.note_failure(tenant, "the OP's metadata did not arrive in time".to_owned());
        }
    }

    fn note_failure(&self, tenant: &Tenant, cause: String) {
        tenant.reachability().failed(cause, self.clock.monotonic());
        self.failing().insert(tenant.partition);
        self.emit_unreachable(tenant);
    }

    /// Forgets the failures of a client without pending sign-ins, because it sends no poll whose answer would end them.
    fn forget_failures(&self, tenant: &Tenant) {
        if self.failing().remove(&tenant.partition) {
            tenant.reachability().forget();
            tenant.measure.set_unreachable(false);
        }
    }

    fn report_unreachable(&self) {
        let failing: Vec<_> = self.failing().iter().copied().collect();
        for partition in failing {
            match self.tenant(partition) {
                Some(tenant) => self.emit_unreachable(&tenant),
                None => drop(self.failing().remove(&partition)),
            }
        }
    }

    /// Reports that an OP gives no usable answers, if a report is due.
    fn emit_unreachable(&self, tenant: &Tenant) {
        let report = tenant.reachability().report(self.clock.monotonic());
        let Some(Unreachable { silence, polls, cause }) = report else { return };
        let (issuer, client_id, seconds) = (tenant.client.issuer(), tenant.client.client_id(), silence.as_secs());
        tracing::warn!(issuer, client_id, seconds, polls, cause = &*cause, "the OP gives no usable answer to polls");
        tenant.measure.set_unreachable(true);
        let (issuer, client_id) = (issuer.into(), client_id.into());
        self.emit(Event::OpUnreachable { issuer, client_id, silence, polls, cause });
    }

    fn emit_recovered(&self, tenant: &Tenant, silence: Duration) {
        let (issuer, client_id, seconds) = (tenant.client.issuer(), tenant.client.client_id(), silence.as_secs());
        tracing::info!(issuer, client_id, seconds, "the OP answers polls again");
        tenant.measure.set_unreachable(false);
        self.emit(Event::OpRecovered { issuer: issuer.into(), client_id: client_id.into(), silence });
    }
}

impl WatchMemory {
    /// Searches for rows that no claim of this replica takes, because it cannot open them.
    async fn check_keys(&mut self, shared: &Shared) {
        let began = shared.clock.monotonic();
        if began < self.keys_at {
            return;
        }
        let stats = shared.store.keys().await;
        let now = shared.clock.monotonic();
        // The pause also applies to a store that is too large to be counted in time.
        self.keys_at = next_time(began, now);
        let stats = match stats {
            Ok(stats) => stats,
            Err(error) => return not_counted(error),
        };
        let (missing, newer) = unreadable(&stats, &shared.keyring.ids());
        measure::unreadable_rows(missing.values().sum(), newer.values().sum());
        for (key, rows) in missing {
            if shared.is_due(Cause::MissingKey(key)) {
                let key_id = key_name(key);
                tracing::error!(
                    key_id,
                    rows,
                    "the store contains rows sealed with a key that the keyring lacks; add the key"
                );
                shared.emit(Event::MissingKey { key_id: key_id.into(), rows });
            }
        }
        for (format, rows) in newer {
            if shared.is_due(Cause::NewerFormat(format)) {
                tracing::warn!(format, rows, "the store contains rows that only a newer release can read");
                shared.emit(Event::NewerFormat { format, rows });
            }
        }
    }

    /// Searches for rows of clients that the poller does not have.
    async fn check_clients(&mut self, shared: &Shared) {
        let began = shared.clock.monotonic();
        if began < self.stats_at {
            return;
        }
        let stats = shared.store.stats().await;
        let now = shared.clock.monotonic();
        // The pause also applies to a store that is too large to be counted in time.
        self.stats_at = next_time(began, now);
        let stats = match stats {
            Ok(stats) => stats,
            Err(error) => return not_counted(error),
        };
        let stats: BTreeMap<_, _> = stats.into_iter().map(|stats| (stats.partition, stats)).collect();
        let tenants: Vec<_> = shared.tenants().values().cloned().collect();
        for tenant in tenants {
            let rows = stats.get(&tenant.partition);
            tenant.measure.counted(rows.unwrap_or(&PartitionStats::empty(tenant.partition)));
            if rows.is_none_or(|rows| rows.waiting == 0) {
                shared.forget_failures(&tenant);
            }
        }
        let is_unknown = |rows: &&PartitionStats| rows.open() > 0 && shared.tenant(rows.partition).is_none();
        let unknown: Vec<_> = stats.values().filter(is_unknown).collect();
        let processes = unknown.iter().map(|rows| rows.open()).sum();
        measure::unknown_client_rows(processes);
        // One event for all of them, if a report of at least one of them is due.
        let causes = || unknown.iter().map(|rows| Cause::UnknownClient(rows.partition));
        if causes().any(|cause| shared.is_due(cause)) {
            causes().for_each(|cause| shared.reminders().note(cause, now));
            let clients = unknown.len();
            let numbers: Vec<_> = unknown.iter().map(|rows| rows.partition.0).take(LISTED_CLIENTS).collect();
            let mut known = Clients::of(&*shared.store);
            known.look_up(numbers.iter().map(|number| Partition(*number))).await;
            let names: Vec<_> = numbers.iter().map(|number| known.name(Partition(*number))).collect();
            tracing::warn!(
                clients,
                processes,
                ?numbers,
                ?names,
                "the store contains sign-ins of clients that this poller does not have; add the clients"
            );
            shared.emit(Event::UnknownClient { clients, processes });
        }
    }
}

/// The reason why a poll got no usable answer. A refusal of the client is a usable answer, because the OP is reachable.
fn failure(answer: &Answer, error: Option<&Error>) -> Option<String> {
    let response = answer.error_response();
    let is_trouble =
        matches!(answer.verdict(), Some(Verdict::OtherwiseRefused | Verdict::NotProcessed | Verdict::MayBeLost))
            || response.is_some_and(|response| response.code() == "use_dpop_nonce");
    let cause = || response.map(ErrorResponse::to_string).or_else(|| error.map(Error::to_string));
    is_trouble.then(|| cause().unwrap_or_else(|| "no answer in time".to_owned()))
}

/// The numbers of rows for each missing key, and for each format that is too new.
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

/// The time of the next count.
fn next_time(began: Duration, now: Duration) -> Duration {
    let took = now.saturating_sub(began);
    now.saturating_add(took.saturating_mul(PAUSE_FACTOR).min(LONGEST_PAUSE))
}

/// The engine reports a store that is unavailable. Here it is enough to try again later.
fn not_counted(error: crate::store::StoreError) {
    let error = Error::from(error);
    tracing::warn!(error = %error, "the rows of the store could not be counted; statistics and some alerts are missing");
}
