//! Logout: a user who logs out at the OP and comes back, and sessions that the OP ends.
#![expect(clippy::disallowed_methods, reason = "the OPs run in real time")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::response::Response;
use http::HeaderMap;
use openid_deferred::axum::{LogoutHooks, SignInHooks, SignInRouter, Visit};
use openid_deferred::logout::{EndSessionRequest, LogoutToken, SessionsEnded};
use openid_deferred::store::MemoryStore;
use openid_deferred::{Authentication, Client, Keyring, Poller};
use serde_json::json;
use tokio::net::TcpListener;

use crate::browser::{Browser, Decision};
use crate::op::Op;
use crate::support::{REDIRECT_URI, World, chain, world_at};

const RETURN_URI: &str = "https://rp.test/logged-out";
/// The longest time in which an OP tells that a session has ended.
const DEADLINE: Duration = Duration::from_secs(60);

/// An application that notes the logout tokens that it is told of.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Vec<LogoutToken>>>);

impl SignInHooks for Shop {
    async fn complete(&self, _: Authentication, _: &Visit) -> Response {
        panic!("the test signs users in by itself")
    }
}

impl LogoutHooks for Shop {
    async fn log_out<'a>(
        &self,
        request: EndSessionRequest<'a>,
        _: &Visit,
    ) -> Result<(EndSessionRequest<'a>, HeaderMap), Response> {
        Ok((request, HeaderMap::new()))
    }

    async fn end_sessions(&self, token: &LogoutToken) -> SessionsEnded {
        self.0.lock().expect("no test panics with it").push(token.clone());
        SessionsEnded::Done
    }
}

/// A socket of the application.
struct Door(TcpListener);

impl Door {
    async fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port is free"))
    }

    fn backchannel_logout_uri(&self) -> String {
        format!("http://{}/sign-in/backchannel-logout", self.0.local_addr().expect("it has an address"))
    }

    /// Serves the routes of a client until the test ends.
    async fn serve(self, client: &Client) -> Shop {
        let keyring = Keyring::ephemeral().expect("a key");
        let poller = Poller::builder(MemoryStore::new(), keyring).client(client.clone());
        let poller = poller.start().await.expect("the poller starts");
        let shop = Shop::default();
        let routes = SignInRouter::new(client.clone(), poller, shop.clone());
        let app = routes.logout().build::<()>().expect("the settings work");
        tokio::spawn(async move { axum::serve(self.0, app).await });
        shop
    }
}

impl Shop {
    /// Waits for a logout token.
    async fn told(&self) -> LogoutToken {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(token) = self.0.lock().expect("no test panics with it").pop() {
                return token;
            }
            assert!(Instant::now() < end, "the OP has sent no logout token that is accepted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A client whose users log out, with its application.
async fn logout_world(op: &impl Op) -> Option<(World, Shop)> {
    let door = Door::open().await;
    let registered = json!({
        "post_logout_redirect_uris": [RETURN_URI],
        "backchannel_logout_uri": door.backchannel_logout_uri(),
        "backchannel_logout_session_required": true,
    });
    let world = world_at(op, registered, |client| client.post_logout_redirect_uri(RETURN_URI)).await?;
    let shop = door.serve(&world.client).await;
    Some((world, shop))
}

/// Signs the user in, in this browser.
async fn sign_in(world: &World, browser: &mut Browser) -> Authentication {
    let request = world.client.authorize().scopes(world.site.scopes.iter().copied());
    let (url, session) = request.start().await.expect("the request can be made");
    let back = browser.visit(url, REDIRECT_URI, world.site.answer, Decision::SignsIn).await;
    match world.client.authorization_response(&back, session).await {
        Ok(openid_deferred::SignIn::Complete(user)) => user,
        Ok(other) => panic!("not signed in: {other:?}"),
        Err(error) => panic!("{}", chain(&error)),
    }
}

fn browser(world: &World) -> Browser {
    Browser::new(&world.site.authority.certificate_pem(), world.site.cookie.as_deref())
}

/// Asserts that a token names the session of a sign-in.
fn assert_names(token: &LogoutToken, user: &Authentication) {
    let claims = user.claims();
    assert!(claims.sid().is_some(), "the ID Token names the session");
    assert_eq!((token.issuer(), token.sid()), (claims.issuer(), claims.sid()));
    assert!(token.subject().is_none_or(|subject| subject == claims.subject()), "{token:?}");
}

pub(crate) async fn a_user_logs_out_and_comes_back_with_the_state(op: &impl Op) {
    let Some((world, _shop)) = logout_world(op).await else { return };
    let mut browser = browser(&world);
    let user = sign_in(&world, &mut browser).await;
    let (url, session) = world.client.end_session().of(&user).start().await.expect("the OP has the endpoint");
    let session = session.expect("there is a URI to return to");
    let back = browser.visit(url, RETURN_URI, world.site.answer, Decision::SignsIn).await;
    world.client.end_session_response(&back, &session).unwrap_or_else(|error| panic!("{back}: {}", chain(&error)));
    // The session at the OP has ended: the user is not known there.
    let (url, session) = world.client.authorize().prompt(["none"]).start().await.unwrap();
    let back = browser.visit(url, REDIRECT_URI, |_, _| None, Decision::SignsIn).await;
    let error = world.client.authorization_response(&back, session).await.unwrap_err();
    assert_eq!(error.error_response().map(|response| response.code()), Some("login_required"));
}

pub(crate) async fn the_op_tells_that_a_session_has_ended(op: &impl Op) {
    let Some((world, shop)) = logout_world(op).await else { return };
    let mut browser = browser(&world);
    let user = sign_in(&world, &mut browser).await;
    op.end_session(&world, &mut browser, &user).await;
    assert_names(&shop.told().await, &user);
}
