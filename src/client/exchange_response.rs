//! DTR §Successful Deferred Code Exchange Response.

use serde_json::Value;
use zeroize::Zeroize as _;

use super::seconds::{Rounding, check_seconds, seconds};
use crate::error::{Document, Rule, Violation};
use crate::id_token::{InterimFingerprint, InterimMember};
use crate::json::{self, Object};
use crate::pending::{Times, UnverifiedInterim};
use crate::secret::Secret;

/// A parsed Successful Deferred Code Exchange Response.
pub(super) struct Exchanged {
    pub(super) deferred_auth_id: Secret,
    pub(super) times: Times,
    pub(super) interim: InterimMembers,
    pub(super) access_token: Option<Secret>,
}

/// The values of the members that can hold the interim ID Token.
#[derive(Default)]
pub(super) struct InterimMembers {
    /// The different tokens of each member.
    interim_id_token: Vec<Secret>,
    id_token: Vec<Secret>,
    /// A member has a value that is not a token.
    has_others: bool,
}

impl InterimMembers {
    /// The base draft calls the early token `id_token`, the text of February 2026 `interim_id_token`.
    fn read(object: &Object) -> Self {
        let mut members = Self::default();
        for (name, tokens) in [("interim_id_token", &mut members.interim_id_token), ("id_token", &mut members.id_token)]
        {
            for value in object.values(name) {
                match value {
                    Value::Null => {}
                    Value::String(text) if !text.is_empty() => {
                        let token = Secret::new(text.as_str());
                        if !tokens.contains(&token) {
                            tokens.push(token);
                        }
                    }
                    _ => members.has_others = true,
                }
            }
        }
        members
    }

    /// The fingerprint of all of them. None of them may be used as the final token.
    pub(super) fn fingerprint(&self) -> Option<InterimFingerprint> {
        let mut tokens = self.interim_id_token.iter().chain(&self.id_token);
        let mut fingerprint = InterimFingerprint::new(tokens.next()?.expose());
        tokens.for_each(|token| fingerprint.add(token.expose()));
        Some(fingerprint)
    }

    /// The only token, or the rule that rejects the members. The code is spent, so nothing about them may end the
    /// sign-in.
    pub(super) fn judged(self) -> Option<Result<UnverifiedInterim, Rule>> {
        let one = |token: &Secret, member| Some(Ok(UnverifiedInterim { token: token.clone(), member }));
        match (&*self.interim_id_token, &*self.id_token) {
            ([], []) if self.has_others => Some(Err(Rule::IdTokenMalformed)),
            ([], []) => None,
            ([token], []) => one(token, InterimMember::InterimIdToken),
            ([], [token]) => one(token, InterimMember::IdToken),
            ([token], [other]) if token == other => one(token, InterimMember::InterimIdToken),
            ([_], [_]) => Some(Err(Rule::TwoInterimIdTokens)),
            _ => Some(Err(Rule::RepeatedMember)),
        }
    }
}

