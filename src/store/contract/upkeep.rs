//! Tombstones, cancellation, spreading, sealing again, statistics.

use super::*;
use crate::store::{Acknowledgement, Cancellation, Changed, KeyStats, PartitionStats, Reseal};

pub(super) async fn tombstones_are_purged_when_they_expire(case: Case<'_>) {
    let mut tombstones = Vec::new();
    for number in 1..=3 {
        let id = case.decided(number).await;
        tombstones.push(Acknowledgement { id, provisional: false, keep: HOUR });
    }
    case.store().acknowledge(tombstones).await.unwrap();
    let waiting = case.inserted(NewProcess { due_in: Duration::ZERO, ..waiting(4) }).await;
    assert_eq!(case.store().purge(10).await.unwrap(), 0);
    case.advance(HOUR).await;
    assert_eq!(case.store().purge(2).await.unwrap(), 2);
    assert_eq!(case.store().purge(2).await.unwrap(), 1);
    case.load(waiting).await;
}

pub(super) async fn a_forgotten_row_is_erased_with_its_session(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    let claimed = case.claim_one().await;
    assert!(case.store().forget(id).await.unwrap());
    assert!(!case.store().forget(id).await.unwrap());
    assert!(case.store().load(id).await.unwrap().is_none());
    assert_eq!(case.settle(settlement(&claimed, Next::Answered)).await, Settled::Stale);
    case.inserted(NewProcess { id: super::id(2), ..waiting(1) }).await;
}

pub(super) async fn a_cancellation_is_never_undone_and_ends_with_the_answer(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    let cancel = async |id, to| case.store().cancel(id, to).await.unwrap();
    assert_eq!(cancel(id, Cancellation::Requested).await, Some(Cancellation::Requested));
    assert_eq!(cancel(id, Cancellation::None).await, Some(Cancellation::Requested));
    let claimed = case.claim_one().await;
    assert_eq!(claimed.cancellation, Cancellation::Requested);
    assert_eq!(cancel(id, Cancellation::Told).await, Some(Cancellation::Told));
    case.settle(settlement(&claimed, Next::Waiting)).await;
    assert_eq!(cancel(id, Cancellation::Requested).await, Some(Cancellation::Told));
    assert_eq!(case.claim_one().await.cancellation, Cancellation::Told);

    case.inserted(waiting(2)).await;
    let claimed = case.claim_one().await;
    case.settle(settlement(&claimed, Next::Answered)).await;
    assert_eq!(
        cancel(claimed.id, Cancellation::Requested).await,
        Some(Cancellation::None),
        "it was not requested before"
    );
    assert_eq!(cancel(super::id(9), Cancellation::Requested).await, None);
}

pub(super) async fn overdue_rows_are_spread_by_their_id(case: Case<'_>) {
    // The first byte of the identifier is the number, so these rows are due after 1/256, a half and almost all of the
    // hour.
    for number in [1, 0x80, 0xff] {
        case.inserted(NewProcess { lookups: vec![], ..waiting(number) }).await;
    }
    case.inserted(NewProcess { partition: Partition(3), ..waiting(2) }).await;
    case.inserted(NewProcess { due_in: HOUR, ..waiting(3) }).await;
    let spread = async |limit| case.store().spread(PARTITION, MINUTE, limit).await.unwrap();
    assert_eq!(spread(9).await, 0, "they are not late");
    case.advance(2 * MINUTE).await;
    assert_eq!(spread(2).await, 2);
    assert_eq!(spread(2).await, 1);
    assert!(case.claim(10).await.is_empty());
    case.advance(MINUTE).await;
    assert_eq!(ids(&case.claim(10).await), [id(1)]);
    case.advance(29 * MINUTE + Duration::from_secs(30)).await;
    assert_eq!(ids(&case.claim(10).await), [id(0x80)]);
    assert_eq!(case.load(id(2)).await.due_in, Duration::ZERO, "another partition does not change");
}

