//! CIBA at OPs of other authors: the poller and the ping receiver over HTTPS, with an authority of the test.
//!
//! `killed` has the program that is killed with `kill -9`.
#![expect(clippy::disallowed_methods, reason = "the OPs run in real time")]

mod door;
mod glewlwyd;
mod keycloak;
mod killed;
mod node;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use openid_deferred::ciba::{AuthenticationRefusal, AuthenticationRequest, DeliveryMode, UserHint};
use openid_deferred::ping::Receiver;
use openid_deferred::poller::AcceptedSignIn;
use openid_deferred::store::MemoryStore;
use openid_deferred::{
    Client, ClientAuthentication, ClientBuilder, Delivery, Keyring, Outcome, Poller, SigningAlgorithm, SigningKey,
};
use serde_json::{Value, json};

use crate::certificates::Identity;
use crate::op::Site;
use crate::support::{builder, chain, key_set, members, with};
use door::Door;

const GRANT: &str = "urn:openid:params:grant-type:ciba";
/// The maximum wait for an outcome on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// An OP that asks users on their phones.
trait Bank: Sized {
    type Phones: Phones;

    /// The OP that a test uses.
    async fn open() -> Option<Self>;

    /// The authority of its certificate, which it also trusts when it sends pings.
    fn authority(&self) -> Identity;

    /// The user whom it knows.
    fn user(&self) -> &'static str;

    /// The hint of the user with this number, of whom there are two hundred. An OP may have one user for all.
    fn user_with(&self, _number: usize) -> String {
        self.user().to_owned()
    }

    /// Registers a client with these members.
    async fn counter(self, members: Value) -> Counter<Self::Phones>;

    /// The same where the OP and not the client says how long requests live, with requests that expire soon.
    async fn brief_counter(self, members: Value) -> Counter<Self::Phones> {
        self.counter(members).await
    }
}

/// The phones of users, in the hands of a test.
trait Phones {
    /// Decides the request with this `binding_message`.
    async fn answer(&self, message: &str, approves: bool);

    /// Decides a request before the client knows its identifier. Returns whether that is possible.
    async fn answer_at_once(&self, _message: &str) -> bool {
        false
    }
}

/// A client that is registered at an OP.
struct Counter<P> {
    site: Site,
    client_id: String,
    client_secret: String,
    user: &'static str,
    /// Adds the settings that every client of this OP needs.
    configure: fn(ClientBuilder) -> ClientBuilder,
    phones: P,
}

macro_rules! banks {
    ($($scenario:ident: $($bank:ident)*;)*) => {$(
        mod $scenario {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $bank() {
                    super::$scenario::<super::$bank::Bank>().await;
                }
            )*
        }
    )*};
}

banks! {
    a_user_approves: node keycloak glewlwyd;
    a_user_refuses: node keycloak glewlwyd;
    a_request_expires: node keycloak glewlwyd;
    an_unknown_user_is_refused: node;
    an_earlier_sign_in_is_the_hint: node glewlwyd;
    a_request_is_signed: node keycloak;
    a_ping_brings_the_outcome_at_once: node keycloak glewlwyd;
    a_ping_may_come_before_the_answer: node;
    a_program_that_is_killed_misses_nothing: node keycloak;
    a_certificate_authenticates_and_binds: keycloak;
    two_hundred_users_are_asked_at_once: node keycloak;
}

/// What is registered for poll mode.
fn registered() -> Value {
    with(
        members(),
        json!({
            "grant_types": ["authorization_code", "refresh_token", GRANT],
            "backchannel_token_delivery_mode": "poll",
        }),
    )
}

/// What is registered for ping mode.
fn registered_with(door: &Door) -> Value {
    let ping = json!({
        "backchannel_token_delivery_mode": "ping",
        "backchannel_client_notification_endpoint": door.url(),
    });
    with(registered(), ping)
}

impl<P: Phones> Counter<P> {
    fn builder(&self) -> ClientBuilder {
        let authentication = ClientAuthentication::client_secret_basic(self.client_secret.as_str());
        (self.configure)(builder(&self.site, &self.client_id))
            .authentication(authentication)
            .backchannel_token_delivery_mode(DeliveryMode::Poll)
    }

    async fn client(&self) -> Client {
        discovered(self.builder()).await
    }

    fn ask<'a>(&self, client: &'a Client, message: &str) -> AuthenticationRequest<'a> {
        self.ask_for(client, self.user, message)
    }

    fn ask_for<'a>(&self, client: &'a Client, user: &str, message: &str) -> AuthenticationRequest<'a> {
        let request = client.backchannel_authentication(UserHint::login_hint(user));
        request.scopes(["profile", "email"]).binding_message(message).context(message)
    }
}

