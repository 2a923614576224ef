//! Cancellation by revocation of the deferral code.

use openid_deferred::testing::{DecisionPolicy, Endpoint};
use openid_deferred::{Cancelled, Outcome};

use super::{ietf, issued, undecided};

#[tokio::test]
async fn the_deferral_code_is_revoked_with_the_key_of_the_request() {
    let world = undecided().await;
    let mut pending = world.pending_grant().await;
    for _ in 0..2 {
        assert_eq!(world.client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
    }
    let revocations = world.op.requests_to(Endpoint::Revocation);
    assert_eq!(revocations.len(), 2, "it can be repeated");
    let revocation = &revocations[0];
    assert_eq!(revocation.parameter("token"), world.op.last_process().deferral_code().as_deref());
    assert_eq!(revocation.parameter("token_type_hint"), Some("urn:ietf:params:oauth:token-type:deferral-code"));
    let outcome = world.wait(&mut pending).await;
    assert!(matches!(outcome, Outcome::Cancelled), "{outcome:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn a_server_that_cannot_revoke_codes_is_not_asked() {
    let world = ietf(|op| op.without_deferral_code_revocation().decisions(DecisionPolicy::scripted())).await;
    let mut pending = world.pending_grant().await;
    assert_eq!(world.client.cancel(&mut pending).await.unwrap(), Cancelled::LocallyOnly);
    assert!(world.op.requests_to(Endpoint::Revocation).is_empty());
    world.op.last_process().approve();
    assert!(issued(world.wait(&mut pending).await).is_after_cancellation());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_cancellation_suppresses_a_success_that_was_not_collected() {
    let world = undecided().await;
    let mut pending = world.pending_grant().await;
    world.op.last_process().approve();
    assert_eq!(world.client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
    assert!(matches!(world.wait(&mut pending).await, Outcome::Cancelled));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_sign_in_is_cancelled_in_the_same_way() {
    let world = undecided().await;
    let mut pending = world.pending().await;
    assert_eq!(world.client.cancel(&mut pending).await.unwrap(), Cancelled::Accepted);
    assert!(matches!(world.wait(&mut pending).await, Outcome::Cancelled));
    assert!(world.op.requests_to(Endpoint::Cancellation).is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn cancelling_without_a_revocation_endpoint_stays_local() {
    let world = ietf(|op| {
        let op = op.decisions(DecisionPolicy::scripted());
        op.metadata(|metadata| drop(metadata.remove("revocation_endpoint")))
    })
    .await;
    let mut pending = world.pending_grant().await;
    assert_eq!(world.client.cancel(&mut pending).await.unwrap(), Cancelled::LocallyOnly);
}
