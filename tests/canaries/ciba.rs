//! CIBA: requests for a user whom the application names, and the same waits as in the other dialects.

use openid_deferred::ciba::{AuthenticationRequest, UserHint};
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::ProcessId;
use openid_deferred::testing::{DecisionPolicy, Endpoint};
use openid_deferred::{Clock as _, Outcome, Poll, Poller};

use crate::scenarios::faults;
use crate::show::Echo;
use crate::world::{CONTEXT, Ground, SECOND, World, keyring};

const HINT: &str = "canary-of-a-login-hint";
const MESSAGE: &str = "canary of a binding message";
const USER_CODE: &str = "canary-of-a-user-code";
const KEY: &str = "canary-of-an-idempotency-key";

pub async fn of_requests_that_succeed(ground: &Ground) {
    for world in [ground.basic().await, ground.by_key().await, ground.by_certificate().await] {
        world.ask_and_wait().await;
        world.ask_without_a_store().await;
        world.ask_for_the_same_user().await;
        world.assert_nothing_shows();
    }
}

pub async fn when_the_request_fails(ground: &Ground) {
    for fault in faults(Endpoint::BackchannelAuthentication) {
        let world = ground.basic().await;
        world.op.misbehave(fault.clone());
        world.ask(&world.poller().await).await;
        world.op.behave();
        world.op.misbehave(fault);
        world.ask_without_a_store().await;
        world.assert_nothing_shows();
    }
}

pub async fn when_polls_fail(ground: &Ground) {
    for fault in faults(Endpoint::Poll) {
        let world = ground.basic().await;
        world.op.misbehave(fault);
        world.ask_and_wait().await;
        world.assert_nothing_shows();
    }
}

pub async fn when_the_op_repeats_in_its_answers_whatever_it_was_told(ground: &Ground) {
    for echo in Echo::ALL {
        let world = ground.basic().await;
        *world.echo.lock().unwrap() = Some(echo);
        world.ask_and_wait().await;
        world.assert_nothing_shows();
    }
}

impl World {
    /// A request with a secret in everything that it tells the OP.
    fn authentication_request(&self, hint: UserHint) -> AuthenticationRequest<'_> {
        [HINT, MESSAGE, USER_CODE, KEY].iter().for_each(|secret| self.secret(secret));
        self.log.show(&hint);
        let request = self.client.backchannel_authentication(hint);
        let request = request.binding_message(MESSAGE).user_code(USER_CODE).context(CONTEXT).idempotency_key(KEY);
        self.log.show(&request);
        request
    }

    async fn ask(&self, poller: &Poller) -> Option<ProcessId> {
        let request = self.authentication_request(UserHint::login_hint(HINT));
        let answer = poller.request_authentication(request).await;
        self.show_result(&answer);
        self.search_rows().await;
        match answer {
            Ok(AcceptedSignIn::Deferred(id)) => Some(id),
            _ => None,
        }
    }

    async fn ask_and_wait(&self) {
        let poller = self.poller().await;
        let events = poller.events();
        if let Some(id) = self.ask(&poller).await {
            self.wait(poller, events, id).await;
        }
    }

    /// The same with a stateless client.
    async fn ask_without_a_store(&self) {
        let token = "canary-of-a-notification-token-of-the-application";
        let request = self.authentication_request(UserHint::login_hint(HINT)).notification_token(token);
        let answer = request.send().await;
        self.show_result(&answer);
        let Ok(mut pending) = answer else { return };
        for attempt in 0.. {
            self.log.show(&(pending.identifier(), pending.notification_token(), pending.dpop_key()));
            let sealed = pending.seal(&keyring()).unwrap();
            self.open_private_key(&sealed, b"pending authentication", &[]);
            self.assert_no_canary(&sealed, "a sealed pending request");
            self.clock.sleep(31 * SECOND).await;
            let polled = self.client.poll(&mut pending).await;
            self.show_result(&polled);
            match polled {
                Ok(Poll::Finished(outcome)) => return Box::pin(self.show_outcome(&outcome)).await,
                Ok(_) => {}
                Err(_) if pending.has_ended() => return,
                Err(_) => {}
            }
            assert!(attempt < 20, "it ends");
        }
    }

    /// With the ID Token of an earlier sign-in as the hint.
    async fn ask_for_the_same_user(&self) {
        self.op.set_decisions(DecisionPolicy::immediately());
        let token = "canary-of-another-notification-token";
        let request = self.authentication_request(UserHint::login_hint(HINT)).notification_token(token);
        let mut pending = request.send().await.expect("the OP asks the user");
        let outcome = self.client.wait(&mut pending).await.expect("it ends");
        let Outcome::Approved(earlier) = outcome else { panic!("{outcome:?}") };
        let request = self.authentication_request(UserHint::id_token_hint(&earlier)).notification_token(token);
        self.show_result(&request.send().await);
    }
}