pub(super) async fn a_row_is_spread_within_its_remaining_lifetime_and_once_between_settlements(case: Case<'_>) {
    for (number, expires_in) in [(0x80, 30 * MINUTE), (0x81, 2 * MINUTE), (0x82, 1_000 * HOUR)] {
        case.inserted(NewProcess { expires_in: Some(expires_in), ..waiting(number) }).await;
    }
    case.advance(10 * MINUTE).await;
    let spread = async || case.store().spread(PARTITION, MINUTE, 9).await.unwrap();
    assert_eq!(spread().await, 3);
    let due_in = case.load(id(0x80)).await.due_in;
    let left = 20 * MINUTE - Duration::from_secs(5);
    assert!(due_in > 9 * MINUTE && due_in < left, "{due_in:?} is not before its expiration");
    assert!(case.load(id(0x82)).await.due_in > 29 * MINUTE);
    let late = case.claim_one().await;
    assert_eq!(late.id, id(0x81), "no time is left to postpone it");
    case.settle(Settlement { expires_in: Some(HOUR), ..settlement(&late, Next::Waiting) }).await;
    case.advance(35 * MINUTE).await;
    assert_eq!(spread().await, 1, "the others were spread before");
    let due_in = case.load(late.id).await.due_in;
    assert!(due_in > 10 * MINUTE && due_in < 25 * MINUTE, "{due_in:?}");
    let mut rest = ids(&case.claim(9).await);
    rest.sort_unstable();
    assert_eq!(rest, [id(0x80), id(0x82)]);
}

pub(super) async fn bodies_are_sealed_again_by_compare_and_swap(case: Case<'_>) {
    let store = case.store();
    for number in 1..=4 {
        let key = if number == 4 { [2; 4] } else { KEY };
        case.inserted(NewProcess { body: SealedBody { key, ..body("old") }, lookups: vec![], ..waiting(number) }).await;
    }
    let old = store.not_sealed_with([2; 4], None, 2).await.unwrap();
    assert_eq!(old.iter().map(|row| row.id).collect::<Vec<_>>(), [id(1), id(2)]);
    let rest = store.not_sealed_with([2; 4], Some(id(2)), 9).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.id).collect::<Vec<_>>(), [id(3)]);

    let claimed = case.claim(1).await.remove(0);
    case.settle(Settlement { body: Some(body("newer")), due_in: HOUR, ..settlement(&claimed, Next::Waiting) }).await;
    let reseal = |row: &Process| Reseal {
        id: row.id,
        revision: row.revision,
        body: SealedBody { key: [2; 4], ..body("resealed") },
    };
    assert_eq!(store.reseal(old.iter().map(reseal).collect()).await.unwrap(), [false, true]);
    assert_eq!(case.load(id(1)).await.body, Some(body("newer")));
    let resealed = case.load(id(2)).await;
    assert_eq!((resealed.body.unwrap().bytes, resealed.revision), (b"resealed".to_vec(), 1));
    let work = store.settle_and_claim(vec![], Some(Claim { keys: vec![[2; 4]], ..claim(9) })).await.unwrap();
    assert_eq!(ids(&work.claimed), [id(2), id(4)], "claims use the new key");
}

pub(super) async fn keys_are_counted_by_sealed_bodies_and_by_inserted_rows(case: Case<'_>) {
    const NEW: [u8; 4] = [2; 4];
    assert!(case.store().keys().await.unwrap().is_empty());
    for number in 1..=3 {
        case.inserted(waiting(number)).await;
    }
    let state = State::Exchanging;
    case.inserted(NewProcess { state, due_in: HOUR, body: SealedBody { key: NEW, ..body("new") }, ..waiting(4) }).await;
    let claimed = case.claim(2).await;
    case.settle(settlement(&claimed[0], Next::Decided { provisional: false })).await;
    let resealed = SealedBody { key: NEW, ..body("resealed") };
    case.settle(Settlement { body: Some(resealed), ..settlement(&claimed[1], Next::Waiting) }).await;
    let mut keys = case.store().keys().await.unwrap();
    keys.sort_by_key(|stats| stats.key);
    let stats = |key, bodies, waiting| KeyStats { key, format: 1, bodies, waiting };
    assert_eq!(keys, [stats(NEW, 2, 1), stats(KEY, 2, 2)], "the resealed one still has a token of the old key");
    let newer = SealedBody { format: 2, ..body("of a newer release") };
    case.inserted(NewProcess { due_in: HOUR, body: newer, ..waiting(5) }).await;
    let of_newer = KeyStats { key: KEY, format: 2, bodies: 1, waiting: 1 };
    assert!(case.store().keys().await.unwrap().contains(&of_newer), "no claim of this release takes it");
    case.store()
        .acknowledge(vec![Acknowledgement { id: claimed[0].id, provisional: false, keep: HOUR }])
        .await
        .unwrap();
    let keys = case.store().keys().await.unwrap();
    assert!(keys.contains(&stats(KEY, 1, 2)), "a tombstone needs no key: {keys:?}");
}

