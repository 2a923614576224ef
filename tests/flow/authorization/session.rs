//! The session that the application keeps while the user is away, and which browser it belongs to.

use super::*;

/// Compiles only while none of these types can be copied: each value may be used once.
#[expect(dead_code, reason = "the compiler is the test")]
fn a_session_and_what_follows_from_it_are_used_once() {
    trait AmbiguousForClones<Marker> {
        fn check() {}
    }
    impl<T> AmbiguousForClones<()> for T {}
    impl<T: Clone> AmbiguousForClones<u8> for T {}
    <AuthorizationSession as AmbiguousForClones<_>>::check();
    <openid_deferred::AuthorizationGrant as AmbiguousForClones<_>>::check();
    <openid_deferred::PendingAuthentication as AmbiguousForClones<_>>::check();
}

fn key(byte: u8) -> SealingKey {
    SealingKey::from_bytes(std::array::from_fn(|index| byte + index as u8)).expect("32 different bytes are a key")
}

#[tokio::test]
async fn the_return_may_arrive_at_another_instance_with_a_rotated_keyring() {
    let world = world().await;
    let (url, session) = started(world.client.authorize()).await;
    let sealed = session.seal(&Keyring::new(key(1))).unwrap();
    drop(session);
    let response = world.op.visit(url);

    let another = client_of(&world.op, &world.clock).build().unwrap();
    let keyring = Keyring::new(key(100)).also_opens(key(1));
    let session = AuthorizationSession::open(&keyring, &sealed).unwrap();
    let signed_in = another.authorization_response(&response.query(), session).await.unwrap();
    let SignIn::Deferred(mut pending) = signed_in else { panic!("not deferred") };
    assert!(matches!(another.wait(&mut pending).await, Ok(openid_deferred::Outcome::Approved(_))));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_sealed_session_opens_unaltered_and_with_the_right_key_only() {
    let world = world().await;
    let (_, session) = started(world.client.authorize()).await;
    let sealed = session.seal(&Keyring::new(key(1))).unwrap();
    let mut altered = sealed.clone();
    altered.replace_range(60..61, if &sealed[60..61] == "A" { "B" } else { "A" });
    let longer = "A".repeat(100_000);
    let attempts =
        [(1, altered.as_str()), (100, &sealed), (1, &sealed[..sealed.len() / 2]), (1, ""), (1, "ü"), (1, &longer)];
    for (byte, sealed) in attempts {
        let error = AuthorizationSession::open(&Keyring::new(key(byte)), sealed).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Unreadable));
    }
}

#[tokio::test]
async fn a_session_of_a_full_request_fits_a_cookie() {
    let redirect_uri = format!("https://rp.test/{}", "x".repeat(200));
    let world =
        world_with(|op| op.path(&format!("/{}", "tenant".repeat(20))), |client| client.redirect_uri(redirect_uri))
            .await;
    let acr = json!({ "essential": true, "values": ["urn:mace:incommon:iap:silver", "urn:mace:incommon:iap:gold"] });
    let request = world
        .client
        .authorize()
        .response_type(ResponseType::DeferredCodeOrCode)
        .scopes((0..50).map(|number| format!("scope-{number}")))
        .max_age(Duration::from_secs(3_600))
        .acr_values(["urn:mace:incommon:iap:silver"])
        .login_hint("jane".repeat(100))
        .authorization_details(json!([{ "type": "payment", "note": "x".repeat(1_000) }]))
        .claims(json!({ "id_token": { "acr": acr, "auth_time": { "essential": true } } }));
    let (_, session) = started(request).await;
    let sealed = session.seal(&Keyring::new(key(1))).unwrap();
    assert!(sealed.len() <= 2_000, "{} bytes", sealed.len());
    assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
}

