use josekit::jwe::alg::ecdh_es::EcdhEsJweAlgorithm;
use josekit::jwe::alg::rsaes::RsaesJweAlgorithm;
use josekit::jwe::{JweEncrypter, JweHeader};
use josekit::jwk::Jwk;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::ephemeral_key::Curve;
use super::*;

mod mutations;
mod vectors;

const PLAINTEXT: &[u8] = b"eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmF0dXJl";

/// One key for each algorithm and kind of key.
fn keys() -> Vec<DecryptionKey> {
    let mut keys: Vec<_> =
        KeyManagementAlgorithm::ALL.iter().map(|&algorithm| DecryptionKey::generate(algorithm).unwrap()).collect();
    for curve in [Curve::P384, Curve::P521, Curve::X25519] {
        keys.push(key_on(curve, KeyManagementAlgorithm::EcdhEs));
        keys.push(key_on(curve, KeyManagementAlgorithm::EcdhEsA256Kw));
    }
    keys
}

fn key_on(curve: Curve, algorithm: KeyManagementAlgorithm) -> DecryptionKey {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    let on = |nid| PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(nid).unwrap()).unwrap()).unwrap();
    let key = match curve {
        Curve::P256 => on(Nid::X9_62_PRIME256V1),
        Curve::P384 => on(Nid::SECP384R1),
        Curve::P521 => on(Nid::SECP521R1),
        Curve::X25519 => PKey::generate_x25519().unwrap(),
    };
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    DecryptionKey::from_pem(algorithm, &pem, None).unwrap()
}

fn encrypter(key: &DecryptionKey) -> Box<dyn JweEncrypter> {
    use KeyManagementAlgorithm as A;
    let mut members = key.public_jwk();
    // josekit would name the key in every token.
    members.shift_remove("kid");
    let jwk = &Jwk::from_map(members).unwrap();
    let rsa = |algorithm: RsaesJweAlgorithm| Box::new(algorithm.encrypter_from_jwk(jwk).unwrap());
    let ecdh = |algorithm: EcdhEsJweAlgorithm| Box::new(algorithm.encrypter_from_jwk(jwk).unwrap());
    match key.algorithm() {
        A::RsaOaep => rsa(RsaesJweAlgorithm::RsaOaep),
        A::RsaOaep256 => rsa(RsaesJweAlgorithm::RsaOaep256),
        A::EcdhEs => ecdh(EcdhEsJweAlgorithm::EcdhEs),
        A::EcdhEsA128Kw => ecdh(EcdhEsJweAlgorithm::EcdhEsA128kw),
        A::EcdhEsA192Kw => ecdh(EcdhEsJweAlgorithm::EcdhEsA192kw),
        A::EcdhEsA256Kw => ecdh(EcdhEsJweAlgorithm::EcdhEsA256kw),
    }
}

/// Encrypts a token with josekit, which this module does not use to decrypt.
fn encrypted(key: &DecryptionKey, enc: ContentEncryptionAlgorithm, more: Value) -> String {
    let mut header = JweHeader::new();
    header.set_content_encryption(enc.as_str());
    for (name, value) in more.as_object().unwrap() {
        header.set_claim(name, Some(value.clone())).unwrap();
    }
    josekit::jwe::serialize_compact(PLAINTEXT, &header, &*encrypter(key)).unwrap()
}

fn decrypted(token: &str, keys: &[DecryptionKey]) -> Result<Vec<u8>, Undecryptable> {
    CompactJwe::parse(token)?.decrypt(keys).map(|plaintext| plaintext.to_vec())
}

/// The token with another header. The result cannot be decrypted any more.
fn with_header(token: &str, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let (header, rest) = token.split_once('.').unwrap();
    let mut members = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    edit(&mut members);
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(Value::Object(members).to_string()))
}

/// The token with one changed segment, counted from 0.
fn with_segment(token: &str, number: usize, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut segments: Vec<_> = token.split('.').map(str::to_owned).collect();
    let mut octets = URL_SAFE_NO_PAD.decode(&segments[number]).unwrap();
    edit(&mut octets);
    segments[number] = URL_SAFE_NO_PAD.encode(octets);
    segments.join(".")
}

