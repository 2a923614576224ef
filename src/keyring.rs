//! Sealed envelopes: what this crate hands out to be kept elsewhere, in a cookie or a database row.

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

use envelope::Envelope;
use sealing_key::Subkeys;

/// The keys that seal and open what this crate gives away for keeping: authorization sessions in cookies, waiting
/// processes and their results in databases.
///
/// The primary key seals, all keys open. To rotate, first roll a new key out with [`also_opens`](Self::also_opens) to
/// every instance of the application, then make it the primary one, and drop the old one when nothing that it sealed
/// is left. So no instance ever meets a key that it does not know.
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
/// Each use has a key of its own, derived from these. One key seals four thousand million values before the chance
/// that two of them share a nonce is worth a thought (NIST SP 800-38D §8.3); rotate long before.
///
/// Clones share the keys. `Debug` shows their identifiers, which say nothing about the keys.
#[derive(Clone)]
pub struct Keyring {
    primary: Arc<Subkeys>,
    older: Vec<Arc<Subkeys>>,
    is_ephemeral: bool,
}

/// What a sealed value is for. A value sealed for one purpose does not open for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What ties the user's return to the browser that was sent out.
    AuthorizationSession,
    /// A process that waits for its outcome.
    PendingAuthentication,
    /// A final outcome with its tokens.
    Authentication,
    /// A row of the durable floor.
    Process,
    /// What the OP gave a client that was registered.
    Registration,
}

impl Keyring {
    /// A keyring with one key, which seals and opens.
    pub fn new(primary: SealingKey) -> Self {
        Self { primary: Arc::new(primary.into_subkeys()), older: Vec::new(), is_ephemeral: false }
    }

    /// A keyring with a new key that nobody keeps: what it seals is lost with this process. A
    /// [`Poller`](crate::Poller) takes it only with a store that is lost as well.
    ///
    /// # Errors
    ///
    /// When the operating system gives no randomness.
    pub fn ephemeral() -> Result<Self, Error> {
        Ok(Self { is_ephemeral: true, ..Self::new(SealingKey::generate(&random::SystemRandom)?) })
    }

    /// Adds a key that opens and does not seal: one that was the primary key, or one that is going to be.
    #[must_use = "the keyring with the key in it is returned"]
    pub fn also_opens(mut self, other: SealingKey) -> Self {
        self.older.push(Arc::new(other.into_subkeys()));
        self
    }

    /// Seals `plaintext` for one purpose. `context` is what the value belongs to, such as a client or a row; it is
    /// not stored, and opening needs the same one.
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

    /// Opens what [`seal`](Self::seal) made with one of these keys, for the same purpose and context;
    /// [`ErrorKind::Sealed`] for anything else.
    pub(crate) fn open(&self, purpose: Purpose, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unreadable = || Error::new(ErrorKind::Sealed);
        let envelope = Envelope::parse(sealed).ok_or_else(unreadable)?;
        let associated = envelope::associated_data(purpose, context);
        // Two keys can have one identifier by chance, so each with the right one is tried.
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
