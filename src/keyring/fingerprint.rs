//! Keyed hashes, for looking up values that must not be readable.

use super::Keyring;
use crate::jose::hmac_sha256;

impl Keyring {
    /// A hash of `parts` under each key, the primary key first. Stored values were made with the primary key of their
    /// time, so a lookup needs all of them.
    pub(crate) fn fingerprints(&self, what: &str, parts: &[&[u8]]) -> Vec<[u8; 32]> {
        let mut message = Vec::new();
        for part in std::iter::once(what.as_bytes()).chain(parts.iter().copied()) {
            message.extend_from_slice(&(part.len() as u64).to_be_bytes());
            message.extend_from_slice(part);
        }
        self.keys().map(|keys| hmac_sha256(keys.fingerprint.as_slice(), &[&message])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::SealingKey;
    use super::*;

    #[test]
    fn fingerprints_separate_their_parts_and_depend_on_the_key() {
        let key = |byte: u8| SealingKey::from_bytes(std::array::from_fn(|index| index as u8 ^ byte)).unwrap();
        let keyring = Keyring::new(key(0)).also_opens(key(1));
        let prints = keyring.fingerprints("session", &[b"ab", b"c"]);
        assert_eq!(prints.len(), 2);
        assert_ne!(prints[0], prints[1]);
        assert_ne!(keyring.fingerprints("session", &[b"a", b"bc"])[0], prints[0]);
        assert_ne!(keyring.fingerprints("lookup", &[b"ab", b"c"])[0], prints[0]);
        assert_eq!(Keyring::new(key(1)).also_opens(key(0)).fingerprints("session", &[b"ab", b"c"])[1], prints[0]);
    }
}
