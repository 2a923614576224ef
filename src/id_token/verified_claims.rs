//! `verified_claims`: which claims the OP has verified, how, and by which rules (OpenID Connect for Identity Assurance
//! 1.0; OpenID Identity Assurance Schema Definition 1.0). DTR §Interim ID Tokens names them first among the ways to
//! distinguish validated claims from the others.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::address::Address;
use super::standard_claims::{ClaimType, ClaimTypes, STANDARD, malformed_claims};
use crate::error::{Document, Error, Rule, Violation};

mod evidence;
#[cfg(test)]
mod tests;
mod verification;

pub use evidence::{
    DocumentEvidence, ElectronicRecordEvidence, ElectronicSignatureEvidence, Evidence, EvidenceCheck, OtherEvidence,
    VouchEvidence,
};
pub use verification::{AssuranceProcess, Verification};

/// More than any token has. Further elements are reported and not read.
const LIMIT: usize = 64;

/// The verified claims of a token or of a UserInfo response: the elements that follow the rules, and a report of the
/// others.
///
/// An element that breaks a rule is never among the usable ones. It invalidates nothing else: the token around it was
/// verified, and one badly written piece of evidence must not end a sign-in of three weeks. An application that needs
/// verified claims must check that they are present. It can treat malformed elements as missing.
///
/// ```
/// # fn example(authentication: &openid_deferred::Authentication) -> Option<()> {
/// let verified = authentication.claims().verified_claims();
/// let element = verified.under("de_aml").next()?; // the rules that this application accepts
/// println!("{:?} was born on {:?}", element.family_name(), element.birthdate());
/// println!("seen at {:?}", element.verification().time());
/// # Some(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct VerifiedClaimsSet<'a> {
    elements: Vec<VerifiedClaims<'a>>,
    malformed: Vec<MalformedVerifiedClaims>,
}

/// One element of `verified_claims` that does not follow the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedVerifiedClaims {
    position: usize,
    problem: VerifiedClaimsProblem,
}

/// What is wrong with an element of `verified_claims`.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifiedClaimsProblem {
    /// It is neither an object nor, as a whole, a list of objects that is not empty.
    #[error("it is not an object, or the list is empty")]
    NotAnObject,
    /// It has no `verification`, or none that is an object.
    #[error("`verification` is missing or not an object")]
    NoVerification,
    /// The rules by which the claims were verified are missing.
    #[error("`trust_framework` is missing or not a string")]
    NoTrustFramework,
    /// It has no `claims`, or none that is an object.
    #[error("`claims` is missing or not an object")]
    NoClaims,
    /// A member of `verification` has an invalid value.
    #[error("`{0}` has an invalid value")]
    InvalidMember(&'static str),
    /// There are more elements than are read.
    #[error("there are too many elements; further ones are ignored")]
    TooMany,
}

impl MalformedVerifiedClaims {
    /// Its position in the list, from 0; also 0 if `verified_claims` is not a list.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What is wrong with it.
    pub fn problem(&self) -> VerifiedClaimsProblem {
        self.problem
    }
}

impl fmt::Display for MalformedVerifiedClaims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "element {} of `verified_claims`: {}", self.position, self.problem)
    }
}

impl<'a> VerifiedClaimsSet<'a> {
    /// Reads the claim `verified_claims`: an object, or a list of objects.
    pub(crate) fn of(claim: Option<&'a Value>) -> Self {
        let mut set = Self::default();
        let elements = match claim {
            None | Some(Value::Null) => return set,
            Some(Value::Array(elements)) if !elements.is_empty() => elements.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        for (position, element) in elements.iter().enumerate() {
            if position == LIMIT {
                set.malformed.push(MalformedVerifiedClaims { position, problem: VerifiedClaimsProblem::TooMany });
                break;
            }
            match VerifiedClaims::of(element) {
                Ok(element) => set.elements.push(element),
                Err(problem) => set.malformed.push(MalformedVerifiedClaims { position, problem }),
            }
        }
        set
    }

    /// The usable elements, in their order.
    pub fn iter(&self) -> impl Iterator<Item = VerifiedClaims<'a>> {
        self.elements.iter().copied()
    }

    /// The usable elements that were verified under this trust framework. Use only frameworks whose rules you know.
    pub fn under(&self, trust_framework: &str) -> impl Iterator<Item = VerifiedClaims<'a>> {
        self.iter().filter(move |element| element.verification().trust_framework() == trust_framework)
    }

    /// Whether there is no usable element.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// How many usable elements there are.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// The unusable elements. Report them to the OP.
    pub fn malformed(&self) -> &[MalformedVerifiedClaims] {
        &self.malformed
    }
}

