//! Insertions, claims, settlements and pings.

use super::*;
use crate::store::Cancellation;

pub(super) async fn a_row_is_loaded_as_it_was_inserted(case: Case<'_>) {
    let id = case.inserted(NewProcess { due_in: HOUR, ..waiting(1) }).await;
    let row = case.load(id).await;
    assert_eq!((row.id, row.partition, row.state), (id, PARTITION, State::Waiting));
    assert_eq!((row.epoch, row.provisional, row.cancellation), (0, false, Cancellation::None));
    assert_eq!((row.schedule.as_str(), row.leased), ("schedule 1", false));
    assert_eq!(row.body, Some(body("as inserted")));
    assert!(row.due_in <= HOUR && row.due_in > HOUR - MINUTE, "{:?}", row.due_in);
    assert!(case.store().load(super::id(2)).await.unwrap().is_none());
}

pub(super) async fn a_second_row_for_a_session_or_a_lookup_is_not_inserted(case: Case<'_>) {
    let first = case.inserted(waiting(1)).await;
    let same_session = NewProcess { sessions: vec![fingerprint(50), fingerprint(1)], lookups: vec![], ..waiting(2) };
    assert_eq!(case.insert(same_session).await, Insertion::Exists(first));
    let same_lookup = NewProcess { sessions: vec![], lookups: vec![fingerprint(51), fingerprint(101)], ..waiting(3) };
    assert_eq!(case.insert(same_lookup).await, Insertion::Exists(first));
    // The answer to an insertion was lost, so it is repeated.
    assert!(matches!(case.insert(waiting(1)).await, Insertion::Inserted { .. }));
    // Rows without a session or lookup do not match each other.
    for number in [4, 5] {
        case.inserted(NewProcess { sessions: vec![], lookups: vec![], ..waiting(number) }).await;
    }
    assert_eq!(case.claim(10).await.len(), 3);
}

pub(super) async fn a_claim_takes_only_due_rows_of_its_partitions(case: Case<'_>) {
    case.inserted(NewProcess { partition: Partition(i64::MAX), ..waiting(1) }).await;
    case.inserted(NewProcess { due_in: HOUR, ..waiting(2) }).await;
    case.inserted(waiting(3)).await;
    case.advance(MINUTE).await;
    case.inserted(waiting(4)).await;
    case.advance(MINUTE).await;
    case.inserted(waiting(5)).await;

    let work = case.settle_and_claim(vec![], 2).await;
    assert_eq!(ids(&work.claimed), [id(3), id(4)], "the earliest come first, up to the limit");
    assert_eq!(next_in(&work), Some(Duration::ZERO), "more rows are due");
    let claimed = &work.claimed[0];
    assert_eq!((claimed.state, claimed.epoch, claimed.attempts), (State::Waiting, 1, 1));
    assert!(!claimed.orphaned && !claimed.pinged);
    assert_eq!((claimed.schedule.as_str(), &claimed.body), ("schedule 3", &body("as inserted")));

    let work = case.settle_and_claim(vec![], 2).await;
    assert_eq!(ids(&work.claimed), [id(5)]);
    let next_in = next_in(&work).unwrap();
    assert!(next_in <= HOUR && next_in > 50 * MINUTE, "{next_in:?}");
    assert!(!work.correcting && work.set_aside.is_empty());
}