impl Exchanged {
    pub(super) fn parse(body: &[u8], strict: bool) -> Result<Self, Violation> {
        const DOCUMENT: Document = Document::ExchangeResponse;
        let object = Object::document(body, DOCUMENT)?;
        let interim = InterimMembers::read(&object);
        // "Clients MUST ignore unrecognized response parameters."
        let mut members = object.needing(&["deferred_auth_id"]).map_err(|flaw| json::flawed(DOCUMENT, flaw))?;
        // Secrets are moved out or overwritten, so that none remains in memory.
        for name in ["interim_id_token", "id_token"] {
            if let Some(Value::String(mut token)) = members.shift_remove(name) {
                token.zeroize();
            }
        }
        let deferred_auth_id = match members.shift_remove("deferred_auth_id") {
            // DTR §Deferred Code Exchange Response Validation: "Ensure that the `deferred_auth_id` parameter is
            // present."
            None | Some(Value::Null) => return Err(Violation::new(Rule::NoDeferredAuthId).in_document(DOCUMENT)),
            Some(Value::String(id)) if !id.is_empty() => Secret::new(id),
            Some(_) => {
                return Err(Violation::new(Rule::InvalidMember).in_document(DOCUMENT).at_member("deferred_auth_id"));
            }
        };
        let access_token = match members.shift_remove("access_token") {
            Some(Value::String(token)) if !token.is_empty() => Some(Secret::new(token)),
            _ => None,
        };
        let member = |name: &str| members.get(name).filter(|value| !value.is_null());
        let (interval, expires_in) = (member("interval"), member("expires_in"));
        if strict {
            check_seconds(interval, "interval")?;
            check_seconds(expires_in, "expires_in")?;
        }
        let times = Times {
            interval: seconds(interval, "interval", Rounding::Up),
            expires_in: seconds(expires_in, "expires_in", Rounding::Down),
        };
        Ok(Self { deferred_auth_id, times, interim, access_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Exchanged, Violation> {
        Exchanged::parse(json.as_bytes(), false)
    }

    #[test]
    fn an_exchange_response_without_deferred_auth_id_is_refused() {
        let violation = parse(r#"{"id_token": "a.b.c"}"#).err().unwrap();
        assert_eq!(violation.rule(), Rule::NoDeferredAuthId);
    }

    #[test]
    fn a_deferred_auth_id_that_is_no_string_is_refused() {
        for value in ["7", "\"\"", "{}", "[\"a\"]"] {
            let error = parse(&format!(r#"{{"deferred_auth_id": {value}}}"#)).err().unwrap();
            assert_eq!(error.rule(), Rule::InvalidMember, "{value}");
        }
    }

    #[test]
    fn a_member_that_stands_twice_with_different_values_is_refused() {
        let error = parse(r#"{"deferred_auth_id": "a", "deferred_auth_id": "b"}"#).err().unwrap();
        assert_eq!((error.rule(), error.member()), (Rule::RepeatedMember, Some("deferred_auth_id")));
        assert!(parse(r#"{"deferred_auth_id": "a", "deferred_auth_id": "a"}"#).is_ok());
    }

    fn interim(members: &str) -> Option<Result<(String, &'static str), Rule>> {
        let exchanged = parse(&format!(r#"{{"deferred_auth_id": "a", {members}}}"#)).ok().unwrap();
        let judged = exchanged.interim.judged()?;
        Some(judged.map(|interim| (interim.token.expose().to_owned(), interim.member.as_str())))
    }

    #[test]
    fn the_interim_token_is_read_under_either_name() {
        for (members, name) in [
            (r#""id_token": "x""#, "id_token"),
            (r#""interim_id_token": "x""#, "interim_id_token"),
            (r#""id_token": "x", "interim_id_token": "x""#, "interim_id_token"),
            (r#""id_token": "x", "interim_id_token": false"#, "id_token"),
            (r#""id_token": "", "interim_id_token": "x""#, "interim_id_token"),
            (r#""id_token": "x", "id_token": null"#, "id_token"),
        ] {
            assert_eq!(interim(members), Some(Ok(("x".to_owned(), name))), "{members}");
        }
    }

    #[test]
    fn what_is_no_interim_token_or_more_than_one_is_rejected_and_null_is_absent() {
        for (members, expected) in [
            (r#""id_token": null, "interim_id_token": null"#, None),
            (r#""id_token": """#, Some(Err(Rule::IdTokenMalformed))),
            (r#""interim_id_token": {}"#, Some(Err(Rule::IdTokenMalformed))),
            (r#""id_token": "x", "interim_id_token": "y""#, Some(Err(Rule::TwoInterimIdTokens))),
            (r#""id_token": "x", "id_token": "y""#, Some(Err(Rule::RepeatedMember))),
        ] {
            assert_eq!(interim(members), expected, "{members}");
        }
    }
}
