//! Hash functions and HMAC.

use openssl::sha;
use zeroize::Zeroizing;

use super::algorithm::HashFunction;

/// SHA-256.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    sha::sha256(data)
}

/// The hash function that a signature algorithm implies.
pub(crate) fn hash(function: HashFunction, data: &[u8]) -> Vec<u8> {
    match function {
        HashFunction::Sha256 => sha::sha256(data).to_vec(),
        HashFunction::Sha384 => sha::sha384(data).to_vec(),
        HashFunction::Sha512 => sha::sha512(data).to_vec(),
    }
}

/// HMAC (RFC 2104) with a hash function over the concatenation of `parts`.
pub(super) fn hmac(function: HashFunction, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    match function {
        HashFunction::Sha256 => hmac_sha256(key, parts).to_vec(),
        HashFunction::Sha384 => hmac_sha384(key, parts).to_vec(),
        HashFunction::Sha512 => hmac_sha512(key, parts).to_vec(),
    }
}

// OpenSSL's own HMAC goes through an allocated key object whose creation can fail. This form over its hash functions
// cannot, so sealing and ping tokens need no error path for it.
macro_rules! hmac {
    ($(#[$attribute:meta])* $visibility:vis $name:ident, $hash:path, $hasher:ty, $block:literal, $length:literal) => {
        $(#[$attribute])*
        $visibility fn $name(key: &[u8], parts: &[&[u8]]) -> [u8; $length] {
            let hashed_key;
            let key = if key.len() > $block {
                hashed_key = Zeroizing::new($hash(key));
                hashed_key.as_slice()
            } else {
                key
            };
            let padded_with = |pad: u8| {
                let mut block = Zeroizing::new([pad; $block]);
                block.iter_mut().zip(key).for_each(|(padded, byte)| *padded ^= byte);
                block
            };
            let mut inner = <$hasher>::new();
            inner.update(padded_with(0x36).as_slice());
            parts.iter().for_each(|part| inner.update(part));
            let mut outer = <$hasher>::new();
            outer.update(padded_with(0x5c).as_slice());
            outer.update(&inner.finish());
            outer.finish()
        }
    };
}

hmac! {
    /// HMAC-SHA-256 over the concatenation of `parts`. Compare with [`constant_time_eq`](crate::secret::constant_time_eq).
    pub(crate) hmac_sha256, sha::sha256, sha::Sha256, 64, 32
}
hmac!(hmac_sha384, sha::sha384, sha::Sha384, 128, 48);
hmac!(hmac_sha512, sha::sha512, sha::Sha512, 128, 64);

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::sign::Signer;
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hmac_gives_the_values_of_rfc_4231() {
        let key = [0x0b; 20];
        assert_eq!(
            hex(&hmac_sha256(&key, &[b"Hi ", b"There"])),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let long_key = [0xaa; 131];
        assert_eq!(
            hex(&hmac_sha256(&long_key, &[b"Test Using Larger Than Block-Size Key - Hash Key First"])),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    proptest! {
        #[test]
        fn hmac_agrees_with_openssl(key in proptest::collection::vec(any::<u8>(), 1..300), message: Vec<u8>) {
            for (function, digest) in [
                (HashFunction::Sha256, MessageDigest::sha256()),
                (HashFunction::Sha384, MessageDigest::sha384()),
                (HashFunction::Sha512, MessageDigest::sha512()),
            ] {
                let pkey = PKey::hmac(&key).unwrap();
                let expected = Signer::new(digest, &pkey).unwrap().sign_oneshot_to_vec(&message).unwrap();
                prop_assert_eq!(hmac(function, &key, &[&message]), expected);
            }
        }
    }
}
