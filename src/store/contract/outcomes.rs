//! The delivery of outcomes.

use super::*;
use crate::store::{Acknowledged, Acknowledgement, HeldOutcome};

fn acknowledgement(id: ProcessId) -> Vec<Acknowledgement> {
    vec![Acknowledgement::new(id, HOUR)]
}

fn provisional_acknowledgement(id: ProcessId) -> Vec<Acknowledgement> {
    vec![Acknowledgement { provisional: true, ..Acknowledgement::new(id, HOUR) }]
}

pub(super) async fn an_outcome_is_delivered_until_it_is_acknowledged(case: Case<'_>) {
    let id = case.decided(1).await;
    assert!(case.claim(10).await.is_empty(), "nothing is left to poll");
    let outcomes = case.outcomes(5 * MINUTE).await;
    let first = &outcomes.claimed[0];
    assert_eq!((first.held.id, first.attempts, first.provisional), (id, 1, false));
    assert_eq!((first.partition, &first.body), (PARTITION, &body("as inserted")));
    let next_in = outcomes.next_in.unwrap();
    assert!(next_in <= 5 * MINUTE && next_in > 4 * MINUTE, "{next_in:?}");
    assert!(case.outcomes(MINUTE).await.claimed.is_empty(), "it is claimed");
    case.advance(5 * MINUTE).await;
    assert_eq!(case.outcomes(MINUTE).await.claimed[0].attempts, 2);
    assert_eq!(case.store().acknowledge(acknowledgement(id)).await.unwrap(), [Acknowledged::Done]);
    case.advance(5 * MINUTE).await;
    let outcomes = case.outcomes(MINUTE).await;
    assert!(outcomes.claimed.is_empty() && outcomes.next_in.is_none());

    let other_key = NewProcess { body: SealedBody { key: [1; 4], ..body("") }, ..waiting(2) };
    case.inserted(other_key).await;
    let claimed =
        case.store().settle_and_claim(vec![], Some(Claim { keys: vec![[1; 4]], ..claim(1) })).await.unwrap().claimed;
    case.settle(settlement(&claimed[0], Next::Decided { provisional: false })).await;
    assert!(case.outcomes(MINUTE).await.claimed.is_empty(), "it cannot be opened here");
}

pub(super) async fn only_its_holder_can_hold_and_release_an_outcome(case: Case<'_>) {
    case.decided(1).await;
    let held = case.outcomes(5 * MINUTE).await.claimed[0].held;
    let stale = HeldOutcome { epoch: held.epoch - 1, ..held };
    let nobody = HeldOutcome { id: id(9), ..held };
    let holds = case.store().extend_outcomes(vec![stale, held, nobody], 10 * MINUTE).await.unwrap();
    assert_eq!(holds, [false, true, false]);
    case.advance(6 * MINUTE).await;
    assert!(case.outcomes(MINUTE).await.claimed.is_empty());
    assert_eq!(case.store().extend_outcomes(vec![held], Duration::ZERO).await.unwrap(), [true]);
    let again = case.outcomes(MINUTE).await.claimed[0].held;
    assert_eq!(
        case.store().extend_outcomes(vec![held], Duration::ZERO).await.unwrap(),
        [false],
        "it has another holder"
    );
    assert_eq!(case.store().acknowledge(acknowledgement(held.id)).await.unwrap(), [Acknowledged::Done]);
    assert_eq!(case.store().extend_outcomes(vec![again], MINUTE).await.unwrap(), [false]);
}

pub(super) async fn an_acknowledgement_erases_the_body_and_counts_once(case: Case<'_>) {
    let id = case.decided(1).await;
    // The claim has expired, but the outcome was handled.
    assert_eq!(case.store().acknowledge(acknowledgement(id)).await.unwrap(), [Acknowledged::Done]);
    assert_eq!(case.store().acknowledge(acknowledgement(id)).await.unwrap(), [Acknowledged::Already]);
    assert_eq!(case.store().acknowledge(acknowledgement(super::id(9))).await.unwrap(), [Acknowledged::Already]);
    let row = case.load(id).await;
    assert_eq!((row.state, row.body), (State::Acknowledged, None));
    assert_eq!(case.insert(NewProcess { id: super::id(2), ..waiting(1) }).await, Insertion::Exists(id));
    assert_eq!(case.ping(id, 101).await, Pinged::Ended(id));
}

pub(super) async fn an_acknowledgement_of_a_provisional_outcome_does_not_erase_its_replacement(case: Case<'_>) {
    let id = case.decided_provisionally(1).await;
    assert!(case.outcomes(MINUTE).await.claimed[0].provisional);
    let success = |next| Settlement { body: Some(body("the success")), ..Settlement::new(id, next) };
    assert_eq!(case.settle(success(Next::Answered)).await, Settled::Done);
    assert_eq!(case.store().acknowledge(provisional_acknowledgement(id)).await.unwrap(), [Acknowledged::Replaced]);
    let answered = case.claim_one().await;
    case.settle(settlement(&answered, Next::Decided { provisional: false })).await;
    assert_eq!(case.store().acknowledge(provisional_acknowledgement(id)).await.unwrap(), [Acknowledged::Replaced]);
    let delivered = &case.outcomes(MINUTE).await.claimed[0];
    assert_eq!((delivered.attempts, delivered.provisional), (1, false));
    assert_eq!(delivered.body, body("the success"));
}

