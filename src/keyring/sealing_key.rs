//! The keys in a keyring and the keys derived from them.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::Purpose;
use super::envelope::label;
use crate::error::{ConfigurationProblem, Error};
use crate::jose::hmac_sha256;
use crate::random::{self, Random};
use crate::secret::Secret;

/// A key of 32 random bytes for a [`Keyring`](super::Keyring).
///
/// Create it with `openssl rand -base64 32`, keep it with the application's other secrets, and give every instance of
/// the application the same one. Any party with the key can read and forge sealed values.
///
/// It is overwritten in memory when dropped. `Debug` shows its identifier, which reveals nothing about the key.
pub struct SealingKey {
    bytes: Zeroizing<[u8; LENGTH]>,
    subkeys: Subkeys,
}

const LENGTH: usize = 32;

impl SealingKey {
    /// The key with these bytes.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Setting`] if all bytes are equal, because that is a placeholder.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Result<Self, Error> {
        Self::checked(Zeroizing::new(bytes))
    }

    /// The key with these bytes in base64: the standard or the URL-safe alphabet, with or without padding. Surrounding
    /// white space is ignored, for secrets that end with a newline.
    ///
    /// ```
    /// # fn main() -> Result<(), openid_deferred::Error> {
    /// let key = openid_deferred::SealingKey::from_base64("CVh2hmGkm7dpPYHCxQeQWzB4jLYHG8xQbD3c3bqFUZc=")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Setting`] if the text is not the base64 of 32 bytes, or all bytes are equal.
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &LENIENT };
        // The decoder needs space for whole groups of three bytes. Longer input is not a key.
        let mut room = Zeroizing::new([0; 36]);
        let written = engine.decode_slice(text, room.as_mut()).ok();
        let decoded = room.first_chunk().filter(|_| written == Some(LENGTH));
        let bytes =
            decoded.ok_or_else(|| refused("it must be 32 bytes in base64, as `openssl rand -base64 32` prints"))?;
        Self::checked(Zeroizing::new(*bytes))
    }

    /// The key in an environment variable, in base64, as for [`from_base64`](Self::from_base64).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::{Keyring, SealingKey};
    /// let keyring = Keyring::new(SealingKey::from_env("DEFERRED_SEALING_KEY")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Setting`] if the variable is not set, is not UTF-8, or does not contain a key. The error's
    /// source names the variable.
    pub fn from_env(name: &str) -> Result<Self, Error> {
        // The error of `std` for a variable that is not UTF-8 contains its value, so it is not used as a source.
        let value = std::env::var(name)
            .map(Zeroizing::new)
            .map_err(|_| refused("the environment variable is not set, or is not UTF-8"));
        value
            .and_then(|value| Self::from_base64(&value))
            .map_err(|error| error.with_source(format!("read from the environment variable {name:?}")))
    }

    /// The key in a file, in base64, as for [`from_base64`](Self::from_base64): a mounted secret that only this
    /// application can read.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::Setting`] if the file cannot be read or does not contain a key. The error's source names
    /// it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let value = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|_| refused("the file cannot be read"));
        value
            .and_then(|value| Self::from_base64(&value))
            .map_err(|error| error.with_source(format!("read from the file {}", path.display())))
    }

    /// A new key. Store it with [`to_base64`](Self::to_base64): without the key, sealed values are lost.
    ///
    /// # Errors
    ///
    /// If `random` fails.
    pub fn generate(random: &dyn Random) -> Result<Self, Error> {
        Self::checked(Zeroizing::new(random::bytes(random)?))
    }

    /// The key for storage, in the standard base64 alphabet with padding.
    pub fn to_base64(&self) -> Secret {
        Secret::new(STANDARD.encode(self.bytes.as_slice()))
    }

    /// The identifier of the key, which reveals nothing about it: eight hexadecimal digits. Logs, events and
    /// [`KeyUse`](crate::poller::KeyUse) name keys like this.
    pub fn key_id(&self) -> String {
        key_name(self.subkeys.id)
    }

    fn checked(bytes: Zeroizing<[u8; LENGTH]>) -> Result<Self, Error> {
        if bytes.first().is_some_and(|first| bytes.iter().all(|byte| byte == first)) {
            return Err(refused("all of its bytes are equal; make one with `openssl rand -base64 32`"));
        }
        Ok(Self { subkeys: Subkeys::derive(&bytes), bytes })
    }

    /// The derived keys, one for each purpose.
    pub(super) fn into_subkeys(self) -> Subkeys {
        self.subkeys
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subkeys.fmt(formatter)
    }
}