impl<'a> IntoIterator for VerifiedClaimsSet<'a> {
    type Item = VerifiedClaims<'a>;
    type IntoIter = std::vec::IntoIter<VerifiedClaims<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.elements.into_iter()
    }
}

/// Claims that the OP has verified together, and how it verified them.
///
/// Only the claims in this element are verified. A claim of the same name elsewhere in the token is not, even if it has
/// the same value, and no method here reads it. The element may have no claims; then the OP only states that a person was
/// verified. `Debug` shows names and no values.
#[derive(Clone, Copy)]
pub struct VerifiedClaims<'a> {
    verification: Verification<'a>,
    claims: &'a Map<String, Value>,
}

/// OpenID Connect for Identity Assurance Claims Registration 1.0 §Additional claims about end-users.
const OF_IDENTITY_ASSURANCE: &ClaimTypes = &[
    ("birth_family_name", ClaimType::Text),
    ("birth_given_name", ClaimType::Text),
    ("birth_middle_name", ClaimType::Text),
    ("place_of_birth", ClaimType::Object),
    ("nationalities", ClaimType::Texts),
    ("salutation", ClaimType::Text),
    ("title", ClaimType::Text),
    ("msisdn", ClaimType::Text),
    ("also_known_as", ClaimType::Text),
];

impl<'a> VerifiedClaims<'a> {
    fn of(element: &'a Value) -> Result<Self, VerifiedClaimsProblem> {
        let element = element.as_object().ok_or(VerifiedClaimsProblem::NotAnObject)?;
        let verification = element.get("verification").and_then(Value::as_object);
        let verification = Verification::of(verification.ok_or(VerifiedClaimsProblem::NoVerification)?)?;
        let claims = element.get("claims").and_then(Value::as_object).ok_or(VerifiedClaimsProblem::NoClaims)?;
        Ok(Self { verification, claims })
    }

    /// How, when and by which rules these claims were verified.
    pub fn verification(&self) -> Verification<'a> {
        self.verification
    }

    /// `name`: the full name.
    pub fn name(&self) -> Option<&'a str> {
        self.text("name")
    }

    /// `given_name`: given or first names.
    pub fn given_name(&self) -> Option<&'a str> {
        self.text("given_name")
    }

    /// `family_name`: surnames.
    pub fn family_name(&self) -> Option<&'a str> {
        self.text("family_name")
    }

    /// `birth_family_name`: surnames at birth.
    pub fn birth_family_name(&self) -> Option<&'a str> {
        self.text("birth_family_name")
    }

    /// `birthdate`: as `YYYY-MM-DD`, with the year `0000` where it is left out, or `YYYY` alone.
    pub fn birthdate(&self) -> Option<&'a str> {
        self.text("birthdate")
    }

    /// `place_of_birth`: such as `country`, `region` and `locality`.
    pub fn place_of_birth(&self) -> Option<&'a Map<String, Value>> {
        self.get("place_of_birth")?.as_object()
    }

    /// `nationalities`: as codes of ICAO 9303 or ISO 3166-1.
    pub fn nationalities(&self) -> Vec<&'a str> {
        self.get("nationalities").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// `address`: the postal address.
    pub fn address(&self) -> Option<Address<'a>> {
        self.get("address").and_then(Address::of)
    }

    /// `email`: the e-mail address.
    pub fn email(&self) -> Option<&'a str> {
        self.text("email")
    }

    /// `phone_number`: the telephone number.
    pub fn phone_number(&self) -> Option<&'a str> {
        self.text("phone_number")
    }

    /// The names of the claims in this element whose value has the wrong type. `null` counts as absent.
    pub fn malformed(&self) -> impl Iterator<Item = &'a str> {
        malformed_claims(self.claims, [STANDARD, OF_IDENTITY_ASSURANCE])
    }

    /// Any of these claims by its name.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.claims.get(name)
    }

    /// All of these claims.
    pub fn as_json(&self) -> &'a Map<String, Value> {
        self.claims
    }

    /// These claims as a type of your own. Members that the type does not name are ignored.
    ///
    /// # Errors
    ///
    /// [`Rule::IdTokenClaims`] if the claims cannot be deserialized into the type.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        // serde's message would contain claims.
        T::deserialize(self.claims)
            .map_err(|_| Violation::new(Rule::IdTokenClaims).in_document(Document::IdToken).into())
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_str()
    }
}

impl fmt::Debug for VerifiedClaims<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerifiedClaims")
            .field("trust_framework", &self.verification.trust_framework())
            .field("claims", &self.claims.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