pub(super) async fn unacknowledged_outcomes_expire(case: Case<'_>) {
    let old = case.decided(1).await;
    case.advance(HOUR).await;
    let young = case.decided(2).await;
    let waiting = case.inserted(NewProcess { due_in: HOUR, ..waiting(3) }).await;
    // A claim does not protect it.
    case.outcomes(10 * HOUR).await;
    let expire = async || case.store().expire_outcomes(2 * HOUR, HOUR, 10).await.unwrap();
    case.advance(59 * MINUTE).await;
    assert_eq!(expire().await, []);
    case.advance(MINUTE).await;
    assert_eq!(expire().await, [old]);
    let row = case.load(old).await;
    assert_eq!((row.state, row.body), (State::Acknowledged, None));
    assert_eq!(case.load(young).await.state, State::Decided);
    assert_eq!(case.load(waiting).await.state, State::Waiting);
    let late = Acknowledgement { id: old, provisional: false, keep: HOUR };
    assert_eq!(case.store().acknowledge(vec![late]).await.unwrap(), [Acknowledged::Already]);
    case.advance(HOUR).await;
    assert_eq!(case.store().purge(10).await.unwrap(), 1);
    assert_eq!(case.store().expire_outcomes(2 * HOUR, HOUR, 0).await.unwrap(), []);
    assert_eq!(expire().await, [young]);
}

pub(super) async fn a_row_that_ends_is_not_delivered(case: Case<'_>) {
    let exchanging = NewProcess { state: State::Exchanging, due_in: HOUR, lookups: vec![], ..waiting(1) };
    let id = case.inserted(exchanging).await;
    let ended = Settlement { due_in: HOUR, ..Settlement::new(id, Next::Ended) };
    assert_eq!(case.settle(ended).await, Settled::Done);
    assert_eq!((case.load(id).await.state, case.load(id).await.body), (State::Acknowledged, None));
    case.advance(50 * MINUTE).await;
    assert!(case.claim(1).await.is_empty() && case.outcomes(MINUTE).await.claimed.is_empty());
    assert_eq!(case.insert(NewProcess { id: super::id(2), ..waiting(1) }).await, Insertion::Exists(id));
    assert_eq!(case.store().purge(10).await.unwrap(), 0);
    case.advance(10 * MINUTE).await;
    assert_eq!(case.store().purge(10).await.unwrap(), 1);
}

pub(super) async fn many_outcomes_of_one_partition_do_not_delay_the_others(case: Case<'_>) {
    let (flood, few, one) = (Partition(5), Partition(-3), Partition(9));
    let all = [(flood, 1..=8_u8), (few, 9..=10), (one, 11..=11)];
    for (partition, numbers) in all {
        for number in numbers {
            case.inserted(NewProcess { partition, ..waiting(number) }).await;
            let quotas = vec![ClaimQuota { partition, polls: 1, verifications: 0 }];
            let claimed = case.work_for(quotas, 1).await.claimed.remove(0);
            case.settle(settlement(&claimed, Next::Decided { provisional: false })).await;
            case.advance(Duration::from_secs(1)).await;
        }
    }
    let claim = async |limit, after| {
        let claim = OutcomeClaim { limit, after, lease: HOUR, format: 1, keys: vec![KEY] };
        let outcomes = case.store().claim_outcomes(claim).await.unwrap();
        (outcomes.claimed.iter().map(|claimed| claimed.held.id).collect::<Vec<_>>(), outcomes.next_in)
    };
    assert_eq!(claim(4, None).await, (vec![id(9), id(1), id(11), id(10)], Some(Duration::ZERO)));
    assert_eq!(claim(2, Some(few)).await.0, [id(2), id(3)]);
    case.inserted(NewProcess { partition: one, ..waiting(12) }).await;
    let quotas = vec![ClaimQuota { partition: one, polls: 1, verifications: 0 }];
    let claimed = case.work_for(quotas, 1).await.claimed.remove(0);
    case.settle(settlement(&claimed, Next::Decided { provisional: false })).await;
    assert_eq!(claim(2, Some(flood)).await.0, [id(12), id(4)], "the next partition comes first");
    let (rest, next_in) = claim(10, Some(one)).await;
    assert_eq!(rest, [id(5), id(6), id(7), id(8)]);
    assert!(next_in.is_some_and(|next_in| next_in > 50 * MINUTE), "{next_in:?}");
}

pub(super) async fn an_outcome_without_its_body_is_set_aside(case: Case<'_>) {
    let lost = case.decided(1).await;
    let other = case.decided(2).await;
    if !case.0.lose_body(lost).await {
        return;
    }
    let outcomes = case.outcomes(HOUR).await;
    assert_eq!(outcomes.claimed.iter().map(|claimed| claimed.held.id).collect::<Vec<_>>(), [other]);
    assert_eq!(outcomes.set_aside, [lost]);
    case.store().acknowledge(acknowledgement(other)).await.unwrap();
    case.advance(1_000 * HOUR).await;
    let outcomes = case.outcomes(HOUR).await;
    assert!(outcomes.claimed.is_empty() && outcomes.set_aside.is_empty() && outcomes.next_in.is_none());
    assert_eq!(case.load(lost).await.state, State::Decided);
    assert_eq!(case.store().acknowledge(acknowledgement(lost)).await.unwrap(), [Acknowledged::Done]);
}
