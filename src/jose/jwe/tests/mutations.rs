//! Thousands of damaged tokens. None causes a panic, and none is accepted.

use super::*;

/// The number of attempts for each of the 72 combinations of key and content encryption. The environment can set it:
/// `JWE_MUTATIONS=10000 cargo test --all-features --lib jwe::tests::mutations` takes minutes.
fn per_combination() -> usize {
    std::env::var("JWE_MUTATIONS").map_or(300, |count| count.parse().unwrap())
}

/// A generator with the same numbers in each run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

#[test]
fn every_mutation_of_a_token_is_refused_without_a_panic() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let keys = keys();
    let mut tried = 0;
    for key in &keys {
        for enc in ContentEncryptionAlgorithm::ALL {
            let token = encrypted(key, enc, json!({ "kid": key.key_id(), "apu": "QQ" }));
            let other = encrypted(key, enc, json!({ "apv": "QQ" }));
            assert!(decrypted(&token, &keys).is_ok());
            for _ in 0..per_combination() {
                let damaged = damage(&token, &other, &mut dice);
                if damaged != token && damaged != other {
                    assert!(decrypted(&damaged, &keys).is_err(), "{key:?} {enc:?}: {damaged}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried >= 18_000 || per_combination() < 300, "only {tried} were different from the genuine ones");
}

fn damage(token: &str, other: &str, dice: &mut Dice) -> String {
    let segment = dice.below(5);
    match dice.below(9) {
        // One character of the text.
        0 => {
            let mut text: Vec<_> = token.chars().collect();
            let at = dice.below(text.len());
            text[at] = ['.', 'A', '_', '=', '~', '\0', 'é'][dice.below(7)];
            text.into_iter().collect()
        }
        // One bit of a segment.
        1 => with_segment(token, segment, |octets| {
            let at = dice.below(octets.len());
            if let Some(octet) = octets.get_mut(at) {
                *octet ^= 1 << dice.below(8);
            }
        }),
        // A shortened, extended or emptied segment.
        2 => with_segment(token, segment, |octets| octets.truncate(dice.below(octets.len()))),
        3 => with_segment(token, segment, |octets| octets.resize(octets.len() + 1 + dice.below(40), 0)),
        4 => with_segment(token, segment, Vec::clear),
        // A segment of another token for the same key.
        5 => {
            let foreign = URL_SAFE_NO_PAD.decode(other.split('.').nth(segment).unwrap()).unwrap();
            with_segment(token, segment, |octets| *octets = foreign)
        }
        // Two swapped segments, or one omitted.
        6 => {
            let mut segments: Vec<_> = token.split('.').collect();
            segments.swap(segment, dice.below(5));
            segments.join(".")
        }
        7 => {
            let mut segments: Vec<_> = token.split('.').collect();
            segments.remove(segment);
            segments.join(".")
        }
        // A header with another value or without one.
        _ => with_header(token, |header| {
            let name = dice.pick(&["alg", "enc", "epk", "kid", "apu", "apv", "cty", "zip", "crit", "p2c", "iv", "tag"]);
            let value = [
                json!("RSA1_5"),
                json!("dir"),
                json!("ECDH-ES"),
                json!("ECDH-ES+A128KW"),
                json!("ECDH-ES+A256KW"),
                json!("RSA-OAEP"),
                json!("A128GCM"),
                json!("A128CBC-HS256"),
                json!("A256CBC-HS512"),
                json!("DEF"),
                json!(""),
                json!(["exp"]),
                json!(i64::MAX),
                json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }),
                json!({ "kty": "OKP", "crv": "X25519", "x": URL_SAFE_NO_PAD.encode([0; 32]) }),
                json!({ "kid": 5 }),
                Value::Null,
            ];
            match dice.below(value.len() + 1) {
                number if number < value.len() => drop(header.insert(name.to_owned(), value[number].clone())),
                _ => drop(header.shift_remove(name)),
            }
        }),
    }
}
