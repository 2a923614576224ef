use openssl::bn::BigNum;
use openssl::rsa::Rsa;
use proptest::prelude::*;

use super::*;
use crate::jose::test_keys::{ASYMMETRIC, public_jwk, sign};

fn key(algorithm: SigningAlgorithm) -> VerificationKey {
    VerificationKey::from_jwk(&public_jwk(algorithm)).unwrap()
}

/// The key of an algorithm, without its `alg` and with a change.
fn changed(algorithm: SigningAlgorithm, change: impl FnOnce(&mut Map<String, Value>)) -> Option<VerificationKey> {
    let mut jwk = public_jwk(algorithm);
    jwk.remove("alg");
    change(&mut jwk);
    VerificationKey::from_jwk(&jwk).ok()
}

fn with(algorithm: SigningAlgorithm, name: &str, value: impl Into<Value>) -> Option<VerificationKey> {
    changed(algorithm, |jwk| {
        jwk.insert(name.to_owned(), value.into());
    })
}

fn rsa_jwk(bits: u32, exponent: u64) -> Map<String, Value> {
    let exponent = BigNum::from_dec_str(&exponent.to_string()).unwrap();
    let rsa = Rsa::generate_with_e(bits, &exponent).unwrap();
    let (n, e) = (URL_SAFE_NO_PAD.encode(rsa.n().to_vec()), URL_SAFE_NO_PAD.encode(rsa.e().to_vec()));
    Map::from_iter([("kty".into(), "RSA".into()), ("n".into(), n.into()), ("e".into(), e.into())])
}

#[test]
fn a_good_signature_of_every_algorithm_verifies() {
    for algorithm in ASYMMETRIC {
        assert!(key(algorithm).verify(algorithm, b"message", &sign(algorithm, b"message")), "{algorithm:?}");
    }
}

#[test]
fn a_changed_message_or_signature_of_any_algorithm_does_not_verify() {
    for algorithm in ASYMMETRIC {
        let (key, good) = (key(algorithm), sign(algorithm, b"message"));
        assert!(!key.verify(algorithm, b"massage", &good), "{algorithm:?}");
        for position in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(!key.verify(algorithm, b"message", &bad), "{algorithm:?} at {position}");
        }
    }
}

#[test]
fn a_signature_of_another_length_does_not_verify() {
    for algorithm in ASYMMETRIC {
        let (key, good) = (key(algorithm), sign(algorithm, b"message"));
        let (shorter, longer) = (&good[..good.len() - 1], [good.as_slice(), &[0]].concat());
        let prefixed = [&[0], good.as_slice()].concat();
        for bad in [&[], shorter, &longer, &prefixed] {
            assert!(!key.verify(algorithm, b"message", bad), "{algorithm:?}");
        }
    }
}

#[test]
fn an_ecdsa_signature_of_zeros_does_not_verify() {
    for algorithm in
        [SigningAlgorithm::Es256, SigningAlgorithm::Es384, SigningAlgorithm::Es512, SigningAlgorithm::Es256k]
    {
        let length = algorithm.signature_length().unwrap();
        assert!(!key(algorithm).verify(algorithm, b"message", &vec![0; length]), "{algorithm:?}");
        assert!(!key(algorithm).verify(algorithm, b"message", &vec![255; length]), "{algorithm:?}");
    }
}

#[test]
fn a_signature_verifies_under_no_other_algorithm_than_its_own() {
    let is_ed25519 = |algorithm| KeyKind::of(algorithm) == KeyKind::Ed25519;
    let pairs = ASYMMETRIC.into_iter().flat_map(|a| ASYMMETRIC.map(|b| (a, b)));
    for (signed, claimed) in pairs.filter(|&(a, b)| a != b && !(is_ed25519(a) && is_ed25519(b))) {
        let signature = sign(signed, b"message");
        let key = changed(signed, |_| ()).unwrap();
        assert!(!key.verify(claimed, b"message", &signature), "{signed:?} as {claimed:?}");
    }
}

