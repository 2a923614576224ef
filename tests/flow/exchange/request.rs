//! The parameters of the exchange request, and those that options remove.

use super::*;

#[tokio::test]
async fn the_exchange_has_exactly_the_parameters_of_the_flow() {
    let world = world().await;
    let _ = world.pending().await;
    let request = &world.exchanges()[0];
    let names: Vec<_> = request.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["grant_type", "deferred_code", "redirect_uri", "code_verifier"]);
    assert_eq!(request.parameter("grant_type"), Some("urn:openid:params:grant-type:deferred"));
    assert_eq!(request.parameter("redirect_uri"), Some(REDIRECT_URI));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(request.header("dpop").is_some());
    world.op.assert_clean();
}

#[tokio::test]
async fn without_pkce_neither_request_has_its_parameters() {
    let world = world_with(|op| op.allow_missing_pkce(), |client| client.without_pkce()).await;
    let _ = world.pending().await;
    let process = world.op.last_process();
    assert_eq!(process.authorization_parameter("code_challenge"), None);
    assert_eq!(process.authorization_parameter("code_challenge_method"), None);
    assert_eq!(world.exchanges()[0].parameter("code_verifier"), None);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_redirect_uri_can_be_left_out_of_the_exchange_of_a_deferred_code() {
    let world = client_with(|client| client.without_redirect_uri_in_exchange()).await;
    let _ = world.pending().await;
    assert_eq!(world.exchanges()[0].parameter("redirect_uri"), None);
    world.op.assert_clean();
}

#[tokio::test]
async fn the_redirect_uri_is_never_left_out_of_the_exchange_of_an_ordinary_code() {
    let world = world_with(|op| op.answer_with_code(), |client| client.without_redirect_uri_in_exchange()).await;
    let _ = code_flow(&world).await.unwrap();
    assert_eq!(world.op.requests_to(Endpoint::Code)[0].parameter("redirect_uri"), Some(REDIRECT_URI));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_notification_token_is_sent_where_one_is_set() {
    let world = client_with(|client| client.notification_token("the OP's bearer")).await;
    let pending = world.pending().await;
    assert_eq!(world.op.last_process().notification_token().as_deref(), Some("the OP's bearer"));
    assert_eq!(pending.notification_token().map(|token| token.expose()), Some("the OP's bearer"));
}

#[tokio::test]
async fn no_notification_token_is_sent_unless_one_is_set() {
    let world = world().await;
    let pending = world.pending().await;
    assert_eq!(world.exchanges()[0].parameter("deferred_notification_token"), None);
    assert!(pending.notification_token().is_none());
}

#[tokio::test]
async fn without_dpop_there_is_no_thumbprint_and_no_proof() {
    let world = client_with(|client| client.dpop(DpopMode::Off)).await;
    let pending = world.pending().await;
    assert!(pending.dpop_key().is_none());
    assert_eq!(world.op.last_process().authorization_parameter("dpop_jkt"), None);
    assert_eq!(world.exchanges()[0].header("dpop"), None);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_op_without_dpop_completes_the_exchange() {
    let world = op_with(|op| op.without_dpop()).await;
    let Outcome::Approved(authentication) = world.outcome().await else { panic!("not approved") };
    assert!(!authentication.is_sender_constrained());
    world.op.assert_clean();
}
