//! Faults of the network and of the OP around a code that may be sent only once.

use super::*;

/// Asserts that a request that is refused before the OP looks at the code leaves the code usable, and that the client
/// does not repeat the request by itself.
async fn turned_away(fault: Fault) -> Error {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.misbehave(fault);
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert!(!grant.is_spent(), "{error:?}");
    let calls = world.op.requests().iter().filter(|request| request.endpoint >= Endpoint::Token).count();
    assert_eq!(calls, 1, "nothing is followed or repeated");
    assert!(matches!(world.client.exchange(&mut grant).await, Ok(SignIn::Deferred(_))));
    world.op.assert_clean();
    error
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_leaves_the_code_unspent() {
    for status in [301, 302, 303, 307, 308] {
        let redirect = Fault::status(Endpoint::Exchange, status).header("Location", "https://op.test/resource");
        let error = turned_away(redirect).await;
        assert_eq!((error.rule(), error.is_transient()), (Some(Rule::UnexpectedRedirect), true));
    }
    let body = r#"{"error":"invalid_grant"}"#;
    turned_away(Fault::response(Endpoint::Exchange, 302, "application/json", body)).await;
}

#[tokio::test]
async fn a_code_stays_unspent_if_the_request_was_refused_before_processing() {
    for status in [401, 403, 404, 405, 407, 410, 413, 421, 425, 429, 431] {
        let error = turned_away(Fault::status(Endpoint::Exchange, status)).await;
        assert_eq!(error.rule(), Some(Rule::UnexpectedStatus), "{status}");
        assert_eq!(error.is_transient(), !matches!(status, 401 | 403), "{status}");
        assert_eq!(error.keeps_session(), error.is_transient(), "{status}");
    }
    // Some frameworks send these for a missing route, and others for too many requests.
    for (status, code) in [(404, "invalid_request"), (405, "invalid_request"), (404, "Not Found"), (429, "rate_limit")]
    {
        let error = turned_away(Fault::error_with_status(Endpoint::Exchange, status, code)).await;
        assert_eq!(error.error_response().map(|response| response.code()), Some(code));
        assert!(error.is_transient() && error.keeps_session(), "{status} {code}");
    }
}

#[tokio::test]
async fn a_refused_client_leaves_the_code_unspent_whatever_the_status() {
    for status in [200, 400, 401, 403, 404, 429] {
        for code in ["invalid_client", "unauthorized_client", "use_dpop_nonce"] {
            turned_away(Fault::error_with_status(Endpoint::Exchange, status, code)).await;
        }
    }
}

#[tokio::test]
async fn an_error_of_a_gateway_may_hide_that_the_code_was_used() {
    for status in [408, 502, 503, 504, 522] {
        for code in ["unauthorized_client", "invalid_client", "invalid_dpop_proof", "use_dpop_nonce", "invalid_grant"] {
            let fault = Fault::error_with_status(Endpoint::Exchange, status, code)
                .header("DPoP-Nonce", "n1")
                .header("Date", "Thu, 01 Jan 2026 01:00:00 GMT");
            let (_, error) = lost(fault.after_processing()).await;
            assert_eq!(cause(&error).error_response().map(|response| response.code()), Some(code), "{status}");
        }
    }
}

#[tokio::test]
async fn a_refused_code_is_spent_whatever_the_status() {
    for status in [200, 400, 401, 403, 404, 429, 500] {
        let world = world().await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::error_with_status(Endpoint::Exchange, status, "invalid_grant"));
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(error.error_response().map(|response| response.code()), Some("invalid_grant"), "{status}");
        assert!(grant.is_spent() && !error.is_transient() && !error.keeps_session(), "{status}");
    }
}

#[tokio::test]
async fn a_success_in_an_unusual_form_is_accepted() {
    for status in [201, 202, 203] {
        let world = world().await;
        world.op.misbehave(Fault::success_status(Endpoint::Exchange, status));
        assert!(matches!(world.sign_in().await, Ok(SignIn::Deferred(_))), "{status}");
    }
    let world = world().await;
    world.op.misbehave(Fault::byte_order_mark(Endpoint::Exchange));
    assert!(matches!(world.sign_in().await, Ok(SignIn::Deferred(_))));
    for empty in [json!(null), json!("")] {
        let pending = answered_with(&world, move |members| set(members, "error", empty.clone())).await.unwrap();
        assert!(pending.expires_at().is_some());
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn a_success_with_a_truncated_body_is_not_accepted() {
    for status in [204, 205, 206] {
        let body = r#"{"deferred_auth_id":"abc"}"#;
        let (_, error) = lost(Fault::response(Endpoint::Exchange, status, "application/json", body)).await;
        assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedStatus));
    }
    let (_, error) = lost(Fault::response(Endpoint::Exchange, 202, "", "")).await;
    assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedContentType));
}

