//! Successful and failing scenarios, each in worlds of its own.

use std::sync::Arc;

use http::HeaderValue;
use openid_deferred::registration::{Registrar, Registration, RegistrationRequest};
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, TestClock, TestProvider};
use openid_deferred::{AuthorizationSession, Clock as _, Keyring, Poller, SealingKey, SigningAlgorithm, SigningKey};
use serde_json::json;

use crate::show::{Echo, ShownNetwork};
use crate::world::{CLAIM, CLIENT_SECRET, Ground, REDIRECT_URI, SECOND, keyring};

pub async fn of_a_flow_that_succeeds(ground: &Ground) {
    let worlds = [
        ground.basic().await,
        ground.by_key().await,
        ground.by_signed_messages().await,
        ground.by_secret_jwt().await,
        ground.by_certificate().await,
    ];
    for world in worlds {
        world.sign_in_and_wait().await;
        let log = ground.log.text.lock().unwrap().clone();
        assert!(log.contains(" DEBUG openid_deferred"), "tracing is on");
        assert!(log.contains("do not have the type that they must have"), "a claim of an odd type is named");
        world.assert_nothing_shows();
    }
}

pub async fn when_polls_fail(ground: &Ground) {
    for fault in faults(Endpoint::Poll) {
        let world = ground.basic().await;
        world.op.misbehave(fault);
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

pub async fn when_the_exchange_fails(ground: &Ground) {
    for fault in faults(ground.exchange()) {
        let world = ground.basic().await;
        world.op.misbehave(fault);
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

pub async fn when_what_comes_after_fails(ground: &Ground) {
    for endpoint in [Endpoint::Refresh, Endpoint::Introspection, Endpoint::Revocation, Endpoint::Resource] {
        for fault in faults(endpoint) {
            let world = ground.basic().await;
            world.op.misbehave(fault);
            world.sign_in_and_wait().await;
            world.assert_nothing_shows();
        }
    }
}

pub async fn when_the_metadata_or_the_keys_fail(ground: &Ground) {
    for endpoint in [Endpoint::Metadata, Endpoint::Keys] {
        for fault in [Fault::status(endpoint, 503), Fault::reset(endpoint), Fault::truncated_json(endpoint)] {
            let world = ground.basic().await;
            world.op.misbehave(fault.times(2));
            world.sign_in_and_wait().await;
            world.assert_nothing_shows();
        }
    }
}

pub async fn when_the_op_repeats_in_its_answers_whatever_it_was_told(ground: &Ground) {
    for echo in Echo::ALL {
        let world = ground.basic().await;
        *world.echo.lock().unwrap() = Some(echo);
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

pub async fn when_a_token_is_forged(ground: &Ground) {
    for forgery in [
        IdTokenForgery::algorithm_none(),
        IdTokenForgery::hmac_with_public_key(),
        IdTokenForgery::foreign_key(),
        IdTokenForgery::broken_signature(),
        IdTokenForgery::claims(|claims| drop(claims.remove("nonce"))),
        IdTokenForgery::claims(|claims| drop(claims.insert("iss".into(), json!("https://other.test")))),
        IdTokenForgery::claims(|claims| drop(claims.insert("exp".into(), json!(1)))),
        IdTokenForgery::claims(|claims| drop(claims.insert("email_verified".into(), json!({"a": CLAIM})))),
        IdTokenForgery::raw("canary.of.garbage"),
    ] {
        let world = ground.basic().await;
        world.op.misbehave(Fault::id_token(Endpoint::Poll, forgery));
        world.sign_in_and_wait().await;
        world.assert_nothing_shows();
    }
}

pub async fn when_the_users_return_is_wrong(ground: &Ground) {
    let world = ground.basic().await;
    for spoil in [
        (|query: &str| query.replace("state=", "state=x")) as fn(&str) -> String,
        |query| format!("{query}&state=again"),
        |query| format!("{query}&code=canary-of-a-second-code"),
        |query| format!("{query}&error=access_denied&error_description=canary-of-a-description"),
        |query| format!("{query}&access_token=canary-of-an-access-token"),
        |query| query.replace("deferred_code=", "no_code="),
        |query| query.replace("deferred_code=", "deferred_code=%00"),
    ] {
        let (query, session) = world.user_returns().await;
        let query = spoil(&query);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !matches!(&*name, "iss" | "error") {
                world.secret(value.as_bytes());
            }
        }
        let failed = world.poller().await.authorization_response(&query, session).await;
        world.show_result(&failed);
    }
    world.assert_nothing_shows();

    let world = ground.by_signed_messages().await;
    for forgery in [
        IdTokenForgery::algorithm_none(),
        IdTokenForgery::foreign_key(),
        IdTokenForgery::claims(|claims| drop(claims.insert("state".into(), json!("canary-of-another-state")))),
        IdTokenForgery::claims(|claims| drop(claims.insert("deferred_code".into(), json!(["canary-of-a-list"])))),
        IdTokenForgery::claims(|claims| drop(claims.insert("exp".into(), json!("canary-of-a-time")))),
        IdTokenForgery::raw("canary.of.garbage"),
    ] {
        world.op.misbehave(Fault::jwt_response(forgery));
        let (query, session) = world.user_returns().await;
        world.secret(query.trim_start_matches("response="));
        let failed = world.poller().await.authorization_response(&query, session).await;
        assert!(failed.is_err());
        world.show_result(&failed);
    }
    for canary in ["canary-of-another-state", "canary-of-a-list", "canary-of-a-time", "canary.of.garbage"] {
        world.secret(canary);
    }
    world.assert_nothing_shows();
}

pub async fn when_sealed_values_are_opened_with_another_key(ground: &Ground) {
    let world = ground.basic().await;
    let poller = world.poller().await;
    let (_, session) = world.user_returns().await;
    let sealed = session.seal(&keyring()).unwrap();
    world.secret(&sealed);
    let other = Keyring::new(SealingKey::from_bytes(*b"canary:the sealing key of others").unwrap());
    world.show_result(&AuthorizationSession::open(&other, &sealed));
    world.show_result(&SealingKey::from_base64("Y2FuYXJ5IG9mIGEga2V5IHRoYXQgaXMgdG9vIHNob3J0"));
    world.secret("Y2FuYXJ5IG9mIGEga2V5IHRoYXQgaXMgdG9vIHNob3J0");
    world.show_result(&SigningKey::from_pem(SigningAlgorithm::Es256, "-----BEGIN PRIVATE KEY-----\ncanary", None));
    world.sign_in().await;
    world.show_result(&Poller::builder(world.store.clone(), other).start().await);
    drop(poller);
    world.assert_nothing_shows();
}

pub async fn when_a_client_registers_itself(ground: &Ground) {
    const TOKEN: &str = "canary-of-an-initial-access-token";
    let world = ground.basic().await;
    world.secret(TOKEN);
    for place in [Endpoint::Registration, Endpoint::ClientConfiguration] {
        for fault in faults(place) {
            let clock = Arc::new(TestClock::automatic());
            let op = TestProvider::builder().in_process().clock(clock.clone()).initial_access_token(TOKEN).start();
            let op = op.unwrap();
            let network = ShownNetwork { inner: op.http_client(), log: ground.log.clone(), echo: Arc::default() };
            let builder = Registrar::builder(op.issuer()).initial_access_token(TOKEN).clock(clock);
            let builder = builder.http_client(Arc::new(network));
            ground.log.show(&builder);
            let registrar = builder.build().unwrap();
            ground.log.show(&registrar);
            let request = RegistrationRequest::new(REDIRECT_URI)
                .contacts(["canary-of-a-contact@rp.test"])
                .member("canary", CLIENT_SECRET);
            world.secret("canary-of-a-contact@rp.test");
            ground.log.show(&request);
            op.misbehave(fault);
            world.show_result(&registrar.register(request.clone()).await);
            let mut registration = match registrar.register(request).await {
                Ok(registration) => registration,
                // Some faults last for two requests.
                Err(error) => {
                    ground.log.show_error(&error);
                    continue;
                }
            };
            world.show_result(&registrar.read(&mut registration).await);
            let update = registration.metadata().to_request().client_name("canary of a client's name");
            world.show_result(&registrar.update(&mut registration, update).await);
            ground.log.show(&registration);
            ground.log.show(&registration.differences());
            ground.log.show(&registration.client());
            world.show_result(&Registration::open(&keyring(), &[]));
            world.secret("canary of a client's name");
            let sealed = registration.seal(&keyring()).unwrap();
            world.secret(&sealed);
            world.secret(registration.client_secret().unwrap().expose());
            world.show_result(&registrar.delete(&registration).await);
            for request in op.requests() {
                let answer = request.response_json();
                for name in ["client_secret", "registration_access_token"] {
                    if let Some(issued) = answer[name].as_str() {
                        world.secret(issued);
                    }
                }
            }
        }
    }
    world.assert_nothing_shows();
}

pub async fn when_the_store_fails(ground: &Ground) {
    let world = ground.basic().await;
    let (poller, id) = world.sign_in().await;
    let id = id.expect("it is deferred");
    let (query, session) = world.user_returns().await;
    let spoilt = world.place.spoil().await;
    world.show_result(&poller.authorization_response(&query, session).await);
    world.show_result(&poller.status(id).await);
    world.show_result(&poller.cancel(id).await);
    world.show_result(&poller.forget(id).await);
    world.show_result(&poller.stats().await);
    world.ping(&poller).await;
    // In the meantime polls are answered, one of them with the tokens.
    world.clock.sleep(30 * SECOND).await;
    spoilt.mend().await;
    let delivery = poller.outcomes().next().await.expect("the poller runs");
    world.log.show(&delivery);
    world.search_place();
    poller.shutdown(SECOND).await;
    world.assert_nothing_shows();
}

/// The faults that can occur at an endpoint, before and after it has processed a request.
pub fn faults(endpoint: Endpoint) -> Vec<Fault> {
    let codes = ["access_denied", "expired_token", "invalid_grant", "invalid_request", "invalid_client", "slow_down"];
    let mut faults: Vec<_> = codes.iter().map(|code| Fault::error(endpoint, code)).collect();
    faults.extend([
        Fault::error(endpoint, "unknown_error_of_the_op"),
        Fault::status(endpoint, 502),
        Fault::status(endpoint, 204),
        Fault::redirect(endpoint, "https://elsewhere.test/?canary=of-a-redirect"),
        Fault::reset(endpoint),
        Fault::reset(endpoint).after_processing(),
        Fault::stall(endpoint).after_processing(),
        Fault::cut_body(endpoint).after_processing(),
        Fault::truncated_json(endpoint).after_processing(),
        Fault::gzip_bomb(endpoint, 64 << 20),
        Fault::forget_nonces(endpoint).times(2),
        Fault::edit_any_json(endpoint, |body| {
            body.insert("access_token".into(), json!(["canary", CLIENT_SECRET]));
            body.insert("token_type".into(), json!(CLIENT_SECRET));
            for name in ["deferred_auth_id", "deferral_code", "auth_req_id", "interaction_uri"] {
                body.insert(name.into(), json!({"canary": CLIENT_SECRET}));
            }
        }),
        Fault::edit_headers(endpoint, |headers| {
            headers.insert("content-type", HeaderValue::from_static("text/canary of the client's secret"));
        }),
    ]);
    faults
}
