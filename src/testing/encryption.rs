//! Valid and forged encrypted tokens, made with `aws-lc-rs`, a library that the crate itself does not use.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
    PublicKeyComponents,
};
use aws_lc_rs::{aead, agreement, cipher, digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::editor::Editor;

/// How a client has one kind of document encrypted.
#[derive(Debug, Clone)]
pub(super) struct Encryption {
    pub(super) alg: String,
    pub(super) enc: String,
}

impl Encryption {
    /// # Panics
    ///
    /// Panics for unsupported algorithms.
    pub(super) fn new(alg: &str, enc: &str) -> Self {
        assert!(ALGORITHMS.contains(&alg), "the test provider has no `{alg}`");
        assert!(CONTENT_ENCRYPTIONS.contains(&enc), "the test provider has no `{enc}`");
        Self { alg: alg.to_owned(), enc: enc.to_owned() }
    }
}

pub(super) const ALGORITHMS: [&str; 6] =
    ["RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"];

pub(super) const CONTENT_ENCRYPTIONS: [&str; 6] =
    ["A128GCM", "A192GCM", "A256GCM", "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512"];

/// A forged encryption of an ID Token or UserInfo response.
#[derive(Clone)]
pub struct EncryptionForgery(Kind);

#[derive(Clone)]
enum Kind {
    InClear,
    Unsigned,
    Twice,
    ForeignKey,
    UnknownKeyId,
    Rsa15,
    Compressed,
    CutTag(usize),
    EmptyIv,
    BrokenCiphertext,
    Header(Editor<Map<String, Value>>),
    Raw(String),
}

impl EncryptionForgery {
    /// No encryption.
    pub fn in_clear() -> Self {
        Self(Kind::InClear)
    }

    /// The claims without a signature. Anyone who knows the client's public key can make this.
    pub fn unsigned() -> Self {
        Self(Kind::Unsigned)
    }

    /// Encrypted twice.
    pub fn twice() -> Self {
        Self(Kind::Twice)
    }

    /// Encrypted for another party's key, under the `kid` of the client's key.
    pub fn foreign_key() -> Self {
        Self(Kind::ForeignKey)
    }

    /// Encrypted for the client's key, under a `kid` that the client does not know.
    pub fn unknown_key_id() -> Self {
        Self(Kind::UnknownKeyId)
    }

    /// The content's key encrypted with `RSA1_5`, for a client with an RSA key.
    pub fn rsa1_5() -> Self {
        Self(Kind::Rsa15)
    }

    /// Compressed before encryption (`zip`).
    pub fn compressed() -> Self {
        Self(Kind::Compressed)
    }

    /// The authentication tag shortened to this many bytes.
    pub fn cut_tag(bytes: usize) -> Self {
        Self(Kind::CutTag(bytes))
    }

    /// An empty initialization vector.
    pub fn empty_iv() -> Self {
        Self(Kind::EmptyIv)
    }

    /// One changed bit in the ciphertext.
    pub fn broken_ciphertext() -> Self {
        Self(Kind::BrokenCiphertext)
    }

    /// Edits the header before it is authenticated.
    pub fn header(edit: impl Fn(&mut Map<String, Value>) + Send + Sync + 'static) -> Self {
        Self(Kind::Header(Editor(Arc::new(edit))))
    }

    /// This text instead of the encrypted one.
    pub fn raw(text: &str) -> Self {
        Self(Kind::Raw(text.to_owned()))
    }
}

impl fmt::Debug for EncryptionForgery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EncryptionForgery").finish_non_exhaustive()
    }
}

