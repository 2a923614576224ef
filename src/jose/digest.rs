//! Hash functions and HMAC.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sha;
use openssl::sign::Signer;
use zeroize::Zeroizing;

use super::algorithm::HashFunction;
use crate::error::{Error, ErrorKind};

/// SHA-256. The one-shot function of OpenSSL 3 looks up the algorithm by name each time, which takes longer than
/// hashing a kilobyte.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut hasher = sha::Sha256::new();
    hasher.update(data);
    hasher.finish()
}

/// Hashes with the hash function of a signature algorithm.
pub(crate) fn hash(function: HashFunction, data: &[u8]) -> Vec<u8> {
    match function {
        HashFunction::Sha256 => sha256(data).to_vec(),
        HashFunction::Sha384 => sha::sha384(data).to_vec(),
        HashFunction::Sha512 => sha::sha512(data).to_vec(),
    }
}

/// HMAC-SHA-256 (RFC 2104) over the concatenation of `parts`. Compare with
/// [`constant_time_eq`](crate::secret::constant_time_eq).
///
/// Every ping needs one, including a forged ping. The lookup of a MAC in the providers of OpenSSL 3 would take longer
/// than everything else in the refusal of a ping.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let digest = if key.len() > BLOCK { sha256(key).to_vec() } else { key.to_vec() };
    let (digest, mut inner, mut outer) = (Zeroizing::new(digest), sha::Sha256::new(), sha::Sha256::new());
    for (hash, pad) in [(&mut inner, 0x36), (&mut outer, 0x5c)] {
        let mut block = Zeroizing::new([pad; BLOCK]);
        block.iter_mut().zip(&*digest).for_each(|(byte, of_key)| *byte ^= of_key);
        hash.update(&*block);
    }
    parts.iter().for_each(|part| inner.update(part));
    outer.update(&inner.finish());
    outer.finish()
}

/// HMAC (RFC 2104) with a hash function over the concatenation of `parts`.
///
/// # Errors
///
/// [`ErrorKind::Cryptography`] if OpenSSL fails.
pub(super) fn hmac(function: HashFunction, key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let digest = match function {
        HashFunction::Sha256 => MessageDigest::sha256(),
        HashFunction::Sha384 => MessageDigest::sha384(),
        HashFunction::Sha512 => MessageDigest::sha512(),
    };
    let failed = |error: ErrorStack| Error::new(ErrorKind::Cryptography).with_source(error);
    let key = PKey::hmac(key).map_err(failed)?;
    let mut signer = Signer::new(digest, &key).map_err(failed)?;
    parts.iter().try_for_each(|part| signer.update(part)).map_err(failed)?;
    signer.sign_to_vec().map_err(failed)
}

#[cfg(test)]
mod tests {
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
        let of = |function| hex(&hmac(function, &key, &[b"Hi There"]).unwrap());
        assert_eq!(of(HashFunction::Sha256), hex(&hmac_sha256(&key, &[b"Hi There"])));
        assert_eq!(
            of(HashFunction::Sha384),
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"
        );
        assert_eq!(
            of(HashFunction::Sha512),
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4\
             be9d914eeb61f1702e696c203a126854"
        );
    }
}
