//! Tests that every [`Store`] must pass.
//!
//! Implement [`Subject`] for your store and call [`check`] from a test. Each case gets an empty store.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use futures_core::future::BoxFuture;
//! use openid_deferred::store::{MemoryStore, Store, contract};
//! use openid_deferred::testing::TestClock;
//!
//! struct InMemory(TestClock, Arc<MemoryStore>);
//!
//! impl contract::Subject for InMemory {
//!     fn store(&self) -> Arc<dyn Store> {
//!         self.1.clone()
//!     }
//!
//!     fn advance(&self, duration: Duration) -> BoxFuture<'_, ()> {
//!         self.0.advance(duration);
//!         Box::pin(std::future::ready(()))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! contract::check(async || {
//!     let clock = TestClock::new();
//!     InMemory(clock.clone(), Arc::new(MemoryStore::with_clock(Arc::new(clock))))
//! })
//! .await;
//! # });
//! ```
// Tests may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)]

use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::{
    Claim, ClaimQuota, Claimed, Fingerprint, Insertion, Listing, NewProcess, Next, OutcomeBatch, OutcomeClaim,
    Partition, Ping, Pinged, Process, ProcessId, SealedBody, Settled, Settlement, State, Store, StoreProblem, Work,
};

mod clock_jumps;
mod operators;
mod outcomes;
mod transfer;
mod upkeep;
mod work;

/// A store under test.
pub trait Subject {
    /// Returns the store, which is empty when the subject is created. Each call may return another handle to the same
    /// data, like that of another replica.
    fn store(&self) -> Arc<dyn Store>;

    /// Advances the store's clock by this duration. A store with a clock of its own, such as a database, adds an offset
    /// to it, because the suite never sleeps. The clock may also run by itself, as long as it advances by less than a
    /// minute during a case.
    fn advance(&self, duration: Duration) -> BoxFuture<'_, ()>;

    /// Deletes the body of a row without the store's knowledge, like an operator's mistake, and returns whether it did.
    /// If it cannot, the cases about rows without a body are skipped.
    fn lose_body(&self, id: ProcessId) -> BoxFuture<'_, bool> {
        let _ = id;
        Box::pin(std::future::ready(false))
    }
}

/// Runs cases, each with a subject of its own.
macro_rules! run {
    ($make:ident: $($module:ident::$case:ident),* $(,)?) => {$(
        $module::$case(Case(&$make().await)).await;
    )*};
}