pub(super) async fn a_quota_counts_polls_and_verifications_separately(case: Case<'_>) {
    for number in 1..=3 {
        case.inserted(waiting(number)).await;
        case.advance(Duration::from_secs(1)).await;
    }
    let first = case.claim_one_of(1, 0).await;
    case.settle(settlement(&first, Next::Answered)).await;
    let state = State::Exchanging;
    case.inserted(NewProcess { state, due_in: MINUTE, lookups: vec![], ..waiting(4) }).await;

    let work = case.work_for(vec![ClaimQuota { partition: PARTITION, polls: 0, verifications: 0 }], 10).await;
    assert!(work.claimed.is_empty());
    assert_eq!(work.due[0].polls_in, Some(Duration::ZERO), "due rows exceed the quota");
    assert_eq!(work.due[0].verifications_in, Some(Duration::ZERO));
    let work = case.work_for(vec![ClaimQuota { partition: PARTITION, polls: 0, verifications: 9 }], 10).await;
    assert_eq!(ids(&work.claimed), [id(1)], "no quota for polls delays a verification");
    let verifications_in = work.due[0].verifications_in.unwrap();
    assert!(verifications_in <= MINUTE && !verifications_in.is_zero(), "{verifications_in:?}");
    case.advance(2 * MINUTE).await;
    let work = case.work_for(vec![ClaimQuota { partition: PARTITION, polls: 1, verifications: 1 }], 10).await;
    assert_eq!(ids(&work.claimed), [id(4), id(2)]);
    let work = case.work_for(vec![ClaimQuota { partition: PARTITION, polls: 9, verifications: 0 }], 10).await;
    assert_eq!(ids(&work.claimed), [id(3)]);
}

pub(super) async fn a_limit_takes_verifications_first_and_then_the_earliest_of_all_partitions(case: Case<'_>) {
    let partitions = [PARTITION, Partition(1), Partition(2), Partition(3)];
    for number in 1..=9_u8 {
        let partition = partitions[usize::from(number % 3)];
        case.inserted(NewProcess { partition, ..waiting(number) }).await;
        case.advance(Duration::from_secs(1)).await;
    }
    let state = State::Exchanging;
    let exchanging =
        NewProcess { state, partition: Partition(2), due_in: Duration::ZERO, lookups: vec![], ..waiting(10) };
    case.inserted(exchanging).await;
    case.advance(Duration::from_secs(1)).await;
    let quotas = || partitions.map(|partition| ClaimQuota { partition, polls: 4, verifications: 4 }).to_vec();
    let work = case.work_for(quotas(), 5).await;
    let mut claimed = ids(&work.claimed);
    assert_eq!(claimed[0], id(10), "verifications do not wait behind polls");
    claimed.sort_unstable();
    assert_eq!(claimed, [id(1), id(2), id(3), id(4), id(10)]);
    assert_eq!(work.due.len(), 4);
    assert!(work.due[..3].iter().all(|due| due.polls_in == Some(Duration::ZERO)), "{:?}", work.due);
    assert_eq!(work.due[3].earliest(), None, "that partition has no rows");
    let mut rest = ids(&case.work_for(quotas(), 9).await.claimed);
    rest.sort_unstable();
    assert_eq!(rest, [id(5), id(6), id(7), id(8), id(9)]);
}

pub(super) async fn a_row_without_its_body_is_set_aside_and_delays_no_other(case: Case<'_>) {
    for number in 1..=2 {
        case.inserted(waiting(number)).await;
        case.advance(Duration::from_secs(1)).await;
    }
    if !case.0.lose_body(id(1)).await {
        return;
    }
    let work = case.settle_and_claim(vec![], 10).await;
    assert_eq!((ids(&work.claimed), work.set_aside), (vec![id(2)], vec![id(1)]));
    case.advance(1_000 * HOUR).await;
    let work = case.settle_and_claim(vec![], 10).await;
    assert!(work.set_aside.is_empty(), "it is reported once");
    assert_eq!(ids(&work.claimed), [id(2)]);
    let row = case.load(id(1)).await;
    assert_eq!((row.state, row.body, row.leased), (State::Waiting, None, false));
    assert_eq!(case.store().stats().await.unwrap()[0].waiting, 2);
    // The poll that was in flight returns the success after all.
    let success = Settlement {
        id: id(1),
        epoch: None,
        body: Some(body("the success")),
        ..settlement(&work.claimed[0], Next::Answered)
    };
    assert_eq!(case.settle(success).await, Settled::Done);
    assert_eq!(case.claim_one().await.body, body("the success"));
    assert!(case.store().forget(id(1)).await.unwrap());
}

