//! What the router refuses to be built with, and development without HTTPS.

use openid_deferred::axum::{SignInCookies, SignInRouter};
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::{Client, ErrorKind, Keyring, ResponseMode};

use crate::support::{Shop, world};

fn cookies() -> SignInCookies {
    SignInCookies::new(Keyring::ephemeral().expect("a key"))
}

/// The setting that is refused with this redirect URI, prefix and path of pings.
async fn refused(cookies: SignInCookies, redirect_uri: &str, prefix: &str, pings: &str) -> Option<&'static str> {
    let world = world().await;
    let client = Client::builder(world.op.issuer(), "other").redirect_uri(redirect_uri);
    let client = client.http_client(world.op.http_client()).build().expect("the settings work");
    let router = SignInRouter::new(client, world.poller.clone(), Shop::default()).cookies(cookies);
    let router = router.prefix(prefix).receives_pings_at(pings, world.poller.clone());
    match router.build::<()>().map(drop).map_err(|error| error.kind().clone()) {
        Ok(()) => None,
        Err(ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. })) => Some(setting),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn plain_http_is_for_loopback_and_only_by_an_explicit_setting() {
    let insecure = || cookies().insecure_loopback();
    for uri in ["http://127.0.0.1:8080/cb", "http://[::1]/cb", "http://localhost/cb"] {
        assert_eq!(refused(cookies(), uri, "/sign-in", "/ping").await, Some("redirect_uri"), "{uri}");
        assert_eq!(refused(insecure(), uri, "/sign-in", "/ping").await, None, "{uri}");
    }
    assert_eq!(refused(cookies(), "https://rp.test/cb", "/sign-in", "/ping").await, None);
    for uri in ["https://rp.test/cb", "https://127.0.0.1/cb"] {
        assert_eq!(refused(insecure(), uri, "/sign-in", "/ping").await, Some("insecure_loopback"), "{uri}");
    }
}

#[tokio::test]
async fn paths_that_a_router_would_not_take_are_an_error() {
    let uri = "https://rp.test/cb";
    for prefix in ["", "/", "sign-in", "/sign-in/", "/a//b", "/{id}", "/a b", "/*rest", "/cb", "/ping"] {
        assert_eq!(refused(cookies(), uri, prefix, "/ping").await, Some("prefix"), "{prefix}");
    }
    assert_eq!(refused(cookies(), uri, "/a", "/cb").await, Some("prefix"));
    assert_eq!(refused(cookies(), "https://rp.test/%7Bid%7D", "/a", "/ping").await, Some("prefix"));
    assert_eq!(refused(cookies(), "https://rp.test/", "/a", "/ping").await, None);
    assert_eq!(refused(cookies(), "https://rp.test/a/callback", "/a", "/a/ping").await, None);
}

#[tokio::test]
async fn without_https_there_is_no_form_post() {
    let world = world().await;
    let (_, session) = world.client.authorize().response_mode(ResponseMode::FormPost).start().await.unwrap();
    let cookie = world.cookies.start(&world.client, &session).unwrap();
    assert!(session.is_form_post() && cookie.to_str().unwrap().contains("SameSite=None; Secure"), "{cookie:?}");
    let error = world.cookies.clone().insecure_loopback().start(&world.client, &session).unwrap_err();
    let expected = "insecure_loopback";
    assert!(
        matches!(error.kind(), ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) if *setting == expected)
    );
    let (_, session) = world.client.authorize().start().await.unwrap();
    let cookie = world.cookies.clone().insecure_loopback().start(&world.client, &session).unwrap();
    assert!(cookie.to_str().unwrap().starts_with("deferred-") && !cookie.to_str().unwrap().contains("Secure"));
}

/// The setting that is refused with routes for logouts, this prefix, and this URI to return to.
async fn logout_refused(prefix: &str, return_uri: &str) -> Option<&'static str> {
    let world = world().await;
    let client = Client::builder(world.op.issuer(), "other").redirect_uri("https://rp.test/cb");
    let client = client.post_logout_redirect_uri(return_uri).http_client(world.op.http_client()).build().unwrap();
    let router = SignInRouter::new(client, world.poller.clone(), Shop::default()).prefix(prefix);
    match router.logout().build::<()>().map(drop).map_err(|error| error.kind().clone()) {
        Ok(()) => None,
        Err(ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. })) => Some(setting),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn users_come_back_from_a_logout_to_a_path_of_their_own_at_this_origin() {
    for uri in ["https://rp.test/bye", "https://rp.test/sign-in/bye", "https://rp.test/?bye=1"] {
        assert_eq!(logout_refused("/sign-in", uri).await, None, "{uri}");
    }
    for uri in ["https://www.rp.test/bye", "http://rp.test/bye", "https://rp.test:8443/bye", "com.example.app:/bye"] {
        assert_eq!(logout_refused("/sign-in", uri).await, Some("post_logout_redirect_uri"), "{uri}");
    }
    for path in ["cb", "sign-in", "sign-in/logout", "sign-in/backchannel-logout", "bye/", "%7Bid%7D"] {
        assert_eq!(logout_refused("/sign-in", &format!("https://rp.test/{path}")).await, Some("prefix"), "{path}");
    }
}