/// Encrypts a token for this key, or forges one.
pub(super) fn encrypt(
    inside: &str,
    key: &Value,
    encryption: &Encryption,
    forgery: Option<&EncryptionForgery>,
) -> String {
    let forgery = forgery.map(|forgery| &forgery.0);
    let Encryption { alg, enc } = encryption;
    let content = if inside.starts_with('{') { "json" } else { "JWT" };
    let mut header = json!({ "alg": alg, "enc": enc, "cty": content });
    if let Some(kid) = key.get("kid") {
        header["kid"] = kid.clone();
    }
    let mut plaintext = inside.as_bytes().to_vec();
    let foreign;
    let mut key = key;
    match forgery {
        Some(Kind::InClear) => return inside.to_owned(),
        Some(Kind::Raw(text)) => return text.clone(),
        Some(Kind::Unsigned) => plaintext = claims_of(inside),
        Some(Kind::Twice) => {
            let again = Encryption::new(alg, enc);
            plaintext = encrypt(inside, key, &again, None).into_bytes();
        }
        Some(Kind::ForeignKey) => {
            foreign = foreign_key(key);
            key = &foreign;
        }
        Some(Kind::UnknownKeyId) => header["kid"] = json!("a key that the client does not have"),
        Some(Kind::Rsa15) => header["alg"] = json!("RSA1_5"),
        Some(Kind::Compressed) => {
            header["zip"] = json!("DEF");
            let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            deflate.write_all(&plaintext).expect("a Vec takes all");
            plaintext = deflate.finish().expect("a Vec takes all");
        }
        Some(Kind::Header(editor)) => {
            let Value::Object(members) = &mut header else { unreachable!("the header is an object") };
            (editor.0)(members);
        }
        Some(Kind::CutTag(_) | Kind::EmptyIv | Kind::BrokenCiphertext) | None => {}
    }
    let (content_key, encrypted_key) = content_key(&mut header, key, alg, enc);
    let aad = URL_SAFE_NO_PAD.encode(header.to_string());
    let Sealed { mut iv, mut ciphertext, mut tag } = seal(enc, &content_key, aad.as_bytes(), plaintext);
    match forgery {
        Some(Kind::CutTag(length)) => tag.truncate(*length),
        Some(Kind::EmptyIv) => iv.clear(),
        Some(Kind::BrokenCiphertext) => ciphertext[0] ^= 1,
        _ => {}
    }
    let mut token = aad;
    for segment in [&encrypted_key, &iv, &ciphertext, &tag] {
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(segment));
    }
    token
}

/// The claims of a JWT, without its header and signature.
fn claims_of(token: &str) -> Vec<u8> {
    let claims = token.split('.').nth(1).expect("a JWT has dots");
    URL_SAFE_NO_PAD.decode(claims).expect("the claims of a JWT are base64url")
}

/// A new key of the same kind, whose private half is discarded.
fn foreign_key(key: &Value) -> Value {
    let mut foreign = key.clone();
    if key["kty"] == "RSA" {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("aws-lc generates RSA keys");
        let der = rcgen::PublicKeyData::der_bytes(&pair);
        foreign["n"] = json!(text(&rsa_modulus(der)));
    } else {
        let (_, public) = ephemeral(key["crv"].as_str().unwrap_or_default());
        for name in ["x", "y"] {
            if let Some(value) = public.get(name) {
                foreign[name] = value.clone();
            }
        }
    }
    foreign
}

/// The modulus in a PKCS#1 public key of 2048 bits. It follows two headers and a leading zero, and precedes the
/// exponent.
pub(super) fn rsa_modulus(der: &[u8]) -> Vec<u8> {
    der[9..9 + 256].to_vec()
}