pub(super) async fn a_claim_takes_only_bodies_that_it_can_open(case: Case<'_>) {
    case.inserted(NewProcess { body: SealedBody { key: [1; 4], ..body("") }, ..waiting(1) }).await;
    case.inserted(NewProcess { body: SealedBody { format: 2, ..body("") }, ..waiting(2) }).await;
    case.inserted(waiting(3)).await;
    assert_eq!(ids(&case.claim(1).await), [id(3)], "the others do not count towards the limit");
    let work = case
        .store()
        .settle_and_claim(vec![], Some(Claim { format: 2, keys: vec![[1; 4], KEY], ..claim(9) }))
        .await
        .unwrap();
    assert_eq!(ids(&work.claimed), [id(1), id(2)]);
}

pub(super) async fn a_claimed_row_is_not_claimed_again_until_its_lease_and_an_interval_have_passed(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    case.claim_one().await;
    assert!(case.load(id).await.leased);
    assert!(case.claim(1).await.is_empty());
    case.advance(10 * MINUTE).await;
    assert!(!case.load(id).await.leased);
    assert!(case.claim(1).await.is_empty(), "its poll may have been sent at the end of the lease");
    case.advance(HOUR).await;
    let orphan = case.claim_one().await;
    assert_eq!((orphan.orphaned, orphan.epoch, orphan.attempts), (true, 2, 2));
    assert_eq!(case.settle(settlement(&orphan, Next::Waiting)).await, Settled::Done);
    assert!(!case.claim_one().await.orphaned);
}

pub(super) async fn a_row_whose_holder_died_is_due_before_its_expiration(case: Case<'_>) {
    // The first row expires before its interval has passed, the second before its lease ends, and the third much later.
    // The fourth does not expire.
    let ends = [Some(30 * MINUTE), Some(2 * MINUTE), Some(10 * HOUR), None];
    for (number, expires_in) in (1..).zip(ends) {
        case.inserted(NewProcess { expires_in, ..waiting(number) }).await;
    }
    let work = case.settle_and_claim(vec![], 4).await;
    assert_eq!(work.claimed.len(), 4);
    let next_in = next_in(&work).unwrap();
    assert!(next_in <= 5 * MINUTE && next_in > 4 * MINUTE, "the second one, when its lease ends: {next_in:?}");
    case.advance(4 * MINUTE).await;
    assert!(case.claim(4).await.is_empty(), "its holder may be polling");
    case.advance(2 * MINUTE).await;
    let second = case.claim_one().await;
    assert_eq!((second.id, second.orphaned), (id(2), true));
    case.settle(settlement(&second, Next::Ended)).await;
    case.advance(22 * MINUTE).await;
    assert!(case.claim(4).await.is_empty(), "it expires in two minutes");
    let due_in = case.load(id(1)).await.due_in;
    assert!(due_in <= 2 * MINUTE && !due_in.is_zero(), "{due_in:?}");
    case.advance(2 * MINUTE).await;
    let first = case.claim_one().await;
    assert_eq!((first.id, first.orphaned), (id(1), true));
    case.settle(settlement(&first, Next::Ended)).await;
    case.advance(33 * MINUTE).await;
    assert!(case.claim(4).await.is_empty(), "an interval after the end of the lease has not passed");
    case.advance(3 * MINUTE).await;
    assert_eq!(ids(&case.claim(4).await).len(), 2);
}

pub(super) async fn a_row_whose_exchange_died_is_claimed_as_orphaned_when_its_lease_ends(case: Case<'_>) {
    let exchanging = NewProcess { state: State::Exchanging, due_in: MINUTE, lookups: vec![], ..waiting(1) };
    let id = case.inserted(exchanging).await;
    assert!(case.load(id).await.leased);
    assert!(case.claim(1).await.is_empty());
    case.advance(2 * MINUTE).await;
    let claimed = case.claim_one().await;
    assert_eq!((claimed.state, claimed.orphaned), (State::Exchanging, true));
}

