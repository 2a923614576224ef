//! The source of randomness: every state, nonce, key and identifier of this crate comes from [`Random`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::Error;

/// A source of randomness for the crate.
///
/// Applications use [`SystemRandom`], the default. Simulations use a seeded source, so that a run can be repeated.
/// Private keys do not come from this source: OpenSSL generates them.
pub trait Random: fmt::Debug + Send + Sync {
    /// Fills `bytes` with unpredictable bytes.
    ///
    /// # Errors
    ///
    /// If the source of randomness fails. Then nothing that needs the bytes is sent.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error>;
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the only use of the system's randomness")]
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        getrandom::fill(bytes).map_err(Error::randomness)
    }
}

/// Returns `N` random bytes.
pub(crate) fn bytes<const N: usize>(random: &dyn Random) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

/// Returns `N` random bytes as unpadded base64url, the form in which this crate sends `state`, `nonce` and `jti`.
pub(crate) fn base64url<const N: usize>(random: &dyn Random) -> Result<String, Error> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<N>(random)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ_and_are_url_safe() {
        let (first, second) = (base64url::<32>(&SystemRandom).unwrap(), base64url::<32>(&SystemRandom).unwrap());
        assert_ne!(first, second);
        assert_eq!(first.len(), 43);
        assert!(first.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    }
}
