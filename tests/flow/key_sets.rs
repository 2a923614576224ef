//! Key sets as OPs publish them: with null or empty members, other encodings, or too many keys.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use openid_deferred::encryption::ClientAlgorithms;
use openid_deferred::error::Rule;
use openid_deferred::testing::{Endpoint, Fault, TestClock, TestProvider};
use openid_deferred::{Client, ClientAuthentication, Error, Outcome, SigningAlgorithm};
use serde_json::{Map, Value, json};

use crate::support::{CLIENT_SECRET, World, broken_rule, client_of, provider};

type Edit = fn(&mut Map<String, Value>);

fn each_key(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Fault {
    Fault::edit_json(Endpoint::Keys, move |members| {
        members["keys"].as_array_mut().unwrap().iter_mut().for_each(|key| edit(key.as_object_mut().unwrap()));
    })
    .always()
}

async fn discovered(fault: Fault) -> (TestProvider, TestClock, Result<Client, Error>) {
    let clock = TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    op.misbehave(fault);
    let client = client_of(&op, &clock).discover().await;
    (op, clock, client)
}

async fn outcome_with(fault: Fault) -> Outcome {
    let (op, clock, client) = discovered(fault).await;
    World { op, clock, client: client.unwrap() }.outcome().await
}

/// Writes the same octets in another encoding.
fn respelled(key: &mut Map<String, Value>, spell: impl Fn(&[u8]) -> String) {
    for name in ["x", "y", "n", "e"] {
        if let Some(Value::String(text)) = key.get_mut(name) {
            *text = spell(&URL_SAFE_NO_PAD.decode(&*text).unwrap());
        }
    }
}

#[tokio::test]
async fn members_of_a_key_that_are_null_or_empty_are_absent() {
    let edits: [Edit; 9] = [
        |key| drop(key.insert("use".into(), json!(null))),
        |key| drop(key.insert("use".into(), json!(""))),
        |key| drop(key.insert("alg".into(), json!(null))),
        |key| drop(key.insert("alg".into(), json!(""))),
        |key| drop(key.insert("key_ops".into(), json!(null))),
        |key| drop(key.insert("key_ops".into(), json!([]))),
        |key| drop(key.insert("x5c".into(), json!([]))),
        |key| drop(key.insert("x5u".into(), json!(null))),
        |key| drop(key.insert("kid".into(), json!(null))),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        assert_eq!(broken_rule(&outcome_with(each_key(edit)).await), None, "edit {number}");
    }
}

#[tokio::test]
async fn keys_in_padded_or_standard_base64_are_read() {
    assert_eq!(
        broken_rule(&outcome_with(each_key(|key| respelled(key, |octets| URL_SAFE.encode(octets)))).await),
        None
    );
    assert_eq!(
        broken_rule(&outcome_with(each_key(|key| respelled(key, |octets| STANDARD.encode(octets)))).await),
        None
    );
}

#[tokio::test]
async fn a_coordinate_with_a_superfluous_leading_zero_is_read() {
    let longer =
        |key: &mut Map<String, Value>| respelled(key, |octets| URL_SAFE_NO_PAD.encode([&[0], octets].concat()));
    let ec_only = each_key(move |key| {
        if key["kty"] == "EC" {
            longer(key);
        }
    });
    assert_eq!(broken_rule(&outcome_with(ec_only).await), None);
}

#[tokio::test]
async fn a_set_with_more_than_a_hundred_keys_is_used() {
    let junk = || json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"});
    let many = Fault::edit_json(Endpoint::Keys, move |members| {
        members["keys"].as_array_mut().unwrap().extend(std::iter::repeat_with(junk).take(150));
    });
    assert_eq!(broken_rule(&outcome_with(many.always()).await), None);
}

#[tokio::test]
async fn a_key_set_without_a_matching_key_is_not_reported_as_unavailable() {
    let (_, _, client) = discovered(each_key(|key| drop(key.insert("use".into(), json!("enc"))))).await;
    let error = client.unwrap_err();
    assert_eq!(error.rule(), Some(Rule::NoUsableKey), "{error}");
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("`alg`"), "{reason}");
}

#[tokio::test]
async fn no_key_is_needed_if_tokens_are_authenticated_with_the_client_secret() {
    let clock = TestClock::automatic();
    let op = provider(&clock).start().unwrap();
    op.misbehave(Fault::edit_json(Endpoint::Keys, |members| drop(members.insert("keys".into(), json!([])))).always());
    let client = client_of(&op, &clock)
        .authentication(ClientAuthentication::client_secret_basic(format!("{CLIENT_SECRET}, which is longer")))
        .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Hs256))
        .allow_unadvertised();
    assert!(client.discover().await.is_ok());
}