#[test]
fn tokens_of_another_implementation_are_decrypted_with_every_combination() {
    for key in keys() {
        for enc in ContentEncryptionAlgorithm::ALL {
            let token = encrypted(&key, enc, json!({}));
            let jwe = CompactJwe::parse(&token).unwrap();
            assert_eq!((jwe.algorithm(), jwe.content_encryption()), (key.algorithm(), enc));
            assert_eq!(decrypted(&token, std::slice::from_ref(&key)).unwrap(), PLAINTEXT, "{key:?} {enc:?}");
        }
    }
}

#[test]
fn apu_and_apv_are_used_in_the_key_derivation() {
    let key = key_on(Curve::P256, KeyManagementAlgorithm::EcdhEs);
    let named = json!({ "apu": "QWxpY2U", "apv": "Qm9i" });
    let token = encrypted(&key, ContentEncryptionAlgorithm::A128Gcm, named);
    assert_eq!(decrypted(&token, &[key]).unwrap(), PLAINTEXT);
}

#[test]
fn the_kid_of_a_token_selects_the_key() {
    let algorithm = KeyManagementAlgorithm::EcdhEsA128Kw;
    let [ours, other] = [(); 2].map(|()| DecryptionKey::generate(algorithm).unwrap());
    let enc = ContentEncryptionAlgorithm::A128Gcm;
    let token = encrypted(&ours, enc, json!({ "kid": ours.key_id() }));
    assert_eq!(decrypted(&token, &[other.clone(), ours.clone()]).unwrap(), PLAINTEXT);
    assert_eq!(decrypted(&token, std::slice::from_ref(&other)), Err(Undecryptable::NoKey));
    assert_eq!(decrypted(&token, &[]), Err(Undecryptable::NoKey));
    // A `kid` proves nothing.
    let misnamed = encrypted(&other, enc, json!({ "kid": ours.key_id() }));
    assert_eq!(decrypted(&misnamed, &[other, ours]), Err(Undecryptable::Failed));
}

#[test]
fn without_a_kid_every_key_for_the_algorithm_is_tried() {
    let rsa = DecryptionKey::generate(KeyManagementAlgorithm::RsaOaep256).unwrap();
    let p384 = key_on(Curve::P384, KeyManagementAlgorithm::EcdhEs);
    let [old, new] = [(); 2].map(|()| DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap());
    let token = encrypted(&old, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    let with_old = [rsa.clone(), p384.clone(), new.clone(), old];
    assert_eq!(decrypted(&token, &with_old).unwrap(), PLAINTEXT);
    assert_eq!(decrypted(&token, &[rsa.clone(), p384, new]), Err(Undecryptable::Failed));
    assert_eq!(decrypted(&token, &[rsa]), Err(Undecryptable::NoKey));
}

#[test]
fn a_decryption_key_is_used_with_one_algorithm() {
    let pem = {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    };
    let of = |algorithm| DecryptionKey::from_pem(algorithm, &pem, None).unwrap();
    let (older, newer) = (of(KeyManagementAlgorithm::RsaOaep), of(KeyManagementAlgorithm::RsaOaep256));
    let token = encrypted(&older, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    assert_eq!(decrypted(&token, &[newer]), Err(Undecryptable::NoKey));
}

#[test]
fn unsupported_algorithms_are_refused() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::RsaOaep256).unwrap();
    let token = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    for alg in ["RSA1_5", "dir", "A256KW", "A256GCMKW", "PBES2-HS256+A128KW", "none", "", "rsa-oaep-256"] {
        let token = with_header(&token, |header| drop(header.insert("alg".into(), alg.into())));
        assert_eq!(decrypted(&token, std::slice::from_ref(&key)), Err(Undecryptable::Header), "{alg:?}");
    }
    for enc in ["none", "A128CBC", "A256CBC-HS256", "XC20P", ""] {
        let token = with_header(&token, |header| drop(header.insert("enc".into(), enc.into())));
        assert_eq!(decrypted(&token, std::slice::from_ref(&key)), Err(Undecryptable::Header), "{enc:?}");
    }
    for name in ["alg", "enc"] {
        for value in [Value::Null, json!(1), json!(["RSA-OAEP-256"])] {
            let token = with_header(&token, |header| drop(header.insert(name.into(), value)));
            assert_eq!(decrypted(&token, std::slice::from_ref(&key)), Err(Undecryptable::Header), "{name}");
        }
        let token = with_header(&token, |header| drop(header.shift_remove(name)));
        assert_eq!(decrypted(&token, std::slice::from_ref(&key)), Err(Undecryptable::Header), "{name}");
    }
}