#[tokio::test]
async fn an_exchange_response_with_an_error_is_refused_and_its_tokens_are_revoked() {
    for (code, kind) in [("invalid_grant", true), ("authorization_pending", false), ("warning", false)] {
        let world = op_with(|op| op.early_access_token()).await;
        let mut grant = world.grant().await;
        world.op.misbehave(Fault::edit_json(Endpoint::Exchange, move |members| set(members, "error", json!(code))));
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(error.error_response().is_some(), kind, "{error:?}");
        assert_eq!(*error.kind() == ErrorKind::OutcomeUnknown, !kind, "{error:?}");
        assert!(grant.is_spent());
        let revocations = world.op.requests_to(Endpoint::Revocation).len();
        assert_eq!(revocations > 0, kind, "only of an end nothing more can come");
    }
}

#[tokio::test]
async fn tokens_in_a_contradictory_exchange_response_are_revoked_except_an_early_access_token() {
    for (identifier, revoked) in [(json!({}), 2), (json!({ "deferred_auth_id": "an identifier" }), 0)] {
        let world = world().await;
        let mut grant = world.grant().await;
        let mut body = json!({ "error": "warning", "access_token": "a", "refresh_token": "r" });
        body.as_object_mut().unwrap().extend(identifier.as_object().unwrap().clone());
        world.op.misbehave(Fault::response(Endpoint::Exchange, 200, "application/json", body.to_string()));
        let error = world.client.exchange(&mut grant).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        tokio::task::yield_now().await;
        assert_eq!(world.op.requests_to(Endpoint::Revocation).len(), revoked, "{identifier}");
    }
}

#[tokio::test]
async fn an_html_page_is_not_accepted_as_an_answer() {
    let (_, error) = lost(Fault::status(Endpoint::Exchange, 200)).await;
    let ErrorKind::Protocol(violation) = cause(&error).kind() else { panic!("{error:?}") };
    assert_eq!(violation.rule(), Rule::UnexpectedContentType);
    assert_eq!(violation.document(), Some(Document::ExchangeResponse));
    let (_, error) = lost(Fault::status(Endpoint::Exchange, 502)).await;
    assert_eq!(cause(&error).rule(), Some(Rule::UnexpectedStatus));
}

#[tokio::test]
async fn malformed_json_is_not_accepted_as_an_answer() {
    let (world, error) = lost(Fault::truncated_json(Endpoint::Exchange)).await;
    assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson));
    assert!(world.op.processes()[0].deferred_auth_id().is_some(), "the OP had issued one");
    for body in ["", "[]", "null", "\"x\"", "{\"a\":1}{"] {
        let (_, error) = lost(Fault::response(Endpoint::Exchange, 200, "application/json", body)).await;
        assert_eq!(cause(&error).rule(), Some(Rule::MalformedJson), "{body}");
    }
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
async fn an_answer_that_is_too_large_is_refused() {
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
async fn a_dropped_exchange_continues_and_the_next_call_returns_its_answer() {
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
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::GrantAlreadyUsed));
        assert_eq!(world.exchanges().len(), 1);
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn the_next_call_gets_the_error_of_a_dropped_exchange() {
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
async fn a_pending_sign_in_is_kept_if_the_exchange_is_dropped_during_verification_of_the_interim_token() {
    let world = world().await;
    let mut grant = world.grant().await;
    world.op.replace_keys();
    world.op.misbehave(Fault::stall(Endpoint::Keys));
    drop_exchange_after(&world, &mut grant, 1).await;
    let Ok(SignIn::Deferred(mut pending)) = world.client.exchange(&mut grant).await else { panic!("it was lost") };
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::GrantAlreadyUsed));
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
async fn refused_connections_are_retried_and_the_code_arrives_once() {
    let mut world = world().await;
    let network = RefusingNetwork::new(world.op.http_client(), 2);
    world.client = client_of(&world.op, &world.clock).http_client(network.clone()).discover().await.unwrap();
    let _ = world.pending().await;
    assert_eq!(network.connections.load(Ordering::Relaxed), 3);
    assert_eq!(world.exchanges().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_grant_remains_usable_without_a_connection() {
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
async fn an_instance_without_metadata_leaves_the_grant_usable() {
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
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::GrantAlreadyUsed));
    assert_eq!(world.exchanges().len(), 1);
}

#[tokio::test]
async fn a_code_is_exchanged_once() {
    let world = world().await;
    let mut grant = world.grant().await;
    assert!(world.client.exchange(&mut grant).await.is_ok());
    let error = world.client.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::GrantAlreadyUsed));
    assert_eq!(world.exchanges().len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_retry_after_of_an_overloaded_op_is_in_the_error() {
    let world = world().await;
    let fault = Fault::error_with_status(Endpoint::Exchange, 503, "temporarily_unavailable");
    world.op.misbehave(fault.header("Retry-After", "120"));
    let error = world.sign_in().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "a gateway can say it after the OP has acted");
    assert_eq!(cause(&error).error_response().map(|response| response.code()), Some("temporarily_unavailable"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
}
