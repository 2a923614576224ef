//! The identifier of a sign-in.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Error;
use crate::random::{self, Random};

/// The identifier of one sign-in in the durable poller: 128 random bits.
///
/// It is created before anything is sent, and never changes. Store it with the account or order that needs the outcome.
///
/// It is displayed, parsed, serialized and deserialized as 22 characters of base64url. It is not a secret, because it grants no access.
///
/// ```
/// use openid_deferred::store::ProcessId;
///
/// let id: ProcessId = "AAECAwQFBgcICQoLDA0ODw".parse()?;
/// assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
/// assert!("not an id".parse::<ProcessId>().is_err());
/// # Ok::<(), openid_deferred::store::ParseProcessIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId([u8; 16]);

impl ProcessId {
    pub(crate) fn mint(random: &dyn Random) -> Result<Self, Error> {
        Ok(Self(random::bytes(random)?))
    }

    /// Creates the identifier with these bytes, for stores.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, for stores.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// The error for a text that is not a [`ProcessId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a process id, which has 22 characters of base64url")]
pub struct ParseProcessIdError;

impl FromStr for ProcessId {
    type Err = ParseProcessIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseProcessIdError)?;
        bytes.try_into().map(Self).map_err(|_| ParseProcessIdError)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Serialize for ProcessId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProcessId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl fmt::Debug for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ProcessId({self})")
    }
}
