//! Values that must not leak: zeroized when dropped, redacted when formatted, compared in constant time.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// A text that must not leak: a client secret, a token, a code.
///
/// It is overwritten in memory when dropped. `Debug` prints `[redacted]`, and there is no `Display` and no `Serialize`.
/// `==` takes the same time wherever two secrets of one length differ. [`expose`](Self::expose) is the only way to read
/// it, so that all uses can be found by a search.
///
/// ```
/// let secret = openid_deferred::Secret::new("correct horse");
/// assert_eq!(format!("{secret:?}"), "[redacted]");
/// assert_eq!(secret.expose(), "correct horse");
/// ```
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Creates a secret from a text.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// Returns the text. Do not log it, and do not keep copies.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl ZeroizeOnDrop for Secret {}

/// A secret that can be replaced while it is in use. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct SharedSecret(Arc<RwLock<Arc<Secret>>>);

impl SharedSecret {
    pub(crate) fn current(&self) -> Arc<Secret> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace(&self, secret: Secret) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secret);
    }
}

impl From<Secret> for SharedSecret {
    fn from(secret: Secret) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(secret))))
    }
}

/// Bytes that are overwritten in memory when they are dropped, and also when the buffer grows. A `Vec` that grows
/// leaves a copy of its old contents in freed memory.
pub(crate) struct SecretBuffer(Zeroizing<Vec<u8>>);

impl SecretBuffer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let needed = self.0.len().saturating_add(bytes.len());
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.0.capacity().saturating_mul(2))));
            larger.extend_from_slice(&self.0);
            // The old bytes are overwritten here.
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl io::Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Overwrites every text in a JSON value, such as the private parts of a JWK.
pub(crate) fn erase(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => text.zeroize(),
        serde_json::Value::Array(values) => values.iter_mut().for_each(erase),
        serde_json::Value::Object(members) => members.values_mut().for_each(erase),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

/// Whether two byte strings are equal, in a time that depends only on their lengths.
pub(crate) fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_redacted_in_debug_output_even_inside_other_types() {
        let wrapped = Some(vec![Secret::new("hunter2")]);
        assert!(!format!("{wrapped:?} {wrapped:#?}").contains("hunter2"));
    }

    #[test]
    fn a_buffer_keeps_its_content_when_it_grows() {
        let mut buffer = SecretBuffer::with_capacity(3);
        let pieces: Vec<Vec<u8>> = (0..40).map(|length| vec![length; length.into()]).collect();
        pieces.iter().for_each(|piece| buffer.extend(piece));
        assert_eq!(buffer.len(), 780);
        assert_eq!(*buffer.into_bytes(), pieces.concat());
    }

    #[test]
    fn erasing_a_value_leaves_no_text_in_it() {
        let mut value = serde_json::json!({"d": "private", "others": [{"deep": "private"}], "n": 7});
        erase(&mut value);
        assert_eq!(value, serde_json::json!({"d": "", "others": [{"deep": ""}], "n": 7}));
    }

    #[test]
    fn secrets_are_compared_by_their_text() {
        assert_eq!(Secret::new("a"), Secret::from("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }
}
