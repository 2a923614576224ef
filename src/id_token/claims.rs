//! The claims of a verified token.

use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::standard_claims::{
    ClaimType, ClaimTypes, STANDARD, claim_accessors, in_languages, malformed_claims, standard_claims,
};
use super::verified_claims::VerifiedClaimsSet;
use crate::clock::from_unix_seconds;
use crate::error::{Document, Error, Rule, Violation};

/// The claims of a verified token.
///
/// The standard claims (OpenID Connect Core 1.0 §2 and §5.1) have methods. [`get`](Self::get),
/// [`as_json`](Self::as_json) and [`deserialize`](Self::deserialize) return every claim. The name of a claim in another
/// language contains its tag, such as `name#ja` (§5.2); see [`in_languages`](Self::in_languages). `nonce` is omitted,
/// because it was checked.
///
/// Only claims that a check needs can make a token invalid. Any other claim with the wrong type is kept unchanged: its
/// method returns `None`, [`get`](Self::get) returns it, and [`malformed`](Self::malformed) names it.
///
/// ```
/// # fn example(claims: &openid_deferred::Claims) {
/// match claims.email_verified() {
///     Some(true) => println!("a verified address: {:?}", claims.email()),
///     None if claims.malformed().any(|name| name == "email_verified") => println!("ask the OP what it means by this"),
///     _ => println!("the address is not verified"),
/// }
/// # }
/// ```
///
/// Claims are personal data: `Debug` shows their names and no values.
#[derive(Clone)]
pub struct Claims {
    members: Map<String, Value>,
    times: Times,
}

/// The times that checks need, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Times {
    pub(super) issued_at: u64,
    pub(super) expires_at: u64,
    pub(super) auth_time: Option<u64>,
}

/// The claims of ID Tokens that may have any type unless a check needs them.
const OF_ID_TOKENS: &ClaimTypes = &[
    ("auth_time", ClaimType::Time),
    ("acr", ClaimType::Text),
    ("amr", ClaimType::Texts),
    ("at_hash", ClaimType::Text),
    ("c_hash", ClaimType::Text),
    ("jti", ClaimType::Text),
    ("sid", ClaimType::Text),
];

impl Claims {
    /// From verified claims: `iss` and `sub` are strings, `aud` is one string or several.
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

    /// `aud`: the audiences of the token. This client is always among them.
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

    /// `exp`: the time after which the token must not be accepted. It does not limit the user's session.
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

    /// `sid`: the session at the OP, for OPs that [end sessions](crate::logout) by it (OpenID Connect Back-Channel Logout
    /// 1.0 §2.1). Store it with the user's session, together with [`issuer`](Self::issuer) and
    /// [`subject`](Self::subject).
    pub fn sid(&self) -> Option<&str> {
        self.text("sid")
    }

    /// `azp`: the client that the token was issued to, if present: this client.
    pub fn azp(&self) -> Option<&str> {
        self.text("azp")
    }

    /// `verified_claims`: what the OP has verified, how, and by which rules (OpenID Connect for Identity Assurance
    /// 1.0). In an interim ID Token these are the claims that are already verified. The claims that other methods
    /// return are not verified, in any token, unless the OP documents that.
    pub fn verified_claims(&self) -> VerifiedClaimsSet<'_> {
        VerifiedClaimsSet::of(self.get("verified_claims"))
    }

    /// The names of the claims whose value has the wrong type, such as an `email_verified` of `"perhaps"`. `null`
    /// counts as absent.
    pub fn malformed(&self) -> impl Iterator<Item = &str> {
        malformed_claims(&self.members, [STANDARD, OF_ID_TOKENS])
    }

    /// The variants of a string claim, such as `name`, each with its language tag. The default variant has no tag
    /// (OpenID Connect Core 1.0 §5.2).
    pub fn in_languages<'a>(&'a self, claim: &'a str) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
        in_languages(&self.members, claim)
    }

    /// Any claim by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// All claims as a type of your own. Members that the type does not name are ignored.
    ///
    /// # Errors
    ///
    /// [`Rule::IdTokenClaims`] if the claims cannot be deserialized into the type.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        // serde's message would contain claims.
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
}

standard_claims!(claim_accessors! Claims);

impl fmt::Debug for Claims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Claims ")?;
        formatter.debug_set().entries(self.members.keys()).finish()
    }
}
