//! `WWW-Authenticate` (RFC 9110 §11.6.1).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::error::ErrorResponse;

/// The `error` of a challenge of one of these schemes, the first that has one.
pub(super) fn error(headers: &HeaderMap, schemes: &[&str]) -> Option<String> {
    parameters(headers).find_map(|parameter| {
        let asked_for = schemes.iter().any(|scheme| parameter.scheme.eq_ignore_ascii_case(scheme));
        (asked_for && parameter.name.eq_ignore_ascii_case("error")).then_some(parameter.value)
    })
}

/// The error of the first challenge for an access token that has an `error` (RFC 6750 §3, RFC 9449 §7.1).
pub(super) fn error_response(headers: &HeaderMap, status: u16) -> Option<ErrorResponse> {
    let mut challenges: Vec<Challenge> = Vec::new();
    for parameter in parameters(headers) {
        if !["DPoP", "Bearer"].iter().any(|scheme| parameter.scheme.eq_ignore_ascii_case(scheme)) {
            continue;
        }
        if parameter.is_first {
            challenges.push(Challenge::default());
        }
        let Some(challenge) = challenges.last_mut() else { continue };
        let slot = match parameter.name.to_ascii_lowercase().as_str() {
            "error" => &mut challenge.error,
            "error_description" => &mut challenge.description,
            "scope" => &mut challenge.scope,
            _ => continue,
        };
        slot.get_or_insert(parameter.value);
    }
    challenges.into_iter().find_map(|challenge| {
        let response = ErrorResponse::new(&challenge.error?, challenge.description.as_deref(), Some(status));
        Some(response.with_scope(challenge.scope.as_deref()))
    })
}

#[derive(Default)]
struct Challenge {
    error: Option<String>,
    description: Option<String>,
    scope: Option<String>,
}

/// The parameters of all challenges.
fn parameters(headers: &HeaderMap) -> impl Iterator<Item = Parameter<'_>> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(Parameters::of)
}

struct Parameter<'a> {
    /// Whether it is the first parameter of a challenge.
    is_first: bool,
    scheme: &'a str,
    name: &'a str,
    value: String,
}

/// The parameters of all challenges in one value. Challenges and their parameters are both separated by commas. A token
/// without `=` begins a new challenge. Parsing ends at the first invalid character.
struct Parameters<'a> {
    begins: bool,
    scheme: &'a str,
    rest: &'a str,
}

impl<'a> Parameters<'a> {
    fn of(value: &'a str) -> Self {
        Self { begins: false, scheme: "", rest: value }
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_token = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
        let end = self.rest.find(|character| !is_token(character)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.rest.strip_prefix('"') else { return self.token().map(str::to_owned) };
        let mut value = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => value.push(characters.next()?),
                character => value.push(character),
            }
        }
        self.rest = characters.as_str();
        Some(value)
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Parameter<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.rest = self.rest.trim_start_matches([',', ' ', '\t']);
            let name = self.token()?;
            let after = self.rest.trim_start_matches([' ', '\t']);
            match after.strip_prefix('=') {
                Some(value) => {
                    self.rest = value.trim_start_matches([' ', '\t']);
                    let is_first = std::mem::take(&mut self.begins);
                    return Some(Parameter { is_first, scheme: self.scheme, name, value: self.value()? });
                }
                None => {
                    self.begins = true;
                    self.scheme = name;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dpop_error(values: &[&str]) -> Option<String> {
        error(&values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect(), &["DPoP"])
    }

    #[test]
    fn the_error_of_the_dpop_challenge_is_found_at_any_position() {
        for value in [
            r#"DPoP error="use_dpop_nonce""#,
            r#"dpop ERROR=use_dpop_nonce"#,
            r#"DPoP realm="a, b=\"c\"", error = "use_dpop_nonce", algs="ES256 PS256""#,
            r#"Bearer realm="x", error="invalid_token", DPoP algs="ES256", error="use_dpop_nonce""#,
            r#", ,DPoP error="use_dpop_nonce",, Basic realm="x""#,
            r#"Negotiate, DPoP error="use\_dpop_nonce""#,
        ] {
            assert_eq!(dpop_error(&[value]).as_deref(), Some("use_dpop_nonce"), "{value}");
        }
        assert_eq!(dpop_error(&["Basic", "DPoP error=a"]).as_deref(), Some("a"));
    }

    fn response(values: &[&str]) -> Option<ErrorResponse> {
        error_response(&values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect(), 401)
    }

    #[test]
    fn an_error_comes_with_the_description_and_scope_of_its_own_challenge() {
        for values in [
            &[r#"Bearer realm="x", error="insufficient_scope", error_description="more, please", scope="a b""#][..],
            &[
                r#"DPoP algs="ES256", scope="c", Bearer error=insufficient_scope, scope="a b", error_description="more, please""#,
            ],
            &["Basic error=\"x\"", r#"DPoP Scope="a b", Error="insufficient_scope", error_description="more, please""#],
            &[
                r#"Bearer scope="c""#,
                r#"Bearer error="insufficient_scope", scope="a b", error_description="more, please""#,
            ],
        ] {
            let response = response(values).unwrap();
            assert_eq!(response.code(), "insufficient_scope", "{values:?}");
            assert_eq!(response.description(), Some("more, please"), "{values:?}");
            assert_eq!((response.scope(), response.status()), (Some("a b"), Some(401)), "{values:?}");
        }
    }

    #[test]
    fn a_challenge_without_an_error_or_of_another_scheme_gives_no_error() {
        for values in [&["Bearer"][..], &[r#"Bearer realm="x", scope="a""#], &[r#"Basic error="x""#], &[]] {
            assert!(response(values).is_none(), "{values:?}");
        }
    }

    #[test]
    fn texts_of_a_challenge_are_bounded_and_cleaned() {
        let long = format!("Bearer error=\"{}\", scope=\"{}\"", "e".repeat(100), "s".repeat(5_000));
        let response = response(&[&long]).unwrap();
        assert_eq!((response.code(), response.scope()), ("unprintable_error_code", None));
    }

    #[test]
    fn the_error_of_another_scheme_or_inside_a_text_does_not_count() {
        for value in [
            r#"Bearer error="use_dpop_nonce""#,
            r#"DPoP algs="ES256", Bearer error="use_dpop_nonce""#,
            r#"DPoP realm="error=use_dpop_nonce""#,
            r#"DPoP error_description="use_dpop_nonce""#,
            r#"DPoP error="use_dpop_nonce"#,
            r#"DPoP error="#,
            r#"error="use_dpop_nonce""#,
            "DPoP",
            "",
            "=",
            "\"",
        ] {
            assert_eq!(dpop_error(&[value]), None, "{value}");
        }
    }
}
