//! Values that must not leak: zeroized when dropped, redacted when formatted, compared in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A text that must not leak: a client secret, a token, a code.
///
/// It is overwritten in memory when dropped, `Debug` prints `[redacted]`, it has no `Display` and no `Serialize`, and
/// `==` takes the same time wherever two secrets of one length differ. [`expose`](Self::expose) is the one way to
/// read it, so that every use can be searched for.
///
/// ```
/// let secret = openid_deferred::Secret::new("correct horse");
/// assert_eq!(format!("{secret:?}"), "[redacted]");
/// assert_eq!(secret.expose(), "correct horse");
/// ```
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into safe keeping.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The text itself. Do not log it and do not keep copies.
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

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
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
    fn secrets_compare_by_their_text() {
        assert_eq!(Secret::new("a"), Secret::from("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }
}
