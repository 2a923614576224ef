//! The claims of a verified token.

use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::verified_claims::VerifiedClaimsSet;
use crate::clock::from_unix_seconds;
use crate::error::{Document, Error, Rule, Violation};

/// The claims of a verified token.
///
/// The standard claims (OpenID Connect Core 1.0 §2 and §5.1) have methods; all of them, and every other one, are in
/// [`get`](Self::get), [`as_json`](Self::as_json) and [`deserialize`](Self::deserialize). A claim in another language
/// has its tag in its name, such as `name#ja` (§5.2). `nonce` served its purpose and is left out.
///
/// Claims are personal data: `Debug` shows their names and no values.
#[derive(Clone)]
pub struct Claims {
    members: Map<String, Value>,
    times: Times,
}

/// The standard claims that are points in time, in seconds since 1970, whichever way the OP wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Times {
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    pub(super) auth_time: Option<u64>,
    pub(super) updated_at: Option<u64>,
}

impl Claims {
    /// Takes what was verified: `iss` and `sub` are strings, `aud` is one or several.
    pub(super) fn new(mut members: Map<String, Value>, times: Times) -> Self {
        members.shift_remove("nonce");
        Self { members, times }
    }

    /// `iss`: the issuer identifier of the OP.
    pub fn issuer(&self) -> &str {
        self.text("iss").unwrap_or_default()
    }

    /// `sub`: the user's identifier, unique and never reassigned at this issuer. Compare it together with
    /// [`issuer`](Self::issuer); never identify a user by e-mail address or name.
    pub fn subject(&self) -> &str {
        self.text("sub").unwrap_or_default()
    }

    /// `aud`: whom the token is for. This client is always among them.
    pub fn audience(&self) -> Vec<&str> {
        match self.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(audience)) => vec![audience],
            _ => Vec::new(),
        }
    }

    /// `iat`: when the token was issued.
    pub fn issued_at(&self) -> SystemTime {
        from_unix_seconds(self.times.issued_at)
    }

    /// `exp`: until when the token was good to be accepted. It says nothing about how long a session may last.
    pub fn expires_at(&self) -> SystemTime {
        from_unix_seconds(self.times.expires_at)
    }

    /// `auth_time`: when the user was authenticated.
    pub fn auth_time(&self) -> Option<SystemTime> {
        self.times.auth_time.map(from_unix_seconds)
    }

    /// `acr`: the class of the authentication.
    pub fn acr(&self) -> Option<&str> {
        self.text("acr")
    }

    /// `amr`: the methods of the authentication.
    pub fn amr(&self) -> Vec<&str> {
        self.get("amr").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// `azp`: the client that the token was issued to, where it is there: this one.
    pub fn azp(&self) -> Option<&str> {
        self.text("azp")
    }

    /// `name`: the full name.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// `given_name`: given or first names.
    pub fn given_name(&self) -> Option<&str> {
        self.text("given_name")
    }

    /// `family_name`: surnames.
    pub fn family_name(&self) -> Option<&str> {
        self.text("family_name")
    }

    /// `middle_name`: middle names.
    pub fn middle_name(&self) -> Option<&str> {
        self.text("middle_name")
    }

    /// `nickname`: the casual name.
    pub fn nickname(&self) -> Option<&str> {
        self.text("nickname")
    }

    /// `preferred_username`: how the user wants to be called. It is not unique and may change.
    pub fn preferred_username(&self) -> Option<&str> {
        self.text("preferred_username")
    }

    /// `profile`: the URL of the profile page.
    pub fn profile(&self) -> Option<&str> {
        self.text("profile")
    }

    /// `picture`: the URL of a picture.
    pub fn picture(&self) -> Option<&str> {
        self.text("picture")
    }

    /// `website`: the URL of a web page or blog.
    pub fn website(&self) -> Option<&str> {
        self.text("website")
    }

    /// `email`: the e-mail address. It is not unique and may change.
    pub fn email(&self) -> Option<&str> {
        self.text("email")
    }

    /// `email_verified`: whether the OP made sure that the address is the user's.
    pub fn email_verified(&self) -> Option<bool> {
        self.flag("email_verified")
    }

    /// `gender`: the gender, `female`, `male` or something else.
    pub fn gender(&self) -> Option<&str> {
        self.text("gender")
    }

    /// `birthdate`: as `YYYY-MM-DD`, with the year `0000` where it is left out, or `YYYY` alone.
    pub fn birthdate(&self) -> Option<&str> {
        self.text("birthdate")
    }

    /// `zoneinfo`: the time zone, such as `Europe/Paris`.
    pub fn zoneinfo(&self) -> Option<&str> {
        self.text("zoneinfo")
    }

    /// `locale`: the language, such as `en-US`.
    pub fn locale(&self) -> Option<&str> {
        self.text("locale")
    }

    /// `phone_number`: the telephone number.
    pub fn phone_number(&self) -> Option<&str> {
        self.text("phone_number")
    }

    /// `phone_number_verified`: whether the OP made sure that the number is the user's.
    pub fn phone_number_verified(&self) -> Option<bool> {
        self.flag("phone_number_verified")
    }

    /// `address`: the postal address.
    pub fn address(&self) -> Option<Address<'_>> {
        self.get("address").and_then(Value::as_object).map(Address)
    }

    /// `updated_at`: when these data last changed.
    pub fn updated_at(&self) -> Option<SystemTime> {
        self.times.updated_at.map(from_unix_seconds)
    }

    /// `verified_claims`: what the OP has verified, how, and by which rules (OpenID Connect for Identity Assurance 1.0). In
    /// an interim ID Token they are the claims that are verified already; nothing that the other methods return is, in any
    /// token, unless the OP documents it.
    pub fn verified_claims(&self) -> VerifiedClaimsSet<'_> {
        VerifiedClaimsSet::of(self.get("verified_claims"))
    }

    /// Any claim by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// All claims as a type of your own. Members that the type does not name are ignored.
    ///
    /// # Errors
    ///
    /// [`Rule::IdTokenClaims`] where the claims do not have the type's shape.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        // serde's message would quote the claims.
        T::deserialize(&self.members)
            .map_err(|_| Violation::new(Rule::IdTokenClaims).in_document(Document::IdToken).into())
    }

    /// All claims as a JSON object.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.members
    }

    pub(super) fn times(&self) -> Times {
        self.times
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// Some OPs write truth values as strings.
    fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => text.parse().ok(),
            _ => None,
        }
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Claims ")?;
        formatter.debug_set().entries(self.members.keys()).finish()
    }
}

/// A postal address (OpenID Connect Core 1.0 §5.1.1). `Debug` shows the names of its parts only.
#[derive(Clone, Copy)]
pub struct Address<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Address<'a> {
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
