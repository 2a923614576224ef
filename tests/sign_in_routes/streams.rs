//! The bounds of event streams.

use std::sync::Arc;
use std::time::Duration;

use openid_deferred::testing::TestClock;
use openid_deferred::{Clock as _, SystemClock};
use reqwest::StatusCode;

use crate::support::{DEADLINE, Setup, world, world_of};

#[tokio::test]
async fn one_sign_in_has_ten_streams_and_a_closed_one_makes_room() {
    let world = world().await;
    let mut user = world.browser();
    let path = format!("/sign-in/{}/events", user.waits("").await);
    let other = format!("/sign-in/{}/events", user.waits("").await);
    let mut streams = Vec::new();
    for _ in 0..10 {
        let stream = user.open(&path).await;
        assert_eq!(stream.status(), StatusCode::OK);
        streams.push(stream);
    }
    let refused = user.get(&path).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "busy"));
    assert_eq!(user.open(&other).await.status(), StatusCode::OK, "another sign-in has streams of its own");

    streams.pop();
    let end = SystemClock.monotonic() + DEADLINE;
    while user.open(&path).await.status() != StatusCode::OK {
        assert!(SystemClock.monotonic() < end, "the stream that was closed still counts");
    }
}

#[tokio::test]
async fn a_stream_ends_after_ten_minutes() {
    let clock = TestClock::automatic();
    let _still = clock.hold();
    let setup = Setup { clock: Arc::new(clock.clone()), ..Setup::default() };
    let world = world_of(setup, |op| op.interval(Duration::from_secs(3_600)), |client| client).await;
    let mut user = world.browser();
    let id = user.waits("").await;
    let mut stream = user.open(&format!("/sign-in/{id}/events")).await;
    let began = clock.monotonic();
    // A quiet stream has a comment every 5 s.
    while stream.chunk().await.expect("the connection stays open").is_some() {
        assert!(clock.monotonic() - began <= Duration::from_secs(600), "the stream goes on");
        clock.advance(Duration::from_secs(5));
    }
    assert_eq!(clock.monotonic() - began, Duration::from_secs(600));
}
