//! DTR §Getting the Authentication Result.

use openid_deferred::Outcome;

use crate::support::world;

#[tokio::test]
async fn a_deferred_sign_in_ends_with_verified_claims() {
    let world = world().await;
    let Outcome::Approved(authentication) = world.outcome().await else { panic!("not approved") };
    assert_eq!(authentication.claims().subject(), "user-1");
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert!(authentication.is_sender_constrained());
    world.op.assert_clean();
}
