//! The use of the files of each kind. Each function returns all problems that it finds, so that they are shown
//! together.

use std::collections::BTreeSet;
use std::sync::Arc;

use openid_deferred::error::ConfigurationProblem;
use openid_deferred::{Authentication, ErrorKind, Outcome, SignIn};
use serde_json::{Map, Value, json};
use url::Url;

use crate::answer::{Answer, Values};
use crate::op::Op;
use crate::relying_party::{ISSUER, World, parameter, usual_exchange, usual_metadata, usual_tokens, with_code};
use crate::signing;
use crate::table::{self, Row, Sign};
use crate::verdict;

const TEN_DAYS: u64 = 864_000;

/// Builds a client and, if that works, signs a user in with an ordinary code: the OPs behind these documents do not
/// support the deferred flow.
pub async fn discovery(row: &Row) -> Vec<String> {
    let issuer = row.issuer.as_deref().expect("the row has an issuer");
    let path = Url::parse(issuer).expect("the issuer is a URL").path().trim_end_matches('/').to_owned();
    let op = Arc::new(Op::default());
    {
        let mut script = op.script();
        let at = row.served_at.clone().unwrap_or(format!("{path}/.well-known/openid-configuration"));
        script.documents.push((at, Answer::of(row, &Values::default())));
        if row.fallback {
            let document = json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/jwks"),
                "response_types_supported": ["code"],
            });
            let at = format!("/.well-known/oauth-authorization-server{path}");
            script.documents.push((at, Answer::json(&document)));
        }
        script.keys = Some(Answer::json(&signing::usual_keys()));
    }
    let rsa = Sign { key: "rsa".to_owned(), alg: "RS256".to_owned(), header: json!({"alg": "RS256", "kid": "rsa-1"}) };
    let mut world = match World::with(row, op, issuer, rsa, with_code).await {
        Ok(world) => world,
        Err(error) => return differs(row, &format!("error: {}", verdict::of_error(&error))),
    };
    let mut grant = world.grant(row, "code").await;
    world.op.script().code.push_back(Answer::json(&usual_tokens(&world.values)));
    world.op.script().userinfo = Some(Answer::json(&json!({"sub": "user-1"})));
    let authentication = match world.client.exchange(&mut grant).await {
        Ok(SignIn::Complete(authentication)) => authentication,
        other => return vec![format!("discovered, but the exchange came to {other:?}")],
    };
    let mut problems = differs(row, "signs in");
    let metadata = world.client.provider_metadata().await.expect("the metadata are known");
    let has_userinfo = verdict::member(&metadata, "userinfo_endpoint").is_some();
    match world.client.userinfo(&authentication).await {
        Ok(_) if has_userinfo => {}
        Err(error) if !has_userinfo => {
            let expected = ErrorKind::Configuration(ConfigurationProblem::NoEndpoint("userinfo_endpoint"));
            problems.extend((error.kind() != &expected).then(|| format!("UserInfo came to {error:?}")));
        }
        other => problems.push(format!("UserInfo came to {other:?}")),
    }
    problems
}

/// A final ID Token is signed by a key of the set.
pub async fn keys(row: &Row) -> Vec<String> {
    let op = Arc::new(Op::default());
    let file = Answer::of(row, &Values::default());
    {
        let mut script = op.script();
        let metadata = usual_metadata(row);
        script.documents.push(("/.well-known/openid-configuration".to_owned(), Answer::json(&metadata)));
        script.keys = Some(row.known_before.as_ref().map_or_else(|| file.clone(), Answer::json));
    }
    let sign = row.sign.clone().expect("the row says how the token is signed");
    let mut world = match World::with(row, op, ISSUER, sign, |client| client).await {
        Ok(world) => world,
        Err(error) => return differs(row, &format!("error: {}", verdict::of_error(&error))),
    };
    let mut pending = world.pending(row, TEN_DAYS).await;
    world.op.script().keys = Some(file);
    world.op.script().poll.push_back(Answer::json(&usual_tokens(&world.values)));
    differs(row, &verdict::of_outcome(&world.outcome(&mut pending).await))
}

/// The answer to a pushed authorization request.
pub async fn pushed(row: &Row) -> Vec<String> {
    let world = World::set_up(row, |client| client.pushed_authorization_requests()).await;
    let file = Answer::of(row, &world.values);
    world.op.script().pushed = Some(file);
    let (url, _) = match world.client.authorize().start().await {
        Ok(started) => started,
        Err(error) => return differs(row, &format!("error: {}", verdict::of_error(&error))),
    };
    let mut problems = differs(row, "sent out");
    let sent = table::read(&row.file);
    let reference = parameter(&url, "request_uri");
    problems.extend((!sent.contains(&format!("\"{reference}\""))).then(|| format!("sent out with {reference}")));
    problems
}

