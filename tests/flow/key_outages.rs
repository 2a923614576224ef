//! Keys that are unavailable for seconds or minutes while a user waits for an outcome.

use std::time::Duration;

use openid_deferred::error::Rule;
use openid_deferred::testing::{Endpoint, Fault};
use openid_deferred::{AuthorizationGrant, Clock as _, Error, Outcome, ResponseMode, ResponseType, SignIn, WaitEvent};

use crate::keys::without_keys;
use crate::support::{HOUR, World, assert_approved, seconds, world_with};

/// The fault of the key set's endpoint during an outage.
fn outage() -> Fault {
    Fault::status(Endpoint::Keys, 503).always()
}

/// The time between the end of an outage of this length and the end of `work`.
async fn delay_after(world: &World, outage: Duration, work: impl Future<Output = ()>) -> Duration {
    let began = world.clock.monotonic();
    let recovery = async {
        world.clock.sleep(outage).await;
        world.op.behave();
    };
    let ((), ()) = tokio::join!(work, recovery);
    let done = world.clock.monotonic();
    assert!(done - began >= outage, "it was done before the keys were back");
    done - began - outage
}

const OUTAGES: [u64; 8] = [1, 2, 3, 5, 10, 30, 100, 240];
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_wait_ends_within_seconds_after_the_keys_are_available() {
    for length in OUTAGES {
        let world = without_keys().await;
        let mut pending = world.pending().await;
        world.op.last_process().approve();
        // The answer has arrived, but the keys have not.
        world.poll_when_due(&mut pending).await.unwrap_err();
        let delay = delay_after(&world, seconds(length), async {
            assert_approved(&world.wait(&mut pending).await);
        });
        let delay = delay.await;
        assert!(delay <= SOON, "{delay:?} after an outage of {length} s");
    }
}

#[tokio::test]
async fn fetches_of_keys_are_rare_in_a_long_outage() {
    let world = without_keys().await;
    let mut pending = world.pending().await;
    world.op.last_process().approve();
    let mut troubles = 0;
    let waiting = async {
        let waiting = world.client.wait(&mut pending).on_event(|_, event| {
            troubles += usize::from(matches!(event, WaitEvent::TransientError { .. }));
        });
        assert_approved(&waiting.await.unwrap());
    };
    let delay = delay_after(&world, 6 * HOUR, waiting).await;
    assert!(delay <= seconds(660), "{delay:?}");
    let fetches = world.op.requests_to(Endpoint::Keys).len();
    assert!((20..300).contains(&fetches), "{fetches} fetches in six hours");
    assert!(troubles < 300, "{troubles} tries in six hours");
}

async fn exchanged(world: &World, grant: &mut AuthorizationGrant) -> Result<SignIn, Error> {
    loop {
        match world.client.exchange(grant).await {
            Err(error) if error.is_transient() => world.clock.sleep(error.retry_after().unwrap()).await,
            exchanged => return exchanged,
        }
    }
}

#[tokio::test]
async fn an_immediate_answer_is_validated_within_seconds_after_the_keys_are_available() {
    for length in OUTAGES {
        let world = world_with(|op| op.answer_with_code(), |client| client).await;
        let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
        let (url, mut session) = request.start().await.unwrap();
        let query = world.op.visit(url).query();
        let mut grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
        world.op.replace_keys();
        world.op.misbehave(outage());
        let delay = delay_after(&world, seconds(length), async {
            let exchanged = exchanged(&world, &mut grant).await;
            assert!(matches!(exchanged, Ok(SignIn::Complete(_))), "{exchanged:?}");
        });
        let delay = delay.await;
        assert!(delay <= SOON, "{delay:?} after an outage of {length} s");
        assert_eq!(world.op.requests_to(Endpoint::Code).len(), 1);
    }
}

#[tokio::test]
async fn one_exchange_survives_an_outage_of_keys_for_three_seconds() {
    let world = world_with(|op| op.answer_with_code(), |client| client).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await.unwrap();
    let query = world.op.visit(url).query();
    world.op.replace_keys();
    world.op.misbehave(outage());
    let delay = delay_after(&world, seconds(3), async {
        let signed_in = world.client.authorization_response(&query, session).await;
        assert!(matches!(signed_in, Ok(SignIn::Complete(_))), "{signed_in:?}");
    });
    assert!(delay.await <= SOON);
}

#[tokio::test]
async fn a_response_jwt_is_checked_within_seconds_after_the_keys_are_available() {
    for length in OUTAGES {
        let world = world_with(|op| op, |client| client.response_mode(ResponseMode::QueryJwt)).await;
        world.op.replace_keys();
        let (query, mut session) = world.user_returns().await;
        world.op.misbehave(outage());
        let delay = delay_after(&world, seconds(length), async {
            loop {
                match world.client.check_authorization_response(&query, &mut session).await {
                    Ok(_) => break,
                    Err(error) => {
                        assert!(error.is_transient(), "{error}");
                        world.clock.sleep(error.retry_after().unwrap()).await;
                    }
                }
            }
        });
        let delay = delay.await;
        assert!(delay <= SOON, "{delay:?} after an outage of {length} s");
    }
}

#[tokio::test]
async fn unavailable_metadata_is_fetched_again_within_seconds() {
    let world = without_keys().await;
    world.op.behave();
    world.op.misbehave(Fault::status(Endpoint::Metadata, 503).always());
    let world = world.restarted(9);
    let delay = delay_after(&world, seconds(3), async {
        while let Err(error) = world.client.provider_metadata().await {
            assert!(error.is_transient(), "{error}");
            world.clock.sleep(seconds(1) / 4).await;
        }
    });
    assert!(delay.await <= SOON);
}

#[tokio::test]
async fn permanently_unavailable_keys_end_the_process_as_invalid() {
    let world = without_keys().await;
    let mut pending = world.pending().await;
    world.op.last_process().approve();
    let outcome = world.wait(&mut pending).await;
    let Outcome::Invalid(violation) = outcome else { panic!("{outcome:?}") };
    assert_eq!(violation.rule(), Rule::KeysUnavailable);
    assert!(world.op.requests_to(Endpoint::Keys).len() < 400);
}