async fn discovered(client: ClientBuilder) -> Client {
    client.discover().await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

async fn poller(client: &Client) -> Poller {
    let builder = Poller::builder(MemoryStore::new(), Keyring::ephemeral().expect("a key"));
    builder.client(client.clone()).receives_pings().start().await.expect("the poller starts")
}

#[track_caller]
fn deferred(sign_in: Result<AcceptedSignIn, openid_deferred::Error>) -> openid_deferred::store::ProcessId {
    match sign_in {
        Ok(AcceptedSignIn::Deferred(id)) => id,
        Ok(other) => panic!("expected a deferral, got {other:?}"),
        Err(error) => panic!("{}", chain(&error)),
    }
}

async fn next(poller: &Poller) -> Delivery {
    let delivery = tokio::time::timeout(DEADLINE, async { poller.outcomes().next().await }).await;
    delivery.expect("an outcome comes in time").expect("the poller runs")
}

#[track_caller]
fn assert_approved(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
}

async fn a_user_approves<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let counter = bank.counter(registered()).await;
    let client = counter.client().await;
    let pending = counter.ask(&client, "approve").send().await;
    let mut pending = pending.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(pending.expires_at().is_some());
    counter.phones.answer("approve", true).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    let Outcome::Approved(mut authentication) = outcome else { panic!("{outcome:?}") };
    assert!(authentication.is_sender_constrained(), "the polls had a proof");
    let userinfo = client.userinfo(&authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(userinfo.subject(), authentication.claims().subject());
    if authentication.refresh_token().is_some() {
        client.refresh(&mut authentication).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
}

async fn a_user_refuses<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let counter = bank.counter(registered()).await;
    let client = counter.client().await;
    let mut pending = counter.ask(&client, "refuse").send().await.unwrap();
    counter.phones.answer("refuse", false).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Denied(_)), "{outcome:?}");
}

async fn a_request_expires<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let counter = bank.brief_counter(registered()).await;
    let client = counter.client().await;
    let request = counter.ask(&client, "expire").requested_expiry(Duration::from_secs(7));
    let mut pending = request.send().await.unwrap();
    let outcome = client.wait(&mut pending).await.unwrap();
    assert!(matches!(outcome, Outcome::Expired(_)), "{outcome:?}");
}

async fn an_unknown_user_is_refused<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let counter = bank.counter(registered()).await;
    let client = counter.client().await;
    let error = client.backchannel_authentication(UserHint::login_hint("nobody")).send().await.unwrap_err();
    assert_eq!(AuthenticationRefusal::of(&error), Some(AuthenticationRefusal::UnknownUser), "{}", chain(&error));
}

async fn an_earlier_sign_in_is_the_hint<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let counter = bank.counter(registered()).await;
    let client = counter.client().await;
    let mut pending = counter.ask(&client, "first").send().await.unwrap();
    counter.phones.answer("first", true).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    let Outcome::Approved(earlier) = outcome else { panic!("{outcome:?}") };
    let request = client.backchannel_authentication(UserHint::id_token_hint(&earlier)).binding_message("second");
    let mut pending = request.send().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    counter.phones.answer("second", true).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    let Outcome::Approved(second) = outcome else { panic!("{outcome:?}") };
    assert_eq!(second.claims().subject(), earlier.claims().subject());
}

async fn a_request_is_signed<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
    let signed = json!({
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256",
        "backchannel_authentication_request_signing_alg": "ES256",
        "jwks": key_set(key.public_jwk()),
    });
    let counter = bank.counter(with(registered(), signed)).await;
    let client = builder(&counter.site, &counter.client_id)
        .authentication(ClientAuthentication::private_key_jwt(key))
        .backchannel_token_delivery_mode(DeliveryMode::Poll)
        .fapi_ciba();
    let client = discovered(client).await;
    let pending = counter.ask(&client, "signed").send().await;
    let mut pending = pending.unwrap_or_else(|error| panic!("{}", chain(&error)));
    counter.phones.answer("signed", true).await;
    assert_approved(&client.wait(&mut pending).await.unwrap());
}

async fn a_certificate_authenticates_and_binds<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let identity = Identity::host("client.test", Some(&bank.authority()));
    let with_a_certificate = json!({
        "token_endpoint_auth_method": "tls_client_auth",
        "tls_client_auth_subject_dn": "CN=client.test",
        "tls_client_certificate_bound_access_tokens": true,
    });
    let counter = bank.counter(with(registered(), with_a_certificate)).await;
    let client = counter
        .builder()
        .authentication(ClientAuthentication::tls_client_auth(identity.client_certificate()))
        .certificate_bound_access_tokens();
    let client = discovered(client).await;
    let pending = counter.ask(&client, "certificate").send().await;
    let mut pending = pending.unwrap_or_else(|error| panic!("{}", chain(&error)));
    counter.phones.answer("certificate", true).await;
    let outcome = client.wait(&mut pending).await.unwrap();
    let Outcome::Approved(authentication) = outcome else { panic!("{outcome:?}") };
    assert!(authentication.is_sender_constrained() && authentication.dpop_key().is_none());
    let token = authentication.access_token().unwrap();
    let answer = client.introspect(token, None).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(answer.confirmation().unwrap()["x5t#S256"], json!(identity.thumbprint()));
}

