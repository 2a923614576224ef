//! A private key as a JWK (RFC 7517), which is overwritten in memory when it was read.

use std::ops::Deref;

use josekit::jwk::Jwk;
use serde_json::{Map, Value};

use crate::secret::erase;

pub(super) struct PrivateJwk(Map<String, Value>);

impl PrivateJwk {
    /// `None` for what is no JSON object.
    pub(super) fn read(json: &str) -> Option<Self> {
        let mut members: Map<String, Value> = serde_json::from_str(json).ok()?;
        // josekit refuses what is `null`, which is absent.
        members.retain(|_, value| !value.is_null());
        Some(Self(members))
    }

    /// Lets josekit read the key. `None` where it is none, or none that `read` makes something of.
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