pub(super) async fn a_settlement_needs_the_epoch_of_the_claim(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    let claimed = case.claim_one().await;
    let stale = Settlement { epoch: Some(0), ..settlement(&claimed, Next::Decided { provisional: false }) };
    assert_eq!(case.settle(stale).await, Settled::Stale);
    assert_eq!((case.load(id).await.state, case.load(id).await.leased), (State::Waiting, true));
    assert_eq!(case.settle(settlement(&claimed, Next::Decided { provisional: true })).await, Settled::Done);
    // A success replaces a provisional outcome; a settlement with the epoch does not.
    assert_eq!(case.settle(settlement(&claimed, Next::Waiting)).await, Settled::Stale);
    let nobody = Settlement { id: super::id(9), ..settlement(&claimed, Next::Waiting) };
    assert_eq!(case.settle(nobody).await, Settled::Stale);
}

pub(super) async fn a_settled_row_is_due_again_when_the_settlement_says(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    let claimed = case.claim_one().await;
    let settlement = Settlement {
        due_in: 30 * MINUTE,
        interval: 2 * HOUR,
        body: Some(body("with progress")),
        ..settlement(&claimed, Next::Waiting)
    };
    assert_eq!(case.settle(settlement).await, Settled::Done);
    let row = case.load(id).await;
    assert_eq!((row.schedule.as_str(), row.body.clone()), ("settled", Some(body("with progress"))));
    assert_eq!((row.leased, row.revision), (false, 1));
    case.advance(29 * MINUTE).await;
    assert!(case.claim(1).await.is_empty());
    case.advance(MINUTE).await;
    assert_eq!(case.claim_one().await.body, body("with progress"));
    case.advance(HOUR + 30 * MINUTE).await;
    assert!(case.claim(1).await.is_empty(), "the new interval counts");
    case.advance(HOUR).await;
    assert!(case.claim_one().await.orphaned);
}

pub(super) async fn settlements_are_made_before_the_claim_in_their_order(case: Case<'_>) {
    for number in 1..=3 {
        case.inserted(waiting(number)).await;
    }
    let claimed = case.claim(10).await;
    let again = settlement(&claimed[1], Next::Waiting);
    let twice = settlement(&claimed[1], Next::Answered);
    let later = Settlement { due_in: HOUR, ..settlement(&claimed[2], Next::Waiting) };
    let work = case.settle_and_claim(vec![again, twice, later], 10).await;
    // Both hold the epoch, so the second applies on top of the first.
    assert_eq!(work.settled, [Settled::Done; 3]);
    assert_eq!(ids(&work.claimed), [claimed[1].id]);
    assert_eq!((work.claimed[0].state, work.claimed[0].orphaned), (State::Answered, false));
}

pub(super) async fn a_single_use_answer_replaces_leases_and_provisional_outcomes(case: Case<'_>) {
    let success = |claimed: &Claimed| Settlement {
        epoch: None,
        body: Some(body("the success")),
        ..settlement(claimed, Next::Answered)
    };
    // Another replica holds the lease.
    let id = case.inserted(waiting(1)).await;
    let first = case.claim_one().await;
    case.advance(3 * HOUR).await;
    let second = case.claim_one().await;
    assert_eq!(case.settle(success(&first)).await, Settled::Done);
    assert_eq!(case.settle(settlement(&second, Next::Waiting)).await, Settled::Stale);
    assert_eq!(case.settle(success(&first)).await, Settled::Stale, "it was stored before");
    assert_eq!(case.load(id).await.body, Some(body("the success")));
    let answered = case.claim_one().await;
    assert_eq!(answered.state, State::Answered);
    assert_eq!(case.settle(settlement(&answered, Next::Decided { provisional: false })).await, Settled::Done);
    assert_eq!(case.settle(success(&first)).await, Settled::Stale);

    let id = case.decided_provisionally(2).await;
    let claimed = Claimed { id, ..first.clone() };
    assert_eq!(case.settle(success(&claimed)).await, Settled::Done);
    assert_eq!((case.load(id).await.state, case.load(id).await.provisional), (State::Answered, false));

    let exchanging = NewProcess { state: State::Exchanging, due_in: HOUR, lookups: vec![], ..waiting(3) };
    let id = case.inserted(exchanging).await;
    let answered = Settlement {
        id,
        epoch: None,
        lookup: Some(fingerprint(103)),
        due_in: HOUR,
        ..settlement(&first, Next::Waiting)
    };
    assert_eq!(case.settle(answered).await, Settled::Done);
    assert_eq!((case.load(id).await.state, case.load(id).await.leased), (State::Waiting, false));
    assert_eq!(case.ping(None, 103).await, noted(id), "the lookup is known");
}

