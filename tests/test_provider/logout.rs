//! The end-session endpoint, and logout tokens.

use http::Method;
use openid_deferred::testing::{Endpoint, RequestRule, TestClient, TestProvider};
use serde_json::{Value, json};
use url::Url;

use crate::rp::{REDIRECT, Rp, rp};

const BYE: &str = "https://rp.test/bye";

fn client(id: &str) -> TestClient {
    TestClient::public(id)
        .redirect_uri(REDIRECT)
        .signing_algorithm("ES256")
        .post_logout_redirect_uri(BYE)
        .backchannel_logout_uri("http://127.0.0.1:1/backchannel-logout")
}

/// A relying party with an ID Token.
async fn signed_in() -> (Rp, String) {
    let mut rp = rp(|op| op.client(client("app")).client(client("other")));
    let id = rp.started().await;
    let (status, tokens) = rp.poll_in_time(&id).await;
    assert_eq!(status, 200, "{tokens}");
    (rp, tokens["id_token"].as_str().unwrap().to_owned())
}

fn url(op: &TestProvider, parameters: &[(&str, &str)]) -> String {
    Url::parse_with_params(&format!("{}/logout", op.issuer()), parameters).unwrap().into()
}

#[tokio::test]
async fn after_a_logout_the_user_returns_with_the_state_only_to_a_registered_uri() {
    let (mut rp, id_token) = signed_in().await;
    let good = [
        ("id_token_hint", id_token.as_str()),
        ("client_id", "app"),
        ("post_logout_redirect_uri", BYE),
        ("state", "the state"),
        ("logout_hint", "jane"),
        ("ui_locales", "de"),
    ];
    for names in [&good[..], &good[1..], &[good[0], good[2], good[3]]] {
        let back = rp.op.visit_end_session(url(&rp.op, names)).unwrap();
        assert_eq!(back.url(), format!("{BYE}?state=the+state"));
    }
    assert_eq!(rp.op.visit_end_session(url(&rp.op, &good[..2])), None);
    // By POST too (§2).
    let place = format!("{}/logout", rp.op.issuer());
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(good).finish();
    let answer = rp.send(Method::POST, &place, &[], form).await;
    assert_eq!(answer.headers["location"], format!("{BYE}?state=the+state"));
    // The time of the ID Token is over.
    rp.clock.advance(std::time::Duration::from_secs(86_400));
    assert!(rp.op.visit_end_session(url(&rp.op, &good)).is_some());
    rp.op.assert_clean();
    assert_eq!(rp.op.requests_to(Endpoint::EndSession).len(), 6);
}

#[tokio::test]
async fn a_logout_request_that_is_wrong_ends_on_an_error_page() {
    let (mut rp, id_token) = signed_in().await;
    let (message, _) = id_token.rsplit_once('.').unwrap();
    let forged = format!("{message}.AAAA");
    let back = ("post_logout_redirect_uri", BYE);
    for (parameters, rule) in [
        (vec![("client_id", "nobody")], RequestRule::UnknownClient),
        (vec![("client_id", "app"), ("client_id", "app")], RequestRule::RepeatedParameter),
        (vec![("client_id", "other"), ("id_token_hint", id_token.as_str())], RequestRule::IdTokenHint),
        (vec![("id_token_hint", forged.as_str())], RequestRule::IdTokenHint),
        (vec![("id_token_hint", "abc")], RequestRule::IdTokenHint),
        (
            vec![("client_id", "app"), ("state", "s"), ("post_logout_redirect_uri", "https://rp.test/bye/")],
            RequestRule::WrongPostLogoutRedirectUri,
        ),
        (vec![("client_id", "server"), ("state", "s"), back], RequestRule::WrongPostLogoutRedirectUri),
        (vec![("state", "s"), back], RequestRule::WrongPostLogoutRedirectUri),
        (vec![("client_id", "app"), back], RequestRule::MissingParameter),
        (vec![("client_id", "app"), ("state", "s")], RequestRule::InvalidParameter),
    ] {
        let place = url(&rp.op, &parameters);
        let answer = rp.send(Method::GET, &place, &[], String::new()).await;
        assert_eq!((answer.status.as_u16(), answer.headers.get("location")), (400, None), "{parameters:?}");
        assert_eq!(rp.broken_rules(), [rule], "{parameters:?}");
        rp.op.forgive();
    }
    let place = url(&rp.op, &[]);
    assert_eq!(rp.send(Method::PUT, &place, &[], String::new()).await.status.as_u16(), 405);
    assert_eq!(rp.broken_rules(), [RequestRule::WrongMethod]);
    rp.op.forgive();
    rp.send(Method::GET, &place, &[("authorization", "Bearer abc".to_owned())], String::new()).await;
    assert_eq!(rp.broken_rules(), [RequestRule::UnneededCredential]);
}

#[tokio::test]
#[should_panic(expected = "the user sees an error page")]
async fn an_error_page_does_not_return_the_user() {
    let rp = rp(|op| op);
    rp.op.visit_end_session(url(&rp.op, &[("client_id", "nobody")]));
}

#[tokio::test]
async fn a_logout_token_names_the_ended_session() {
    let (mut rp, id_token) = signed_in().await;
    let process = rp.op.last_process();
    let sign_in = rp.verified(&json!(id_token)).await;
    assert_eq!(sign_in["sid"], process.sid());
    let token = process.logout_token();
    let claims = rp.verified(&json!(token)).await;
    let (jti, now) = (claims["jti"].as_str().unwrap(), rp.now());
    let expected: Value = json!({
        "iss": rp.op.issuer(), "sub": sign_in["sub"], "aud": "app", "iat": now, "exp": now + 120, "jti": jti,
        "sid": process.sid(), "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    assert_eq!(claims, expected);
    assert_eq!(josekit::jwt::decode_header(&token).unwrap().claim("typ"), Some(&json!("logout+jwt")));
    assert_ne!(claims["jti"], rp.verified(&json!(process.logout_token())).await["jti"]);
    // The client is away, which is recorded too.
    let sent = process.log_out().await;
    assert_eq!((sent.status, sent.url.path()), (None, "/backchannel-logout"));
    assert_eq!(rp.op.logout_tokens(), [sent]);
}

#[tokio::test]
async fn id_tokens_of_clients_without_backchannel_logout_have_no_sid() {
    let mut rp = rp(|op| op);
    let id = rp.started().await;
    let (_, tokens) = rp.poll_in_time(&id).await;
    assert_eq!(rp.verified(&tokens["id_token"]).await.get("sid"), None);
}