/// The identifier of a key as people read it.
pub(crate) fn key_name(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

/// The identifier that people read like this; `None` if the text is none.
pub(crate) fn key_of_name(name: &str) -> Option<[u8; 4]> {
    let is_name = name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name.then(|| u32::from_str_radix(name, 16).ok()).flatten().map(u32::to_be_bytes)
}

/// The keys derived from one [`SealingKey`].
pub(super) struct Subkeys {
    pub(super) id: [u8; 4],
    authorization_session: Zeroizing<[u8; LENGTH]>,
    pending_authentication: Zeroizing<[u8; LENGTH]>,
    authentication: Zeroizing<[u8; LENGTH]>,
    issued_tokens: Zeroizing<[u8; LENGTH]>,
    process: Zeroizing<[u8; LENGTH]>,
    registration: Zeroizing<[u8; LENGTH]>,
    logout_session: Zeroizing<[u8; LENGTH]>,
    #[cfg(feature = "axum")]
    browser_sign_in: Zeroizing<[u8; LENGTH]>,
    /// Authenticates the bearer tokens of Ping Callbacks.
    pub(super) notification_token: Zeroizing<[u8; LENGTH]>,
    /// Makes hashes for lookups.
    pub(super) fingerprint: Zeroizing<[u8; LENGTH]>,
}

impl Subkeys {
    fn derive(key: &[u8; LENGTH]) -> Self {
        let derive = |purpose| Zeroizing::new(hmac_sha256(key, &[b"seal ", label(purpose)]));
        let [a, b, c, d, ..] = hmac_sha256(key, &[b"key id"]);
        Self {
            id: [a, b, c, d],
            authorization_session: derive(Purpose::AuthorizationSession),
            pending_authentication: derive(Purpose::PendingAuthentication),
            authentication: derive(Purpose::Authentication),
            issued_tokens: derive(Purpose::IssuedTokens),
            process: derive(Purpose::Process),
            registration: derive(Purpose::Registration),
            logout_session: derive(Purpose::LogoutSession),
            #[cfg(feature = "axum")]
            browser_sign_in: derive(Purpose::BrowserSignIn),
            notification_token: Zeroizing::new(hmac_sha256(key, &[b"use notification token"])),
            fingerprint: Zeroizing::new(hmac_sha256(key, &[b"use fingerprint"])),
        }
    }

    /// The key for one purpose.
    pub(super) fn of(&self, purpose: Purpose) -> &[u8; LENGTH] {
        match purpose {
            Purpose::AuthorizationSession => &self.authorization_session,
            Purpose::PendingAuthentication => &self.pending_authentication,
            Purpose::Authentication => &self.authentication,
            Purpose::IssuedTokens => &self.issued_tokens,
            Purpose::Process => &self.process,
            Purpose::Registration => &self.registration,
            Purpose::LogoutSession => &self.logout_session,
            #[cfg(feature = "axum")]
            Purpose::BrowserSignIn => &self.browser_sign_in,
        }
    }
}

impl fmt::Debug for Subkeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealingKey({})", key_name(self.id))
    }
}

const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

fn refused(problem: &'static str) -> Error {
    ConfigurationProblem::Setting { setting: "SealingKey", problem }.into()
}
