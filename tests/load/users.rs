//! Many users who come back from the provider at the same moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use openid_deferred::ErrorKind;
use openid_deferred::poller::AcceptedSignIn;
use tokio::task::JoinSet;

use crate::service::Service;
use crate::{ALONE, memory};

const USERS: usize = 10_000;
/// The maximum growth: about 15 kB for each user while they wait, including the provider in the same program, and as
/// much again for allocators that return memory late.
const MOST_MEMORY: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_simultaneous_responses_are_all_accepted_and_no_code_is_sent_twice() {
    let _alone = ALONE.lock().await;
    let service = Arc::new(Service::start(|poller| poller).await);
    let mut returns = Vec::new();
    for _ in 0..USERS {
        returns.push(service.user_returns().await);
    }
    let (ids, grown) = memory::growth_during(async {
        let mut crowd = JoinSet::new();
        for (query, cookie) in returns {
            let service = service.clone();
            crowd.spawn(async move {
                loop {
                    let session = service.open(&cookie);
                    match service.poller.authorization_response(&query, session).await {
                        Ok(AcceptedSignIn::Deferred(id)) => return id,
                        // On a slow machine the last users have to reload.
                        Err(error) if error.kind() == &ErrorKind::Busy => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        let mut ids = BTreeSet::new();
        while let Some(id) = crowd.join_next().await {
            ids.insert(id.expect("no task panics").to_string());
        }
        ids
    })
    .await;
    println!("{USERS} authorization responses at once: {grown} MiB more memory at the most");
    assert_eq!(ids.len(), USERS);
    assert_eq!(service.waiting().await, (USERS as u64, USERS as u64));
    let exchanged: BTreeSet<_> =
        service.op.processes().iter().filter_map(|process| process.deferred_auth_id()).collect();
    assert_eq!(exchanged.len(), USERS);
    // The provider would have noted a code that comes twice.
    service.op.assert_clean();
    assert!(grown < MOST_MEMORY, "{grown} MiB");
}
