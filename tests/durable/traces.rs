//! The trace that a sign-in belongs to.

use std::sync::{Arc, Mutex};

use openid_deferred::poller::{AcceptedSignIn, AcceptedTokenRequest};
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{Grant, Outcome, PendingAuthentication};

use crate::support::{SECOND, World, keyring, world, world_of, world_with};

const TRACE_PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

impl World {
    /// Starts a sign-in with this trace that waits for its outcome.
    async fn traced(&self, trace_parent: &str) {
        let (url, session) = self.client.authorize().trace_parent(trace_parent).start().await.unwrap();
        let response = self.op.visit(url).query();
        let answer = self.poller.authorization_response(&response, session).await.unwrap();
        assert!(matches!(answer, AcceptedSignIn::Deferred(_)), "{answer:?}");
    }

    /// The headers `traceparent` of all requests.
    fn sent(&self) -> Vec<(Endpoint, String)> {
        let requests = self.op.requests().into_iter();
        requests.filter_map(|request| Some((request.endpoint, request.header("traceparent")?.to_owned()))).collect()
    }
}

#[tokio::test]
async fn the_trace_is_delivered_with_the_outcome_after_a_restart() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::after_polls(3))).await;
    world.traced(TRACE_PARENT).await;
    world.restart().await;
    let delivery = world.outcome().await;
    assert_eq!(delivery.trace_parent(), Some(TRACE_PARENT));
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    world.op.assert_clean();
}

#[tokio::test]
async fn the_trace_stays_when_the_row_is_written_again() {
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    world.traced(TRACE_PARENT).await;
    let process = world.op.last_process();
    process.progress("a person is looking at the passport");
    world.sleep(12 * SECOND).await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).times(3));
    process.approve();
    assert_eq!(world.outcome().await.trace_parent(), Some(TRACE_PARENT));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_outcome_that_is_unknown_after_a_crash_in_the_exchange_has_its_trace() {
    let mut world = world_of(|op| op.decisions(DecisionPolicy::immediately())).await;
    world.op.misbehave(Fault::stall(Endpoint::Exchange).after_processing());
    let (url, session) = world.client.authorize().trace_parent(TRACE_PARENT).start().await.unwrap();
    let response = world.op.visit(url).query();
    let stopped = async {
        world.sleep(2 * SECOND).await;
        world.poller.shutdown(5 * SECOND).await;
    };
    let (told, ()) = tokio::join!(world.poller.authorization_response(&response, session), stopped);
    told.unwrap_err();
    world.restart().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
    assert_eq!(delivery.trace_parent(), Some(TRACE_PARENT));
}

#[tokio::test]
async fn a_missing_or_malformed_trace_parent_is_left_out() {
    let world = world().await;
    for trace_parent in ["", "00-0-0-00", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] {
        let (_, session) = world.client.authorize().trace_parent(trace_parent).start().await.unwrap();
        assert_eq!(session.trace_parent(), None, "{trace_parent}");
    }
    world.traced("nonsense").await;
    assert_eq!(world.outcome().await.trace_parent(), None);
}

#[tokio::test]
async fn the_application_joins_the_spans_of_the_exchange_and_of_polls() {
    let joined = Arc::new(Mutex::new(Vec::new()));
    let (record, lines) = (joined.clone(), joined);
    let world = world_with(
        |op| op,
        |client| client,
        |poller| poller.continue_traces(move |_, trace_parent| record.lock().unwrap().push(trace_parent.to_owned())),
    )
    .await;
    world.traced(TRACE_PARENT).await;
    drop(world.outcome().await);
    let of_the_first = lines.lock().unwrap().len();
    // One exchange, two polls, one verification.
    assert!(of_the_first >= 3, "{of_the_first}");
    assert!(lines.lock().unwrap().iter().all(|line| line == TRACE_PARENT));
    world.waiting().await;
    assert_eq!(lines.lock().unwrap().len(), of_the_first, "a sign-in without a trace");
}

#[tokio::test]
async fn the_op_gets_the_trace_only_if_the_client_is_set_to_send_it() {
    let silent = world().await;
    silent.traced(TRACE_PARENT).await;
    drop(silent.outcome().await);
    assert_eq!(silent.sent(), []);

    let open = world_with(|op| op, |client| client.send_trace_parent(), |poller| poller).await;
    open.traced(TRACE_PARENT).await;
    drop(open.outcome().await);
    let sent = open.sent();
    let polls = open.polls().len();
    assert_eq!(sent.iter().filter(|(endpoint, _)| *endpoint == Endpoint::Poll).count(), polls);
    assert!(sent.iter().any(|(endpoint, _)| *endpoint == Endpoint::Exchange), "{sent:?}");
    assert!(sent.iter().all(|(_, value)| value == TRACE_PARENT), "{sent:?}");
    open.op.assert_clean();

    // Another sign-in of the same client has no trace, and names none.
    open.waiting().await;
    drop(open.outcome().await);
    assert_eq!(open.sent().len(), sent.len());
}

#[tokio::test]
async fn a_pending_sign_in_that_is_sealed_opened_and_tracked_keeps_its_trace() {
    let world = world().await;
    let (url, session) = world.client.authorize().trace_parent(TRACE_PARENT).start().await.unwrap();
    assert_eq!(session.trace_parent(), Some(TRACE_PARENT));
    let sealed = session.seal(&keyring()).unwrap();
    let session = openid_deferred::AuthorizationSession::open(&keyring(), &sealed).unwrap();
    let response = world.op.visit(url).query();
    let Ok(openid_deferred::SignIn::Deferred(pending)) = world.client.authorization_response(&response, session).await
    else {
        panic!("the OP defers")
    };
    let pending = PendingAuthentication::open(&keyring(), &pending.seal(&keyring()).unwrap()).unwrap();
    assert_eq!(pending.trace_parent(), Some(TRACE_PARENT));
    world.poller.track(&pending).await.unwrap();
    assert_eq!(world.outcome().await.trace_parent(), Some(TRACE_PARENT));
}

#[tokio::test]
async fn requests_without_a_browser_have_traces() {
    let world = world_with(|op| op.both_dialects().ciba(), |client| client.send_trace_parent(), |poller| poller).await;
    let hint = openid_deferred::ciba::UserHint::login_hint("user-1");
    let request = world.client.backchannel_authentication(hint).trace_parent(TRACE_PARENT);
    let answer = world.poller.request_authentication(request).await.unwrap();
    assert!(matches!(answer, AcceptedSignIn::Deferred(_)), "{answer:?}");
    let delivery = world.outcome().await;
    assert_eq!(delivery.trace_parent(), Some(TRACE_PARENT));
    delivery.acknowledge().await.unwrap();
    let request = world.client.token_request(Grant::client_credentials()).trace_parent(TRACE_PARENT);
    let answer = world.poller.request_tokens(request).await.unwrap();
    assert!(matches!(answer, AcceptedTokenRequest::Deferred(_)), "{answer:?}");
    let delivery = world.outcome().await;
    assert_eq!(delivery.trace_parent(), Some(TRACE_PARENT));
    for endpoint in [Endpoint::BackchannelAuthentication, Endpoint::ClientCredentials, Endpoint::Poll] {
        assert!(world.sent().iter().any(|(sent_to, _)| *sent_to == endpoint), "{endpoint:?}");
    }
}