#[test]
fn critical_and_compression_parameters_are_refused_even_if_authentic() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let enc = ContentEncryptionAlgorithm::A256Gcm;
    for (name, value) in
        [("zip", json!("DEF")), ("crit", json!(["exp"])), ("p2c", json!(1_000_000_000)), ("p2s", json!("AAAAAAAA"))]
    {
        // josekit would process `zip` and refuse `crit`.
        let token = with_header(&encrypted(&key, enc, json!({})), |header| drop(header.insert(name.into(), value)));
        assert_eq!(decrypted(&token, std::slice::from_ref(&key)), Err(Undecryptable::Header), "{name}");
    }
    let compressed = encrypted(&key, enc, json!({ "zip": "DEF" }));
    assert_eq!(decrypted(&compressed, std::slice::from_ref(&key)), Err(Undecryptable::Header));
}

#[test]
fn the_type_of_the_content_is_read_in_all_its_forms() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    for (header, read) in [
        (json!({}), None),
        (json!({ "cty": "JWT" }), Some("jwt")),
        (json!({ "cty": "application/jwt" }), Some("jwt")),
        (json!({ "cty": "json; charset=utf-8" }), Some("json")),
        (json!({ "cty": "" }), None),
    ] {
        let token = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, header);
        assert_eq!(CompactJwe::parse(&token).unwrap().content_type().as_deref(), read);
    }
    let token = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    let token = with_header(&token, |header| drop(header.insert("cty".into(), json!(["JWT"]))));
    assert_eq!(decrypted(&token, &[key]), Err(Undecryptable::Header));
}

#[test]
fn an_ephemeral_key_must_be_a_point_of_the_curve_of_the_key() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let token = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    let with = |epk: Value| with_header(&token, |header| drop(header.insert("epk".into(), epk)));
    let good = key.public_jwk();
    let edited = |name: &str, value: Value| {
        let mut epk = good.clone();
        epk.insert(name.to_owned(), value);
        with(Value::Object(epk))
    };
    let zeros = |length| URL_SAFE_NO_PAD.encode(vec![0; length]);
    for epk in [
        with(Value::Null),
        with(json!({})),
        with(json!([])),
        with(json!("P-256")),
        edited("kty", json!("RSA")),
        edited("kty", json!(5)),
        edited("crv", json!("secp256k1")),
        edited("crv", json!("X25519")),
        edited("x", Value::Null),
        edited("y", json!("")),
        edited("x", json!(zeros(41))),
        edited("x", json!(URL_SAFE_NO_PAD.encode([1; 33]))),
        edited("y", json!("+/=+")),
    ] {
        assert_eq!(decrypted(&epk, std::slice::from_ref(&key)), Err(Undecryptable::Header));
    }
    assert_eq!(decrypted(&edited("crv", json!("P-384")), std::slice::from_ref(&key)), Err(Undecryptable::Failed));
    for x in [zeros(31), zeros(32), zeros(33), URL_SAFE_NO_PAD.encode([0xff; 32])] {
        assert_eq!(decrypted(&edited("x", json!(x)), std::slice::from_ref(&key)), Err(Undecryptable::Failed));
    }
    let elsewhere = key_on(Curve::P521, KeyManagementAlgorithm::EcdhEs).public_jwk();
    assert_eq!(decrypted(&with(Value::Object(elsewhere)), &[key]), Err(Undecryptable::Failed));
}

#[test]
fn an_ephemeral_key_of_low_order_is_refused() {
    let key = key_on(Curve::X25519, KeyManagementAlgorithm::EcdhEs);
    let token = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    let mut one = [0; 32];
    one[0] = 1;
    for point in [[0; 32], one] {
        let epk = json!({ "kty": "OKP", "crv": "X25519", "x": URL_SAFE_NO_PAD.encode(point) });
        let token = with_header(&token, |header| drop(header.insert("epk".into(), epk)));
        let jwe = CompactJwe::parse(&token).unwrap();
        assert!(key.content_key(&jwe.header, &[]).is_none());
    }
}