#[test]
fn a_public_key_never_verifies_an_hmac() {
    for algorithm in ASYMMETRIC {
        let key = key(algorithm);
        for hs in [SigningAlgorithm::Hs256, SigningAlgorithm::Hs384, SigningAlgorithm::Hs512] {
            assert!(!key.supports(hs));
            let spellings = [Value::Object(public_jwk(algorithm)).to_string(), format!("{:?}", public_jwk(algorithm))];
            for secret in spellings {
                let forged = digest::hmac(hs.hash(), secret.as_bytes(), &[b"message"]).unwrap();
                assert!(!key.verify(hs, b"message", &forged), "{algorithm:?} {hs:?}");
            }
        }
    }
}

#[test]
fn a_secret_verifies_hmacs_and_nothing_else() {
    let key = VerificationKey::from_secret(b"a secret of thirty-two characters".to_vec());
    for hs in [SigningAlgorithm::Hs256, SigningAlgorithm::Hs384, SigningAlgorithm::Hs512] {
        let good = digest::hmac(hs.hash(), b"a secret of thirty-two characters", &[b"message"]).unwrap();
        assert!(key.verify(hs, b"message", &good));
        let mut bad = good.clone();
        bad[0] ^= 1;
        assert!(!key.verify(hs, b"message", &bad));
        assert!(!key.verify(hs, b"message", &good[1..]));
        assert!(!key.verify(hs, b"message", b""));
    }
    for algorithm in ASYMMETRIC {
        assert!(!key.supports(algorithm));
        assert!(!key.verify(algorithm, b"message", &sign(algorithm, b"message")));
        let hmac = digest::hmac(algorithm.hash(), b"a secret of thirty-two characters", &[b"message"]).unwrap();
        assert!(!key.verify(algorithm, b"message", &hmac), "an HMAC taken for {algorithm:?}");
    }
    assert!(key.to_jwk().is_none());
    assert!(!format!("{key:?}").contains("thirty"));
}

#[test]
fn a_symmetric_jwk_is_left_out() {
    let jwk = Map::from_iter([("kty".into(), "oct".into()), ("k".into(), "c2VjcmV0".into())]);
    assert!(VerificationKey::from_jwk(&jwk).is_err());
}

#[test]
fn keys_for_other_purposes_are_left_out() {
    for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa] {
        assert!(with(algorithm, "use", "enc").is_none());
        assert!(with(algorithm, "use", 1).is_none());
        assert!(with(algorithm, "key_ops", json!(["encrypt"])).is_none());
        assert!(with(algorithm, "key_ops", json!(["sign"])).is_none());
        assert!(with(algorithm, "key_ops", "verify").is_none());
        assert!(with(algorithm, "use", "sig").is_some());
        assert!(with(algorithm, "key_ops", json!(["sign", "verify", 5])).is_some());
    }
}

#[test]
fn a_key_is_used_only_with_the_algorithm_that_it_names() {
    let pinned = with(SigningAlgorithm::Rs256, "alg", "PS256").unwrap();
    assert!(pinned.supports(SigningAlgorithm::Ps256));
    assert!(!pinned.supports(SigningAlgorithm::Rs256));
    for name in ["ES256", "RSA-OAEP", "HS256", "none"] {
        assert!(with(SigningAlgorithm::Rs256, "alg", name).is_none(), "{name}");
    }
    assert!(with(SigningAlgorithm::Es256, "alg", "ES384").is_none());
    assert!(with(SigningAlgorithm::Es256, "alg", "ECDH-ES").is_none());
    assert!(with(SigningAlgorithm::Es256, "alg", 7).is_none());
}

#[test]
fn an_ed25519_key_verifies_under_both_names_whichever_it_is_published_with() {
    use SigningAlgorithm as A;
    let signature = sign(A::EdDsa, b"message");
    for name in [None, Some("EdDSA"), Some("Ed25519")] {
        let key = changed(A::EdDsa, |jwk| jwk.extend(name.map(|name| ("alg".to_owned(), name.into())))).unwrap();
        for algorithm in [A::EdDsa, A::Ed25519] {
            assert!(key.verify(algorithm, b"message", &signature), "{name:?} {algorithm:?}");
        }
    }
    assert!(with(A::EdDsa, "alg", "Ed448").is_none());
}

#[test]
fn a_good_signature_verifies_after_bad_ones_and_concurrently() {
    for algorithm in ASYMMETRIC {
        let (key, good) = (&key(algorithm), &sign(algorithm, b"message"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    for _ in 0..4 {
                        assert!(key.verify(algorithm, b"message", good), "{algorithm:?}");
                        assert!(!key.verify(algorithm, b"massage", good), "{algorithm:?}");
                        assert!(!key.verify(algorithm, b"message", &vec![1; good.len()]), "{algorithm:?}");
                    }
                });
            }
        });
    }
}

