//! OpenID Connect RP-Initiated Logout 1.0: the URL at the OP, and the return from it.

use openid_deferred::error::{ConfigurationProblem, Document, Misuse, Rule, SessionProblem};
use openid_deferred::logout::LogoutSession;
use openid_deferred::testing::{Endpoint, TestClient};
use openid_deferred::{Client, ClientBuilder, Clock as _, Error, ErrorKind};

use crate::steps::parameters;
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, World, client_of, keyring, seconds, world_on_a_cable, world_with,
};

const RETURN_URI: &str = "https://rp.test/logged-out";

/// The client as it is registered at the OP.
fn registered() -> TestClient {
    TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET)
        .redirect_uri(REDIRECT_URI)
        .post_logout_redirect_uri(RETURN_URI)
        .signing_algorithm("ES256")
}

async fn logout_world() -> World {
    world_with(|op| op.client(registered()), |client| client.post_logout_redirect_uri(RETURN_URI)).await
}

/// A logout that has been started, with the query that the browser brings back.
async fn returned(world: &World) -> (String, LogoutSession) {
    let (url, session) = world.client.end_session().start().await.unwrap();
    (world.op.visit_end_session(url).expect("there is a URI").query(), session.expect("there is a URI"))
}

/// The rule that a return breaks.
fn refusal(client: &Client, response: &str, session: &LogoutSession) -> Rule {
    let error = client.end_session_response(response, session).unwrap_err();
    assert_eq!(error.step(), Some("checking the return from the logout"));
    match error.kind() {
        ErrorKind::Protocol(violation) => {
            assert_eq!(violation.document(), Some(Document::LogoutResponse), "{error}");
            violation.rule()
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn setting(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) => setting,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_logs_out_at_the_op_and_comes_back() {
    let world = logout_world().await;
    let user = world.approved().await;
    let request = world.client.end_session().of(&user).logout_hint("jane").ui_locales(["de", "en"]);
    let (url, session) = request.session_data("/orders").parameter("tenant", "7").start().await.unwrap();
    let session = session.unwrap();
    for (name, value) in [
        ("client_id", CLIENT_ID),
        ("id_token_hint", user.id_token().token().expose()),
        ("post_logout_redirect_uri", RETURN_URI),
        ("state", session.state().expose()),
        ("logout_hint", "jane"),
        ("ui_locales", "de en"),
        ("tenant", "7"),
    ] {
        assert_eq!(parameters(&url, name), [value], "{name}");
    }
    assert!(session.state().expose().len() >= 43, "a guess is hopeless");

    let back = world.op.visit_end_session(&url).unwrap();
    assert_eq!(back.redirect_uri(), RETURN_URI);
    // On another instance of the application.
    let keyring = keyring();
    let session = LogoutSession::open(&keyring, &session.seal(&keyring).unwrap()).unwrap();
    for response in [back.query(), format!("?{}", back.query()), back.url(), format!("/logged-out?{}", back.query())] {
        world.client.end_session_response(&response, &session).unwrap();
    }
    assert_eq!((session.data(), session.post_logout_redirect_uri()), (&b"/orders"[..], RETURN_URI));
    assert_eq!(world.op.requests_to(Endpoint::EndSession).len(), 1);
    world.op.assert_clean();
}

#[tokio::test]
async fn each_logout_has_a_state_of_its_own_and_stored_id_tokens_are_hints_too() {
    let world = logout_world().await;
    let user = world.approved().await;
    let stored = user.id_token().token().expose().to_owned();
    world.clock.sleep(seconds(86_400)).await;
    let (url, first) = world.client.end_session().id_token_hint(stored.as_str()).start().await.unwrap();
    assert_eq!(parameters(&url, "id_token_hint"), [stored]);
    assert!(world.op.visit_end_session(url).is_some(), "it has expired, and is still a hint");
    let (_, second) = world.client.end_session().start().await.unwrap();
    assert_ne!(first.unwrap().state(), second.unwrap().state());
    world.op.assert_clean();
}

#[tokio::test]
async fn a_logout_without_a_return_uri_has_no_state() {
    let world = world_with(|op| op.client(registered()), |client| client).await;
    let (url, session) = world.client.end_session().start().await.unwrap();
    assert!(session.is_none());
    assert_eq!(url.query(), Some("client_id=the-app"));
    assert_eq!(world.op.visit_end_session(url), None);
    let (_, session) = world.client.end_session().post_logout_redirect_uri(RETURN_URI).start().await.unwrap();
    assert_eq!(session.unwrap().post_logout_redirect_uri(), RETURN_URI);
    world.op.assert_clean();
}

#[tokio::test]
async fn an_op_without_an_end_session_endpoint_is_a_typed_error() {
    let edit = |value: Option<&'static str>| {
        world_with(
            move |op| {
                op.metadata(move |members| match value {
                    None => drop(members.shift_remove("end_session_endpoint")),
                    Some(url) => drop(members.insert("end_session_endpoint".to_owned(), url.into())),
                })
            },
            |client| client.post_logout_redirect_uri(RETURN_URI),
        )
    };
    let error = edit(None).await.client.end_session().start().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Configuration(ConfigurationProblem::NoEndpoint("end_session_endpoint")));
    assert_eq!(error.step(), Some("starting the logout"));
    let error = edit(Some("http://op.test/logout")).await.client.end_session().start().await.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::InsecureEndpoint));
    // Parameters that are there stay.
    let (url, _) = edit(Some("https://op.test/logout?p=policy")).await.client.end_session().start().await.unwrap();
    assert!(url.as_str().starts_with("https://op.test/logout?p=policy&client_id=the-app&"), "{url}");
}