/// The content's key, and its encrypted form. An ephemeral key is added to the header.
fn content_key(header: &mut Value, key: &Value, alg: &str, enc: &str) -> (Vec<u8>, Vec<u8>) {
    let length = key_length(enc);
    if alg.starts_with("RSA") {
        let content_key = random(length);
        let scheme = header["alg"].as_str().unwrap_or_default();
        let encrypted = rsa_encrypt(scheme, key, &content_key);
        return (content_key, encrypted);
    }
    let curve = key["crv"].as_str().expect("a key for ECDH-ES has a curve");
    let (private, public) = ephemeral(curve);
    header["epk"] = Value::Object(public);
    let peer = agreement::UnparsedPublicKey::new(curve_algorithm(curve), public_octets(key));
    let shared = agreement::agree(&private, peer, (), |shared| Ok(shared.to_vec())).expect("the key is on its curve");
    let wrapping = match alg {
        "ECDH-ES+A128KW" => 16,
        "ECDH-ES+A192KW" => 24,
        "ECDH-ES+A256KW" => 32,
        _ => return (derive(&shared, enc, length), Vec::new()),
    };
    let content_key = random(length);
    let wrapped = wrap(&derive(&shared, alg, wrapping), &content_key);
    (content_key, wrapped)
}

fn rsa_encrypt(scheme: &str, key: &Value, plaintext: &[u8]) -> Vec<u8> {
    let components = PublicKeyComponents { n: octets(&key["n"]), e: octets(&key["e"]) };
    let public: PublicEncryptingKey = components.try_into().expect("the registered key is an RSA key");
    let mut ciphertext = vec![0; public.key_size_bytes()];
    let length = match scheme {
        "RSA1_5" => {
            let public = Pkcs1PublicEncryptingKey::new(public).expect("the registered key is an RSA key");
            public.encrypt(plaintext, &mut ciphertext).map(|written| written.len())
        }
        scheme => {
            let hash = if scheme == "RSA-OAEP" { &OAEP_SHA1_MGF1SHA1 } else { &OAEP_SHA256_MGF1SHA256 };
            let public = OaepPublicEncryptingKey::new(public).expect("the registered key is an RSA key");
            public.encrypt(hash, plaintext, &mut ciphertext, None).map(|written| written.len())
        }
    };
    ciphertext.truncate(length.expect("a key fits into an RSA block"));
    ciphertext
}

pub(super) fn curve_algorithm(curve: &str) -> &'static agreement::Algorithm {
    match curve {
        "P-256" => &agreement::ECDH_P256,
        "P-384" => &agreement::ECDH_P384,
        "P-521" => &agreement::ECDH_P521,
        "X25519" => &agreement::X25519,
        curve => panic!("the test provider has no curve {curve}"),
    }
}

fn ephemeral(curve: &str) -> (agreement::PrivateKey, Map<String, Value>) {
    let private = agreement::PrivateKey::generate(curve_algorithm(curve)).expect("aws-lc generates keys");
    let public = private.compute_public_key().expect("a private key has a public one");
    let members = match (curve, public.as_ref()) {
        ("X25519", x) => json!({ "kty": "OKP", "crv": curve, "x": text(x) }),
        // An uncompressed point: 4, then both coordinates.
        (_, point) => {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
        }
    };
    let Value::Object(members) = members else { unreachable!("the members are an object") };
    (private, members)
}

pub(super) fn public_octets(key: &Value) -> Vec<u8> {
    match key["crv"].as_str() {
        Some("X25519") => octets(&key["x"]),
        _ => [vec![4], octets(&key["x"]), octets(&key["y"])].concat(),
    }
}

/// RFC 7518 §4.6.2.
pub(super) fn derive(shared: &[u8], algorithm: &str, length: usize) -> Vec<u8> {
    let mut info = Vec::new();
    info.extend((algorithm.len() as u32).to_be_bytes());
    info.extend(algorithm.as_bytes());
    // Neither `apu` nor `apv`.
    info.extend([0; 8]);
    info.extend((length as u32 * 8).to_be_bytes());
    let mut derived = Vec::new();
    for round in 1_u32..=2 {
        let hashed = [&round.to_be_bytes()[..], shared, &info].concat();
        derived.extend(digest::digest(&digest::SHA256, &hashed).as_ref());
    }
    derived.truncate(length);
    derived
}