#[test]
fn segments_of_a_wrong_length_are_refused() {
    for key in keys() {
        for enc in ContentEncryptionAlgorithm::ALL {
            let token = encrypted(&key, enc, json!({}));
            for number in 1..=4 {
                let length = URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap().len();
                for other in (0..length).chain([length + 1, length + 8, length + 16]) {
                    let cut = with_segment(&token, number, |octets| octets.resize(other, 0));
                    let refusal = decrypted(&cut, std::slice::from_ref(&key)).unwrap_err();
                    assert_eq!(refusal, Undecryptable::Failed, "{key:?} {enc:?}: segment {number} of {other} bytes");
                }
            }
        }
    }
}

#[test]
fn the_padding_of_cbc_is_checked_only_after_the_mac() {
    // Any change of the last blocks results in the same error.
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let token = encrypted(&key, ContentEncryptionAlgorithm::A128CbcHs256, json!({}));
    for byte in 0..=255 {
        let forged = with_segment(&token, 3, |octets| {
            let second_last = octets.len() - 17;
            octets[second_last] ^= byte;
        });
        let expected = if byte == 0 { Ok(PLAINTEXT.to_vec()) } else { Err(Undecryptable::Failed) };
        assert_eq!(decrypted(&forged, std::slice::from_ref(&key)), expected, "{byte}");
    }
}

#[test]
fn a_wrong_rsa_encrypted_key_and_a_wrong_tag_give_the_same_error() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::RsaOaep256).unwrap();
    // A well-formed encrypted key of the wrong length: 16 bytes for A256GCM, from a token with A128GCM.
    let short = encrypted(&key, ContentEncryptionAlgorithm::A128Gcm, json!({}));
    let long = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    let wrapped = URL_SAFE_NO_PAD.decode(short.split('.').nth(1).unwrap()).unwrap();
    let mixed = with_segment(&long, 1, |octets| *octets = wrapped);
    let jwe = CompactJwe::parse(&mixed).unwrap();
    let substitute = key.content_key(&jwe.header, &jwe.encrypted_key).unwrap();
    assert_eq!(substitute.len(), 32);
    assert_ne!(substitute, key.content_key(&jwe.header, &jwe.encrypted_key).unwrap(), "it is random");
    assert_eq!(decrypted(&mixed, &[key]), Err(Undecryptable::Failed));
}