pub(super) async fn the_answer_to_an_exchange_counts_once_however_often_it_is_settled(case: Case<'_>) {
    let exchanging = NewProcess { state: State::Exchanging, due_in: HOUR, lookups: vec![], ..waiting(1) };
    let id = case.inserted(exchanging).await;
    let answered = |claimed: &Claimed| Settlement {
        id,
        epoch: None,
        lookup: Some(fingerprint(101)),
        ..settlement(claimed, Next::Waiting)
    };
    case.inserted(waiting(2)).await;
    let other = case.claim_one().await;
    assert_eq!(case.settle(answered(&other)).await, Settled::Done);
    assert_eq!(case.settle(answered(&other)).await, Settled::Stale, "it was stored before");
    let claimed = case.claim_one().await;
    assert_eq!(case.settle(answered(&other)).await, Settled::Stale, "a replica is polling");
    assert!(case.load(id).await.leased);
    assert_eq!(case.settle(settlement(&claimed, Next::Decided { provisional: true })).await, Settled::Done);
    assert_eq!(case.settle(answered(&other)).await, Settled::Stale, "the sign-in has ended");
    assert_eq!(case.load(id).await.state, State::Decided);
}

pub(super) async fn attempts_count_from_the_last_change_of_state(case: Case<'_>) {
    case.inserted(waiting(1)).await;
    for (attempts, next) in [(1, Next::Waiting), (2, Next::Waiting), (3, Next::Answered), (1, Next::Answered)] {
        let claimed = case.claim_one().await;
        assert_eq!(claimed.attempts, attempts);
        case.settle(settlement(&claimed, next)).await;
    }
    assert_eq!(case.claim_one().await.attempts, 2);
}

pub(super) async fn a_ping_moves_a_row_to_the_earliest_moment_allowed(case: Case<'_>) {
    let id = case.inserted(NewProcess { due_in: HOUR, ping_in: Some(10 * MINUTE), ..waiting(1) }).await;
    assert_eq!(case.ping(id, 101).await, noted(id));
    case.advance(9 * MINUTE).await;
    assert!(case.claim(1).await.is_empty());
    case.advance(MINUTE).await;
    let claimed = case.claim_one().await;

    let settled = Settlement { due_in: HOUR, ping_in: Some(MINUTE), ..settlement(&claimed, Next::Waiting) };
    case.settle(settled).await;
    case.advance(5 * MINUTE).await;
    assert!(case.claim(1).await.is_empty(), "the claim has used up the ping");
    assert_eq!(case.ping(None, 101).await, noted(id));
    let claimed = case.claim_one().await;

    case.settle(Settlement { due_in: HOUR, ..settlement(&claimed, Next::Waiting) }).await;
    assert_eq!(case.ping(id, 101).await, noted(id));
    case.advance(50 * MINUTE).await;
    assert!(case.claim(1).await.is_empty(), "without `ping_in` it waits for the schedule");
    case.advance(10 * MINUTE).await;
    case.claim_one().await;
}