#[tokio::test]
async fn an_unreachable_op_is_a_transient_error() {
    let (world, cable) = world_on_a_cable(|op| op).await;
    let client = client_of(&world.op, &world.clock).http_client(cable.clone()).build().unwrap();
    cable.unplug();
    let error = client.end_session().start().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    cable.plug_in();
    world.clock.sleep(seconds(3_600)).await;
    client.end_session().start().await.unwrap();
}

#[tokio::test]
async fn invalid_logout_requests_are_refused_before_the_user_is_redirected() {
    let world = logout_world().await;
    let request = || world.client.end_session();
    let user = world.approved().await;
    let other =
        Client::builder(world.op.issuer(), "other").redirect_uri(REDIRECT_URI).http_client(world.op.http_client());
    let foreign = other.build().unwrap();
    let error = foreign.end_session().of(&user).start().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::WrongClient));
    for name in ["id_token_hint", "logout_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales"] {
        let error = request().parameter(name, "x").start().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::ReservedParameter(name.to_owned())));
    }
    assert_eq!(setting(&request().id_token_hint("").start().await.unwrap_err()), "id_token_hint");
    let long = "x".repeat(8_000);
    assert_eq!(setting(&request().id_token_hint(long).start().await.unwrap_err()), "id_token_hint");
    for uri in ["logged-out", "https://rp.test/#out"] {
        let error = request().post_logout_redirect_uri(uri).start().await.unwrap_err();
        assert_eq!(setting(&error), "post_logout_redirect_uri");
        let builder: ClientBuilder = client_of(&world.op, &world.clock).post_logout_redirect_uri(uri);
        assert_eq!(setting(&builder.build().unwrap_err()), "post_logout_redirect_uri");
    }
    let error = request().session_data([7; 257]).start().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Misuse(Misuse::SessionDataTooLong { actual: 257, limit: 256 }));
    assert!(world.op.requests_to(Endpoint::EndSession).is_empty());
}

#[tokio::test]
async fn a_return_without_the_state_of_this_browser_is_refused() {
    let world = logout_world().await;
    let (query, session) = returned(&world).await;
    let state = session.state().expose().to_owned();
    for (response, rule) in [
        (String::new(), Rule::StateMissing),
        ("state=".to_owned(), Rule::StateMissing),
        ("State=x".to_owned(), Rule::StateMissing),
        (format!("{query}x"), Rule::StateMismatch),
        (format!("state={}", &state[1..]), Rule::StateMismatch),
        (returned(&world).await.0, Rule::StateMismatch),
        (format!("{query}&state={state}"), Rule::RepeatedParameter),
        (format!("state=x&{query}"), Rule::RepeatedParameter),
        (format!("{query}&a={}", "x".repeat(16 * 1024)), Rule::OversizedResponse),
        (format!("https://rp.test/callback?{query}"), Rule::WrongRedirectUri),
        (format!("https://evil.test/logged-out?{query}"), Rule::WrongRedirectUri),
        (format!("/callback?{query}"), Rule::WrongRedirectUri),
    ] {
        assert_eq!(refusal(&world.client, &response, &session), rule, "{response}");
    }
    // Parameters that this crate does not know are ignored, repeated or not.
    world.client.end_session_response(&format!("a=1&{query}&a=2"), &session).unwrap();
}

#[tokio::test]
async fn a_logout_expires_and_belongs_to_one_client() {
    let world = logout_world().await;
    let (query, session) = returned(&world).await;
    let problem = |client: &Client| match client.end_session_response(&query, &session).unwrap_err().kind() {
        ErrorKind::Session(problem) => *problem,
        other => panic!("{other:?}"),
    };
    let other = Client::builder(world.op.issuer(), "other").redirect_uri(REDIRECT_URI).build().unwrap();
    assert_eq!(problem(&other), SessionProblem::Foreign);
    world.clock.sleep(seconds(3_600)).await;
    world.client.end_session_response(&query, &session).unwrap();
    world.clock.sleep(seconds(1)).await;
    assert_eq!(problem(&world.client), SessionProblem::Expired);
}

#[tokio::test]
async fn nothing_about_the_user_or_the_logout_is_shown() {
    let world = logout_world().await;
    let user = world.approved().await;
    let request = world.client.end_session().of(&user).logout_hint("jane@example.com").session_data("/secret");
    let shown = format!("{request:?}");
    let (_, session) = request.start().await.unwrap();
    let session = session.unwrap();
    let shown = format!("{shown} {session:?}");
    for hidden in [user.id_token().token().expose(), "jane", session.state().expose(), "/secret"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    // A session of another kind does not open as a logout.
    let (_, sign_in) = world.client.authorize().start().await.unwrap();
    let keyring = keyring();
    let error = LogoutSession::open(&keyring, &sign_in.seal(&keyring).unwrap()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Session(SessionProblem::Unreadable));
    let mut altered = session.seal(&keyring).unwrap();
    let end = if altered.pop() == Some('A') { 'Q' } else { 'A' };
    altered.push(end);
    assert!(LogoutSession::open(&keyring, &altered).is_err());
}

#[tokio::test]
async fn the_metadata_says_what_the_op_supports() {
    let world = logout_world().await;
    let metadata = world.client.provider_metadata().await.unwrap();
    assert!(metadata.end_session_endpoint().is_some());
    assert!(metadata.backchannel_logout_supported() && metadata.backchannel_logout_session_supported());
    let silent = world_with(
        |op| {
            op.metadata(|members| {
                members.shift_remove("backchannel_logout_supported");
                members.insert("backchannel_logout_session_supported".to_owned(), 7.into());
            })
        },
        |client| client,
    );
    let metadata = silent.await.client.provider_metadata().await.unwrap();
    assert!(!metadata.backchannel_logout_supported() && !metadata.backchannel_logout_session_supported());
}
