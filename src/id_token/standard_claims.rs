//! The standard claims (OpenID Connect Core 1.0 §5.1) and their types: one table for the accessors of ID Tokens and
//! UserInfo responses, and for what is said about claims of other types.
//!
//! A claim that no check needs is returned unchanged. Its accessor gives `None` where the claim is missing and where it
//! has another type; `malformed` tells the two apart.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::address::Address;
use super::numeric_date::numeric_date;
use super::rfc_3339;
use crate::clock::from_unix_seconds;
use crate::error::Document;
use crate::text;

/// The type that a claim must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimType {
    /// A string.
    Text,
    /// An array of strings.
    Texts,
    /// A string, or an array of strings.
    Audience,
    /// A boolean. Some OPs write `"true"` and `"false"`.
    Flag,
    /// A number of seconds since 1970.
    Time,
    /// The same, or a date and time of RFC 3339, which some OPs write.
    TimeOrText,
    /// An object whose standard members are strings.
    Address,
    /// Any object.
    Object,
}

/// A table of claims with their types.
pub(crate) type ClaimTypes = [(&'static str, ClaimType)];

impl ClaimType {
    fn fits(self, value: &Value) -> bool {
        let are_texts = |values: &Vec<Value>| values.iter().all(Value::is_string);
        match self {
            Self::Text => value.is_string(),
            Self::Texts => value.as_array().is_some_and(are_texts),
            Self::Audience => value.is_string() || value.as_array().is_some_and(are_texts),
            Self::Flag => flag(value).is_some(),
            Self::Time => numeric_date(value).is_some(),
            Self::TimeOrText => time_or_text(value).is_some(),
            Self::Address => Address::of(value).is_some_and(|address| address.is_well_formed()),
            Self::Object => value.is_object(),
        }
    }
}

/// The names of claims whose value is not of the type in the tables. `null` counts as absent. A claim in another language
/// (§5.2) has the type of the claim itself.
pub(crate) fn malformed_claims<'a, const N: usize>(
    members: &'a Map<String, Value>,
    tables: [&'static ClaimTypes; N],
) -> impl Iterator<Item = &'a str> {
    members.iter().filter(|(_, value)| !value.is_null()).filter_map(move |(name, value)| {
        let base = name.split_once('#').map_or(name.as_str(), |(base, _)| base);
        let known = tables.iter().copied().flatten().find(|(known, _)| *known == base);
        known.filter(|(_, claim_type)| !claim_type.fits(value)).map(|_| name.as_str())
    })
}

/// How many names a warning has, and how many characters of each: a language tag may be anything.
const NAMES_SHOWN: usize = 10;
const NAME_SHOWN: usize = 40;

/// Logs the names of claims that have an unexpected type. Values are never logged, because they are personal data.
pub(crate) fn warn_about_malformed<'a>(document: Document, names: impl Iterator<Item = &'a str>) {
    if let Some(claims) = shown(names) {
        tracing::warn!(%claims, "claims in {document} do not have the type that they must have; they are returned unchanged");
    }
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut shown = String::new();
    for (number, name) in names.enumerate() {
        if number == NAMES_SHOWN {
            shown.push_str(", …");
            break;
        }
        if number > 0 {
            shown.push_str(", ");
        }
        shown.extend(name.chars().take(NAME_SHOWN));
    }
    text::untrusted(&shown)
}

/// The value of a claim that is a truth value.
pub(crate) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// The value of a claim that is a point in time.
pub(crate) fn time_or_text(value: &Value) -> Option<SystemTime> {
    match value {
        Value::String(text) => rfc_3339::parse(text),
        value => numeric_date(value).map(from_unix_seconds),
    }
}

/// A claim in every language that it came in.
pub(crate) fn in_languages<'a>(
    members: &'a Map<String, Value>,
    claim: &'a str,
) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
    members.iter().filter_map(move |(name, value)| {
        let tag = match name.strip_prefix(claim)? {
            "" => None,
            rest => Some(rest.strip_prefix('#')?),
        };
        Some((tag, value.as_str()?))
    })
}

/// Hands the table to another macro, behind the tokens that are given.
macro_rules! standard_claims {
    ($macro:ident! $($before:tt)*) => {
        $macro! { $($before)*
            /// `name`: the full name.
            name: Text,
            /// `given_name`: given or first names.
            given_name: Text,
            /// `family_name`: surnames.
            family_name: Text,
            /// `middle_name`: middle names.
            middle_name: Text,
            /// `nickname`: the casual name.
            nickname: Text,
            /// `preferred_username`: how the user wants to be called. It is not unique and may change.
            preferred_username: Text,
            /// `profile`: the URL of the profile page.
            profile: Text,
            /// `picture`: the URL of a picture.
            picture: Text,
            /// `website`: the URL of a web page or blog.
            website: Text,
            /// `email`: the e-mail address. It is not unique and may change.
            email: Text,
            /// `email_verified`: whether the OP made sure that the address is the user's.
            email_verified: Flag,
            /// `gender`: the gender, `female`, `male` or something else.
            gender: Text,
            /// `birthdate`: as `YYYY-MM-DD`, with the year `0000` where it is left out, or `YYYY` alone.
            birthdate: Text,
            /// `zoneinfo`: the time zone, such as `Europe/Paris`.
            zoneinfo: Text,
            /// `locale`: the language, such as `en-US`.
            locale: Text,
            /// `phone_number`: the telephone number.
            phone_number: Text,
            /// `phone_number_verified`: whether the OP made sure that the number is the user's.
            phone_number_verified: Flag,
            /// `address`: the postal address.
            address: Address,
            /// `updated_at`: when these data last changed.
            updated_at: TimeOrText,
        }
    };
}

macro_rules! claim_table {
    ($($(#[$doc:meta])* $name:ident: $claim_type:ident,)*) => {
        /// The standard claims about the user.
        pub(crate) const STANDARD: &ClaimTypes = &[$((stringify!($name), ClaimType::$claim_type),)*];
    };
}

standard_claims!(claim_table!);

/// Gives a type with an `as_json` the accessors of the standard claims.
macro_rules! claim_accessors {
    ($type:ident $($(#[$doc:meta])* $name:ident: $claim_type:ident,)*) => {
        impl $type {
            $($crate::id_token::claim_accessor!($claim_type $(#[$doc])* $name);)*
        }
    };
}

macro_rules! claim_accessor {
    (Text $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> Option<&str> {
            self.as_json().get(stringify!($name))?.as_str()
        }
    };
    (Flag $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> Option<bool> {
            $crate::id_token::flag(self.as_json().get(stringify!($name))?)
        }
    };
    (TimeOrText $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> Option<std::time::SystemTime> {
            $crate::id_token::time_or_text(self.as_json().get(stringify!($name))?)
        }
    };
    (Address $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> Option<$crate::id_token::Address<'_>> {
            $crate::id_token::Address::of(self.as_json().get(stringify!($name))?)
        }
    };
}

pub(crate) use {claim_accessor, claim_accessors, standard_claims};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_malformed_claims_briefly_and_in_harmless_characters() {
        assert_eq!(shown(std::iter::empty()), None);
        let long = format!("name#{}", "x".repeat(10_000));
        let names = ["amr", "given_name#\u{1b}[31m\u{202e}ja\n", &long].into_iter().chain(["email#a"; 1_000]);
        let text = shown(names).unwrap();
        assert!(text.starts_with("amr, given_name#[31mja, name#xxx"), "{text}");
        assert!(text.ends_with(", …") && text.len() < 200, "{text}");
    }
}