#[test]
fn an_ed25519_key_of_small_order_is_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut of_order_8 = [0; 32];
    of_order_8.copy_from_slice(&URL_SAFE_NO_PAD.decode("JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU").unwrap());
    // Zero is of order four.
    for point in [[0; 32], one, minus_one, of_order_8] {
        assert!(with(SigningAlgorithm::EdDsa, "x", URL_SAFE_NO_PAD.encode(point)).is_none());
    }
}

#[test]
fn a_key_is_used_only_on_its_curve() {
    use SigningAlgorithm as A;
    let curves = [(A::Es256, "P-256"), (A::Es384, "P-384"), (A::Es512, "P-521"), (A::Es256k, "secp256k1")];
    for (algorithm, curve) in curves {
        for (other, other_curve) in curves.into_iter().filter(|(other, _)| *other != algorithm) {
            assert!(!key(algorithm).supports(other));
            assert!(with(algorithm, "crv", other_curve).is_none(), "{curve} as {other_curve}");
        }
    }
}

#[test]
fn unknown_kinds_and_curves_are_left_out() {
    assert!(with(SigningAlgorithm::Es256, "kty", "AKP").is_none());
    assert!(with(SigningAlgorithm::Es256, "kty", 5).is_none());
    assert!(with(SigningAlgorithm::Es256, "kty", "ec").is_none());
    assert!(with(SigningAlgorithm::Es256, "crv", "P-224").is_none());
    assert!(with(SigningAlgorithm::EdDsa, "crv", "X25519").is_none());
    assert!(with(SigningAlgorithm::EdDsa, "crv", "Ed448").is_none());
    assert!(with(SigningAlgorithm::Es256, "kid", 5).is_none());
    assert!(VerificationKey::from_jwk(&Map::new()).is_err());
}

#[test]
fn coordinates_must_fit_their_curve_and_lie_on_it() {
    let long = URL_SAFE_NO_PAD.encode([1; 33]);
    let huge = "A".repeat(1_000_000);
    let off_curve = URL_SAFE_NO_PAD.encode([1; 32]);
    let short = URL_SAFE_NO_PAD.encode([1; 31]);
    for bad in ["", "AA", "not base64!", &short, &long, &huge, &off_curve] {
        assert!(with(SigningAlgorithm::Es256, "x", bad).is_none(), "{}", bad.len());
        assert!(with(SigningAlgorithm::Es256, "y", bad).is_none(), "{}", bad.len());
    }
    for bad in ["", "AA", &short, &long, &huge] {
        assert!(with(SigningAlgorithm::EdDsa, "x", bad).is_none(), "{}", bad.len());
    }
    assert!(with(SigningAlgorithm::Es256, "x", 5).is_none());
    assert!(changed(SigningAlgorithm::Es256, |jwk| drop(jwk.remove("y"))).is_none());
}

#[test]
fn a_key_in_another_encoding_is_the_same_key() {
    for algorithm in ASYMMETRIC {
        let signature = sign(algorithm, b"message");
        let spellings: [fn(&[u8]) -> String; 4] = [
            |octets| base64::engine::general_purpose::URL_SAFE.encode(octets),
            |octets| base64::engine::general_purpose::STANDARD.encode(octets),
            |octets| URL_SAFE_NO_PAD.encode([&[0], octets].concat()),
            |octets| URL_SAFE_NO_PAD.encode(octets.strip_prefix(&[0]).unwrap_or(octets)),
        ];
        for (number, spell) in spellings.into_iter().enumerate() {
            let respelled = changed(algorithm, |jwk| {
                for (_, value) in jwk.iter_mut().filter(|(name, _)| ["n", "e", "x", "y"].contains(&name.as_str())) {
                    *value = spell(&URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()).into();
                }
            });
            // A key of RFC 8037 is a string of bytes, so a leading zero would change it.
            let is_number = KeyKind::of(algorithm) != KeyKind::Ed25519;
            match respelled {
                Some(key) => {
                    assert!(key.verify(algorithm, b"message", &signature), "{algorithm:?} in spelling {number}");
                    let canonical = changed(algorithm, |_| ()).unwrap();
                    assert_eq!(key.to_jwk(), canonical.to_jwk(), "{algorithm:?} in spelling {number}");
                }
                None => assert!(!is_number && number == 2, "{algorithm:?} in spelling {number}"),
            }
        }
    }
}

