//! `expires_in` and `interval` in every form.

use super::*;

/// The number of seconds from the answer to the earliest time of the first poll.
async fn interval(value: Value) -> u64 {
    let world = op_with(|op| op.no_expiry()).await;
    let pending = answered_with(&world, move |members| set(members, "interval", value.clone())).await.unwrap();
    let wait = pending.due_at().duration_since(world.clock.now()).unwrap().as_secs_f64();
    // Up to a tenth is jitter.
    (wait / 1.1).ceil() as u64
}

async fn lifetime(value: Value) -> Option<u64> {
    let world = world().await;
    let pending = answered_with(&world, move |members| set(members, "expires_in", value.clone())).await.unwrap();
    pending.expires_at().map(|end| end.duration_since(world.clock.now()).unwrap().as_secs())
}

#[tokio::test]
async fn an_interval_is_read_in_every_form() {
    for value in [json!(60), json!(60.0), json!("60"), json!("60.0"), json!(59.5)] {
        let interval = interval(value.clone()).await;
        assert!((55..=60).contains(&interval), "{value}: {interval}");
    }
}

#[tokio::test]
async fn a_malformed_interval_is_five_seconds() {
    for value in [json!(0), json!(-5), json!("soon"), json!(""), json!([60]), json!(null), json!(true)] {
        assert_eq!(interval(value.clone()).await, 5, "{value}");
    }
}

#[tokio::test]
async fn a_huge_interval_saturates() {
    for value in [json!(1e30), json!(u64::MAX), json!("99999999999999999999999999")] {
        assert!(interval(value.clone()).await > 1_000_000_000, "{value}");
    }
}

#[tokio::test]
async fn a_lifetime_is_read_in_every_form() {
    for value in [json!(600), json!(600.0), json!("600"), json!(600.9)] {
        assert_eq!(lifetime(value.clone()).await, Some(600), "{value}");
    }
}

#[tokio::test]
async fn a_malformed_lifetime_counts_as_absent() {
    for value in [json!(0), json!(-5), json!("soon"), json!(null), json!({})] {
        assert_eq!(lifetime(value.clone()).await, None, "{value}");
    }
}

#[tokio::test]
async fn a_huge_lifetime_saturates() {
    assert!(lifetime(json!(1e30)).await.is_some_and(|seconds| seconds > 100_000_000_000));
}

#[tokio::test]
async fn strict_times_refuses_times_that_are_not_positive_integers() {
    let world = client_with(|client| client.strict_times()).await;
    for name in ["interval", "expires_in"] {
        for value in [json!("60"), json!(60.5), json!(0), json!(-1), json!("soon")] {
            let error = answered_with(&world, move |members| set(members, name, value.clone())).await.unwrap_err();
            let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
            assert_eq!((violation.rule(), violation.member()), (Rule::InvalidMember, Some(name)));
        }
    }
    assert!(answered_with(&world, |members| drop(members.remove("interval"))).await.is_ok());
}

#[tokio::test]
async fn the_lifetime_begins_with_the_exchange_request_and_the_interval_with_its_answer() {
    let world = op_with(|op| op.expires_in(Duration::from_secs(600))).await;
    let mut grant = world.grant().await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, Duration::from_secs(20)));
    let sent_at = world.clock.now();
    let Ok(SignIn::Deferred(pending)) = world.client.exchange(&mut grant).await else { panic!("not deferred") };
    assert_eq!(pending.expires_at(), Some(sent_at + Duration::from_secs(600)));
    assert!(pending.due_at() >= sent_at + Duration::from_secs(25));
}

#[tokio::test]
async fn a_deferral_of_ten_years_works() {
    const DAY: Duration = Duration::from_secs(86_400);
    let world = op_with(|op| {
        op.expires_in(3_650 * DAY)
            .interval(60 * DAY)
            .decisions(openid_deferred::testing::DecisionPolicy::after(3_600 * DAY))
    })
    .await;
    assert!(matches!(world.outcome().await, Outcome::Approved(_)));
    world.op.assert_clean();
}
