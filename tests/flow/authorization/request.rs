//! DTR §Authentication Request.

use super::*;

#[tokio::test]
async fn the_request_has_exactly_the_parameters_of_the_flow() {
    let world = world().await;
    let (url, session) = started(world.client.authorize()).await;
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let expected = [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "dpop_jkt",
    ];
    assert_eq!(names, expected);
    assert_eq!(parameters(&url, "response_type"), ["deferred_code"]);
    assert_eq!(parameters(&url, "client_id"), [CLIENT_ID]);
    assert_eq!(parameters(&url, "redirect_uri"), [REDIRECT_URI]);
    assert_eq!(parameters(&url, "scope"), ["openid"]);
    assert_eq!(parameters(&url, "state"), [session.state().expose()]);
    assert_eq!(parameters(&url, "code_challenge_method"), ["S256"]);
}

#[tokio::test]
async fn nothing_secret_repeats_from_one_request_to_the_next() {
    let world = world().await;
    let (one, _) = started(world.client.authorize()).await;
    let (other, _) = started(world.client.authorize()).await;
    for name in ["state", "nonce", "code_challenge", "dpop_jkt"] {
        assert_ne!(parameters(&one, name), parameters(&other, name), "{name}");
    }
}

#[tokio::test]
async fn the_response_type_deferred_code_code_requests_the_query_mode_explicitly() {
    let world = world().await;
    let (url, _) = started(world.client.authorize().response_type(ResponseType::DeferredCodeOrCode)).await;
    assert_eq!(parameters(&url, "response_type"), ["deferred_code code"]);
    assert_eq!(parameters(&url, "response_mode"), ["query"]);
}

#[tokio::test]
async fn every_parameter_arrives_unchanged() {
    let world = world().await;
    let claims = json!({ "id_token": { "acr": { "essential": true, "values": ["urn:high", "urn:low"] } } });
    let details = json!([{ "type": "payment", "amount": "100 € & more" }]);
    let request = world
        .client
        .authorize()
        .scopes(["profile", "email", "profile", "openid"])
        .max_age(Duration::from_millis(90_999))
        .acr_values(["urn:high", "urn:low"])
        .prompt(["login", "consent"])
        .login_hint("jané+doe@example.com & co")
        .ui_locales(["de-CH", "fr"])
        .claims(claims.clone())
        .authorization_details(details.clone())
        .parameter("tenant hint", "a=b&c");
    let (url, _) = started(request).await;
    let _ = world.op.visit(&url);
    let process = world.op.last_process();
    let arrived = |name: &str| process.authorization_parameter(name).unwrap_or_default();
    assert_eq!(arrived("scope"), "openid profile email");
    assert_eq!(arrived("max_age"), "90");
    assert_eq!(arrived("acr_values"), "urn:high urn:low");
    assert_eq!(arrived("prompt"), "login consent");
    assert_eq!(arrived("login_hint"), "jané+doe@example.com & co");
    assert_eq!(arrived("ui_locales"), "de-CH fr");
    assert_eq!(arrived("claims"), claims.to_string());
    assert_eq!(arrived("authorization_details"), details.to_string());
    assert_eq!(arrived("tenant hint"), "a=b&c");
    world.op.assert_clean();
}

#[tokio::test]
async fn several_resources_are_several_parameters() {
    let world = world().await;
    let request = world.client.authorize().resource("https://a.example/").resource("https://b.example/?x=1");
    let (url, _) = started(request).await;
    assert_eq!(parameters(&url, "resource"), ["https://a.example/", "https://b.example/?x=1"]);
    let _ = world.op.visit(&url);
    world.op.assert_clean();
}

#[tokio::test]
async fn a_parameter_that_is_set_twice_is_sent_once() {
    let world = world().await;
    let request = world.client.authorize().login_hint("jane").login_hint("john").prompt(["login"]).prompt(["create"]);
    let (url, _) = started(request).await;
    assert_eq!(parameters(&url, "login_hint"), ["john"]);
    assert_eq!(parameters(&url, "prompt"), ["create"]);
}

#[tokio::test]
async fn a_parameter_of_the_flow_cannot_be_given_as_an_extra() {
    let world = world().await;
    for name in [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "dpop_jkt",
        "response_mode",
        "max_age",
        "acr_values",
        "prompt",
        "login_hint",
        "ui_locales",
        "claims",
        "authorization_details",
        "resource",
        "request",
        "request_uri",
    ] {
        let error = world.client.authorize().parameter(name, "x").start().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::ReservedParameter(name.to_owned())));
    }
}

#[tokio::test]
async fn an_authorization_endpoint_with_a_query_keeps_it() {
    let world = world_with(
        |op| {
            op.metadata(|members| {
                members.insert("authorization_endpoint".into(), json!("https://op.test/authorize?tenant=7"));
            })
        },
        |client| client,
    )
    .await;
    let (url, _) = started(world.client.authorize()).await;
    assert_eq!(parameters(&url, "tenant"), ["7"]);
    assert_eq!(parameters(&url, "client_id"), [CLIENT_ID]);
}

#[tokio::test]
async fn a_request_can_use_another_registered_redirect_uri() {
    const OTHER: &str = "https://rp.test/other?x=1";
    let world = world().await;
    world.op.register(TestClient::secret_basic(CLIENT_ID, crate::support::CLIENT_SECRET).redirect_uri(OTHER));
    let (url, session) = started(world.client.authorize().redirect_uri(OTHER)).await;
    let response = world.op.visit(url);
    assert_eq!((response.redirect_uri(), session.redirect_uri()), (OTHER, OTHER));
    let signed_in = world.client.authorization_response(&response.query(), session).await.unwrap();
    assert!(matches!(signed_in, SignIn::Deferred(_)));
    assert_eq!(world.exchanges()[0].parameter("redirect_uri"), Some(OTHER));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_redirect_uri_that_cannot_be_registered_is_refused() {
    let world = world().await;
    for uri in ["/callback", "https://rp.test/callback#fragment", ""] {
        let error = world.client.authorize().redirect_uri(uri).start().await.unwrap_err();
        let ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) = error.kind() else {
            panic!("{error:?}")
        };
        assert_eq!(*setting, "redirect_uri");
    }
}

#[tokio::test]
async fn every_proof_is_by_the_key_of_dpop_jkt() {
    let world = world().await;
    let pending = world.pending().await;
    let process = world.op.last_process();
    let announced = process.authorization_parameter("dpop_jkt");
    assert!(announced.is_some());
    assert_eq!(announced, process.dpop_key());
    assert_eq!(announced.as_deref(), pending.dpop_key().map(|key| key.thumbprint()));
    world.op.assert_clean();
}