/// The response that comes back in the browser. If it is a code, an exchange follows.
pub async fn callback(row: &Row) -> Vec<String> {
    let mut world = World::of(row).await;
    let session = world.user_leaves(row).await;
    world.op.script().exchange.push_back(Answer::json(&usual_exchange(TEN_DAYS)));
    let response = world.values.fill(table::read(&row.file).trim_end());
    let exchanged = world.client.authorization_response(&response, session).await;
    let mut problems = differs(row, &verdict::of_exchange(&exchanged));
    // Values that were escaped in the response are not escaped twice.
    let pairs = form_urlencoded::parse(response.rsplit('?').next().unwrap_or_default().as_bytes());
    let codes: Vec<_> = pairs.filter(|(name, _)| name == "deferred_code").map(|(_, code)| code.into_owned()).collect();
    if exchanged.is_ok() && world.op.script().codes != codes {
        problems.push(format!("the codes that were sent: {:?}", world.op.script().codes));
    }
    problems
}

/// The answer to the exchange of a deferred code. If the sign-in is deferred, an approval follows.
pub async fn exchange(row: &Row) -> Vec<String> {
    let mut world = World::of(row).await;
    let mut grant = world.grant(row, "deferred_code").await;
    let final_tokens = Answer::json(&usual_tokens(&world.values));
    // It must differ from the final token.
    let mut interim = Map::from_iter([("jti".to_owned(), json!("interim"))]);
    interim.extend(row.id_token.clone());
    world.values.id_token = world.id_token(&interim, &row.without, true);
    let file = Answer::of(row, &world.values);
    world.op.script().exchange.extend([file, Answer::json(&usual_exchange(TEN_DAYS))]);
    world.op.script().poll.push_back(final_tokens);

    let exchanged = world.client.exchange(&mut grant).await;
    let mut problems = differs(row, &verdict::of_exchange(&exchanged));
    let mut pending = match exchanged {
        Ok(SignIn::Deferred(pending)) => pending,
        _ => {
            let code = if grant.is_spent() { "spent" } else { "unspent" };
            problems.extend(compare("the code is", row.code.as_deref(), code));
            let again = verdict::of_exchange(&world.client.exchange(&mut grant).await);
            let expected = if code == "spent" { "error: Misuse(GrantAlreadyUsed)" } else { "deferred" };
            problems.extend(compare("a second exchange", Some(expected), &again));
            return problems;
        }
    };
    let interim = verdict::of_interim(pending.interim());
    problems.extend(row.interim.as_ref().and_then(|expected| compare("the interim token", Some(expected), &interim)));
    let outcome = verdict::of_outcome(&world.outcome(&mut pending).await);
    problems.extend(compare("the process ends", Some("approved"), &outcome));
    problems
}

/// The answer to one poll. If the sign-in goes on, an approval follows.
pub async fn poll(row: &Row) -> Vec<String> {
    let mut world = World::of(row).await;
    let mut pending = world.pending(row, TEN_DAYS).await;
    let file = Answer::of(row, &world.values);
    world.op.script().poll.extend([file, Answer::json(&usual_tokens(&world.values))]);

    let polled = world.poll(&mut pending).await;
    let mut problems = differs(row, &verdict::of_poll(&polled));
    if let Ok(openid_deferred::Poll::Finished(Outcome::Approved(authentication))) = &polled {
        problems.extend(differing_tokens(row, authentication));
    }
    if !pending.has_ended() {
        let outcome = verdict::of_outcome(&world.outcome(&mut pending).await);
        problems.extend(compare("the process ends", Some("approved"), &outcome));
    }
    if row.revoked {
        let revoked = world.op.script().revoked.clone();
        problems.extend((!revoked.contains(&"the-access-token".to_owned())).then(|| "nothing was revoked".to_owned()));
    }
    if let Some(lost) = row.lost {
        let expected = if lost { "unknown" } else { "expired" };
        problems.extend(compare("silence until the end", Some(expected), &followed_by_silence(row).await));
    }
    problems
}

/// The outcome of a sign-in whose OP is unreachable after the answer until the sign-in expires.
async fn followed_by_silence(row: &Row) -> String {
    let mut world = World::of(row).await;
    let mut pending = world.pending(row, 120).await;
    let file = Answer::of(row, &world.values);
    world.op.script().poll.extend([file, Answer::Nothing]);
    verdict::of_outcome(&world.outcome(&mut pending).await)
}

/// The answer to a refresh.
pub async fn refresh(row: &Row) -> Vec<String> {
    let mut world = World::of(row).await;
    let mut authentication = world.authentication(row).await;
    world.values.id_token = world.id_token(&row.id_token, &row.without, false);
    let file = Answer::of(row, &world.values);
    world.op.script().refresh.push_back(file);

    let came_to = match world.client.refresh(&mut authentication).await {
        Ok(()) => "refreshed".to_owned(),
        Err(error) => verdict::of_call(&error),
    };
    let mut problems = differs(row, &came_to);
    let access_token = authentication.access_token().map(|token| token.expose().to_owned()).unwrap_or_default();
    let expected = if came_to == "refreshed" { "the-new-access-token" } else { "the-access-token" };
    problems.extend(compare("the access token is", Some(expected), &access_token));
    problems.extend(differing_tokens(row, &authentication));
    problems
}

