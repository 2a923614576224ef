//! From the authorization response to the acknowledgement.

use openid_deferred::error::Rule;
use openid_deferred::store::State;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};
use openid_deferred::{AuthorizationSession, ErrorKind, Outcome, ResponseType, SignIn, poller};

use crate::support::{HOUR, SECOND, world, world_of};

#[tokio::test]
async fn a_deferred_sign_in_is_stored_polled_delivered_and_acknowledged() {
    let world = world().await;
    let id = world.waiting().await;
    let status = world.poller.status(id).await.unwrap().unwrap();
    assert_eq!(status.state(), State::Waiting);
    assert_eq!(status.interim().verified().map(|interim| interim.claims().subject()), Some("user-1"));

    let delivery = world.outcome().await;
    assert_eq!((delivery.id(), delivery.context(), delivery.attempt()), (id, b"context".as_slice(), 1));
    let Outcome::Approved(authentication) = delivery.outcome() else { panic!("{delivery:?}") };
    assert_eq!(authentication.claims().name(), Some("Jane Doe"));
    assert!(authentication.is_sender_constrained());
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Decided);

    delivery.acknowledge().await.unwrap();
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Acknowledged);
    assert_eq!(world.polls().len(), 2);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_response_is_accepted_only_with_the_session_of_its_tab() {
    let mut world = world().await;
    let (url, first) = world.client.authorize().context("case A").start().await.unwrap();
    let (_, second) = world.client.authorize().context("case B").start().await.unwrap();
    let query = world.op.visit(url).query();
    // The browser sends both cookies, and only the session that the response belongs to is accepted.
    let error = world.poller.authorization_response(&query, second).await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::StateMismatch));
    let keyring = crate::support::keyring();
    let first = AuthorizationSession::open(&keyring, &first.seal(&keyring).unwrap()).unwrap();
    let Ok(poller::AcceptedSignIn::Deferred(id)) = world.poller.authorization_response(&query, first).await else {
        panic!("not deferred")
    };
    world.restart().await;
    let delivery = world.outcome().await;
    assert_eq!((delivery.id(), delivery.context()), (id, b"case A".as_slice()));
    let Outcome::Approved(authentication) = delivery.outcome() else { panic!("{delivery:?}") };
    assert_eq!(authentication.context(), b"case A");
}

#[tokio::test]
async fn a_denial_is_delivered_with_its_reason() {
    let world = world_of(|op| op.decisions(DecisionPolicy::immediately().deny())).await;
    world.waiting().await;
    let delivery = world.outcome().await;
    assert_eq!(delivery.context(), b"context");
    let Outcome::Denied(denial) = delivery.outcome() else { panic!("{delivery:?}") };
    assert!(denial.description().is_some());
    world.op.assert_clean();
}

#[tokio::test]
async fn an_immediate_answer_is_returned_and_not_delivered() {
    let world = world_of(|op| op.answer_with_code()).await;
    let request = world.client.authorize().context("context").response_type(ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await.unwrap();
    let query = world.op.visit(url).query();
    let accepted = world.poller.authorization_response(&query, session).await.unwrap();
    let poller::AcceptedSignIn::Complete(authentication) = accepted else { panic!("{accepted:?}") };
    assert_eq!((authentication.claims().subject(), authentication.context()), ("user-1", b"context".as_slice()));
    let mut outcomes = world.poller.outcomes();
    tokio::select! {
        biased;
        delivery = outcomes.next() => panic!("{delivery:?}"),
        () = world.sleep(HOUR) => {}
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_second_response_for_one_session_sends_nothing_and_names_the_first_process() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    let keyring = crate::support::keyring();
    let again = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    let Ok(poller::AcceptedSignIn::Deferred(first)) = world.poller.authorization_response(&query, session).await else {
        panic!("not deferred")
    };
    let replica = world.replica(5).await;
    let Ok(poller::AcceptedSignIn::Deferred(second)) = replica.authorization_response(&query, again).await else {
        panic!("not deferred")
    };
    assert_eq!(first, second);
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_code_stays_unspent_if_the_exchange_was_not_sent() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    let keyring = crate::support::keyring();
    let again = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    world.op.misbehave(Fault::error_with_status(Endpoint::Exchange, 401, "invalid_client"));
    let error = world.poller.authorization_response(&query, session).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ErrorResponse(_)), "{error:?}");
    assert!(matches!(
        world.poller.authorization_response(&query, again).await,
        Ok(poller::AcceptedSignIn::Deferred(_))
    ));
}

#[tokio::test]
async fn the_id_of_a_sign_in_is_not_announced_before_its_exchange_succeeds() {
    let world = world().await;
    let replica = world.replica(5).await;
    let (query, session) = world.user_returns().await;
    let keyring = crate::support::keyring();
    let again = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    world.op.misbehave(Fault::delay(Endpoint::Exchange, SECOND));
    world.op.misbehave(Fault::error_with_status(Endpoint::Exchange, 401, "invalid_client"));
    let reload = async {
        world.sleep(SECOND / 2).await;
        replica.authorization_response(&query, again).await
    };
    let (first, second) = tokio::join!(world.poller.authorization_response(&query, session), reload);
    first.unwrap_err();
    let Ok(poller::AcceptedSignIn::Deferred(id)) = second else { panic!("the code was unspent: {second:?}") };
    let delivery = world.outcome().await;
    assert_eq!((delivery.id(), delivery.context()), (id, b"context".as_slice()));
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 2);
}

