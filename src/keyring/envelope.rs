//! The layout of a sealed value: format ‖ key id ‖ nonce ‖ ciphertext with its tag.
//!
//! Sealed values outlive releases. A new layout gets a new format number, and a release must be able to read it before
//! the next one writes it. Format 1 stays readable.

use super::Purpose;

const FORMAT: u8 = 1;

/// The parts of a sealed value.
pub(super) struct Envelope<'a> {
    pub(super) key_id: [u8; 4],
    pub(super) nonce: [u8; 12],
    pub(super) ciphertext: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// `None` if the value is too short or has another format.
    pub(super) fn parse(sealed: &'a [u8]) -> Option<Self> {
        let (&[format], rest) = sealed.split_first_chunk()?;
        let (&key_id, rest) = rest.split_first_chunk()?;
        let (&nonce, ciphertext) = rest.split_first_chunk()?;
        (format == FORMAT).then_some(Self { key_id, nonce, ciphertext })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [&[FORMAT], self.key_id.as_slice(), &self.nonce, self.ciphertext].concat()
    }
}

/// What the tag protects besides the ciphertext: format ‖ purpose ‖ length of the context in 8 bytes ‖ context.
pub(super) fn associated_data(purpose: Purpose, context: &[u8]) -> Vec<u8> {
    [&[FORMAT], label(purpose), &(context.len() as u64).to_be_bytes(), context].concat()
}

/// The name of a purpose in derived keys and associated data. Sealed values depend on it: it never changes.
pub(super) fn label(purpose: Purpose) -> &'static [u8] {
    match purpose {
        Purpose::AuthorizationSession => b"authorization session",
        Purpose::PendingAuthentication => b"pending authentication",
        Purpose::Authentication => b"authentication",
        Purpose::IssuedTokens => b"issued tokens",
        Purpose::Process => b"process",
        Purpose::Registration => b"registration",
        Purpose::LogoutSession => b"logout session",
        #[cfg(feature = "axum")]
        Purpose::BrowserSignIn => b"browser sign-in",
    }
}
