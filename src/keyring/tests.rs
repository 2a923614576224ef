use std::error::Error as _;

use proptest::prelude::*;

use super::*;
use crate::error::ConfigurationProblem;
use crate::random::SystemRandom;

const PURPOSES: [Purpose; 5] = [
    Purpose::AuthorizationSession,
    Purpose::PendingAuthentication,
    Purpose::Authentication,
    Purpose::Registration,
    Purpose::LogoutSession,
];

/// Format, key id, nonce and tag.
const OVERHEAD: usize = 1 + 4 + 12 + 16;

/// Counts upwards from a first byte.
#[derive(Debug)]
struct Counting(u8);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        for (byte, value) in bytes.iter_mut().zip(self.0..) {
            *byte = value;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Broken;

impl Random for Broken {
    fn fill(&self, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Randomness))
    }
}

fn new_key() -> SealingKey {
    SealingKey::generate(&SystemRandom).unwrap()
}

fn copy(key: &SealingKey) -> SealingKey {
    SealingKey::from_base64(key.to_base64().expose()).unwrap()
}

fn sealed(keyring: &Keyring) -> Vec<u8> {
    keyring.seal(&SystemRandom, Purpose::PendingAuthentication, b"row 7", b"a secret").unwrap()
}

fn opens(keyring: &Keyring, sealed: &[u8]) -> bool {
    match keyring.open(Purpose::PendingAuthentication, b"row 7", sealed) {
        Ok(plaintext) => plaintext.as_slice() == b"a secret",
        Err(error) => {
            assert_eq!(*error.kind(), ErrorKind::Sealed);
            false
        }
    }
}

fn setting_problem(result: Result<SealingKey, Error>) -> &'static str {
    match result.unwrap_err().kind() {
        ErrorKind::Configuration(ConfigurationProblem::Setting { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sealed_value_opens_and_does_not_show_its_content() {
    let keyring = Keyring::new(new_key());
    let sealed = sealed(&keyring);
    assert!(opens(&keyring, &sealed));
    assert!(opens(&keyring.clone(), &sealed));
    assert!(!sealed.windows(8).any(|window| window == b"a secret"));
}

#[test]
fn a_key_is_rotated_in_three_steps() {
    let (old, new) = (new_key(), new_key());
    let before = Keyring::new(copy(&old));
    let rolled_out = Keyring::new(copy(&old)).also_opens(copy(&new));
    let promoted = Keyring::new(copy(&new)).also_opens(copy(&old));
    let after = Keyring::new(copy(&new));

    // While one step is deployed, instances of this step and of the one before serve the same rows.
    assert!(opens(&before, &sealed(&rolled_out)));
    assert!(opens(&rolled_out, &sealed(&before)));
    assert!(opens(&rolled_out, &sealed(&promoted)));
    assert!(opens(&promoted, &sealed(&rolled_out)));
    assert!(opens(&after, &sealed(&promoted)));
    assert!(!opens(&after, &sealed(&before)));
}

#[test]
fn the_order_of_older_keys_does_not_matter() {
    let (first, second) = (new_key(), new_key());
    let keyring = Keyring::new(new_key()).also_opens(copy(&first)).also_opens(copy(&second));
    assert!(opens(&keyring, &sealed(&Keyring::new(first))));
    assert!(opens(&keyring, &sealed(&Keyring::new(second))));
}

#[test]
fn a_value_opens_for_its_own_purpose_only() {
    let keyring = Keyring::new(new_key());
    for purpose in PURPOSES {
        let sealed = keyring.seal(&SystemRandom, purpose, b"", b"a secret").unwrap();
        for other in PURPOSES {
            assert_eq!(keyring.open(other, b"", &sealed).is_ok(), other == purpose, "{purpose:?} as {other:?}");
        }
    }
}

#[test]
fn purposes_do_not_share_a_key() {
    let subkeys = new_key().into_subkeys();
    let different: std::collections::BTreeSet<_> = PURPOSES.iter().map(|purpose| subkeys.of(*purpose)).collect();
    assert_eq!(different.len(), PURPOSES.len());
}

#[test]
fn a_value_opens_in_its_own_context_only() {
    let keyring = Keyring::new(new_key());
    let sealed = sealed(&keyring);
    for context in [b"row 8".as_slice(), b"row 77", b"row ", b""] {
        let error = keyring.open(Purpose::PendingAuthentication, context, &sealed).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Sealed);
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let keyring = Keyring::new(new_key());
    let sealed = sealed(&keyring);
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&keyring, &altered), "bit {bit}");
    }
}