#[tokio::test]
async fn an_exchange_whose_answer_is_lost_is_an_error_and_is_never_sent_again() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    let keyring = crate::support::keyring();
    let again = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    world.op.misbehave(Fault::reset(Endpoint::Exchange).after_processing());
    let error = world.poller.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::OutcomeUnknown);
    let Ok(poller::AcceptedSignIn::Ended(id)) = world.poller.authorization_response(&query, again).await else {
        panic!("the session is remembered")
    };
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Acknowledged);
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1);
}

#[tokio::test]
async fn an_exchange_whose_replica_died_is_delivered_as_unknown() {
    let mut world = world().await;
    let (query, session) = world.user_returns().await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, SECOND).after_processing());
    tokio::select! {
        biased;
        accepted = world.poller.authorization_response(&query, session) => panic!("{accepted:?}"),
        () = world.sleep(SECOND / 2) => {}
    }
    world.restart().await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Unknown), "{delivery:?}");
    assert_eq!(delivery.context(), b"context");
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 1);
}

#[tokio::test]
async fn an_exchange_continues_when_the_browser_disconnects() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    world.op.misbehave(Fault::delay(Endpoint::Exchange, SECOND).after_processing());
    tokio::select! {
        biased;
        accepted = world.poller.authorization_response(&query, session) => panic!("{accepted:?}"),
        () = world.sleep(SECOND / 2) => {}
    }
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
}

#[tokio::test]
async fn a_process_of_a_stateless_client_is_tracked_once_and_delivered() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    let Ok(SignIn::Deferred(pending)) = world.client.authorization_response(&query, session).await else {
        panic!("not deferred")
    };
    let id = world.poller.track(&pending).await.unwrap();
    assert_eq!(world.poller.track(&pending).await.unwrap(), id);
    let delivery = world.outcome().await;
    assert_eq!((delivery.id(), delivery.context()), (id, b"context".as_slice()));
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert!(world.gaps().iter().all(|gap| (5.0..=5.5).contains(gap)), "{:?}", world.gaps());
    world.op.assert_clean();
}

#[tokio::test]
async fn an_immediate_answer_is_kept_until_it_can_be_verified() {
    let mut world = world_of(|op| op.answer_with_code()).await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let request = world.client.authorize().context("context").response_type(ResponseType::DeferredCodeOrCode);
    let (url, session) = request.start().await.unwrap();
    let query = world.op.visit(url).query();
    let accepted = world.poller.authorization_response(&query, session).await.unwrap();
    let poller::AcceptedSignIn::Deferred(id) = accepted else { panic!("{accepted:?}") };
    assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Answered);
    world.restart().await;
    world.sleep(HOUR).await;
    world.op.behave();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    assert_eq!((delivery.id(), delivery.context()), (id, b"context".as_slice()));
    assert_eq!(world.op.requests_to(Endpoint::Code).len(), 1, "a code is sent once");
    assert!(world.polls().is_empty());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_second_response_for_an_ended_session_is_an_error() {
    let world = world().await;
    let keyring = crate::support::keyring();
    for fails in [true, false] {
        let (query, session) = world.user_returns().await;
        let sealed = session.seal(&keyring).unwrap();
        if fails {
            world.op.misbehave(Fault::error_with_status(Endpoint::Exchange, 503, "temporarily_unavailable"));
            let error = world.poller.authorization_response(&query, session).await.unwrap_err();
            assert!(!error.is_transient(), "a reload would not help: {error:?}");
        } else {
            assert!(world.poller.authorization_response(&query, session).await.is_ok());
            world.outcome().await.acknowledge().await.unwrap();
        }
        let again = AuthorizationSession::open(&keyring, &sealed).unwrap();
        let Ok(poller::AcceptedSignIn::Ended(id)) = world.poller.authorization_response(&query, again).await else {
            panic!("not over")
        };
        assert_eq!(world.poller.status(id).await.unwrap().unwrap().state(), State::Acknowledged);
    }
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 2);
}

#[tokio::test]
async fn the_interim_token_as_the_final_one_is_invalid_after_a_restart() {
    for restarts in [false, true] {
        let mut world = world_of(|op| op.decisions(DecisionPolicy::after_polls(2))).await;
        world.waiting().await;
        let response = world.op.requests_to(Endpoint::Exchange)[0].response_json();
        let interim =
            ["id_token", "interim_id_token"].iter().find_map(|name| response[name].as_str()).unwrap().to_owned();
        let fault = Fault::edit_json(Endpoint::Poll, move |members| {
            members.insert("id_token".into(), serde_json::json!(interim));
        });
        world.op.misbehave(fault.after_success());
        if restarts {
            world.restart().await;
        }
        let delivery = world.outcome().await;
        let Outcome::Invalid(violation) = delivery.outcome() else { panic!("{delivery:?}") };
        assert_eq!(violation.rule(), Rule::InterimIdTokenAsFinal);
    }
}
