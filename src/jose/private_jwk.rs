//! A private key as a JWK (RFC 7517) that is erased from memory when it is dropped.

use std::ops::Deref;

use josekit::jwk::Jwk;
use serde_json::{Map, Value};

use crate::secret::erase;

pub(super) struct PrivateJwk(Map<String, Value>);

impl PrivateJwk {
    /// `None` if it is not a JSON object.
    pub(super) fn read(json: &str) -> Option<Self> {
        let mut members: Map<String, Value> = serde_json::from_str(json).ok()?;
        // josekit refuses `null`, which counts as absent here.
        members.retain(|_, value| !value.is_null());
        Some(Self(members))
    }

    /// Passes the key to josekit. `None` if it is not a valid key, or if `read` fails.
    pub(super) fn with_josekit<T>(&self, read: impl FnOnce(&Jwk) -> Option<T>) -> Option<T> {
        // `from_map` checks the shapes that josekit's accessors rely on.
        let jwk = Jwk::from_map(self.0.clone()).ok()?;
        let made = read(&jwk);
        drop(Self(jwk.into()));
        made
    }
}

impl Deref for PrivateJwk {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for PrivateJwk {
    fn drop(&mut self) {
        self.0.values_mut().for_each(erase);
    }
}
