//! The IETF dialect: grants without a user, `interaction_uri`, and the same scenarios as in the other dialect.

use openid_deferred::poller::AcceptedTokenRequest as Accepted;
use openid_deferred::store::{ProcessId, State};
use openid_deferred::testing::{Endpoint, Fault};
use openid_deferred::tokens::TokenTypeHint;
use openid_deferred::{
    Clock as _, Grant, IssuedTokens, Outcome, PendingAuthentication, Poll, Poller, TokenAnswer, TokenRequest,
};
use serde_json::{Value, json};

use crate::scenarios::faults;
use crate::show::Echo;
use crate::world::{CONTEXT, Ground, SECOND, World, keyring, opened};

/// What a payment is for.
const PURPOSE: &str = "canary of a payment's purpose";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The endpoints that answer token requests for grants without a user.
const GRANTS: [Endpoint; 3] = [Endpoint::ClientCredentials, Endpoint::TokenExchange, Endpoint::JwtBearer];

pub async fn of_grants_that_succeed(ground: &Ground) {
    for world in [ground.basic().await, ground.by_key().await, ground.by_certificate().await] {
        for kind in GRANTS {
            world.request_and_wait(kind).await;
            world.request_without_a_store(kind).await;
        }
        world.assert_nothing_shows();
    }
}

pub async fn when_the_token_request_fails(ground: &Ground) {
    for fault in faults(Endpoint::TokenExchange) {
        let world = ground.basic().await;
        world.op.misbehave(fault);
        world.request(&world.poller().await, Endpoint::TokenExchange).await;
        world.assert_nothing_shows();
    }
    for fault in faults(Endpoint::JwtBearer) {
        let world = ground.basic().await;
        world.op.misbehave(fault);
        world.request_without_a_store(Endpoint::JwtBearer).await;
        world.assert_nothing_shows();
    }
}

pub async fn when_polls_fail(ground: &Ground) {
    let odd_uri = |uri: Value| {
        Fault::edit_any_json(Endpoint::Poll, move |body| drop(body.insert("interaction_uri".into(), uri.clone())))
    };
    let odd_uris = [
        json!("https://op.test/canary-of-a-uri#fragment"),
        json!("http://elsewhere.test/canary-of-a-uri"),
        json!(format!("https://op.test/canary-of-a-uri/{}", "x".repeat(3_000))),
        json!(["canary-of-a-uri"]),
    ];
    for fault in faults(Endpoint::Poll).into_iter().chain(odd_uris.map(odd_uri)) {
        let world = ground.basic().await;
        world.secret("canary-of-a-uri");
        world.op.misbehave(fault.clone());
        world.request_and_wait(Endpoint::ClientCredentials).await;
        world.op.behave();
        world.op.misbehave(fault);
        world.request_without_a_store(Endpoint::TokenExchange).await;
        world.assert_nothing_shows();
    }
}

pub async fn when_the_op_repeats_in_its_answers_whatever_it_was_told(ground: &Ground) {
    for echo in Echo::ALL {
        let world = ground.basic().await;
        *world.echo.lock().unwrap() = Some(echo);
        world.request_and_wait(Endpoint::TokenExchange).await;
        world.assert_nothing_shows();
    }
}

pub async fn when_a_cancellation_fails(ground: &Ground) {
    for fault in faults(Endpoint::Revocation) {
        let world = ground.basic().await;
        let poller = world.poller().await;
        let id = world.request(&poller, Endpoint::ClientCredentials).await.expect("it is deferred");
        world.op.misbehave(fault.clone());
        world.show_result(&poller.cancel(id).await);
        world.show_status(&poller, id).await;
        world.search_rows().await;
        // A proxy may have accepted the cancellation in the OP's place.
        world.op.last_process().deny();
        let delivery = poller.outcomes().next().await.expect("the poller runs");
        assert!(matches!(delivery.outcome(), Outcome::Cancelled | Outcome::Denied(_)), "{delivery:?}");
        world.log.show(&delivery);
        poller.shutdown(SECOND).await;

        world.op.behave();
        world.op.misbehave(fault);
        let answer = world.token_request(Endpoint::JwtBearer).send().await;
        let Ok(TokenAnswer::Deferred(mut pending)) = answer else { panic!("{answer:?}") };
        world.show_result(&world.client.cancel(&mut pending).await);
        world.log.show(&pending);
        world.assert_nothing_shows();
    }
}

pub async fn when_the_store_fails(ground: &Ground) {
    let world = ground.basic().await;
    let poller = world.poller().await;
    let id = world.request(&poller, Endpoint::ClientCredentials).await.expect("it is deferred");
    let spoilt = world.place.spoil().await;
    world.request(&poller, Endpoint::JwtBearer).await;
    world.show_result(&poller.status(id).await);
    world.show_result(&poller.cancel(id).await);
    world.show_result(&poller.forget(id).await);
    world.ping(&poller).await;
    // In the meantime polls are answered, one of them with the tokens.
    world.op.last_process().approve();
    world.clock.sleep(30 * SECOND).await;
    spoilt.mend().await;
    let delivery = poller.outcomes().next().await.expect("the poller runs");
    world.log.show(&delivery);
    world.show_outcome(delivery.outcome()).await;
    poller.shutdown(SECOND).await;
    world.assert_nothing_shows();
}

/// What is stored in all of this, for dumps of the database.
pub async fn all_that_is_stored(ground: &Ground) {
    let world = ground.basic().await;
    world.sign_in_and_wait().await;
    for kind in GRANTS {
        world.request_and_wait(kind).await;
    }
    world.assert_nothing_shows();
    when_the_store_fails(ground).await;
}