/// Runs every case, each with a subject of its own. The cases about the methods for operators are skipped if the store
/// answers [`Store::list`] with [`StoreProblem::Unsupported`].
///
/// # Panics
///
/// If the store violates the contract. The message names the expected behaviour.
pub async fn check<S: Subject>(make: impl AsyncFn() -> S) {
    run! {
        make:
        work::a_row_is_loaded_as_it_was_inserted,
        work::a_second_row_for_a_session_or_a_lookup_is_not_inserted,
        work::a_claim_takes_only_due_rows_of_its_partitions,
        work::a_quota_counts_polls_and_verifications_separately,
        work::a_limit_takes_verifications_first_and_then_the_earliest_of_all_partitions,
        work::a_row_without_its_body_is_set_aside_and_delays_no_other,
        work::a_claim_takes_only_bodies_that_it_can_open,
        work::a_claimed_row_is_not_claimed_again_until_its_lease_and_an_interval_have_passed,
        work::a_row_whose_holder_died_is_due_before_its_expiration,
        work::a_row_whose_exchange_died_is_claimed_as_orphaned_when_its_lease_ends,
        work::a_settlement_needs_the_epoch_of_the_claim,
        work::a_settled_row_is_due_again_when_the_settlement_says,
        work::settlements_are_made_before_the_claim_in_their_order,
        work::a_single_use_answer_replaces_leases_and_provisional_outcomes,
        work::the_answer_to_an_exchange_counts_once_however_often_it_is_settled,
        work::attempts_count_from_the_last_change_of_state,
        work::a_ping_moves_a_row_to_the_earliest_moment_allowed,
        work::a_ping_during_a_claim_is_recorded_until_the_settlement,
        work::a_ping_advances_a_row_whose_lease_has_expired,
        work::a_ping_for_another_process_or_none_changes_nothing,
        work::huge_durations_saturate_in_rows,
        outcomes::an_outcome_is_delivered_until_it_is_acknowledged,
        outcomes::only_its_holder_can_hold_and_release_an_outcome,
        outcomes::an_acknowledgement_erases_the_body_and_counts_once,
        outcomes::an_acknowledgement_of_a_provisional_outcome_does_not_erase_its_replacement,
        outcomes::a_row_that_ends_is_not_delivered,
        outcomes::many_outcomes_of_one_partition_do_not_delay_the_others,
        outcomes::an_outcome_without_its_body_is_set_aside,
        upkeep::tombstones_are_purged_when_they_expire,
        outcomes::unacknowledged_outcomes_expire,
        upkeep::a_forgotten_row_is_erased_with_its_session,
        upkeep::a_cancellation_is_never_undone_and_ends_with_the_answer,
        upkeep::overdue_rows_are_spread_by_their_id,
        upkeep::a_row_is_spread_within_its_remaining_lifetime_and_once_between_settlements,
        clock_jumps::a_clock_that_is_set_back_delays_no_row_for_long,
        clock_jumps::a_clock_that_is_set_forward_advances_no_poll,
        clock_jumps::small_jumps_delay_a_row_by_no_more_than_their_sum,
        clock_jumps::a_lease_moves_with_the_clock,
        clock_jumps::nothing_is_claimed_while_due_times_are_corrected,
        clock_jumps::one_jump_causes_one_run_for_all_callers_that_notice_it,
        upkeep::bodies_are_sealed_again_by_compare_and_swap,
        upkeep::keys_are_counted_by_sealed_bodies_and_by_inserted_rows,
        upkeep::statistics_have_the_number_of_rows_and_the_age_of_due_ones,
        upkeep::waiters_are_notified_of_changes_or_check_often,
    }
    let listed = make().await.store().list(Listing::new(1)).await;
    if !listed.is_err_and(|error| error.problem() == StoreProblem::Unsupported) {
        check_operators_calls(make).await;
    }
}