async fn a_ping_brings_the_outcome_at_once<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let door = Door::open(&bank.authority()).await;
    let counter = bank.counter(registered_with(&door)).await;
    // Without the ping the next poll would be much later.
    let slow = openid_deferred::Backoff::Growing { up_to: Duration::from_secs(3600) };
    let client = counter.builder().backchannel_token_delivery_mode(DeliveryMode::Ping).backoff(slow);
    let client = discovered(client).await;
    let poller = poller(&client).await;
    let pings = door.serve(Receiver::new(poller.clone()));
    let id = deferred(poller.request_authentication(counter.ask(&client, "ping")).await);
    // Until the pauses between polls have grown. While a poll is in flight, the end of its lease is later.
    let grown = Duration::from_secs(18)..Duration::from_secs(120);
    let pauses_grow = async {
        while !poller.status(id).await.unwrap().unwrap().due_in().is_some_and(|due_in| grown.contains(&due_in)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, pauses_grow).await.expect("the next poll is later each time");
    let approved = Instant::now();
    counter.phones.answer("ping", true).await;
    let delivery = next(&poller).await;
    assert_approved(delivery.outcome());
    assert_eq!(delivery.context(), b"ping");
    assert_eq!(pings.statuses(), [204]);
    assert!(approved.elapsed() < Duration::from_secs(15), "{:?}", approved.elapsed());
    delivery.acknowledge().await.unwrap();
}

/// The OP has decided before it answers the request.
async fn a_ping_may_come_before_the_answer<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let door = Door::open(&bank.authority()).await;
    let counter = bank.counter(registered_with(&door)).await;
    let client = discovered(counter.builder().backchannel_token_delivery_mode(DeliveryMode::Ping)).await;
    let poller = poller(&client).await;
    let pings = door.serve(Receiver::new(poller.clone()));
    assert!(counter.phones.answer_at_once("hasty").await);
    deferred(poller.request_authentication(counter.ask(&client, "hasty")).await);
    let delivery = next(&poller).await;
    assert_approved(delivery.outcome());
    assert_eq!(pings.statuses(), [204]);
    delivery.acknowledge().await.unwrap();
}

async fn a_program_that_is_killed_misses_nothing<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let counter = bank.counter(registered()).await;
    killed::a_program_is_killed_while_it_waits(&counter).await;
}

async fn two_hundred_users_are_asked_at_once<B: Bank>() {
    let Some(bank) = B::open().await else { return };
    let door = Door::open(&bank.authority()).await;
    let users: Vec<_> = (0..200).map(|number| bank.user_with(number)).collect();
    let counter = bank.counter(registered_with(&door)).await;
    let client = discovered(counter.builder().backchannel_token_delivery_mode(DeliveryMode::Ping)).await;
    let poller = poller(&client).await;
    let pings = door.serve(Receiver::new(poller.clone()));
    let messages: Vec<_> = (0..200).map(|number| format!("user-{number}")).collect();
    let requests = users.iter().zip(&messages).map(|(user, message)| counter.ask_for(&client, user, message));
    let asked = requests.map(|request| poller.request_authentication(request));
    let mut waiting: BTreeSet<_> = futures_util::future::join_all(asked).await.into_iter().map(deferred).collect();
    assert_eq!(waiting.len(), 200);
    let answers: Vec<_> = messages.iter().enumerate().collect();
    for some in answers.chunks(8) {
        let some = some.iter().map(|(number, message)| counter.phones.answer(message, number % 10 != 0));
        futures_util::future::join_all(some).await;
    }
    let mut outcomes = poller.outcomes();
    let (mut approved, mut denied) = (0, 0);
    while !waiting.is_empty() {
        let delivery = tokio::time::timeout(DEADLINE, outcomes.next()).await.expect("in time").expect("it runs");
        match delivery.outcome() {
            Outcome::Approved(_) => approved += 1,
            Outcome::Denied(_) => denied += 1,
            outcome => panic!("{outcome:?}"),
        }
        assert!(waiting.remove(&delivery.id()));
        delivery.acknowledge().await.unwrap();
    }
    assert_eq!((approved, denied), (180, 20));
    assert!(pings.statuses().iter().all(|status| *status == 204), "{:?}", pings.statuses());
}
