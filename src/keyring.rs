//! Sealed envelopes for values that are stored elsewhere, in a cookie or a database row.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};
use crate::jose::aead;
use crate::random::{self, Random};

mod envelope;
mod fingerprint;
mod notification_token;
mod sealing_key;
#[cfg(test)]
mod tests;

pub use sealing_key::SealingKey;

pub(crate) use notification_token::NotificationToken;
pub(crate) use sealing_key::{key_name, key_of_name};

use envelope::Envelope;
use sealing_key::Subkeys;

/// The keys that seal and open stored values: authorization sessions in cookies, and pending sign-ins and their results
/// in databases.
///
/// The primary key seals, and all keys open. To rotate, first roll a new key out with [`also_opens`](Self::also_opens)
/// to every instance of the application. Then make it the primary key, and remove the old key when nothing that it
/// sealed is left. This way every instance always has the keys that it needs.
///
/// ```
/// use openid_deferred::{Keyring, SealingKey};
/// # fn main() -> Result<(), openid_deferred::Error> {
/// # let (new, old) = ("fA2iL1dDRbUsQMcJy4nGSoOfG1tTtqJgEo3GvJ6kfMM=", "CVh2hmGkm7dpPYHCxQeQWzB4jLYHG8xQbD3c3bqFUZc=");
/// let keyring = Keyring::new(SealingKey::from_base64(new)?).also_opens(SealingKey::from_base64(old)?);
/// # Ok(())
/// # }
/// ```
///
/// Each purpose has its own derived key. One key may seal 2³² values, about 4.3 billion (NIST SP 800-38D
/// §8.3); rotate long before.
///
/// Clones share the keys. `Debug` shows their identifiers, which reveal nothing about the keys.
#[derive(Clone)]
pub struct Keyring {
    primary: Arc<Subkeys>,
    older: Vec<Arc<Subkeys>>,
    is_ephemeral: bool,
}

/// The purpose of a sealed value. A value sealed for one purpose does not open for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An authorization session, which binds the user's return to the browser that was redirected.
    AuthorizationSession,
    /// A pending sign-in.
    PendingAuthentication,
    /// A final outcome with its tokens.
    Authentication,
    /// A final outcome without an identity.
    IssuedTokens,
    /// A row of the durable poller.
    Process,
    /// A client registration.
    Registration,
    /// A logout, which binds the user's return to the browser that was redirected.
    LogoutSession,
    /// The identifier of a sign-in, for the browser that started it.
    #[cfg(feature = "axum")]
    BrowserSignIn,
}

impl Keyring {
    /// A keyring with one key, which seals and opens.
    pub fn new(primary: SealingKey) -> Self {
        Self { primary: Arc::new(primary.into_subkeys()), older: Vec::new(), is_ephemeral: false }
    }

    /// A keyring with a new key that is not stored: sealed values are lost when the program ends. A
    /// [`Poller`](crate::Poller) accepts it only with a store that is lost as well.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Randomness`] if the source of randomness fails.
    pub fn ephemeral() -> Result<Self, Error> {
        Ok(Self { is_ephemeral: true, ..Self::new(SealingKey::generate(&random::SystemRandom)?) })
    }

    /// Adds a key that opens and does not seal: a former or a future primary key.
    #[must_use = "the keyring with the key in it is returned"]
    pub fn also_opens(mut self, other: SealingKey) -> Self {
        self.older.push(Arc::new(other.into_subkeys()));
        self
    }

    /// Seals `plaintext` for one purpose. `context` names what the value belongs to, such as a client or a row. It is
    /// not stored, and opening needs the same context.
    pub(crate) fn seal(
        &self,
        random: &dyn Random,
        purpose: Purpose,
        context: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let nonce = random::bytes(random)?;
        let associated = envelope::associated_data(purpose, context);
        let ciphertext = aead::seal(self.primary.of(purpose), &nonce, &associated, plaintext)?;
        Ok(Envelope { key_id: self.primary.id, nonce, ciphertext: &ciphertext }.to_bytes())
    }

    /// Opens a value that [`seal`](Self::seal) sealed with one of these keys, for the same purpose and context. Returns
    /// [`ErrorKind::Sealed`] otherwise.
    pub(crate) fn open(&self, purpose: Purpose, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unreadable = || Error::new(ErrorKind::Sealed);
        let envelope = Envelope::parse(sealed).ok_or_else(unreadable)?;
        let associated = envelope::associated_data(purpose, context);
        // Two keys can have the same identifier by chance, so each matching key is tried.
        self.keys()
            .filter(|keys| keys.id == envelope.key_id)
            .find_map(|keys| aead::open(keys.of(purpose), &envelope.nonce, &associated, envelope.ciphertext).ok())
            .ok_or_else(unreadable)
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.is_ephemeral
    }

    /// The identifier of the key that seals.
    pub(crate) fn primary_id(&self) -> [u8; 4] {
        self.primary.id
    }

    /// The identifiers of the keys that open, the primary one's first.
    pub(crate) fn ids(&self) -> Vec<[u8; 4]> {
        self.keys().map(|keys| keys.id).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &Subkeys> {
        std::iter::once(&self.primary).chain(&self.older).map(Arc::as_ref)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keyring").field("primary", &self.primary).field("also_opens", &self.older).finish()
    }
}
