//! Postal addresses.

use std::fmt;

use serde_json::{Map, Value};

/// A postal address (OpenID Connect Core 1.0 §5.1.1). `Debug` shows the names of its parts only.
#[derive(Clone, Copy)]
pub struct Address<'a>(&'a Map<String, Value>);

impl<'a> Address<'a> {
    pub(crate) fn of(claim: &'a Value) -> Option<Self> {
        claim.as_object().map(Self)
    }

    /// Whether each of the parts is a text.
    pub(super) fn is_well_formed(&self) -> bool {
        let parts = ["formatted", "street_address", "locality", "region", "postal_code", "country"];
        parts.into_iter().all(|part| matches!(self.0.get(part), None | Some(Value::Null | Value::String(_))))
    }

    /// The whole address as it stands on an envelope, in several lines.
    pub fn formatted(&self) -> Option<&'a str> {
        self.text("formatted")
    }

    /// Street and house number, in one or several lines.
    pub fn street_address(&self) -> Option<&'a str> {
        self.text("street_address")
    }

    /// The city or place.
    pub fn locality(&self) -> Option<&'a str> {
        self.text("locality")
    }

    /// The state, province or region.
    pub fn region(&self) -> Option<&'a str> {
        self.text("region")
    }

    /// The postal code.
    pub fn postal_code(&self) -> Option<&'a str> {
        self.text("postal_code")
    }

    /// The country.
    pub fn country(&self) -> Option<&'a str> {
        self.text("country")
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }
}

impl fmt::Debug for Address<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Address ")?;
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