#[test]
fn a_coordinate_that_lost_its_leading_zero_is_the_same_number() {
    // One in 128 keys has a leading zero in one of its coordinates.
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let (x, y) = std::iter::repeat_with(|| {
        let key = openssl::ec::EcKey::generate(&group).unwrap();
        let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
        let mut context = openssl::bn::BigNumContext::new().unwrap();
        key.public_key().affine_coordinates(&group, &mut x, &mut y, &mut context).unwrap();
        (x.to_vec(), y.to_vec())
    })
    .find(|(x, y)| x.len() < 32 || y.len() < 32)
    .unwrap();
    let jwk = |x: &[u8], y: &[u8]| {
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)
        });
        VerificationKey::from_jwk(jwk.as_object().unwrap()).unwrap().to_jwk()
    };
    let full = |number: &[u8]| [vec![0; 32 - number.len()], number.to_vec()].concat();
    assert_eq!(jwk(&x, &y), jwk(&full(&x), &full(&y)));
}

#[test]
fn null_and_empty_members_of_a_key_count_as_absent() {
    for algorithm in [SigningAlgorithm::Rs256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa] {
        let name_and_value = ["use", "alg", "key_ops", "kid", "x5c"]
            .into_iter()
            .flat_map(|name| [json!(null), json!(""), json!([])].into_iter().map(move |value| (name, value)));
        for (name, value) in name_and_value {
            let fits = match name {
                "key_ops" => !value.is_string(),
                "x5c" => true,
                _ => !value.is_array(),
            };
            assert_eq!(with(algorithm, name, value.clone()).is_some(), fits, "{name}: {value}");
        }
    }
}

#[test]
fn an_rsa_modulus_has_2048_to_8192_bits() {
    assert!(VerificationKey::from_jwk(&rsa_jwk(1024, 65_537)).is_err());
    assert!(VerificationKey::from_jwk(&rsa_jwk(2047, 65_537)).is_err());
    assert!(VerificationKey::from_jwk(&rsa_jwk(2048, 65_537)).is_ok());
    // Generating keys of such sizes takes seconds. An odd number of the right size is enough here.
    let modulus = |bytes: usize| {
        let mut modulus = vec![0xff; bytes];
        modulus[0] = 0x80;
        URL_SAFE_NO_PAD.encode(modulus)
    };
    assert!(with(SigningAlgorithm::Rs256, "n", modulus(1024)).is_some());
    assert!(with(SigningAlgorithm::Rs256, "n", modulus(1025)).is_none());
    assert!(with(SigningAlgorithm::Rs256, "n", "A".repeat(1_000_000)).is_none());
}

#[test]
fn an_even_or_malformed_rsa_modulus_is_refused() {
    let mut even = vec![0xff; 256];
    even[255] = 0xfe;
    assert!(with(SigningAlgorithm::Rs256, "n", URL_SAFE_NO_PAD.encode(even)).is_none());
    for bad in ["", "AA", "AAAA", "%%%%"] {
        assert!(with(SigningAlgorithm::Rs256, "n", bad).is_none());
    }
}

#[test]
fn an_rsa_exponent_is_odd_above_two_and_at_most_33_bits() {
    let exponent = |value: u64| URL_SAFE_NO_PAD.encode(BigNum::from_dec_str(&value.to_string()).unwrap().to_vec());
    for good in [3, 17, 65_537, (1 << 33) - 1] {
        assert!(with(SigningAlgorithm::Rs256, "e", exponent(good)).is_some(), "{good}");
    }
    for bad in [0, 1, 2, 4, 65_536, (1 << 33) + 1, u64::MAX] {
        assert!(with(SigningAlgorithm::Rs256, "e", exponent(bad)).is_none(), "{bad}");
    }
    assert!(with(SigningAlgorithm::Rs256, "e", "A".repeat(100)).is_none());
}