impl World {
    /// A request with a secret in everything that it presents.
    fn token_request(&self, kind: Endpoint) -> TokenRequest<'_> {
        let grant = match kind {
            Endpoint::ClientCredentials => Grant::client_credentials(),
            Endpoint::TokenExchange => {
                let [subject, actor] = ["canary-of-a-subject", "canary-of-an-actor"].map(|who| {
                    let token = self.op.subject_token(who);
                    self.secret(&token);
                    token
                });
                Grant::token_exchange(subject, ACCESS_TOKEN).actor_token(actor, ACCESS_TOKEN)
            }
            _ => {
                let assertion = self.op.assertion("canary-of-a-subject");
                assertion.split('.').for_each(|part| self.secret(part));
                Grant::jwt_bearer(assertion)
            }
        };
        self.log.show(&grant);
        self.secret(PURPOSE);
        let details = json!([{ "type": "payment", "purpose": PURPOSE }]);
        let request = self.client.token_request(grant).scopes(["payments"]).authorization_details(details);
        let request = request.context(CONTEXT);
        self.log.show(&request);
        request
    }

    /// Requests tokens with the poller. Returns an id if the OP defers them.
    async fn request(&self, poller: &Poller, kind: Endpoint) -> Option<ProcessId> {
        let answer = poller.request_tokens(self.token_request(kind)).await;
        self.show_result(&answer);
        self.search_place();
        match answer {
            Ok(Accepted::Deferred(id)) => Some(id),
            Ok(Accepted::Complete(tokens)) => {
                self.show_tokens(&tokens).await;
                None
            }
            _ => None,
        }
    }

    async fn request_and_wait(&self, kind: Endpoint) {
        let poller = self.poller().await;
        let events = poller.events();
        if let Some(id) = self.request(&poller, kind).await {
            self.search_rows().await;
            self.wait(poller, events, id).await;
        }
    }

    /// The same with a stateless client.
    async fn request_without_a_store(&self, kind: Endpoint) {
        let answer = self.token_request(kind).send().await;
        self.show_result(&answer);
        match answer {
            Ok(TokenAnswer::Deferred(mut pending)) => self.poll(&mut pending).await,
            Ok(TokenAnswer::Complete(tokens)) => self.show_tokens(&tokens).await,
            _ => {}
        }
    }

    async fn poll(&self, pending: &mut PendingAuthentication) {
        for attempt in 0.. {
            let process = self.op.last_process();
            self.log.show(&(pending.identifier(), pending.interaction_uri(), pending.notification_token()));
            let sealed = pending.seal(&keyring()).unwrap();
            self.open_private_key(&sealed, b"pending authentication", &[]);
            self.assert_no_canary(&sealed, "a sealed pending request");
            *pending = PendingAuthentication::open(&keyring(), &sealed).unwrap();
            match (attempt, process.interaction_uri()) {
                (1, Some(uri)) => drop(self.op.open_interaction(uri)),
                (2, _) => process.require_interaction(),
                (3, _) => process.approve(),
                _ => {}
            }
            self.clock.sleep(31 * SECOND).await;
            let polled = self.client.poll(pending).await;
            self.show_result(&polled);
            self.log.show(&pending);
            match polled {
                Ok(Poll::Finished(outcome)) => return Box::pin(self.show_outcome(&outcome)).await,
                Ok(_) => {}
                Err(_) if pending.has_ended() => return,
                Err(_) => {}
            }
            assert!(attempt < 20, "it ends");
        }
    }

    /// Plays the user, if one is required: opens the first URI, is given a second one, and lets the policy decide.
    pub async fn user_decides(&self, poller: &Poller, id: ProcessId) {
        let process = self.op.last_process();
        let Some(first) = process.interaction_uri() else { return };
        self.assert_sealed(id, &first).await;
        self.show_status(poller, id).await;
        self.op.open_interaction(&first);
        self.clock.sleep(6 * SECOND).await;
        process.require_interaction();
        self.clock.sleep(6 * SECOND).await;
        self.show_status(poller, id).await;
        self.search_rows().await;
        process.resume();
    }

    /// Checks that the row of a waiting request contains the URI, and only in its sealed part.
    async fn assert_sealed(&self, id: ProcessId, uri: &str) {
        let row = self.store.load(id).await.unwrap().expect("it is stored");
        if row.state != State::Waiting {
            return;
        }
        let body = row.body.expect("it has a body").bytes;
        assert!(opened(&body, b"process", &id.to_bytes()).contains(uri), "the URI is stored");
        self.secret(uri);
        self.search_place();
    }

    /// Shows a status as logs do, and as a page gets it. There the progress may be seen.
    pub async fn show_status(&self, poller: &Poller, id: ProcessId) {
        let status = poller.status(id).await;
        self.show_result(&status);
        if let Ok(Some(status)) = status {
            self.log.show(&status.interaction_uri());
            let mut page = serde_json::to_value(&status).unwrap();
            page["progress"].take();
            self.log.show_text(&page.to_string());
        }
    }

    pub async fn show_tokens(&self, tokens: &IssuedTokens) {
        self.log.show(tokens);
        self.log.show(&(tokens.access_token(), tokens.refresh_token(), tokens.dpop_key()));
        let sealed = tokens.seal(&keyring()).unwrap();
        self.open_private_key(&sealed, b"issued tokens", &[]);
        self.assert_no_canary(&sealed, "sealed tokens");
        self.show_result(&IssuedTokens::open(&keyring(), &sealed));
        self.show_result(&self.client.introspect(tokens.access_token(), TokenTypeHint::AccessToken).await);
        let request = http::Request::get(self.op.resource()).body(Default::default()).unwrap();
        if let Err(error) = self.client.resource(tokens, request).await {
            self.log.show_error(&error);
        }
        self.show_result(&self.client.revoke_token(tokens.access_token(), TokenTypeHint::AccessToken).await);
    }
}
