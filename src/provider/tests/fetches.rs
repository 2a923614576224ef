//! Callers share fetches, and a fetch depends on none of them.

use super::*;

#[tokio::test]
async fn concurrent_callers_share_one_fetch() {
    let op = Op::working();
    op.close();
    let opened = async { op.open() };
    let (a, b, c, ()) =
        tokio::join!(biased; op.provider.metadata(), op.provider.metadata(), op.provider.metadata(), opened);
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(op.visits(METADATA), 1);

    let op = Op::new("https://op.example");
    let (a, b) = tokio::join!(op.provider.metadata(), op.provider.metadata());
    assert!(a.is_err() && b.is_err());
    assert_eq!(op.visits(METADATA), 1, "a failure is shared as well");
}

#[tokio::test]
async fn callers_that_wait_for_one_fetch_continue_in_the_order_of_their_calls() {
    let op = Arc::new(Op::working());
    op.close();
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..100 {
        let op = op.clone();
        callers.spawn(async move { op.provider.metadata().await.map(|_| number) });
    }
    tokio::task::yield_now().await;
    op.open();
    let mut order = Vec::new();
    while let Some(caller) = callers.join_next().await {
        order.push(caller.unwrap().unwrap());
    }
    // The first one waits for its own task.
    order.retain(|number| *number > 0);
    assert_eq!(order, (1..100).collect::<Vec<_>>());
    assert_eq!(op.visits(METADATA), 1);
}

#[tokio::test]
async fn a_dropped_caller_neither_stops_nor_repeats_the_fetch() {
    let op = Op::working();
    op.close();
    tokio::select! {
        biased;
        _ = op.provider.metadata() => unreachable!("the answer is held back"),
        () = tokio::task::yield_now() => {}
    }
    op.open();
    op.provider.metadata().await.unwrap();
    assert_eq!(op.visits(METADATA), 1);
}

#[tokio::test]
async fn a_failure_is_recorded_although_its_caller_was_dropped() {
    let op = Op::new("https://op.example");
    op.close();
    tokio::select! {
        biased;
        _ = op.provider.metadata() => unreachable!("the answer is held back"),
        () = tokio::task::yield_now() => {}
    }
    op.open();
    op.settle().await;
    op.provider.metadata().await.unwrap_err();
    assert_eq!(op.visits(METADATA), 1);
}

#[test]
fn a_fetch_that_ends_with_its_runtime_is_started_again() {
    let op = Op::working();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    op.close();
    runtime().block_on(async {
        tokio::select! {
            biased;
            _ = op.provider.metadata() => unreachable!("the answer is held back"),
            () = tokio::task::yield_now() => {}
        }
    });
    op.open();
    runtime().block_on(op.provider.metadata()).unwrap();
    assert_eq!(op.visits(METADATA), 2);
}

#[tokio::test]
async fn callers_wait_for_new_metadata_if_the_old_one_may_be_wrong() {
    let op = Op::working();
    op.provider.metadata().await.unwrap();
    op.clock.advance(60);
    op.serve(METADATA, &with("token_endpoint", json!("https://op.example/v2/token")));
    op.provider.metadata.mark_suspect();
    assert_eq!(op.provider.metadata().await.unwrap().token_endpoint().path(), "/v2/token");
}

#[tokio::test]
async fn the_old_document_is_used_while_a_new_one_is_fetched() {
    let op = Op::working();
    op.provider.metadata().await.unwrap();
    op.clock.advance(3_600);
    op.close();
    for _ in 0..2 {
        op.provider.metadata().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(op.visits(METADATA), 2);
}
