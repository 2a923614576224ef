//! The search for secrets in any form.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The minimum length of a secret, because shorter texts occur by chance. Each form of a secret is longer than the
/// prefix that the search starts with.
pub const LEAST: usize = 10;
const START: usize = 8;

/// Panics if `bytes` contains one of the secrets in any form.
#[track_caller]
pub fn assert_no_canary(secrets: &[Vec<u8>], bytes: &[u8], place: &str) {
    if let Some((secret, at)) = canary(secrets, bytes) {
        let around = String::from_utf8_lossy(&bytes[at.saturating_sub(300)..(at + 300).min(bytes.len())]);
        panic!("{:?} is in {place}: …{around}…", String::from_utf8_lossy(secret));
    }
}

/// Returns the first secret that is found, and its position.
pub fn canary<'a>(secrets: &'a [Vec<u8>], bytes: &[u8]) -> Option<(&'a [u8], usize)> {
    // Indexed by prefix, so that one pass over a long text is enough.
    struct Wanted<'a> {
        secret: &'a [u8],
        form: Vec<u8>,
    }
    let mut wanted: HashMap<[u8; START], Vec<Wanted<'_>>> = HashMap::new();
    // By the first two bytes of a form. They exclude most positions, which saves most lookups in the map.
    let mut begins = vec![false; 1 << 16];
    for secret in secrets {
        for form in forms(secret) {
            let start = *form.first_chunk().expect("secrets are longer");
            begins[first_two(&start)] = true;
            wanted.entry(start).or_default().push(Wanted { secret, form });
        }
    }
    let mut starts = bytes.windows(START).enumerate().filter(|(_, start)| begins[first_two(start)]);
    starts.find_map(|(at, start)| {
        let mut candidates = wanted.get(start)?.iter();
        candidates.find(|wanted| bytes[at..].starts_with(&wanted.form)).map(|wanted| (wanted.secret, at))
    })
}

fn first_two(start: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([start[0], start[1]]))
}

/// The forms in which a secret would be recognisable.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| -> String {
        secret.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let mut forms = vec![
        secret.to_vec(),
        hex(false).into_bytes(),
        hex(true).into_bytes(),
        form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes(),
        // The forms in which `Debug` writes bytes and JSON writes text.
        secret.iter().take(12).map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes(),
        secret.escape_ascii().to_string().into_bytes(),
    ];
    // Base64 differs at each offset; its first and last characters depend on the neighbouring bytes.
    for (offset, skip) in [(0, 0), (1, 2), (2, 3)] {
        let encoded = URL_SAFE_NO_PAD.encode([&vec![0; offset], secret].concat());
        let inner = &encoded[skip..encoded.len() - 2];
        forms.push(inner.as_bytes().to_vec());
        forms.push(inner.replace('-', "+").replace('_', "/").into_bytes());
    }
    forms
}
