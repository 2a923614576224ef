//! Listing, bringing forward, releasing, erasing with a proof.

use super::*;
use crate::store::{
    Acceptance, Acknowledgement, Among, Cancellation, ClientNote, Erased, KnownClient, Page, Place, Requeued,
    RowOverview,
};

async fn list(case: &Case<'_>, listing: Listing) -> Page {
    case.store().list(listing).await.unwrap()
}

/// Lists page after page.
async fn list_all(case: &Case<'_>, listing: Listing) -> Vec<ProcessId> {
    let (mut all, mut after) = (Vec::new(), listing.after);
    loop {
        let page = list(case, Listing { after, ..listing.clone() }).await;
        assert!(page.rows.len() <= listing.limit, "a page is larger than its limit");
        all.extend(page.rows.iter().map(|row| row.id));
        assert!(page.next != after || page.next.is_none(), "the next page makes no progress");
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn overview(case: &Case<'_>, id: ProcessId) -> RowOverview {
    let page = list(case, Listing { among: Among::Ids(vec![id]), ..Listing::new(9) }).await;
    assert_eq!((page.rows.len(), page.next), (1, None));
    page.rows.into_iter().next().unwrap()
}

pub(super) async fn a_listing_pages_over_the_rows_that_meet_its_conditions(case: Case<'_>) {
    assert!(list_all(&case, Listing::new(2)).await.is_empty());
    for number in [5, 1, 4, 2, 3] {
        let partition = if number == 4 { Partition(3) } else { PARTITION };
        case.inserted(NewProcess { partition, due_in: HOUR, ..waiting(number) }).await;
    }
    case.advance(HOUR).await;
    case.inserted(NewProcess { state: State::Exchanging, due_in: HOUR, ..waiting(6) }).await;
    for limit in [1, 2, 5, 100] {
        assert_eq!(list_all(&case, Listing::new(limit)).await, [1, 2, 3, 4, 5, 6].map(id), "in pages of {limit}");
    }
    let exchanging = Listing { states: vec![State::Exchanging], ..Listing::new(2) };
    assert_eq!(list_all(&case, exchanging.clone()).await, [id(6)]);
    let two = Listing { states: vec![State::Exchanging, State::Waiting], ..Listing::new(4) };
    assert_eq!(list_all(&case, two).await.len(), 6);
    let of_client = Listing { partition: Some(Partition(3)), ..Listing::new(2) };
    assert_eq!(list_all(&case, of_client).await, [id(4)]);
    let old = Listing { started_for: Some(30 * MINUTE), ..Listing::new(2) };
    assert_eq!(list_all(&case, old).await, [1, 2, 3, 4, 5].map(id));
    let named = Among::Ids(vec![id(5), id(9), id(2), id(5)]);
    assert_eq!(list_all(&case, Listing { among: named.clone(), ..Listing::new(9) }).await, [id(2), id(5)]);
    let after = Some(Place { order: 0, id: id(2) });
    assert_eq!(list_all(&case, Listing { among: named, after, ..Listing::new(9) }).await, [id(5)]);
}

pub(super) async fn overdue_rows_are_listed_in_the_order_in_which_they_became_due(case: Case<'_>) {
    for (number, minutes) in [(1, 40), (2, 20), (3, 30), (4, 300)] {
        let partition = if number == 3 { Partition(3) } else { PARTITION };
        case.inserted(NewProcess { partition, due_in: minutes * MINUTE, ..waiting(number) }).await;
    }
    case.advance(10 * MINUTE).await;
    let decided = case.decided(5).await;
    let tombstone = case.decided(6).await;
    case.store().acknowledge(vec![Acknowledgement::new(tombstone, Duration::ZERO)]).await.unwrap();
    let overdue = |minutes: u32, limit| Listing { overdue_for: Some(minutes * MINUTE), ..Listing::new(limit) };
    assert!(list_all(&case, overdue(2, 9)).await.is_empty());
    case.advance(35 * MINUTE).await;
    for limit in [1, 2, 9] {
        let expected = [decided, id(2), id(3), id(1)];
        assert_eq!(list_all(&case, overdue(1, limit)).await, expected, "in pages of {limit}");
    }
    assert_eq!(list_all(&case, overdue(13, 9)).await, [decided, id(2), id(3)]);
    let polls = Listing { states: vec![State::Waiting], ..overdue(13, 9) };
    assert_eq!(list_all(&case, polls).await, [id(2), id(3)]);
    let of_client = Listing { partition: Some(Partition(3)), ..overdue(1, 9) };
    assert_eq!(list_all(&case, of_client).await, [id(3)]);
    assert_eq!(case.claim(1).await.len(), 1);
    assert_eq!(list_all(&case, overdue(1, 1)).await, [decided, id(3), id(1)], "a leased row is not overdue");
    case.advance(200 * HOUR).await;
    assert_eq!(list_all(&case, overdue(1, 2)).await.len(), 5, "its holder has died");
    assert!(list_all(&case, Listing { overdue_for: Some(Duration::MAX), ..Listing::new(9) }).await.is_empty());
}

pub(super) async fn rows_are_found_by_their_reference(case: Case<'_>) {
    let order = |number, reference: u8| NewProcess {
        references: vec![fingerprint(reference), fingerprint(reference + 1)],
        ..waiting(number)
    };
    for (number, reference) in [(1, 10), (2, 20), (3, 10)] {
        case.inserted(order(number, reference)).await;
    }
    case.inserted(waiting(4)).await;
    let of = |references: &[u8]| {
        let references = references.iter().map(|reference| fingerprint(*reference)).collect();
        Listing { among: Among::References(references), ..Listing::new(1) }
    };
    assert_eq!(list_all(&case, of(&[10])).await, [id(1), id(3)]);
    assert_eq!(list_all(&case, of(&[20, 10])).await, [id(1), id(2), id(3)]);
    assert!(list_all(&case, of(&[11])).await.is_empty(), "only the first fingerprint is kept");
    assert!(case.store().forget(id(1)).await.unwrap());
    assert_eq!(list_all(&case, of(&[10])).await, [id(3)]);
}

pub(super) async fn rows_are_found_by_the_key_that_sealed_them(case: Case<'_>) {
    let sealed = |number, key| NewProcess { body: SealedBody { key, ..body("sealed") }, ..waiting(number) };
    case.inserted(sealed(1, [0, 0, 0, 7])).await;
    case.inserted(sealed(2, [0xff, 0, 0, 7])).await;
    let ended = case.decided(3).await;
    case.store().acknowledge(vec![Acknowledgement::new(ended, HOUR)]).await.unwrap();
    let of = |keys: &[[u8; 4]]| Listing { keys: Some(keys.to_vec()), ..Listing::new(1) };
    assert_eq!(list_all(&case, of(&[[0, 0, 0, 7]])).await, [id(1)]);
    assert_eq!(list_all(&case, of(&[[0xff, 0, 0, 7], [0, 0, 0, 7]])).await, [1, 2].map(id));
    assert!(list_all(&case, of(&[KEY])).await.is_empty(), "a tombstone needs no key");
    assert!(list_all(&case, of(&[])).await.is_empty());
    let overdue = Listing { overdue_for: Some(Duration::ZERO), ..of(&[[0xff, 0, 0, 7]]) };
    assert_eq!(list_all(&case, overdue).await, [id(2)]);
}

pub(super) async fn clients_are_known_by_the_names_that_were_noted(case: Case<'_>) {
    let note = async |clients| case.store().note_clients(clients).await.unwrap();
    let known = async || {
        let all = vec![Partition(3), Partition(4), PARTITION];
        let mut known = case.store().known_clients(all).await.unwrap();
        known.sort_by_key(|client| client.partition);
        known
    };
    assert!(known().await.is_empty());
    let one = ClientNote::new(PARTITION, "https://op.test", "one");
    let two = ClientNote::new(Partition(3), "https://op.test", "zwei \u{fc}");
    note(vec![]).await;
    note(vec![one.clone(), two.clone().acceptance(Acceptance::Refused)]).await;
    if known().await.is_empty() {
        // This store keeps no names.
        return;
    }
    let refused_ago = async || known().await.iter().map(|client| client.refused_ago).collect::<Vec<_>>();
    let names = known().await.into_iter().map(|client| (client.partition, client.client_id)).collect::<Vec<_>>();
    assert_eq!(names, [(PARTITION, "one".to_owned()), (Partition(3), "zwei \u{fc}".to_owned())]);
    case.advance(5 * MINUTE).await;
    // The first name stays, and so does the time.
    note(vec![ClientNote::new(PARTITION, "https://other.test", "other"), two.clone()]).await;
    assert_eq!(known().await[0], KnownClient::new(PARTITION, "https://op.test", "one"));
    assert!(matches!(refused_ago().await[..], [None, Some(ago)] if ago >= 5 * MINUTE && ago < 6 * MINUTE));
    note(vec![one.acceptance(Acceptance::Refused), two.clone().acceptance(Acceptance::Refused)]).await;
    assert!(refused_ago().await.iter().all(|ago| ago.is_some_and(|ago| ago < MINUTE)));
    note(vec![two.acceptance(Acceptance::Accepted)]).await;
    assert!(matches!(refused_ago().await[..], [Some(_), None]));
    // Names do not make rows, and stay without them.
    assert!(case.store().stats().await.unwrap().is_empty());
    assert!(case.store().known_clients(vec![Partition(9)]).await.unwrap().is_empty());
}

pub(super) async fn an_overview_shows_a_row_in_each_state(case: Case<'_>) {
    let id = case.inserted(NewProcess { expires_in: Some(50 * HOUR), ping_in: Some(HOUR), ..waiting(1) }).await;
    let inserted = overview(&case, id).await;
    let started_at = inserted.started_at.expect("the store records when the row was inserted");
    assert_eq!((inserted.state, inserted.has_body, &*inserted.schedule), (State::Waiting, true, "schedule 1"));
    assert_eq!((inserted.epoch, inserted.attempts, inserted.key), (0, 0, KEY));
    assert_eq!((inserted.leased_until, inserted.decided_at, inserted.pinged_at), (None, None, None));
    assert_eq!(inserted.due_at, Some(started_at));
    let not_before = inserted.not_before.unwrap().duration_since(started_at).unwrap();
    assert_eq!(not_before, HOUR);
    case.advance(MINUTE).await;
    case.store().cancel(id, Cancellation::Requested).await.unwrap();
    let claimed = case.claim_one().await;
    let held = overview(&case, id).await;
    assert_eq!((held.epoch, held.attempts, held.cancellation), (1, 1, Cancellation::Requested));
    let lease = held.leased_until.unwrap().duration_since(started_at).unwrap();
    assert!((6 * MINUTE..8 * MINUTE).contains(&lease), "{lease:?}");
    assert_eq!(held.due_at.unwrap().duration_since(held.leased_until.unwrap()).unwrap(), HOUR);
    case.ping(id, 101).await;
    assert!(overview(&case, id).await.pinged_at.is_some());
    case.settle(settlement(&claimed, Next::Decided { provisional: true })).await;
    let decided = overview(&case, id).await;
    assert_eq!((decided.state, decided.provisional, &*decided.schedule), (State::Decided, true, "settled"));
    assert!(decided.decided_at >= Some(started_at) && decided.leased_until.is_none());
    let acknowledgement = Acknowledgement { provisional: true, ..Acknowledgement::new(id, HOUR) };
    case.store().acknowledge(vec![acknowledgement]).await.unwrap();
    let tombstone = overview(&case, id).await;
    assert_eq!((tombstone.state, tombstone.has_body), (State::Acknowledged, false));
    assert_eq!(tombstone.started_at, Some(started_at));
}

pub(super) async fn an_overview_tells_an_outcome_in_hand_from_one_that_waits(case: Case<'_>) {
    let id = case.decided(1).await;
    let is_released = async || {
        let row = overview(&case, id).await;
        row.not_before.is_some() && row.not_before == row.due_at
    };
    assert!(!is_released().await);
    let held = case.outcomes(HOUR).await.claimed.remove(0).held;
    assert!(!is_released().await, "a consumer has it in hand");
    assert_eq!(case.store().release_outcomes(vec![held], 2 * HOUR).await.unwrap(), [true]);
    if !is_released().await {
        // This store does not record it.
        return;
    }
    assert!(case.outcomes(HOUR).await.claimed.is_empty());
    case.advance(2 * HOUR).await;
    let again = case.outcomes(HOUR).await.claimed.remove(0).held;
    assert!(!is_released().await, "a consumer has it in hand again");
    assert_eq!(case.store().release_outcomes(vec![held], HOUR).await.unwrap(), [false], "it has another holder");
    assert!(!is_released().await);
    assert_eq!(case.store().extend_outcomes(vec![again], 3 * HOUR).await.unwrap(), [true]);
    assert!(!is_released().await, "its holder keeps it");
}

pub(super) async fn an_operator_brings_a_row_forward_by_no_more_than_the_interval_allows(case: Case<'_>) {
    let forward = async |id| case.store().bring_forward(id).await.unwrap();
    assert_eq!(forward(id(9)).await, Pinged::NotFound);
    let id = case.inserted(NewProcess { due_in: 9 * HOUR, ping_in: Some(HOUR), ..waiting(1) }).await;
    assert_eq!(forward(id).await, noted(id));
    let due_in = case.load(id).await.due_in;
    assert!(due_in > 118 * MINUTE && due_in <= 2 * HOUR, "{due_in:?} is not an interval after what a ping may do");
    case.advance(2 * HOUR).await;
    let claimed = case.claim_one().await;
    assert!(claimed.pinged);
    assert_eq!(forward(id).await, noted(id));
    let waits = Settlement { due_in: 9 * HOUR, ping_in: Some(MINUTE), ..settlement(&claimed, Next::Waiting) };
    case.settle(waits).await;
    let due_in = case.load(id).await.due_in;
    assert!(due_in > 8 * HOUR, "{due_in:?}: a poll in flight was not for the operator");
    case.advance(8 * HOUR).await;
    assert_eq!(forward(id).await, noted(id));
    let claimed = case.claim_one().await;
    case.settle(Settlement { due_in: 9 * HOUR, ..settlement(&claimed, Next::Waiting) }).await;
    assert_eq!(forward(id).await, noted(id));
    assert!(case.load(id).await.due_in > 8 * HOUR, "pings have no effect, and neither has an operator");
    case.advance(9 * HOUR).await;
    let claimed = case.claim_one().await;
    case.settle(settlement(&claimed, Next::Answered)).await;
    assert_eq!(forward(id).await, Pinged::Ended(id));
}

pub(super) async fn an_operator_releases_a_hanging_claim_but_no_poll_in_flight(case: Case<'_>) {
    let requeue = async |id| case.store().requeue(id).await.unwrap();
    let done = |state| Requeued::Done { partition: PARTITION, state };
    assert_eq!(requeue(id(9)).await, Requeued::NotFound);
    let id = case.inserted(waiting(1)).await;
    assert_eq!(requeue(id).await, Requeued::Free);
    let claimed = case.claim_one().await;
    let Requeued::InUse { ends_in } = requeue(id).await else { panic!("a poll may be in flight") };
    assert!(ends_in > 4 * MINUTE && ends_in <= 5 * MINUTE, "{ends_in:?}");
    case.settle(settlement(&claimed, Next::Answered)).await;

    let held = case.claim_one().await;
    assert_eq!(requeue(id).await, done(State::Answered));
    let again = case.claim_one().await;
    assert!(again.epoch > held.epoch && again.attempts == 2 && !again.orphaned);
    assert_eq!(case.settle(settlement(&held, Next::Answered)).await, Settled::Stale);
    case.settle(settlement(&again, Next::Decided { provisional: false })).await;

    assert_eq!(requeue(id).await, Requeued::Free, "it is due");
    let delivery = case.outcomes(HOUR).await.claimed.remove(0);
    assert!(case.outcomes(HOUR).await.claimed.is_empty());
    assert_eq!(requeue(id).await, done(State::Decided));
    let hold = case.store().extend_outcomes(vec![delivery.held], HOUR).await.unwrap();
    assert_eq!(hold, [false], "its holder cannot keep it");
    let again = case.outcomes(HOUR).await.claimed.remove(0);
    assert_eq!((again.held.id, again.attempts), (id, 2));
    case.store().acknowledge(vec![Acknowledgement::new(id, HOUR)]).await.unwrap();
    assert_eq!(requeue(id).await, Requeued::NotFound);
}

pub(super) async fn a_row_that_was_set_aside_is_listed_and_not_released_without_its_body(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    if !case.0.lose_body(id).await {
        return;
    }
    assert_eq!(case.settle_and_claim(vec![], 9).await.set_aside, [id]);
    let aside = overview(&case, id).await;
    assert_eq!((aside.due_at, aside.has_body), (None, false));
    let stats = case.store().stats().await.unwrap();
    assert_eq!((stats[0].set_aside, stats[0].waiting), (1, 1), "it is counted");
    assert_eq!(case.store().requeue(id).await.unwrap(), Requeued::NoBody);
    assert!(case.claim(9).await.is_empty());
}

pub(super) async fn an_erasure_counts_the_entries_of_the_row_and_leaves_none(case: Case<'_>) {
    assert_eq!(case.store().erase(id(1)).await.unwrap(), Erased::new(0, 0));
    case.inserted(NewProcess { references: vec![fingerprint(10)], ..waiting(1) }).await;
    let other = case.inserted(NewProcess { references: vec![fingerprint(10)], due_in: HOUR, ..waiting(2) }).await;
    case.claim_one().await;
    let erased = case.store().erase(id(1)).await.unwrap();
    assert!(erased.erased > 0 && erased.left == 0, "{erased:?}");
    assert_eq!(list_all(&case, Listing::new(9)).await, [other]);
    case.inserted(waiting(1)).await;
}