pub(super) async fn statistics_have_the_number_of_rows_and_the_age_of_due_ones(case: Case<'_>) {
    assert!(case.store().stats().await.unwrap().is_empty());
    case.decided(1).await;
    case.advance(5 * MINUTE).await;
    case.inserted(waiting(2)).await;
    case.claim_one().await;
    case.inserted(waiting(3)).await;
    case.inserted(NewProcess { due_in: HOUR, ..waiting(4) }).await;
    case.inserted(NewProcess { partition: Partition(3), due_in: HOUR, ..waiting(5) }).await;
    case.advance(MINUTE).await;
    let mut stats = case.store().stats().await.unwrap();
    stats.sort_by_key(|stats| stats.partition);
    assert_eq!(stats.iter().map(|stats| stats.partition).collect::<Vec<_>>(), [PARTITION, Partition(3)]);
    assert_eq!((stats[0].waiting, stats[0].decided, stats[0].open()), (3, 1, 3));
    assert_eq!(PartitionStats { waiting: 1, ..PartitionStats::empty(Partition(3)) }, stats[1]);
    let about = |age: Option<Duration>, minutes: u32| {
        age.is_some_and(|age| age >= minutes * MINUTE && age < (minutes + 1) * MINUTE)
    };
    assert!(about(stats[0].overdue, 1) && about(stats[0].undelivered, 6), "{stats:?}");

    // An outcome that is claimed but not acknowledged still gets older.
    let held = case.outcomes(HOUR).await.claimed.remove(0).held;
    case.advance(MINUTE).await;
    case.store().extend_outcomes(vec![held], HOUR).await.unwrap();
    let undelivered = async || {
        let stats = case.store().stats().await.unwrap();
        stats.iter().find(|stats| stats.partition == PARTITION).unwrap().undelivered
    };
    assert!(about(undelivered().await, 7), "{:?}", undelivered().await);
    let keep = Acknowledgement { id: held.id, provisional: false, keep: HOUR };
    case.store().acknowledge(vec![keep]).await.unwrap();
    assert_eq!(undelivered().await, None);
}

pub(super) async fn waiters_are_notified_of_changes_or_check_often(case: Case<'_>) {
    let store = case.store();
    assert!(store.check_interval() > Duration::ZERO);
    // A store that cannot notify its users has them check every few seconds.
    let notifies = store.check_interval() > MINUTE;
    let changed = store.changed();
    store.insert(waiting(1)).await.unwrap();
    if notifies {
        assert_eq!(changed.await, Changed::WORK);
    }
    let claimed = store.settle_and_claim(vec![], Some(claim(1))).await.unwrap().claimed.remove(0);
    let changed = store.changed();
    let decided = settlement(&claimed, Next::Decided { provisional: false });
    store.settle_and_claim(vec![decided], Some(claim(1))).await.unwrap();
    if notifies {
        assert!(changed.await.outcomes);
    }
    let outcomes = OutcomeClaim { limit: 1, after: None, lease: HOUR, format: 1, keys: vec![KEY] };
    let held = store.claim_outcomes(outcomes).await.unwrap().claimed[0].held;
    let changed = store.changed();
    store.extend_outcomes(vec![held], MINUTE).await.unwrap();
    if notifies {
        assert!(changed.await.outcomes, "it is due sooner than the claim said");
    }
}
