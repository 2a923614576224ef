//! `WWW-Authenticate` (RFC 9110 §11.6.1).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The `error` of a challenge of one of these schemes, the first that has one.
pub(super) fn error(headers: &HeaderMap, schemes: &[&str]) -> Option<String> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(Parameters::of).find_map(|parameter| {
        let asked_for = schemes.iter().any(|scheme| parameter.scheme.eq_ignore_ascii_case(scheme));
        (asked_for && parameter.name.eq_ignore_ascii_case("error")).then_some(parameter.value)
    })
}

struct Parameter<'a> {
    scheme: &'a str,
    name: &'a str,
    value: String,
}

/// The parameters of all challenges in one value. Challenges and their parameters are both separated by commas; a
/// token that no `=` follows begins a new challenge. The reading ends at the first thing that is neither.
struct Parameters<'a> {
    scheme: &'a str,
    rest: &'a str,
}

impl<'a> Parameters<'a> {
    fn of(value: &'a str) -> Self {
        Self { scheme: "", rest: value }
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
                    return Some(Parameter { scheme: self.scheme, name, value: self.value()? });
                }
                None => self.scheme = name,
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
    fn the_error_of_the_dpop_challenge_is_found_wherever_it_stands() {
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
