//! Rows with all of their columns, for moving them to another store.

use super::*;
use crate::store::{Acknowledgement, Cancellation, Imported, StoredRow};

async fn export_all(case: &Case<'_>) -> Vec<StoredRow> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let rows = case.store().export(after, 2).await.unwrap();
        assert!(rows.len() <= 2);
        let Some(last) = rows.last() else { return all };
        after = Some(last.id);
        all.extend(rows);
    }
}

async fn erase_all(case: &Case<'_>, rows: &[StoredRow]) {
    for row in rows {
        assert!(case.store().forget(row.id).await.unwrap());
    }
}

pub(super) async fn a_row_is_exported_and_imported_unchanged_in_every_state(case: Case<'_>) {
    assert!(export_all(&case).await.is_empty());
    let tombstone = case.decided(1).await;
    case.store().acknowledge(vec![Acknowledgement::new(tombstone, HOUR)]).await.unwrap();
    case.decided_provisionally(2).await;
    case.decided(3).await;
    case.outcomes(HOUR).await;
    case.inserted(NewProcess { state: State::Exchanging, due_in: HOUR, lookups: vec![], ..waiting(4) }).await;
    let answered = case.inserted(waiting(5)).await;
    let claimed = case.claim_one().await;
    case.settle(Settlement { body: Some(body("answered")), ..settlement(&claimed, Next::Answered) }).await;
    case.claim_one().await;
    case.inserted(NewProcess { due_in: 9 * HOUR, ping_in: Some(HOUR), references: vec![fingerprint(9)], ..waiting(6) })
        .await;
    case.store().cancel(id(6), Cancellation::Requested).await.unwrap();
    case.ping(id(6), 106).await;
    case.inserted(NewProcess { expires_in: Some(HOUR), sessions: vec![], ..waiting(7) }).await;

    let rows = export_all(&case).await;
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7].map(id));
    assert_eq!((rows[0].state, &rows[0].body), (State::Acknowledged, &None));
    assert_eq!((rows[4].id, rows[4].attempts, rows[4].revision), (answered, 1, 1));
    assert_eq!(rows[4].body.as_deref(), Some(&b"answered"[..]));
    assert!(rows[4].leased_until.is_some() && rows[5].pinged_at.is_some() && rows[6].expires_at.is_some());
    assert_eq!((rows[5].reference, rows[5].cancellation), (Some(fingerprint(9)), Cancellation::Requested));
    assert_eq!((rows[6].session, rows[6].interval), (None, HOUR));
    erase_all(&case, &rows).await;
    assert_eq!(case.store().import(rows.clone()).await.unwrap(), [Imported::Added; 7]);
    assert_eq!(export_all(&case).await, rows);
    assert_eq!(case.store().import(rows.clone()).await.unwrap(), [Imported::Present; 7]);
    assert_eq!(export_all(&case).await, rows, "a repetition changes nothing");
    let same_session = StoredRow { id: id(8), ..rows[5].clone() };
    assert_eq!(case.store().import(vec![same_session]).await.unwrap(), [Imported::Conflict(id(6))]);
    assert_eq!(export_all(&case).await.len(), 7);
}

pub(super) async fn an_imported_row_is_due_when_it_would_have_been(case: Case<'_>) {
    let held = case.inserted(waiting(1)).await;
    let claimed = case.claim_one().await;
    case.inserted(NewProcess { due_in: HOUR, ..waiting(2) }).await;
    let rows = export_all(&case).await;
    erase_all(&case, &rows).await;
    case.store().import(rows).await.unwrap();
    assert!(case.claim(9).await.is_empty(), "neither is due");
    case.advance(30 * MINUTE).await;
    assert!(case.claim(9).await.is_empty(), "the interval counts from the end of the lease");
    case.advance(31 * MINUTE).await;
    assert_eq!(ids(&case.claim(9).await), [id(2)]);
    case.advance(5 * MINUTE).await;
    let orphaned = case.claim_one().await;
    assert_eq!((orphaned.id, orphaned.epoch, orphaned.orphaned), (held, claimed.epoch + 1, true));
    assert_eq!(case.settle(settlement(&claimed, Next::Waiting)).await, Settled::Stale);
}

pub(super) async fn a_row_that_was_set_aside_stays_set_aside_when_it_is_moved(case: Case<'_>) {
    let id = case.inserted(waiting(1)).await;
    if !case.0.lose_body(id).await {
        return;
    }
    assert_eq!(case.settle_and_claim(vec![], 9).await.set_aside, [id]);
    let mut rows = export_all(&case).await;
    assert_eq!((rows[0].due_at, &rows[0].body), (None, &None));
    erase_all(&case, &rows).await;
    // The body was found in a backup.
    rows[0].body = Some(b"found".to_vec());
    case.store().import(rows).await.unwrap();
    assert!(case.claim(9).await.is_empty());
    assert!(matches!(case.store().requeue(id).await.unwrap(), crate::store::Requeued::Done { .. }));
    assert_eq!(case.claim_one().await.body, body("found"));
}