#[test]
fn a_truncated_or_extended_value_does_not_open() {
    let keyring = Keyring::new(new_key());
    let mut sealed = sealed(&keyring);
    for length in 0..sealed.len() {
        assert!(!opens(&keyring, &sealed[..length]), "{length} bytes");
    }
    sealed.push(0);
    assert!(!opens(&keyring, &sealed));
}

#[test]
fn a_sealed_value_is_33_bytes_longer_than_its_content() {
    let keyring = Keyring::new(new_key());
    for length in [0, 1, 16, 1_500] {
        let plaintext = vec![7; length];
        let sealed = keyring.seal(&SystemRandom, Purpose::Authentication, b"context", &plaintext).unwrap();
        assert_eq!(sealed.len(), length + OVERHEAD);
        assert_eq!(*keyring.open(Purpose::Authentication, b"context", &sealed).unwrap(), plaintext);
    }
}

#[test]
fn equal_values_are_sealed_differently_each_time() {
    let keyring = Keyring::new(new_key());
    assert_ne!(sealed(&keyring), sealed(&keyring));
}

#[test]
fn nothing_is_sealed_without_randomness() {
    let keyring = Keyring::new(new_key());
    let error = keyring.seal(&Broken, Purpose::Authentication, b"", b"a secret").unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Randomness);
}

/// Values of format 1, made with another implementation (Python's `cryptography`). They lie in databases: every later
/// release opens them.
#[test]
fn sealed_values_of_format_1_stay_as_they_are() {
    let keyring = Keyring::new(SealingKey::generate(&Counting(0)).unwrap());
    let golden: [(_, &[u8], _); 5] = [
        (
            Purpose::AuthorizationSession,
            b"a session",
            "0186517456a0a1a2a3a4a5a6a7a8a9aaab267f3754e958ab867330fbd8e1ef774d93958fc755be873920",
        ),
        (
            Purpose::PendingAuthentication,
            b"a process",
            "0186517456a0a1a2a3a4a5a6a7a8a9aaabb65001b7eb250c9dcaae027d3513cf527128ae0aaf2f278c11",
        ),
        (
            Purpose::Authentication,
            b"an outcome",
            "0186517456a0a1a2a3a4a5a6a7a8a9aaab5f38d94f0647ec5667f9c6bb2698ab5f81a312b666091bb427b3",
        ),
        (
            Purpose::Registration,
            b"a registration",
            "0186517456a0a1a2a3a4a5a6a7a8a9aaab0754345aaa64789cb1708614a20cab7d3bd4df96d083a995733556ade21f",
        ),
        (
            Purpose::LogoutSession,
            b"a logout",
            "0186517456a0a1a2a3a4a5a6a7a8a9aaab0d3d4324b929d1fa6eb52369921ce2aeb3d2bf0147be0778",
        ),
    ];
    for (purpose, plaintext, expected) in golden {
        let sealed = keyring.seal(&Counting(0xa0), purpose, b"a context", plaintext).unwrap();
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        assert_eq!(*keyring.open(purpose, b"a context", &sealed).unwrap(), plaintext);
    }
}

#[test]
fn debug_output_names_keys_by_identifiers_only() {
    let keyring = Keyring::new(SealingKey::generate(&Counting(0)).unwrap()).also_opens(new_key());
    let shown = format!("{keyring:?}");
    assert!(shown.starts_with("Keyring { primary: SealingKey(86517456), also_opens: [SealingKey("), "{shown}");
    assert_eq!(shown.len(), "Keyring { primary: SealingKey(86517456), also_opens: [SealingKey(86517456)] }".len());
    assert_eq!(format!("{:?}", SealingKey::generate(&Counting(0)).unwrap()), "SealingKey(86517456)");
}

