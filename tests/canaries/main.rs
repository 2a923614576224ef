//! Checks that no secret is shown. The tests run whole sign-ins and every failure with tracing at its most verbose
//! level. They search everything that was logged, formatted and stored for every confidential value. SQLite's files and
//! a dump of PostgreSQL are searched byte by byte.

mod ciba;
mod ietf;
mod place;
mod scenarios;
mod search;
mod show;
#[path = "../shared/timed.rs"]
mod timed;
mod world;

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use openid_deferred::store::{NewProcess, Partition, ProcessId, SealedBody, State, Store};
use openid_deferred::testing::{DecisionPolicy, NoncePolicy, TestClient, TestClock, TestProvider, TestUser};
use openid_deferred::{Client, ClientAuthentication, Outcome, Poll, SignIn};

use crate::place::{Database, Place};
use crate::show::{LIBRARY_LOG, LibraryLog, Log};
use crate::world::{CLAIM, CLIENT_ID, CLIENT_SECRET, Ground, REDIRECT_URI, SECOND, World};

#[tokio::test]
async fn nothing_that_is_logged_formatted_or_stored_shows_a_secret_of_a_flow_that_succeeds() {
    scenarios::of_a_flow_that_succeeds(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_polls_fail() {
    scenarios::when_polls_fail(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_exchange_fails() {
    scenarios::when_the_exchange_fails(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_a_refresh_an_introspection_or_a_revocation_fails() {
    scenarios::when_what_comes_after_fails(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_metadata_or_the_keys_fail() {
    scenarios::when_the_metadata_or_the_keys_fail(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_op_echoes_the_requests_in_its_answers() {
    scenarios::when_the_op_repeats_in_its_answers_whatever_it_was_told(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_a_token_is_forged() {
    scenarios::when_a_token_is_forged(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_authorization_response_is_wrong() {
    scenarios::when_the_users_return_is_wrong(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_sealed_values_are_opened_with_another_key() {
    scenarios::when_sealed_values_are_opened_with_another_key(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_a_client_registers_itself() {
    scenarios::when_a_client_registers_itself(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_store_fails() {
    scenarios::when_the_store_fails(&Ground::of_files()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_of_sign_ins_in_the_ietf_dialect() {
    let ground = Ground::of_files().ietf();
    Box::pin(scenarios::of_a_flow_that_succeeds(&ground)).await;
    Box::pin(scenarios::when_the_exchange_fails(&ground)).await;
    Box::pin(scenarios::when_the_op_repeats_in_its_answers_whatever_it_was_told(&ground)).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_of_grants_that_succeed() {
    ietf::of_grants_that_succeed(&Ground::of_files().ietf()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_token_requests_fail() {
    ietf::when_the_token_request_fails(&Ground::of_files().ietf()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_polls_of_the_ietf_dialect_fail() {
    ietf::when_polls_fail(&Ground::of_files().ietf()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_op_echoes_polls_of_the_ietf_dialect() {
    ietf::when_the_op_repeats_in_its_answers_whatever_it_was_told(&Ground::of_files().ietf()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_a_cancellation_by_revocation_fails() {
    ietf::when_a_cancellation_fails(&Ground::of_files().ietf()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_store_fails_during_token_requests() {
    ietf::when_the_store_fails(&Ground::of_files().ietf()).await;
}

#[tokio::test]
async fn a_dump_of_postgresql_shows_no_secret_of_the_ietf_dialect() {
    ietf::all_that_is_stored(&Ground::of_database().ietf()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_of_backchannel_authentication() {
    ciba::of_requests_that_succeed(&Ground::of_files().ciba()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_backchannel_authentication_requests_fail() {
    ciba::when_the_request_fails(&Ground::of_files().ciba()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_polls_of_backchannel_authentication_fail() {
    ciba::when_polls_fail(&Ground::of_files().ciba()).await;
}

#[tokio::test]
async fn nothing_shows_a_secret_when_the_op_echoes_backchannel_authentication_requests() {
    ciba::when_the_op_repeats_in_its_answers_whatever_it_was_told(&Ground::of_files().ciba()).await;
}

#[tokio::test]
async fn a_dump_of_postgresql_shows_no_secret_of_backchannel_authentication() {
    ciba::of_requests_that_succeed(&Ground::of_database().ciba()).await;
}

/// A scenario as a separate future. One future with all scenarios would not fit on the stack of a test's thread.
type Scenario = fn(&Ground) -> Pin<Box<dyn Future<Output = ()> + '_>>;

const IN_THE_DATABASE: [Scenario; 9] = [
    |ground| Box::pin(scenarios::of_a_flow_that_succeeds(ground)),
    |ground| Box::pin(scenarios::when_polls_fail(ground)),
    |ground| Box::pin(scenarios::when_the_exchange_fails(ground)),
    |ground| Box::pin(scenarios::when_the_metadata_or_the_keys_fail(ground)),
    |ground| Box::pin(scenarios::when_the_op_repeats_in_its_answers_whatever_it_was_told(ground)),
    |ground| Box::pin(scenarios::when_a_token_is_forged(ground)),
    |ground| Box::pin(scenarios::when_the_users_return_is_wrong(ground)),
    |ground| Box::pin(scenarios::when_sealed_values_are_opened_with_another_key(ground)),
    |ground| Box::pin(scenarios::when_the_store_fails(ground)),
];

/// The same with rows in PostgreSQL.
#[tokio::test]
async fn a_dump_of_postgresql_shows_no_secret() {
    let ground = Ground::of_database();
    for scenario in IN_THE_DATABASE {
        scenario(&ground).await;
    }
}

#[tokio::test]
async fn nothing_shows_a_secret_at_the_most_verbose_log_level_of_all_libraries() {
    log::set_logger(&LibraryLog).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let (log, _guard) = Log::start();
    let clock = TestClock::new();
    let op = TestProvider::builder()
        .https()
        .clock(Arc::new(clock.clone()))
        .client(TestClient::secret_basic(CLIENT_ID, CLIENT_SECRET).redirect_uri(REDIRECT_URI))
        .user(TestUser::new("canary-of-a-subject").claim("name", CLAIM))
        .dpop_nonces(NoncePolicy::Required)
        .decisions(DecisionPolicy::immediately())
        .start()
        .unwrap();
    let authority = reqwest::Certificate::from_pem(op.ca_certificate_pem().unwrap().as_bytes()).unwrap();
    let client = Client::builder(op.issuer(), CLIENT_ID)
        .authentication(ClientAuthentication::client_secret_basic(CLIENT_SECRET))
        .redirect_uri(REDIRECT_URI)
        .clock(Arc::new(clock.clone()))
        .configure_http(move |http| http.no_proxy().tls_certs_only([authority.clone()]).connection_verbose(true))
        .build()
        .unwrap();
    let (url, session) = client.authorize().start().await.unwrap();
    let query = op.visit(url).query();
    let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await.unwrap() else {
        panic!("not deferred")
    };
    clock.advance(10 * SECOND);
    let polled = client.poll(&mut pending).await.unwrap();
    assert!(matches!(polled, Poll::Finished(Outcome::Approved(_))), "{polled:?}");

    let place = Place::file();
    let store = place.store(&clock, &log).await;
    let world = World { op, clock, client, place, store, echo: Arc::default(), log, secrets: Mutex::default() };
    let libraries = LIBRARY_LOG.lock().unwrap().clone();
    assert!(libraries.contains("reqwest") || libraries.contains("hyper"), "the libraries log: {libraries}");
    world.assert_no_canary(libraries.as_bytes(), "what libraries log");
    world.assert_nothing_shows();
}

#[test]
fn a_canary_is_found_in_every_encoding() {
    let canary = b"canary of the test: \xff+/?&";
    let secrets = [canary.to_vec(), b"another canary".to_vec()];
    let found = |text: &[u8]| search::canary(&secrets, text).is_some_and(|(secret, _)| secret == canary);
    for front in ["", "x", "xy"] {
        for text in [
            STANDARD.encode([front.as_bytes(), canary, b"yz"].concat()),
            URL_SAFE_NO_PAD.encode([front.as_bytes(), canary, b"yz"].concat()),
        ] {
            assert!(found(text.as_bytes()), "{text}");
        }
    }
    assert!(found(&[b"raw: ".as_slice(), canary].concat()));
    assert!(found(format!("{:?}", canary).as_bytes()));
    assert!(found(form_urlencoded::byte_serialize(canary).collect::<String>().as_bytes()));
    assert!(found(canary.iter().map(|byte| format!("{byte:02X}")).collect::<String>().as_bytes()));
    assert!(!found(b"canary of another test"));
}

#[tokio::test]
async fn a_canary_in_a_file_of_sqlite_is_found() {
    let place = Place::file();
    let (_store, planted) = plant(&place).await;
    let Place::File { folder } = &place else { unreachable!() };
    assert_found(&planted, &place);
    rusqlite::Connection::open(folder.path().join("pending.db"))
        .unwrap()
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let log = std::fs::metadata(folder.path().join("pending.db-wal")).unwrap();
    assert_eq!(log.len(), 0, "everything is in the file itself");
    assert_found(&planted, &place);
}

#[tokio::test]
async fn a_canary_in_postgresql_is_found_in_its_dump() {
    let place = Place::Database(Database::new().await);
    let (_store, planted) = plant(&place).await;
    assert_found(&planted, &place);
}

/// Stores rows that each contain an unsealed secret in some disguise.
async fn plant(place: &Place) -> (Arc<dyn Store>, Vec<Vec<u8>>) {
    let (log, _guard) = Log::start();
    let store = place.store(&TestClock::automatic(), &log).await;
    let mut planted = Vec::new();
    for disguise in 0..7_u8 {
        let secret = format!("canary number {disguise} \u{e9}+/?&").into_bytes();
        let front = &b"xy"[..usize::from(disguise % 3)];
        let all = [b"sealed? ".as_slice(), front, &secret, b"."].concat();
        let (bytes, schedule) = match disguise {
            0 => (all, String::new()),
            1 => (Vec::new(), String::from_utf8(all).unwrap()),
            2 => (all.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes(), String::new()),
            3 => (STANDARD.encode(&all).into_bytes(), String::new()),
            4..=5 => (URL_SAFE_NO_PAD.encode(&all).into_bytes(), String::new()),
            _ => (Vec::new(), STANDARD.encode(&all)),
        };
        let body = SealedBody::new(1, [1; 4], bytes);
        let id = ProcessId::from_bytes([disguise; 16]);
        let mut process = NewProcess::new(id, Partition(1), State::Waiting, body);
        (process.due_in, process.interval, process.schedule) = (SECOND, SECOND, schedule);
        store.insert(process).await.unwrap();
        planted.push(secret);
    }
    // SQLite's file has a log beside it for as long as the store has it open.
    (store, planted)
}

#[track_caller]
fn assert_found(planted: &[Vec<u8>], place: &Place) {
    let everything = place.bytes();
    for secret in planted {
        let is_found =
            everything.iter().any(|(_, bytes)| search::canary(std::slice::from_ref(secret), bytes).is_some());
        assert!(is_found, "{}", String::from_utf8_lossy(secret));
    }
}
