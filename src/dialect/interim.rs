//! The interim ID Token of the first answer (DTR §Interim ID Tokens).

use serde_json::Value;

use crate::error::Rule;
use crate::id_token::{InterimFingerprint, InterimMember};
use crate::json::Object;
use crate::secret::Secret;

/// The values of the members that can hold the interim ID Token.
#[derive(Default)]
pub(crate) struct InterimMembers {
    /// The different tokens of each member.
    interim_id_token: Vec<Secret>,
    id_token: Vec<Secret>,
    /// A member has a value that is not a token.
    has_others: bool,
}

impl InterimMembers {
    /// The base draft calls the early token `id_token`, the text of February 2026 `interim_id_token`.
    pub(super) fn read(object: &Object) -> Self {
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
    pub(crate) fn fingerprint(&self) -> Option<InterimFingerprint> {
        let mut tokens = self.interim_id_token.iter().chain(&self.id_token);
        let mut fingerprint = InterimFingerprint::new(tokens.next()?.expose());
        tokens.for_each(|token| fingerprint.add(token.expose()));
        Some(fingerprint)
    }

    /// The only token and its member, or the rule that rejects the members. The code is spent, so nothing about them
    /// may end the sign-in.
    pub(crate) fn judged(self) -> Option<Result<(Secret, InterimMember), Rule>> {
        let one = |token: &Secret, member| Some(Ok((token.clone(), member)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn interim(members: &str) -> Option<Result<(String, &'static str), Rule>> {
        let object = Object::parse(format!("{{{members}}}").as_bytes()).unwrap();
        let judged = InterimMembers::read(&object).judged()?;
        Some(judged.map(|(token, member)| (token.expose().to_owned(), member.as_str())))
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
    fn malformed_or_several_interim_tokens_are_rejected_and_null_counts_as_absent() {
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