#[test]
fn an_rsa_exponent_of_nine_bytes_is_not_taken_for_its_last_eight() {
    let exponent = [&[1], 65_537_u64.to_be_bytes().as_slice()].concat();
    assert!(with(SigningAlgorithm::Rs256, "e", URL_SAFE_NO_PAD.encode(exponent)).is_none());
}

#[test]
fn leading_zeros_of_an_rsa_modulus_are_dropped() {
    let jwk = public_jwk(SigningAlgorithm::Rs256);
    let mut modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    modulus.insert(0, 0);
    let key = with(SigningAlgorithm::Rs256, "n", URL_SAFE_NO_PAD.encode(modulus)).unwrap();
    assert!(key.verify(SigningAlgorithm::Rs256, b"message", &sign(SigningAlgorithm::Rs256, b"message")));
}

#[test]
fn published_private_parts_are_ignored() {
    let key = with(SigningAlgorithm::Es256, "d", json!({"not": "a string"})).unwrap();
    assert!(!key.to_jwk().unwrap().contains_key("d"));
    assert!(key.verify(SigningAlgorithm::Es256, b"message", &sign(SigningAlgorithm::Es256, b"message")));
}

#[test]
fn debug_output_is_short_and_has_no_key() {
    let key = with(SigningAlgorithm::Es256, "kid", "k1").unwrap();
    assert_eq!(format!("{key:?}"), r#"VerificationKey { kid: Some("k1"), kind: P256, .. }"#);
}

proptest! {
    #[test]
    fn arbitrary_signatures_never_panic_and_never_verify(signature in proptest::collection::vec(any::<u8>(), 0..300)) {
        for algorithm in ASYMMETRIC {
            prop_assert!(!key(algorithm).verify(algorithm, b"message", &signature));
        }
    }

    #[test]
    fn arbitrary_signatures_of_the_right_length_never_panic_and_never_verify(seed: u64) {
        for algorithm in ASYMMETRIC {
            let length = algorithm.signature_length().unwrap_or(256);
            let signature: Vec<u8> = (0..length).map(|i| seed.rotate_left(i as u32).to_le_bytes()[i % 8]).collect();
            prop_assert!(!key(algorithm).verify(algorithm, b"message", &signature));
        }
    }
}

/// The tests above sign with josekit. This one uses a library that shares no code with it.
#[cfg(feature = "testing")]
#[test]
fn signatures_of_an_independent_library_verify() {
    use jsonwebtoken::crypto::sign as independent;
    use jsonwebtoken::{Algorithm, EncodingKey};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::pkey::PKey;

    use crate::jose::SigningKey;

    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let curve = |curve| PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap();
    let (p256, p384) = (curve(Nid::X9_62_PRIME256V1), curve(Nid::SECP384R1));
    let ed25519 = PKey::generate_ed25519().unwrap();
    let cases = [
        (SigningAlgorithm::Rs256, Algorithm::RS256, &rsa),
        (SigningAlgorithm::Rs384, Algorithm::RS384, &rsa),
        (SigningAlgorithm::Rs512, Algorithm::RS512, &rsa),
        (SigningAlgorithm::Ps256, Algorithm::PS256, &rsa),
        (SigningAlgorithm::Ps384, Algorithm::PS384, &rsa),
        (SigningAlgorithm::Ps512, Algorithm::PS512, &rsa),
        (SigningAlgorithm::Es256, Algorithm::ES256, &p256),
        (SigningAlgorithm::Es384, Algorithm::ES384, &p384),
        (SigningAlgorithm::EdDsa, Algorithm::EdDSA, &ed25519),
    ];
    for (ours, theirs, private) in cases {
        let pem = private.private_key_to_pem_pkcs8().unwrap();
        let encoding_key = match ours {
            SigningAlgorithm::Es256 | SigningAlgorithm::Es384 => EncodingKey::from_ec_pem(&pem),
            SigningAlgorithm::EdDsa => EncodingKey::from_ed_pem(&pem),
            _ => EncodingKey::from_rsa_pem(&pem),
        };
        let signature = independent(b"message", &encoding_key.unwrap(), theirs).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let pem = String::from_utf8(pem).unwrap();
        let jwk = SigningKey::from_pem(ours, &pem, None).unwrap().public_jwk();
        assert!(VerificationKey::from_jwk(&jwk).unwrap().verify(ours, b"message", &signature), "{ours:?}");
    }
}
