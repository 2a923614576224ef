//! The cookies that wait in browsers, in `tests/golden/browser/<release>.json`: of a sign-in and of a logout. A newer
//! release must read them, or users lose their sign-ins.

use std::path::PathBuf;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use openid_deferred::axum::SignInCookies;
use openid_deferred::store::ProcessId;
use openid_deferred::testing::TestClock;
use serde::{Deserialize, Serialize};

use crate::release::keyring;
use crate::write;

/// What a release wrote, and the values that it was given. A cookie is its name and its value.
#[derive(Serialize, Deserialize)]
struct Written {
    sign_in: ProcessId,
    sign_in_cookie: String,
    logout_state: String,
    logout_cookie: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/browser")
}

#[tokio::test]
async fn cookies_that_earlier_releases_have_set_are_read() {
    let present = folder().join(format!("{}.json", env!("CARGO_PKG_VERSION")));
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&present, serde_json::to_string_pretty(&written().await).unwrap() + "\n").unwrap();
    }
    assert!(present.exists(), "this release has no golden file; GOLDEN_WRITE=1 makes it");
    // The file is older than any browser keeps a cookie.
    let cookies = SignInCookies::new(keyring()).lifetime(Duration::from_secs(1_000 * 366 * 86_400));
    for file in std::fs::read_dir(folder()).unwrap() {
        let written: Written = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let mut headers = HeaderMap::new();
        for cookie in [&written.sign_in_cookie, &written.logout_cookie] {
            headers.append(COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        assert_eq!(cookies.sign_ins(&headers).ids().collect::<Vec<_>>(), [written.sign_in]);
        let logout = cookies.logout_session(&headers).unwrap();
        assert_eq!((logout.state().expose(), logout.data()), (&*written.logout_state, &b"/bye"[..]));
    }
}

async fn written() -> Written {
    let clock = TestClock::automatic();
    let op = write::provider(&clock).start().unwrap();
    let client = write::client(&op, &clock);
    let (cookies, sign_in) = (SignInCookies::new(keyring()), ProcessId::from_bytes(*b"a golden sign-in"));
    let (_, session) = client.authorize().start().await.unwrap();
    let set = cookies.remember(&HeaderMap::new(), sign_in, &session.cookie_name()).unwrap();
    // Without a URI to return to there is no session to keep.
    let client = write::client_builder(&op, &clock).post_logout_redirect_uri("https://rp.test/logged-out").build();
    let client = client.unwrap();
    let (_, logout) = client.end_session().session_data("/bye").start().await.unwrap();
    let logout = logout.unwrap();
    Written {
        sign_in,
        sign_in_cookie: pair(&set[0]),
        logout_state: logout.state().expose().to_owned(),
        logout_cookie: pair(&cookies.start_logout(&client, &logout).unwrap()),
    }
}

/// The cookie without its attributes.
fn pair(set: &HeaderValue) -> String {
    set.to_str().unwrap().split(';').next().unwrap().to_owned()
}
