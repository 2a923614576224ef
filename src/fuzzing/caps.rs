//! Inputs of the maximum size. The fuzzer does not try them: it stays at 16 kB to be fast. The processing time should
//! grow linearly with the length, which the test prints but does not check.

use std::time::Duration;

use super::world::{FIXED, METADATA, StoppedClock};
use super::{
    authorization_response, discovery, encrypted_token, exchange, id_token, introspection, key_set, ping, poll,
    response_headers, userinfo,
};
use crate::clock::{Clock, SystemClock};

const MEGABYTE: usize = 1024 * 1024;

/// `"m0":0,"m1":1,…`
fn members(count: usize) -> String {
    (0..count).map(|number| format!("\"m{number}\":{number}")).collect::<Vec<_>>().join(",")
}

fn answered(body: &str) -> String {
    format!("200 application/json\n\n{body}")
}

/// `cargo test --all-features --lib fuzzing::caps -- --nocapture` prints the time of each input.
#[test]
fn the_largest_inputs_are_processed() {
    let cases = [browser(), documents(), headers(), tokens()];
    for Case { name, target, input } in cases.into_iter().flatten() {
        let began = SystemClock.monotonic();
        target(&input.into_bytes());
        let took: Duration = SystemClock.monotonic() - began;
        println!("{name:40} {:>7.1} ms", took.as_secs_f64() * 1000.0);
    }
    assert_eq!(StoppedClock::default().monotonic(), Duration::from_secs(1_000), "targets do not know the real time");
}

struct Case {
    name: &'static str,
    target: fn(&[u8]),
    input: String,
}

fn case(name: &'static str, target: fn(&[u8]), input: String) -> Case {
    Case { name, target, input }
}

fn browser() -> Vec<Case> {
    vec![
        case("a query of ampersands", authorization_response, format!("0{}", "&".repeat(16_383))),
        case("a query of states", authorization_response, format!("0{}", "state=a&".repeat(2_047))),
        case("a query of escapes", authorization_response, format!("0{}", "%41".repeat(5_461))),
        case(
            "a ping with many members",
            ping,
            format!("0POST\nAuthorization: Bearer %P\nContent-Type: application/json\n\n{{{}}}", members(1_200)),
        ),
    ]
}

fn documents() -> Vec<Case> {
    let metadata = |first: &str| format!("0{}", answered(&METADATA.replacen('{', &format!("{{{first},"), 1)));
    let aliases: String = (0..40_000).map(|number| format!("\"a{number}\":\"https://a\",")).collect();
    let keys = |key: &str| answered(&format!("{{\"keys\":[{}]}}", vec![key; 100].join(",")));
    let rsa = format!("{{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"{}f\"}}", "_w".repeat(682));
    let nested = format!("{}1", "{\"a\":".repeat(MEGABYTE / 5 - 1));
    vec![
        case("metadata with many members", discovery, metadata(&members(60_000))),
        case("metadata that nests", discovery, format!("0{}", answered(&nested))),
        case(
            "metadata with many algorithms",
            discovery,
            metadata(&format!("\"id_token_signing_alg_values_supported\":[{}\"ES256\"]", "\"RS256\",".repeat(100_000))),
        ),
        case(
            "metadata with many aliases",
            discovery,
            metadata(&format!("\"mtls_endpoint_aliases\":{{{aliases}\"z\":\"https://a\"}}")),
        ),
        case("a hundred keys on P-256", key_set, keys(&FIXED["signing_keys"]["keys"][0].to_string())),
        case("a hundred large RSA keys", key_set, keys(&rsa)),
        case(
            "UserInfo with many claims",
            userinfo,
            format!("0{}", answered(&format!("{{\"sub\":\"user-1\",{}}}", members(65_000)))),
        ),
        case(
            "an introspection with many members",
            introspection,
            answered(&format!("{{\"active\":true,{}}}", members(15_000))),
        ),
    ]
}

fn headers() -> Vec<Case> {
    let challenge = |value: String| format!("1401\nWWW-Authenticate: {value}\n\n");
    vec![
        case("a challenge of commas", response_headers, challenge(",".repeat(60_000))),
        case("a challenge of challenges", response_headers, challenge("DPoP a=b,".repeat(7_000))),
        case("a challenge of quotes", response_headers, challenge(format!("DPoP {}", "a=\"\\\"\",".repeat(7_000)))),
        case("a pause with many digits", response_headers, format!("0503\nRetry-After: {}\n\n", "9".repeat(60_000))),
    ]
}

fn tokens() -> Vec<Case> {
    let id = "\"deferred_auth_id\":\"a\"";
    let claims = r#""iss":"https://op.example","sub":"a","exp":1800000100,"iat":1800000000,"nonce":"pl4nt-nonce""#;
    let authentic = |more: String| format!("1{{\"alg\":\"HS256\"}}\n{{{claims},{more}}}");
    let description = "\u{200b}".repeat(300_000);
    vec![
        case(
            "an exchange with many members",
            exchange,
            format!("0{}", answered(&format!("{{{id},{}}}", members(60_000)))),
        ),
        case(
            "an exchange with a long array",
            exchange,
            format!("0{}", answered(&format!("{{{id},\"x\":[{}0]}}", "0,".repeat(500_000)))),
        ),
        case(
            "a long and hidden description",
            poll,
            format!("0400 application/json\n\n{{\"error\":\"slow_down\",\"error_description\":\"{description}\"}}"),
        ),
        case(
            "tokens with many members",
            poll,
            format!(
                "0{}",
                answered(&format!(
                    "{{\"access_token\":\"a\",\"token_type\":\"DPoP\",\"id_token\":\"%T\",{}}}",
                    members(60_000)
                ))
            ),
        ),
        case("a long token", id_token, format!("0eyJhbGciOiJFUzI1NiJ9.{}.YQ", "A".repeat(256 * 1024 - 40))),
        case("a token with many claims", id_token, authentic(format!("\"aud\":\"app\",{}", members(9_000)))),
        case(
            "a token for many",
            id_token,
            authentic(format!("\"azp\":\"app\",\"aud\":[{}\"app\"]", "\"other\",".repeat(18_000))),
        ),
        case("a long encrypted token", encrypted_token, format!("2\n{}", "a".repeat(200 * 1024))),
        case("an encrypted token of dots", encrypted_token, format!("0{}", ".".repeat(390_000))),
    ]
}
