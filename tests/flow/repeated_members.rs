//! JSON members that an OP repeats. Equal values count as one. With different values the document is refused if a check
//! needs the member.

use openid_deferred::error::{Document, Rule};
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, TestClient};
use openid_deferred::{Error, ErrorKind, InterimState, Outcome, ResponseMode, Secret, SignIn};

use crate::support::{
    CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, broken_rule, client_of, provider, world, world_with,
};

/// Writes every member of the outermost object twice.
fn doubled(json: &mut String) {
    let inner = json.trim().strip_prefix('{').unwrap().strip_suffix('}').unwrap().to_owned();
    *json = format!("{{{inner},{inner}}}");
}

/// Adds a member in front. It is not the last one with this name.
fn preceded(member: &'static str) -> impl Fn(&mut String) + Send + Sync + 'static {
    move |json| json.insert_str(1, &format!("{member},"))
}

fn is_named(error: &Error, document: Document, member: &str) {
    let ErrorKind::Protocol(violation) = error.kind() else { panic!("{error:?}") };
    assert_eq!(
        (violation.rule(), violation.document(), violation.member()),
        (Rule::RepeatedMember, Some(document), Some(member))
    );
}

async fn jwt_world() -> World {
    let registered = TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .signing_algorithm("ES256")
        .signed_userinfo();
    world_with(|op| op.client(registered), |client| client.response_mode(ResponseMode::QueryJwt)).await
}

#[tokio::test]
async fn members_repeated_with_equal_values_are_accepted_in_every_document() {
    let world = jwt_world().await;
    for endpoint in [
        Endpoint::Metadata,
        Endpoint::Keys,
        Endpoint::Exchange,
        Endpoint::Poll,
        Endpoint::Refresh,
        Endpoint::Introspection,
        Endpoint::PushedAuthorization,
    ] {
        world.op.misbehave(Fault::edit_body(endpoint, doubled).always());
    }
    let twice = || IdTokenForgery::claims_text(doubled);
    world.op.misbehave(Fault::jwt_response(twice()).always());
    for endpoint in [Endpoint::Exchange, Endpoint::Poll, Endpoint::Refresh] {
        world.op.misbehave(Fault::id_token(endpoint, twice()).always());
    }
    let client = client_of(&world.op, &world.clock).response_mode(ResponseMode::QueryJwt).discover().await.unwrap();
    let world = World { client, ..world };
    let (url, session) = world.client.authorize().pushed().start().await.unwrap();
    let query = world.op.visit(url).query();
    let signed_in = world.client.authorization_response(&query, session).await;
    let Ok(SignIn::Deferred(mut pending)) = signed_in else { panic!("{signed_in:?}") };
    assert!(matches!(pending.interim(), InterimState::Verified(_)), "{:?}", pending.interim());
    let Outcome::Approved(mut authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    world.client.refresh(&mut authentication).await.unwrap();
    assert!(authentication.refreshed_id_token().is_some());
    assert!(world.client.introspect(authentication.access_token().unwrap(), None).await.unwrap().is_active());
    assert_eq!(world.client.userinfo(&authentication).await.unwrap().subject(), "user-1");
}

#[tokio::test]
async fn an_issuer_repeated_in_a_response_jwt_is_accepted() {
    let world = jwt_world().await;
    let issuer = world.op.issuer().to_owned();
    let repeated = move |claims: &mut String| claims.insert_str(1, &format!(r#""iss":"{issuer}","#));
    world.op.misbehave(Fault::jwt_response(IdTokenForgery::claims_text(repeated)));
    let signed_in = world.sign_in().await;
    assert!(matches!(signed_in, Ok(SignIn::Deferred(_))), "{signed_in:?}");
}

#[tokio::test]
async fn a_claim_of_a_response_jwt_with_two_values_is_refused_and_named() {
    for (member, name) in [
        (r#""iss":"https://other.test""#, "iss"),
        (r#""aud":["other"]"#, "aud"),
        (r#""state":"other""#, "state"),
        (r#""exp":1"#, "exp"),
        (r#""deferred_code":"other""#, "deferred_code"),
    ] {
        let world = jwt_world().await;
        world.op.misbehave(Fault::jwt_response(IdTokenForgery::claims_text(preceded(member))));
        is_named(&world.sign_in().await.unwrap_err(), Document::AuthorizationResponse, name);
    }
    let world = jwt_world().await;
    world.op.misbehave(Fault::jwt_response(IdTokenForgery::claims_text(preceded(
        r#""session_state":1,"session_state":2"#,
    ))));
    assert!(world.sign_in().await.is_ok(), "nothing needs that claim");
}

#[tokio::test]
async fn a_claim_of_an_id_token_with_two_values_ends_the_process_only_if_a_check_needs_it() {
    for (member, rule) in [
        (r#""sub":"other""#, Some(Rule::RepeatedMember)),
        (r#""nonce":"other""#, Some(Rule::RepeatedMember)),
        (r#""name":"other""#, None),
        (r#""address":{"country":"A","country":"B"}"#, None),
    ] {
        let world = world().await;
        world.op.misbehave(Fault::id_token(Endpoint::Poll, IdTokenForgery::claims_text(preceded(member))));
        let outcome = world.outcome().await;
        assert_eq!(broken_rule(&outcome), rule, "{member}");
        match outcome {
            Outcome::Approved(authentication) => {
                assert_eq!(authentication.claims().name(), Some("Jane Doe"), "the last one counts");
            }
            Outcome::Invalid(violation) => {
                assert_eq!(violation.member().map(str::len), Some(member.find(':').unwrap() - 2))
            }
            outcome => panic!("{outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_member_of_a_token_response_with_two_values_is_named() {
    let world = world().await;
    let fault = Fault::edit_body(Endpoint::Poll, preceded(r#""access_token":"other""#));
    world.op.misbehave(fault);
    let Outcome::Invalid(violation) = world.outcome().await else { panic!("not invalid") };
    assert_eq!((violation.rule(), violation.member()), (Rule::RepeatedMember, Some("access_token")));

    world.op.misbehave(Fault::edit_body(Endpoint::Exchange, preceded(r#""deferred_auth_id":"other""#)));
    is_named(&world.sign_in().await.unwrap_err(), Document::ExchangeResponse, "deferred_auth_id");

    world.op.misbehave(Fault::edit_body(Endpoint::Poll, preceded(r#""scope":"other","x":1,"x":2"#)));
    let authentication = world.approved().await;
    assert_ne!(authentication.scope(), Some("other"), "the last one counts");
}

#[tokio::test]
async fn an_answer_about_a_token_that_contradicts_itself_is_refused() {
    let world = world().await;
    world.op.misbehave(Fault::edit_body(Endpoint::Introspection, preceded(r#""active":true"#)));
    let error = world.client.introspect(&Secret::new("unknown"), None).await.unwrap_err();
    is_named(&error, Document::IntrospectionResponse, "active");
}

#[tokio::test]
async fn contradictory_metadata_is_refused_if_a_needed_member_is_affected() {
    for (member, name) in [
        (r#""issuer":"https://other.test""#, Some("issuer")),
        (r#""token_endpoint":"https://other.test/token""#, Some("token_endpoint")),
        (r#""service_documentation":"https://a.test","service_documentation":"https://b.test""#, None),
    ] {
        let clock = openid_deferred::testing::TestClock::automatic();
        let op = provider(&clock).start().unwrap();
        op.misbehave(Fault::edit_body(Endpoint::Metadata, preceded(member)));
        match (client_of(&op, &clock).discover().await, name) {
            (Ok(_), None) => {}
            (Err(error), Some(name)) => is_named(&error, Document::Metadata, name),
            (discovered, _) => panic!("{member}: {discovered:?}"),
        }
    }
}

#[tokio::test]
async fn a_contradictory_key_is_left_out_and_the_others_are_used() {
    let clock = openid_deferred::testing::TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    // The key of an attacker comes first, with the `kid` that the OP's own key has as its last one.
    let torn = |body: &mut String| {
        *body = body.replacen("[{", r#"[{"kty":"EC","kid":"a","kid":"b"},{"#, 1);
    };
    op.misbehave(Fault::edit_body(Endpoint::Keys, torn).always());
    let client = client_of(&op, &clock).discover().await.unwrap();
    let world = World { op, clock, client };
    assert_eq!(broken_rule(&world.outcome().await), None);
}