#[tokio::test]
async fn the_longest_context_fits_a_cookie_and_a_longer_one_is_refused_before_anything_is_sent() {
    let redirect_uri = format!("https://rp.test/{}", "x".repeat(100));
    let world = world_with(|op| op.path("/tenants/0123456789"), |client| client.redirect_uri(redirect_uri)).await;
    let acr = json!({ "essential": true, "values": ["urn:mace:incommon:iap:silver", "urn:mace:incommon:iap:gold"] });
    let request = world.client.authorize().claims(json!({ "id_token": { "acr": acr } }));
    let (_, session) = started(request.context([255; 256]).session_data([254; 256]).reference("r".repeat(128))).await;
    let sealed = session.seal(&Keyring::new(key(1))).unwrap();
    let opened = AuthorizationSession::open(&Keyring::new(key(1)), &sealed).unwrap();
    assert_eq!((opened.context(), opened.data()), ([255; 256].as_slice(), [254; 256].as_slice()));

    let error = world.client.authorize().pushed().context([255; 257]).start().await.unwrap_err();
    let too_long = Misuse::ContextTooLong { actual: 257, limit: 256 };
    assert_eq!(*error.kind(), ErrorKind::Misuse(too_long));
    let error = world.client.authorize().pushed().session_data([255; 257]).start().await.unwrap_err();
    let too_long = Misuse::SessionDataTooLong { actual: 257, limit: 256 };
    assert_eq!(*error.kind(), ErrorKind::Misuse(too_long));
    world.assert_nothing_sent();
}

#[tokio::test]
async fn the_context_is_kept_from_the_request_to_the_outcome() {
    let keyring = Keyring::new(key(1));
    let world = world().await;
    let (url, session) = started(world.client.authorize().context("order 4711")).await;
    let query = world.op.visit(url).query();
    let mut session = AuthorizationSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    let mut grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    assert_eq!((session.context(), grant.context()), (b"order 4711".as_slice(), b"order 4711".as_slice()));
    let Ok(SignIn::Deferred(pending)) = world.client.exchange(&mut grant).await else { panic!("not deferred") };
    let mut pending = crate::support::reopened(pending, &keyring);
    assert_eq!(pending.context(), b"order 4711");
    let openid_deferred::Outcome::Approved(authentication) = world.wait(&mut pending).await else {
        panic!("not approved")
    };
    let sealed = authentication.seal(&keyring).unwrap();
    let authentication = openid_deferred::Authentication::open(&keyring, &sealed).unwrap();
    assert_eq!((authentication.context(), pending.context()), (b"order 4711".as_slice(), b"order 4711".as_slice()));
}

#[tokio::test]
async fn the_context_comes_with_an_immediate_sign_in() {
    let world = world_with(|op| op.answer_with_code(), |client| client).await;
    let request = world.client.authorize().response_type(ResponseType::DeferredCodeOrCode).context("order 4711");
    let (url, session) = started(request).await;
    let query = world.op.visit(url).query();
    let Ok(SignIn::Complete(authentication)) = world.client.authorization_response(&query, session).await else {
        panic!("not complete")
    };
    assert_eq!(authentication.context(), b"order 4711");
}

#[tokio::test]
async fn a_session_fits_a_cookie_whatever_kind_of_dpop_key_the_op_wants() {
    for algorithm in ["ES256", "EdDSA", "PS256"] {
        let world = world_with(
            |op| {
                op.metadata(move |members| {
                    members.insert("dpop_signing_alg_values_supported".into(), json!([algorithm]));
                })
            },
            |client| client,
        )
        .await;
        let (url, session) = started(world.client.authorize()).await;
        let sealed = session.seal(&Keyring::new(key(1))).unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        let session = AuthorizationSession::open(&Keyring::new(key(1)), &sealed).unwrap();
        let query = world.op.visit(url).query();
        assert!(matches!(world.client.authorization_response(&query, session).await, Ok(SignIn::Deferred(_))));
        world.op.assert_clean();
    }
}

#[tokio::test]
async fn a_session_that_does_not_fit_a_cookie_is_refused() {
    let world = world().await;
    let values: Vec<_> = (0..200).map(|number| format!("urn:class:{number}")).collect();
    let claims = json!({ "id_token": { "acr": { "essential": true, "values": values } } });
    let (_, session) = started(world.client.authorize().claims(claims)).await;
    let error = session.seal(&Keyring::new(key(1))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Misuse(Misuse::SealedTooLarge { actual: 2_001.., limit: 2_000 })));
}