#[test]
fn base64_is_read_in_either_alphabet_with_or_without_padding_and_white_space() {
    let key = SealingKey::from_bytes([[0xfb, 0xff], [0xef, 0xbe]].concat().repeat(8).try_into().unwrap()).unwrap();
    let standard = key.to_base64();
    let standard = standard.expose();
    assert!(standard.contains(['+', '/']) && standard.ends_with('='));
    let url_safe = standard.replace('+', "-").replace('/', "_");
    for text in [standard, standard.trim_end_matches('='), &url_safe, url_safe.trim_end_matches('=')] {
        for text in [text.to_owned(), format!(" {text}\r\n")] {
            assert_eq!(SealingKey::from_base64(&text).unwrap().to_base64().expose(), standard, "{text}");
        }
    }
}

#[test]
fn a_malformed_key_is_refused_without_being_quoted() {
    let (short, long) = ("QUJD".repeat(10), "QUJD".repeat(11));
    for text in ["", "secret", "not base64 at all!", &short, &long, &"A".repeat(1_000_000), "ü"] {
        let error = SealingKey::from_base64(text).unwrap_err();
        assert!(text.is_empty() || !format!("{error} {error:?}").contains(text));
        assert!(setting_problem(Err(error)).contains("32 bytes"));
    }
}

#[test]
fn a_sealing_key_of_equal_bytes_is_refused() {
    for byte in [0, 0x41, 0xff] {
        assert!(setting_problem(SealingKey::from_bytes([byte; 32])).contains("equal"));
    }
    assert!(setting_problem(SealingKey::from_base64(&"A".repeat(43))).contains("equal"));
}

#[test]
fn a_key_is_read_from_the_environment() {
    const NAME: &str = "OPENID_DEFERRED_TEST_SEALING_KEY";
    const KEY: &str = "CVh2hmGkm7dpPYHCxQeQWzB4jLYHG8xQbD3c3bqFUZc=";
    if std::env::var_os(NAME).is_some() {
        assert_eq!(SealingKey::from_env(NAME).unwrap().to_base64().expose(), KEY);
        return;
    }
    // Changing the environment of a running process is unsafe, so this test runs itself again in another one.
    let program = std::env::current_exe().unwrap();
    let name = "keyring::tests::a_key_is_read_from_the_environment";
    let run = std::process::Command::new(program).args(["--exact", name]).env(NAME, KEY).output().unwrap();
    assert!(run.status.success() && String::from_utf8_lossy(&run.stdout).contains("1 passed"));
}

#[test]
fn a_variable_without_a_key_is_named_and_its_value_is_not() {
    // Cargo sets the first one for tests, to a path.
    for name in ["CARGO_MANIFEST_DIR", "OPENID_DEFERRED_TEST_NOT_SET"] {
        let error = SealingKey::from_env(name).unwrap_err();
        assert!(error.source().unwrap().to_string().contains(name));
        assert!(!format!("{error:?}").contains(env!("CARGO_MANIFEST_DIR")));
    }
}

proptest! {
    #[test]
    fn hostile_bytes_do_not_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let keyring = Keyring::new(SealingKey::generate(&Counting(0)).unwrap());
        let with_a_known_key = [&[1, 0x86, 0x51, 0x74, 0x56], bytes.as_slice()].concat();
        for bytes in [bytes, with_a_known_key] {
            prop_assert!(!opens(&keyring, &bytes));
        }
    }
}

#[test]
fn a_key_can_be_read_from_a_file_and_an_unusable_file_is_named() {
    let path = std::env::temp_dir().join(format!("openid-deferred-key-{}", std::process::id()));
    let key = SealingKey::generate(&SystemRandom).unwrap();
    std::fs::write(&path, format!("{}\n", key.to_base64().expose())).unwrap();
    assert_eq!(SealingKey::from_file(&path).unwrap().to_base64(), key.to_base64());
    std::fs::write(&path, "no key").unwrap();
    let error = SealingKey::from_file(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    for error in [error, SealingKey::from_file(&path).unwrap_err()] {
        let source = error.source().unwrap().to_string();
        assert!(source.contains("openid-deferred-key-") && !source.contains("no key"), "{source}");
    }
}