#[test]
fn a_header_parameter_that_contradicts_itself_is_named() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let token = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    let (header, rest) = token.split_once('.').unwrap();
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let with = |repeated: &str| {
        let header = format!("{{{repeated},{}", &header[1..]);
        decrypted(&format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header)), std::slice::from_ref(&key))
    };
    assert_eq!(with(r#""alg":"RSA-OAEP""#), Err(Undecryptable::Repeated("alg")));
    assert_eq!(with(r#""alg":"ECDH-ES""#), Err(Undecryptable::Failed), "the header is authenticated as it came");
    assert_eq!(with(r#""kid":"1","kid":null"#), Err(Undecryptable::Repeated("kid")));
}

#[test]
fn a_malformed_compact_jwe_is_refused() {
    let key = DecryptionKey::generate(KeyManagementAlgorithm::EcdhEs).unwrap();
    let token = encrypted(&key, ContentEncryptionAlgorithm::A256Gcm, json!({}));
    let segments: Vec<_> = token.split('.').collect();
    let huge = format!("{}.{}", "A".repeat(LENGTH_LIMIT), token);
    for text in [
        String::new(),
        "....".to_owned(),
        "a.b.c".to_owned(),
        token.replace('.', ""),
        format!("{token}."),
        format!("{token}="),
        format!("{token} "),
        token.replacen('.', "=.", 1),
        segments[..4].join("."),
        format!("{}.{}", URL_SAFE_NO_PAD.encode("[]"), segments[1..].join(".")),
        format!("{}.{}", URL_SAFE_NO_PAD.encode("{"), segments[1..].join(".")),
        huge,
    ] {
        assert_eq!(decrypted(&text, std::slice::from_ref(&key)), Err(Undecryptable::Malformed), "{text:.80}");
    }
}

#[test]
fn a_decryption_key_is_restored_from_its_jwk_and_pem() {
    let jwk = json!({
        "kty": "OKP", "crv": "X25519", "alg": "ECDH-ES+A128KW", "use": "enc", "kid": "x",
        // RFC 7748 §6.1, Alice.
        "d": "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo",
    });
    let key = DecryptionKey::from_jwk(&jwk.to_string()).unwrap();
    assert_eq!((key.algorithm(), key.key_id()), (KeyManagementAlgorithm::EcdhEsA128Kw, "x"));
    assert_eq!(key.public_jwk()["x"], jwk["x"]);
    assert!(!key.public_jwk().contains_key("d"));
    let token = encrypted(&key, ContentEncryptionAlgorithm::A128Gcm, json!({}));
    assert_eq!(decrypted(&token, &[key]).unwrap(), PLAINTEXT);

    let rsa = Rsa::generate(2048).unwrap();
    for pem in
        [PKey::from_rsa(rsa.clone()).unwrap().private_key_to_pem_pkcs8().unwrap(), rsa.private_key_to_pem().unwrap()]
    {
        let pem = String::from_utf8(pem).unwrap();
        let key = DecryptionKey::from_pem(KeyManagementAlgorithm::RsaOaep, &pem, Some("r".into())).unwrap();
        assert_eq!(key.key_id(), "r");
        let shown = format!("{key:?}");
        assert_eq!(shown, r#"DecryptionKey { algorithm: RsaOaep, key_id: "r", .. }"#);
    }
}

#[test]
fn the_kid_of_a_key_that_has_none_is_its_thumbprint() {
    for key in keys() {
        let jwk = key.public_jwk();
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
        let canonical = match text("kty") {
            "RSA" => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text("e"), text("n")),
            "OKP" => format!(r#"{{"crv":"X25519","kty":"OKP","x":"{}"}}"#, text("x")),
            _ => format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, text("crv"), text("x"), text("y")),
        };
        assert_eq!(key.key_id(), URL_SAFE_NO_PAD.encode(crate::jose::sha256(canonical.as_bytes())));
    }
}

#[test]
fn unsuitable_decryption_keys_are_refused() {
    use KeyManagementAlgorithm as A;
    let pem = |key: PKey<openssl::pkey::Private>| String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let weak = pem(PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap());
    let rsa = pem(PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap());
    let for_signing = pem(PKey::generate_ed25519().unwrap());
    let other_curve = {
        let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP256K1).unwrap();
        pem(PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap())
    };
    for (algorithm, pem) in [
        (A::RsaOaep256, weak.as_str()),
        (A::EcdhEs, &rsa),
        (A::EcdhEs, &for_signing),
        (A::EcdhEs, &other_curve),
        (A::RsaOaep, &for_signing),
        (A::RsaOaep, ""),
        (A::RsaOaep, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ] {
        assert!(DecryptionKey::from_pem(algorithm, pem, None).is_err());
    }
    let good = r#"{"kty":"OKP","crv":"X25519","alg":"ECDH-ES","d":"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo","x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}"#;
    assert!(DecryptionKey::from_jwk(good).is_ok());
    let meant = good.replacen(r#""alg""#, r#""use":"enc","key_ops":["deriveKey","deriveBits"],"alg""#, 1);
    assert!(DecryptionKey::from_jwk(&meant).is_ok());
    for (old, new) in [
        (r#""alg":"ECDH-ES","#, ""),
        ("ECDH-ES", "ES256"),
        ("ECDH-ES", "RSA-OAEP"),
        (r#""alg""#, r#""use":"sig","alg""#),
        (r#""alg""#, r#""use":7,"alg""#),
        (r#""alg""#, r#""key_ops":["sign"],"alg""#),
        (r#""alg""#, r#""key_ops":"deriveKey","alg""#),
        (r#""d":"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo","#, ""),
        (r#""kty":"OKP","#, r#""kty":5,"#),
        (r#""kty":"OKP","#, ""),
        ("X25519", "Ed25519"),
        ("dwdt", "dw"),
    ] {
        assert!(good.contains(old));
        assert!(DecryptionKey::from_jwk(&good.replacen(old, new, 1)).is_err(), "{old} as {new}");
    }
    assert!(DecryptionKey::from_jwk(r#"{"kid":5}"#).is_err());
}

#[test]
fn a_token_encrypted_for_a_published_key_is_decrypted_with_its_private_key() {
    for key in keys() {
        let public = EncryptionKey::from_jwk(&key.public_jwk()).unwrap();
        for enc in ContentEncryptionAlgorithm::ALL {
            let token = public.encrypt(key.algorithm(), enc, "a.b.c").unwrap();
            let jwe = CompactJwe::parse(&token).unwrap();
            assert_eq!((jwe.algorithm(), jwe.content_encryption()), (key.algorithm(), enc));
            assert_eq!(jwe.content_type().as_deref(), Some("jwt"));
            assert_eq!(jwe.header.kid.as_deref(), Some(key.key_id()));
            assert_eq!(decrypted(&token, std::slice::from_ref(&key)).unwrap(), b"a.b.c", "{key:?} {enc:?}");
        }
    }
}

#[test]
fn no_two_encrypted_tokens_share_anything_random() {
    for key in keys() {
        let public = EncryptionKey::from_jwk(&key.public_jwk()).unwrap();
        let token = || public.encrypt(key.algorithm(), ContentEncryptionAlgorithm::A256Gcm, "a.b.c").unwrap();
        let (one, other) = (token(), token());
        let differ = |number: usize| one.split('.').nth(number) != other.split('.').nth(number);
        assert!(differ(2) && differ(3) && differ(4), "{key:?}");
        // Either the content's key or the key agreement that yields it is new.
        assert!(differ(0) || differ(1), "{key:?}");
    }
}

#[test]
fn only_valid_keys_for_encryption_are_accepted() {
    let key = key_on(Curve::P256, KeyManagementAlgorithm::EcdhEs);
    let edited = |edit: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut jwk = key.public_jwk();
        edit(&mut jwk);
        EncryptionKey::from_jwk(&jwk).ok()
    };
    let with = |name: &'static str, value: Value| edited(&move |jwk| drop(jwk.insert(name.to_owned(), value.clone())));
    let without = |name: &'static str| edited(&move |jwk| drop(jwk.shift_remove(name)));
    assert!(without("use").is_some(), "its algorithm says what it is for");
    assert!(without("alg").is_some_and(|key| key.supports(KeyManagementAlgorithm::EcdhEsA256Kw)));
    assert!(without("kid").is_some());
    assert!(with("key_ops", json!(["deriveKey"])).is_some());
    assert!(edited(&|_| {}).is_some_and(|key| !key.supports(KeyManagementAlgorithm::EcdhEsA256Kw)));
    let neither = edited(&|jwk| {
        jwk.shift_remove("use");
        jwk.shift_remove("alg");
    });
    assert!(neither.is_none(), "it may be a key for signatures");
    for (name, value) in [
        ("use", json!("sig")),
        ("use", json!(5)),
        ("alg", json!("ES256")),
        ("alg", json!("RSA1_5")),
        ("alg", json!("RSA-OAEP")),
        ("alg", json!(1)),
        ("key_ops", json!(["verify"])),
        ("key_ops", json!("deriveKey")),
        ("kty", json!(null)),
        ("kty", json!("oct")),
        ("crv", json!("secp256k1")),
        ("x", json!("AAAA")),
        ("y", key.public_jwk()["x"].clone()),
        ("kid", json!(7)),
    ] {
        assert!(with(name, value.clone()).is_none(), "{name} {value}");
    }
}

#[test]
fn no_key_of_the_op_makes_encryption_panic() {
    use proptest::prelude::*;
    proptest!(|(
        kty in "(RSA|EC|OKP|oct|)", crv in "(P-256|P-384|P-521|secp256k1|Ed25519|X25519|)",
        n in "[A-Za-z0-9_=-]{0,400}", e in "[A-Za-z0-9_-]{0,12}", x in "[A-Za-z0-9_-]{40,90}", y in "[A-Za-z0-9_-]{43}",
    )| {
        let jwk = json!({"kty": kty, "crv": crv, "n": n, "e": e, "x": x, "y": y, "use": "enc"});
        if let Ok(key) = EncryptionKey::from_jwk(jwk.as_object().unwrap()) {
            for alg in KeyManagementAlgorithm::ALL {
                let _ = key.encrypt(alg, ContentEncryptionAlgorithm::A128Gcm, "a.b.c");
            }
        }
    });
}