/// RFC 3394 §2.2.1.
fn wrap(wrapping_key: &[u8], key: &[u8]) -> Vec<u8> {
    let cipher = EncryptingKey::ecb(cipher_key(wrapping_key)).expect("the key has a length of AES");
    let mut register = [0xa6; 8];
    let mut blocks: Vec<[u8; 8]> =
        key.chunks(8).map(|block| block.try_into().expect("a key has whole blocks")).collect();
    for round in 0..6_u64 {
        let count = blocks.len() as u64;
        for (index, block) in (1..).zip(&mut blocks) {
            let mut both = [register, *block].concat();
            cipher.encrypt(&mut both).expect("one block is encrypted");
            let (left, right) = both.split_at(8);
            let counted = u64::from_be_bytes(left.try_into().expect("half a block")) ^ (count * round + index);
            register = counted.to_be_bytes();
            block.copy_from_slice(right);
        }
    }
    [vec![register], blocks].concat().concat()
}

struct Sealed {
    iv: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: Vec<u8>,
}

/// RFC 7518 §5.
fn seal(enc: &str, key: &[u8], aad: &[u8], mut plaintext: Vec<u8>) -> Sealed {
    let (hash, cipher) = match enc {
        "A128GCM" => return seal_gcm(&aead::AES_128_GCM, key, aad, plaintext),
        "A192GCM" => return seal_gcm(&aead::AES_192_GCM, key, aad, plaintext),
        "A256GCM" => return seal_gcm(&aead::AES_256_GCM, key, aad, plaintext),
        "A128CBC-HS256" => (hmac::HMAC_SHA256, &key[16..]),
        "A192CBC-HS384" => (hmac::HMAC_SHA384, &key[24..]),
        _ => (hmac::HMAC_SHA512, &key[32..]),
    };
    let padding = 16 - plaintext.len() % 16;
    plaintext.extend(vec![padding as u8; padding]);
    let iv = random(16);
    let context = EncryptionContext::Iv128(iv.as_slice().try_into().expect("the IV has 16 bytes"));
    let cipher = EncryptingKey::cbc(cipher_key(cipher)).expect("the key has a length of AES");
    cipher.less_safe_encrypt(&mut plaintext, context).expect("whole blocks are encrypted");
    let half = key.len() / 2;
    let bits = (aad.len() as u64 * 8).to_be_bytes();
    let mac = hmac::sign(&hmac::Key::new(hash, &key[..half]), &[aad, &iv, &plaintext, &bits].concat());
    Sealed { iv, ciphertext: plaintext, tag: mac.as_ref()[..half].to_vec() }
}

fn seal_gcm(algorithm: &'static aead::Algorithm, key: &[u8], aad: &[u8], mut plaintext: Vec<u8>) -> Sealed {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).expect("the key has its length"));
    let iv = random(12);
    let nonce = aead::Nonce::try_assume_unique_for_key(&iv).expect("the IV has 12 bytes");
    let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), &mut plaintext).expect("it is encrypted");
    Sealed { iv, ciphertext: plaintext, tag: tag.as_ref().to_vec() }
}

pub(super) fn cipher_key(key: &[u8]) -> UnboundCipherKey {
    let algorithm = match key.len() {
        16 => &cipher::AES_128,
        24 => &cipher::AES_192,
        _ => &cipher::AES_256,
    };
    UnboundCipherKey::new(algorithm, key).expect("the key has a length of AES")
}

pub(super) fn key_length(enc: &str) -> usize {
    match enc {
        "A128GCM" => 16,
        "A192GCM" => 24,
        "A256GCM" | "A128CBC-HS256" => 32,
        "A192CBC-HS384" => 48,
        _ => 64,
    }
}

fn random(length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    rand::fill(&mut octets).expect("aws-lc has randomness");
    octets
}

fn octets(member: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(member.as_str().unwrap_or_default()).expect("the members of a JWK are base64url")
}

pub(super) fn text(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}