#[tokio::test]
async fn the_response_names_the_cookie_of_its_session() {
    let world = world().await;
    let (url, session) = started(world.client.authorize()).await;
    let response = world.op.visit(url);
    let name = session.cookie_name();
    assert!(name.starts_with("__Host-"));
    assert!(!name.contains(session.state().expose()));
    assert_eq!(AuthorizationSession::cookie_name_for(&response.query()), Some(name.clone()));
    assert_eq!(AuthorizationSession::cookie_name_for(&format!("?{}", response.query())), Some(name.clone()));
    let whole_url = format!("https://rp.example/callback?{}#_=_", response.query());
    assert_eq!(AuthorizationSession::cookie_name_for(&whole_url), Some(name.clone()));
    assert_eq!(AuthorizationSession::cookie_name_for("deferred_code=abc"), None);
    let (_, other) = started(world.client.authorize()).await;
    assert_ne!(other.cookie_name(), name);
}

#[tokio::test]
async fn a_session_expires_after_an_hour() {
    let world = world().await;
    let (query, mut session) = world.user_returns().await;
    world.clock.advance(Duration::from_secs(3_600));
    let _ = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    let (query, session) = world.user_returns().await;
    world.clock.advance(Duration::from_secs(3_601));
    let error = world.client.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Expired));
    world.assert_nothing_sent();
}

#[tokio::test]
async fn the_lifetime_of_sessions_can_be_set() {
    let world = world_with(|op| op, |client| client.session_lifetime(Duration::from_secs(60))).await;
    let (query, session) = world.user_returns().await;
    world.clock.advance(Duration::from_secs(61));
    let error = world.client.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Expired));
}

#[tokio::test]
async fn a_session_of_another_client_is_refused() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    let another = openid_deferred::Client::builder(world.op.issuer(), "another-app")
        .redirect_uri(REDIRECT_URI)
        .http_client(world.op.http_client())
        .build()
        .unwrap();
    let error = another.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Foreign));
    world.assert_nothing_sent();
}

#[tokio::test]
async fn a_session_of_another_op_is_refused() {
    let world = world().await;
    let (query, session) = world.user_returns().await;
    let another = openid_deferred::Client::builder("https://other.test", CLIENT_ID)
        .redirect_uri(REDIRECT_URI)
        .http_client(world.op.http_client())
        .build()
        .unwrap();
    let error = another.authorization_response(&query, session).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Foreign));
    world.assert_nothing_sent();
}

#[tokio::test]
async fn a_grant_of_another_client_is_refused_and_stays_usable() {
    let world = world().await;
    let mut grant = world.grant().await;
    let another = openid_deferred::Client::builder("https://other.test", CLIENT_ID)
        .redirect_uri(REDIRECT_URI)
        .http_client(world.op.http_client())
        .build()
        .unwrap();
    let error = another.exchange(&mut grant).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
    world.assert_nothing_sent();
    assert!(world.client.exchange(&mut grant).await.is_ok());
}

#[tokio::test]
async fn a_session_accepts_one_response_and_forged_ones_do_not_use_it_up() {
    let world = world().await;
    let (query, mut session) = world.user_returns().await;
    let forged = query.replace("state=", "state=x");
    let error = world.client.check_authorization_response(&forged, &mut session).await.unwrap_err();
    assert!(error.rule().is_some_and(Rule::is_forgery) && !session.is_spent());
    let grant = world.client.check_authorization_response(&query, &mut session).await.unwrap();
    assert!(session.is_spent() && !grant.is_spent());
    let error = world.client.check_authorization_response(&query, &mut session).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::SessionAlreadyUsed));

    // An error of the OP also answers the request.
    let (url, mut session) = world.client.authorize().start().await.unwrap();
    let query = world.op.visit_and_decline(url).query();
    let error = world.client.check_authorization_response(&query, &mut session).await.unwrap_err();
    assert!(error.error_response().is_some() && session.is_spent());
    world.assert_nothing_sent();
}