/// The cases about methods that have a default implementation.
async fn check_operators_calls<S: Subject>(make: impl AsyncFn() -> S) {
    run! {
        make:
        operators::a_listing_pages_over_the_rows_that_meet_its_conditions,
        operators::overdue_rows_are_listed_in_the_order_in_which_they_became_due,
        operators::rows_are_found_by_their_reference,
        operators::rows_are_found_by_the_key_that_sealed_them,
        operators::clients_are_known_by_the_names_that_were_noted,
        operators::an_overview_shows_a_row_in_each_state,
        operators::an_overview_tells_an_outcome_in_hand_from_one_that_waits,
        operators::an_operator_brings_a_row_forward_by_no_more_than_the_interval_allows,
        operators::an_operator_releases_a_hanging_claim_but_no_poll_in_flight,
        operators::a_row_that_was_set_aside_is_listed_and_not_released_without_its_body,
        operators::an_erasure_counts_the_entries_of_the_row_and_leaves_none,
        transfer::a_row_is_exported_and_imported_unchanged_in_every_state,
        transfer::an_imported_row_is_due_when_it_would_have_been,
        transfer::a_row_that_was_set_aside_stays_set_aside_when_it_is_moved,
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const PARTITION: Partition = Partition(-7);
const KEY: [u8; 4] = [0xff, 0, 1, 2];

/// A running case, with short forms of the calls.
struct Case<'a>(&'a dyn Subject);

impl Case<'_> {
    fn store(&self) -> Arc<dyn Store> {
        self.0.store()
    }

    async fn advance(&self, duration: Duration) {
        self.0.advance(duration).await;
    }

    async fn insert(&self, process: NewProcess) -> Insertion {
        self.store().insert(process).await.unwrap()
    }

    async fn inserted(&self, process: NewProcess) -> ProcessId {
        let id = process.id;
        assert!(matches!(self.insert(process).await, Insertion::Inserted { .. }));
        id
    }

    async fn settle_and_claim(&self, settlements: Vec<Settlement>, limit: usize) -> Work {
        self.store().settle_and_claim(settlements, Some(claim(limit))).await.unwrap()
    }

    /// A claim for several partitions.
    async fn work_for(&self, quotas: Vec<ClaimQuota>, limit: usize) -> Work {
        self.store().settle_and_claim(vec![], Some(Claim { quotas, limit, ..claim(limit) })).await.unwrap()
    }

    /// Claims the one row that these limits allow.
    async fn claim_one_of(&self, polls: usize, verifications: usize) -> Claimed {
        let quotas = vec![ClaimQuota { partition: PARTITION, polls, verifications }];
        let mut claimed = self.work_for(quotas, 10).await.claimed;
        assert_eq!(claimed.len(), 1, "the limits allow one row");
        claimed.remove(0)
    }

    async fn claim(&self, limit: usize) -> Vec<Claimed> {
        self.settle_and_claim(vec![], limit).await.claimed
    }

    async fn settle(&self, settlement: Settlement) -> Settled {
        self.store().settle_and_claim(vec![settlement], None).await.unwrap().settled[0]
    }

    /// Claims the one row that is due.
    async fn claim_one(&self) -> Claimed {
        let mut claimed = self.claim(10).await;
        assert_eq!(claimed.len(), 1, "one row is due");
        claimed.remove(0)
    }

    async fn load(&self, id: ProcessId) -> Process {
        self.store().load(id).await.unwrap().expect("the row is there")
    }

    async fn outcomes(&self, lease: Duration) -> OutcomeBatch {
        let claim = OutcomeClaim { limit: 10, after: None, lease, format: 1, keys: vec![KEY] };
        self.store().claim_outcomes(claim).await.unwrap()
    }

    async fn ping(&self, id: impl Into<Option<ProcessId>>, lookup: u8) -> Pinged {
        let ping = Ping { id: id.into(), lookups: vec![fingerprint(200), fingerprint(lookup)] };
        self.store().ping(ping).await.unwrap()
    }

    /// A row with a final outcome that is due for delivery.
    async fn decided(&self, number: u8) -> ProcessId {
        self.settled(number, Next::Decided { provisional: false }).await
    }

    /// A row with an outcome that a late success replaces.
    async fn decided_provisionally(&self, number: u8) -> ProcessId {
        self.settled(number, Next::Decided { provisional: true }).await
    }

    async fn settled(&self, number: u8, next: Next) -> ProcessId {
        let id = self.inserted(waiting(number)).await;
        let claimed = self.claim_one().await;
        assert_eq!(self.settle(settlement(&claimed, next)).await, Settled::Done);
        id
    }
}

fn claim(limit: usize) -> Claim {
    let quotas = vec![ClaimQuota { partition: PARTITION, polls: limit, verifications: limit }];
    Claim { quotas, limit, lease: 5 * MINUTE, format: 1, keys: vec![[9; 4], KEY] }
}

/// The time until the earliest row of the one claimed partition is due.
fn next_in(work: &Work) -> Option<Duration> {
    let [due] = work.due[..] else { panic!("one for each quota: {work:?}") };
    due.earliest()
}

fn noted(id: ProcessId) -> Pinged {
    Pinged::Recorded { id, partition: PARTITION }
}

fn id(number: u8) -> ProcessId {
    let mut bytes = [0x80; 16];
    bytes[0] = number;
    ProcessId::from_bytes(bytes)
}

fn fingerprint(number: u8) -> Fingerprint {
    Fingerprint([number; 32])
}

fn body(text: &str) -> SealedBody {
    SealedBody { format: 1, key: KEY, bytes: text.as_bytes().to_vec() }
}

/// A due row in `Waiting`, with the session and the lookup of the same number.
fn waiting(number: u8) -> NewProcess {
    NewProcess {
        sessions: vec![fingerprint(number)],
        lookups: vec![fingerprint(100_u8.wrapping_add(number))],
        interval: HOUR,
        schedule: format!("schedule {number}"),
        ..NewProcess::new(id(number), PARTITION, State::Waiting, body("as inserted"))
    }
}

/// A settlement of a claimed row that is due again at once.
fn settlement(claimed: &Claimed, next: Next) -> Settlement {
    Settlement {
        epoch: Some(claimed.epoch),
        interval: HOUR,
        schedule: "settled".to_owned(),
        ..Settlement::new(claimed.id, next)
    }
}

fn ids(claimed: &[Claimed]) -> Vec<ProcessId> {
    claimed.iter().map(|claimed| claimed.id).collect()
}