/// The payload of a final ID Token.
pub async fn claims(row: &Row) -> Vec<String> {
    let mut world = World::of(row).await;
    let mut pending = world.pending(row, TEN_DAYS).await;
    let payload = table::read(&row.file);
    world.values.id_token = world.jwt(&payload);
    world.op.script().poll.push_back(Answer::json(&usual_tokens(&world.values)));

    let outcome = world.outcome(&mut pending).await;
    let mut problems = differs(row, &verdict::of_outcome(&outcome));
    let Outcome::Approved(authentication) = outcome else { return problems };
    for (name, expected) in &row.accessors {
        let actual = verdict::of_accessor(authentication.claims(), name);
        problems.extend((actual != *expected).then(|| format!("{name}: {actual} instead of {expected}")));
    }
    problems.extend(other_malformed(row, authentication.claims().malformed()));
    // All claims are passed on unchanged, except the nonce, which has served its purpose.
    let mut sent: Map<String, Value> = serde_json::from_str(&without_half_pairs(&payload)).expect("it is JSON");
    sent.shift_remove("nonce");
    if authentication.claims().as_json() != &sent {
        problems.push(format!("handed over: {:?}", authentication.claims().as_json()));
    }
    problems
}

/// Replaces the half surrogate pair of the corpus, which `serde_json` refuses, by U+FFFD.
fn without_half_pairs(json: &str) -> String {
    json.replace(r"\ud83d", r"\ufffd")
}

/// The answer of the UserInfo endpoint after a sign-in.
pub async fn userinfo(row: &Row) -> Vec<String> {
    let mut world = World::of(row).await;
    let authentication = world.authentication(row).await;
    if let Some(claims) = &row.jwt {
        world.values.jwt = signing::jwt(row.sign.as_ref().unwrap_or(&world.sign), &claims.to_string());
    }
    world.op.script().userinfo = Some(Answer::of(row, &world.values));

    let answered = world.client.userinfo(&authentication).await;
    let came_to = match &answered {
        Ok(_) => "taken".to_owned(),
        Err(error) => format!("error: {}", verdict::of_error(error)),
    };
    let mut problems = differs(row, &came_to);
    if let (Ok(userinfo), Answer::Response { body, .. }) = (answered, Answer::of(row, &world.values)) {
        let body = body.trim_start_matches('\u{feff}');
        let sent =
            row.jwt.clone().unwrap_or_else(|| serde_json::from_str(&without_half_pairs(body)).expect("it is JSON"));
        problems.extend(other_malformed(row, userinfo.malformed()));
        let handed_over = Value::Object(userinfo.as_json().clone());
        problems.extend((handed_over != sent).then(|| format!("handed over: {handed_over}")));
    }
    problems
}

/// Reports malformed claims that differ from those in the row.
fn other_malformed<'a>(row: &Row, malformed: impl Iterator<Item = &'a str>) -> Option<String> {
    let malformed: BTreeSet<_> = malformed.collect();
    let expected: BTreeSet<_> = row.malformed.iter().map(String::as_str).collect();
    (malformed != expected).then(|| format!("malformed: {malformed:?} instead of {expected:?}"))
}

fn differing_tokens(row: &Row, authentication: &Authentication) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, expected) in &row.tokens {
        let actual = match name.as_str() {
            "expires_in" => {
                let received_at = verdict::seconds(authentication.received_at());
                json!(authentication.access_token_expires_at().map(|time| verdict::seconds(time) - received_at))
            }
            "refresh_token" => json!(authentication.refresh_token().map(|token| token.expose())),
            "scope" => json!(authentication.scope()),
            "sender_constrained" => json!(authentication.is_sender_constrained()),
            "extra" => {
                let names = expected.as_object().into_iter().flatten().map(|(name, _)| name);
                let found = names.filter_map(|name| Some((name.clone(), authentication.extra(name)?.clone())));
                Value::Object(found.collect())
            }
            other => panic!("{}: nothing of the tokens is called {other}", row.file),
        };
        problems.extend((actual != *expected).then(|| format!("{name}: {actual} instead of {expected}")));
    }
    problems
}

fn differs(row: &Row, actual: &str) -> Vec<String> {
    compare("came to", Some(&row.expect), actual).into_iter().collect()
}

fn compare(what: &str, expected: Option<&str>, actual: &str) -> Option<String> {
    (expected != Some(actual)).then(|| format!("{what} `{actual}` instead of `{}`", expected.unwrap_or_default()))
}
