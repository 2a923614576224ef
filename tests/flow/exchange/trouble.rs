//! What the network and the OP can do to a code that may be sent once only.

use super::*;

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_code_not_sent_again() {
    for status in [301, 302, 303, 307, 308] {
        let fault = Fault::status(Endpoint::Exchange, status).header("Location", "https://op.test/resource");
        let (_, error) = lost(fault).await;
        assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedRedirect));
    }
}

#[tokio::test]
async fn a_success_other_than_200_is_none() {
    for status in [201, 202, 204, 206] {
        let body = r#"{"deferred_auth_id":"abc"}"#;
        let (_, error) = lost(Fault::response(Endpoint::Exchange, status, "application/json", body)).await;
        assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedStatus));
    }
}

#[tokio::test]
async fn a_page_for_humans_is_no_answer() {
    let (_, error) = lost(Fault::status(Endpoint::Exchange, 200)).await;
    let ErrorKind::Protocol(violation) = cause(&error).kind() else { panic!("{error:?}") };
    assert_eq!(violation.rule(), Rule::UnexpectedContentType);
    assert_eq!(violation.document(), Some(Document::ExchangeResponse));
    let (_, error) = lost(Fault::status(Endpoint::Exchange, 502)).await;
    assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedStatus));
}

#[tokio::test]
async fn broken_json_is_no_answer() {
    let (world, error) = lost(Fault::truncated_json(Endpoint::Exchange)).await;
    assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson));
    assert!(world.op.processes()[0].deferred_auth_id().is_some(), "the OP had issued one");
    for body in ["", "[]", "null", "\"x\"", "{\"a\":1}{"] {
        let (_, error) = lost(Fault::response(Endpoint::Exchange, 200, "application/json", body)).await;
        assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson), "{body}");
    }
}

#[tokio::test]
async fn an_error_that_comes_as_success_is_no_answer() {
    let body = r#"{"error":"invalid_grant"}"#;
    let (_, error) = lost(Fault::response(Endpoint::Exchange, 200, "application/json", body)).await;
    assert_eq!(cause(&error).rule(), Some(Rule::ErrorResponseWithSuccessStatus));
}

#[tokio::test]
async fn an_exchange_that_times_out_is_never_repeated() {
    let (_, error) = lost(Fault::stall(Endpoint::Exchange)).await;
    assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Timeout));
    let (_, error) = lost(Fault::delay(Endpoint::Exchange, Duration::from_secs(31))).await;
    assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Timeout));
}

#[tokio::test]
async fn an_exchange_whose_connection_breaks_is_never_repeated() {
    for fault in [
        Fault::reset(Endpoint::Exchange),
        Fault::reset(Endpoint::Exchange).after_processing(),
        Fault::cut_body(Endpoint::Exchange),
    ] {
        let (_, error) = lost(fault).await;
        assert_eq!(*cause(&error).kind(), ErrorKind::Transport(TransportProblem::Broken));
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_no_answer() {
    for fault in [
        Fault::huge_body(Endpoint::Exchange, 50_000_000),
        Fault::gzip_bomb(Endpoint::Exchange, 2_000_000),
        Fault::endless_body(Endpoint::Exchange),
    ] {
        let (_, error) = lost(fault).await;
        let too_large = TransportProblem::BodyTooLarge(Document::ExchangeResponse);
        assert_eq!(*cause(&error).kind(), ErrorKind::Transport(too_large));
    }
}

#[tokio::test]
async fn an_exchange_that_is_dropped_in_the_middle_goes_on_and_the_next_call_takes_its_answer() {
    for absence in [2, 10, 600] {
        let world = world().await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::delay(Endpoint::Exchange, Duration::from_secs(10)));
        drop_exchange_after(&world, &mut grant, 1).await;
        assert!(grant.is_spent());
        world.clock.sleep(Duration::from_secs(absence)).await;
        let signed_in = world.client.exchange(&mut grant).await;
        assert!(matches!(signed_in, Ok(SignIn::Deferred(_))), "{absence}: {signed_in:?}");
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
        assert_eq!(world.exchanges().len(), 1);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn an_exchange_that_is_dropped_and_then_fails_tells_the_next_call_why() {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.misbehave(Fault::stall(Endpoint::Exchange));
    drop_exchange_after(&world, &mut grant, 1).await;
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(world.exchanges().len(), 1);
    assert!(grant.is_spent());
}

#[tokio::test]
async fn an_exchange_that_is_dropped_while_the_interim_token_is_verified_keeps_the_process() {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.rotate_keys(false);
    world.op.misbehave(Fault::stall(Endpoint::Keys));
    drop_exchange_after(&world, &mut grant, 1).await;
    let Ok(SignIn::Deferred(mut pending)) = world.client.exchange(&mut grant).await else { panic!("it was lost") };
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
    assert_eq!(world.exchanges().len(), 1);
    assert!(matches!(world.wait(&mut pending).await, Outcome::Approved(_)));
    world.op.assert_clean();
}

async fn drop_exchange_after(world: &World, grant: &mut AuthorizationGrant, seconds: u64) {
    tokio::select! {
        biased;
        _ = world.client.exchange(grant) => panic!("it ended before it could be dropped"),
        () = world.clock.sleep(Duration::from_secs(seconds)) => {}
    }
}

#[tokio::test]
async fn refused_connections_are_tried_again_and_the_code_arrives_once() {
    let mut world = world().await;
    let network = RefusingNetwork::new(world.op.http_client(), 2);
    world.client = client_of(&world.op, &world.clock).http_client(network.clone()).discover().await.unwrap();
    let _ = world.pending().await;
    assert_eq!(network.connections.load(Ordering::Relaxed), 3);
    assert_eq!(world.exchanges().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_grant_stays_usable_where_no_connection_comes_about() {
    let mut world = world().await;
    let network = RefusingNetwork::new(world.op.http_client(), 3);
    world.client = client_of(&world.op, &world.clock).http_client(network.clone()).discover().await.unwrap();
    let mut grant = world.grant().await;
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Transport(TransportProblem::Connect));
    assert!(!grant.is_spent() && error.is_transient());
    world.assert_nothing_sent();
    assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_instance_that_has_not_found_the_op_yet_leaves_the_grant_usable() {
    let mut world = world().await;
    let (query, mut session) = world.user_returns().await;
    world.client = client_of(&world.op, &world.clock).build().unwrap();
    world.op.misbehave(Fault::status(Endpoint::Metadata, 503));
    let mut grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert!(error.is_transient() && !grant.is_spent());
    world.assert_nothing_sent();
    world.clock.advance(Duration::from_secs(60));
    assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_refused_code_is_spent() {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.misbehave(Fault::error(Endpoint::Exchange, "invalid_grant"));
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    let response = error.error_response().expect("the OP's error");
    assert_eq!((response.code(), response.status()), ("invalid_grant", Some(400)));
    assert!(grant.is_spent());
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
    assert_eq!(world.exchanges().len(), 1);
}

#[tokio::test]
async fn a_code_is_exchanged_once() {
    let world = world().await;
    let mut grant = world.grant().await;
    assert!(world.client.exchange(&mut grant).await.is_ok());
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::CodeSpent));
    assert_eq!(world.exchanges().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_overloaded_op_tells_when_to_come_back() {
    let world = world().await;
    let fault = Fault::error_with_status(Endpoint::Exchange, 503, "temporarily_unavailable");
    world.op.misbehave(fault.header("Retry-After", "120"));
    let error = world.sign_in().await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("temporarily_unavailable"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
}
