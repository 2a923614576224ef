//! Stored values: one way to seal and open them, and how their parts are written as JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};
use crate::keyring::{Keyring, Purpose};
use crate::random::Random;
use crate::secret::SecretBuffer;

mod fields;
mod time;

pub(crate) use fields::{
    dpop_key, id_token, interim, no_bytes, optional_id_token, optional_secret, secret, secret_bytes,
};
pub(crate) use time::{duration_milliseconds, milliseconds, optional_duration_milliseconds, optional_seconds, seconds};

/// A value that is stored in an envelope, as JSON with the version of its form.
///
/// A member that is added later has a default, so that older values still open. Increment the version only if older code
/// must not open the value.
pub(crate) trait Sealable: Serialize + DeserializeOwned {
    const PURPOSE: Purpose;
    /// The newest version that this release writes.
    const VERSION: u8;
    /// The oldest version that this release opens.
    const OLDEST: u8 = Self::VERSION;

    /// The version that this value was written with.
    fn version(&self) -> u8;
}

/// Seals a value. `context` names what it belongs to, such as a row; opening needs the same context.
pub(crate) fn seal<T: Sealable>(
    keyring: &Keyring,
    random: &dyn Random,
    context: &[u8],
    value: &T,
) -> Result<Vec<u8>, Error> {
    keyring.seal(random, T::PURPOSE, context, &to_json(value)?)
}

/// Opens a value that [`seal`] sealed. Returns [`ErrorKind::Sealed`] if the bytes were altered, are of another kind, or
/// were sealed with another key or in another version.
pub(crate) fn open<T: Sealable>(keyring: &Keyring, context: &[u8], sealed: &[u8]) -> Result<T, Error> {
    let value: T = from_json(&keyring.open(T::PURPOSE, context, sealed)?)?;
    let is_known = (T::OLDEST..=T::VERSION).contains(&value.version());
    if is_known { Ok(value) } else { Err(Error::new(ErrorKind::Sealed)) }
}

/// The plaintext of an envelope; it is overwritten when dropped.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut json = SecretBuffer::with_capacity(2048);
    // The error is not used, because it could contain the value.
    serde_json::to_writer(&mut json, value).map_err(|_| Error::new(ErrorKind::Sealed))?;
    Ok(json.into_bytes())
}

pub(crate) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|_| Error::new(ErrorKind::Sealed))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::random::SystemRandom;

    #[derive(Debug, Serialize, Deserialize)]
    struct Value {
        version: u8,
    }

    impl Sealable for Value {
        const PURPOSE: Purpose = Purpose::Registration;
        const VERSION: u8 = 2;

        fn version(&self) -> u8 {
            self.version
        }
    }

    #[test]
    fn a_value_opens_in_its_context_and_version_only() {
        let keyring = Keyring::ephemeral().unwrap();
        let sealed = |version| seal(&keyring, &SystemRandom, b"row 1", &Value { version }).unwrap();
        assert_eq!(open::<Value>(&keyring, b"row 1", &sealed(2)).unwrap().version, 2);
        for (context, version) in [("row 2", 2), ("row 1", 1), ("row 1", 3)] {
            let error = open::<Value>(&keyring, context.as_bytes(), &sealed(version)).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Sealed), "{context}, version {version}");
        }
    }
}