pub(super) async fn a_ping_during_a_claim_is_recorded_until_the_settlement(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    let claimed = case.claim_one().await;
    assert_eq!(case.ping(id, 101).await, noted(id));
    assert!(case.claim(1).await.is_empty(), "one at a time");
    let settled = Settlement { due_in: HOUR, ping_in: Some(MINUTE), ..settlement(&claimed, Next::Waiting) };
    case.settle(settled.clone()).await;
    assert!(case.claim(1).await.is_empty());
    case.advance(MINUTE).await;
    let claimed = case.claim_one().await;
    assert!(claimed.pinged);
    case.settle(Settlement { epoch: Some(claimed.epoch), ..settled }).await;
    case.advance(MINUTE).await;
    assert!(case.claim(1).await.is_empty(), "only once");

    // The same while the code is being exchanged.
    let exchanging = NewProcess { state: State::Exchanging, due_in: HOUR, lookups: vec![], ..waiting(2) };
    let id = case.inserted(exchanging).await;
    assert_eq!(case.ping(id, 150).await, noted(id), "its `deferred_auth_id` is not known yet");
    let answered = Settlement {
        id,
        epoch: None,
        due_in: HOUR,
        ping_in: Some(MINUTE),
        lookup: Some(fingerprint(102)),
        ..settlement(&claimed, Next::Waiting)
    };
    case.settle(answered).await;
    case.advance(MINUTE).await;
    assert_eq!(case.claim_one().await.id, id);
}

pub(super) async fn a_ping_advances_a_row_whose_lease_has_expired(case: Case<'_>) {
    for number in 1..=3 {
        case.inserted(waiting(number)).await;
    }
    // A ping may bring the first row forward at any time, the second after half an hour, and the third never.
    for claimed in case.claim(3).await {
        let ping_in = match claimed.id {
            first if first == id(1) => Some(Duration::ZERO),
            second if second == id(2) => Some(30 * MINUTE),
            _ => None,
        };
        case.settle(Settlement { ping_in, ..settlement(&claimed, Next::Waiting) }).await;
    }
    let ping_all = async || {
        for number in 1..=3 {
            assert_eq!(case.ping(id(number), 100 + number).await, noted(id(number)));
        }
    };
    assert_eq!(case.claim(3).await.len(), 3);
    ping_all().await;
    case.advance(4 * MINUTE).await;
    assert!(case.claim(3).await.is_empty(), "its holder may be polling");
    // Their holder has died.
    case.advance(2 * MINUTE).await;
    ping_all().await;
    let orphan = case.claim_one().await;
    assert_eq!((orphan.id, orphan.orphaned, orphan.pinged), (id(1), true, true));
    case.advance(25 * MINUTE).await;
    assert_eq!(case.claim_one().await.id, id(2));
    // Rows that a ping has brought forward wait for their due time if they are orphaned again.
    case.advance(10 * MINUTE).await;
    ping_all().await;
    assert!(case.claim(3).await.is_empty());
    case.advance(25 * MINUTE).await;
    assert_eq!(case.claim_one().await.id, id(3), "its due time has come");
}

pub(super) async fn a_ping_for_another_process_or_none_changes_nothing(case: Case<'_>) {
    let id = case.inserted(NewProcess { due_in: HOUR, ping_in: Some(Duration::ZERO), ..waiting(1) }).await;
    assert_eq!(case.ping(id, 102).await, Pinged::Mismatch);
    assert_eq!(case.ping(super::id(2), 101).await, Pinged::NotFound);
    assert_eq!(case.ping(None, 102).await, Pinged::NotFound);
    assert!(case.claim(1).await.is_empty());
    let ended = case.decided_provisionally(2).await;
    assert_eq!(case.ping(ended, 102).await, Pinged::Ended(ended));
    assert_eq!(case.load(ended).await.state, State::Decided);
}

pub(super) async fn huge_durations_saturate_in_rows(case: Case<'_>) {
    let longest = NewProcess { interval: Duration::MAX, ..waiting(1) };
    let id = case.inserted(longest).await;
    let claimed = case.claim_one().await;
    let settled = Settlement {
        due_in: Duration::MAX,
        ping_in: Some(Duration::MAX),
        interval: Duration::MAX,
        ..settlement(&claimed, Next::Waiting)
    };
    assert_eq!(case.settle(settled).await, Settled::Done);
    assert_eq!(case.ping(id, 101).await, noted(id));
    case.advance(1_000_000 * HOUR).await;
    assert!(case.claim(1).await.is_empty());
}
