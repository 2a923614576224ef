//! Where a user returns to, without an open redirect.

use url::{Position, Url};

/// The longest path to return to, in bytes.
const LONGEST_RETURN_PATH: usize = 256;

/// A base to resolve against. `.invalid` never exists (RFC 2606 §2).
const BASE: &str = "https://return.invalid/";

/// Checks a path that a user should return to, such as the `return_to` of a form. Returns it in the form that browsers
/// would request, with its query and fragment. `None` if it is longer than 256 bytes, or if a browser could read it as a
/// URL of another site: `https://evil.example`, `//evil.example`, `/\evil.example`, or a path that becomes one of these
/// when `.` and `..` are resolved (RFC 3986 §5.2.4; WHATWG URL §4.4).
///
/// It does not check that there is such a page, or that the user may see it.
///
/// ```
/// use openid_deferred::axum::checked_return_path;
///
/// assert_eq!(checked_return_path("/orders/7?tab=2").as_deref(), Some("/orders/7?tab=2"));
/// assert_eq!(checked_return_path("//evil.example/"), None);
/// ```
pub fn checked_return_path(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.len() > LONGEST_RETURN_PATH || path.contains(char::is_control) {
        return None;
    }
    let base = Url::parse(BASE).ok()?;
    let url = base.join(path).ok().filter(|url| url.origin() == base.origin())?;
    let returned = &url[Position::BeforePath..];
    // `/.//evil.example` has the path `//evil.example`, which as a `Location` would be another host.
    let is_local = returned.len() <= LONGEST_RETURN_PATH && !returned.starts_with("//");
    is_local.then(|| returned.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_this_application_stay_as_they_are() {
        for path in
            ["/", "/orders/7", "/orders?a=b&c=%2F%2Fd", "/a//b", "/a#part", "/%5Cevil.example", "/@evil.example"]
        {
            assert_eq!(checked_return_path(path).as_deref(), Some(path));
        }
        assert_eq!(checked_return_path("/ä b").as_deref(), Some("/%C3%A4%20b"));
    }

    #[test]
    fn urls_of_other_sites_are_refused_in_every_spelling() {
        let hostile = [
            "",
            "orders",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\r\nSet-Cookie: a=b",
            "/.//evil.example",
            "/..//evil.example",
            "/a/..//evil.example",
            "/%2e//evil.example",
            "/.\\/evil.example",
            "javascript:alert(1)",
            " /orders",
            "/\u{7f}",
            "///evil.example",
            "/%2E%2e//evil.example",
            "https:/orders",
            "?a",
            "#a",
        ];
        for path in hostile {
            assert_eq!(checked_return_path(path), None, "{path:?}");
        }
        assert_eq!(checked_return_path(&format!("/{}", "a".repeat(LONGEST_RETURN_PATH))), None);
        assert_eq!(checked_return_path(&format!("/{}", "ä".repeat(100))), None, "it is too long when it is encoded");
    }

    proptest! {
        /// Whatever is accepted leads to the host that sends it, read as a browser reads it.
        #[test]
        fn no_accepted_path_leaves_the_site(path in "/[./\\\\a%2eE5cC@:?#\t -]{0,12}") {
            if let Some(accepted) = checked_return_path(&path) {
                let here = Url::parse("https://rp.example/callback?code=1").unwrap();
                let there = here.join(&accepted).unwrap();
                prop_assert_eq!(there.origin(), here.origin());
                prop_assert!(http::HeaderValue::from_str(&accepted).is_ok());
            }
        }
    }
}
